"""Gram matrices of all folds from one: normal equations by subtraction of the rows that a fold leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from regressors.checks import FloatArray, IntArray
from regressors.shared.column_scale import CANCELS, CHUNK, ColumnScale
from regressors.shared.fold_table import FoldTable, as_slice

# Rows of a Gram matrix at a time, so that they stay in the cache through all passes over them.
_TILE = 64
_MAX_STORED_BYTES = 1_000_000_000


class FoldGram(NamedTuple):
    """Normal equations of the standardised columns, in one fold.

    Attributes
    ----------
    gram : float64 array of shape (n_columns, n_columns)
        Z' W Z over the training rows.
    right : float64 array of shape (n_columns,)
        Z' W (y - mean y).
    test : float64 array of shape (n_test, n_columns)
        Standardised test rows.
    y_mean : float
        Weighted mean of MOS.
    """

    gram: FloatArray
    right: FloatArray
    test: FloatArray
    y_mean: float


@dataclass(frozen=True)
class ReadyGram:
    """The normal equations of one fold, computed already: what a task elsewhere needs of a `SharedGram`.

    Attributes
    ----------
    bands : tuple of str
        Whose columns they have, in this order.
    widths : tuple of int
        Columns of each of ``bands``.
    normal : FoldGram
        The normal equations.
    """

    bands: tuple[str, ...]
    widths: tuple[int, ...]
    normal: FoldGram

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices."""
        return self.normal.gram.nbytes + self.normal.test.nbytes

    def fold(self, fold: int, scales: Mapping[str, ColumnScale]) -> FoldGram:
        """Return the normal equations; they are of one fold and its scales."""
        return self.normal

    def columns(self, bands: Sequence[str]) -> IntArray:
        """Return the positions of some bands' columns in the Gram matrix."""
        return _positions(self.bands, self.widths, bands)


class SharedGram:
    """Gram matrix of globally centred columns, from which each fold's is had by subtraction.

    With Xc the columns centred and scaled over all rows, the training rows T of a fold and the others R::

        Xc_T' W Xc_T = Xc' W Xc - Xc_R' W Xc_R
        Z' W Z       = D (Xc_T' W Xc_T - w m m') D

    so that all folds of a cross-validation cost one product of matrices. Columns whose training variance is a tiny
    part of their global one would lose digits in the difference: their rows are computed directly.

    Parameters
    ----------
    table : FoldTable
        The table.
    bands : sequence of str
        Bands whose columns enter, in this order.
    run : callable, default=map
        Computes independent parts, as the ``map`` of an executor does.
    stored : bool, default=True
        Whether the parts of all folds are kept, up to 1 GB; otherwise each fold computes its own.
    """

    def __init__(
        self,
        table: FoldTable,
        bands: Sequence[str],
        *,
        run: Callable[..., Any] = map,
        stored: bool = True,
    ) -> None:
        self._table = table
        self.bands = tuple(bands)
        self._widths = tuple(len(table.bands[band]) for band in bands)
        columns = np.concatenate([table.bands[band] for band in bands])
        self._columns = columns
        weights = np.ones(len(table.y)) if table.fit_weight is None else table.fit_weight
        self._weights = weights
        self._centred = np.empty((len(weights), len(columns)))
        self._spread = np.empty(len(columns))
        whole = table.whole()
        self._targets = [
            *(_target(table, fold) for fold in range(len(table.folds))),
            _target(whole, 0),
        ]
        self._products = np.empty((len(columns), len(self._targets), 2))
        both = np.hstack([target.rows for target in self._targets])
        list(run(lambda start: self._centre(start, both), range(0, len(columns), CHUNK)))
        self._left_out = [table.left_out(fold) for fold in range(len(table.folds))]
        self._parts: list[FloatArray | None] = [None] * len(table.folds)
        self._total: FloatArray | None = None
        shared = [rows for rows in self._left_out if rows is not None]
        size = len(columns) ** 2 * 8
        if shared and stored and size * (len(shared) + 1) <= _MAX_STORED_BYTES:
            self._parts = list(run(lambda rows: None if rows is None else self._gram(rows), self._left_out))
        joined = np.sort(np.concatenate(shared)) if shared else np.empty(0, dtype=np.intp)
        if shared and all(part is not None for part in self._parts) and _is_partition(joined, len(weights)):
            self._total = _add([part for part in self._parts if part is not None], run)
        elif shared:
            self._total = self._gram(np.arange(len(weights)))

    def _centre(self, start: int, both: FloatArray) -> None:
        """Centre and scale some columns over all rows; multiply them by the weights and targets of all folds."""
        part = slice(start, start + CHUNK)
        # A selection by positions is a copy, one by a slice is not.
        chunk = np.array(self._table.features[:, as_slice(self._columns[part])], order="C")
        chunk -= chunk.mean(axis=0)
        spread = np.sqrt(np.einsum("ij,ij->j", chunk, chunk) / len(chunk))
        spread[spread == 0] = 1.0
        self._spread[part] = spread
        chunk /= spread
        self._products[part] = (chunk.T @ both).reshape(-1, *self._products.shape[1:])
        self._centred[:, part] = chunk

    def fold(self, fold: int, scales: Mapping[str, ColumnScale]) -> FoldGram:
        """Assemble the normal equations of one fold.

        Parameters
        ----------
        fold : int
            Number of the fold.
        scales : mapping of str to ColumnScale
            Of each band in this fold.

        Returns
        -------
        FoldGram
        """
        left_out, part = self._left_out[fold], self._parts[fold]
        if left_out is None or self._total is None:
            return self._standardise(self._table, fold, scales, self._gram(self._table.train_rows(fold)))
        others = self._gram(left_out) if part is None else part
        return self._standardise(self._table, fold, scales, self._total, others)

    def whole(self, scales: Mapping[str, ColumnScale]) -> FoldGram:
        """Assemble the normal equations of all rows.

        Parameters
        ----------
        scales : mapping of str to ColumnScale
            Of each band over all rows.

        Returns
        -------
        FoldGram
            Without test rows.
        """
        table = self._table.whole()
        total = self._gram(table.train_rows(0)) if self._total is None else self._total
        return self._standardise(table, -1, scales, total)

    def _standardise(
        self,
        table: FoldTable,
        fold: int,
        scales: Mapping[str, ColumnScale],
        total: FloatArray,
        others: FloatArray | None = None,
    ) -> FoldGram:
        """Turn products of globally centred rows, less those of the rows left out, into those of standardised ones.

        ``fold`` is -1 for all rows.
        """
        known = self._targets[fold]
        test = table.folds[fold][1]
        factor = np.concatenate([scales[band].factor for band in self.bands]) * self._spread
        mean, right = np.array(self._products[:, fold].T, order="C")
        right *= factor
        gram = np.empty_like(total)
        # A few rows at a time, so that each is read from memory and written to it once.
        for start in range(0, len(gram), _TILE):
            tile = slice(start, start + _TILE)
            own = gram[tile]
            np.subtract(total[tile], 0.0 if others is None else others[tile], out=own)
            own -= (known.weight * mean[tile])[:, None] * mean
            own *= factor
            own *= factor[tile, None]
        tested = self._centred[test]
        tested -= mean
        tested *= factor
        # What the sums of squares were before the subtractions, in the same units.
        before = np.diagonal(total) * factor**2
        weak = np.flatnonzero((np.diagonal(gram) < CANCELS * before) & (factor > 0))
        if len(weak):
            self._repair(FoldGram(gram, right, tested, known.mean), table, fold, weak, mean, factor)
        return FoldGram(gram, right, tested, known.mean)

    def columns(self, bands: Sequence[str]) -> IntArray:
        """Return the positions of some bands' columns in the Gram matrix."""
        return _positions(self.bands, self._widths, bands)

    def ready(self, fold: int, scales: Mapping[str, ColumnScale]) -> ReadyGram:
        """Compute the normal equations of one fold, apart from the table; parameters as for `fold`."""
        return ReadyGram(self.bands, self._widths, self.fold(fold, scales))

    def _repair(
        self,
        normal: FoldGram,
        table: FoldTable,
        fold: int,
        weak: IntArray,
        mean: FloatArray,
        factor: FloatArray,
    ) -> None:
        """Compute the rows of weak columns from the table itself, about the mean of the training rows."""
        rows, test, weights = table.train_rows(fold), table.folds[fold][1], table.train_weights(fold)
        values, columns = self._table.features, self._columns[weak]
        direct = values[rows[:, None], columns]
        centre = direct.mean(axis=0)
        direct -= centre
        shift = weights @ direct / weights.sum()
        unit = factor[weak] / self._spread[weak]
        direct = (direct - shift) * unit
        normal.test[:, weak] = (values[test[:, None], columns] - centre - shift) * unit
        weighted = direct * weights[:, None]
        crossed = (self._centred[rows] - mean).T @ weighted
        crossed *= factor[:, None]
        normal.gram[:, weak] = crossed
        normal.gram[weak, :] = crossed.T
        normal.gram[np.ix_(weak, weak)] = direct.T @ weighted
        normal.right[weak] = (table.y[rows] - normal.y_mean) @ weighted

    def _gram(self, rows: IntArray) -> FloatArray:
        chosen = self._centred[rows]
        if self._table.fit_weight is not None:
            chosen *= np.sqrt(self._weights[rows])[:, None]
        gram: FloatArray = chosen.T @ chosen
        return gram


