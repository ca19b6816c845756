"""Read a dataset and report what is in it, before hours are spent on it.

Counts by split and subset, MOS range, groups and how far they overlap, missing, unreadable and duplicate
files, and what a constant prediction scores.
"""

from __future__ import annotations

import argparse

from featbank.commands import Output
from featbank.commands.options import add_data, add_workers

EXAMPLE = "example: featbank check ~/uhd-iqa"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_data(parser)
    add_workers(parser)
    parser.add_argument(
        "--no-decode", action="store_true", help="do not decode the images (quick; finds no damaged file)"
    )


def run(options: argparse.Namespace) -> Output:
    """Check."""
    from joblib import cpu_count

    from featbank.datasets import check_dataset, read_dataset, render_check

    table = read_dataset(options.data, images=options.images)
    document = check_dataset(table, decode=not options.no_decode, workers=options.workers or cpu_count())
    return Output(document, render_check(document))
