"""The page of a protocol, and the figures of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from featbank.protocols.preparation import Outcome
from featbank.report.figures import WIDTH, density_levels
from featbank.report.page import page_environment
from featbank.report.style import (
    CORRELATIONS,
    METRIC_TITLES,
    Drawing,
    Theme,
    count,
    decimals_for,
    fixed,
    paint_bars,
    plural,
)
from featbank.report.summary import SIMULATION_NOTE
from featbank.runs.folder import write_text
from featbank.search.study import Finished, pareto_front, pick_winner

_MAX_ROWS = 14


def draw_study(
    folder: Path, finished: Sequence[Finished], importance: pd.DataFrame, budget_gmacs: float
) -> None:
    """Write both figures of a search into its folder."""
    pareto_figure(finished, budget_gmacs).write_png(folder)
    importance_figure(importance).write_png(folder)


def pareto_figure(finished: Sequence[Finished], budget_gmacs: float) -> Drawing:
    """Draw every evaluated configuration as a point, the front as a step line, the winner as a star."""
    known = [item for item in finished if np.isfinite(item.evaluation.srcc)]
    front = [item for item in pareto_front(finished) if np.isfinite(item.evaluation.srcc)]
    winner = pick_winner(finished)

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        cost = np.array([item.evaluation.gmacs for item in known])
        axes.scatter(
            cost,
            [item.evaluation.srcc for item in known],
            s=14,
            color=theme.muted,
            alpha=0.45,
            linewidths=0,
            label=f"{len(known)} configurations",
        )
        xs = [item.evaluation.gmacs for item in front]
        ys = [item.evaluation.srcc for item in front]
        right = max(cost.max() * 1.03 if len(cost) else 1.0, 1e-9)
        axes.step(
            [*xs, right],
            [*ys, *ys[-1:]],
            where="post",
            color=theme.accent,
            linewidth=1.6,
            label="Pareto front",
        )
        axes.scatter(xs, ys, s=26, color=theme.accent, zorder=3)
        axes.scatter(
            [winner.evaluation.gmacs],
            [winner.evaluation.srcc],
            s=150,
            marker="*",
            color=theme.contrast,
            zorder=4,
            label="winner",
        )
        if budget_gmacs <= 1.5 * right:
            axes.axvline(budget_gmacs, color=theme.warn, linestyle="--", linewidth=1.2, label="budget")
        axes.set_xlabel("GMACs for one photo")
        axes.set_ylabel("SRCC on held-out training rows")
        # Above the axes: the points may lie anywhere in them.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handletextpad=0.5)
        return figure

    return Drawing(
        "pareto",
        f"SRCC against GMACs of {len(known)} configurations within {budget_gmacs:g} GMACs; the front has {len(front)} "
        f"of them, the winner reaches {winner.evaluation.srcc:.4f} at {winner.evaluation.gmacs:.3g} GMACs.",
        paint,
    )


def importance_figure(importance: pd.DataFrame) -> Drawing:
    """Draw the importance of the choices as bars, the largest on top."""
    shown = importance.head(_MAX_ROWS)
    names = [str(choice).removeprefix("band:") for choice in shown["choice"]]
    shares = shown["importance"].fillna(0.0).tolist()
    bars = [(name, share, f"{share:.3f}") for name, share in zip(names, shares, strict=True)]

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(6.4, 0.6 + 0.42 * len(names)), layout="constrained")
        xlabel = "share of the variance of SRCC among the evaluated configurations"
        paint_bars(figure.subplots(), theme, bars, xlabel)
        return figure

    alt = ", ".join(f"{name} {text}" for name, _, text in bars)
    return Drawing("importance", f"Importance of the choices: {alt}.", paint)


PAGE_NAME = "protocol.html"

_CAPTIONS = {
    "repeated": "Each tick is a split; the upright line is the median, the tinted area the middle half.",
    "given": "Each tick is a split; the upright line is the median, the tinted area the middle half.",
    "curve": "Median over the repeats, and the middle half of them tinted. While the curve still rises at its right "
    "end, more rated photos would help.",
    "cross": "Each mark is an image of the other dataset. On the dashed line the rescaled prediction equals the MOS.",
}


def write_protocol_page(outcome: Outcome, folder: Path, recipe_title: str, is_simulation: bool) -> Path:
    """Write ``protocol.html`` and ``protocol.png``.

    Returns
    -------
    Path
        The page: one file, with no script and no address outside itself.
    """
    drawing = protocol_figure(outcome)
    if drawing is not None:
        drawing.write_png(folder)
    columns, rows = _table(outcome)
    page = (
        page_environment()
        .get_template("protocol.html")
        .render(
            title=outcome.title,
            recipe_title=recipe_title,
            simulation_note=SIMULATION_NOTE if is_simulation else "",
            sentence=outcome.sentence,
            notes=outcome.notes,
            figure_markup=None if drawing is None else drawing.markup(),
            caption=_CAPTIONS[outcome.kind],
            columns=columns,
            rows=rows,
            has_summary=outcome.summary is not None,
        )
    )
    return write_text(folder / PAGE_NAME, page)


def protocol_figure(outcome: Outcome) -> Drawing | None:
    """Draw the outcome; None where no fit has an SRCC."""
    if outcome.kind == "cross":
        return None if outcome.predictions is None else _cross_figure(outcome.predictions)
    known = outcome.scores[outcome.scores["srcc"].notna()]
    if known.empty:
        return None
    return _curve_figure(outcome) if outcome.kind == "curve" else _repeated_figure(known["srcc"].to_numpy())


def _repeated_figure(srcc: np.ndarray) -> Drawing:
    q1, median, q3 = np.quantile(srcc, [0.25, 0.5, 0.75])

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots()
        bins = int(np.clip(np.sqrt(len(srcc)) * 1.5, 5, 40))
        heights, _, _ = axes.hist(srcc, bins=bins, color=theme.accent, alpha=0.55, lw=0)
        top = float(np.max(heights))
        axes.axvspan(q1, q3, color=theme.contrast, alpha=0.12, lw=0)
        axes.axvline(median, color=theme.contrast, lw=1.8)
        axes.plot(srcc, np.full(len(srcc), -0.05 * top), "|", color=theme.muted, ms=6, mew=0.7)
        axes.set(xlabel="SRCC of a split", ylabel="splits", ylim=(-0.1 * top, 1.2 * top))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.annotate(
            f"median {fixed(float(median), 3)}", (median, 1.0), xycoords=("data", "axes fraction"),
            xytext=(5, -2), textcoords="offset points", va="top", color=theme.ink, fontsize=9.5,
        )  # fmt: skip
        return figure

    return Drawing("protocol", f"Histogram of the SRCC over {plural(len(srcc), 'split')}.", paint)


def _curve_figure(outcome: Outcome) -> Drawing:
    assert outcome.summary is not None
    rows = outcome.summary[(outcome.summary["metric"] == "srcc") & outcome.summary["median"].notna()]
    sizes, median, q1, q3 = (rows[name].to_numpy(dtype=np.float64) for name in ("size", "median", "q1", "q3"))

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(sizes, q1, q3, color=theme.accent, alpha=0.16, lw=0)
        axes.plot(sizes, median, "o-", color=theme.accent, ms=5.5)
        axes.set(xlabel="rated photos to learn from", ylabel="SRCC on held-out photos")
        if sizes.max() > 3 * sizes.min():
            axes.set_xscale("log")
        axes.set_xticks(sizes, [count(int(size)) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        return figure

    return Drawing("protocol", "SRCC against the number of rated photos.", paint)


def _cross_figure(predictions: pd.DataFrame) -> Drawing:
    mos, predicted = (predictions[name].to_numpy(dtype=np.float64) for name in ("mos", "predicted"))

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.86 * WIDTH), layout="constrained")
        axes = figure.subplots()
        # Scales may differ after the map, so the axes are free: what matters is the order.
        ends = (min(mos.min(), predicted.min()), max(mos.max(), predicted.max()))
        axes.plot(ends, ends, color=theme.muted, lw=0.9, ls=(0, (5, 2)))
        levels = density_levels(mos, predicted, len(theme.ramp))
        size = float(np.clip(90 / np.sqrt(len(mos)), 2.6, 6.5))
        for level, colour in enumerate(theme.ramp):
            here = levels == level
            axes.plot(mos[here], predicted[here], "o", ms=size, color=colour, mec=theme.surface, mew=0.3)
        axes.set(xlabel=f"MOS of the other dataset (n = {count(len(mos))})", ylabel="rescaled prediction")
        axes.locator_params(nbins=6)
        return figure

    return Drawing("protocol", "Rescaled prediction against the MOS of the other dataset.", paint)


def _table(outcome: Outcome) -> tuple[list[tuple[str, str, str]], list[dict[str, str]]]:
    if outcome.summary is None:
        columns = [("predictor", "predictor", ""), ("n", "n", "num")]
        columns += [(name, title, "num") for name, title in METRIC_TITLES.items()]
        errors = outcome.scores[["mae", "rmse"]].to_numpy(dtype=np.float64).ravel().tolist()
        places = {name: 3 if name in CORRELATIONS else decimals_for(errors) for name in METRIC_TITLES}
        rows = [
            {"predictor": row["predictor"], "n": count(row["n"])}
            | {name: fixed(_float(row[name]), places[name]) for name in METRIC_TITLES}
            for row in outcome.scores.to_dict("records")
        ]
        return columns, rows
    names = [("median", "median"), ("std", "deviation"), ("q1", "lower quartile"), ("q3", "upper quartile")]
    names += [("low", "2.5 %"), ("high", "97.5 %")]
    order = list(METRIC_TITLES)
    shown = outcome.summary.sort_values("metric", key=lambda names: names.map(order.index), kind="stable")
    has_size = "size" in shown.columns
    if has_size:
        shown = shown[shown["metric"] == "srcc"]
    columns = [
        ("name", "photos" if has_size else "metric", ""),
        *((key, title, "num") for key, title in names),
    ]
    rows = []
    for row in shown.to_dict("records"):
        digits = 3 if row["metric"] in CORRELATIONS else decimals_for([row["std"], row["median"]])
        name = count(row["size"]) if has_size else METRIC_TITLES[row["metric"]]
        rows.append({"name": name} | {key: fixed(_float(row[key]), digits) for key, _ in names})
    return columns, rows


def _float(value: object) -> float:
    return float("nan") if value is None or pd.isna(value) else float(value)  # type: ignore[arg-type]
