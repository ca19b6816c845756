"""Figures of the model: band shares, cross-validation curves, cost against the budget; reads no files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featbank.report.drawing import Drawing, label_row
from featbank.report.score_figures import DASHES, WIDTH
from featbank.report.theme import Theme
from featbank.report.wording import number, percent, plain_label, plural, score_title
from featbank.runs.data import RunData, as_float

MAX_BARS = 24
INTERCEPT = "intercept"  # the row of weights.csv that is no member
MAX_CURVES = 6


@dataclass(frozen=True)
class Curve:
    """Mean cross-validated score of one member along one hyper-parameter.

    Attributes
    ----------
    member : str
    x, mean, std : float arrays of shape (n_values,)
        ``x`` increases; where other hyper-parameters were searched too, their best value at each ``x``.
    best : int
        Position of the chosen value.
    """

    member: str
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    best: int


def curve_parameter(run: RunData) -> str | None:
    """Hyper-parameter to draw the curve against: alpha, else C, else the first of at least two numbers."""
    frame = run.cv_results
    if "mean_test_score" not in frame.columns:
        return None
    numeric = [
        name
        for name in run.grid_parameters()
        if pd.api.types.is_numeric_dtype(frame[name]) and frame[name].nunique() >= 2
    ]
    for wanted in ("alpha", "c"):
        for name in numeric:
            if short_parameter(name).lower() == wanted:
                return name
    return numeric[0] if numeric else None


def short_parameter(name: str) -> str:
    """Strip a pipeline's step names from a hyper-parameter: ``param_regress__alpha`` is ``alpha``."""
    return name.removeprefix("param_").rpartition("__")[2]


def cv_curves(run: RunData, parameter: str) -> list[Curve]:
    """Read one curve for each member, in the order of their weights, largest first."""
    frame = run.cv_results
    members = frame["member"] if "member" in frame.columns else pd.Series("model", index=frame.index)
    curves = []
    for member, rows in frame.groupby(members, sort=False):
        rows = rows[np.isfinite(rows["mean_test_score"]) & np.isfinite(rows[parameter])]
        if rows[parameter].nunique() < 2:
            continue
        # One row per value: the best over the other hyper-parameters.
        best = rows.loc[rows.groupby(parameter)["mean_test_score"].idxmax()].sort_values(parameter)
        mean = best["mean_test_score"].to_numpy(dtype=np.float64)
        std = (
            best["std_test_score"].to_numpy(dtype=np.float64)
            if "std_test_score" in best
            else np.zeros_like(mean)
        )
        curves.append(
            Curve(str(member), best[parameter].to_numpy(dtype=np.float64), mean, std, int(mean.argmax()))
        )
    weights = member_weights(run)
    return sorted(curves, key=lambda curve: -abs(weights.get(curve.member, 0.0)))


def member_weights(run: RunData) -> dict[str, float]:
    """Weight of each member in the combined score, without the intercept."""
    if not {"member", "weight"} <= set(run.weights.columns):
        return {}
    rows = run.weights[run.weights["member"] != INTERCEPT]
    return {str(m): float(w) for m, w in zip(rows["member"], rows["weight"], strict=True)}


def cv_figure(run: RunData) -> Drawing | None:
    """Cross-validated score against the hyper-parameter, one line per member, the chosen value marked."""
    parameter = curve_parameter(run)
    if parameter is None:
        return None
    curves = cv_curves(run, parameter)
    if not curves:
        return None
    name = short_parameter(parameter)

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
        axes = figure.subplots()
        first = curves[0]
        axes.fill_between(
            first.x, first.mean - first.std, first.mean + first.std, color=theme.series[0], alpha=0.13, lw=0
        )
        for i, curve in reversed(list(enumerate(curves))):
            named = i < MAX_CURVES
            colour = theme.series[i % len(theme.series)] if named else theme.muted
            style = DASHES[i % len(DASHES)] if named else "-"
            others = f"{plural(len(curves) - MAX_CURVES, 'other member')}" if i == MAX_CURVES else None
            axes.plot(
                curve.x,
                curve.mean,
                color=colour,
                ls=style,
                lw=1.8 if named else 0.7,
                label=plain_label(curve.member, 30) if named else others,
            )
            axes.plot(
                curve.x[curve.best],
                curve.mean[curve.best],
                "o",
                color=colour,
                ms=6 if named else 3,
                mec=theme.surface,
            )
        smallest = min(float(curve.x.min()) for curve in curves)
        if smallest > 0 and max(float(curve.x.max()) for curve in curves) >= 100 * smallest:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_power_of_ten)
        axes.set(xlabel=name, ylabel=f"mean {score_title(run.select_by)} over folds")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            labels[::-1],
            loc="outside lower center",
            ncols=2,
            handlelength=3,
            columnspacing=1.4,
        )
        return figure

    return Drawing("cv_curve", f"Cross-validated score against {name}, one line per member.", paint)


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(value: float, _position: float) -> str:
    exponent = math.log10(value)
    if -3 < exponent < 4:
        return f"{value:g}"
    return f"10{str(round(exponent)).translate(_SUPERSCRIPTS)}"


