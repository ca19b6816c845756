"""The compute budget: GMACs of the distinct passes of a model, added once each, against a limit.

A pass is one forward computation of one encoder on one view. Two bands that tap the same pass pay once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

AIM2024_BUDGET_GMACS = 50.0
"""Limit per image of the AIM 2024 UHD-IQA challenge."""

# Sums of decimal fractions miss their decimal total in the last bits; a limit that is met is not exceeded.
_SLACK = 1e-9


class BudgetError(ValueError):
    """A model that costs more than its budget; ``dearest`` are its most expensive passes with their GMACs."""

    def __init__(self, total_gmacs: float, budget_gmacs: float, dearest: Iterable[tuple[str, float]]) -> None:
        self.total_gmacs = total_gmacs
        self.budget_gmacs = budget_gmacs
        self.dearest = tuple(dearest)
        listed = ", ".join(f"{name} {gmacs:.4g}" for name, gmacs in self.dearest)
        super().__init__(
            f"check_budget: the passes must cost at most {budget_gmacs:g} GMACs, got {total_gmacs:.6g}. "
            f"Most expensive: {listed}. Drop a band of one of them, take a smaller view, or raise budget_gmacs."
        )

    def __reduce__(self) -> tuple[type[BudgetError], tuple[float, float, tuple[tuple[str, float], ...]]]:
        # Three arguments: the default would hand only the message to the constructor in another process.
        return (type(self), (self.total_gmacs, self.budget_gmacs, self.dearest))


def distinct_passes(passes: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Collect the distinct passes from (pass, GMACs per image) of each band: GMACs by pass, by first appearance.

    Raises
    ------
    ValueError
        If one pass is stated with two costs, or a cost is negative or not finite.
    """
    costs: dict[str, float] = {}
    for name, gmacs in passes:
        if not (math.isfinite(gmacs) and gmacs >= 0):
            raise ValueError(
                f"distinct_passes: GMACs must be non-negative and finite, got {gmacs!r} for {name!r}. "
                "State the cost of imported features, 0 if it is not counted."
            )
        if costs.setdefault(name, float(gmacs)) != float(gmacs):
            raise ValueError(
                f"distinct_passes: one pass has one cost, got {costs[name]!r} and {gmacs!r} GMACs for {name!r}. "
                "Two different computations need two names."
            )
    return costs


def sum_gmacs(passes: Iterable[tuple[str, float]]) -> float:
    """Add up GMACs per image over distinct passes; see `distinct_passes`."""
    return math.fsum(distinct_passes(passes).values())


def is_within(total_gmacs: float, budget_gmacs: float) -> bool:
    """Say whether a cost keeps to a limit, both in GMACs per image; a limit that is met is not exceeded.

    Raises
    ------
    ValueError
        If the limit is negative or not a number.
    """
    if math.isnan(budget_gmacs) or budget_gmacs < 0:
        raise ValueError(
            f"check_budget: budget_gmacs must be a non-negative number, got {budget_gmacs!r}. Use None for no limit."
        )
    return total_gmacs <= budget_gmacs * (1 + _SLACK)


def check_budget(passes: Iterable[tuple[str, float]], budget_gmacs: float | None) -> float:
    """Accept or refuse a model by its cost, which is returned in GMACs per image.

    Parameters
    ----------
    passes : iterable of (str, float)
        Pass and its GMACs per image, one pair per band; a pass that bands share is counted once.
    budget_gmacs : float or None
        Limit in GMACs per image, itself admissible; None for no limit.

    Raises
    ------
    BudgetError
        If the sum exceeds the limit; names the total, the limit and the three most expensive passes.
    ValueError
        If the limit is negative or not a number, or the passes contradict each other.

    Examples
    --------
    >>> from regressors.budget import check_budget
    >>> check_budget([("a", 20.0), ("b", 30.0)], 50.0)
    50.0
    """
    costs = distinct_passes(passes)
    total = math.fsum(costs.values())
    if budget_gmacs is None:
        return total
    if not is_within(total, budget_gmacs):
        dearest = sorted(costs.items(), key=lambda item: -item[1])[:3]
        raise BudgetError(total, budget_gmacs, dearest)
    return total
