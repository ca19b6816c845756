"""Remarks beside an entry: what a reader has to know before comparing its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.leaderboard.published import PublishedCost, official_parts, published_costs
from experiments.recipes.reading import AIM2024_BUDGET_GMACS

RETRAINED_GMACS = 200.0
"""What the retrained baselines exceed, by the caption of Table 1."""


@dataclass(frozen=True)
class Mark:
    """One remark.

    Attributes
    ----------
    letter : str
        ``M`` cost over the budget, ``P`` pseudo-labelled validation images, ``C`` worse than a constant
        prediction, ``T`` fewer training images, ``R`` random weights.
    sentence : str
        The remark in full, without a full stop.
    """

    letter: str
    sentence: str


def constant_marks(part: str, mae: float, rmse: float) -> list[Mark]:
    """Mark errors above those of the mean training MOS as the prediction for every image."""
    floor = official_parts()[part]
    worse = [
        f"{name} {value:.4f} against {constant:.4f}"
        for name, value, constant in (
            ("MAE", mae, floor.constant_mae),
            ("RMSE", rmse, floor.constant_rmse),
        )
        if value > constant
    ]
    return [Mark("C", f"worse than a constant prediction: {', '.join(worse)}")] if worse else []


def published_marks(method: str, kind: str) -> list[Mark]:
    """Mark what the report itself and a recount say of a published entry, whatever the table."""
    if kind == "retrained":
        return [Mark("M", f"needs more than {RETRAINED_GMACS:g} GMACs (caption of Table 1)")]
    cost = published_costs()[method]
    marks = _cost_marks(cost)
    if cost.has_pseudo_labels:
        marks.append(Mark("P", "learned from pseudo-labelled validation images"))
    return marks


def _cost_marks(cost: PublishedCost) -> list[Mark]:
    budget = AIM2024_BUDGET_GMACS
    if cost.counted_gmacs > budget:
        return [
            Mark("M", f"{cost.counted_gmacs:g} GMACs counted, {cost.gmacs:g} published, budget {budget:g}")
        ]
    if cost.gmacs > budget:
        return [Mark("M", f"{cost.gmacs:g} GMACs published, budget {budget:g}")]
    return []


def run_marks(gmacs: float, n_training: int, random_bands: Sequence[str] = ()) -> list[Mark]:
    """Mark a run's cost, training rows and random weights.

    Parameters
    ----------
    gmacs : float
        Of one image; nan where a band's cost is unknown.
    n_training : int
        Training images the run had.
    random_bands : sequence of str
        Bands whose network has random weights.
    """
    marks = []
    if gmacs > AIM2024_BUDGET_GMACS:
        marks.append(Mark("M", f"{gmacs:.2f} GMACs, budget {AIM2024_BUDGET_GMACS:g}"))
    elif gmacs != gmacs:
        marks.append(Mark("M", "cost unknown: the GMACs of an imported band were not stated"))
    if random_bands:
        marks.append(Mark("R", f"random weights in {', '.join(random_bands)}: no result of these networks"))
    n_official = official_parts()["training"].n
    if n_training < n_official:
        marks.append(Mark("T", f"learned from {n_training:,} of {n_official:,} training images"))
    return marks
