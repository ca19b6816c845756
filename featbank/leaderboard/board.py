"""The leaderboard: published entries and runs ranked by the challenge's rule, with marks where a score has a caveat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from featbank.errors import RunError
from featbank.leaderboard.published import (
    METRIC_COLUMNS,
    PARTS,
    TITLES,
    check_official,
    official_parts,
    published_costs,
    published_table,
    rows_of,
)
from featbank.recipes.reading import AIM2024_BUDGET_GMACS
from featbank.runs.folder import read_run
from featbank.runs.trust import disagreements, recomputed_scores
from regressors.evaluation.metrics import ERRORS


def rank_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank every row in every metric; the best has rank 1."""
    ranks = {
        name: scores[name].rank(method="min", ascending=name in ERRORS, na_option="bottom")
        for name in METRIC_COLUMNS
    }
    return pd.DataFrame(ranks, index=scores.index).astype(np.int64)


def main_scores(scores: pd.DataFrame) -> pd.Series:
    """Compute the main score of every row: the mean of its five ranks among all rows."""
    return rank_metrics(scores).sum(axis=1) / len(METRIC_COLUMNS)


RETRAINED_GMACS = 200.0
"""What the retrained baselines exceed, by the caption of Table 1."""

PRINTED_DECIMALS = 4
"""Decimals of Tables 1 to 3; a run is compared at the same number."""

MEDALS = ("gold", "silver", "bronze")
"""Of the first three in a metric, as the report highlights them; equal ones share the better."""

RANKED_KINDS = ("team", "run")
"""Who takes part in the ranking: the teams of the challenge, and runs. The organisers' baseline and the methods
they retrained are shown without a rank, as in the report."""


class Mark(NamedTuple):
    """One remark, without a full stop.

    Its letter: ``M`` cost over the budget, ``P`` pseudo-labelled validation images, ``C`` worse than a constant
    prediction, ``T`` fewer training images, ``R`` random weights.
    """

    letter: str
    sentence: str


class RunEntry(NamedTuple):
    """What the tables show of one run.

    ``scores`` holds `METRIC_COLUMNS` by part, to four decimals, without parts that are not complete; GMACs of one image
    are nan where the cost of a band is unknown; ``marks`` hold in every table.
    """

    name: str
    title: str
    scores: Mapping[str, Mapping[str, float]]
    gmacs: float
    params_m: float
    marks: tuple[Mark, ...]


class BoardRow(NamedTuple):
    """One line of a table.

    ``place`` is 1 for the lowest main score, equal ones sharing the better place, and None for entries outside the
    ranking; ``kind`` is ``team``, ``run``, ``organisers`` or ``retrained``; ``scores`` are as printed; costs, as
    published and as counted, are nan where unknown, and alike for a run; ``medals`` hold the metrics in which it is
    among the first three of all lines.
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
    medals: Mapping[str, str] = MappingProxyType({})


class Board(NamedTuple):
    """One table, best first; unranked entries follow by falling SRCC. ``absent`` names runs that lack this part."""

    number: int
    title: str
    rows: tuple[BoardRow, ...]
    absent: tuple[str, ...]


def constant_marks(part: str, mae: float, rmse: float) -> list[Mark]:
    """Mark errors above those of the mean training MOS as the prediction for every image."""
    floor = official_parts()[part]
    errors = (("MAE", mae, floor.constant_mae), ("RMSE", rmse, floor.constant_rmse))
    worse = [f"{name} {own:.4f} against {constant:.4f}" for name, own, constant in errors if own > constant]
    return [Mark("C", f"worse than a constant prediction: {', '.join(worse)}")] if worse else []


def published_marks(method: str, kind: str) -> list[Mark]:
    """Mark what the report itself and a recount say of a published entry, whatever the table."""
    if kind == "retrained":
        return [Mark("M", f"needs more than {RETRAINED_GMACS:g} GMACs (caption of Table 1)")]
    cost, budget = published_costs()[method], AIM2024_BUDGET_GMACS
    marks = []
    if cost.counted_gmacs > budget:
        text = f"{cost.counted_gmacs:g} GMACs counted, {cost.gmacs:g} published, budget {budget:g}"
        marks.append(Mark("M", text))
    elif cost.gmacs > budget:
        marks.append(Mark("M", f"{cost.gmacs:g} GMACs published, budget {budget:g}"))
    if cost.has_pseudo_labels:
        marks.append(Mark("P", "learned from pseudo-labelled validation images"))
    return marks


def run_marks(gmacs: float, n_training: int, random_bands: Sequence[str] = ()) -> list[Mark]:
    """Mark a run's cost for one image, nan where it is unknown, training rows and bands of random weights."""
    marks = []
    if gmacs > AIM2024_BUDGET_GMACS:
        marks.append(Mark("M", f"{gmacs:.2f} GMACs, budget {AIM2024_BUDGET_GMACS:g}"))
    elif gmacs != gmacs:
        marks.append(Mark("M", "cost unknown: the GMACs of an imported band were not stated"))
    if random_bands:
        marks.append(Mark("R", f"random weights in {', '.join(random_bands)}: no result of these networks"))
    n_official = official_parts()["training"].n
    if n_training < n_official:
        marks.append(Mark("T", f"learned from {n_training:,} of {n_official:,} training images"))
    return marks