class _Target(NamedTuple):
    """Weights and MOS of the rows that one fold trains on.

    Attributes
    ----------
    rows : float64 array of shape (n_rows, 2)
        Each row's share of the weight, and its weight times its MOS about the mean.
    weight : float
        Of all training rows.
    mean : float
        Of their MOS.
    """

    rows: FloatArray
    weight: float
    mean: float


def _target(table: FoldTable, fold: int) -> _Target:
    rows, weights = table.train_rows(fold), table.train_weights(fold)
    weight, target = float(weights.sum()), table.y[rows]
    mean = float(weights @ target) / weight
    # Training rows may repeat; a row's place counts each time.
    both = np.zeros((len(table.y), 2))
    np.add.at(both, rows, np.column_stack([weights / weight, weights * (target - mean)]))
    return _Target(both, weight, mean)


def _add(parts: Sequence[FloatArray], run: Callable[..., Any]) -> FloatArray:
    """Return the sum of matrices, a few rows at a time."""
    total = np.empty_like(parts[0])

    def add(start: int) -> None:
        tile = slice(start, start + _TILE)
        own = total[tile]
        own[:] = parts[0][tile]
        for part in parts[1:]:
            own += part[tile]

    list(run(add, range(0, len(total), _TILE)))
    return total


def _positions(bands: Sequence[str], widths: Sequence[int], wanted: Sequence[str]) -> IntArray:
    """Return the positions of some bands' columns among those of all bands, in the order wanted."""
    stops = np.cumsum(widths)
    runs = {
        band: np.arange(stop - width, stop) for band, stop, width in zip(bands, stops, widths, strict=True)
    }
    return np.concatenate([runs[band] for band in wanted])


def _is_partition(rows: IntArray, n_rows: int) -> bool:
    return len(rows) == n_rows and np.array_equal(rows, np.arange(n_rows))
