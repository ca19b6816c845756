"""Checks of what comes in: vectors, weights, choices, rows, and what a model costs against its budget.

A pass is one forward computation of one encoder on one view. Two bands that tap the same pass pay once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# scikit-learn and pandas ship no complete types; these names say at least what is meant.
Table: TypeAlias = Any
"""A pandas frame or a float array of shape (n_rows, n_features)."""
Estimator: TypeAlias = Any
"""A scikit-learn estimator or one with its interface."""
Scorer: TypeAlias = Any
"""A scikit-learn scorer, called as ``scorer(estimator, X, y)``."""
Folds: TypeAlias = Any
"""What scikit-learn takes as ``cv``: a number, a splitter, or a list of (train, test)."""


def check_vector(who: str, name: str, values: ArrayLike, *, min_rows: int = 1) -> FloatArray:
    """Return ``values`` as a finite float64 vector of at least ``min_rows`` rows; else a ValueError."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{who}: {name} must hold numbers, got {values!r:.80}.") from error
    if vector.ndim != 1:
        raise ValueError(
            f"{who}: {name} must be one-dimensional, got shape {vector.shape}. "
            f"Pass {name}.ravel() if it is a single column."
        )
    if len(vector) < min_rows:
        raise ValueError(f"{who}: {name} must have at least {min_rows} rows, got n_samples={len(vector)}.")
    n_bad = int(np.count_nonzero(~np.isfinite(vector)))
    if n_bad:
        raise ValueError(
            f"{who}: {name} must be finite, got {n_bad} NaN or infinite of {len(vector)} values. "
            "Drop the rows without a value first; a score computed around them would be of other rows."
        )
    return vector


def check_pair(
    who: str, y: ArrayLike, y_pred: ArrayLike, *, min_rows: int = 2
) -> tuple[FloatArray, FloatArray]:
    """Return MOS and predictions as finite float64 vectors of one length, at least ``min_rows``; else a ValueError."""
    mos = check_vector(who, "y", y, min_rows=min_rows)
    predicted = check_vector(who, "y_pred", y_pred, min_rows=min_rows)
    if len(mos) != len(predicted):
        raise ValueError(
            f"{who}: y and y_pred must have one length, got {len(mos)} and {len(predicted)}. "
            "Join them by image_id first."
        )
    return mos, predicted


def check_weights(who: str, sample_weight: ArrayLike, n_rows: int) -> FloatArray:
    """Return ``n_rows`` non-negative float64 weights, one of them positive; else a ValueError."""
    weights = check_vector(who, "sample_weight", sample_weight)
    if len(weights) != n_rows:
        raise ValueError(
            f"{who}: sample_weight must have one weight per row, got {len(weights)} weights for {n_rows} rows."
        )
    if (weights < 0).any() or not (weights > 0).any():
        raise ValueError(
            f"{who}: sample_weight must be non-negative and not all zero, "
            f"got values from {weights.min():g} to {weights.max():g}."
        )
    return weights


def check_choice(who: str, name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise a ValueError that names the near ones."""
    options = list(choices)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{who}: {name} must be one of {options}, got {value!r}.{hint}")


def check_fraction(who: str, name: str, value: float) -> None:
    """Refuse a share that does not lie between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise ValueError(f"{who}: {name} must lie between 0 and 1, got {value!r}. Use 0.2 for 20 %.")


def check_indices(who: str, name: str, indices: ArrayLike, n_rows: int) -> IntArray:
    """Return ``indices`` as an intp vector of distinct row positions below ``n_rows``; else a ValueError."""
    rows = np.asarray(indices)
    if rows.ndim != 1 or rows.size == 0 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"{who}: {name} must be a non-empty list of row positions, got {indices!r:.80}. "
            "Boolean masks become positions with numpy.flatnonzero."
        )
    if rows.min() < 0 or rows.max() >= n_rows:
        raise ValueError(
            f"{who}: {name} must lie between 0 and {n_rows - 1}, got {rows.min()} to {rows.max()}. "
            "Explicit folds belong to one table: make them anew for this one, or pass cv as a number of folds."
        )
    if len(np.unique(rows)) != len(rows):
        raise ValueError(
            f"{who}: {name} must name each row once, got {len(rows) - len(np.unique(rows))} repeats."
        )
    return rows.astype(np.intp)


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

    A ValueError if one pass is stated with two costs, or a cost is negative or not finite.
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

    A ValueError if the limit is negative or not a number.
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
    >>> from regressors.checks import check_budget
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
