"""Held-out predictions of many candidates, and fits on all rows, from computations that they share.

In each fold the candidates that differ only in their penalty share one reduction of one matrix; those that differ in
bands or band weights share the kernels, or the normal equations, that these matrices are cut from. A table that is read
out of core gives the same numbers in a few passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from joblib import delayed

from regressors.checks import FloatArray, IntArray
from regressors.solvers.resources import (
    blas_threads,
    is_remote,
    local_jobs,
    one_blas_thread,
    pieces_per_fold,
    run_remote,
)
from regressors.solvers.sums import (
    ALL,
    ColumnScale,
    FoldTable,
    NormalEquations,
    as_slice,
    measure,
    read_rows,
    standardised,
)
from regressors.solvers.systems import (
    BandKernel,
    Kernels,
    PathSolutions,
    SupportVectors,
    band_kernel,
    dual_system,
    linear_kernel,
    solve_path,
    solve_support_vectors,
    unit_kernel,
)

# Systems of fewer unknowns are solved by one thread.
_SMALLEST_SHARED = 2500
_STORED_BYTES = 1_000_000_000
"""Products of columns up to this size are kept for all folds."""


@dataclass(frozen=True)
class Candidate:
    """One point of a grid in the terms of the solvers.

    Attributes
    ----------
    family : {"ridge", "svr", "unit-svr"}
        Kind of regressor.
    bands, weights : tuple of str, tuple of float
        Bands in the table's order, and the weight of each.
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
    """A ridge fitted on all rows; the coefficients are of the scaled and weighted columns."""

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

    Returns the positions of the columns that vary among those of the equations, what each is multiplied by, the
    solutions.
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
    """Held-out predictions of candidates on a table in memory, and fits of them on all rows.

    Threads have one BLAS thread each: several inside a reduction were measured to be many times slower than one.
    Where a joblib backend that reaches beyond this machine is active, the folds are tasks for it. ``doubt`` is the
    largest effect of rounding errors on the predictions that a random draw found, in ranges of MOS.
    """

    def __init__(
        self, table: FoldTable, candidates: Iterable[Candidate], *, n_jobs: int | None = None
    ) -> None:
        self._table, self._n_workers = table, local_jobs(n_jobs)
        groups = group_candidates(candidates)
        self._predicted: dict[Candidate, list[FloatArray]] = {
            c: [] for group in groups.values() for c in group
        }
        self.doubt: dict[Candidate, float] = dict.fromkeys(self._predicted, 0.0)
        self._whole: NormalEquations | None = None
        with one_blas_thread(), ThreadPoolExecutor(self._n_workers) as pool:
            try:
                self._answer(pool, groups)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _answer(self, pool: ThreadPoolExecutor, groups: Groups) -> None:
        table, folds = self._table, range(len(self._table.folds))
        self._measures = measures = measure(table, run=pool.map)
        primal = [
            {key for key in groups if is_primal(key, table, fold, measures.scales[fold])} for fold in folds
        ]
        in_gram = {band for keys in primal for key in keys for band in key.bands}
        if in_gram:
            columns = np.sort(np.concatenate([table.bands[band] for band in in_gram]))
            n_bytes = 8 * len(measures.sums.parts.rows) * len(columns) ** 2
            measures.sums.multiply(columns, run=pool.map, stored=n_bytes <= _STORED_BYTES)
        if is_remote():
            for found in self._run_remote(groups, primal):
                self._note(found)
            return
        tasks: list[Future[Found]] = []
        for fold in folds:
            scale, centre = measures.scales[fold], measures.centres[fold]
            prepare = (lambda fold=fold: self._primal(fold)) if primal[fold] else None
            tasks += submit_fold(pool, table, fold, groups, scale, centre, prepare, primal[fold])
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

    def _run_remote(self, groups: Groups, primal: Sequence[Set[Candidate]]) -> list[Found]:
        """Have the active joblib backend do the folds: each in as many tasks as give every thread of it one."""
        table, measures, n_folds = self._table, self._measures, len(self._table.folds)
        n_pieces, keys = pieces_per_fold(n_folds, len(groups)), list(groups)
        # Neighbours share bands, and with them kernels.
        pieces = [keys[k * len(keys) // n_pieces : (k + 1) * len(keys) // n_pieces] for k in range(n_pieces)]

        def tasks() -> Iterator[object]:
            for fold in range(n_folds):
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

        return run_remote(tasks())

    def predictions(self, fold: int) -> Iterator[list[tuple[Candidate, FloatArray]]]:
        """Give the predictions of the rows that a fold tests by all candidates."""
        yield [(candidate, by_fold[fold]) for candidate, by_fold in self._predicted.items()]

    def held_out(self, candidates: Iterable[Candidate]) -> dict[Candidate, FloatArray]:
        """Return the held-out predictions of some candidates for all rows: means over folds, nan where none tests."""
        chosen = list(candidates)
        return _join_folds(
            self._table, chosen, lambda fold: np.array([self._predicted[c][fold] for c in chosen])
        )

    def fit_ridge(self, candidate: Candidate) -> RidgeFit:
        """Fit a ridge on all rows; not where the scaler does not centre."""
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
        n_seen = len(rows) if table.weight is None else float(table.weight.sum())
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
    memory at a time. ``prepare`` makes the normal equations for the keys of ``groups`` in ``primal``.
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
            by_gamma: dict[float, list[Candidate]] = {}
            for candidate in groups[key]:
                by_gamma.setdefault(candidate.values[-1], []).append(candidate)
            weights = table.train_weights(fold)
            for members in by_gamma.values():
                kernel = pool.submit(_kernel_of, members[0], factors, own, weights)
                tasks += [pool.submit(_support_vectors, table, fold, member, kernel) for member in members]
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
    subsets = list(dict.fromkeys("+".join(key.bands) for key in groups))
    families = "/".join(dict.fromkeys(key.family for key in groups))
    others = f" and {len(subsets) - 1} other subsets of bands" if len(subsets) > 1 else ""
    return f"{sum(map(len, groups.values()))} candidates ({families} on {subsets[0]}{others})"


def _join_folds(
    table: FoldTable, candidates: Sequence[Candidate], predict: Callable[[int], FloatArray]
) -> dict[Candidate, FloatArray]:
    """Average predictions of shape (n_candidates, n_test) over the folds that test a row; nan where none does."""
    total, n_tested = np.zeros((len(table.y), len(candidates))), np.zeros(len(table.y))
    for fold, (_, test) in enumerate(table.folds):
        np.add.at(total, test, predict(fold).T)
        np.add.at(n_tested, test, 1)
    total[n_tested == 0] = np.nan
    total /= np.maximum(n_tested, 1)[:, None]
    return dict(zip(candidates, total.T, strict=True))


# With fewer of the columns in use than this share only these are read.
_FEW = 0.75

_HELD_BYTES = 200_000_000
"""Predictions of the rows of a fold that are held at a time."""


class BlockAnswers:
    """Held-out predictions of ridges on a `regressors.bands.BlockTable`, and fits of them on all rows.

    One set of passes gives the sums behind the normal equations of every fold; another over the rows that a fold tests
    predicts by all candidates. ``doubt`` is complete when all predictions have been given.
    """

    def __init__(
        self, table: FoldTable, candidates: Iterable[Candidate], *, n_jobs: int | None = None
    ) -> None:
        self._table, self._n_workers = table, local_jobs(n_jobs)
        groups = group_candidates(candidates)
        self._candidates = [candidate for members in groups.values() for candidate in members]
        self.doubt: dict[Candidate, float] = dict.fromkeys(self._candidates, 0.0)
        n_folds = len(table.folds)
        widest = max(sum(len(table.bands[band]) for band in key.bands) for key in groups)
        n_fewest = min(len(table.train_rows(fold)) for fold in range(n_folds))
        if widest > n_fewest:
            raise ValueError(
                f"a table that is read by blocks must have at least as many training rows in each fold as columns, got "
                f"{n_fewest} and {widest}. A table with so few rows is fitted in memory: raise the memory limit."
            )
        # The coefficients of all columns as stored, and their response to rounding.
        self._solved = np.zeros((n_folds, 2, table.features.shape[1], len(self._candidates)))
        with one_blas_thread(), ThreadPoolExecutor(self._n_workers) as pool:
            self._measures = measure(table, run=pool.map)
            for fold in range(n_folds):
                self._solve(fold, groups, pool)

    def _solve(self, fold: int, groups: Groups, pool: Executor) -> None:
        scale = self._measures.scales[fold]
        normal = self._measures.sums.normal(fold, self._measures.target, scale.factor)

        def solve(key: Candidate, start: int) -> None:
            alphas = [candidate.values[0] for candidate in groups[key]]
            place, weights, solved = solve_normal(key, self._table, normal, scale, alphas)
            factors = (weights * scale.factor[place])[:, None]
            for side, values in enumerate(solved):
                self._solved[fold, side, place, start : start + len(alphas)] = values * factors

        starts = np.cumsum([0, *map(len, groups.values())])[:-1]
        list(pool.map(solve, groups, starts.tolist()))

    def _predict(self, fold: int, places: IntArray) -> tuple[FloatArray, FloatArray]:
        """Predict the test rows of a fold: shape (n_candidates, n_rows), and the largest effect of rounding on each."""
        table, rows = self._table, self._table.folds[fold][1]
        both = np.hstack([self._solved[fold, 0][:, places], self._solved[fold, 1][:, places]])
        used = np.flatnonzero(both.any(axis=1))
        columns = used if len(used) < _FEW * len(both) else None
        mean = self._measures.centres[fold]
        if columns is not None:
            mean, both = mean[columns], both[columns]
        predicted, moved = np.empty((len(places), len(rows))), np.zeros(len(places))
        order = np.argsort(rows, kind="stable")
        with blas_threads(self._n_workers):
            for some, block in read_rows(table.features, rows, columns):
                block -= mean
                product = block @ both
                predicted[:, order[np.searchsorted(rows, some, sorter=order)]] = product[:, : len(places)].T
                np.maximum(moved, np.abs(product[:, len(places) :]).max(axis=0), out=moved)
        predicted += float(np.average(table.y[table.train_rows(fold)], weights=table.train_weights(fold)))
        return predicted, moved

    def predictions(self, fold: int) -> Iterator[list[tuple[Candidate, FloatArray]]]:
        """Give the predictions of the rows that a fold tests, as many candidates at a time as memory allows."""
        train, test = self._table.folds[fold]
        at_once, spread = max(1, _HELD_BYTES // (8 * len(test))), float(np.ptp(self._table.y[train])) or 1.0
        for start in range(0, len(self._candidates), at_once):
            chunk = self._candidates[start : start + at_once]
            predicted, moved = self._predict(fold, start + np.arange(len(chunk)))
            for candidate, change in zip(chunk, moved / spread, strict=True):
                self.doubt[candidate] = max(self.doubt[candidate], float(change))
            yield list(zip(chunk, predicted, strict=True))

    def held_out(self, candidates: Iterable[Candidate]) -> dict[Candidate, FloatArray]:
        """As of `MemoryAnswers`."""
        chosen = list(candidates)
        places = np.array([self._candidates.index(candidate) for candidate in chosen])
        return _join_folds(self._table, chosen, lambda fold: self._predict(fold, places)[0])

    def fit_ridge(self, candidate: Candidate) -> RidgeFit:
        """Fit a ridge on all rows."""
        table, measures = self._table, self._measures
        scale = measures.scales[ALL]
        columns, weights = column_weights(candidate, table, scale)
        coef = np.zeros(len(columns))
        with one_blas_thread():
            normal = measures.sums.normal(ALL, measures.target, scale.factor)
            place, _, solved = solve_normal(candidate, table, normal, scale, candidate.values)
        coef[np.searchsorted(columns, place)] = solved.x[:, 0]
        own = ColumnScale(*(part[columns] for part in scale))
        return RidgeFit(columns, own, weights, coef, normal.y_mean, float(measures.sums.total.sum()))
