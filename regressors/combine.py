"""Weights of ensemble members from their held-out predictions: uniform, non-negative, or convex.

Each rule is a least-squares problem solved exactly by the active-set method of Lawson and Hanson; a weight of
zero is a zero of the solution, never a clipped negative number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from regressors.checks import FloatArray, IntArray, check_choice, check_vector, check_weights
from regressors.folds import Fold

RULES = ("uniform", "nnls", "simplex")


class Combination(NamedTuple):
    """How members become one prediction: ``intercept + predictions @ weights``.

    Attributes
    ----------
    weights : float64 array of shape (n_members,)
        Non-negative.
    intercept : float
        MOS points.
    """

    weights: FloatArray
    intercept: float

    def __call__(self, predictions: FloatArray) -> FloatArray:
        """Combine predictions of shape (n_rows, n_members) into shape (n_rows,)."""
        # Members without weight are left out, so that they need not be predicted either.
        used = np.flatnonzero(self.weights)
        combined: FloatArray = self.intercept + predictions[:, used] @ self.weights[used]
        return combined


def fit_combination(
    rule: str, y: ArrayLike, predictions: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> Combination:
    """Fit member weights to held-out predictions.

    =========  ==========================================  =============
    rule       weights w                                   intercept b
    =========  ==========================================  =============
    uniform    1 / n_members                               0
    simplex    argmin ``|y - P w|``, w >= 0, sum(w) = 1    0
    nnls       argmin ``|y - b - P w|``, w >= 0            free
    =========  ==========================================  =============

    Under "simplex" and "uniform" the result lies between the lowest and the highest member on every image, so
    it has no intercept. "nnls" also corrects scale and offset, for instance the shrinkage of strongly penalised
    members. A single member is always itself: weight 1, intercept 0.

    Parameters
    ----------
    rule : {"uniform", "nnls", "simplex"}
        The rule.
    y : float array of shape (n_rows,)
        MOS.
    predictions : float array of shape (n_rows, n_members)
        Held-out predictions P, one column per member. In-sample predictions would reward the member that
        overfits most.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    Combination
        Under "nnls" all weights can be zero: then no member beats the mean MOS on held-out rows.

    Raises
    ------
    ValueError
        If the rule is unknown, a value is not finite, or the shapes differ.

    References
    ----------
    .. [1] C. Lawson and R. Hanson, "Solving least squares problems", 1974, chapter 23: NNLS, and problem LDP,
       whose transformation turns the simplex problem into NNLS exactly.
    .. [2] L. Breiman, "Stacked regressions", Machine Learning 24, 1996 (non-negative weights).

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.combine import fit_combination
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> members = np.column_stack([y + 1, y - 1])
    >>> fit_combination("simplex", y, members).weights.round(12).tolist()
    [0.5, 0.5]
    """
    who = "fit_combination"
    check_choice(who, "rule", rule, RULES)
    mos = check_vector(who, "y", y)
    P = np.asarray(predictions, dtype=np.float64)
    if P.ndim != 2 or len(P) != len(mos) or P.shape[1] == 0 or not np.isfinite(P).all():
        raise ValueError(
            f"{who}: predictions must be finite with shape ({len(mos)}, n_members), got shape {P.shape} with "
            f"{np.count_nonzero(~np.isfinite(P))} values that are not finite. Leave out rows that no fold tests."
        )
    weights = np.ones(len(mos)) if sample_weight is None else check_weights(who, sample_weight, len(mos))
    n_members = P.shape[1]
    if rule == "uniform" or n_members == 1:
        return Combination(np.full(n_members, 1 / n_members), 0.0)
    root = np.sqrt(weights)[:, None]
    if rule == "simplex":
        return Combination(_simplex(root * (P - mos[:, None])), 0.0)
    mean_P, mean_y = np.average(P, axis=0, weights=weights), float(np.average(mos, weights=weights))
    # The best intercept for given weights is mean_y - mean_P w: centring removes it from the problem.
    solution = _nnls(root * (P - mean_P), root[:, 0] * (mos - mean_y))
    return Combination(solution, mean_y - float(mean_P @ solution))


def cross_combine(
    rule: str,
    y: FloatArray,
    predictions: FloatArray,
    folds: Sequence[Fold],
    *,
    sample_weight: FloatArray | None = None,
) -> tuple[FloatArray, Combination]:
    """Combine each fold's held-out predictions by weights learned on the rows of the other folds.

    Parameters
    ----------
    rule : {"uniform", "nnls", "simplex"}
        The rule.
    y : float64 array of shape (n_rows,)
        MOS.
    predictions : float64 array of shape (n_rows, n_members)
        Held-out predictions; nan in rows that no fold tests.
    folds : sequence of (train, test)
        Row positions.
    sample_weight : float64 array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    combined : float64 array of shape (n_rows,)
        Mean over the folds that test a row; nan for a row that no fold tests. With a single fold there are
        no other rows, and the final weights are used.
    final : Combination
        Weights learned on all tested rows.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.combine import cross_combine
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> folds = [(np.array([2, 3]), np.array([0, 1])), (np.array([0, 1]), np.array([2, 3]))]
    >>> cross_combine("simplex", y, np.column_stack([y, -y]), folds)[0].round(12).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    def fit(rows: IntArray) -> Combination:
        chosen = None if sample_weight is None else sample_weight[rows]
        return fit_combination(rule, y[rows], predictions[rows], sample_weight=chosen)

    tested = np.flatnonzero(~np.isnan(predictions[:, 0]))
    final = fit(tested)
    total, n_tested = np.zeros(len(y)), np.zeros(len(y))
    for _, test in folds:
        others = np.setdiff1d(tested, test)
        usable = len(others) > 0 and (sample_weight is None or sample_weight[others].any())
        total[test] += (fit(others) if usable else final)(predictions[test])
        n_tested[test] += 1
    return np.divide(total, n_tested, out=np.full(len(y), np.nan), where=n_tested > 0), final


def _simplex(residuals: FloatArray) -> FloatArray:
    """Minimise ``|R w|`` over w >= 0, sum(w) = 1: the point of the members' hull nearest to the origin.

    For u >= 0 with sum t, ``|R u|^2 + s^2 (1 - sum u)^2 = t^2 |R (u / t)|^2 + s^2 (1 - t)^2``; whatever t is,
    the best direction u / t is the solution sought, and t = 0 is never best. So one NNLS problem and one
    division solve it exactly, for every s > 0.
    """
    scale = float(np.sqrt(np.mean(np.sum(residuals**2, axis=0))))
    if scale == 0:
        return np.full(residuals.shape[1], 1 / residuals.shape[1])  # all members perfect
    matrix = np.vstack([residuals / scale, np.ones(residuals.shape[1])])
    target = np.zeros(len(matrix))
    target[-1] = 1.0
    solution = _nnls(matrix, target)
    return solution / solution.sum()


def _nnls(matrix: FloatArray, target: FloatArray) -> FloatArray:
    # The triangular factor has the same normal equations and as few rows as columns: the active set is then
    # cheap. Columns and target are scaled to unit length, which changes no sign: the solver's tolerance
    # knows nothing of the scale of MOS.
    size = float(np.linalg.norm(target))
    if size == 0:
        return np.zeros(matrix.shape[1])
    length = np.linalg.norm(matrix, axis=0)
    length[length == 0] = 1.0
    q, r = np.linalg.qr(matrix / length)
    solution, _ = nnls(r, q.T @ (target / size))
    scaled: FloatArray = solution * (size / length)
    return scaled
