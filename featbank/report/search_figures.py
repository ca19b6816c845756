"""Pictures of a finished study: SRCC against GMACs with the Pareto front, and the importance of the choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from featbank.report.drawing import Drawing, label_row
from featbank.report.theme import Theme
from featbank.search.outcome import pareto_front, pick_winner
from featbank.search.study import Finished

_MAX_ROWS = 14


def draw_study(
    folder: Path, finished: Sequence[Finished], importance: pd.DataFrame, budget_gmacs: float
) -> None:
    """Write both figures of a search into its folder."""
    pareto_figure(finished, budget_gmacs).write_png(folder)
    importance_figure(importance).write_png(folder)


def pareto_figure(finished: Sequence[Finished], budget_gmacs: float) -> Drawing:
    """Draw every evaluated configuration as a point, the front as a step line, the winner as a star.

    Parameters
    ----------
    finished : sequence of Finished
    budget_gmacs : float
        Drawn where it lies near the points; always in the caption's words.

    Returns
    -------
    Drawing
        Named ``pareto``.
    """
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
    """Draw the importance of the choices as bars, the largest on top.

    Parameters
    ----------
    importance : DataFrame
        From `featbank.search.outcome.importance_frame`.

    Returns
    -------
    Drawing
        Named ``importance``.
    """
    shown = importance.head(_MAX_ROWS)
    names = [str(choice).removeprefix("band:") for choice in shown["choice"]]
    shares = shown["importance"].fillna(0.0).to_numpy(dtype=np.float64)

    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(6.4, 0.6 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))[::-1].astype(float)
        axes.barh(places, shares, height=0.3, color=theme.accent)
        for place, name, share in zip(places, names, shares, strict=True):
            label_row(axes, place, name, f"{share:.3f}", above=7, colours=(theme.ink, theme.muted))
        axes.set_yticks([])
        axes.set_ylim(-0.6, len(names) - 0.2)
        axes.set_xlabel("share of the variance of SRCC among the evaluated configurations")
        return figure

    return Drawing(
        "importance",
        "Importance of the choices: "
        + ", ".join(f"{n} {s:.3f}" for n, s in zip(names, shares, strict=True))
        + ".",
        paint,
    )
