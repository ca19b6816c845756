"""Fit a recipe on a dataset's training rows, evaluate on its other rows, write a run folder.

Folds, hyper-parameters and weights come from training rows alone; validation and test rows are read once,
by the last step. Beside the model stand the constant prediction, every single band, and, where the dataset
has metadata, a ridge that sees no pixel.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from featbank.commands import Output
from featbank.commands.options import (
    add_bank,
    add_cluster,
    add_data,
    add_memory_limit,
    add_recipe,
    add_workers,
    cluster_of,
    fraction,
    non_negative_int,
)

EXAMPLE = """examples:
  featbank fit ~/uhd-iqa --recipe starter --out runs/starter
  featbank fit ~/uhd-iqa --recipe icl --out runs/icl --cluster dask://10.0.0.5:8786"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_data(parser)
    add_recipe(parser)
    add_bank(parser)
    add_workers(parser)
    add_cluster(parser)
    parser.add_argument("--out", metavar="RUN", help="run folder (default: runs/RECIPE)")
    add_memory_limit(parser)
    parser.add_argument(
        "--test-fraction",
        metavar="F",
        type=fraction,
        default=0.2,
        help="for a dataset without a split: share of images held out for the test, by group (default: 0.2)",
    )
    parser.add_argument(
        "--over-budget", action="store_true", help="fit although the recipe's GMACs exceed its budget"
    )
    parser.add_argument(
        "--reference", action="store_true", help="search with plain scikit-learn: the same numbers, slower"
    )

    parser.add_argument(
        "--permutations",
        metavar="K",
        type=non_negative_int,
        help="fits on shuffled MOS, which must score near zero; 0 for none (default: by the size of the problem)",
    )
    parser.add_argument(
        "--confidence",
        metavar="C",
        type=fraction,
        default=0.9,
        help="nominal coverage of the prediction intervals (default: 0.9)",
    )
    parser.add_argument(
        "--calibrate",
        choices=("training", "validation"),
        default="training",
        help="held-out predictions behind the intervals: out of fold on training, or validation (default: training)",
    )


def run(options: argparse.Namespace) -> Output:
    """Fit."""
    from featbank.bank import Bank
    from featbank.commands.console import render_metrics
    from featbank.datasets import read_dataset
    from featbank.recipes.reading import read_recipe
    from featbank.report.page import write_report_of
    from featbank.runs.fit import fit_run

    recipe = read_recipe(options.recipe)
    table = read_dataset(options.data, images=options.images)
    out = Path(options.out or f"runs/{recipe.name}")
    again = f"featbank features {options.data} --recipe {options.recipe} --bank {options.bank}"
    with cluster_of(options) as cluster:
        metrics = fit_run(
            table,
            recipe,
            Bank(options.bank),
            out,
            workers=options.workers,
            cluster=cluster,
            test_fraction=options.test_fraction,
            memory_limit_gb=options.memory_limit,
            over_budget=options.over_budget,
            reference=options.reference,
            permutations=options.permutations,
            confidence=options.confidence,
            calibrate_on=options.calibrate,
            write_report=lambda folder: write_report_of(folder, table, folder),
            features_command=again,
            log=lambda line: print(line, file=sys.stderr),
        )
    text = render_metrics(metrics) + f"\nrun: {out}   report: {out / 'report.html'}"
    return Output({"run": str(out), "metrics": metrics}, text)
