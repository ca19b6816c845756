"""Tables of scores that cannot be fitted: each ends in one sentence with its cause and its cure."""

from pathlib import Path

import numpy as np
import pytest

from featbank.cli import main
from tests.support.datasets import write_csv

RECIPE = """
recipe_version = 1
[[band]]
name = "m"
encoder = "imported:m"
[regression]
estimator = "{estimator}"
members = "all"
"""
FIT = ("fit",)
COMMANDS = (
    FIT,
    ("search", "--outer-folds", "0"),
    ("protocol", "repeated", "--splits", "2"),
    ("protocol", "curve", "--repeats", "2"),
)


def run(
    folder: Path,
    rows: list[tuple[object, ...]],
    header: str,
    command: tuple[str, ...] = FIT,
    estimator: str = "ridge",
    options: tuple[str, ...] = (),
) -> int:
    """Import three columns for the rows, and carry the command out on them."""
    data = str(write_csv(folder / "scores.csv", header.split(","), rows))
    (folder / "r.toml").write_text(RECIPE.format(estimator=estimator))
    features = np.random.default_rng(0).normal(size=(len(rows), 3))
    np.save(folder / "f.npy", features.astype(np.float32))
    bank = ["--bank", str(folder / "bank")]
    imported = main(["bank", "import", data, str(folder / "f.npy"), "--band", "m", "--gmacs", "0", *bank])
    arguments = [data, "--recipe", str(folder / "r.toml"), "--out", str(folder / "out"), "--workers", "1"]
    place = 2 if command[0] == "protocol" else 1
    return imported or main([*command[:place], *arguments, *command[place:], *bank, *options])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "defect" not in text
    assert "Traceback" not in text
    assert sum(line.startswith("featbank: ") for line in text.splitlines()) == 1
    return text


def table(n: int, *more: object) -> list[tuple[object, ...]]:
    return [(f"{i}.jpg", i % 17 + i / 100, *more) for i in range(n)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-3] if len(words) > 2 else words[0])
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((60,), ("group", "'a'", "Leave the column `group` out")),
        ((100, *[1] * 20), ("'a'", "holds 100", "Leave the column `group` out")),
        ((30, 30), ("group", "Leave the column `group` out")),
    ],
    ids=["one", "dominating", "two"],
)
def test_groups_that_cannot_be_folded_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    sizes: tuple[int, ...],
    words: tuple[str, ...],
) -> None:
    groups = [
        name for name, size in zip("abcdefghijklmnopqrstuvwxyz", sizes, strict=False) for _ in range(size)
    ]
    rows = [(*row, group) for row, group in zip(table(len(groups)), groups, strict=True)]
    code = run(tmp_path, rows, "path,mos,group", command)
    if command[:2] == ("protocol", "repeated") and len(sizes) > 2 and code == 0:
        return  # these splits hold out single images of 20 groups, or all of the large one
    assert code == 1
    text = said(capsys)
    if command == FIT:
        assert all(word in text for word in words)
    else:
        assert "group" in text


def test_a_large_group_that_leaves_usable_folds_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(*row, "a" if n < 20 else n) for n, row in enumerate(table(40))]
    assert run(tmp_path, rows, "path,mos,group", options=("--permutations", "0")) == 0
    assert "note: group 'a' holds 20 of the" in capsys.readouterr().err


@pytest.mark.parametrize("estimator", ["ridge", "rbf-svr"])
@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("path,mos", [], "expected one line below it"),
        ("path,mos", table(1), "too few"),
        ("path,mos", table(6), "too few"),
        ("path,mos", [(f"{i}.jpg", "") for i in range(30)], "no image has a MOS"),
        ("path,mos", [(f"{i}.jpg", 3) for i in range(30)], "have the MOS 3"),
        ("path,mos", [(f"{i}.jpg", i * 1e-320) for i in range(30)], "tiny numbers"),
        ("path,mos", [(f"{i}.jpg", i * 1e300) for i in range(30)], "1e+09"),
        ("path,mos", [(f"{i}.jpg", "good") for i in range(30)], "finite numbers"),
        ("path,mos", [(f"{i}.jpg", "inf") for i in range(30)], "finite numbers"),
        ("path,mos", [(f"{i % 3}.jpg", i) for i in range(30)], "lines 2 and 5"),
        ("path,mos,split", table(30, "test"), "no row has the split 'training'"),
        ("path,mos,split", [(*r, "test" if n else "training") for n, r in enumerate(table(30))], "too few"),
    ],
)
def test_rows_that_teach_nothing_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    estimator: str,
    header: str,
    rows: list[tuple[object, ...]],
    words: str,
) -> None:
    assert run(tmp_path, rows, header, estimator=estimator, options=("--permutations", "0")) == 1
    assert words in said(capsys)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1", "1e400"])
@pytest.mark.parametrize("option", ["--test-fraction", "--confidence", "--permutations", "--memory-limit"])
def test_options_out_of_their_range_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    if value == "1" and option in {"--permutations", "--memory-limit"}:
        pytest.skip("a fine value here")
    assert main(["fit", str(tmp_path), option, value]) == 2
    assert option in capsys.readouterr().err
