"""Execute every notebook in its order from a clean kernel: ``python -m experiments.notebooks [--check] [NAME...]``.

Outputs are written into the notebooks; with ``--check`` they are executed and left as they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from featbank.atomic import replacing

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

CELL_TIMEOUT_S = 600

STYLE = """
figure.dpi: 70
figure.constrained_layout.use: True
axes.spines.top: False
axes.spines.right: False
axes.grid: True
grid.alpha: 0.3
axes.prop_cycle: cycler('color', ['1f5fa8', 'c4500c', '12a574', '8a94a0', '7b4fa3', 'b58900'])
legend.frameon: False
"""


def list_notebooks() -> list[Path]:
    """Return the notebooks in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


@contextmanager
def workplace() -> Iterator[dict[str, str]]:
    """Make a folder with all that the notebooks name, and yield the environment in which a kernel works there.

    ``demo`` and ``~/uhd-iqa`` lead to the dataset that FEATBANK_DATA names, ``bank`` to FEATBANK_BANK, by default the
    folders that ``make features`` makes; what a notebook writes goes when it is done.
    """
    with tempfile.TemporaryDirectory(prefix="featbank-") as scratch:
        folder = Path(scratch)
        data, bank = (os.environ.get(f"FEATBANK_{n}", d) for n, d in (("DATA", "demo"), ("BANK", "bank")))
        for name, target in {"demo": data, "uhd-iqa": data, "bank": bank}.items():
            (folder / name).symlink_to((ROOT / target).resolve())
        (folder / "matplotlibrc").write_text(STYLE)
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        yield os.environ | {"HOME": scratch, "PATH": programs, "MPLCONFIGDIR": matplotlib.get_configdir()}


def execute(path: Path) -> Any:  # noqa: ANN401 - nbformat is untyped
    """Execute a notebook from a clean kernel, in a folder of its own.

    Returns it with fresh outputs and without anything that differs from machine to machine: versions, widgets, states
    of progress bars. Raises CellExecutionError if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    with workplace() as environment:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": environment["HOME"]}},
            record_timing=False,
        ).execute(env=environment)
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
