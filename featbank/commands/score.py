"""Predict the MOS of new images with a fitted model, computing only what the model needs.

Prints CSV: image, predicted MOS, its interval, spread (standard deviation) of the ensemble's members; unlike_training
with distance (above 1: farther from the training photos than they are from each other; no interval is given then);
off_scale (below or above the MOS scale of the training data); simulation; reason (why there is no prediction).
Features go to the bank, so scoring again is quick.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from featbank.commands import SIMULATION, Output
from featbank.commands.options import add_bank, add_code, add_compute, apply_compute

EXAMPLE = "example: featbank score runs/starter/model.skops photos/ --csv scores.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help="model.skops of a run, or the run folder")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="image files or folders, or their URLs in a store"
    )
    parser.add_argument("--csv", metavar="FILE", help="write the table there instead of printing it")
    add_bank(parser)
    add_code(parser)
    add_compute(parser)


def run(options: argparse.Namespace) -> Output:
    """Score."""
    from featbank.atomic import check_file, replacing
    from featbank.bank import Bank
    from featbank.encoders import random_weights_note
    from featbank.runs.score import is_table_of_scores, score_paths
    from featbank.workers import keep_freed_memory

    if options.csv:
        check_file(options.csv, "score --csv", is_table_of_scores)
    apply_compute(options)
    keep_freed_memory()  # with one worker this process does the work
    scores = score_paths(Path(options.model), options.paths, Bank(options.bank), workers=options.workers)
    failed = int(scores["predicted"].isna().sum())
    document = {
        "model": options.model,
        "scored": len(scores) - failed,
        "failed": failed,
        "simulation": bool(scores.attrs["simulation"]),
        "statement": SIMULATION if scores.attrs["simulation"] else "",
        "mos_range": list(scores.attrs["mos_range"]),
        "unlike_training": int((scores["unlike_training"] == True).sum()),  # noqa: E712 - None where unknown
        "off_scale": int(scores["off_scale"].isin(["below", "above"]).sum()),
        "random_weights": list(scores.attrs["random_weights"]),
        "notes": list(scores.attrs["notes"]),
        "scores": [
            {key: None if value != value else value for key, value in row.items()}
            for row in scores.to_dict("records")
        ],
    }
    for note in (*([SIMULATION] if scores.attrs["simulation"] else []), *scores.attrs["notes"]):
        print(note, file=sys.stderr)
    if scores.attrs["random_weights"]:
        print(random_weights_note(scores.attrs["random_weights"]), file=sys.stderr)
    # Nothing scored is work that could not be done; a few broken files among good ones are not.
    code = 1 if failed == len(scores) else 0
    if options.csv:
        with replacing(options.csv, "score --csv") as path:
            scores.to_csv(path, index=False, float_format="%.6g")
        return Output(document, f"{len(scores) - failed} scored, {failed} failed: {options.csv}", code)
    return Output(document, scores.to_csv(index=False, float_format="%.6g").rstrip("\n"), code)
