"""The tables of a comparison: rows of text for the page, CSV with every digit, Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import pandas as pd

from featbank.report.compare_words import leader, p_text, word_comparison
from featbank.report.tables import SIMULATION_NOTE, ScoreRow, column_decimals, markdown_text, spelled
from featbank.report.wording import (
    CORRELATIONS,
    METRIC_TITLES,
    decimals_for,
    duration,
    fixed,
    interval,
    number,
    percent,
    plural,
    split_title,
)
from featbank.runs.comparison import Comparison
from featbank.runs.data import METRIC_NAMES
from regressors.evaluation.comparison import DEFAULT_METRICS

MAX_PAIRS = 20
"""Pairs that the page and the Markdown list for a metric; the CSV has all."""

SHOWN_DIFFERENCES = ("srcc", "mae")
"""Metrics whose differences the page shows; the CSV has all."""


def score_rows(comparison: Comparison, part: str) -> list[ScoreRow]:
    """Metrics of every run on one part, best SRCC first."""
    scores = comparison.scores(part)
    decimals = column_decimals(scores.values())
    best = leader(comparison, part)
    order = sorted(
        scores,
        key=lambda name: -v if math.isfinite(v := scores[name].values["srcc"]) else 2.0,  # noqa: PD011
    )
    return [spelled(name, "headline" if name == best else "split", scores[name], decimals) for name in order]


def difference_rows(comparison: Comparison, part: str, metric: str) -> list[dict[str, str]]:
    """Differences of the pairs in one metric on one part, the surest first, at most `MAX_PAIRS`."""
    rows = comparison.differences
    rows = rows[(rows["part"] == part) & (rows["metric"] == metric)].sort_values(
        ["p_holm", "p"], kind="stable", na_position="last"
    )
    # One decimal more than the errors themselves have on the page: differences are smaller than values.
    values = rows[["first_value", "second_value"]].to_numpy().ravel().tolist()
    decimals = 3 if metric in CORRELATIONS else 1 + decimals_for(values)
    return [
        {
            "pair": f"{row['first']} − {row['second']}",
            "difference": _signed(row["difference"], decimals),
            "difference_small": interval(row["low"], row["high"], decimals),
            "p": p_text(row["p"]),
            "p_holm": p_text(row["p_holm"]),
            "p_holm_small": _verdict(row["better"], row["p_holm"]),
        }
        for row in rows.head(MAX_PAIRS).to_dict("records")
    ]


def win_rows(comparison: Comparison) -> list[dict[str, str]]:
    """How many metrics each run wins on each part, and on what share of the images it comes closest."""
    rows = []
    for part, n in comparison.parts.items():
        wins = comparison.wins(part)
        row = {"part": split_title(part), "part_small": plural(n, "image")}
        for i, run in enumerate(comparison.runs):
            row[f"run{i}"] = f"{wins[run.label]} of {len(DEFAULT_METRICS)}"
            row[f"run{i}_small"] = f"closest on {percent(comparison.closest[part][run.label])}"
        rows.append(row)
    return rows


def cost_rows(comparison: Comparison) -> list[dict[str, str]]:
    """GMACs, parameters and measured seconds of each run."""
    return [
        {
            "run": run.label,
            "run_small": run.data.title if run.data.title != run.label else "",
            "gmacs": number(run.gmacs),
            "params": number(run.data.params_m),
            "photo": duration(run.seconds_per_photo),
            "fit": duration(run.fit_s),
        }
        for run in comparison.runs
    ]


def drop_rows(comparison: Comparison) -> list[dict[str, str]]:
    """SRCC on all images and on the exclusive ones, and the fall between them."""
    return [
        {
            "run": row["run"],
            "run_small": row["split"],
            "whole": fixed(row["whole"], 3),
            "subset": fixed(row["subset"], 3),
            "drop": _signed(row["drop"], 3),
            "drop_small": interval(row["low"], row["high"], 3),
        }
        for row in comparison.drops.to_dict("records")
    ]


def differences_csv(comparison: Comparison) -> str:
    """Every pair in every metric on every part, with all digits."""
    return _csv(comparison.differences)


def scores_csv(comparison: Comparison) -> str:
    """Every metric of every run on every part, with cost, wins and the share of closest images."""
    records = []
    for part, n in comparison.parts.items():
        wins = comparison.wins(part)
        for run in comparison.runs:
            scores = run.data.scores[part]
            record: dict[str, object] = {"run": run.label, "title": run.data.title, "part": part, "n": n}
            for metric in METRIC_NAMES:
                low, high = scores.ci95.get(metric, (math.nan, math.nan))
                record |= {
                    metric: scores.values[metric],  # noqa: PD011 - a dict, not a frame
                    f"{metric}_low": low,
                    f"{metric}_high": high,
                }
            records.append(
                record
                | {
                    "wins": wins[run.label],
                    "closest_share": comparison.closest[part][run.label],
                    "gmacs": run.gmacs,
                    "params_m": run.data.params_m,
                    "seconds_per_photo": run.seconds_per_photo,
                    "fit_s": run.fit_s,
                }
            )
    return _csv(pd.DataFrame(records))


def comparison_markdown(comparison: Comparison) -> str:
    """Verdict, scores, differences, cost and drop as Markdown."""
    lines = ["# Comparison of runs", ""]
    if comparison.is_simulation:
        lines += [f"> **Simulation.** {SIMULATION_NOTE}", ""]
    lines += [markdown_text(word_comparison(comparison).sentence), ""]
    for part, n in comparison.parts.items():
        lines += [f"## {split_title(part)} ({plural(n, 'image')})", ""]
        lines += _table(
            ["run", *(METRIC_TITLES[metric] for metric in METRIC_NAMES)],
            (
                [row.name, *(f"{value} {bounds}".strip() for value, bounds in row.cells)]
                for row in score_rows(comparison, part)
            ),
        )
        for metric in SHOWN_DIFFERENCES:
            lines += ["", f"Difference in {METRIC_TITLES[metric]}:", ""]
            lines += _table(
                ["pair", "difference", "95 % interval", "p", "p (Holm)", "better"],
                (
                    [
                        *(row[k] for k in ("pair", "difference", "difference_small", "p", "p_holm")),
                        row["p_holm_small"],
                    ]
                    for row in difference_rows(comparison, part, metric)
                ),
            )
        lines.append("")
    lines += ["## Cost", ""]
    lines += _table(
        ["run", "GMACs", "M parameters", "one photo", "fit"],
        ([row[k] for k in ("run", "gmacs", "params", "photo", "fit")] for row in cost_rows(comparison)),
    )
    drops = drop_rows(comparison)
    if drops:
        lines += ["", "## Drop of SRCC to the exclusive subset", ""]
        lines += _table(
            ["run", "split", "all", "exclusive", "drop", "95 % interval"],
            (
                [row[k] for k in ("run", "run_small", "whole", "subset", "drop", "drop_small")]
                for row in drops
            ),
        )
    return "\n".join([*lines, ""])


def _verdict(better: str, p_holm: float) -> str:
    if better:
        return f"{better} better"
    return "not told apart" if math.isfinite(p_holm) else "not compared"


def _signed(value: float, decimals: int) -> str:
    text = fixed(value, decimals)
    return f"+{text}" if math.isfinite(value) and value > 0 and float(text) != 0 else text


def _table(titles: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 1)]
    return lines + ["| " + " | ".join(markdown_text(cell) for cell in row) + " |" for row in rows]


def _csv(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()
