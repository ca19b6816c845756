"""Metrics as rows of tables, spelled, in CSV and in Markdown; knows no page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from featbank.report.style import (
    CORRELATIONS,
    METRIC_TITLES,
    MISSING,
    count,
    decimals_for,
    fixed,
    interval,
    split_title,
)
from featbank.runs.folder import METRIC_NAMES, RunData, Scores

METADATA_RIDGE = "metadata_ridge"
CONSTANT = "constant"
NEAREST = "nearest_photo"
MODEL = "this run"
_BASELINE_TITLES = {
    CONSTANT: "constant prediction",
    METADATA_RIDGE: "ridge on the metadata alone",
    NEAREST: "MOS of the nearest training photo",
}


@dataclass(frozen=True)
class ScoreRow:
    """One row of a table of metrics, spelled.

    Attributes
    ----------
    name : str
        Split or predictor.
    kind : str
        ``model``, ``band`` or ``baseline``; for rows of one predictor, ``split``, ``subset`` or, for the split
        the verdict speaks of, ``headline``.
    cells : list of (str, str)
        Value and interval of each metric, in the order asked for; the interval is empty where there is none.
    """

    name: str
    kind: str
    n: str
    cells: list[tuple[str, str]]


def column_decimals(sets: Iterable[Scores]) -> dict[str, int]:
    """Decimals of each metric's column: three for correlations, three significant digits for errors."""
    found = list(sets)
    errors = [s.metrics[name] for s in found for name in METRIC_NAMES if name not in CORRELATIONS]
    return {name: 3 if name in CORRELATIONS else decimals_for(errors) for name in METRIC_NAMES}


def spelled(
    name: str, kind: str, scores: Scores, decimals: Mapping[str, int], metrics: Sequence[str] = METRIC_NAMES
) -> ScoreRow:
    """Spell one set of metrics."""
    cells = [
        (
            fixed(scores.metrics[metric], decimals[metric]),
            interval(*scores.ci95.get(metric, (math.nan, math.nan)), decimals[metric]),
        )
        for metric in metrics
    ]
    return ScoreRow(name, kind, count(scores.n), cells)


def split_rows(run: RunData) -> list[ScoreRow]:
    """Metrics of the model, one row by split and subset."""
    decimals = column_decimals(run.scores.values())
    return [
        spelled(split_title(key), _row_kind(key, run.headline), scores, decimals)
        for key, scores in run.scores.items()
    ]


def _row_kind(key: str, headline: str) -> str:
    if key == headline:
        return "headline"
    return "subset" if "/" in key else "split"


def predictors(run: RunData, key: str) -> list[tuple[str, str, Scores]]:
    """Name, kind and metrics on one split of the model, its single bands (best first) and the baselines."""
    found = [(MODEL, "model", run.scores[key])] if key in run.scores else []
    bands = [(f"{band} alone", "band", sets[key]) for band, sets in run.single_bands.items() if key in sets]
    # Undefined correlations come last.
    found += sorted(
        bands, key=lambda row: -row[2].metrics["srcc"] if math.isfinite(row[2].metrics["srcc"]) else 2.0
    )
    found += [
        (_BASELINE_TITLES.get(name, name), "baseline", sets[key])
        for name, sets in sorted(run.baselines.items(), reverse=True)
        if key in sets
    ]
    return found


def comparison_rows(run: RunData, metrics: Sequence[str] = METRIC_NAMES) -> list[ScoreRow]:
    """Metrics on the headline split of the model and of everything it is compared with."""
    rows = predictors(run, run.headline)
    decimals = column_decimals(scores for _, _, scores in rows)
    return [spelled(name, kind, scores, decimals, metrics) for name, kind, scores in rows]


def tables_csv(run: RunData) -> str:
    """Every metric of every predictor on every split, one row each, with all digits the run folder has.

    Returns
    -------
    str
        Columns ``predictor, kind, split, subset, n``, then for each metric its value and the ends of its 95 %
        interval; an empty cell where a value is undefined.
    """
    named = [*run.single_bands.values(), *run.baselines.values()]
    keys = dict.fromkeys([*run.scores, *(key for sets in named for key in sets)])
    records = []
    for key in keys:
        split, _, subset = key.partition("/")
        for name, kind, scores in predictors(run, key):
            place = {"predictor": name, "kind": kind, "split": split, "subset": subset, "n": scores.n}
            records.append(place | score_record(scores))
    return str(pd.DataFrame(records).to_csv(index=False, lineterminator="\n"))


def score_record(scores: Scores) -> dict[str, float]:
    """Lay metrics and the ends of their intervals out as ``<metric>``, ``<metric>_low``, ``<metric>_high``."""
    record: dict[str, float] = {}
    for metric in METRIC_NAMES:
        low, high = scores.ci95.get(metric, (math.nan, math.nan))
        record |= {metric: scores.metrics[metric], f"{metric}_low": low, f"{metric}_high": high}
    return record


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay rows of text out as lines of a Markdown table."""
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 1)]
    return lines + ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]


def record_lines(columns: Sequence[tuple[str, str, str]], rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Lay rows out by columns of (key, heading, class) as lines of a Markdown table, small print beside its value."""
    cells = ([f"{row[key]} {row.get(f'{key}_small', '')}".strip() for key, *_ in columns] for row in rows)
    return markdown_table([heading for _, heading, _ in columns], cells)


def score_lines(first: str, rows: Iterable[ScoreRow]) -> list[str]:
    """Lay rows of metrics out as lines of a Markdown table."""
    titles = [first, "n", *(METRIC_TITLES[metric] for metric in METRIC_NAMES)]
    cells = ([row.name, row.n, *(f"{value} {ends}".strip() for value, ends in row.cells)] for row in rows)
    return markdown_table(titles, cells)


def markdown_text(text: str) -> str:
    """Write a text so that nothing in it is read as markup."""
    flat = " ".join(text.split())
    for mark in "\\`*_|<>[]#":
        flat = flat.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, f"\\{mark}"))
    return flat or MISSING
