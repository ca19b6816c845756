"""What is exported is what is stored, bit for bit, whichever tool reads it."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featbank.bank import FeatureFolder, export, write_features
from featbank.bank.imported import read_feature_file
from featbank.errors import BankError, OutputError
from tests.support.bank_rows import fill, image_keys, names_in, open_feature, rows_of

SUFFIXES = [".csv", ".parquet", ".npz"]


@pytest.fixture
def bands(tmp_path: Path) -> dict[str, FeatureFolder]:
    found = {
        name: open_feature(tmp_path / "bank", width, name=name) for name, width in (("nss", 3), ("gist", 5))
    }
    fill(found["nss"], range(20))
    fill(found["gist"], range(16))
    return found


def write(bands: dict[str, FeatureFolder], path: Path, keys: dict[str, str] | None = None) -> Path:
    """Write the rows of named images, by default of all that the bands have in common."""
    keys = keys or {key: key for key in sorted(set.intersection(*(f.keys() for f in bands.values())))}
    columns = [f"{name}:{i:04d}" for name, folder in bands.items() for i in range(folder.n_features)]
    blocks = [folder.read(list(keys.values())).astype(np.float64) for folder in bands.values()]
    return write_features(
        path, pd.DataFrame(np.concatenate(blocks, axis=1), index=list(keys), columns=columns)
    )


def read_back(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read an export with the tools others would use."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        return list(arrays.pop("image_id")), arrays
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            titles, *lines = csv.reader(file)
        rows = [dict(zip(titles, line, strict=True)) for line in lines]
    else:
        rows = pd.read_parquet(path).to_dict("records")
    bands = {title.split(":")[0]: [t for t in rows[0] if t.startswith(title[:3])] for title in rows[0]}
    names = [str(row["image_id"]) for row in rows]
    bands.pop("image_id")
    return names, {
        band: np.array([[float(row[title]) for title in titles] for row in rows], dtype=np.float32)
        for band, titles in bands.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("at_once", [3, 4096])
def test_features_come_back_bit_for_bit_under_their_image_names(
    bands: dict[str, FeatureFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    at_once: int,
) -> None:
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", at_once)
    keys = {f'n{number}, "x"\n.jpg': key for number, key in enumerate(image_keys(range(15, 5, -1)))}
    path = write(bands, tmp_path / f"out{suffix}", keys)
    names, matrices = read_back(path)
    assert names == list(keys)
    assert list(matrices) == ["nss", "gist"]
    for band, folder in bands.items():
        assert matrices[band].tobytes() == rows_of(list(keys.values()), folder.n_features).tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_can_be_imported_band_by_band(
    bands: dict[str, FeatureFolder], tmp_path: Path, suffix: str
) -> None:
    path = write(bands, tmp_path / f"out{suffix}")
    with pytest.raises(BankError, match="--variable"):
        read_feature_file(path)
    found = read_feature_file(path, variable="gist")
    assert found.names == sorted(image_keys(range(16)))
    assert np.array_equal(found.matrix.astype(np.float32), rows_of(found.names))


def test_numbers_that_need_double_precision_keep_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a:0000": [0.1, 1 / 3]}, index=["x", "y"])
    for suffix in SUFFIXES:
        path = write_features(tmp_path / f"out{suffix}", frame)
        found = read_feature_file(path, variable="a").matrix
        assert found.dtype == np.float64
        assert found[:, 0].tolist() == [0.1, 1 / 3]


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (pd.DataFrame({"a:0000": [1.0], "mos": [2.0]}, index=["x"]), "band:0000"),
        (pd.DataFrame({"a:0001": [1.0]}, index=["x"]), "a:0001"),
        (pd.DataFrame({"a:0000": [1.0], "b:0000": [1.0], "a:0001": [1.0]}, index=["x"]), "band by band"),
        (pd.DataFrame({"a:0000": ["text"]}, index=["x"]), "must be numbers"),
        (pd.DataFrame({"a:0000": [1.0, 2.0]}, index=["x", "x"]), "each once"),
        (pd.DataFrame({"a:0000": []}, dtype=float), "at least one image"),
        (pd.DataFrame({"image_id:0000": [1.0]}, index=["x"]), "must not be called"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path: Path, frame: pd.DataFrame, match: str) -> None:
    with pytest.raises(BankError, match=match):
        write_features(tmp_path / "out.csv", frame)
    assert names_in(tmp_path) == []


def test_an_unknown_format_is_refused(bands: dict[str, FeatureFolder], tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"must end with \.csv"):
        write(bands, tmp_path / "out.xlsx")
    assert names_in(tmp_path) == ["bank"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_export_leaves_the_earlier_file(
    bands: dict[str, FeatureFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("not an export")
    with pytest.raises(OutputError, match="holds something else"):
        write(bands, path)
    assert path.read_text() == "not an export"
    path.write_text("")
    write(bands, path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="the disk is full"):
            write(bands, path)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["bank", path.name]
    write(bands, path)
    assert len(read_back(path)[0]) == 16


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_really_full_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    path = tmp_path / f"out{suffix}"
    values = np.ones((1, 3000), np.float32)

    @contextlib.contextmanager
    def full(*arguments: object) -> Iterator[Path]:
        yield tmp_path / f"full{suffix}"

    (tmp_path / f"full{suffix}").symlink_to("/dev/full")
    monkeypatch.setattr(export, "replacing", full)
    frame = pd.DataFrame(values, index=["x"], columns=[f"a:{i:04d}" for i in range(3000)])
    with pytest.raises(OSError, match="No space left") as caught:
        write_features(path, frame)
    assert caught.value.errno == errno.ENOSPC
    assert not path.exists()