def band_shares(run: RunData) -> dict[str, float]:
    """Share of each band in the score, largest first."""
    shares = {band: as_float(share) for band, share in run.section("band_share").items()}
    known = {band: share for band, share in shares.items() if math.isfinite(share)}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def share_title(shares: Mapping[str, float]) -> str:
    """Name what the shares are parts of: the whole score if they add up to one, else the variance of MOS."""
    return (
        "share of the score"
        if math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6)
        else "share of MOS variance"
    )


def band_share_figure(run: RunData) -> Drawing | None:
    """Horizontal bars of the bands' shares; negative ones go left."""
    shares = band_shares(run)
    if not shares:
        return None
    bars = list(shares.items())[:MAX_BARS]

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.6 + 0.5 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for y, (band, share) in enumerate(bars):
            colour = theme.accent if share >= 0 else theme.contrast
            _labelled_bar(axes, theme, y, share, colour, plain_label(band), percent(share))
            axes.plot([0, 0], [y - 0.17, y + 0.17], color=theme.ink, lw=0.9)
        axes.xaxis.set_major_formatter(lambda value, _position: percent(value))
        _finish_bars(axes, len(bars), share_title(shares))
        return figure

    return Drawing("band_share", "Bars of each band's share in the score.", paint)


def cost_figure(run: RunData) -> Drawing | None:
    """GMACs in all against the budget, and below it by pass on an axis of its own."""
    passes = [
        (str(row.get("pass", "")), gmacs)
        for row in run.rows("passes")
        if math.isfinite(gmacs := as_float(row.get("gmacs")))
    ]
    passes.sort(key=lambda item: -item[1])
    shown = passes[:MAX_BARS]
    if not math.isfinite(run.gmacs) or not any(gmacs > 0 for _, gmacs in shown):
        return None

    def paint(theme: Theme) -> Figure:
        heights = (1.0, 0.6 + 0.46 * len(shown))
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
        total, each = figure.subplots(2, 1, height_ratios=heights)
        _paint_total(total, theme, run.gmacs, run.budget_gmacs)
        for y, (name, gmacs) in enumerate(shown):
            _labelled_bar(each, theme, y, gmacs, theme.accent, plain_label(name, 52), number(gmacs))
        _finish_bars(each, len(shown), "GMACs by pass, one image")
        return figure

    return Drawing("cost", "GMACs of one image against the budget, and by pass.", paint)


def _paint_total(axes: Axes, theme: Theme, gmacs: float, budget: float) -> None:
    has_budget = math.isfinite(budget) and budget > 0
    over = has_budget and gmacs > budget
    text = number(gmacs)
    if has_budget:
        text += f" of {number(budget)} GMACs ({percent(gmacs / budget)})"
    _labelled_bar(axes, theme, 0, gmacs, theme.contrast if over else theme.accent, "all passes", text)
    if has_budget:
        axes.plot([budget, budget], [-0.17, 0.26], color=theme.ink, lw=2.4, solid_capstyle="butt")
    _finish_bars(axes, 1, "GMACs in all; upright line: the budget" if has_budget else "GMACs in all")
    axes.set_xlim(0, 1.04 * max(gmacs, budget if has_budget else 0.0) or 1.0)


def _labelled_bar(
    axes: Axes, theme: Theme, y: float, value: float, colour: str, label: str, figures: str
) -> None:
    axes.barh(y, value, height=0.34, color=colour, lw=0)
    label_row(axes, y, label, figures, above=8, colours=(theme.ink, theme.muted))


def _finish_bars(axes: Axes, n_bars: int, xlabel: str) -> None:
    axes.set(ylim=(n_bars - 0.55, -0.85), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
