"""The commands search, protocol and leaderboard: many fits, and where they stand."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featbank import commands as opt
from featbank.commands import SIMULATION, Command, Output, render_rows, say
from featbank.commands.fit import render_metrics

if TYPE_CHECKING:
    from featbank.leaderboard.board import Board
    from featbank.protocols.preparation import Material, Outcome


def _outer_folds(text: str) -> int:
    number = int(text)
    if number < 0 or number == 1:
        raise argparse.ArgumentTypeError(f"must be 0, or at least 2, got {text}")
    return number


_SEARCH_OPTIONS = (
    *(opt.DATA, opt.IMAGES, opt.RECIPE, opt.CODE, opt.BANK, opt.TRUNCATED, opt.WORKERS, opt.CLUSTER),
    opt.argument("--out RUN", "run folder (default: runs/search-RECIPE)"),
    opt.argument("--budget GMACS", "limit for one photo (default: the recipe's)", opt.positive_number),
    opt.argument(
        "--objectives srcc|srcc,gmacs",
        "what to optimise: SRCC within the budget, or SRCC against GMACs by NSGA-II",
        default="srcc",
    ),
    opt.argument(
        "--method auto|exhaustive|sampled",
        "evaluate everything, or sample; auto takes everything up to 4096 configurations",
        default="auto",
    ),
    opt.argument(
        "--trials N",
        "configurations to sample; a larger N continues the same study",
        opt.positive_int,
        200,
    ),
    opt.argument("--seed S", "of the sampler", opt.seed, 0),
    opt.argument(
        "--outer-folds K",
        "folds of the nested score, each costs one more search; 0 leaves it out",
        _outer_folds,
        5,
    ),
    opt.argument(
        "--storage URL",
        "database shared by processes and hosts, such as sqlite:///search.db or "
        "postgresql://user@host/name (default: a journal file in the run folder)",
    ),
    *(opt.REFERENCE, opt.MEMORY_LIMIT, opt.TEST_FRACTION),
)


def _search(options: argparse.Namespace) -> Output:
    """Find the best band subsets within a budget, and fit and evaluate the winner.

    The search looks at training rows alone. Besides the subset of bands it may vary what the recipe opens in its
    [search] table: views, pooling, band scaling, regressor, design of members, combination. A configuration over
    the budget is never evaluated. Up to 4096 configurations are evaluated one and all, and the winner is certified;
    more are sampled by Optuna. The same command run again, at the same time or after a kill, works on the same
    study: run it in several terminals, or on several hosts with a shared --out or --storage.

    For example:
      featbank search ~/uhd-iqa --recipe search-classic --budget 50 --out runs/search
      featbank search ~/uhd-iqa --recipe search-classic --out runs/search --cluster dask://10.0.0.5:8786
    """
    from featbank.bank import Bank
    from featbank.recipes.reading import read_recipe
    from featbank.report.page import photos_of, write_report
    from featbank.report.protocol_page import draw_study
    from featbank.runs.fit import FitOptions
    from featbank.search.run import SearchOptions, search_run

    recipe = read_recipe(options.recipe)
    table = opt.read_data(options)
    out = Path(options.out or f"runs/search-{recipe.name}")
    with opt.cluster_of(options) as cluster:
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
            ),
            FitOptions(
                workers=options.workers,
                cluster=cluster,
                test_fraction=options.test_fraction,
                reference=options.reference,
                memory_limit_gb=options.memory_limit,
                features_command=opt.features_command(options, options.data),
            ),
            show_progress=True,
            write_report=lambda folder: write_report(folder, photos=photos_of(table), into=folder),
            draw_study=draw_study,
            log=say,
        )
    text = [_search_text(result["search"]), "", "the winner, fitted on all training rows:"]
    text += [render_metrics(result["metrics"]), f"run: {out}   report: {out / 'report.html'}"]
    return Output({"run": str(out), **result}, "\n".join(text))


def _search_text(search: dict[str, Any]) -> str:
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


def _protocol_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = opt.add_actions(
        parser,
        "protocol",
        {
            "repeated": "median and deviation over repeated random splits",
            "given": "the same over splits that somebody published",
            "cross": "fit on one dataset, judge on another",
            "curve": "SRCC against the number of rated photos",
            "paired": "compare folders of repeated or given splits, split by split",
        },
    )
    paired = kinds.pop("paired")
    opt.add(
        paired,
        opt.argument("runs RUN...", "folders of `protocol given` or `repeated`; the first is compared with"),
    )
    for name, kind in kinds.items():
        opt.add(kind, opt.DATA, opt.IMAGES)
        if name == "cross":
            opt.add(
                kind,
                opt.argument("other OTHER", "dataset to judge on"),
                opt.OTHER_IMAGES,
                opt.argument(
                    "--map MAP",
                    "MOS scale onto scale: nominal ends, none, or four numbers such as 0,100:1,5",
                    default="nominal",
                ),
                opt.argument("--other-rows all|training|test", "rows to judge on", default="all"),
            )
        opt.add(
            kind,
            *(opt.RECIPE, opt.CODE, opt.BANK, opt.TRUNCATED, opt.WORKERS),
            opt.argument("--out RUN", "folder (default: runs/RECIPE-PROTOCOL)"),
            opt.argument(
                "--rows training|all",
                "rows that take part (default: training where there is an official split, else all)",
            ),
        )
        if name == "given":
            opt.add(
                kind,
                opt.argument(
                    "--splits-file FILE...",
                    "the splits: a table with a column of images and one for each split, index arrays (NPY, NPZ, MAT), "
                    "JSON, a pickle of lists, or text files of names called after their part (train_1.txt, test_1.txt)",
                    required=True,
                ),
            )
        elif name != "cross":
            opt.add(
                kind,
                opt.switch("--plain", "split images, not groups: flatters, but is often published"),
                opt.argument("--test-fraction F", "share held out", opt.fraction, 0.2),
                opt.argument("--seed S", "of the splits", opt.seed, 0),
            )
    opt.add(kinds["repeated"], opt.argument("--splits N", "", opt.positive_int, 100))
    opt.add(
        kinds["curve"],
        opt.argument("--sizes N,N,N", "default: six, up to all rows", _sizes),
        opt.argument("--repeats N", "", opt.positive_int, 10),
    )


def _protocol(options: argparse.Namespace) -> Output:
    """Ask how far a score holds: over repeated or given splits, on another dataset, with fewer rated photos.

    repeated fits and judges the recipe on many random splits; given does so on published ones, whose validation images,
    if there are any, choose the hyper-parameters; paired compares such folders on equal splits; cross fits on one
    dataset and judges on another; curve shows the score against the number of rated photos. Each writes a folder with
    CSV, figure, page and receipt. Where a dataset has an official split, its training rows alone take part unless
    --rows says otherwise, or splits are given.

    For example:
      featbank protocol repeated scores.csv --recipe mine.toml --splits 100
      featbank protocol given scores.csv --recipe mine.toml --splits-file published.npz --out runs/mine
      featbank protocol paired runs/mine runs/other
      featbank protocol cross ~/koniq-10k ~/uhd-iqa --recipe starter --map nominal
      featbank protocol curve ~/uhd-iqa --recipe starter --sizes 50,100,200,400
    """
    from featbank.atomic import check_folder
    from featbank.bank import Bank
    from featbank.protocols.preparation import prepare, write_outcome
    from featbank.recipes.reading import read_recipe
    from featbank.report.protocol_page import write_protocol_page
    from featbank.runs.folder import PROTOCOL

    if options.protocol == "paired":
        return _paired(options)
    started, clock = datetime.now(UTC), time.perf_counter()
    recipe = read_recipe(options.recipe)
    bank = Bank(options.bank)
    out = Path(options.out or f"runs/{recipe.name}-{options.protocol}")
    check_folder(out, PROTOCOL, "protocol --out")
    places = [("data", options.rows or ("all" if options.protocol == "given" else None))]
    if options.protocol == "cross":
        places.append(("other", options.other_rows))
    materials = [
        prepare(
            opt.read_data(options, place),
            recipe,
            bank,
            which=rows,
            features_command=opt.features_command(options, getattr(options, place)),
        )
        for place, rows in places
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


def _paired(options: argparse.Namespace) -> Output:
    from featbank.errors import RunError
    from featbank.protocols.protocols import compare_outcomes

    if len(options.runs) < 2:
        raise RunError("protocol paired: two folders or more are compared, got one.")
    rows = compare_outcomes(options.runs)
    note = (
        "median and mean: of the first minus the second, over splits; wins: share of splits with the better score; p: "
        "corrected resampled t test, for splits share images."
    )
    return Output({"differences": rows}, f"{render_rows(rows)}\n{note}")


def _carry_out(options: argparse.Namespace, materials: list[Material]) -> Outcome:
    if options.protocol == "given":
        from featbank.datasets import read_splits
        from featbank.protocols.protocols import run_given

        splits, notes = read_splits(options.splits_file, materials[0].table.frame["image_id"].tolist())
        return run_given(materials[0], splits, notes=notes, workers=options.workers)
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
    return [opt.positive_int(part) for part in text.split(",")]


_LEADERBOARD_OPTIONS = (
    opt.argument("runs [RUN...]", "run folder written by `featbank fit`"),
    opt.argument("--table 1|2|3|4|5|7", "one table (default: 1 to 3; all of them without RUN)", int),
    opt.argument("--csv FILE", "also write the tables of scores as one CSV"),
    opt.argument("--markdown FILE", "also write them as Markdown"),
)


def _leaderboard(options: argparse.Namespace) -> Output:
    """Place runs in Tables 1 to 3 of the AIM 2024 report by the challenge's own ranking rule.

    A run must have been judged on the official UHD-IQA split; runs on the built-in photo set, on other datasets or
    on other rows are refused. Metrics are computed anew from the run's predictions. Without RUN, the published
    tables, with those of costs (4) and of two teams' own comparisons (5, 7). Gold, silver and bronze are the first
    three in a metric. Marks: M cost over the budget, P pseudo-labelled validation images, C worse than a constant
    prediction, T fewer training images, R random weights.

    For example:
      featbank leaderboard runs/uhd-iqa --csv leaderboard.csv
    """
    from featbank.atomic import check_file, write_file
    from featbank.leaderboard import board as boards_of
    from featbank.leaderboard.published import PARTS, TITLES, published_table

    tables = (
        ("--csv", options.csv, _boards_csv, "table,part,place,method,"),
        ("--markdown", options.markdown, _boards_markdown, "## Table "),
    )
    for option, place, _, start in tables:
        if place:
            check_file(place, f"leaderboard {option}", partial(_starts_with, start))
    entries = []
    if options.runs:
        from featbank.runs.folder import telling_damage

        for folder in options.runs:
            with telling_damage(folder):
                entries.append(boards_of.read_entry(folder))
    numbers = (options.table,) if options.table in PARTS else tuple(PARTS)
    boards = [boards_of.build_board(number, entries) for number in numbers]
    for _, place, render, _ in tables:
        if place:
            write_file(place, render(boards), "leaderboard")
    document: dict[str, object] = {}
    texts = []
    if options.table is None or options.table in PARTS:
        document["tables"] = [boards_of.board_document(board) for board in boards]
        for board in boards:
            lines = [f"Table {board.number}. {board.title}", render_rows(boards_of.board_rows(board))]
            texts.append("\n".join([*lines, *boards_of.board_notes(board)]))
    for number, rows, note in boards_of.plain_tables():
        if options.table == number or (options.table is None and not entries):
            document[f"table_{number}"] = published_table(number).to_dict("records")
            texts.append(f"Table {number}. {TITLES[number]}\n{render_rows(rows)}\n{note}")
    return Output(document, "\n\n".join(texts))


def _boards_csv(boards: list[Board]) -> str:
    import pandas as pd

    from featbank.leaderboard.board import board_frame

    return str(pd.concat([board_frame(board) for board in boards]).to_csv(index=False, lineterminator="\n"))


def _boards_markdown(boards: list[Board]) -> str:
    from featbank.leaderboard.board import board_notes, board_rows
    from featbank.report.tables import markdown_table, markdown_text

    blocks = []
    for board in boards:
        rows = board_rows(board)
        lines = [f"## Table {board.number}. {board.title}", ""]
        lines += markdown_table(list(rows[0]), (list(row.values()) for row in rows))
        blocks.append("\n".join([*lines, "", *(f"- {markdown_text(note)}" for note in board_notes(board))]))
    return "\n\n".join(blocks) + "\n"


def _starts_with(start: str, path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start.encode()


COMMANDS = {
    "search": Command(_SEARCH_OPTIONS, _search),
    "protocol": Command((_protocol_arguments,), _protocol),
    "leaderboard": Command(_LEADERBOARD_OPTIONS, _leaderboard),
}
