"""Figures of a run: predicted against MOS, densities, comparisons, band shares, cross-validation, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import gaussian_kde

from featbank.report.style import (
    DotRow,
    Drawing,
    Mark,
    Theme,
    count,
    fixed,
    number,
    paint_bars,
    paint_dots,
    percent,
    plain_label,
    plural,
    score_title,
)
from featbank.runs.folder import RunData, as_float, mos_groups

WIDTH = 4.9  # inches; 353 units, about the width of a phone, so that text keeps its size there
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1, 2)),
)
MAX_MARKS = 20_000
"""Images of which a figure is made, at most; drawn at random from more."""

_DENSITY_GRID = 48
_CURVE_POINTS = 200


def quadratic_fit(
    mos: NDArray[np.float64], predicted: NDArray[np.float64]
) -> np.polynomial.Polynomial | None:
    """Fit the second-order polynomial of predicted score over MOS."""
    if len(np.unique(mos)) < 3:
        return None
    return np.polynomial.Polynomial.fit(mos, predicted, deg=2)


def density_levels(x: NDArray[np.float64], y: NDArray[np.float64], n_levels: int) -> NDArray[np.intp]:
    """Sort points into levels by how densely they lie.

    A smoothed count on a grid, so that the time grows with the number of points and not with its square.

    Parameters
    ----------
    x, y : float arrays of shape (n_points,)
        Finite.

    Returns
    -------
    int array of shape (n_points,) in [0, n_levels)
        0 for the sparsest.
    """
    cells = []
    for values in (x, y):
        low, high = float(values.min()), float(values.max())
        span = high - low or 1.0
        cells.append(np.minimum((values - low) / span * _DENSITY_GRID, _DENSITY_GRID - 1).astype(np.intp))
    counts = np.zeros((_DENSITY_GRID, _DENSITY_GRID))
    np.add.at(counts, (cells[0], cells[1]), 1.0)
    smooth = gaussian_filter(counts, sigma=2.0)[cells[0], cells[1]]
    return np.minimum(smooth / smooth.max() * n_levels, n_levels - 1).astype(np.intp)


def predicted_against_mos(run: RunData, split: str) -> Drawing | None:
    """Scatter of one split with the second-order fit, coloured by density, exclusive images set off.

    Returns None where the split has no image with both a MOS and a prediction.
    """
    frame = run.scored(split)
    if frame.empty:
        return None
    n_images = len(frame)
    polynomial = quadratic_fit(*(frame[name].to_numpy(dtype=np.float64) for name in ("mos", "predicted")))
    # More marks than these only lie on each other, and take minutes to draw.
    frame = frame if n_images <= MAX_MARKS else frame.sample(MAX_MARKS, random_state=0)
    drawn = "" if n_images <= MAX_MARKS else f", {count(MAX_MARKS)} drawn"
    mos = frame["mos"].to_numpy(dtype=np.float64)
    predicted = frame["predicted"].to_numpy(dtype=np.float64)
    exclusive = (frame["subset"] == "exclusive").to_numpy(dtype=bool)

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
        axes = figure.subplots()
        low = min(mos.min(), predicted.min())
        high = max(mos.max(), predicted.max())
        pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
        limits = (low - pad, high + pad)
        axes.plot(limits, limits, color=theme.muted, lw=0.9, ls=DASHES[1], label="predicted = MOS", zorder=1)
        levels = density_levels(mos, predicted, len(theme.ramp))
        size = float(np.clip(90 / math.sqrt(len(mos)), 2.6, 6.5))
        kinds = (("o", 1.0, theme.ramp, ~exclusive), ("D", 0.92, theme.exclusive, exclusive))
        for level in range(len(theme.ramp)):
            for marker, scale, ramp, members in kinds:
                here = members & (levels == level)
                # The white of an edge keeps marks apart where they crowd.
                axes.plot(
                    mos[here],
                    predicted[here],
                    marker,
                    ms=scale * size,
                    color=ramp[level],
                    mec=theme.surface,
                    mew=0.3,
                    zorder=2 + level / 10,
                )
        if exclusive.any():
            label = f"exclusive ({count(int(exclusive.sum()))})"
            axes.plot([], [], "D", ms=5, mew=0, color=theme.exclusive[3], label=label)
        if polynomial is not None:
            x = np.linspace(mos.min(), mos.max(), _CURVE_POINTS)
            axes.plot(x, polynomial(x), color=theme.surface, lw=4.2, zorder=4)
            axes.plot(x, polynomial(x), color=theme.ink, lw=2.0, zorder=5, label="second-order fit")
        axes.set(
            xlim=limits,
            ylim=limits,
            aspect="equal",
            xlabel=f"MOS ({split}, n = {count(n_images)}{drawn})",
            ylabel="predicted score",
        )
        axes.locator_params(nbins=6)
        axes.legend(loc="upper left", handlelength=2.2)
        return figure

    return Drawing(
        name=f"predicted_{split}",
        alt=f"Scatter of predicted score against MOS, {split}, {plural(n_images, 'image')}{drawn}, with a second-order "
        "fit.",
        paint=paint,
    )


def mos_density(run: RunData) -> Drawing | None:
    """Kernel density of the MOS by split and subset, after figure 2 of the challenge report.

    Groups of fewer than three different MOS have no density and are left out; None where none is left.
    """
    groups = [group for group in mos_groups(run.predictions) if len(np.unique(group[2])) >= 3]
    if not groups:
        return None
    values = np.concatenate([mos for _, _, mos in groups])
    pad = 0.08 * float(np.ptp(values))
    x = np.linspace(values.min() - pad, values.max() + pad, _CURVE_POINTS)

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
        axes = figure.subplots()
        colours = {"training": theme.muted, "validation": theme.series[0], "test": theme.series[1]}
        for split, subset, mos in groups:
            colour = colours.get(split, theme.series[2])
            some = (
                mos
                if len(mos) <= MAX_MARKS
                else np.random.default_rng(0).choice(mos, MAX_MARKS, replace=False)
            )
            density = gaussian_kde(some)(x)
            name = f"{split}, {subset}" if subset else (split or "no split")
            label = f"{plain_label(name, 30)} ({count(len(mos))})"
            axes.plot(x, density, color=colour, ls=DASHES[1 if subset else 0], label=label)
            if split == "training" and not subset:
                # The ground the others are seen against.
                axes.fill_between(x, density, color=colour, alpha=0.12, lw=0)
        axes.set(xlabel="MOS", ylabel="density", ylim=(0, None), xlim=(x[0], x[-1]))
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6, columnspacing=1.4)
        return figure

    return Drawing("mos_density", "Density curves of the MOS by split and subset.", paint)


def comparison(rows: Sequence[tuple[str, float, float, float, bool]], split: str) -> Drawing | None:
    """SRCC of the model and of what it is compared with, as points with intervals.

    Parameters
    ----------
    rows : sequence of (label, value, low, high, is_model)
        In drawing order from above; ends of intervals may be nan. Rows of undefined SRCC are left out.

    Returns
    -------
    Drawing or None
        None with fewer than two rows.
    """
    dots = [
        DotRow(
            plain_label(label),
            fixed(value, 3),
            [Mark(value, low, high, "accent" if is_model else "muted", 7.5 if is_model else 5.5)],
            ("ink", "ink") if is_model else ("muted", "muted"),
            is_model,
        )
        for label, value, low, high, is_model in rows
        if math.isfinite(value)
    ]
    if len(dots) < 2:
        return None

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.75 + 0.42 * len(dots)), layout="constrained")
        paint_dots(figure.subplots(), theme, dots, f"SRCC, {split}", is_srcc=True)
        return figure

    return Drawing("comparison", "SRCC of this run beside the baselines and single bands.", paint)


MAX_BARS = 24
INTERCEPT = "intercept"  # the row of weights.csv that is no member
MAX_CURVES = 6


@dataclass(frozen=True)
class Curve:
    """Mean cross-validated score of one member along one hyper-parameter.

    Attributes
    ----------
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
    bars = [(plain_label(band), share, percent(share)) for band, share in list(shares.items())[:MAX_BARS]]

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.6 + 0.5 * len(bars)), layout="constrained")
        axes = figure.subplots()
        paint_bars(axes, theme, bars, share_title(shares))
        axes.axvline(0, color=theme.ink, lw=0.9)
        axes.xaxis.set_major_formatter(lambda value, _position: percent(value))
        return figure

    return Drawing("band_share", "Bars of each band's share in the score.", paint)


