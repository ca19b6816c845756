"""Regressors on kernels computed beforehand: kernel ridge and support vectors, one kernel for all penalties.

The kernel of a candidate is the weighted sum of its bands' kernels; the squared distances of the RBF kernel follow from
the inner products, so that bands are added before anything is exponentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
from sklearn.svm import SVR

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
    first = kernels[candidate.bands[0]].result()
    train, test = squares[0] * first.train, squares[0] * first.test
    for band, square in zip(candidate.bands[1:], squares[1:], strict=True):
        # Most weights are 1, and a product would be one more pass over the matrix.
        kernel = kernels[band].result()
        train += kernel.train if square == 1 else square * kernel.train
        test += kernel.test if square == 1 else square * kernel.test
    return train, test


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
    train, test, _ = _kernel(table, candidates[0], kernels, fold, scales)
    target = table.y[table.train_rows(fold)]
    if table.fit_weight is not None:
        root = np.sqrt(table.train_weights(fold))
        train *= root
        train *= root[:, None]
        test *= root
        target = root * target
    solved = solve_shifted(train, target, [c.values[0] for c in candidates])
    return ridge_answers(table, fold, candidates, test, solved, 0.0)


def fit_support_vectors(
    table: FoldTable,
    candidates: Sequence[Candidate],
    kernels: Kernels,
    fold: int,
    scales: Scales,
) -> Found:
    """Fit `sklearn.svm.SVR` or `regressors.svr.UnitSVR` on one kernel.

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
    train, test, weights = _kernel(table, candidates[0], kernels, fold, scales)
    target = table.y[table.train_rows(fold)]
    y_mean, y_scale = 0.0, 1.0
    if candidates[0].family == "unit-svr":
        y_mean = float(np.average(target, weights=weights))
        y_scale = float(np.sqrt(np.average((target - y_mean) ** 2, weights=weights))) or 1.0
    found: Found = []
    for candidate in candidates:
        tol, max_iter, cache_size_mb, shrinking = candidate.solver
        svr = SVR(
            kernel="precomputed",
            C=candidate.values[0],
            epsilon=candidate.values[1],
            tol=tol,
            max_iter=int(max_iter),
            cache_size=cache_size_mb,
            shrinking=bool(shrinking),
        ).fit(train, (target - y_mean) / y_scale, sample_weight=weights)
        unit = test[:, svr.support_] @ svr.dual_coef_[0] + svr.intercept_[0]
        found.append((candidate, y_mean + y_scale * unit, 0.0))
    return found


def _kernel(
    table: FoldTable, candidate: Candidate, kernels: Kernels, fold: int, scales: Scales
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Return the kernel between training rows and to the test rows, and the weights of the training rows."""
    train, test = weighted_kernel(candidate, kernels, scales)
    weights = None if table.fit_weight is None else table.train_weights(fold)
    norms = np.diagonal(train).copy()
    total = 1.0
    if candidate.family == "unit-svr":
        variance = float(np.average(norms, weights=weights))
        total = variance if variance > 0 else 1.0
    if candidate.kernel == "linear":
        if total != 1:
            train /= total
            test /= total
        return train, test, weights
    own = np.zeros(len(test))
    for band, factor in zip(candidate.bands, band_factors(candidate, scales), strict=True):
        own += factor**2 * kernels[band].result().test_norms
    for matrix, left in ((train, norms), (test, own)):
        # exp(-gamma |x - z|^2) in place; distances that rounding made negative are 0.
        matrix *= -2
        matrix += left[:, None]
        matrix += norms
        np.maximum(matrix, 0.0, out=matrix)
        matrix *= -candidate.values[-1] / total
    np.fill_diagonal(train, 0.0)
    np.exp(train, out=train)
    np.exp(test, out=test)
    return train, test, weights
