"""Find the best band subsets within a budget, and fit and evaluate the winner.

The search looks at training rows alone. Besides the subset of bands it may vary what the recipe opens in its [search]
table: views, pooling, band scaling, regressor, design of members, combination. A configuration over the budget is
never evaluated. Up to 4096 configurations are evaluated one and all, and the winner is
certified; more are sampled by Optuna. The same command run again, at the same time or after a kill, works on the same
study: run it in several terminals, or on several hosts with a shared --out or --storage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

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
    positive_int,
    positive_number,
    seed,
)

EXAMPLE = """examples:
  featbank search ~/uhd-iqa --recipe search-classic --budget 50 --out runs/search
  featbank search ~/uhd-iqa --recipe search-classic --out runs/search --cluster dask://10.0.0.5:8786"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_data(parser)
    add_recipe(parser)
    add_bank(parser)
    add_workers(parser)
    add_cluster(parser)
    parser.add_argument("--out", metavar="RUN", help="run folder (default: runs/search-RECIPE)")
    parser.add_argument(
        "--budget", metavar="GMACS", type=positive_number, help="limit for one photo (default: the recipe's)"
    )
    parser.add_argument(
        "--objectives",
        choices=("srcc", "srcc,gmacs"),
        default="srcc",
        help="what to optimise: SRCC within the budget, or SRCC against GMACs by NSGA-II (default: srcc)",
    )
    parser.add_argument(
        "--method",
        choices=("auto", "exhaustive", "sampled"),
        default="auto",
        help="evaluate everything, or sample (default: everything up to 4096 configurations)",
    )
    parser.add_argument(
        "--trials",
        metavar="N",
        type=positive_int,
        default=200,
        help="configurations to sample; a larger N continues the same study (default: 200)",
    )
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of the sampler (default: 0)")
    parser.add_argument(
        "--outer-folds",
        metavar="K",
        type=_outer_folds,
        default=5,
        help="folds of the nested score, each costs one more search; 0 leaves it out (default: 5)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database shared by processes and hosts, such as sqlite:///search.db or postgresql://user@host/name "
        "(default: a journal file in the run folder)",
    )
    parser.add_argument(
        "--reference", action="store_true", help="search with plain scikit-learn: the same numbers, slower"
    )
    add_memory_limit(parser)
    parser.add_argument(
        "--test-fraction",
        metavar="F",
        type=fraction,
        default=0.2,
        help="for a dataset without a split: share of images held out for the test, by group (default: 0.2)",
    )


def run(options: argparse.Namespace) -> Output:
    """Search."""
    from featbank.bank import Bank
    from featbank.commands.console import render_metrics
    from featbank.datasets import read_dataset
    from featbank.recipes.reading import read_recipe
    from featbank.report.page import write_report_of
    from featbank.report.protocol_page import draw_study
    from featbank.search.run import SearchOptions, search_run

    recipe = read_recipe(options.recipe)
    table = read_dataset(options.data, images=options.images)
    out = Path(options.out or f"runs/search-{recipe.name}")
    with cluster_of(options) as cluster:
        result = search_run(
            table,
            recipe,
            Bank(options.bank),
            out,
            SearchOptions(
                options.budget,
                options.objectives,
                options.trials,
                options.seed,
                options.method,
                options.outer_folds,
                options.storage,
                options.reference,
            ),
            workers=options.workers,
            cluster=cluster,
            test_fraction=options.test_fraction,
            memory_limit_gb=options.memory_limit,
            features_command=f"featbank features {options.data} --recipe {options.recipe} --bank {options.bank}",
            show_progress=True,
            write_report=lambda folder: write_report_of(folder, table, folder),
            draw_study=draw_study,
            log=lambda line: print(line, file=sys.stderr),
        )
    text = [_render(result["search"]), "", "the winner, fitted on all training rows:"]
    text += [render_metrics(result["metrics"]), f"run: {out}   report: {out / 'report.html'}"]
    return Output({"run": str(out), **result}, "\n".join(text))


def _render(search: dict[str, Any]) -> str:
    winner = search["winner"]
    lines = [
        search["statement"],
        f"winner: {' + '.join(winner['bands'])}",
        f"  {winner['estimator']}, members {winner['members']}, combined by {winner['combine']}, unit_band "
        f"{str(winner['unit_band']).lower()}, {winner['gmacs']:.3f} of {search['budget_gmacs']:g} GMACs",
        f"  SRCC {_score(search['selected_srcc'])} on the folds that chose it"
        + (
            f"; {_score(search['nested_srcc'])} when {len(search['nested_folds'])} outer folds judge the whole search"
            if search["nested_folds"]
            else ""
        ),
        "Pareto front (SRCC on held-out training rows):",
    ]
    lines += [
        f"  {entry['gmacs']:9.3f} GMACs  {_score(entry['srcc'])}  {' + '.join(entry['bands'])}"
        for entry in search["pareto"]
    ]
    return "\n".join(lines)


def _score(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _outer_folds(text: str) -> int:
    number = int(text)
    if number < 0 or number == 1:
        raise argparse.ArgumentTypeError(f"must be 0, or at least 2, got {text}")
    return number
