"""Write a run's report again: one self-contained HTML file, its figures, and the tables as CSV and Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.commands import Output

EXAMPLE = "example: featbank report runs/starter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help="run folder written by `featbank fit`")
    parser.add_argument(
        "--data", metavar="DATA", help="dataset for thumbnails, if it has moved since the run"
    )


def run(options: argparse.Namespace) -> Output:
    """Render."""
    from experiments.fit import report_of_run

    path = report_of_run(Path(options.run), options.data)
    return Output({"report": str(path)}, f"report: {path}")
