"""Turns a run folder into an entry for the tables: checked rows, metrics computed anew, cost, remarks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.leaderboard.marks import Mark, run_marks
from experiments.leaderboard.official import check_official, rows_of
from experiments.leaderboard.published import METRIC_COLUMNS
from experiments.runs.consistency import disagreements, recomputed_scores
from experiments.runs.data import RunData
from experiments.runs.reading import read_run
from featbank.errors import RunError

PRINTED_DECIMALS = 4
"""Decimals of Tables 1 to 3; a run is compared at the same number."""


@dataclass(frozen=True)
class RunEntry:
    """What the tables show of one run.

    Attributes
    ----------
    name : str
        Folder of the run.
    title : str
        Title of its recipe.
    scores : mapping of str to mapping of str to float
        `METRIC_COLUMNS` by part, to four decimals; parts that are not complete are absent.
    gmacs, params_m : float
        Of one image; gmacs is nan where the cost of a band is unknown.
    marks : tuple of Mark
        Remarks that hold in every table.
    """

    name: str
    title: str
    scores: Mapping[str, Mapping[str, float]]
    gmacs: float
    params_m: float
    marks: tuple[Mark, ...]


def read_entry(folder: str | Path) -> RunEntry:
    """Read one run.

    Parameters
    ----------
    folder : path
        Written by ``featbank fit``.

    Returns
    -------
    RunEntry

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
        part: {name: _rounded(values[name]) for name in METRIC_COLUMNS}
        for part, values in recomputed_scores(run.predictions).items()
        if part in parts
    }
    gmacs = math.nan if _has_unknown_cost(run) else run.gmacs
    marks = run_marks(gmacs, len(rows_of(run.predictions, "training")), run.random_bands)
    return RunEntry(str(Path(folder)), run.title, scores, gmacs, run.params_m, tuple(marks))


def _rounded(value: float | None) -> float:
    return math.nan if value is None else round(value, PRINTED_DECIMALS)


def _has_unknown_cost(run: RunData) -> bool:
    return any(row.get("gmacs") is None for row in run.rows("features"))
