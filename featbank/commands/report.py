"""Write a run's report again, or put several runs side by side.

One RUN: one self-contained HTML file, its figures, and the tables as CSV and Markdown, in the run folder. Several: a
comparison on the rows that all of them were judged on, with paired bootstrap tests corrected for the number of
comparisons, wins by split and subset, the drop to the exclusive subset, and cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from featbank.commands import Output
from featbank.commands.options import positive_int

EXAMPLE = """examples:
  featbank report runs/starter
  featbank report runs/starter runs/icl runs/light --out runs/comparison"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folder written by `featbank fit`")
    parser.add_argument(
        "--data", metavar="DATA", help="dataset for thumbnails, if it has moved since the run"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder to write to (default: the run's own; for several, `comparison` beside the first)",
    )
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=positive_int,
        default=5000,
        help="bootstrap resamples of a comparison (default: 5000)",
    )


def run(options: argparse.Namespace) -> Output:
    """Render."""
    if len(options.runs) > 1:
        return _compare(options)
    from featbank.report.page import report_of_run

    path = report_of_run(
        Path(options.runs[0]), options.data, None if options.out is None else Path(options.out)
    )
    return Output({"report": str(path)}, f"report: {path}")


def _compare(options: argparse.Namespace) -> Output:
    from featbank.atomic import check_folder
    from featbank.report.comparison import COMPARISON, word_comparison, write_comparison
    from featbank.runs.comparison import compare_runs
    from featbank.runs.folder import telling_damage

    folder = Path(options.out) if options.out else Path(options.runs[0]).resolve().parent / "comparison"
    check_folder(folder, COMPARISON, "report --out")
    with telling_damage(", ".join(options.runs)):
        comparison = compare_runs(options.runs, n_resamples=options.resamples)
        path = write_comparison(comparison, folder)
    sentence = word_comparison(comparison).sentence
    document: dict[str, Any] = {
        "report": str(path),
        "verdict": sentence,
        "simulation": comparison.is_simulation,
        "parts": comparison.parts,
        "differences": [
            {key: None if value != value else value for key, value in row.items()}
            for row in comparison.differences.to_dict("records")
        ],
        "wins": {part: comparison.wins(part) for part in comparison.parts},
        "closest": comparison.closest,
        "drops": comparison.drops.to_dict("records"),
        "notes": list(comparison.notes),
    }
    return Output(document, "\n".join([sentence, *comparison.notes, f"report: {path}"]))
