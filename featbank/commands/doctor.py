"""Look at the machine and the installation, and say what is missing or could be faster.

Cores and memory, libraries, the BLAS behind numpy and SciPy with its kernels, threads and speed, torch and its devices,
the weights folder, and whether the bank can be written. Ends with 1 if something will not work.
"""

from __future__ import annotations

import argparse

from featbank.commands import Output
from featbank.commands.options import add_bank

EXAMPLE = "example: featbank doctor --bank bank"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_bank(parser)


def run(options: argparse.Namespace) -> Output:
    """Examine."""
    from featbank.doctor import examine, render
    from featbank.remote import as_place

    document = examine(as_place(options.bank))
    return Output(document, render(document), exit_code=1 if document["problems"] else 0)
