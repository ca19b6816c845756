"""Every block of the README and of docs/ runs, page by page, on small photos in the places that the pages name.

A block of console lines is run; one of sh says what it needs (title="Needs ..."), and its commands are parsed. Python
is run. A block with the name of a file as its title is written to that file first. A small recipe stands in
for starter, as what is tested are the pages.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageFilter

from featbank.cli import COMMANDS, main, make_parser
from featbank.recipes.reading import BandRequest, FoldsRequest, RegressionRequest
from tests.support.datasets import uhd_row, write_uhd

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its language, its title, its text."""

    page: str
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of its featbank lines."""
        lines = [line.removeprefix("$ ") for line in self.text.splitlines()]
        return [shlex.split(line)[1:] for line in lines if re.match(r"featbank [a-z]", line)]


# Pages whose runs and features others use come first, those that use them last.
NEEDED = {
    "docs/how-to/uhd-iqa.md": -2,
    "docs/how-to/own-photos.md": -1,
    "docs/how-to/bank.md": 1,
    "docs/srcc.md": 1,
}


def read_blocks() -> Iterator[Block]:
    for page in PAGES:
        found = re.findall(
            r"^```(\w*)([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        for language, rest, text in found:
            title = re.search(r'title="(.*)"', rest)
            yield Block(str(page.relative_to(ROOT)), language, title[1] if title else "", text)


BLOCKS = list(read_blocks())
MAKE_LINES = {
    line for block in BLOCKS for line in re.findall(r"^\$ (make .*)", block.text, flags=re.MULTILINE)
}
SMALL_NAME = "small.toml"
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
N_PHOTOS = 38


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
    theirs = [f"{n},{m:.3f},{m + e:.3f},{n // 3}" for n, (m, e) in enumerate(rng.normal(size=(N_PHOTOS, 2)))]
    (folder / "theirs.csv").write_text("\n".join(["file,MOS,score,reference", *theirs]))
    np.save(folder / "features.npy", rng.normal(size=(N_PHOTOS, 8)))
    (folder / SMALL_NAME).write_text(SMALL)
    write_photo(folder / "photos" / "holiday 0.jpg", 1.0, 100)
    return folder


def run_commands(block: Block, done: set[tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a block's commands; a page may repeat what another one has run."""
    for arguments in block.commands:
        arguments = [SMALL_NAME if a == "starter" else a.replace("~/", "home/") for a in arguments]
        if tuple(arguments) in done or arguments[0] == "demo" or arguments[1:2] == ["demo"]:
            continue  # the built-in set is rendered, and fitted on, by `make fit` of the continuous integration
        if arguments[:2] == ["score", "runs/starter/model.skops"] and not Path("runs/starter").exists():
            # On a fresh clone `make fit` wrote this run; here it is the same recipe on the small photos.
            shutil.copytree("runs/uhd-iqa", "runs/starter")
        assert main(arguments) == 0, f"{block.page}: {arguments}\n{capsys.readouterr().err}"
        done.add(tuple(arguments))


def test_pages_run_in_the_order_of_their_needs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    done: set[tuple[str, ...]] = set()
    for block in BLOCKS:
        if block.title and not block.title.startswith("Needs "):
            Path(block.title).write_text(block.text)
    for block in sorted(BLOCKS, key=lambda block: NEEDED.get(block.page, 0)):
        if block.language == "console":
            run_commands(block, done, capsys)
    assert Path("scores-of-photos.csv").read_text().count("holiday") == 1
    assert Path("runs/own/report.html").exists()
    assert Path("features.parquet").exists()


def test_blocks_that_are_not_run_say_what_they_need() -> None:
    unmarked = [(b.page, b.text) for b in BLOCKS if b.language == "sh" and not b.title.startswith("Needs ")]
    assert not unmarked
    assert {block.language for block in BLOCKS} <= {"", "console", "sh", "python", "toml", "text", "json"}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda block: block.page)
def test_commands_that_are_not_run_are_well_formed(block: Block) -> None:
    for name, *arguments in block.commands:
        make_parser(name).parse_args([a.replace("$SLURM_ARRAY_TASK_ID", "0") for a in arguments])


@pytest.mark.parametrize("line", sorted(MAKE_LINES))
def test_make_targets_of_the_pages_exist(line: str) -> None:
    # `make fit` itself is run by the continuous integration: it sets up an environment and renders 4K photos.
    done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_is_on_a_page() -> None:
    used = {arguments[0] for block in BLOCKS for arguments in block.commands}
    assert set(COMMANDS) <= used


def test_the_readme_is_short_and_leads_to_pages_that_exist() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) >= 5
    assert all((ROOT / link).exists() for link in links)


def test_messages_of_the_troubleshooting_page_are_in_the_code() -> None:
    folders = (ROOT / "featbank", ROOT / "regressors")
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    page = (ROOT / "docs/reference/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)`", page, flags=re.MULTILINE)
    assert len(messages) >= 30
    assert [message for message in messages if message not in code] == []


def test_every_key_of_a_recipe_is_on_the_page_of_file_formats() -> None:
    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    assert {
        key.name for kind in (BandRequest, FoldsRequest, RegressionRequest) for key in fields(kind)
    } <= named


def test_the_python_of_the_pages_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HOME", str(workplace / "home"))
    for page in PAGES:
        found: dict[str, object] = {}
        for block in (b for b in BLOCKS if b.language == "python" and b.page == str(page.relative_to(ROOT))):
            if not block.title:
                text = block.text.replace('"starter"', f'"{SMALL_NAME}"').replace(
                    '"runs/starter"', '"runs/a"'
                )
                exec(compile(text, block.page, "exec"), found)
    assert "\\toprule" in capsys.readouterr().out
    assert (workplace / "scatter.pdf").read_bytes().startswith(b"%PDF")
