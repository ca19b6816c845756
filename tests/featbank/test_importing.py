"""Imported features serve the images they were made for, whatever their table is called."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbank.bank import Bank
from featbank.cli import main
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import BankError, DatasetError, MissingFeaturesError
from featbank.importing import find_imported, import_features
from featbank.table import build_table, resolve_band

NAMES = [f"img/{number}.jpg" for number in range(6)]


def write(path: Path, names: list[str] = NAMES, mos: float = 1.0) -> ImageTable:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"path": names, "mos": mos}).to_csv(path, index=False)
    return read_dataset(path)


def write_photos(folder: Path, start: int) -> None:
    """Files that differ from folder to folder; nobody decodes them."""
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"photo {start + number}")


def bring(table: ImageTable, bank: Bank, value: float, *, replace: bool = False, source: str = "") -> None:
    """Import a band whose first column is ``value`` and whose second is the row's number in the table."""
    matrix = np.stack([np.full(table.n_images, value), np.arange(table.n_images)], axis=1)
    import_features(table, bank, "m", None, matrix, source_digest=source or f"{value}", replace=replace)


def served(table: ImageTable, bank: Bank) -> list[list[float]]:
    X = build_table(table, [resolve_band(bank, table, "m", "imported:m")], bank, "again").X
    assert X.index.tolist() == table.frame["image_id"].tolist()
    return X.to_numpy().tolist()


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "bank")


@pytest.mark.parametrize("has_photos", [False, True])
def test_equal_names_in_another_folder_are_other_images(tmp_path: Path, bank: Bank, has_photos: bool) -> None:
    if has_photos:
        write_photos(tmp_path / "a", 0)
        write_photos(tmp_path / "b", 100)
    a, b = write(tmp_path / "a/scores.csv"), write(tmp_path / "b/scores.csv")
    bring(a, bank, 1)
    with pytest.raises(MissingFeaturesError, match=r"for the images of .*/b; .* m \(csv:scores in .*/a\)\."):
        served(b, bank)
    bring(b, bank, 2, replace=True)
    assert served(a, bank) == [[1, k] for k in range(6)]
    assert served(b, bank) == [[2, k] for k in range(6)]


@pytest.mark.parametrize("has_photos", [False, True])
def test_a_cleaned_table_keeps_its_features_and_the_log_says_so(
    tmp_path: Path, bank: Bank, caplog: pytest.LogCaptureFixture, has_photos: bool
) -> None:
    if has_photos:
        write_photos(tmp_path, 0)
    bring(write(tmp_path / "scores.csv"), bank, 1)
    clean = write(tmp_path / "scores_clean.csv", NAMES[:0:-2])
    assert served(clean, bank) == [[1, 5], [1, 3], [1, 1]]
    assert (
        "band m: 3 of the 3 images are among those that features were imported for: m (csv:scores"
        in caplog.text
    )
    further = write(tmp_path / "more.csv", [NAMES[4], "img/new.jpg"])
    assert served(dataclasses.replace(further, frame=further.frame[:1]), bank) == [[1, 4]]


def test_the_same_images_are_the_same_table(
    tmp_path: Path, bank: Bank, caplog: pytest.LogCaptureFixture
) -> None:
    """Name of the CSV, order of the rows, MOS and the spelling of a path say nothing of who the images are."""
    a = write(tmp_path / "scores.csv")
    bring(a, bank, 1)
    again = write(tmp_path / "renamed.csv", NAMES[::-1], mos=3.0)
    spelled = write(tmp_path / "deep/x.csv", [f"../img/./{number}.jpg" for number in range(6)])
    absolute = write(tmp_path / "else/x.csv", [str(tmp_path / name) for name in NAMES])
    elsewhere = read_dataset(write(tmp_path / "other/x.csv").root / "x.csv", images=tmp_path)
    for table in (again, spelled, absolute, elsewhere):
        values = served(table, bank)
        assert sorted(values) == [[1, k] for k in range(6)]
        with pytest.raises(BankError, match="exists already"):
            bring(table, bank, 2)
    assert served(again, bank) == [[1, k] for k in range(5, -1, -1)]
    assert not caplog.text
    bring(again, bank, 2, replace=True)
    assert served(a, bank) == [[2, k] for k in range(5, -1, -1)]
    assert len(bank.features()) == 1


