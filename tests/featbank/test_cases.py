"""The folder of small inputs that users brought, named by FEATBANK_TEST_CASES: each gives what its README asks.

A case is a list of steps: an exit code, a command, and words that it must say. ``{c}`` is the folder of cases, ``{t}``
an empty one; a bank in ``{t}`` is added to every command that takes one. Hostile inputs run in a process of their own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from featbank.bank import Bank
from featbank.cli import main
from featbank.datasets import read_dataset
from featbank.errors import ImageError
from featbank.images import read_photo
from featbank.table import build_table, resolve_band
from tests.support.datasets import touch
from tests.support.fenced import run_fenced

GROUPS = "--recipe {c}/regression/ridge.toml --out {t}/run --workers 1 --permutations 0"
BASE = "{c}/regression/base.npy --band m"


class Step(NamedTuple):
    """A command, what it must return, what must stand in its output, and what must not."""

    code: int
    command: str
    words: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


CASES: dict[str, list[Step]] = {
    f"regression/{name}": [
        Step(0, f"bank import {{c}}/regression/{name}.csv {BASE}"),
        Step(1, f"fit {{c}}/regression/{name}.csv {GROUPS}", words),
    ]
    for name, words in {
        "group_one": ("one group, 'a'", "Leave the column `group` out"),
        "group_dominant": ("'a' holds 100 of the 104", "more than a fold", "Leave the column `group` out"),
        "group_two": ("need as many groups", "Leave the column `group` out"),
    }.items()
}

_FIT = "--recipe {c}/collision/m.toml --workers 1 --permutations 0"
CASES |= {
    "collision": [
        Step(0, "bank import {c}/collision/koniq/scores.csv {c}/collision/koniq/feats.npy --band m"),
        Step(1, f"fit {{c}}/collision/spaq/scores.csv --out {{t}}/spaq {_FIT}", ("no imported band 'm'",)),
        Step(0, "bank import {c}/collision/spaq/scores.csv {c}/collision/spaq/feats.npy --band m --replace"),
        Step(0, f"fit {{c}}/collision/spaq/scores.csv --out {{t}}/spaq {_FIT}"),
        Step(
            0, f"fit {{c}}/collision/koniq/scores.csv --out {{t}}/koniq {_FIT}", ("80 images", "SRCC 1.0000")
        ),
        Step(
            0,
            f"fit {{c}}/collision/koniq/scores_clean.csv --out {{t}}/clean {_FIT}",
            ("72 images", "SRCC 1.0000"),
        ),
    ],
    "features/transposed.npy": [
        Step(
            1, "bank import {c}/features/dataset.csv {c}/features/transposed.npy --band m", ("--transpose",)
        ),
        Step(
            0,
            "bank import {c}/features/dataset.csv {c}/features/transposed.npy --band m --transpose",
            ("by position",),
        ),
    ],
}

CASES |= {
    f"regression/{name}": [
        Step(0, f"bank import {{c}}/regression/{name}.csv {{c}}/regression/{features}.npy --band m"),
        Step(
            0,
            f"fit {{c}}/regression/{name}.csv --recipe {{c}}/regression/{recipe}.toml --out {{t}}/run --workers 1",
            words,
            never,
        ),
    ]
    for name, features, recipe, words, never in (
        (
            "mos_third_missing",
            "base",
            "ridge",
            ("80 of 120 rows have a MOS; 40 without one were left out: i0.jpg, i3.jpg",),
            ("ALARM",),
        ),
        ("mos_two_values", "mos_two_values", "ridge", (), ("ALARM",)),
        ("dup_features", "dup_features", "svr", (), ("ALARM",)),
        ("t0", "t0", "svr", (), ("ALARM",)),
    )
}

_CHECK = "check {t}/csv/%s --no-decode"
_TWELVE = ("12 present, 0 missing", "MOS scale 2.5 to 3.6")
CASES |= {
    f"csv/{name}": [Step(0, _CHECK % name, (*_TWELVE, *words))]
    for name, words in {
        "02_excel_de.csv": ("semicolons between columns; decimal commas in 'mos'",),
        "04_sep_line.csv": ("semicolons between columns",),
        "06_backslash.csv": ("12 with / for \\",),
        "11_index_col.csv": ("a column of row numbers left out",),
        "18_comment_lines.csv": ("comment lines left out: 1",),
        "24_upper_ext.csv": ("in another case",),
        "25_no_ext.csv": ("12 with their ending added",),
        "31_space_sep.txt": ("blanks between columns",),
        "33_split_words.csv": ("train as training", "training       8", "test           4"),
    }.items()
} | {
    "csv/03_cp1252.csv": [
        Step(1, _CHECK % "03_cp1252.csv", ("UTF-8", "--encoding cp1252")),
        Step(0, _CHECK % "03_cp1252.csv --encoding cp1252", _TWELVE),
    ],
    "csv/07_windows_abs.csv": [
        Step(1, _CHECK % "07_windows_abs.csv", ("Windows", "--images DIR")),
        Step(0, _CHECK % "07_windows_abs.csv --images {t}/csv/img", _TWELVE),
    ],
    "csv/40_nul.csv": [Step(1, _CHECK % "40_nul.csv", ("line 5 holds a NUL character",))],
}

HOSTILE: dict[str, list[Step]] = {
    "segv_one_byte.mat": [
        Step(
            1, "bank import {c}/features/dataset.csv {c}/hostile/segv_one_byte.mat --band m", ("is damaged",)
        )
    ],
    "token.npy": [
        Step(1, "bank import {c}/features/dataset.csv {c}/hostile/token.npy --band m", ("cannot be read",))
    ],
    "bomb.parquet": [
        Step(
            1,
            "bank import {c}/features/dataset.csv {c}/hostile/bomb.parquet --band m",
            ("made to fill the memory",),
        ),
        Step(
            1,
            "bank import {c}/features/dataset.csv {c}/hostile/bomb.parquet --band m --names-in junk",
            ("made to fill the memory",),
        ),
    ],
    "imp3.npy": [
        Step(0, "bank import {t}/64.csv {t}/64.npy --band m"),
        Step(
            1,
            "bank import {t}/64.csv {c}/hostile/imp3.npy --band m --replace",
            ("1e+300", "Nothing was imported"),
        ),
        Step(0, "bank ls", ("64    20",)),
        Step(0, "bank verify"),
    ],
    "hugeint.toml": [
        Step(1, "budget {c}/hostile/hugeint.toml", ("not valid TOML", "digits")),
        Step(1, "features {c}/regression/t0.csv --recipe {c}/hostile/hugeint.toml", ("not valid TOML",)),
    ],
    "latin1.csv": [
        Step(1, "bank import {c}/features/dataset.csv {c}/hostile/latin1.csv --band m", ("UTF-8",)),
        Step(1, "check {c}/hostile/latin1.csv", ("UTF-8",)),
    ],
    "SEGV_svr_shrink.skops": [
        Step(1, "score {c}/hostile/SEGV_svr_shrink.skops {c}/images/base.png", ("not trusted",)),
    ],
    "spaq_wide_3kB.xlsx": [Step(1, "check {t}/spaq", ("Save its first sheet as CSV",))],
}


def _spaq(cases: Path, folder: Path) -> None:
    """Give the workbook its published name."""
    target = folder / "spaq" / "Annotations"
    target.mkdir(parents=True)
    data = (cases / "hostile" / "spaq_wide_3kB.xlsx").read_bytes()
    (target / "MOS and Image attribute scores.xlsx").write_bytes(data)


def _sixty_four(cases: Path, folder: Path) -> None:
    """Make a table for as many rows as the hostile file has, and sound features for it."""
    (folder / "64.csv").write_text("path,mos\n" + "".join(f"{k}.jpg,{k % 7}\n" for k in range(64)))
    np.save(folder / "64.npy", np.ones((64, 20)))


PREPARED: dict[str, Callable[[Path, Path], None]] = {
    "spaq_wide_3kB.xlsx": _spaq,
    "imp3.npy": _sixty_four,
}


def _csv(cases: Path, folder: Path) -> None:
    """Lay the twelve images beside the tables."""
    shutil.copytree(cases / "csv", folder / "csv", copy_function=shutil.copyfile)
    (folder / "csv").chmod(0o755)
    for number in range(12):
        touch(folder / f"csv/img/p{number:02d}.jpg")


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = os.environ.get("FEATBANK_TEST_CASES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the folder of cases: set FEATBANK_TEST_CASES to it")
    return Path(folder)


def words_of(step: Step, cases: Path, folder: Path) -> list[str]:
    words = [word.format(c=cases, t=folder) for word in shlex.split(step.command)]
    return (
        [*words, "--bank", str(folder / "bank")]
        if words[0] in {"bank", "features", "fit", "score"}
        else words
    )


@pytest.mark.parametrize("name", CASES)
def test_a_case_gives_what_is_asked(
    name: str, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("csv/"):
        _csv(cases, tmp_path)
    for step in CASES[name]:
        code = main(words_of(step, cases, tmp_path))
        text = "".join(capsys.readouterr())
        assert code == step.code, text
        assert all(word in text for word in step.words), text
        assert not any(word in text for word in ("defect", *step.never)), text


@pytest.mark.parametrize(
    "name", ["mat_cellnames_reversed.mat", "plain.npy", "*_bytes_*.npz", "*_str_*.npz", "*_object_*.npz"]
)
def test_rows_go_to_the_images_they_name(
    name: str, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = (cases / "features").glob(name)
    data, bank = cases / "features/dataset.csv", tmp_path / "bank"
    code = main(["bank", "import", str(data), str(path), "--band", "m", "--bank", str(bank)])
    text = "".join(capsys.readouterr())
    if "object" in name:
        assert code == 1
        assert "Python objects" in text
        return
    assert code == 0
    assert f"matched by {'position' if name == 'plain.npy' else 'name'}" in text
    table = read_dataset(data)
    X = build_table(table, [resolve_band(Bank(bank), table, "m", "imported:m")], Bank(bank), "").X
    assert X["m:0000"].to_dict() == {f"p{k:02d}.jpg": k for k in range(12)}


# Most levels from the reference picture in the mean; where there is a reason too, either will do.
IMAGES: dict[str, tuple[float | None, str]] = {
    "*": (3, ""),
    "avif_p3_*": (2, ""),
    "png_cicp_*": (2, ""),
    "png_exif*": (0, ""),
    "avif_pq*": (None, "unsupported"),
    "avif_hlg*": (None, "unsupported"),
    "tiff_*": (1, "unsupported"),
    "*.tga": (1, "unsupported"),
    "*.bmp": (1, "unsupported"),
    "*.hei?": (3, "not-installed"),
    "*.jxl": (3, "not-installed"),
}


def test_every_wrapping_shows_the_picture_or_says_why_not(
    cases: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Image.open(cases / "images/base.png") as image:
        base = np.asarray(image.convert("RGB")).astype(int)
    for path in sorted((cases / "images").iterdir()):
        levels, reason = [IMAGES[kind] for kind in IMAGES if fnmatch(path.name, kind)][-1]
        refused = ""
        try:
            photo = read_photo(path)
        except ImageError as error:
            refused = error.reason
        if refused or levels is None:
            assert refused == reason, path
            continue
        assert photo.pixels.shape == base.shape, path
        assert np.abs(photo.pixels - base).mean() <= levels, path
        if photo.format == "JPEG" and not any(action.startswith("icc:") for action in photo.actions):
            with Image.open(path) as image:
                assert np.array_equal(photo.pixels, np.asarray(image)), path
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak memory of one process")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_input_is_refused_within_a_gigabyte_and_ten_seconds(
    name: str, cases: Path, tmp_path: Path
) -> None:
    PREPARED.get(name, lambda cases, folder: None)(cases, tmp_path)
    for step in HOSTILE[name]:
        done = run_fenced(words_of(step, cases, tmp_path))
        assert done.code == step.code, done.text
        assert all(word in done.text for word in step.words), done.text
        assert "defect" not in done.text
        assert "Traceback" not in done.text
        assert done.peak_bytes < 1e9
        assert done.cpu_s < 60  # ten seconds, and the imports of a busy machine


def test_no_table_of_the_folder_is_left_out(cases: Path) -> None:
    assert {f"csv/{path.name}" for path in (cases / "csv").iterdir()} <= CASES.keys()
