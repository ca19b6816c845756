"""Place runs in Tables 1 to 3 of the AIM 2024 report by the challenge's own ranking rule.

A run must have been judged on the official UHD-IQA split; runs on the built-in photo set, on other datasets or on
other rows are refused. Metrics are computed anew from the run's predictions. Without RUN, the published tables.
Marks: M cost over the budget, P pseudo-labelled validation images, C worse than a constant prediction, T fewer
training images, R random weights.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from featbank.commands import Output

EXAMPLE = "example: featbank leaderboard runs/uhd-iqa --csv leaderboard.csv"

SCORE_TABLES = (1, 2, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help="run folder written by `featbank fit`")
    parser.add_argument(
        "--table", type=int, choices=(1, 2, 3, 4), help="one table (default: 1 to 3; all four without RUN)"
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the tables of scores as one CSV")
    parser.add_argument("--markdown", metavar="FILE", help="also write them as Markdown")


def run(options: argparse.Namespace) -> Output:
    """Rank."""
    from featbank.atomic import check_file, write_file
    from featbank.leaderboard.board import (
        board_document,
        build_board,
        render_costs,
        render_csv,
        render_markdown,
        render_text,
    )
    from featbank.leaderboard.published import published_table

    tables = (
        ("--csv", options.csv, render_csv, "table,part,place,method,"),
        ("--markdown", options.markdown, render_markdown, "## Table "),
    )
    for option, place, _, start in tables:
        if place:
            check_file(place, f"leaderboard {option}", partial(_starts_with, start))
    entries = []
    if options.runs:
        from featbank.leaderboard.board import read_entry
        from featbank.runs.folder import telling_damage

        for folder in options.runs:
            with telling_damage(folder):
                entries.append(read_entry(folder))
    numbers = SCORE_TABLES if options.table in (None, 4) else (options.table,)
    boards = [build_board(number, entries) for number in numbers]
    for _, place, render, _ in tables:
        if place:
            write_file(place, render(boards), "leaderboard")
    document: dict[str, object] = {}
    texts = []
    if options.table != 4:
        document["tables"] = [board_document(board) for board in boards]
        texts.append(render_text(boards))
    if options.table == 4 or (options.table is None and not entries):
        document["table_4"] = published_table(4).to_dict("records")
        texts.append(render_costs())
    return Output(document, "\n\n".join(texts))


def _starts_with(start: str, path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start.encode()
