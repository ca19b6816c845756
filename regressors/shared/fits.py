"""Held-out predictions of many candidates from computations shared among them.

In each fold the candidates that differ only in their penalty share one reduction of one matrix; those that differ
in bands or band weights share the kernels or the Gram matrix that these matrices are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from joblib import delayed
from threadpoolctl import threadpool_limits

from regressors.checks import FloatArray, IntArray
from regressors.shared.candidates import Candidate
from regressors.shared.column_scale import ColumnScale, join_scales
from regressors.shared.elsewhere import (
    is_elsewhere,
    local_jobs,
    one_blas_thread,
    pieces_per_fold,
    run_elsewhere,
)
from regressors.shared.fold_table import FoldTable, as_slice
from regressors.shared.kernel_fits import (
    Found,
    Kernels,
    KernelValues,
    Scales,
    band_factors,
    fit_kernel_ridge,
    fit_support_vectors,
    kernel_values,
    ridge_answers,
    weighted_kernel,
)
from regressors.shared.memory import plan_memory
from regressors.shared.shared_gram import FoldGram, ReadyGram, SharedGram
from regressors.shared.shifted import ShiftedSolutions, solve_shifted

DOUBTFUL = 1e-9
"""Effect of rounding on predictions, in ranges of MOS, from which on no digits are promised.