def read_entry(folder: str | Path) -> RunEntry:
    """Read one run, a folder written by ``featbank fit``.

    Raises
    ------
    RunError
        If the folder is no run, its rows are not the official ones, or its metrics do not follow from its
        predictions.
    """
    run = read_run(folder)
    parts = check_official(run)
    wrong = disagreements(run)
    if wrong:
        raise RunError(
            f"leaderboard: run {str(run.path)!r} contradicts itself: {wrong[0]}. Its metrics.json does not follow from "
            "its predictions.csv, so one of them was changed afterwards. Fit it again."
        )
    scores = {
        part: {
            name: math.nan if values[name] is None else round(values[name], PRINTED_DECIMALS)
            for name in METRIC_COLUMNS
        }
        for part, values in recomputed_scores(run.predictions).items()
        if part in parts
    }
    is_unknown = any(row.get("gmacs") is None for row in run.rows("features"))
    gmacs = math.nan if is_unknown else run.gmacs
    marks = run_marks(gmacs, len(rows_of(run.predictions, "training")), run.random_bands)
    return RunEntry(str(Path(folder)), run.title, scores, gmacs, run.params_m, tuple(marks))


def build_board(number: int, entries: Sequence[RunEntry] = ()) -> Board:
    """Put runs among the entries of one published table, 1 to 3, and rank all that take part.

    Ranks are taken among the teams and the runs together, so every run moves the teams behind it; medals among all
    lines, as in the report.
    """
    part = PARTS[number]
    rows = [_published_row(record, part) for record in published_table(number).to_dict("records")]
    rows += [_run_row(entry, part) for entry in entries if part in entry.scores]
    numbers = pd.DataFrame(
        [{name: float(row.scores[name] or "nan") for name in METRIC_COLUMNS} for row in rows]
    )
    ranks = rank_metrics(numbers)
    for i, row in enumerate(rows):
        won = {
            name: MEDALS[rank - 1]
            for name, rank in ranks.loc[i].items()
            if rank <= len(MEDALS) and row.scores[name]
        }
        rows[i] = row._replace(medals=won)
    takes_part = [row.kind in RANKED_KINDS for row in rows]
    main = main_scores(numbers[takes_part])
    places = main.rank(method="min").astype(int)
    ranked = [
        rows[i]._replace(place=int(places[i]), main_score=float(main[i]))
        for i in main.sort_values(kind="stable").index
    ]
    unranked = [rows[i] for i in numbers["srcc"].sort_values(ascending=False).index if not takes_part[i]]
    absent = tuple(entry.name for entry in entries if part not in entry.scores)
    return Board(number, TITLES[number], (*ranked, *unranked), absent)


