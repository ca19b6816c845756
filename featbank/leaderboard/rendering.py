"""Writes tables as aligned text, Markdown and CSV; ranks nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from featbank.leaderboard.board import Board, BoardRow, board_frame
from featbank.leaderboard.published import METRIC_COLUMNS, published_costs, published_table

_HEADINGS = (
    "place",
    "method",
    "score",
    *(name.upper() for name in METRIC_COLUMNS),
    "GMACs",
    "counted",
    "marks",
)
_RULE = (
    "Score: mean of the ranks in the five metrics among the teams and the runs (report, section 2.1); "
    "the lowest wins."
)
_PODIUM_NOTE = (
    "The report says that its podium follows from Table 2; it follows from Table 1. By Table 2, the winner would be "
    "EQCNet, which had learned from pseudo-labels of these very images."
)


def render_text(boards: Sequence[Board]) -> str:
    """Lay the tables out as aligned columns, with the remarks under each."""
    return "\n\n".join(_text(board) for board in boards)


def render_markdown(boards: Sequence[Board]) -> str:
    """Write the tables as Markdown, runs in bold."""
    blocks = []
    for board in boards:
        lines = [f"## Table {board.number}. {board.title}", ""]
        lines += ["| " + " | ".join(_HEADINGS) + " |", "|--:|---|" + "--:|" * 8 + "---|"]
        for row in board.rows:
            cells = _cells(row)
            cells[1] = _escaped(cells[1])
            if row.kind == "run":
                cells[1] = f"**{cells[1]}**"
            lines.append("| " + " | ".join(cells) + " |")
        notes = [f"- {_escaped(note)}" for note in _notes(board)]
        blocks.append("\n".join([*lines, "", *notes]))
    return "\n\n".join(blocks) + "\n"


def render_csv(boards: Sequence[Board]) -> str:
    """Write all tables as one CSV, a column saying which table a row belongs to."""
    buffer = io.StringIO()
    pd.concat([board_frame(board) for board in boards]).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def render_costs() -> str:
    """Lay Table 4 out as aligned columns, with our recount beside the printed GMACs."""
    table = published_table(4)
    counts = [published_costs()[method].counted_gmacs for method in table["method"]]
    headings = ["method", "input", "hours", "extra data", "params M", "GMACs", "counted", "GPU"]
    names = ["method", "input", "training_hours", "extra_data", "params_m", "gmacs", "gpu"]
    rows = []
    for record, counted in zip(table[names].to_dict("records"), counts, strict=True):
        cells = list(record.values())
        cells.insert(6, "-" if counted != counted else f"{counted:g}")
        rows.append(cells)
    lines = ["Table 4. Training specification", *_aligned([headings, *rows], right=set())]
    return "\n".join(
        [*lines, "counted: multiply-accumulates at dispatcher level; - where the report does not say enough."]
    )


def board_document(board: Board) -> dict[str, Any]:
    """Give one table as a JSON-able document."""
    records = board_frame(board).to_dict("records")
    return {
        "table": board.number,
        "title": board.title,
        "rows": records,
        "absent_runs": list(board.absent),
    }


def _text(board: Board) -> str:
    rows = [list(_HEADINGS), *(_cells(row) for row in board.rows)]
    lines = _aligned(rows, right={0, *range(2, 10)})
    return "\n".join([f"Table {board.number}. {board.title}", *lines, *_notes(board)])


def _cells(row: BoardRow) -> list[str]:
    return [
        "-" if row.place is None else str(row.place),
        f"> {row.name}" if row.kind == "run" else row.name,
        "-" if row.main_score is None else f"{row.main_score:.1f}",
        *(row.scores[name] or "-" for name in METRIC_COLUMNS),
        *(
            "-" if value != value else f"{value:g}"
            for value in (round(row.gmacs, 3), round(row.counted_gmacs, 3))
        ),
        "".join(mark.letter for mark in row.marks),
    ]


def _notes(board: Board) -> list[str]:
    grouped: dict[str, list[str]] = {}
    for row in board.rows:
        for mark in row.marks:
            grouped.setdefault(f"{mark.letter}: {mark.sentence}", []).append(row.name)
    notes = [f"{text} ({', '.join(names)})" for text, names in sorted(grouped.items())]
    notes.append(_RULE)
    if board.number == 2:
        notes.append(_PODIUM_NOTE)
    if board.absent:
        notes.append(f"Without this part, hence not placed: {', '.join(board.absent)}.")
    return notes


def _aligned(rows: Sequence[Sequence[str]], right: set[int]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _escaped(text: str) -> str:
    for mark in "\\`*_|<>":
        text = text.replace(mark, f"\\{mark}")
    return text
