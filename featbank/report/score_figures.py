"""Figures of scores: predicted against MOS, MOS densities, SRCC beside its comparisons; reads no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import gaussian_kde

from featbank.report.drawing import Drawing, label_row
from featbank.report.theme import Theme
from featbank.report.wording import count, fixed, plain_label, plural
from featbank.runs.data import RunData, mos_groups

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
    """Fit the second-order polynomial of predicted score over MOS.

    Parameters
    ----------
    mos, predicted : float arrays of shape (n_images,)
        Finite, MOS points.

    Returns
    -------
    Polynomial or None
        None with fewer than three different MOS, through which no parabola is determined.

    References
    ----------
    .. [1] V. Hosu et al., "AIM 2024 Challenge on UHD Blind Photo Quality Assessment", 2024, figure 3.
    """
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
    n_levels : int
        At least 1.

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
    split : str
        What the figures were computed on, for the axis.

    Returns
    -------
    Drawing or None
        None with fewer than two rows.
    """
    known = [row for row in rows if math.isfinite(row[1])]
    if len(known) < 2:
        return None

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 0.75 + 0.42 * len(known)), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        for y, (label, value, low, high, is_model) in enumerate(known):
            colour = theme.accent if is_model else theme.muted
            if math.isfinite(low) and math.isfinite(high):
                axes.plot(
                    [low, high], [y, y], color=colour, lw=2.4 if is_model else 1.5, solid_capstyle="round"
                )
            axes.plot([value], [y], "o", color=colour, ms=7.5 if is_model else 5.5)
            axes.axhline(y, color=theme.line, lw=0.6, zorder=0)
            ink = theme.ink if is_model else theme.muted
            label_row(
                axes, y, plain_label(label), fixed(value, 3), above=5, colours=(ink, ink), is_bold=is_model
            )
        ends = [v for row in known for v in row[1:4] if math.isfinite(v)]
        axes.set(ylim=(len(known) - 0.6, -0.75), yticks=[], xlabel=f"SRCC, {split}")
        axes.set_xlim(min(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03))
        axes.spines["left"].set_visible(False)
        return figure

    return Drawing("comparison", "SRCC of this run beside the baselines and single bands.", paint)
