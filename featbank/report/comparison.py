"""Several runs side by side: words, figures, tables, page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from featbank.atomic import FolderKind, replacing_folder
from featbank.report.figures import WIDTH
from featbank.report.page import page_environment
from featbank.report.style import (
    CORRELATIONS,
    METRIC_TITLES,
    DotRow,
    Drawing,
    Mark,
    Theme,
    decimals_for,
    duration,
    fixed,
    interval,
    number,
    paint_dots,
    percent,
    plain_label,
    plural,
    split_title,
)
from featbank.report.summary import SIMULATION_NOTE, Verdict
from featbank.report.tables import (
    ScoreRow,
    column_decimals,
    markdown_text,
    record_lines,
    score_lines,
    score_record,
    spelled,
)
from featbank.runs.comparison import TRAINING, Comparison
from featbank.runs.folder import METRIC_NAMES, Scores, write_text
from regressors.evaluation.comparison import DEFAULT_METRICS

LEVEL = 0.05
"""Corrected p below which a difference is called one."""


def p_text(p: float) -> str:
    """Spell a p value: three decimals, small ones as a bound, a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else fixed(p, 3)


def leader(comparison: Comparison, part: str) -> str | None:
    """Run of the highest SRCC on one part; None where no run has one."""
    values = {label: scores.metrics["srcc"] for label, scores in comparison.scores(part).items()}
    known = {label: value for label, value in values.items() if math.isfinite(value)}
    return max(known, key=known.__getitem__) if known else None


def _ranked(scores: Mapping[str, Scores]) -> list[str]:
    """Order runs by SRCC, the best first and undefined ones last."""
    return sorted(scores, key=lambda n: -v if math.isfinite(v := scores[n].metrics["srcc"]) else 2.0)


def seen_from(comparison: Comparison, label: str, part: str, metric: str) -> pd.DataFrame:
    """Differences of one run to every other: ``other, difference, low, high, p, p_holm``, its value minus theirs."""
    rows = comparison.differences
    rows = rows[(rows["part"] == part) & (rows["metric"] == metric)]
    first, second = rows[rows["first"] == label], rows[rows["second"] == label]
    turned = pd.DataFrame(
        {
            "other": second["first"],
            "difference": -second["difference"],
            "low": -second["high"],
            "high": -second["low"],
            "p": second["p"],
            "p_holm": second["p_holm"],
        }
    )
    kept = first.rename(columns={"second": "other"})[turned.columns]
    return pd.concat([kept, turned], ignore_index=True)


def word_comparison(comparison: Comparison) -> Verdict:
    """Say which run ranks the headline part best, and whether its lead is more than chance."""
    part = comparison.headline
    where = f"On {split_title(part)} ({plural(comparison.parts[part], 'image')})"
    best = leader(comparison, part)
    if best is None:
        return Verdict(
            f"{where} no run has a rank correlation with MOS: their predictions are constant.", False
        )
    value = comparison.scores(part)[best].metrics["srcc"]
    rivals = seen_from(comparison, best, part, "srcc")
    rivals = rivals[rivals["difference"].notna()].sort_values("difference", kind="stable")
    text = f"{where} {best} ranks best with SRCC {fixed(value, 3)}"
    if not rivals.empty and rivals["p"].isna().any():
        rival = rivals.iloc[0]
        return Verdict(
            f"{text}, {fixed(rival['difference'], 3)} before {rival['other']}; whether that is chance cannot be told "
            f"from {plural(comparison.groups[part], 'group')} of images.",
            False,
        )
    if rivals.empty:
        return Verdict(f"{text}; the other runs are constant.", True)
    nearest = rivals.iloc[0]
    n_pairs = len(comparison.runs) * (len(comparison.runs) - 1) // 2
    corrected = f", corrected for {n_pairs} comparisons" if n_pairs > 1 else ""
    lead = (
        f"its lead of {fixed(nearest['difference'], 3)} over {nearest['other']} "
        f"({interval(nearest['low'], nearest['high'], 3)}, p {_p_relation(nearest['p_holm'])}{corrected})"
    )
    is_sure = bool((rivals["p_holm"] < LEVEL).all())
    if is_sure:
        return Verdict(f"{text}; {lead} is more than the choice of test images explains.", True)
    level = rivals.loc[rivals["p_holm"] >= LEVEL, "other"].tolist()
    others = "" if len(level) < 2 else f" Not told apart from it: {', '.join(level)}."
    return Verdict(f"{text}; {lead} may be chance.{others}", False)


