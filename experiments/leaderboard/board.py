"""Tables 1 to 3 with runs among the published entries, ordered by the challenge's own rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.leaderboard.entries import RunEntry
from experiments.leaderboard.marks import Mark, constant_marks, published_marks
from experiments.leaderboard.published import METRIC_COLUMNS, PARTS, TITLES, published_costs, published_table
from experiments.leaderboard.ranking import main_scores

RANKED_KINDS = ("team", "run")
"""Who takes part in the ranking: the teams of the challenge, and runs. The organisers' baseline and the methods
they retrained are shown without a rank, as in the report."""


@dataclass(frozen=True)
class BoardRow:
    """One line of a table.

    Attributes
    ----------
    place : int or None
        1 for the lowest main score, equal scores sharing the better place; None for entries outside the ranking.
    name, kind : str
        Method or run folder; ``team``, ``run``, ``organisers`` or ``retrained``.
    main_score : float or None
        Mean of the five ranks.
    scores : dict of str to str
        Metrics as printed; runs with four decimals.
    gmacs, counted_gmacs, params_m : float
        As published and as counted; nan where unknown. A run has its own count in both.
    marks : tuple of Mark
    """

    place: int | None
    name: str
    kind: str
    main_score: float | None
    scores: dict[str, str]
    gmacs: float
    counted_gmacs: float
    params_m: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Board:
    """One table, best first; unranked entries follow by falling SRCC.

    Attributes
    ----------
    number : int
        Of the report's table.
    title : str
    rows : tuple of BoardRow
    absent : tuple of str
        Runs that lack this part.
    """

    number: int
    title: str
    rows: tuple[BoardRow, ...]
    absent: tuple[str, ...]


def build_board(number: int, entries: Sequence[RunEntry] = ()) -> Board:
    """Put runs among the entries of one published table and rank all that take part.

    Ranks are taken among the teams and the runs together, so every run moves the teams behind it.

    Parameters
    ----------
    number : int in {1, 2, 3}
    entries : sequence of RunEntry

    Returns
    -------
    Board
    """
    part = PARTS[number]
    rows = [_published_row(record, part) for record in published_table(number).to_dict("records")]
    present = [entry for entry in entries if part in entry.scores]
    rows += [_run_row(entry, part) for entry in present]
    numbers = pd.DataFrame(
        [{name: float(row.scores[name] or "nan") for name in METRIC_COLUMNS} for row in rows]
    )
    takes_part = [row.kind in RANKED_KINDS for row in rows]
    main = main_scores(numbers[takes_part])
    places = main.rank(method="min").astype(int)
    ranked = [
        _with_place(rows[i], int(places[i]), float(main[i])) for i in main.sort_values(kind="stable").index
    ]
    unranked = [rows[i] for i in numbers["srcc"].sort_values(ascending=False).index if not takes_part[i]]
    absent = tuple(entry.name for entry in entries if part not in entry.scores)
    return Board(number, TITLES[number], (*ranked, *unranked), absent)


def board_frame(board: Board) -> pd.DataFrame:
    """Lay a table out as a frame of plain values, for CSV and JSON."""
    return pd.DataFrame(
        [
            {
                "table": board.number,
                "part": PARTS[board.number],
                "place": row.place,
                "method": row.name,
                "kind": row.kind,
                "main_score": row.main_score,
                **row.scores,
                "gmacs": _none_if_nan(row.gmacs),
                "counted_gmacs": _none_if_nan(row.counted_gmacs),
                "params_m": _none_if_nan(row.params_m),
                "marks": "".join(mark.letter for mark in row.marks),
                "remarks": "; ".join(mark.sentence for mark in row.marks),
            }
            for row in board.rows
        ],
        dtype=object,
    )


def _published_row(record: dict[str, str], part: str) -> BoardRow:
    cost = published_costs().get(record["method"])
    marks = published_marks(record["method"], record["kind"])
    marks += constant_marks(part, float(record["mae"]), float(record["rmse"]))
    return BoardRow(
        place=None,
        name=record["method"],
        kind=record["kind"],
        main_score=None,
        scores={name: record[name] for name in METRIC_COLUMNS},
        gmacs=math.nan if cost is None else cost.gmacs,
        counted_gmacs=math.nan if cost is None else cost.counted_gmacs,
        params_m=math.nan if cost is None else cost.params_m,
        marks=tuple(marks),
    )


def _run_row(entry: RunEntry, part: str) -> BoardRow:
    values = entry.scores[part]
    return BoardRow(
        place=None,
        name=entry.name,
        kind="run",
        main_score=None,
        scores={name: "" if math.isnan(v) else f"{v:.4f}" for name, v in values.items()},
        gmacs=entry.gmacs,
        counted_gmacs=entry.gmacs,
        params_m=entry.params_m,
        marks=(*entry.marks, *constant_marks(part, values["mae"], values["rmse"])),
    )


def _with_place(row: BoardRow, place: int, main_score: float) -> BoardRow:
    return BoardRow(**{**row.__dict__, "place": place, "main_score": main_score})


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
