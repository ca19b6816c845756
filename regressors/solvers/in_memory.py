"""Held-out predictions of many candidates on a table in memory, from computations that they share.

In each fold the candidates that differ only in their penalty share one reduction of one matrix; those that differ in
bands or band weights share the kernels, or the normal equations, that these matrices are cut from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from joblib import delayed

from regressors.checks import FloatArray, IntArray
from regressors.solvers.kernels import (
    BandKernel,
    Kernels,
    band_kernel,
    dual_system,
    linear_kernel,
    unit_kernel,
)
from regressors.solvers.memory import plan_memory
from regressors.solvers.parallel import (
    blas_threads,
    is_remote,
    local_jobs,
    one_blas_thread,
    pieces_per_fold,
    run_remote,
)
from regressors.solvers.path import PathSolutions, solve_path
from regressors.solvers.sums import (
    ALL,
    ColumnScale,
    FoldTable,
    NormalEquations,
    as_slice,
    measure,
    standardised,
)
from regressors.solvers.support_vectors import SupportVectors, solve_support_vectors

# Systems of fewer unknowns are solved by one thread.
_SMALLEST_SHARED = 2500


@dataclass(frozen=True)
class Candidate:
    """One point of a grid in the terms of the solvers.

    Attributes
    ----------
    family : {"ridge", "svr", "unit-svr"}
        Kind of regressor.
    bands : tuple of str
        Bands, in the table's order.
    weights : tuple of float
        Weight of each of ``bands``.
    unit_band : bool
        Whether each band is brought to total variance 1 first.
    values : tuple of float
        (alpha,) or (C, epsilon, gamma); gamma is 0 for the linear kernel.
    solver : tuple of float
        () or (tol, max_iter, cache size in MB, whether to shrink).
    kernel : {"linear", "rbf"}
        The kernel; ridge is linear.
    """

    family: str
    bands: tuple[str, ...]
    weights: tuple[float, ...]
    unit_band: bool
    values: tuple[float, ...]
    solver: tuple[float, ...] = ()
    kernel: str = "linear"


Found = list[tuple[Candidate, FloatArray, float]]
"""Candidates with their predictions of the test rows and the effect of rounding on them, in ranges of MOS."""

Groups = Mapping[Candidate, Sequence[Candidate]]
"""Candidates that share one matrix, by what they have in common."""


class RidgeFit(NamedTuple):
    """A ridge fitted on all rows.

    Attributes
    ----------
    columns : int array of shape (n_columns,)
        Positions of its columns in the table, ascending.
    scale : ColumnScale
        Of these columns.
    weights : float64 array of shape (n_columns,)
        What the scaled columns are multiplied by.
    coef : float64 array of shape (n_columns,)
        Of the scaled and multiplied columns.
    intercept : float
        Weighted mean of MOS.
    n_seen : float
        Rows, or the sum of their weights.
    """

    columns: IntArray
    scale: ColumnScale
    weights: FloatArray
    coef: FloatArray
    intercept: float
    n_seen: float


class _Primal(NamedTuple):
    """Normal equations of one fold, and its standardised test rows of shape (n_test, n_columns)."""

    normal: NormalEquations
    test: FloatArray


def group_candidates(candidates: Iterable[Candidate]) -> dict[Candidate, list[Candidate]]:
    """Group distinct candidates by what they have in common besides their penalties."""
    groups: dict[Candidate, list[Candidate]] = {}
    for candidate in dict.fromkeys(candidates):
        groups.setdefault(replace(candidate, values=(), solver=()), []).append(candidate)
    return groups


def band_factors(candidate: Candidate, table: FoldTable, scale: ColumnScale) -> dict[str, float]:
    """Return what the standardised columns of each of a candidate's bands are multiplied by."""
    factors = {}
    for band, weight in zip(candidate.bands, candidate.weights, strict=True):
        n_varying = np.count_nonzero(scale.varies[table.bands[band]]) if candidate.unit_band else 0
        factors[band] = float(weight / np.sqrt(n_varying)) if n_varying else weight
    return factors


def column_weights(candidate: Candidate, table: FoldTable, scale: ColumnScale) -> tuple[IntArray, FloatArray]:
    """Return a candidate's columns, ascending, and what each of them is multiplied by once it is standardised."""
    every = np.zeros(len(scale.mean))
    for band, factor in band_factors(candidate, table, scale).items():
        every[table.bands[band]] = factor
    columns = np.flatnonzero(every)
    return columns, every[columns]


