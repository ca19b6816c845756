"""Figures of a comparison: SRCC of every run, differences to the best one, SRCC against cost; reads no files."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from featbank.report.compare_words import LEVEL, leader, p_text, seen_from
from featbank.report.drawing import Drawing, label_row
from featbank.report.score_figures import WIDTH
from featbank.report.theme import Theme
from featbank.report.wording import fixed, number, plain_label, split_title
from featbank.runs.comparison import Comparison

MAX_RUNS = 20


def scores_figure(comparison: Comparison) -> Drawing | None:
    """SRCC of every run with its interval, on the headline part and, set off, on its exclusive images."""
    part = comparison.headline
    exclusive = f"{part}/exclusive"
    has_exclusive = exclusive in comparison.parts
    scores = comparison.scores(part)
    names = sorted(
        (name for name in scores if math.isfinite(scores[name].values["srcc"])),
        key=lambda name: -scores[name].values["srcc"],
    )[:MAX_RUNS]
    if not names:
        return None
    best = names[0]
    below = comparison.scores(exclusive) if has_exclusive else {}

    def paint(theme: Theme) -> Figure:
        step = 0.6 if has_exclusive else 0.44
        figure = Figure(figsize=(WIDTH, 1.0 + step * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        ends = []
        for y, name in enumerate(names):
            axes.axhline(y, color=theme.line, lw=0.6, zorder=0)
            rows = [(scores[name], float(y), "o", theme.accent, split_title(part))]
            if name in below and math.isfinite(below[name].values["srcc"]):
                rows.append((below[name], y + 0.26, "D", theme.contrast, "exclusive only"))
            for entry, height, marker, colour, label in rows:
                value = entry.values["srcc"]
                low, high = entry.ci95.get("srcc", (math.nan, math.nan))
                if math.isfinite(low) and math.isfinite(high):
                    axes.plot([low, high], [height, height], color=colour, lw=1.8)
                axes.plot(
                    [value],
                    [height],
                    marker,
                    color=colour,
                    ms=6.5 if marker == "o" else 5.0,
                    label=label if y == 0 else None,
                    ls="none",
                )
                ends += [v for v in (value, low, high) if math.isfinite(v)]
            label_row(
                axes,
                y,
                plain_label(name),
                fixed(scores[name].values["srcc"], 3),
                above=5,
                colours=(theme.ink, theme.ink),
                is_bold=name == best,
            )
        _finish(axes, len(names), "SRCC")
        axes.set_xlim(min(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03))
        if has_exclusive:
            figure.legend(loc="outside lower center", ncols=2)
        return figure

    return Drawing("compared_scores", f"SRCC of every run on {split_title(part)}, with intervals.", paint)


def differences_figure(comparison: Comparison) -> Drawing | None:
    """Differences in SRCC of the best run to each other one, with interval and corrected p."""
    part = comparison.headline
    best = leader(comparison, part)
    if best is None:
        return None
    rows = seen_from(comparison, best, part, "srcc")
    rows = rows[rows["p"].notna()].sort_values("difference", kind="stable").head(MAX_RUNS)
    if rows.empty:
        return None
    records = rows.to_dict("records")

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.9 + 0.46 * len(records)), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.axvline(0, color=theme.ink, lw=1.0)
        for y, row in enumerate(records):
            is_sure = row["p_holm"] < LEVEL
            colour = theme.accent if is_sure else theme.muted
            axes.axhline(y, color=theme.line, lw=0.6, zorder=0)
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.8)
            axes.plot(
                [row["difference"]], [y], "o", color=colour, ms=6.5, mfc=colour if is_sure else theme.surface
            )
            p = p_text(row["p_holm"])
            label_row(
                axes,
                y,
                plain_label(f"over {row['other']}"),
                f"{fixed(row['difference'], 3)}   p {p}",
                above=5,
                colours=(theme.ink, theme.muted),
                is_bold=False,
            )
        _finish(axes, len(records), f"SRCC of {plain_label(best, 24)} minus that of the other run")
        return figure

    return Drawing("compared_differences", f"Differences in SRCC between {best} and the other runs.", paint)


def cost_figure(comparison: Comparison) -> Drawing | None:
    """SRCC against GMACs, one mark for each run; runs on the upper left edge are worth their cost."""
    part = comparison.headline
    points = [(run.label, run.gmacs, run.data.scores[part].values["srcc"]) for run in comparison.runs]
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


def _finish(axes: Axes, n_rows: int, xlabel: str) -> None:
    axes.set(ylim=(n_rows - 0.5, -0.75), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
