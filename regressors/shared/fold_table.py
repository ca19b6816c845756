"""A feature table cut into folds: scales of its columns, standardised columns, and kernels of each band.

Everything that the many candidates of a search have in common is computed here once per fold.
Means and deviations are those that `sklearn.preprocessing.StandardScaler` learns on the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from regressors.checks import FloatArray, IntArray
from regressors.folds import Fold
from regressors.shared.column_scale import CHUNK, ColumnScale, learn_scale, learn_scales
from regressors.shared.lapack import add_own_products, add_products, mirror

WIDE_CHUNK = 384
"""Columns whose products are added at a time: wide enough for BLAS, and still in the cache."""


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
        own = self.given_weights(fold)
        return np.ones(len(self.train_rows(fold))) if own is None else own

    def given_weights(self, fold: int) -> FloatArray | None:
        """Return the regressor's weights of `train_rows`; None without weights."""
        return None if self.fit_weight is None else self.fit_weight[self.train_rows(fold)]

    def column_scales(self, band: str, part: slice) -> list[ColumnScale]:
        """Learn means and deviations of some of a band's columns in every fold and over all rows, from shared sums.

        Parameters
        ----------
        band : str
            Name of the band.
        part : slice
            Which of its columns.

        Returns
        -------
        list of ColumnScale
            One for each fold, and last that of all rows.
        """
        columns = np.arange(len(self.bands[band]))[part]

        def cut(rows: IntArray | None, chosen: slice | IntArray) -> FloatArray:
            if isinstance(chosen, slice):
                return self._cut(band, rows, slice(part.start + chosen.start, part.start + chosen.stop))
            return self._cut(band, rows, columns[chosen])

        everyone = np.arange(len(self.y))
        trained = [*(train for train, _ in self.folds), everyone]
        if self.scaling == "range":
            # Extremes of the rest do not follow from those of all rows.
            weights = [None if self.scale_weight is None else self.scale_weight[rows] for rows in trained]
            return [
                learn_scale(cut, len(columns), rows, own, scaling=self.scaling)
                for rows, own in zip(trained, weights, strict=True)
            ]
        left_out = [*(self.left_out(fold) for fold in range(len(self.folds))), everyone[:0]]
        return learn_scales(cut, len(columns), trained, left_out, self.scale_weight)

    def left_out(self, fold: int) -> IntArray | None:
        """Return the rows that a fold does not train on; None when it trains on few rows, or on rows that repeat."""
        train = self.folds[fold][0]
        outside = np.ones(len(self.y), dtype=bool)
        outside[train] = False
        others = np.flatnonzero(outside)
        return others if len(others) + len(train) == len(outside) and len(others) <= len(train) else None

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
        rows, test = self.train_rows(fold), self.folds[fold][1]
        both, n_train, n_columns = np.concatenate([rows, test]), len(rows), len(self.bands[band])
        centre = self.centre(band, fold, scale)
        trained, tested, norms = (
            np.zeros((n_train, n_train)),
            np.zeros((len(test), n_train)),
            np.zeros(len(test)),
        )
        # One piece of memory for all chunks: making a new one each time takes longer than filling it.
        scratch = np.empty(len(both) * min(WIDE_CHUNK, n_columns))
        for start in range(0, n_columns, WIDE_CHUNK):
            part = slice(start, min(start + WIDE_CHUNK, n_columns))
            chunk = self.standardised(band, both, part, centre, scale, scratch)
            add_own_products(trained, chunk[:n_train])
            add_products(tested, chunk[n_train:], chunk[:n_train])
            norms += np.einsum("ij,ij->i", chunk[n_train:], chunk[n_train:])
        mirror(trained)
        # A column that is constant on the training rows may vary on the test rows. The scaler leaves it in its
        # own unit; no inner product with a training row shows it, but distances do.
        constant = np.flatnonzero(scale.factor == 0)
        off = self.features[test[:, None], self.bands[band][constant]] - centre[constant]
        norms += np.einsum("ij,ij->i", off, off)
        return BandKernel(trained, tested, norms)

    def centre(self, band: str, fold: int, scale: ColumnScale) -> FloatArray:
        """Return the weighted means of a band's columns over `train_rows`, in which kernels are centred.

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
        float64 array of shape (n_columns,)
        """
        if self.fit_weight is self.scale_weight:
            return scale.mean
        rows, weights = self.train_rows(fold), self.train_weights(fold)
        centre = scale.mean.copy()
        for start in range(0, len(centre), CHUNK):
            part = slice(start, min(start + CHUNK, len(centre)))
            # About the scaler's mean, so that no digits are lost to a common offset.
            centre[part] += weights @ (self._cut(band, rows, part) - scale.mean[part]) / weights.sum()
        return centre

    def standardised(
        self,
        band: str,
        rows: IntArray,
        part: slice,
        centre: FloatArray,
        scale: ColumnScale,
        scratch: FloatArray | None = None,
    ) -> FloatArray:
        """Standardise some columns of a band; those that are constant on the training rows become zero.

        Parameters
        ----------
        band : str
            Name of the band.
        rows : int array of shape (n_rows,)
            Which rows.
        part : slice
            Which columns.
        centre : float64 array of shape (n_columns,)
            What is subtracted from the band's columns.
        scale : ColumnScale
            Of this band.
        scratch : float64 array of shape (n_numbers,), optional
            Memory for what is returned.

        Returns
        -------
        float64 array of shape (n_rows, n_part)
        """
        chunk = self._cut(band, rows, part, scratch)
        chunk -= centre[part]
        chunk *= scale.factor[part]
        return chunk

    def _cut(
        self, band: str, rows: IntArray | None, part: slice | IntArray, scratch: FloatArray | None = None
    ) -> FloatArray:
        """Return a copy of some columns of a band, in some rows or all."""
        columns = self._slices[band]
        if isinstance(columns, slice) and isinstance(part, slice):
            first = int(columns.start)
            chosen = self.features[:, first + part.start : first + part.stop]
            if rows is None:
                return chosen.copy()
            n_rows, n_part = len(rows), chosen.shape[1]
            out = np.empty((n_rows, n_part)) if scratch is None else scratch[: n_rows * n_part]
            # Rows exist, so that nothing is clipped; without the mode numpy would fill a copy first.
            return np.take(chosen, rows, axis=0, out=out.reshape(n_rows, n_part), mode="clip")
        positions = self.bands[band][part]
        return self.features[:, positions] if rows is None else self.features[rows[:, None], positions]


def as_slice(positions: IntArray) -> slice | IntArray:
    """Return consecutive positions as a slice, which takes no copy; others as they are."""
    first = int(positions[0]) if len(positions) else 0
    run = np.arange(first, first + len(positions))
    return slice(first, first + len(positions)) if np.array_equal(positions, run) else positions