def comparison_notes(comparison: Comparison) -> list[str]:
    """Sentences on how the figures are meant, for the small print under the verdict."""
    notes = [
        f"Differences, intervals and p come from {comparison.n_resamples:,} paired resamples of the images, drawn by "
        "groups (uploader, scene, reference) where they are known: every resample is given to all runs at once. p is "
        "two-sided; Holm’s correction covers all pairs of one metric on one part, and two runs are told apart where it "
        f"stays below {LEVEL:g}. Intervals are of single pairs. They tell how far other test images would move the "
        "result, not other training images."
    ]
    if comparison.headline == TRAINING:
        notes.append(
            "The runs have no validation or test split: these are out-of-fold predictions, on folds that chose the "
            "hyper-parameters, hence somewhat too good."
        )
    return [*notes, *comparison.notes]


def _p_relation(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


MAX_RUNS = 20


def scores_figure(comparison: Comparison) -> Drawing | None:
    """SRCC of every run with its interval, on the headline part and, set off, on its exclusive images."""
    part = comparison.headline
    exclusive = f"{part}/exclusive"
    scores = comparison.scores(part)
    below = comparison.scores(exclusive) if exclusive in comparison.parts else {}
    names = [name for name in _ranked(scores) if math.isfinite(scores[name].metrics["srcc"])][:MAX_RUNS]
    if not names:
        return None
    dots = []
    for name in names:
        marks = [_mark(scores[name], legend=split_title(part))]
        if name in below and math.isfinite(below[name].metrics["srcc"]):
            marks.append(_mark(below[name], "contrast", 5.0, "D", "exclusive only", 0.26))
        dots.append(DotRow(plain_label(name), fixed(marks[0].value, 3), marks, is_bold=name == names[0]))

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 1.0 + (0.6 if below else 0.44) * len(names)), layout="constrained")
        paint_dots(figure.subplots(), theme, dots, "SRCC", is_srcc=True)
        if below:
            figure.legend(loc="outside lower center", ncols=2)
        return figure

    return Drawing("compared_scores", f"SRCC of every run on {split_title(part)}, with intervals.", paint)


def _mark(
    scores: Scores,
    colour: str = "accent",
    size: float = 6.5,
    marker: str = "o",
    legend: str = "",
    below: float = 0.0,
) -> Mark:
    low, high = scores.ci95.get("srcc", (math.nan, math.nan))
    return Mark(scores.metrics["srcc"], low, high, colour, size, marker, legend, below)


def differences_figure(comparison: Comparison) -> Drawing | None:
    """Differences in SRCC of the best run to each other one, with interval and corrected p."""
    part = comparison.headline
    best = leader(comparison, part)
    if best is None:
        return None
    rows = seen_from(comparison, best, part, "srcc")
    rows = rows[rows["p"].notna()].sort_values("difference", kind="stable").head(MAX_RUNS)
    dots = []
    for row in rows.to_dict("records"):
        is_sure = row["p_holm"] < LEVEL
        colour = "accent" if is_sure else "muted"
        mark = Mark(row["difference"], row["low"], row["high"], colour, is_filled=is_sure)
        figures = f"{fixed(row['difference'], 3)}   p {p_text(row['p_holm'])}"
        dots.append(DotRow(plain_label(f"over {row['other']}"), figures, [mark], ("ink", "muted")))
    if not dots:
        return None

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.9 + 0.46 * len(dots)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=theme.ink, lw=1.0)
        xlabel = f"SRCC of {plain_label(best, 24)} minus that of the other run"
        paint_dots(axes, theme, dots, xlabel, is_srcc=False)
        return figure

    return Drawing("compared_differences", f"Differences in SRCC between {best} and the other runs.", paint)