def cost_figure(run: RunData) -> Drawing | None:
    """GMACs in all against the budget, and below it by pass on an axis of its own."""
    costs = [(str(row.get("pass", "")), as_float(row.get("gmacs"))) for row in run.rows("passes")]
    known = sorted((cost for cost in costs if math.isfinite(cost[1])), key=lambda cost: -cost[1])
    passes = [(plain_label(name, 52), gmacs, number(gmacs)) for name, gmacs in known[:MAX_BARS]]
    if not math.isfinite(run.gmacs) or not any(gmacs > 0 for _, gmacs, _ in passes):
        return None
    budget = run.budget_gmacs if math.isfinite(run.budget_gmacs) else 0.0
    text = number(run.gmacs)
    if budget > 0:
        text += f" of {number(budget)} GMACs ({percent(run.gmacs / budget)})"

    def paint(theme: Theme) -> Figure:
        heights = (1.0, 0.6 + 0.46 * len(passes))
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), layout="constrained")
        total, each = figure.subplots(2, 1, height_ratios=heights)
        title = "GMACs in all; upright line: the budget" if budget > 0 else "GMACs in all"
        is_over = 0 < budget < run.gmacs
        paint_bars(
            total, theme, [("all passes", run.gmacs, text)], title, "contrast" if is_over else "accent"
        )
        if budget > 0:
            total.plot([budget, budget], [-0.17, 0.26], color=theme.ink, lw=2.4, solid_capstyle="butt")
        total.set_xlim(0, 1.04 * max(run.gmacs, budget) or 1.0)
        paint_bars(each, theme, passes, "GMACs by pass, one image")
        return figure

    return Drawing("cost", "GMACs of one image against the budget, and by pass.", paint)