def _published_row(record: dict[str, str], part: str) -> BoardRow:
    name, kind = record["method"], record["kind"]
    cost = published_costs().get(name)
    costs = (math.nan,) * 3 if cost is None else (cost.gmacs, cost.counted_gmacs, cost.params_m)
    marks = published_marks(name, kind) + constant_marks(part, float(record["mae"]), float(record["rmse"]))
    scores = {metric: record[metric] for metric in METRIC_COLUMNS}
    return BoardRow(None, name, kind, None, scores, *costs, tuple(marks))


def _run_row(entry: RunEntry, part: str) -> BoardRow:
    values = entry.scores[part]
    scores = {name: "" if math.isnan(v) else f"{v:.4f}" for name, v in values.items()}
    marks = (*entry.marks, *constant_marks(part, values["mae"], values["rmse"]))
    return BoardRow(None, entry.name, "run", None, scores, entry.gmacs, entry.gmacs, entry.params_m, marks)


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
                "medals": "; ".join(f"{name} {medal}" for name, medal in row.medals.items()),
                **{
                    name: None if math.isnan(value := getattr(row, name)) else value
                    for name in ("gmacs", "counted_gmacs", "params_m")
                },
                "marks": "".join(mark.letter for mark in row.marks),
                "remarks": "; ".join(mark.sentence for mark in row.marks),
            }
            for row in board.rows
        ],
        dtype=object,
    )


_RULE = (
    "Score: mean of the ranks in the five metrics among the teams and the runs (report, section 2.1); "
    "the lowest wins."
)
_PODIUM_NOTE = (
    "The report says that its podium follows from Table 2; it follows from Table 1. By Table 2, the winner would be "
    "EQCNet, which had learned from pseudo-labels of these very images."
)


def cost_rows() -> list[dict[str, str]]:
    """Lay Table 4 out as rows of text, with our recount beside the printed GMACs; - where too little is said."""
    rows = []
    for record in published_table(4).to_dict("records"):
        counted = published_costs()[record["method"]].counted_gmacs
        rows.append(
            {
                name: record[name]
                for name in ("method", "input", "training_hours", "extra_data", "params_m", "gmacs")
            }
            | {"counted": "-" if math.isnan(counted) else f"{counted:g}", "gpu": record["gpu"]}
        )
    return rows


_NOTES = {
    5: "SRCC and PLCC on the official validation split: what quality-aware pre-training adds to CIPLAB's system.",
    7: "As printed; the report does not say of which photos. EQCN's SRCC of 0.8403 is neither that of Table 1 nor of "
    "Table 2, and the MAE of Q-Align is EQCN's.",
}
"""What is to be known of the tables that runs have no place in."""


def plain_tables() -> list[tuple[int, list[dict[str, str]], str]]:
    """Lay out Tables 4, 5 and 7, in which runs have no place: number, rows of text by heading, and a note."""
    counted = "counted: multiply-accumulates at dispatcher level; - where the report does not say enough."
    others = [
        (
            number,
            [
                {k if k == "method" else k.upper(): v for k, v in row.items()}
                for row in published_table(number).to_dict("records")
            ],
            note,
        )
        for number, note in _NOTES.items()
    ]
    return [(4, cost_rows(), counted), *others]


def board_document(board: Board) -> dict[str, Any]:
    """Give one table as a JSON-able document."""
    records = board_frame(board).to_dict("records")
    return {"table": board.number, "title": board.title, "rows": records, "absent_runs": list(board.absent)}


def board_rows(board: Board) -> list[dict[str, str]]:
    """Lay a table out as rows of text by heading; the names of runs begin with >."""
    return [
        {
            "place": "-" if row.place is None else str(row.place),
            "method": f"> {row.name}" if row.kind == "run" else row.name,
            "score": "-" if row.main_score is None else f"{row.main_score:.1f}",
            **{
                name.upper(): f"{row.scores[name] or '-'} {row.medals.get(name, '')}".rstrip()
                for name in METRIC_COLUMNS
            },
            **{
                heading: "-" if math.isnan(value) else f"{round(value, 3):g}"
                for heading, value in (("GMACs", row.gmacs), ("counted", row.counted_gmacs))
            },
            "marks": "".join(mark.letter for mark in row.marks),
        }
        for row in board.rows
    ]


def board_notes(board: Board) -> list[str]:
    """Say what the marks of a table mean, and its rule."""
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
