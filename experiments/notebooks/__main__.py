"""Execute every notebook in its order from a clean kernel: ``python -m experiments.notebooks [--check] [NAME...]``.

Outputs are written into the notebooks; with ``--check`` they are executed and left as they are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from featbank.atomic import replacing

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

CELL_TIMEOUT_S = 600


def list_notebooks() -> list[Path]:
    """Return the notebooks in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path) -> Any:  # noqa: ANN401 - nbformat is untyped
    """Execute a notebook from a clean kernel, in the project's root folder.

    Returns it with fresh outputs and without anything that differs from machine to machine: versions, widgets, states
    of progress bars. Raises CellExecutionError if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=resources, record_timing=False
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the notebooks; 0 when every cell ran, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m experiments.notebooks", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="notebooks by their number (default: all)")
    parser.add_argument("--check", action="store_true", help="leave the files as they are")
    options = parser.parse_args(arguments)
    names = tuple(options.names) or ("",)
    chosen = [path for path in list_notebooks() if path.name.startswith(names)]
    if not chosen:
        sys.stderr.write(f"notebooks: no notebook is called {', '.join(names)}.\n")
        return 1
    for path in chosen:
        clock = time.perf_counter()
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            sys.stderr.write(f"{path.name}: {error}\n")
            return 1
        if not options.check:
            with replacing(path, "notebooks") as scratch:
                nbformat.write(notebook, scratch)
        sys.stderr.write(f"{path.name}: {time.perf_counter() - clock:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
