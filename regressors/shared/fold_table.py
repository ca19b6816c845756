"""A feature table cut into folds: standardised columns, kernels of each band, and Gram matrices of the whole.

Everything that the many candidates of a search have in common is computed here once per fold.
Means and deviations are those that `sklearn.preprocessing.StandardScaler` learns on the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from regressors.checks import FloatArray, IntArray
from regressors.folds import Fold

# Columns at a time, so that the rows of a chunk stay in the cache through all passes over them.
_CHUNK = 64
_WIDE_CHUNK = 256
_EPS = float(np.finfo(np.float64).eps)
# A column whose training variance is below this part of its global mean square loses digits in a shared Gram matrix.
_CANCELS = 1e-3
_MAX_STORED_BYTES = 1_000_000_000


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


class BandKernel(NamedTuple):
    """Inner products of the standardised rows of one band, in one fold.

    Attributes
    ----------
    train : float64 array of shape (n_train, n_train)
        Between training rows.
    test : float64 array of shape (n_test, n_train)
        Between test and training rows.
    test_norms : float64 array of shape (n_test,)
        Of each test row with itself.
    """

    train: FloatArray
    test: FloatArray
    test_norms: FloatArray


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
class FoldTable:
    """A table of features with its target, weights and folds.

    Attributes
    ----------
    features : float64 array of shape (n_rows, n_features)
        Finite features.
    y : float64 array of shape (n_rows,)
        MOS.
    bands : mapping of str to int array
        Column positions of each band.
    folds : sequence of (train, test)
        Row positions; training rows may repeat.
    scale_weight, fit_weight : float64 array of shape (n_rows,), or None
        Weights of the rows in the scaler and in the regressor.
    scaling : {"deviation", "range"}
        Whether columns are divided by their deviation or by their range, as `sklearn.preprocessing.MinMaxScaler` does.
    """

    features: FloatArray
    y: FloatArray
    bands: Mapping[str, IntArray]
    folds: Sequence[Fold]
    scale_weight: FloatArray | None = None
    fit_weight: FloatArray | None = None
    scaling: str = "deviation"
    _slices: dict[str, slice | IntArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for band, columns in self.bands.items():
            self._slices[band] = as_slice(columns)

    def whole(self) -> FoldTable:
        """Return the same table with one fold, that trains on all rows and tests none."""
        return replace(self, folds=[(np.arange(len(self.y)), np.empty(0, dtype=np.intp))])

    def train_rows(self, fold: int) -> IntArray:
        """Return the training rows of a fold that the regressor sees: those of positive weight."""
        train = self.folds[fold][0]
        return train if self.fit_weight is None else train[self.fit_weight[train] > 0]

    def train_weights(self, fold: int) -> FloatArray:
        """Return the regressor's weights of `train_rows`; ones without weights."""
        rows = self.train_rows(fold)
        return np.ones(len(rows)) if self.fit_weight is None else self.fit_weight[rows]

    def column_scale(self, band: str, fold: int) -> ColumnScale:
        """Learn means and deviations of a band's columns on the training rows of a fold.

        Parameters
        ----------
        band : str
            Name of the band.
        fold : int
            Number of the fold.

        Returns
        -------
        ColumnScale
        """
        rows = self.folds[fold][0]
        weights = None if self.scale_weight is None else self.scale_weight[rows]
        heavy = slice(None) if weights is None else weights > 0
        total = float(len(rows)) if weights is None else float(weights.sum())
        n_columns = len(self.bands[band])
        mean, variance, extent = np.empty(n_columns), np.empty(n_columns), np.empty(n_columns)
        exact = np.zeros(n_columns, dtype=bool)
        for start in range(0, n_columns, _CHUNK):
            part = slice(start, min(start + _CHUNK, n_columns))
            chunk = self._cut(band, rows, part)
            if self.scaling == "range":
                extent[part] = np.ptp(chunk, axis=0)
            mean[part] = (chunk.sum(axis=0) if weights is None else weights @ chunk) / total
            chunk -= mean[part]
            # The corrected two-pass formula, as in the scaler.
            shift = chunk.sum(axis=0) if weights is None else weights @ chunk
            if weights is None:
                squares = np.einsum("ij,ij->j", chunk, chunk)
            else:
                squares = np.einsum("i,ij,ij->j", weights, chunk, chunk)
            variance[part] = (squares - shift**2 / total) / total
        # Chan, Golub and LeVeque's bound on the rounding of the variance, by which the scaler finds constants.
        varies = variance > total * _EPS * variance + (total * mean * _EPS) ** 2
        for column in np.flatnonzero(~varies):
            [values] = self._cut(band, rows, slice(column, column + 1)).T
            exact[column] = (values[heavy] == values[heavy][0]).all()
        if self.scaling == "range":
            # The scaler leaves a range of rounding size as it is.
            extent[extent < 10 * _EPS] = 1.0
            return ColumnScale(mean, np.where(exact, 0.0, 1.0 / extent), ~exact, variance)
        deviation = np.sqrt(np.where(varies, variance, 1.0))
        return ColumnScale(mean, np.where(exact, 0.0, 1.0 / deviation), varies & ~exact, variance)

    def kernel(self, band: str, fold: int, scale: ColumnScale) -> BandKernel:
        """Compute the inner products of a band's standardised rows in one fold.

        Parameters
        ----------
        band : str
            Name of the band.
        fold : int
            Number of the fold.
        scale : ColumnScale
            Of this band in this fold.

        Returns
        -------
        BandKernel
            Over `train_rows`, centred at their weighted mean.
        """
        trained, tested, centre = self.standardised(band, fold, scale)
        test = self.folds[fold][1]
        norms = np.einsum("ij,ij->i", tested, tested)
        # A column that is constant on the training rows may vary on the test rows. The scaler leaves it in its
        # own unit; no inner product with a training row shows it, but distances do.
        constant = np.flatnonzero(scale.factor == 0)
        off = self.features[test[:, None], self.bands[band][constant]] - centre[constant]
        norms += np.einsum("ij,ij->i", off, off)
        return BandKernel(trained @ trained.T, tested @ trained.T, norms)

    def standardised(
        self, band: str, fold: int, scale: ColumnScale
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Standardise a band's columns in one fold, without those that are constant on the training rows.

        Parameters
        ----------
        band : str
            Name of the band.
        fold : int
            Number of the fold.
        scale : ColumnScale
            Of this band in this fold.

        Returns
        -------
        trained : float64 array of shape (n_train, n_used)
            Of `train_rows`, centred at their weighted mean.
        tested : float64 array of shape (n_test, n_used)
        centre : float64 array of shape (n_columns,)
            What was subtracted.
        """
        rows, test = self.train_rows(fold), self.folds[fold][1]
        used = np.flatnonzero(scale.factor)
        centre = scale.mean
        if self.fit_weight is not self.scale_weight:
            weights = self.train_weights(fold)
            centre = scale.mean.copy()
            for start in range(0, len(centre), _CHUNK):
                part = slice(start, min(start + _CHUNK, len(centre)))
                # About the scaler's mean, so that no digits are lost to a common offset.
                centre[part] += weights @ (self._cut(band, rows, part) - scale.mean[part]) / weights.sum()
        trained = self._standardise(band, rows, centre, scale.factor, used)
        tested = self._standardise(band, test, centre, scale.factor, used)
        return trained, tested, centre

    def _standardise(
        self, band: str, rows: IntArray, centre: FloatArray, factor: FloatArray, used: IntArray
    ) -> FloatArray:
        standardised = np.empty((len(rows), len(centre)))
        for start in range(0, len(centre), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(centre)))
            chunk = self._cut(band, rows, part)
            chunk -= centre[part]
            np.multiply(chunk, factor[part], out=standardised[:, part])
        return standardised if len(used) == len(centre) else standardised[:, used]

    def _cut(self, band: str, rows: IntArray, part: slice) -> FloatArray:
        """Return a copy of some columns of a band."""
        columns = self._slices[band]
        if isinstance(columns, slice):
            first = int(columns.start)
            return self.features[rows, first + part.start : first + part.stop]
        return self.features[rows[:, None], columns[part]]


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
        columns = np.concatenate([table.bands[band] for band in bands])
        self._columns = columns
        weights = np.ones(len(table.y)) if table.fit_weight is None else table.fit_weight
        self._weights = weights
        self._centred = np.empty((len(weights), len(columns)))
        self._spread = np.empty(len(columns))
        list(run(self._centre, range(0, len(columns), _WIDE_CHUNK)))
        others = [self._others(fold) for fold in range(len(table.folds))]
        self._left_out = [
            rows if rows is not None and len(rows) <= len(weights) / 2 else None for rows in others
        ]
        self._parts: list[FloatArray | None] = [None] * len(others)
        self._total: FloatArray | None = None
        shared = [rows for rows in self._left_out if rows is not None]
        size = len(columns) ** 2 * 8
        if shared and stored and size * (len(shared) + 1) <= _MAX_STORED_BYTES:
            self._parts = list(run(lambda rows: None if rows is None else self._gram(rows), self._left_out))
        joined = np.sort(np.concatenate(shared)) if shared else np.empty(0, dtype=np.intp)
        if shared and all(part is not None for part in self._parts) and _is_partition(joined, len(weights)):
            self._total = sum(
                (part for part in self._parts if part is not None), np.zeros((len(columns),) * 2)
            )
        elif shared:
            self._total = self._gram(np.arange(len(weights)))

    def _centre(self, start: int) -> None:
        """Centre and scale some columns over all rows."""
        part = slice(start, start + _WIDE_CHUNK)
        chunk = np.take(self._table.features, self._columns[part], axis=1)
        chunk -= chunk.mean(axis=0)
        spread = np.sqrt(np.einsum("ij,ij->j", chunk, chunk) / len(chunk))
        spread[spread == 0] = 1.0
        self._spread[part] = spread
        np.divide(chunk, spread, out=self._centred[:, part])

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
            gram = self._gram(self._table.train_rows(fold))
        else:
            gram = self._total - (self._gram(left_out) if part is None else part)
        return self._standardise(self._table, fold, scales, gram)

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
        gram = self._gram(table.train_rows(0)) if self._total is None else self._total.copy()
        return self._standardise(table, 0, scales, gram)

    def _standardise(
        self, table: FoldTable, fold: int, scales: Mapping[str, ColumnScale], gram: FloatArray
    ) -> FoldGram:
        """Turn products of globally centred training rows, overwritten, into those of standardised ones."""
        rows, test = table.train_rows(fold), table.folds[fold][1]
        factor = np.concatenate([scales[band].factor for band in self.bands]) * self._spread
        weights = table.train_weights(fold)
        total = float(weights.sum())
        target = table.y[rows]
        y_mean = float(weights @ target) / total
        # Training rows may repeat; a row's place in these vectors counts each time.
        both = np.zeros((len(table.y), 2))
        np.add.at(both, rows, np.column_stack([weights / total, weights * (target - y_mean)]))
        mean, right = (self._centred.T @ both).T
        before = np.diagonal(gram if self._total is None else self._total).copy()
        gram -= np.outer(total * mean, mean)
        tested = self._centred[test] - mean
        weak = np.flatnonzero((np.diagonal(gram) < _CANCELS * before) & (factor > 0))
        if len(weak):
            self._repair(gram, right, tested, weak, rows, test, weights, target - y_mean, mean)
        gram *= factor
        gram *= factor[:, None]
        tested *= factor
        return FoldGram(gram, right * factor, tested, y_mean)

    def columns(self, bands: Sequence[str]) -> IntArray:
        """Return the positions of some bands' columns in the Gram matrix."""
        widths = [len(self._table.bands[band]) for band in self.bands]
        stops = np.cumsum(widths)
        runs = {
            band: np.arange(stop - width, stop)
            for band, stop, width in zip(self.bands, stops, widths, strict=True)
        }
        return np.concatenate([runs[band] for band in bands])

    def _repair(
        self,
        gram: FloatArray,
        right: FloatArray,
        tested: FloatArray,
        weak: IntArray,
        rows: IntArray,
        test: IntArray,
        weights: FloatArray,
        target: FloatArray,
        mean: FloatArray,
    ) -> None:
        """Compute the rows of weak columns from the table itself, about the mean of the training rows."""
        values, columns = self._table.features, self._columns[weak]
        direct = values[rows[:, None], columns]
        centre = direct.mean(axis=0)
        direct -= centre
        shift = weights @ direct / weights.sum()
        direct = (direct - shift) / self._spread[weak]
        tested[:, weak] = (values[test[:, None], columns] - centre - shift) / self._spread[weak]
        weighted = direct * weights[:, None]
        crossed = (self._centred[rows] - mean).T @ weighted
        gram[:, weak] = crossed
        gram[weak, :] = crossed.T
        gram[np.ix_(weak, weak)] = direct.T @ weighted
        right[weak] = target @ weighted

    def _gram(self, rows: IntArray) -> FloatArray:
        chosen = self._centred[rows]
        if self._table.fit_weight is not None:
            chosen *= np.sqrt(self._weights[rows])[:, None]
        gram: FloatArray = chosen.T @ chosen
        return gram

    def _others(self, fold: int) -> IntArray | None:
        """Return the rows outside a fold's training rows; None when those repeat."""
        train = self._table.folds[fold][0]
        outside = np.ones(len(self._table.y), dtype=bool)
        outside[train] = False
        others = np.flatnonzero(outside)
        return others if len(others) + len(train) == len(outside) else None


def as_slice(positions: IntArray) -> slice | IntArray:
    """Return consecutive positions as a slice, which takes no copy; others as they are."""
    first = int(positions[0]) if len(positions) else 0
    run = np.arange(first, first + len(positions))
    return slice(first, first + len(positions)) if np.array_equal(positions, run) else positions


def _is_partition(rows: IntArray, n_rows: int) -> bool:
    return len(rows) == n_rows and np.array_equal(rows, np.arange(n_rows))
