"""The work of one fold: systems of candidates cut out of what they share, solved, and read at the test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Executor, Future
from itertools import pairwise

import numpy as np

from regressors.checks import FloatArray, IntArray
from regressors.shared.candidates import Candidate
from regressors.shared.fold_table import FoldTable, as_slice
from regressors.shared.kernel_fits import (
    Found,
    Kernels,
    KernelValues,
    Scales,
    band_factors,
    fit_kernel_ridge,
    kernel_values,
    ridge_answers,
    weighted_kernel,
)
from regressors.shared.shared_gram import FoldGram, ReadyGram, SharedGram
from regressors.shared.shifted import ShiftedSolutions, solve_shifted
from regressors.shared.support_vectors import fit_support_vectors

# There are as many blocks as pairs of runs of neighbouring columns; of more runs one selection by positions is made.
_MAX_RUNS = 32
# Rows of a kernel at a time.
_ROWS = 16


def is_primal(key: Candidate, table: FoldTable, fold: int, scales: Scales) -> bool:
    """Say whether a candidate is solved by a Gram matrix; otherwise by a kernel.

    Parameters
    ----------
    key : Candidate
        Family, bands and weights.
    table : FoldTable
        Target, weights and folds.
    fold : int
        Number of the fold.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    bool
    """
    # On the wrong side of the rank the small penalties lose digits: the matrix is singular without them.
    n_columns = sum(int(np.count_nonzero(scales[band].factor)) for band in key.bands)
    return key.family == "ridge" and n_columns <= len(table.train_rows(fold))


def submit_fold(
    pool: Executor,
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    fold: int,
    scales: Scales,
    gram: SharedGram | ReadyGram | None,
    primal: Set[Candidate],
) -> list[Future[Found]]:
    """Queue the work of one fold: first what its candidates share, then the candidates, who wait for it.

    The queue is served in order, so that nobody waits for what has not begun, and little more than one fold is in
    memory at a time: only the waiting tasks hold what is shared.

    Parameters
    ----------
    pool : Executor
        Threads.
    table : FoldTable
        Features, target, weights and folds.
    groups : mapping of Candidate to sequence of Candidate
        Candidates that share one matrix, by what they have in common.
    fold : int
        Number of the fold.
    scales : mapping of str to ColumnScale
        Of each band.
    gram : SharedGram, ReadyGram or None
        Of the bands that are solved by Gram matrices.
    primal : set of Candidate
        The keys of ``groups`` that are.

    Returns
    -------
    list of future
        Of candidates with their predictions.
    """
    tasks: list[Future[Found]] = []
    if gram is not None and primal:
        normal = pool.submit(gram.fold, fold, scales)
        tasks += [
            pool.submit(_primal_ridge, table, groups[key], normal, gram, fold, scales)
            for key in groups
            if key in primal
        ]
    dual = [key for key in groups if key not in primal]
    kernels = {
        band: pool.submit(table.kernel, band, fold, scales[band])
        for band in scales
        if any(band in key.bands for key in dual)
    }
    for key in dual:
        own = {band: kernels[band] for band in key.bands}
        if key.family == "ridge":
            tasks.append(pool.submit(_dual_ridge, table, groups[key], own, fold, scales))
            continue
        by_gamma: dict[float, list[Candidate]] = {}
        for candidate in groups[key]:
            by_gamma.setdefault(candidate.values[-1], []).append(candidate)
        widths = list(by_gamma.values())
        if key.family == "kernel-ridge":
            tasks += [pool.submit(fit_kernel_ridge, table, width, own, fold, scales) for width in widths]
        else:
            tasks += _submit_support_vectors(pool, table, widths, own, fold, scales)
    return tasks


def _submit_support_vectors(
    pool: Executor,
    table: FoldTable,
    widths: Sequence[Sequence[Candidate]],
    kernels: Kernels,
    fold: int,
    scales: Scales,
) -> list[Future[Found]]:
    """Queue the candidates of each kernel one by one, each kernel while the candidates of the last are fitted."""
    tasks: list[Future[Found]] = []
    waiting: list[tuple[Sequence[Candidate], Future[KernelValues]]] = []
    for width in [*widths, ()]:
        if width:
            waiting.append((width, pool.submit(kernel_values, table, width[0], kernels, fold, scales)))
        if len(waiting) == 2 or not width:
            members, values = waiting.pop(0)
            tasks += [pool.submit(fit_support_vectors, table, member, values, fold) for member in members]
    return tasks


def _primal_ridge(
    table: FoldTable,
    candidates: Sequence[Candidate],
    waited: Future[FoldGram],
    gram: SharedGram | ReadyGram,
    fold: int,
    scales: Scales,
) -> Found:
    """Solve (C G C + alpha I) b = C r and predict y_mean + Z_test C b, with C the factors of the columns."""
    normal = waited.result()
    columns, factors, matrix = primal_system(candidates[0], normal, gram, scales)
    solved = solve_shifted(matrix, factors * normal.right[columns], [c.values[0] for c in candidates])
    if not (factors == 1).all():
        solved = ShiftedSolutions(solved.x * factors[:, None], solved.change * factors[:, None])
    return ridge_answers(table, fold, candidates, normal.test[:, as_slice(columns)], solved, normal.y_mean)


def primal_system(
    candidate: Candidate, normal: FoldGram, gram: SharedGram | ReadyGram, scales: Scales
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Cut the system of one candidate out of the normal equations of all bands.

    Parameters
    ----------
    candidate : Candidate
        Bands and weights.
    normal : FoldGram
        Normal equations.
    gram : SharedGram or ReadyGram
        Where they come from.
    scales : mapping of str to ColumnScale
        Of each band.

    Returns
    -------
    columns : int array of shape (n_used,)
        Positions in the normal equations of the columns that vary.
    factors : float64 array of shape (n_used,)
        What each is multiplied by.
    matrix : float64 array of shape (n_used, n_used)
        C G C.
    """
    bands = candidate.bands
    columns = gram.columns(bands)
    widths = [len(scales[band].factor) for band in bands]
    factors = np.repeat(band_factors(candidate, scales), widths)
    used = np.concatenate([scales[band].factor > 0 for band in bands])
    columns, factors = columns[used], factors[used]
    matrix = _cut_square(normal.gram, columns)
    # Most weights are 1, and a product would be one more pass over the matrix.
    if not (factors == 1).all():
        matrix *= factors
        matrix *= factors[:, None]
    return columns, factors, matrix


