"""The notebooks are committed whole: executed in order, without errors, small, and without traces of a machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from experiments.notebooks.__main__ import list_notebooks, main

ROOT = Path(__file__).parents[3]
NOTEBOOKS = list_notebooks()
MAX_BYTES = 400_000

# Folders of a person or of a temporary nature, and addresses of machines.
TRACES = re.compile(
    r"/home/|/root/|/tmp/|/Users/|/var/folders/|[A-Z]:\\\\Users|\.venv/|site-packages|https?://(localhost|127\.)"
)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def output_text(path: Path) -> str:
    """Every output but the pictures."""
    parts = []
    for cell in code_cells(path):
        for output in cell.outputs:
            data = {
                kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")
            }
            parts.append(json.dumps([data, output.get("text", "")]))
    return "\n".join(parts)


def test_there_are_five_in_their_order() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == ["01-", "02-", "03-", "04-", "05-"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestCommitted:
    def test_is_valid_and_small(self, path: Path) -> None:
        nbformat.validate(nbformat.read(path, as_version=4))
        assert path.stat().st_size < MAX_BYTES

    def test_was_executed_in_order_from_a_clean_kernel(self, path: Path) -> None:
        counts = [cell.execution_count for cell in code_cells(path)]
        assert counts == list(range(1, len(counts) + 1))

    def test_has_pictures_and_no_errors_or_warnings(self, path: Path) -> None:
        outputs = [output for cell in code_cells(path) for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        pictures = [o for o in outputs if {"image/png", "image/jpeg"} & set(o.get("data", {}))]
        assert len(pictures) >= 2

    def test_names_no_machine(self, path: Path) -> None:
        assert not TRACES.search(output_text(path))
        sources = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        assert not TRACES.search(sources)

    def test_cells_are_short_and_use_public_names(self, path: Path) -> None:
        for cell in code_cells(path):
            assert len(cell.source.splitlines()) < 25, cell.source
            # What %%writefile writes is an encoder, whose base class has a place of its own.
            if not cell.source.startswith("%%writefile"):
                assert not re.search(r"(from|import) (featbank|regressors)\.", cell.source), cell.source

    def test_says_that_it_is_a_simulation(self, path: Path) -> None:
        assert "simulat" in nbformat.read(path, as_version=4).cells[0].source

    def test_prose_holds_no_results(self, path: Path) -> None:
        # A score in the text would be one that no cell computed; 0.85 in a title's quotation is nobody's result.
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                assert not re.search(r"(?<!SRCC )\b0\.\d{2,}", cell.source), cell.source


def test_an_unknown_notebook_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["99"]) == 1
    assert "no notebook" in capsys.readouterr().err


@pytest.mark.slow
def test_all_execute_from_a_clean_kernel(tmp_path: Path) -> None:
    from tests.support.small_demo import small_demo

    demo = small_demo(tmp_path / "demo", n_photos=90, width=960)
    environment = {
        **os.environ,
        "FEATBANK_DATA": str(demo),
        "FEATBANK_BANK": str(tmp_path / "bank"),
        "PYTHONPATH": str(ROOT),
    }
    for recipe in ("starter", "search-classic"):
        subprocess.run(
            [
                *(sys.executable, "-m", "featbank", "features", str(demo)),
                *("--recipe", recipe, "--bank", str(tmp_path / "bank")),
            ],
            cwd=ROOT,
            env=environment,
            check=True,
        )
    done = subprocess.run(
        [sys.executable, "-m", "experiments.notebooks", "--check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
