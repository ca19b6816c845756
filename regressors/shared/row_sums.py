"""Sums over the rows of a table read by blocks, from which the normal equations of every fold follow.

Rows that take part in the training of the same folds form one part. Each part is summed about its own means, in two
passes; the parts of a fold are then joined by the formula for pairs of samples [1]_, which only adds what is positive.
So no fold is had by subtraction, no digits cancel, and an outlier among the rows that a fold tests never enters it.

References
----------
.. [1] T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance: analysis and recommendations",
   The American Statistician 37, 1983.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dsyrk

from regressors.blocks import BlockTable
from regressors.checks import FloatArray, IntArray
from regressors.folds import Fold
from regressors.shared.column_scale import ColumnScale

MAX_PARTS = 64
"""Most parts into which folds may cut the rows; k folds make k, a hold-out 2."""

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Parts:
    """Rows cut by the folds that train on them.

    Attributes
    ----------
    rows : list of int array
        Positions of the rows of each part, ascending; rows without weight are in none.
    trained : list of list of int
        For each fold the parts that it trains on.
    """

    rows: list[IntArray]
    trained: list[list[int]]

    @classmethod
    def cut(cls, folds: Sequence[Fold], n_rows: int, weights: FloatArray | None = None) -> Parts:
        """Cut the rows of a table.

        Parameters
        ----------
        folds : sequence of (train, test)
            Row positions; none repeats in one ``train``.
        n_rows : int
            Rows of the table.
        weights : float64 array of shape (n_rows,), optional
            Weights of the rows.

        Raises
        ------
        ValueError
            If the folds cut the rows into more than `MAX_PARTS` parts.
        """
        label = np.zeros(n_rows, dtype=np.int64)
        signature = [()]
        for train, _ in folds:
            label *= 2
            label[train] += 1
            known, label = np.unique(label, return_inverse=True)
            signature = [(*signature[code // 2], code % 2 == 1) for code in known.tolist()]
            if len(known) > MAX_PARTS:
                raise ValueError(
                    f"a table that is read by blocks takes folds that cut its rows into at most {MAX_PARTS} parts, got "
                    f"more from {len(folds)} folds. Use k folds or a hold-out."
                )
        if weights is not None:
            label[weights <= 0] = -1
        rows = [np.flatnonzero(label == part) for part in range(len(signature))]
        there = [part for part in range(len(signature)) if len(rows[part])]
        trained = [
            [number for number, part in enumerate(there) if signature[part][fold]]
            for fold in range(len(folds))
        ]
        return cls([rows[part] for part in there], trained)


@dataclass(frozen=True)
class Moments:
    """Joint sums of some parts.

    Attributes
    ----------
    total : float
        Sum of the weights.
    n_rows : int
        Rows.
    mean : float64 array of shape (n_columns,)
    gram : float64 array of shape (n_columns, n_columns)
        Products of the columns about their means.
    constant : bool array of shape (n_columns,)
        Whether a column has one value in all rows.
    right : float64 array of shape (n_columns,)
        Products of the columns and the target, both about their means.
    y_mean : float
        Mean of the target.
    """

    total: float
    n_rows: int
    mean: FloatArray
    gram: FloatArray
    constant: np.ndarray
    right: FloatArray
    y_mean: float

    def scale(self, columns: IntArray) -> ColumnScale:
        """Return what `sklearn.preprocessing.StandardScaler` learns of some columns."""
        mean = self.mean[columns]
        variance = np.diagonal(self.gram)[columns] / self.total
        # The bound on the rounding of the variance, by which the scaler finds constants.
        varies = variance > self.total * _EPS * variance + (self.total * mean * _EPS) ** 2
        exact = self.constant[columns]
        deviation = np.sqrt(np.where(varies, variance, 1.0))
        return ColumnScale(mean, np.where(exact, 0.0, 1.0 / deviation), varies & ~exact, variance)


class RowSums:
    """Sums of the columns of a table, part by part.

    Parameters
    ----------
    X : BlockTable of shape (n_rows, n_columns)
        Finite.
    parts : Parts
        Which rows are summed together.
    weights : float64 array of shape (n_rows,), or None
        Weights of the rows.

    Raises
    ------
    ValueError
        If a value is not finite.
    """

    def __init__(self, X: BlockTable, parts: Parts, weights: FloatArray | None) -> None:
        n_parts, n_columns = len(parts.rows), X.shape[1]
        self.parts, self._weights = parts, weights
        self.total = np.array([_total(rows, weights) for rows in parts.rows])
        self.centre = np.zeros((n_parts, n_columns))
        self.low, self.high = np.full((n_parts, n_columns), np.inf), np.full((n_parts, n_columns), -np.inf)
        self.gram = np.zeros((n_parts, n_columns, n_columns))
        for part, rows in enumerate(parts.rows):
            self._centre(X, part, rows)
            self._multiply(X, part, rows)

    def is_of(self, parts: Parts, weights: FloatArray | None) -> bool:
        """Say whether these are the sums of such parts with such weights."""
        own = self._weights
        return (
            parts.trained == self.parts.trained
            and len(parts.rows) == len(self.parts.rows)
            and (own is None) == (weights is None)
            and (own is None or weights is None or np.array_equal(own, weights))
            and all(np.array_equal(a, b) for a, b in zip(parts.rows, self.parts.rows, strict=True))
        )

    def _centre(self, X: BlockTable, part: int, rows: IntArray) -> None:
        """First pass: means and extremes."""
        summed = np.zeros(X.shape[1])
        first = X.read(rows[:1])[0]
        for some, block in X.blocks(rows):
            np.minimum(self.low[part], block.min(axis=0), out=self.low[part])
            np.maximum(self.high[part], block.max(axis=0), out=self.high[part])
            # About the first row, so that a common offset costs no digits.
            block -= first
            summed += block.sum(axis=0) if self._weights is None else self._weights[some] @ block
        if not np.isfinite(summed).all():
            bad = X.columns[int(np.argmin(np.isfinite(summed)))]
            raise ValueError(f"the table must be finite, got NaN or infinite values in column {bad!r}.")
        self.centre[part] = first + summed / self.total[part]

    def _multiply(self, X: BlockTable, part: int, rows: IntArray) -> None:
        """Second pass: products about the means."""
        gram = np.zeros((X.shape[1],) * 2, order="F")
        rest = np.zeros(X.shape[1])
        for some, block in X.blocks(rows):
            block -= self.centre[part]
            if self._weights is None:
                rest += block.sum(axis=0)
            else:
                rest += self._weights[some] @ block
                block *= np.sqrt(self._weights[some])[:, None]
            # Half of the products, the matrix being symmetric; the transpose of the block is in Fortran's order.
            gram = dsyrk(1.0, block.T, beta=1.0, c=gram, overwrite_c=1, lower=1)
        # What the rounding of the means left over.
        shift = rest / self.total[part]
        lower = np.tril(gram)
        self.gram[part] = lower + np.tril(lower, -1).T - self.total[part] * np.outer(shift, shift)
        self.centre[part] += shift

    def against(self, X: BlockTable, y: FloatArray) -> TargetSums:
        """Multiply the columns by a target, in one pass.

        Parameters
        ----------
        X : BlockTable
            The table of these sums.
        y : float64 array of shape (n_rows,)
            The target.
        """
        weights, n_parts = self._weights, len(self.parts.rows)
        mean = np.array(
            [
                np.average(y[rows], weights=None if weights is None else weights[rows])
                for rows in self.parts.rows
            ]
        )
        cross = np.zeros((n_parts, X.shape[1]))
        for part, rows in enumerate(self.parts.rows):
            for some, block in X.blocks(rows):
                block -= self.centre[part]
                target = y[some] - mean[part]
                cross[part] += (target if weights is None else weights[some] * target) @ block
        return TargetSums(mean, cross)

    def join(self, target: TargetSums, parts: Sequence[int]) -> Moments:
        """Join parts.

        Parameters
        ----------
        target : TargetSums
            From `against`.
        parts : sequence of int
            At least one.
        """
        chosen = np.asarray(parts, dtype=np.intp)
        total, centre = self.total[chosen], self.centre[chosen]
        share = total / total.sum()
        mean = centre[0] + share @ (centre - centre[0])
        y_mean = float(target.mean[chosen[0]] + share @ (target.mean[chosen] - target.mean[chosen[0]]))
        off = centre - mean
        gram = (off * total[:, None]).T @ off
        for part in chosen:
            gram += self.gram[part]
        right = target.cross[chosen].sum(axis=0) + (total * (target.mean[chosen] - y_mean)) @ off
        constant = self.low[chosen].min(axis=0) == self.high[chosen].max(axis=0)
        n_rows = sum(len(self.parts.rows[part]) for part in chosen)
        return Moments(float(total.sum()), n_rows, mean, gram, constant, right, y_mean)


@dataclass(frozen=True)
class TargetSums:
    """Sums that involve the target, by part.

    Attributes
    ----------
    mean : float64 array of shape (n_parts,)
        Means of the target.
    cross : float64 array of shape (n_parts, n_columns)
        Products with the columns, both about their means of the part.
    """

    mean: FloatArray
    cross: FloatArray


def _total(rows: IntArray, weights: FloatArray | None) -> float:
    return float(len(rows)) if weights is None else float(weights[rows].sum())