def solve_normal(
    candidate: Candidate,
    table: FoldTable,
    normal: NormalEquations,
    scale: ColumnScale,
    alphas: Sequence[float],
) -> tuple[IntArray, FloatArray, PathSolutions]:
    """Solve the part of the normal equations that a candidate sees, for all penalties.

    Returns
    -------
    place : int array of shape (n_used,)
        Positions of the columns that vary among those of the normal equations.
    weights : float64 array of shape (n_used,)
        What each is multiplied by.
    solved : PathSolutions
    """
    columns, weights = column_weights(candidate, table, scale)
    used = scale.factor[columns] > 0
    weights, place = weights[used], np.searchsorted(normal.columns, columns[used])
    cut = as_slice(place)
    matrix = normal.gram[cut, cut].copy() if isinstance(cut, slice) else normal.gram[np.ix_(place, place)]
    # Most weights are 1, and a product would be one more pass over the matrix.
    if (weights != 1).any():
        matrix *= weights
        matrix *= weights[:, None]
    return place, weights, solve_path(matrix, weights * normal.right[place], alphas)


def is_primal(candidate: Candidate, table: FoldTable, fold: int, scale: ColumnScale) -> bool:
    """Say whether a candidate is solved by normal equations; otherwise by a kernel."""
    # On the wrong side of the rank the small penalties lose digits: the matrix is singular without them.
    n_used = sum(int(np.count_nonzero(scale.factor[table.bands[band]])) for band in candidate.bands)
    return candidate.family == "ridge" and n_used <= len(table.train_rows(fold))