def cost_figure(comparison: Comparison) -> Drawing | None:
    """SRCC against GMACs, one mark for each run; runs on the upper left edge are worth their cost."""
    part = comparison.headline
    points = [(run.label, run.gmacs, run.data.scores[part].metrics["srcc"]) for run in comparison.runs]
    points = [p for p in points if math.isfinite(p[1]) and p[1] > 0 and math.isfinite(p[2])]
    if len({gmacs for _, gmacs, _ in points}) < 2:
        return None
    front = {
        name
        for name, gmacs, srcc in points
        if not any((g <= gmacs and s > srcc) or (g < gmacs and s >= srcc) for _, g, s in points)
    }

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        edge = sorted((g, s) for name, g, s in points if name in front)
        axes.step([g for g, _ in edge], [s for _, s in edge], where="post", color=theme.accent, lw=1.2)
        middle = math.sqrt(min(g for _, g, _ in points) * max(g for _, g, _ in points))
        for name, gmacs, srcc in points:
            is_front = name in front
            axes.plot([gmacs], [srcc], "o", color=theme.accent if is_front else theme.muted, ms=6.5)
            is_right = gmacs > middle
            axes.annotate(
                plain_label(name, 22),
                (gmacs, srcc),
                xytext=(-8 if is_right else 8, 4),
                textcoords="offset points",
                ha="right" if is_right else "left",
                color=theme.ink if is_front else theme.muted,
                fontsize=9,
            )
        axes.set(xscale="log", xlabel="GMACs of one image", ylabel=f"SRCC, {split_title(part)}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _position: number(value))
        axes.margins(x=0.12, y=0.14)
        return figure

    return Drawing("compared_cost", "SRCC of every run against its GMACs.", paint)


COLUMNS: Final = {
    "differences": [
        ("pair", "pair", ""),
        ("difference", "difference", "num"),
        ("p", "p", "num"),
        ("p_holm", "p, corrected", "num"),
    ],
    "cost": [
        ("run", "run", ""),
        ("gmacs", "GMACs", "num"),
        ("params", "M params", "num"),
        ("photo", "one photo", "num"),
        ("fit", "fit", "num"),
    ],
    "drop": [
        ("run", "run, split", ""),
        ("whole", "SRCC, all", "num"),
        ("subset", "SRCC, exclusive", "num"),
        ("drop", "drop", "num"),
    ],
}
"""Columns of the tables: key of the rows, heading, class."""

MAX_PAIRS = 20
"""Pairs that the page and the Markdown list for a metric; the CSV has all."""

SHOWN_DIFFERENCES = ("srcc", "mae")
"""Metrics whose differences the page shows; the CSV has all."""


def score_rows(comparison: Comparison, part: str) -> list[ScoreRow]:
    """Metrics of every run on one part, best SRCC first."""
    scores = comparison.scores(part)
    decimals = column_decimals(scores.values())
    best = leader(comparison, part)
    return [
        spelled(name, "headline" if name == best else "split", scores[name], decimals)
        for name in _ranked(scores)
    ]


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
    return str(comparison.differences.to_csv(index=False, lineterminator="\n"))


def scores_csv(comparison: Comparison) -> str:
    """Every metric of every run on every part, with cost, wins and the share of closest images."""
    records = []
    for part, n in comparison.parts.items():
        wins = comparison.wins(part)
        for run in comparison.runs:
            records.append(
                {"run": run.label, "title": run.data.title, "part": part, "n": n}
                | score_record(run.data.scores[part])
                | {
                    "wins": wins[run.label],
                    "closest_share": comparison.closest[part][run.label],
                    "gmacs": run.gmacs,
                    "params_m": run.data.params_m,
                    "seconds_per_photo": run.seconds_per_photo,
                    "fit_s": run.fit_s,
                }
            )
    return str(pd.DataFrame(records).to_csv(index=False, lineterminator="\n"))


def comparison_markdown(comparison: Comparison) -> str:
    """Verdict, scores, differences, cost and drop as Markdown."""
    lines = ["# Comparison of runs", ""]
    if comparison.is_simulation:
        lines += [f"> **Simulation.** {SIMULATION_NOTE}", ""]
    lines += [markdown_text(word_comparison(comparison).sentence), ""]
    for part, n in comparison.parts.items():
        lines += [f"## {split_title(part)} ({plural(n, 'image')})", ""]
        lines += score_lines("run", score_rows(comparison, part))
        for metric in SHOWN_DIFFERENCES:
            lines += ["", f"Difference in {METRIC_TITLES[metric]}:", ""]
            lines += record_lines(COLUMNS["differences"], difference_rows(comparison, part, metric))
        lines.append("")
    lines += ["## Cost", "", *record_lines(COLUMNS["cost"], cost_rows(comparison))]
    if drops := drop_rows(comparison):
        lines += ["", "## Drop of SRCC to the exclusive subset", "", *record_lines(COLUMNS["drop"], drops)]
    return "\n".join([*lines, ""])


def _verdict(better: str, p_holm: float) -> str:
    if better:
        return f"{better} better"
    return "not told apart" if math.isfinite(p_holm) else "not compared"


def _signed(value: float, decimals: int) -> str:
    text = fixed(value, decimals)
    return f"+{text}" if math.isfinite(value) and value > 0 and float(text) != 0 else text


PAGE_NAME = "comparison.html"
COMPARISON: Final = FolderKind("comparison")


def write_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write ``comparison.html``, its figures as PNG, ``scores.csv``, ``differences.csv`` and ``comparison.md``.

    Returns
    -------
    Path
        The page: one file, with no script and no address outside itself.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    drawings = (scores_figure(comparison), differences_figure(comparison), cost_figure(comparison))
    figures = {drawing.name: drawing for drawing in drawings if drawing is not None}
    with replacing_folder(folder, COMPARISON, "report --out") as place:
        for drawing in figures.values():
            drawing.write_png(place)
        write_text(place / "scores.csv", scores_csv(comparison))
        write_text(place / "differences.csv", differences_csv(comparison))
        write_text(place / "comparison.md", comparison_markdown(comparison))
        write_text(place / PAGE_NAME, render_comparison(comparison, figures))
    return Path(folder) / PAGE_NAME


def render_comparison(comparison: Comparison, figures: Mapping[str, Drawing]) -> str:
    """Render a comparison as a self-contained HTML document."""
    parts = [
        {
            "name": part.replace("/", "-"),
            "title": split_title(part),
            "n": plural(n, "image"),
            "rows": score_rows(comparison, part),
            "differences": [
                (METRIC_TITLES[metric], difference_rows(comparison, part, metric))
                for metric in SHOWN_DIFFERENCES
            ],
        }
        for part, n in comparison.parts.items()
    ]
    return (
        page_environment()
        .get_template("compare.html")
        .render(
            title="Comparison of " + plural(len(comparison.runs), "run"),
            facts=[
                ("dataset", str(comparison.runs[0].data.section("dataset").get("name") or "not named")),
                ("runs", ", ".join(run.label for run in comparison.runs)),
            ],
            simulation_note=SIMULATION_NOTE if comparison.is_simulation else "",
            verdict=word_comparison(comparison),
            verdict_notes=comparison_notes(comparison),
            headline=split_title(comparison.headline),
            metric_titles=[METRIC_TITLES[name] for name in METRIC_NAMES],
            parts=parts,
            columns=COLUMNS,
            figures={name: drawing.markup() for name, drawing in figures.items()},
            n_pairs=len(comparison.runs) * (len(comparison.runs) - 1) // 2,
            max_pairs=MAX_PAIRS,
            win_columns=[
                ("part", "part", ""),
                *((f"run{i}", run.label, "num") for i, run in enumerate(comparison.runs)),
            ],
            win_rows=win_rows(comparison),
            cost_rows=cost_rows(comparison),
            drop_rows=drop_rows(comparison),
        )
    )