A random draw of rounding errors moves predictions by less than the worst one does."""

_MAX_RUNS = 32
_ROWS = 16
_WIDTH = 1024
"""Columns whose scales one task learns."""


@dataclass
class Answers:
    """Held-out predictions by candidate.

    Attributes
    ----------
    predictions : dict of Candidate to list of float64 array, or None
        For each fold the predictions of its test rows; None where the shared computation has no answer.
    doubt : dict of Candidate to float
        Largest effect of rounding errors on the predictions that a random draw found, in ranges of MOS.
    seconds : float
        Time of the computation.
    gram : SharedGram, or None
        Of the bands that were solved by Gram matrices.
    scales : mapping of str to ColumnScale
        Of each band over all rows.
    """

    predictions: dict[Candidate, list[FloatArray | None]] = field(default_factory=dict)
    doubt: dict[Candidate, float] = field(default_factory=dict)
    seconds: float = 0.0
    gram: SharedGram | None = None
    scales: Scales = field(default_factory=dict)

    def add(self, candidate: Candidate, fold: int, predicted: FloatArray, doubt: float) -> None:
        """Note the predictions of one fold, unless they are not finite."""
        if np.isfinite(predicted).all():
            self.predictions[candidate][fold] = predicted
            self.doubt[candidate] = max(self.doubt.get(candidate, 0.0), doubt)


def answer_candidates(
    table: FoldTable,
    candidates: Iterable[Candidate],
    *,
    n_jobs: int | None = None,
    memory_limit_gb: float | None = None,
) -> Answers:
    """Predict the held-out rows of every fold by every candidate.

    Parameters
    ----------
    table : FoldTable
        Features, target, weights and folds.
    candidates : iterable of Candidate
        What to answer; repeats are answered once.
    n_jobs : int or None, default=None
        Matrices at once, in threads. Each computes with one BLAS thread: several of them inside a reduction
        were measured to be many times slower than one. Where a joblib backend that reaches beyond this machine is
        active, the folds are tasks for it instead; scales and Gram matrices, which folds share, are computed here.
    memory_limit_gb : float or None, default=None
        Gigabytes (1e9 bytes) that the computation may hold besides the table. To keep to it, folds wait for each
        other and fewer matrices are in work at once; None sets no limit. Elsewhere it limits nothing.

    Returns
    -------
    Answers

    Raises
    ------
    ValueError
        If one fold with one matrix at a time needs more memory than the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.shared.candidates import Candidate
    >>> from regressors.shared.fold_table import FoldTable
    >>> from regressors.shared.fits import answer_candidates
    >>> X = np.arange(6.0)[:, None]
    >>> table = FoldTable(X, X[:, 0], {"a": np.array([0])}, [(np.arange(4), np.array([4, 5]))])
    >>> plain = Candidate("ridge", ("a",), (1.0,), False, (1e-9,))
    >>> answer_candidates(table, [plain]).predictions[plain][0].round(6).tolist()
    [4.0, 5.0]
    """
    distinct = list(dict.fromkeys(candidates))
    answers = Answers({candidate: [None] * len(table.folds) for candidate in distinct})
    groups: dict[Candidate, list[Candidate]] = {}
    for candidate in distinct:
        key = replace(candidate, values=(), solver=())
        groups.setdefault(key, []).append(candidate)
    bands = [band for band in table.bands if any(band in group.bands for group in groups)]
    folds = range(len(table.folds))
    n_workers = local_jobs(n_jobs)
    with threadpool_limits(limits=1, user_api="blas"), ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_workers))
        try:
            *scales, answers.scales = _learn_scales(pool, table, bands)
            primal = [{key for key in groups if is_primal(key, table, fold, scales[fold])} for fold in folds]
            in_gram = [band for band in bands if any(band in key.bands for keys in primal for key in keys)]
            budget = plan_memory(table, groups, primal, in_gram, n_workers, memory_limit_gb)
            if budget.n_workers < n_workers:
                pool = stack.enter_context(ThreadPoolExecutor(budget.n_workers))
            gram = SharedGram(table, in_gram, run=pool.map, stored=budget.stores_grams) if in_gram else None
            answers.gram = gram
            if is_elsewhere():
                for fold, some in _find_elsewhere(table, groups, scales, gram, primal):
                    for candidate, predicted, doubt in some:
                        answers.add(candidate, fold, predicted, doubt)
                return answers
            found: list[tuple[int, Future[Found]]] = []
            for fold in folds:
                tasks = _submit_fold(pool, table, groups, fold, scales[fold], gram, primal[fold])
                found += [(fold, task) for task in tasks]
                if budget.folds_wait:
                    wait(tasks)
            for fold, task in found:
                for candidate, predicted, doubt in task.result():
                    answers.add(candidate, fold, predicted, doubt)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return answers


def _learn_scales(pool: Executor, table: FoldTable, bands: Sequence[str]) -> list[dict[str, ColumnScale]]:
    """Return the scales of each band in every fold, and last over all rows."""
    places = [
        (band, slice(start, min(start + _WIDTH, len(table.bands[band]))))
        for band in bands
        for start in range(0, len(table.bands[band]), _WIDTH)
    ]
    parts: dict[str, list[list[ColumnScale]]] = {band: [] for band in bands}
    for (band, _), part in zip(
        places, pool.map(lambda place: table.column_scales(*place), places), strict=True
    ):
        parts[band].append(part)
    folds = range(len(table.folds) + 1)
    return [{band: join_scales([part[fold] for part in parts[band]]) for band in bands} for fold in folds]


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


def _submit_fold(
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


def _find_elsewhere(
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    scales: Sequence[Scales],
    gram: SharedGram | None,
    primal: Sequence[Set[Candidate]],
) -> Iterator[tuple[int, Found]]:
    """Have the active joblib backend do the folds: each in as many tasks as give every thread of the cluster one."""
    n_folds = len(table.folds)
    n_pieces = pieces_per_fold(n_folds, len(groups))
    # Neighbours share bands, and with them kernels.
    pieces = [
        list(groups)[k * len(groups) // n_pieces : (k + 1) * len(groups) // n_pieces] for k in range(n_pieces)
    ]
    without = replace(table, features=np.empty((len(table.y), 0)))

    def tasks() -> Iterator[object]:
        for fold in range(n_folds):
            own = replace(without, folds=[table.folds[fold]])
            # Computed when the cluster has room for it, and held for no longer than its tasks.
            ready = gram.ready(fold, scales[fold]) if gram is not None and primal[fold] else None
            for keys in pieces:
                part = {key: groups[key] for key in keys}
                needs_table = any(key not in primal[fold] for key in keys)
                yield delayed(_find_fold)(
                    table.features if needs_table else None,
                    own,
                    part,
                    scales[fold],
                    ready if primal[fold] & part.keys() else None,
                    primal[fold],
                    task_name=f"fold {fold + 1} of {n_folds} for {_name_candidates(part)}",
                )

    for number, found in enumerate(run_elsewhere(tasks())):
        yield number // n_pieces, found


def _find_fold(
    features: FloatArray | None,
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    scales: Scales,
    gram: ReadyGram | None,
    primal: Set[Candidate],
    *,
    task_name: str,
) -> Found:
    """Do one task of `_find_elsewhere`, on whatever machine; ``task_name`` is for the messages of the backend."""
    own = table if features is None else replace(table, features=features)
    with one_blas_thread(), ThreadPoolExecutor(1) as pool:
        tasks = _submit_fold(pool, own, groups, 0, scales, gram, primal)
        return [answer for task in tasks for answer in task.result()]


def _name_candidates(groups: Mapping[Candidate, Sequence[Candidate]]) -> str:
    """Say which candidates a task has, in words."""
    n_candidates = sum(map(len, groups.values()))
    subsets = list(dict.fromkeys("+".join(key.bands) for key in groups))
    families = "/".join(dict.fromkeys(key.family for key in groups))
    others = f" and {len(subsets) - 1} other subsets of bands" if len(subsets) > 1 else ""
    return f"{n_candidates} candidates ({families} on {subsets[0]}{others})"


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
