"""The run's tables as rows of text for the page, as CSV with every digit, and as Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featbank.encoders import random_weights_note
from featbank.report.verdict import CONSTANT, METADATA_RIDGE, word_verdict
from featbank.report.wording import (
    CORRELATIONS,
    METRIC_TITLES,
    MISSING,
    count,
    decimals_for,
    fixed,
    interval,
    split_title,
)
from featbank.runs.data import METRIC_NAMES, RunData, Scores

MODEL = "this run"
SIMULATION_NOTE = (
    "These photos were rendered and their MOS come from simulated raters: "
    "the results prove nothing about real photos."
)
_BASELINE_TITLES = {CONSTANT: "constant prediction", METADATA_RIDGE: "ridge on the metadata alone"}


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
    n : str
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
    errors = [s.values[name] for s in found for name in METRIC_NAMES if name not in CORRELATIONS]
    return {name: 3 if name in CORRELATIONS else decimals_for(errors) for name in METRIC_NAMES}


def spelled(
    name: str,
    kind: str,
    scores: Scores,
    decimals: Mapping[str, int],
    metrics: Sequence[str] = METRIC_NAMES,
) -> ScoreRow:
    """Spell one set of metrics."""
    cells = [
        (
            fixed(scores.values[metric], decimals[metric]),
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
        bands, key=lambda row: -row[2].values["srcc"] if math.isfinite(row[2].values["srcc"]) else 2.0
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
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = [f"{metric}{end}" for metric in METRIC_NAMES for end in ("", "_low", "_high")]
    writer.writerow(["predictor", "kind", "split", "subset", "n", *ends])
    named = [*run.single_bands.values(), *run.baselines.values()]
    keys = dict.fromkeys([*run.scores, *(key for sets in named for key in sets)])
    for key in keys:
        split, _, subset = key.partition("/")
        for name, kind, scores in predictors(run, key):
            cells: list[float] = []
            for metric in METRIC_NAMES:
                cells += [scores.values[metric], *scores.ci95.get(metric, (math.nan, math.nan))]
            texts = [repr(value) if math.isfinite(value) else "" for value in cells]
            writer.writerow([name, kind, split, subset, scores.n, *texts])
    return buffer.getvalue()


def table_markdown(run: RunData) -> str:
    """Title, verdict, metrics by split and comparisons as Markdown, for a README or an issue."""
    lines = [f"# {markdown_text(run.title)}", ""]
    if run.is_simulation:
        lines += [f"> **Simulation.** {SIMULATION_NOTE}", ""]
    if run.random_bands:
        lines += [f"> **{markdown_text(random_weights_note(run.random_bands))}**", ""]
    lines += [markdown_text(word_verdict(run).sentence), "", "## Metrics by split", ""]
    lines += _markdown_table("split", split_rows(run))
    comparisons = comparison_rows(run)
    if len(comparisons) > 1:
        lines += ["", f"## What it is compared with ({split_title(run.headline)})", ""]
        lines += _markdown_table("predictor", comparisons)
    return "\n".join([*lines, ""])


def _markdown_table(first: str, rows: Iterable[ScoreRow]) -> list[str]:
    titles = [first, "n", *(METRIC_TITLES[metric] for metric in METRIC_NAMES)]
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 1)]
    for row in rows:
        cells = [f"{value} {bounds}".strip() for value, bounds in row.cells]
        lines.append("| " + " | ".join([markdown_text(row.name), row.n, *cells]) + " |")
    return lines


def markdown_text(text: str) -> str:
    """Write a text so that nothing in it is read as markup."""
    flat = " ".join(text.split())
    for mark in "\\`*_|<>[]#":
        flat = flat.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, f"\\{mark}"))
    return flat or MISSING
