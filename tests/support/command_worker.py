"""A process that runs commands and can be killed at any moment; started many times a second.

``python -m tests.support.command_worker`` imports what the commands import, then forks a child for each one: what is
killed is then the command's work, and not the second of starting Python that comes before it.
"""

from __future__ import annotations

import ctypes
import importlib
import os

from featbank import extract
from featbank.cli import main
from tests.support.bank_worker import serve

FLUSH_ROWS = 4
"""Rows in a shard, for the few photos of a test: by default a run of less than 30 s writes everything at its end."""


def _command(arguments: list[str]) -> None:
    os.setsid()  # so that a kill can reach the workers too
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # standard output carries the answers of the process that forked this one
        os.dup2(nowhere, descriptor)
    extract.FLUSH_ROWS = FLUSH_ROWS
    os._exit(main(arguments))


def _faulty(arguments: list[str], said: str, folder: str, call: int, number: int, goes_on: bool) -> None:
    """Run a command of which a system call fails; its errors and its number of calls go to ``said``."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    errors = os.open(said, os.O_WRONLY | os.O_CREAT)
    for descriptor, place in enumerate((nowhere, nowhere, errors)):
        os.dup2(place, descriptor)
    library = ctypes.CDLL(None)  # with the preloaded one in it
    library.fault_arm(os.fsencode(folder), ctypes.c_long(call), number, int(goes_on))
    code = main(arguments)
    os.write(errors, f"\n{library.fault_count()}".encode())
    os._exit(code)


def _warm_up() -> None:
    for module in ("features", "fit", "search"):
        importlib.import_module(f"featbank.commands.{module}")
    for module in (
        "runs.fit",
        "runs.score",
        "search.run",
        "report.page",
        "report.comparison",
        "recipes.reading",
    ):
        importlib.import_module(f"featbank.{module}")
    # No session is made before the fork: its threads would not be there in the child.
    for module in (
        "onnxruntime",
        "pandas",
        "featbank.datasets",
        "featbank.importing",
        "featbank.encoders.classic",
        "scipy.ndimage",
    ):
        importlib.import_module(module)


if __name__ == "__main__":
    _warm_up()
    serve({"command": _command, "faulty": _faulty})