def _cut_square(matrix: FloatArray, chosen: IntArray) -> FloatArray:
    """Copy some rows and the same columns of a matrix: block by block, as most positions are neighbours."""
    starts = np.flatnonzero(np.diff(chosen, prepend=chosen[:1] - 2) != 1)
    if len(starts) > _MAX_RUNS:
        return np.array(matrix[np.ix_(chosen, chosen)], order="C")
    runs = [slice(int(a), int(b)) for a, b in pairwise([*starts, len(chosen)])]
    cut = np.empty((len(chosen),) * 2)
    for rows in runs:
        for columns in runs:
            cut[rows, columns] = matrix[as_slice(chosen[rows]), as_slice(chosen[columns])]
    return cut


def _dual_ridge(
    table: FoldTable,
    candidates: Sequence[Candidate],
    kernels: Kernels,
    fold: int,
    scales: Scales,
) -> Found:
    """Solve (H K H + alpha I) c = H (y - y_mean) and predict y_mean + K_test H c, with H the roots of the weights."""
    train, test = weighted_kernel(candidates[0], kernels, scales)
    root, target, y_mean = dual_system(table, fold, train)
    solved = solve_shifted(train, target, [c.values[0] for c in candidates])
    if table.fit_weight is not None:
        test = test * root
    return ridge_answers(table, fold, candidates, test, solved, y_mean)


def dual_system(table: FoldTable, fold: int, kernel: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Turn a kernel into the matrix H K H of its ridge, in place.

    Parameters
    ----------
    table : FoldTable
        Target, weights and folds.
    fold : int
        Number of the fold.
    kernel : float64 array of shape (n_train, n_train)
        Of centred rows; overwritten.

    Returns
    -------
    root : float64 array of shape (n_train,)
        Roots of the weights, the diagonal of H.
    target : float64 array of shape (n_train,)
        H (y - y_mean).
    y_mean : float
        Weighted mean of MOS.
    """
    weights, target = table.train_weights(fold), table.y[table.train_rows(fold)]
    y_mean = float(weights @ target) / float(weights.sum())
    root = np.sqrt(weights)
    if table.fit_weight is not None:
        kernel *= root
        kernel *= root[:, None]
    # A centred kernel is singular along the roots of the weights, to which the target is orthogonal. With the mean
    # eigenvalue there the solutions are the same, and small penalties no worse conditioned than the others.
    along = root * (np.trace(kernel) / (len(root) * (root @ root)))
    for start in range(0, len(kernel), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel[rows] += along[rows, None] * root
    return root, root * (target - y_mean), y_mean
