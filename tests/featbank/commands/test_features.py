"""``features --shard``: the parts together are the whole, also when they run at once into one bank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featbank.bank import Bank
from featbank.cli import main
from tests.support.bank_rows import contents
from tests.support.datasets import write_csv, write_image

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[[band]]
name = "keypoint"
encoder = "classic:keypoint"
view = "center_16"
[regression]
alpha = [1.0]
"""
CACHES = ("extractions.jsonl", "stat-cache.arrow", "known-features.json")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Thirty photos, of which one is broken and two are the same, and a recipe."""
    for n in range(30):
        write_image(tmp_path / f"{n}.png", seed=min(n, 28))
    broken = tmp_path / "7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    write_csv(tmp_path / "scores.csv", ["path", "mos"], [(f"{n}.png", 1.0 + n / 10) for n in range(30)])
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def command(project: Path, bank: str, *more: str) -> list[str]:
    recipe = str(project / "recipe.toml")
    return [
        "features", str(project / "scores.csv"), "--recipe", recipe, "--bank", str(project / bank),
        "--workers", "1", "--json", *more,
    ]  # fmt: skip


def compacted(bank: Path) -> dict[str, bytes]:
    """Every byte of a compacted bank but the logs of times, which no two runs share."""
    assert Bank(bank).verify() == []
    Bank(bank).compact()
    return {name: data for name, data in contents(bank).items() if name not in CACHES}


def test_two_parts_at_once_make_the_bank_of_one_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(project, "whole")) == 0
    whole = json.loads(capsys.readouterr().out)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "featbank", *command(project, "parts", "--shard", f"{part}/2")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    parts = [json.loads(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert all(0 < part["computed"] < whole["computed"] for part in parts)
    assert [part["shard"] for part in parts] == ["0/2", "1/2"]
    assert sum(len(part["failures"]) for part in parts) == len(whole["failures"]) == 1
    assert compacted(project / "parts") == compacted(project / "whole")

    assert main(command(project, "parts")) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 0


def test_a_part_that_gets_no_image_is_done(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for part in range(40):
        code = main(command(project, "bank", "--shard", f"{part}/40"))
        document = json.loads(capsys.readouterr().out)
        counts.append(document["images"])
        assert code == int(len(document["failures"]) == document["images"] > 0)
    assert sum(counts) == 30
    assert 0 in counts


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "0/0", "1/2/3", ""])
def test_parts_that_cannot_be_are_usage_errors(
    text: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(project, "bank", f"--shard={text}")) == 2
    assert "0/2" in capsys.readouterr().err
    assert not (project / "bank").exists()


def test_a_file_changed_in_place_is_computed_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--rehash",)):
        main(command(project, "bank"))
        capsys.readouterr()
        write_image(project / "3.png", seed=77 + len(more))
        assert main(command(project, "bank", *more)) == 0
        assert json.loads(capsys.readouterr().out)["computed"] == 1
