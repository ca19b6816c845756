"""Kernels of candidates, and kernel ridge on them: one kernel for all penalties.

The kernel of a candidate is the weighted sum of its bands' kernels; the squared distances of the RBF kernel follow from
the inner products, so that bands are added before anything is exponentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from regressors.checks import FloatArray
from regressors.shared.candidates import Candidate
from regressors.shared.column_scale import ColumnScale
from regressors.shared.fold_table import BandKernel, FoldTable
from regressors.shared.shifted import ShiftedSolutions, solve_shifted

Scales = Mapping[str, ColumnScale]
"""Of each band in one fold."""
Kernels = Mapping[str, Future[BandKernel]]
"""Of each band in one fold, perhaps still being computed."""
Found = list[tuple[Candidate, FloatArray, float]]
"""Candidates with their predictions of the test rows and the effect of rounding on them, in ranges of MOS."""

# Of a kernel at a time: they stay in the cache through all that is done with them.
_TILE_NUMBERS = 50_000


class KernelValues(NamedTuple):
    """Kernel of one candidate in one fold.

    Attributes
    ----------
    train : float64 array of shape (n_train, n_train)
        Between training rows.
    test : float64 array of shape (n_test, n_train)
        Between test and training rows.
    """

    train: FloatArray
    test: FloatArray


def band_factors(candidate: Candidate, scales: Scales) -> list[float]:
    """Return what each band's standardised columns are multiplied by.

    Parameters
    ----------
    candidate : Candidate
        Bands and weights.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    list of float
    """
    factors = []
    for band, weight in zip(candidate.bands, candidate.weights, strict=True):
        n_varying = int(scales[band].varies.sum())
        unit = 1 / np.sqrt(n_varying) if candidate.unit_band and n_varying else 1.0
        factors.append(float(unit * weight))
    return factors


def weighted_kernel(candidate: Candidate, kernels: Kernels, scales: Scales) -> tuple[FloatArray, FloatArray]:
    """Add up the kernels of a candidate's bands.

    Parameters
    ----------
    candidate : Candidate
        Bands and weights.
    kernels : mapping of str to future of BandKernel
        Of each band.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    train : float64 array of shape (n_train, n_train)
    test : float64 array of shape (n_test, n_train)
    """
    squares = [factor**2 for factor in band_factors(candidate, scales)]
    parts = [kernels[band].result() for band in candidate.bands]
    return (
        _weighted_sum([part.train for part in parts], squares),
        _weighted_sum([part.test for part in parts], squares),
    )


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


def ridge_answers(
    table: FoldTable,
    fold: int,
    candidates: Sequence[Candidate],
    test: FloatArray,
    solved: ShiftedSolutions,
    y_mean: float,
) -> Found:
    """Predict the test rows from the solutions of ridge systems.

    Parameters
    ----------
    table : FoldTable
        Target and folds.
    fold : int
        Number of the fold.
    candidates : sequence of Candidate
        One per solution.
    test : float64 array of shape (n_test, n)
        What the solutions are multiplied by.
    solved : ShiftedSolutions
        Solutions, and their response to rounding.
    y_mean : float
        What is added.

    Returns
    -------
    list of (Candidate, float64 array, float)
    """
    # One product, because each reads the whole table.
    predicted, moved = np.hsplit(test @ np.hstack([solved.x, solved.change]), 2)
    predicted += y_mean
    spread = float(np.ptp(table.y[table.train_rows(fold)])) or 1.0
    doubt = np.abs(moved).max(axis=0, initial=0.0) / spread
    return [(c, predicted[:, k], float(doubt[k])) for k, c in enumerate(candidates)]


def fit_kernel_ridge(
    table: FoldTable,
    candidates: Sequence[Candidate],
    kernels: Kernels,
    fold: int,
    scales: Scales,
) -> Found:
    """Fit `sklearn.kernel_ridge.KernelRidge`, all penalties of one kernel: (H K H + alpha I) c = H y.

    Parameters
    ----------
    table : FoldTable
        Target, weights and folds.
    candidates : sequence of Candidate
        Of one kernel and one gamma.
    kernels : mapping of str to future of BandKernel
        Of each band.
    fold : int
        Number of the fold.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    list of (Candidate, float64 array, float)
    """
    train, test = kernel_values(table, candidates[0], kernels, fold, scales)
    target = table.y[table.train_rows(fold)]
    if table.fit_weight is not None:
        root = np.sqrt(table.train_weights(fold))
        train *= root
        train *= root[:, None]
        test *= root
        target = root * target
    solved = solve_shifted(train, target, [c.values[0] for c in candidates])
    return ridge_answers(table, fold, candidates, test, solved, 0.0)


def kernel_values(
    table: FoldTable, candidate: Candidate, kernels: Kernels, fold: int, scales: Scales
) -> KernelValues:
    """Compute the kernel of a candidate.

    Parameters
    ----------
    table : FoldTable
        Weights and folds.
    candidate : Candidate
        Bands, their weights, the kind of kernel and its width.
    kernels : mapping of str to future of BandKernel
        Inner products of each band.
    fold : int
        Number of the fold.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    KernelValues
    """
    squares = [factor**2 for factor in band_factors(candidate, scales)]
    parts = [kernels[band].result() for band in candidate.bands]
    norms = np.array(squares) @ np.array([np.diagonal(part.train) for part in parts])
    own = np.array(squares) @ np.array([part.test_norms for part in parts])
    total = 1.0
    if candidate.family == "unit-svr":
        variance = float(np.average(norms, weights=table.given_weights(fold)))
        total = variance if variance > 0 else 1.0

    def finish(tile: FloatArray, rows: slice, left: FloatArray, is_own: bool) -> None:
        if candidate.kernel == "linear":
            tile /= total
            return
        # exp(-gamma |x - z|^2); distances that rounding made negative are 0.
        tile *= -2
        tile += left[rows, None]
        tile += norms
        np.maximum(tile, 0.0, out=tile)
        tile *= -candidate.values[-1] / total
        if is_own:
            np.fill_diagonal(tile[:, rows], 0.0)
        np.exp(tile, out=tile)

    return KernelValues(
        _weighted_sum(
            [part.train for part in parts], squares, lambda tile, rows: finish(tile, rows, norms, True)
        ),
        _weighted_sum(
            [part.test for part in parts], squares, lambda tile, rows: finish(tile, rows, own, False)
        ),
    )