def test_photos_keep_their_features_when_their_folder_moves(tmp_path: Path, bank: Bank) -> None:
    write_photos(tmp_path / "a", 0)
    bring(write(tmp_path / "a/scores.csv"), bank, 1)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert served(read_dataset(tmp_path / "b/scores.csv"), bank) == [[1, k] for k in range(6)]


def test_photos_that_arrive_later_keep_what_was_imported_for_them(tmp_path: Path, bank: Bank) -> None:
    table = write(tmp_path / "scores.csv")
    bring(table, bank, 1)
    write_photos(tmp_path, 0)
    assert served(read_dataset(tmp_path / "scores.csv"), bank) == [[1, k] for k in range(6)]


def test_a_published_dataset_is_known_by_its_name(tmp_path: Path, bank: Bank) -> None:
    one = dataclasses.replace(write(tmp_path / "a/scores.csv"), name="koniq10k", names_in="")
    other = dataclasses.replace(write(tmp_path / "b/scores.csv"), name="koniq10k", names_in="")
    bring(one, bank, 1)
    assert served(other, bank) == [[1, k] for k in range(6)]
    with pytest.raises(MissingFeaturesError, match=r"m \(dataset koniq10k\)"):
        served(dataclasses.replace(one, name="spaq"), bank)


def test_several_imports_serve_a_third_table_only_where_they_agree(tmp_path: Path, bank: Bank) -> None:
    a, b = write(tmp_path / "a.csv", NAMES[:4]), write(tmp_path / "b.csv")
    c = write(tmp_path / "c.csv", NAMES[1:3])
    bring(a, bank, 1)
    bring(b, bank, 1, source="another file")
    assert served(c, bank) == [[1, 1], [1, 2]]
    bring(b, bank, 2, replace=True)
    assert (served(a, bank)[0], served(b, bank)[0]) == ([1, 0], [2, 0])
    with pytest.raises(BankError, match=r"different numbers .*a in .*--replace"):
        served(c, bank)
    bring(c, bank, 3)
    assert served(c, bank) == [[3, 0], [3, 1]]
    assert (served(a, bank)[0], served(b, bank)[0]) == ([1, 0], [2, 0])


