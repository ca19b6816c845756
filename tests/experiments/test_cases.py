"""The folder of small inputs that users brought, named by FEATBANK_TEST_CASES: each gives what its README asks.

A case is a list of steps: an exit code, a command, and words that it must say. ``{c}`` is the folder of cases, ``{t}``
an empty one; a bank in ``{t}`` is added to every command that takes one. Hostile inputs run in a process of their own.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from experiments.cli import main
from tests.support.fenced import run_fenced

GROUPS = "--recipe {c}/regression/ridge.toml --out {t}/run --workers 1 --permutations 0"
BASE = "{c}/regression/base.npy --band m"


class Step(NamedTuple):
    """A command, what it must return, and what must stand in its output."""

    code: int
    command: str
    words: tuple[str, ...] = ()


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

HOSTILE: dict[str, list[Step]] = {
    "hugeint.toml": [
        Step(1, "budget {c}/hostile/hugeint.toml", ("not valid TOML", "digits")),
        Step(1, "features {c}/regression/t0.csv --recipe {c}/hostile/hugeint.toml", ("not valid TOML",)),
    ],
    "latin1.csv": [
        Step(1, "bank import {c}/features/dataset.csv {c}/hostile/latin1.csv --band m", ("UTF-8",)),
        Step(1, "check {c}/hostile/latin1.csv", ("UTF-8",)),
    ],
    "spaq_wide_3kB.xlsx": [Step(1, "check {t}/spaq", ("first sheet is empty",))],
}


def _spaq(cases: Path, folder: Path) -> None:
    """Give the workbook its published name."""
    target = folder / "spaq" / "Annotations"
    target.mkdir(parents=True)
    data = (cases / "hostile" / "spaq_wide_3kB.xlsx").read_bytes()
    (target / "MOS and Image attribute scores.xlsx").write_bytes(data)


PREPARED: dict[str, Callable[[Path, Path], None]] = {"spaq_wide_3kB.xlsx": _spaq}


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
    for step in CASES[name]:
        code = main(words_of(step, cases, tmp_path))
        text = "".join(capsys.readouterr())
        assert code == step.code, text
        assert all(word in text for word in step.words), text
        assert "defect" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak memory of one process")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_input_is_refused_within_a_gigabyte_and_ten_seconds(
    name: str, cases: Path, tmp_path: Path
) -> None:
    PREPARED.get(name, lambda cases, folder: None)(cases, tmp_path)
    for step in HOSTILE[name]:
        started = time.process_time()
        done = run_fenced(words_of(step, cases, tmp_path))
        assert done.code == step.code, done.text
        assert all(word in done.text for word in step.words), done.text
        assert "defect" not in done.text
        assert "Traceback" not in done.text
        assert done.peak_bytes < 1e9
        assert done.cpu_s < 10
        assert time.process_time() - started < 10
