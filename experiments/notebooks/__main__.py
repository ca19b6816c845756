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

from featbank.atomic import replacing

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

CELL_TIMEOUT_S = 600


def list_notebooks() -> list[Path]:
    """Return the notebooks in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path) -> Any:  # noqa: ANN401 - nbformat is untyped
    """Execute a notebook from a clean kernel, in the project's root folder.

    Parameters
    ----------
    path : Path

    Returns
    -------
    NotebookNode
        With fresh outputs and without anything that differs from machine to machine.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
        record_timing=False,
    )
    client.execute()
    return tidy(notebook)


def tidy(notebook: Any) -> Any:  # noqa: ANN401 - nbformat is untyped
    """Take out what an execution leaves behind beside its outputs: versions, widgets, states of progress bars.

    Parameters
    ----------
    notebook : NotebookNode

    Returns
    -------
    NotebookNode
        The same one.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if not (output.output_type == "stream" and output.name == "stderr")
            ]
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute the notebooks.

    Parameters
    ----------
    arguments : sequence of str or None
        Of the command line; None takes the process's own.

    Returns
    -------
    int
        0 when every cell ran, 1 otherwise.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.notebooks", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="notebooks by their number (default: all)")
    parser.add_argument("--check", action="store_true", help="leave the files as they are")
    options = parser.parse_args(arguments)
    try:
        import nbformat
        from nbclient.exceptions import CellExecutionError
    except ImportError as error:
        sys.stderr.write(f"notebooks: {error.name} is missing. Install it with `make setup`.\n")
        return 1
    chosen = [
        path for path in list_notebooks() if not options.names or path.name.startswith(tuple(options.names))
    ]
    if not chosen:
        sys.stderr.write(f"notebooks: no notebook is called {', '.join(options.names)}.\n")
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