@pytest.mark.parametrize("value", [1e300, np.nan, -np.inf])
def test_one_unusable_number_changes_nothing(tmp_path: Path, bank: Bank, value: float) -> None:
    table = write(tmp_path / "scores.csv")
    bring(table, bank, 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").rglob("*") if path.is_file()}
    matrix = np.ones((6, 2))
    matrix[4, 1] = value
    with pytest.raises(BankError, match=r"'img/4.jpg', column 1 .* Nothing was imported"):
        import_features(table, bank, "m", None, matrix, source_digest="new", replace=True)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").rglob("*") if path.is_file()}
    assert after == before
    assert served(table, bank) == [[1, k] for k in range(6)]


def test_each_row_needs_a_name(tmp_path: Path, bank: Bank) -> None:
    table = write(tmp_path / "scores.csv")
    for names in (NAMES[:5], [*NAMES, NAMES[0]]):
        with pytest.raises(DatasetError, match="6 rows needs one name"):
            import_features(table, bank, "m", names, np.ones((6, 2)), source_digest="x")
    with pytest.raises(DatasetError, match="--transpose"):
        import_features(table, bank, "m", None, np.ones((2, 6)), source_digest="x")


def test_an_import_of_an_earlier_version_serves_photos_by_their_bytes_or_asks_for_a_new_one(
    tmp_path: Path, bank: Bank
) -> None:
    """Such an import knew its table by the name of the CSV alone, and an image without a file by that and its name."""
    table = write(tmp_path / "scores.csv")
    bring(dataclasses.replace(table, names_in=""), bank, 1)
    assert bank.features()[0].identity["dataset"] == "csv:scores"
    with pytest.raises(MissingFeaturesError, match="Bring it with `featbank bank import"):
        find_imported(bank, table, "m")
    write_photos(tmp_path / "b", 0)
    table = write(tmp_path / "b/photos.csv")
    bring(dataclasses.replace(table, names_in=""), bank, 2)
    assert served(table, bank) == [[2, k] for k in range(6)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_fills_at_any_moment_of_a_replacement_leaves_the_earlier_import(tmp_path: Path) -> None:
    table = write(tmp_path / "scores.csv")
    bring(table, Bank(tmp_path / "before"), 1)
    before = contents(tmp_path / "before")
    for moment in itertools.count():
        shutil.rmtree(tmp_path / "bank", ignore_errors=True)
        shutil.copytree(tmp_path / "before", tmp_path / "bank")
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, moment)
            with contextlib.suppress(BankError):
                bring(table, Bank(tmp_path / "bank"), 2, replace=True)
        if disk.n_calls <= moment:
            break
        assert contents(tmp_path / "bank") == before
        bank = Bank(tmp_path / "bank")
        assert served(table, bank)[0][0] == 1
        bring(table, bank, 2, replace=True)
        assert served(table, bank) == [[2, k] for k in range(6)]
        assert len(bank.features()) == 1
        assert not bank.verify()
        assert not list((tmp_path / "bank").rglob(".*"))
    assert moment > 8


class FullDisk:
    """From some call on, everything that takes room fails; what frees room does not."""

    def __init__(self, patch: pytest.MonkeyPatch, moment: int) -> None:
        self.n_calls, self.moment = 0, moment
        for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir")):
            patch.setattr(module, name, self._filling(getattr(module, name), lambda *_: True))
        patch.setattr(os, "open", self._filling(os.open, lambda path, flags, *_: flags & os.O_CREAT))
        patch.setattr(io, "open", self._filling(io.open, lambda path, mode="r", *_: "r" not in mode))

    def _filling(self, function: Callable[..., Any], takes_room: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if takes_room(*args):
                self.n_calls += 1
                if self.n_calls > self.moment:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return call


def test_a_superset_of_the_images_is_fine_and_the_others_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "scores.csv")
    matrix = np.arange(16, dtype=np.float32).reshape(8, 2)
    np.save(tmp_path / "f.npy", matrix)
    # A list as Windows saves it: a mark, backslashes, endings left out; two images that the dataset does not have.
    names = ["img\\9", *(f"img\\{number}" for number in range(5, -1, -1)), "other"]
    (tmp_path / "names.txt").write_text("\ufeff" + "\r\n".join(names))
    command = ["bank", "import", str(tmp_path / "scores.csv"), str(tmp_path / "f.npy"), "--band", "m"]
    command += ["--bank", str(tmp_path / "bank"), "--names", str(tmp_path / "names.txt")]
    assert main(command) == 0
    assert "2 rows are of images that the dataset does not have" in capsys.readouterr().out
    assert served(table, Bank(tmp_path / "bank")) == matrix[6:0:-1].tolist()
    # Where an image is without a row as well, the strange name may be that image misspelt.
    (tmp_path / "names.txt").write_text("\n".join(["img/typo", *names[2:]]) + "\nmore\n")
    assert main([*command, "--replace"]) == 1
    said = capsys.readouterr().err
    assert "'img/typo' means no image" in said
    assert "'img/5.jpg' has no row" in said


def test_crops_of_an_array_are_learned_from_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 60).round(3)
    pd.DataFrame({"path": [f"{i}.jpg" for i in range(60)], "mos": mos}).to_csv(
        tmp_path / "scores.csv", index=False
    )
    crops = mos[:, None, None] + rng.normal(size=(60, 3, 4))
    np.save(tmp_path / "crops.npy", crops)
    recipe = """
recipe_version = 1
title = "Crops"
[[band]]
name = "m"
encoder = "imported:m"
aggregate = "concat"
[regression]
rows = "crops"
cv = { n_splits = 3 }
"""
    (tmp_path / "crops.toml").write_text(recipe)
    bank = ["--bank", str(tmp_path / "bank")]
    data = str(tmp_path / "scores.csv")
    assert main(["bank", "import", data, str(tmp_path / "crops.npy"), "--band", "m", *bank]) == 0
    assert "3 crops" in capsys.readouterr().out
    command = ["fit", data, "--recipe", str(tmp_path / "crops.toml"), "--workers", "1", "--permutations", "0"]
    assert main([*command, "--out", str(tmp_path / "run"), *bank]) == 0
    judged = pd.read_csv(tmp_path / "run/predictions.csv").query("split == 'test'")
    assert judged["predicted"].corr(judged["mos"]) > 0.8
    capsys.readouterr()
    command = ["bank", "import", data, str(tmp_path / "crops.npy"), "--band", "mean", "--average-crops"]
    assert main([*command, *bank]) == 0
    assert "60 rows x 4 columns" in capsys.readouterr().out


