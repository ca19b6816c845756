"""Kernels of the rows of each band, and of the weighted bands of a candidate.

Bands are added before anything is exponentiated: the squared distances of the RBF kernel follow from inner products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from regressors.checks import FloatArray
from regressors.solvers.sums import ColumnScale, FoldTable, standardised

WIDE_COLUMNS = 2048
"""Columns of a band that are standardised at a time."""

# Of a kernel at a time: they stay in the cache through all that is done with them.
_TILE_NUMBERS = 50_000
_ROWS = 16


class BandKernel(NamedTuple):
    """Inner products of the standardised rows of one band, centred at the regressor's means, in one fold.

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


Kernels = Mapping[str, Future[BandKernel]]
"""Of each band in one fold, perhaps still being computed."""


def band_kernel(table: FoldTable, band: str, fold: int, centre: FloatArray, scale: ColumnScale) -> BandKernel:
    """Compute the inner products of a band in one fold; ``centre`` and ``scale`` are those of all columns."""
    columns = table.bands[band]
    rows = table.train_rows(fold)
    test = table.folds[fold][1] if fold >= 0 else rows[:0]
    both, n_train = np.concatenate([rows, test]), len(rows)
    trained, tested = np.zeros((n_train, n_train)), np.zeros((len(test), n_train))
    norms = np.zeros(len(test))
    for start in range(0, len(columns), WIDE_COLUMNS):
        chunk = standardised(table, both, columns[start : start + WIDE_COLUMNS], centre, scale)
        own, other = chunk[:n_train], chunk[n_train:]
        if start == 0:
            trained, tested = own @ own.T, other @ own.T
        else:
            trained += own @ own.T
            tested += other @ own.T
        norms += np.einsum("ij,ij->i", other, other)
    # A column that is constant on the training rows may vary on the test rows. The scaler leaves it in its own unit; no
    # inner product with a training row shows it, but distances do.
    constant = columns[scale.factor[columns] == 0]
    off = table.matrix[test[:, None], constant] - centre[constant]
    norms += np.einsum("ij,ij->i", off, off)
    return BandKernel(trained, tested, norms)


def _weighted_sum(
    matrices: Sequence[FloatArray],
    weights: Sequence[float],
    finish: Callable[[FloatArray, slice], None] = lambda tile, rows: None,
) -> FloatArray:
    """Add matrices up, a few rows at a time, so that these are in the cache when the next is added."""
    total = np.empty_like(matrices[0])
    step = max(1, _TILE_NUMBERS // max(1, total.shape[1]))
    for start in range(0, len(total), step):
        rows = slice(start, start + step)
        tile = total[rows]
        np.multiply(matrices[0][rows], weights[0], out=tile)
        for matrix, weight in zip(matrices[1:], weights[1:], strict=True):
            # Most weights are 1, and a product would be one more pass.
            tile += matrix[rows] if weight == 1 else weight * matrix[rows]
        finish(tile, rows)
    return total


def linear_kernel(factors: Mapping[str, float], kernels: Kernels) -> tuple[FloatArray, FloatArray]:
    """Add up the kernels of bands by the squares of their factors: (n_train, n_train) and (n_test, n_train)."""
    squares = [factor**2 for factor in factors.values()]
    parts = [kernels[band].result() for band in factors]
    return (
        _weighted_sum([part.train for part in parts], squares),
        _weighted_sum([part.test for part in parts], squares),
    )


def unit_kernel(
    factors: Mapping[str, float],
    kernels: Kernels,
    gamma: float | None,
    *,
    weights: FloatArray | None = None,
    by_variance: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Compute the kernel of support vectors: (n_train, n_train) and (n_test, n_train).

    Parameters
    ----------
    factors : mapping of str to float
        What each band is multiplied by.
    kernels : mapping of str to future of BandKernel
        Inner products of each band.
    gamma : float or None
        Inverse width of the RBF kernel; None for the linear one.
    weights : float64 array of shape (n_train,), optional
        Of the training rows.
    by_variance : bool, default=False
        Whether inner products are divided by the total variance, as `regressors.svr.UnitSVR` does.
    """
    squares = [factor**2 for factor in factors.values()]
    parts = [kernels[band].result() for band in factors]
    norms = np.array(squares) @ np.array([np.diagonal(part.train) for part in parts])
    test_norms = np.array(squares) @ np.array([part.test_norms for part in parts])
    total = (float(np.average(norms, weights=weights)) if by_variance else 1.0) or 1.0

    def finish(tile: FloatArray, rows: slice, left: FloatArray, is_train: bool) -> None:
        if gamma is None:
            tile /= total
            return
        # exp(-gamma |x - z|^2); distances that rounding made negative are 0.
        tile *= -2
        tile += left[rows, None]
        tile += norms
        np.maximum(tile, 0.0, out=tile)
        tile *= -gamma / total
        if is_train:
            np.fill_diagonal(tile[:, rows], 0.0)
        np.exp(tile, out=tile)

    return (
        _weighted_sum(
            [part.train for part in parts], squares, lambda tile, rows: finish(tile, rows, norms, True)
        ),
        _weighted_sum(
            [part.test for part in parts], squares, lambda tile, rows: finish(tile, rows, test_norms, False)
        ),
    )


def dual_system(
    kernel: FloatArray, y: FloatArray, weights: FloatArray | None
) -> tuple[FloatArray | None, FloatArray, float]:
    """Turn a kernel of centred rows into the matrix H K H of its ridge, in place; H has the roots of the weights.

    Parameters
    ----------
    kernel : float64 array of shape (n_train, n_train)
        Overwritten.
    y : float64 array of shape (n_train,)
        MOS.
    weights : float64 array of shape (n_train,), or None
        Of the rows.

    Returns
    -------
    root : float64 array of shape (n_train,), or None
        The diagonal of H.
    right : float64 array of shape (n_train,)
        H (y - y_mean).
    y_mean : float
        Weighted mean of MOS.
    """
    y_mean = float(np.average(y, weights=weights))
    right = y - y_mean
    root = np.ones(len(y)) if weights is None else np.sqrt(weights)
    if weights is not None:
        kernel *= root
        kernel *= root[:, None]
        right *= root
    # A centred kernel is singular along the roots of the weights, to which the target is orthogonal. With the mean
    # eigenvalue there the solutions are the same, and small penalties no worse conditioned than the others.
    along = root * (np.trace(kernel) / (len(root) * (root @ root)))
    for start in range(0, len(kernel), _ROWS):
        kernel[start : start + _ROWS] += along[start : start + _ROWS, None] * root
    return None if weights is None else root, right, y_mean
