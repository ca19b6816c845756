"""Means and deviations of columns in every fold, as scikit-learn's scalers learn them on its training rows.

The folds of a cross-validation share their sums: those of all rows less those of the rows that a fold leaves out.
Where the difference would lose digits the fold's own rows are summed in two passes, as the scaler does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from regressors.checks import FloatArray, IntArray

# Columns at a time, so that the rows of a chunk stay in the cache through all passes over them.
CHUNK = 64
CANCELS = 1e-3
"""A column whose training variance is below this part of its global mean square loses digits in shared sums."""

_EPS = float(np.finfo(np.float64).eps)
# Variances up to this many times the bound of rounding are computed in the scaler's own way before they are judged.
_NEAR_ROUNDING = 1e6

Cut = Callable[[IntArray | None, slice | IntArray], FloatArray]
"""Returns a copy of some rows, or all, of some columns."""


class ColumnScale(NamedTuple):
    """What the scaler learns on the training rows of one fold.

    Attributes
    ----------
    mean : float64 array of shape (n_columns,)
        Means, in which all later steps centre.
    factor : float64 array of shape (n_columns,)
        1 / deviation; 1 for columns constant up to rounding, 0 for columns exactly constant.
    varies : bool array of shape (n_columns,)
        Whether the column is not constant up to rounding.
    variance : float64 array of shape (n_columns,)
        Of each column, whatever its size.
    """

    mean: FloatArray
    factor: FloatArray
    varies: np.ndarray
    variance: FloatArray


def join_scales(parts: Sequence[ColumnScale]) -> ColumnScale:
    """Put the scales of neighbouring columns together.

    Parameters
    ----------
    parts : sequence of ColumnScale
        In the order of the columns.

    Returns
    -------
    ColumnScale
    """
    mean, factor, varies, variance = (np.concatenate(values) for values in zip(*parts, strict=True))
    return ColumnScale(mean, factor, varies, variance)


def learn_scale(
    cut: Cut, n_columns: int, rows: IntArray, weights: FloatArray | None, *, scaling: str = "deviation"
) -> ColumnScale:
    """Learn means and deviations on the training rows of one fold, from these rows alone.

    Parameters
    ----------
    cut : callable
        The columns.
    n_columns : int
        How many.
    rows : int array of shape (n_train,)
        Training rows; they may repeat.
    weights : float64 array of shape (n_train,), or None
        Of these rows.
    scaling : {"deviation", "range"}, default="deviation"
        Whether columns are divided by their deviation or by their range.

    Returns
    -------
    ColumnScale
    """
    heavy = slice(None) if weights is None else weights > 0
    total = float(len(rows)) if weights is None else float(weights.sum())
    mean, variance, extent = np.empty(n_columns), np.empty(n_columns), np.empty(n_columns)
    exact = np.zeros(n_columns, dtype=bool)
    for start in range(0, n_columns, CHUNK):
        part = slice(start, min(start + CHUNK, n_columns))
        chunk = cut(rows, part)
        if scaling == "range":
            extent[part] = np.ptp(chunk, axis=0)
        mean[part] = _sum(chunk, weights) / total
        chunk -= mean[part]
        # The corrected two-pass formula, as in the scaler.
        shift = _sum(chunk, weights)
        variance[part] = (_square_sum(chunk, weights) - shift**2 / total) / total
    # Chan, Golub and LeVeque's bound on the rounding of the variance, by which the scaler finds constants.
    varies = variance > total * _EPS * variance + (total * mean * _EPS) ** 2
    for column in np.flatnonzero(~varies):
        [values] = cut(rows, slice(column, column + 1)).T
        exact[column] = (values[heavy] == values[heavy][0]).all()
    if scaling == "range":
        # The scaler leaves a range of rounding size as it is.
        extent[extent < 10 * _EPS] = 1.0
        return ColumnScale(mean, np.where(exact, 0.0, 1.0 / extent), ~exact, variance)
    deviation = np.sqrt(np.where(varies, variance, 1.0))
    return ColumnScale(mean, np.where(exact, 0.0, 1.0 / deviation), varies & ~exact, variance)


def learn_scales(
    cut: Cut,
    n_columns: int,
    trained: Sequence[IntArray],
    left_out: Sequence[IntArray | None],
    weights: FloatArray | None,
) -> list[ColumnScale]:
    """Learn means and deviations on the training rows of every fold, from shared sums.

    Parameters
    ----------
    cut : callable
        The columns.
    n_columns : int
        How many.
    trained : sequence of int array
        Training rows of each fold.
    left_out : sequence of int array or None
        The rows that each fold does not train on; None where its own rows should be summed.
    weights : float64 array of shape (n_rows,), or None
        Of all rows.

    Returns
    -------
    list of ColumnScale
        One for each fold.
    """
    totals = [float(len(rows)) if weights is None else float(weights[rows].sum()) for rows in trained]
    shares = [fold for fold, rows in enumerate(left_out) if rows is not None]
    mean, variance = np.empty((2, len(trained), n_columns))
    spread = np.empty(n_columns)
    for start in range(0, n_columns, CHUNK) if shares else ():
        part = slice(start, min(start + CHUNK, n_columns))
        chunk = cut(None, part)
        centre = chunk.mean(axis=0)
        # About the mean of all rows, so that a common offset costs no digits.
        chunk -= centre
        sums, spread[part] = _sum(chunk, weights), _square_sum(chunk, weights)
        for fold in shares:
            rows = left_out[fold]
            others, own = chunk[rows], None if weights is None else weights[rows]
            shift = (sums - _sum(others, own)) / totals[fold]
            mean[fold, part] = centre + shift
            variance[fold, part] = (spread[part] - _square_sum(others, own)) / totals[fold] - shift**2
    scales = []
    for fold, rows in enumerate(trained):
        own = None if weights is None else weights[rows]
        if left_out[fold] is None:
            scales.append(learn_scale(cut, n_columns, rows, own))
            continue
        total, factor, varies = totals[fold], np.empty(n_columns), np.ones(n_columns, dtype=bool)
        rounding = _NEAR_ROUNDING * (total * mean[fold] * _EPS) ** 2
        # Written so that a variance that is not a number counts as weak.
        strong = (variance[fold] * total > CANCELS * spread) & (variance[fold] > rounding)
        factor[strong] = 1.0 / np.sqrt(variance[fold, strong])
        weak = np.flatnonzero(~strong)
        if len(weak):
            direct = learn_scale(_cut_at(cut, weak), len(weak), rows, own)
            mean[fold, weak], factor[weak], varies[weak], variance[fold, weak] = direct
        scales.append(ColumnScale(mean[fold], factor, varies, variance[fold]))
    return scales


def _cut_at(cut: Cut, columns: IntArray) -> Cut:
    return lambda rows, part: cut(rows, columns[part])


def _sum(chunk: FloatArray, weights: FloatArray | None) -> FloatArray:
    summed: FloatArray = chunk.sum(axis=0) if weights is None else weights @ chunk
    return summed


def _square_sum(chunk: FloatArray, weights: FloatArray | None) -> FloatArray:
    if weights is None:
        return np.einsum("ij,ij->j", chunk, chunk)
    return np.einsum("i,ij,ij->j", weights, chunk, chunk)