def test_a_partial_export_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "scores.csv")
    write_photos(tmp_path, 0)
    (tmp_path / NAMES[5]).unlink()
    bank = Bank(tmp_path / "bank")
    import_features(table, bank, "m", NAMES[:4], np.ones((4, 2)), source_digest="x")
    (tmp_path / "m.toml").write_text(
        'recipe_version = 1\ntitle = "m"\n[[band]]\nname = "m"\nencoder = "imported:m"\n'
    )
    command = ["bank", "export", str(tmp_path / "out.csv"), "--data", str(tmp_path / "scores.csv")]
    command += ["--recipe", str(tmp_path / "m.toml"), "--bank", str(tmp_path / "bank")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 images x 2 columns" in said
    assert "missing: 2 of 6 images: 1 missing (img/5.jpg); 1 not computed (img/4.jpg)" in said
    assert "compute them with `featbank features" in said
    assert len(pd.read_csv(tmp_path / "out.csv")) == 4


def test_columns_of_names_and_folders_are_imported_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "scores.csv")
    for number, name in enumerate(NAMES):
        (tmp_path / "feats/img").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"feats/{name}.npy", np.full(3, float(number)))
    frame = pd.DataFrame({"who": NAMES[::-1], "other": "x", "a": np.arange(6.0)[::-1]})
    frame.to_feather(tmp_path / "t.feather")
    for file, options in (("feats", []), ("t.feather", ["--names-column", "who"])):
        command = [
            "bank",
            "import",
            str(tmp_path / "scores.csv"),
            str(tmp_path / file),
            "--band",
            "m",
            *options,
        ]
        assert main([*command, "--bank", str(tmp_path / file) + "-bank", "--json"]) == 0
        assert '"matched_by": "name"' in capsys.readouterr().out
        rows = served(table, Bank(tmp_path / f"{file}-bank"))
        assert [row[0] for row in rows] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_backslashes_in_a_table_name_the_same_images(tmp_path: Path, bank: Bank) -> None:
    windows = write(tmp_path / "windows.csv", [name.replace("/", "\\") for name in NAMES])
    matrix = np.arange(12, dtype=np.float32).reshape(6, 2)
    import_features(windows, bank, "m", [f"img/{number}" for number in range(6)], matrix, source_digest="x")
    assert served(windows, bank) == matrix.tolist()
    assert served(write(tmp_path / "clean.csv"), bank) == matrix.tolist()