class MemoryAnswers:
    """Held-out predictions of candidates, and fits of them on all rows.

    Parameters
    ----------
    table : FoldTable
        Features in memory, target, weights and folds.
    candidates : iterable of Candidate
        What to answer; repeats are answered once.
    n_jobs : int or None, default=None
        Matrices at once, in threads of one BLAS thread each: several inside a reduction were measured to be many times
        slower than one. Where a joblib backend that reaches beyond this machine is active, the folds are tasks for it
        instead; what the folds share is computed here.
    memory_limit_gb : float or None, default=None
        Gigabytes (1e9 bytes) that the computation may hold besides the table. To keep to it, folds wait for each
        other and fewer matrices are in work at once; None sets no limit. It is for this machine, not for others.

    Attributes
    ----------
    doubt : dict of Candidate to float
        Largest effect of rounding errors on the predictions that a random draw found, in ranges of MOS.

    Raises
    ------
    ValueError
        If one fold with one matrix at a time needs more memory than the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.solvers.in_memory import Candidate, MemoryAnswers
    >>> from regressors.solvers.sums import FoldTable
    >>> X = np.arange(6.0)[:, None]
    >>> table = FoldTable(X, X[:, 0], {"a": np.array([0])}, [(np.arange(4), np.array([4, 5]))])
    >>> plain = Candidate("ridge", ("a",), (1.0,), False, (1e-9,))
    >>> next(MemoryAnswers(table, [plain]).predictions(0))[0][1].round(6).tolist()
    [4.0, 5.0]
    """

    def __init__(
        self,
        table: FoldTable,
        candidates: Iterable[Candidate],
        *,
        n_jobs: int | None = None,
        memory_limit_gb: float | None = None,
    ) -> None:
        self._table, self._n_workers = table, local_jobs(n_jobs)
        groups = group_candidates(candidates)
        self._predicted: dict[Candidate, list[FloatArray]] = {
            c: [] for group in groups.values() for c in group
        }
        self.doubt: dict[Candidate, float] = dict.fromkeys(self._predicted, 0.0)
        self._whole: NormalEquations | None = None
        with one_blas_thread(), ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self._n_workers))
            try:
                self._answer(pool, stack, groups, memory_limit_gb)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _answer(
        self, pool: ThreadPoolExecutor, stack: ExitStack, groups: Groups, memory_limit_gb: float | None
    ) -> None:
        table, folds = self._table, range(len(self._table.folds))
        self._measures = measures = measure(table, run=pool.map)
        primal = [
            {key for key in groups if is_primal(key, table, fold, measures.scales[fold])} for fold in folds
        ]
        in_gram = sorted(
            {band for keys in primal for key in keys for band in key.bands}, key=list(table.bands).index
        )
        columns = (
            np.sort(np.concatenate([table.bands[band] for band in in_gram])) if in_gram else np.empty(0, int)
        )
        plan = plan_memory(
            n_tests=[len(test) for _, test in table.folds],
            n_trains=[len(table.train_rows(fold)) for fold in folds],
            widths={band: len(places) for band, places in table.bands.items()},
            groups=[
                (key.bands, len(members), [key in keys for keys in primal]) for key, members in groups.items()
            ],
            n_gram_columns=len(columns),
            n_parts=len(measures.sums.parts.rows),
            n_workers=self._n_workers,
            limit_gb=memory_limit_gb,
        )
        if plan.n_workers < self._n_workers:
            pool = stack.enter_context(ThreadPoolExecutor(plan.n_workers))
        if len(columns):
            measures.sums.multiply(columns, run=pool.map, stored=plan.stores_products)
        if is_remote():
            for found in self._run_remote(groups, primal, 1 if plan.folds_wait else len(folds)):
                self._note(found)
            return
        tasks: list[Future[Found]] = []
        for fold in folds:
            scale, centre = measures.scales[fold], measures.centres[fold]
            prepare = (lambda fold=fold: self._primal(fold)) if primal[fold] else None
            own = submit_fold(pool, table, fold, groups, scale, centre, prepare, primal[fold])
            if plan.folds_wait:
                wait(own)
            tasks += own
        for task in tasks:
            self._note(task.result())

    def _note(self, found: Found) -> None:
        """Take the answers of one task; those of one candidate come fold by fold."""
        for candidate, predicted, doubt in found:
            self._predicted[candidate].append(predicted)
            self.doubt[candidate] = max(self.doubt[candidate], doubt)

    def _primal(self, fold: int) -> _Primal:
        table, measures = self._table, self._measures
        scale = measures.scales[fold]
        normal = measures.sums.normal(fold, measures.target, scale.factor)
        test = standardised(table, table.folds[fold][1], normal.columns, measures.centres[fold], scale)
        return _Primal(normal, test)

    def _run_remote(
        self, groups: Groups, primal: Sequence[Set[Candidate]], n_at_once: int
    ) -> Iterator[Found]:
        """Have the active joblib backend do the folds: each in as many tasks as give every thread of it one."""
        table, measures, n_folds = self._table, self._measures, len(self._table.folds)
        n_pieces, keys = pieces_per_fold(n_at_once, len(groups)), list(groups)
        # Neighbours share bands, and with them kernels.
        pieces = [keys[k * len(keys) // n_pieces : (k + 1) * len(keys) // n_pieces] for k in range(n_pieces)]

        def tasks(folds: Iterable[int]) -> Iterator[object]:
            for fold in folds:
                # Held here for no longer than it takes to send it.
                ready = self._primal(fold) if primal[fold] else None
                for piece in pieces:
                    part = {key: groups[key] for key in piece}
                    yield delayed(answer_fold)(
                        table.alone(fold, with_features=not set(piece) <= primal[fold]),
                        part,
                        measures.scales[fold],
                        measures.centres[fold],
                        ready if primal[fold] & part.keys() else None,
                        primal[fold],
                        task_name=f"fold {fold + 1} of {n_folds} for {_name_candidates(part)}",
                    )

        for start in range(0, n_folds, n_at_once):
            yield from run_remote(tasks(range(n_folds)[start : start + n_at_once]))

    def predictions(self, fold: int) -> Iterator[list[tuple[Candidate, FloatArray]]]:
        """Give the predictions of the rows that a fold tests by all candidates."""
        yield [(candidate, by_fold[fold]) for candidate, by_fold in self._predicted.items()]

    def held_out(self, candidates: Iterable[Candidate]) -> dict[Candidate, FloatArray]:
        """Return the held-out predictions of some candidates for all rows: means over folds, nan where none tests."""
        n_rows, found = len(self._table.y), {}
        for candidate in candidates:
            total, n_tested = np.zeros(n_rows), np.zeros(n_rows)
            for (_, test), predicted in zip(self._table.folds, self._predicted[candidate], strict=True):
                np.add.at(total, test, predicted)
                np.add.at(n_tested, test, 1)
            found[candidate] = np.divide(total, n_tested, out=np.full(n_rows, np.nan), where=n_tested > 0)
        return found

    def fit_ridge(self, candidate: Candidate) -> RidgeFit:
        """Fit a ridge on all rows; not where scaler and regressor have different weights."""
        table, measures = self._table, self._measures
        scale, centre, rows = measures.scales[ALL], measures.centres[ALL], table.train_rows(ALL)
        columns, weights = column_weights(candidate, table, scale)
        coef = np.zeros(len(columns))
        with blas_threads(self._n_workers if min(len(columns), len(rows)) >= _SMALLEST_SHARED else 1):
            if is_primal(candidate, table, ALL, scale):
                measures.sums.multiply(columns)
                if self._whole is None or len(self._whole.columns) < len(measures.sums.columns):
                    self._whole = measures.sums.normal(ALL, measures.target, scale.factor)
                place, _, solved = solve_normal(candidate, table, self._whole, scale, candidate.values)
                coef[np.searchsorted(columns, self._whole.columns[place])] = solved.x[:, 0]
                y_mean = self._whole.y_mean
            else:
                kernel, _ = linear_kernel(band_factors(candidate, table, scale), self._all_kernels(candidate))
                root, right, y_mean = dual_system(kernel, table.y[rows], table.train_weights(ALL))
                dual = solve_path(kernel, right, candidate.values).x[:, 0]
                dual = dual if root is None else root * dual
                for start in range(0, len(columns), 512):
                    part = slice(start, start + 512)
                    coef[part] = dual @ standardised(table, rows, columns[part], centre, scale)
                coef *= weights
        n_seen = len(rows) if table.fit_weight is None else float(table.fit_weight.sum())
        return RidgeFit(
            columns, ColumnScale(*(part[columns] for part in scale)), weights, coef, y_mean, n_seen
        )

    def fit_support_vectors(self, candidate: Candidate) -> SupportVectors:
        """Find the support vectors of a `regressors.svr.UnitSVR` on all rows."""
        factors = band_factors(candidate, self._table, self._measures.scales[ALL])
        kernel, _ = _kernel_of(
            candidate, factors, self._all_kernels(candidate), self._table.train_weights(ALL)
        )
        return _solve_svr(self._table, ALL, candidate, kernel)[0]

    def _all_kernels(self, candidate: Candidate) -> Kernels:
        scale, centre = self._measures.scales[ALL], self._measures.centres[ALL]
        with one_blas_thread(), ThreadPoolExecutor(self._n_workers) as pool:
            return {
                band: pool.submit(band_kernel, self._table, band, ALL, centre, scale)
                for band in candidate.bands
            }


def submit_fold(
    pool: Executor,
    table: FoldTable,
    fold: int,
    groups: Groups,
    scale: ColumnScale,
    centre: FloatArray,
    prepare: Callable[[], _Primal] | None,
    primal: Set[Candidate],
) -> list[Future[Found]]:
    """Queue the work of one fold: first what its candidates share, then the candidates, who wait for it.

    The queue is served in order, so that nobody waits for what has not begun, and little more than one fold is in
    memory at a time: only the waiting tasks hold what is shared. ``prepare`` makes the normal equations for the keys
    of ``groups`` in ``primal``.
    """
    tasks: list[Future[Found]] = []
    if prepare is not None:
        shared = pool.submit(prepare)
        for key in groups:
            if key in primal:
                tasks.append(pool.submit(_primal_ridge, table, fold, groups[key], shared, scale))
    dual = [key for key in groups if key not in primal]
    kernels: dict[str, Future[BandKernel]] = {
        band: pool.submit(band_kernel, table, band, fold, centre, scale)
        for band in table.bands
        if any(band in key.bands for key in dual)
    }
    for key in dual:
        own, factors = {band: kernels[band] for band in key.bands}, band_factors(key, table, scale)
        if key.family == "ridge":
            tasks.append(pool.submit(_dual_ridge, table, fold, groups[key], own, factors))
        else:
            tasks += _submit_support_vectors(pool, table, fold, groups[key], own, factors)
    return tasks


def _submit_support_vectors(
    pool: Executor,
    table: FoldTable,
    fold: int,
    candidates: Sequence[Candidate],
    kernels: Kernels,
    factors: Mapping[str, float],
) -> list[Future[Found]]:
    """Queue the candidates of each kernel one by one, each kernel while the candidates of the last are fitted."""
    by_gamma: dict[float, list[Candidate]] = {}
    for candidate in candidates:
        by_gamma.setdefault(candidate.values[-1], []).append(candidate)
    weights, tasks = table.train_weights(fold), []
    waiting: list[tuple[Sequence[Candidate], Future[tuple[FloatArray, FloatArray]]]] = []
    for members in [*by_gamma.values(), []]:
        if members:
            waiting.append((members, pool.submit(_kernel_of, members[0], factors, kernels, weights)))
        if len(waiting) == 2 or not members:
            ready, kernel = waiting.pop(0)
            tasks += [pool.submit(_support_vectors, table, fold, member, kernel) for member in ready]
    return tasks


def answer_fold(
    table: FoldTable,
    groups: Groups,
    scale: ColumnScale,
    centre: FloatArray,
    ready: _Primal | None,
    primal: Set[Candidate],
    *,
    task_name: str,
) -> Found:
    """Do a part of the work of one fold, on whatever machine; ``task_name`` is for the messages of the backend."""
    prepare = None if ready is None else lambda: ready
    with one_blas_thread(), ThreadPoolExecutor(1) as pool:
        tasks = submit_fold(pool, table, 0, groups, scale, centre, prepare, primal)
        return [answer for task in tasks for answer in task.result()]


def _primal_ridge(
    table: FoldTable, fold: int, candidates: Sequence[Candidate], shared: Future[_Primal], scale: ColumnScale
) -> Found:
    """Solve normal equations for all penalties and predict y_mean + Z_test x."""
    normal, test = shared.result()
    place, weights, solved = solve_normal(
        candidates[0], table, normal, scale, [c.values[0] for c in candidates]
    )
    both = weights[:, None] * np.hstack([solved.x, solved.change])
    return _ridge_answers(table, fold, candidates, test[:, as_slice(place)] @ both, normal.y_mean)


def _dual_ridge(
    table: FoldTable,
    fold: int,
    candidates: Sequence[Candidate],
    kernels: Kernels,
    factors: Mapping[str, float],
) -> Found:
    """Solve (H K H + alpha I) c = H (y - y_mean) and predict y_mean + K_test H c, with H the roots of the weights."""
    kernel, test = linear_kernel(factors, kernels)
    root, right, y_mean = dual_system(kernel, table.y[table.train_rows(fold)], table.train_weights(fold))
    solved = solve_path(kernel, right, [c.values[0] for c in candidates])
    both = np.hstack([solved.x, solved.change])
    return _ridge_answers(
        table, fold, candidates, test @ (both if root is None else root[:, None] * both), y_mean
    )


def _ridge_answers(
    table: FoldTable, fold: int, candidates: Sequence[Candidate], both: FloatArray, y_mean: float
) -> Found:
    """Take apart the products of the test rows with solutions and with their response to rounding."""
    predicted, moved = both[:, : len(candidates)] + y_mean, both[:, len(candidates) :]
    doubt = np.abs(moved).max(axis=0, initial=0.0) / (float(np.ptp(table.y[table.train_rows(fold)])) or 1.0)
    return [(c, predicted[:, k], float(doubt[k])) for k, c in enumerate(candidates)]


def _kernel_of(
    candidate: Candidate, factors: Mapping[str, float], kernels: Kernels, weights: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    gamma = candidate.values[-1] if candidate.kernel == "rbf" else None
    return unit_kernel(factors, kernels, gamma, weights=weights, by_variance=candidate.family == "unit-svr")


def _support_vectors(
    table: FoldTable, fold: int, candidate: Candidate, waited: Future[tuple[FloatArray, FloatArray]]
) -> Found:
    kernel, test = waited.result()
    solution, y_mean, y_scale = _solve_svr(table, fold, candidate, kernel)
    return [
        (candidate, y_mean + y_scale * (test[:, solution.support] @ solution.dual + solution.intercept), 0.0)
    ]


def _solve_svr(
    table: FoldTable, fold: int, candidate: Candidate, kernel: FloatArray
) -> tuple[SupportVectors, float, float]:
    """Find support vectors; with them the mean and the unit of the target that the solver saw."""
    y, weights = table.y[table.train_rows(fold)], table.train_weights(fold)
    y_mean, y_scale = 0.0, 1.0
    if candidate.family == "unit-svr":
        y_mean = float(np.average(y, weights=weights))
        y_scale = float(np.sqrt(np.average((y - y_mean) ** 2, weights=weights))) or 1.0
    cost, epsilon, _ = candidate.values
    tol, max_iter, cache_size_mb, shrinking = candidate.solver
    solution = solve_support_vectors(
        kernel,
        (y - y_mean) / y_scale,
        cost,
        epsilon,
        weights=weights,
        tol=tol,
        max_iter=max_iter,
        cache_size_mb=cache_size_mb,
        shrinking=bool(shrinking),
    )
    return solution, y_mean, y_scale


def _name_candidates(groups: Groups) -> str:
    """Say which candidates a task has, in words."""
    n_candidates, subsets = (
        sum(map(len, groups.values())),
        list(dict.fromkeys("+".join(key.bands) for key in groups)),
    )
    families = "/".join(dict.fromkeys(key.family for key in groups))
    others = f" and {len(subsets) - 1} other subsets of bands" if len(subsets) > 1 else ""
    return f"{n_candidates} candidates ({families} on {subsets[0]}{others})"
