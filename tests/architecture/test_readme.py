"""Every command of the README runs, in its order, on small photos in the places that the README names."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from featbank.cli import COMMANDS, main
from tests.support.datasets import uhd_row, write_uhd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

COMMAND_LINES = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
SMALL = """
recipe_version = 1
[[band]]
name = "nss"
encoder = "classic:nss"
view = "native"
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[regression]
alpha = [1.0, 100.0]
"""
FEATBANK_LINES = [line for line in COMMAND_LINES if line.startswith("featbank ")]
N_PHOTOS = 38
MAKE_LINES = [line for line in COMMAND_LINES if line.startswith("make ")]


def write_photo(path: Path, radius: float, seed: int) -> None:
    """A small scene of overlapping discs, blurred; low, as its height is what wide views cost by."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(256), np.arange(64))
    pixels = np.zeros((64, 256, 3), dtype=np.uint8)
    for _ in range(60):
        inside = (x - rng.integers(256)) ** 2 + (y - rng.integers(64)) ** 2 < rng.integers(5, 40) ** 2
        pixels[inside] = rng.integers(0, 256, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)).save(path, quality=92)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the README's commands name, small."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    names, rows, scores = [], [], ["path,mos"]
    for number in range(N_PHOTOS):
        radius = float(rng.uniform(0, 3))
        split = "training" if number < 24 else "validation" if number < 31 else "test"
        subset = "exclusive" if split != "training" and number % 3 == 0 else ""
        name = f"{number + 1}.jpg"
        write_photo(folder / "home/uhd-iqa" / split / name, radius, number)
        rows.append(
            uhd_row(name, round(0.8 - 0.15 * radius, 4), split, subset, f"user {number // 3}", number + 1)
        )
        scores.append(f"home/uhd-iqa/{split}/{name},{0.8 - 0.15 * radius:.4f}")
        names.append(name)
    write_uhd(folder / "home/uhd-iqa", rows)
    (folder / "scores.csv").write_text("\n".join(scores))
    np.save(folder / "features.npy", rng.normal(size=(N_PHOTOS, 8)))
    (folder / "mine.toml").write_text(re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)[0])
    write_photo(folder / "photos" / "holiday 0.jpg", 1.0, 100)
    return folder


def test_there_are_commands_of_both_kinds() -> None:
    assert len(FEATBANK_LINES) >= 12
    assert "make fit" in MAKE_LINES


@pytest.mark.parametrize("line", MAKE_LINES)
def test_make_targets_of_the_readme_exist(line: str) -> None:
    # `make fit` itself is run by the continuous integration: it sets up an environment and renders 4K photos.
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_featbank_command_of_the_readme_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    for line in FEATBANK_LINES:
        arguments = shlex.split(line.replace("~/", "home/"))[1:]
        if arguments[:2] == ["score", "runs/starter/model.skops"] and not Path("runs/starter").exists():
            # On a fresh clone `make fit` wrote this run; here the same recipe was fitted as runs/uhd-iqa.
            shutil.copytree("runs/uhd-iqa", "runs/starter")
        assert main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    assert Path("scores-of-photos.csv").read_text().count("holiday") == 1
    assert Path("runs/own/report.html").exists()
    assert Path("features.parquet").exists()


def test_every_command_is_in_the_readme_or_a_page_or_made_by_make() -> None:
    used = {shlex.split(line)[1] for line in FEATBANK_LINES}
    pages = "".join(path.read_text() for path in (ROOT / "docs/how-to").glob("*.md"))
    used |= {command for command in COMMANDS if f"$ featbank {command} " in pages}
    # Distilling needs torch, which the README's other commands do without.
    by_make = {"demo", "report", "distill"}
    assert set(COMMANDS) - used <= by_make
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"$(FEATBANK) {command}" in makefile for command in by_make)


def test_the_python_of_the_readme_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HOME", str(workplace / "home"))
    # The recipe of the page takes minutes here; what is tested is the page.
    (workplace / "small.toml").write_text(SMALL)
    block = block.replace('"starter"', '"small.toml"')
    found: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), found)
    assert "\\toprule" in capsys.readouterr().out
    assert (workplace / "scatter.pdf").read_bytes().startswith(b"%PDF")
    assert set(found) >= {"data", "table", "run", "scorer"}
