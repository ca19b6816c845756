"""Ask how far a score holds: over repeated splits, on another dataset, with fewer rated photos.

repeated fits and judges the recipe on many random splits; cross fits on one dataset and judges on another; curve
shows the score against the number of rated photos. Each writes a folder with CSV, figure, page and receipt. Where a
dataset has an official split, its training rows alone take part unless --rows says otherwise.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from featbank.commands import SIMULATION, Output
from featbank.commands.options import (
    add_bank,
    add_data,
    add_recipe,
    add_workers,
    fraction,
    positive_int,
    seed,
)

if TYPE_CHECKING:
    from featbank.protocols.preparation import Material, Outcome

EXAMPLE = """examples:
  featbank protocol repeated scores.csv --recipe mine.toml --splits 100
  featbank protocol cross ~/koniq-10k ~/uhd-iqa --recipe starter --map nominal
  featbank protocol curve ~/uhd-iqa --recipe starter --sizes 50,100,200,400"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every protocol."""
    kinds = parser.add_subparsers(dest="protocol", metavar="PROTOCOL", required=True)
    for name, text in (
        ("repeated", "median and deviation over repeated random splits"),
        ("cross", "fit on one dataset, judge on another"),
        ("curve", "SRCC against the number of rated photos"),
    ):
        kind = kinds.add_parser(name, help=text, description=text, allow_abbrev=False)
        add_data(kind)
        if name == "cross":
            kind.add_argument("other", metavar="OTHER", help="dataset to judge on")
            kind.add_argument("--other-images", metavar="DIR", help="folder of its images, as --images")
            kind.add_argument(
                "--map",
                metavar="MAP",
                default="nominal",
                help="MOS scale onto scale: nominal ends (default), none, or four numbers such as 0,100:1,5",
            )
            kind.add_argument(
                "--other-rows",
                choices=("all", "training", "test"),
                default="all",
                help="rows to judge on (default: all)",
            )
        add_recipe(kind)
        add_bank(kind)
        add_workers(kind)
        kind.add_argument("--out", metavar="RUN", help="folder (default: runs/RECIPE-PROTOCOL)")
        kind.add_argument(
            "--rows",
            choices=("training", "all"),
            help="rows that take part (default: training where there is an official split, else all)",
        )
        if name != "cross":
            kind.add_argument(
                "--plain",
                action="store_true",
                help="split images, not groups: flatters, but is often published",
            )
            kind.add_argument(
                "--test-fraction",
                metavar="F",
                type=fraction,
                default=0.2,
                help="share held out (default: 0.2)",
            )
            kind.add_argument("--seed", metavar="S", type=seed, default=0, help="of the splits (default: 0)")
        if name == "repeated":
            kind.add_argument("--splits", metavar="N", type=positive_int, default=100, help="default: 100")
        if name == "curve":
            kind.add_argument("--sizes", metavar="N,N,...", type=_sizes, help="default: six, up to all rows")
            kind.add_argument("--repeats", metavar="N", type=positive_int, default=10, help="default: 10")
        # The outer parser adds --json before the protocol; people write it after.
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> Output:
    """Carry a protocol out."""
    from featbank.atomic import check_folder
    from featbank.bank import Bank
    from featbank.datasets import read_dataset
    from featbank.protocols.preparation import prepare, write_outcome
    from featbank.recipes.reading import read_recipe
    from featbank.report.protocol_page import write_protocol_page
    from featbank.runs.folder import PROTOCOL

    started, clock = datetime.now(UTC), time.perf_counter()
    recipe = read_recipe(options.recipe)
    bank = Bank(options.bank)
    out = Path(options.out or f"runs/{recipe.name}-{options.protocol}")
    check_folder(out, PROTOCOL, "protocol --out")
    places = [(options.data, options.images, options.rows)]
    if options.protocol == "cross":
        places.append((options.other, options.other_images, options.other_rows))
    materials = [
        prepare(
            read_dataset(place, images=images),
            recipe,
            bank,
            which=rows,
            features_command=f"featbank features {place} --recipe {options.recipe} --bank {options.bank}",
        )
        for place, images, rows in places
    ]
    loaded_s = time.perf_counter() - clock
    outcome = _carry_out(options, materials)
    durations = {"table_s": loaded_s, "protocol_s": time.perf_counter() - clock - loaded_s}
    page = write_outcome(
        outcome, materials, bank, out, write_page=write_protocol_page, durations=durations, started=started
    )
    left_out = [note for material in materials for note in material.notes]
    lines = [outcome.sentence, *outcome.notes, *left_out]
    if any(material.table.is_simulation for material in materials):
        lines.append(SIMULATION)
    document = outcome.as_json() | {
        "run": str(out),
        "left_out": left_out,
        "simulation": any(material.table.is_simulation for material in materials),
    }
    return Output(document, "\n".join([*lines, f"run: {out}   report: {page}"]))


def _carry_out(options: argparse.Namespace, materials: list[Material]) -> Outcome:
    if options.protocol == "cross":
        from featbank.protocols.protocols import declare_map, run_cross

        source, target = materials
        scale = declare_map(options.map, source.table.mos_range, target.table.mos_range)
        return run_cross(source, target, scale, workers=options.workers)
    shared = {
        "test_size": options.test_fraction,
        "grouped": not options.plain,
        "random_state": options.seed,
        "workers": options.workers,
    }
    if options.protocol == "repeated":
        from featbank.protocols.protocols import run_repeated

        return run_repeated(materials[0], n_splits=options.splits, **shared)
    from featbank.protocols.protocols import run_curve

    return run_curve(materials[0], sizes=options.sizes, n_repeats=options.repeats, **shared)


def _sizes(text: str) -> list[int]:
    return [positive_int(part) for part in text.split(",")]
