"""A process that runs commands and can be killed at any moment; started many times a second.

``python -m tests.support.command_worker`` imports what the commands import, then forks a child for each one: what is
killed is then the command's work, and not the second of starting Python that comes before it.
"""

from __future__ import annotations

import importlib
import os

from experiments.cli import main
from featbank import extract
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


def _warm_up() -> None:
    for module in ("features", "bank"):
        importlib.import_module(f"experiments.commands.{module}")
    for module in ("recipes.variants", "recipes.reading"):
        importlib.import_module(f"experiments.{module}")
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
    serve({"command": _command})
