"""Ridges on a table that is read out of core: the numbers of the search in memory, in a few passes.

One set of passes gives the sums behind the normal equations of every fold; all subsets of bands, band weights and
penalties are solved from them. A further pass over the rows that a fold tests predicts by all candidates, and a last
one by the best. What is held besides grows with the columns, and with the rows only by a few numbers each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np

from regressors.checks import FloatArray, IntArray
from regressors.solvers.in_memory import (
    Candidate,
    Groups,
    RidgeFit,
    column_weights,
    group_candidates,
    solve_normal,
)
from regressors.solvers.parallel import blas_threads, local_jobs, one_blas_thread
from regressors.solvers.sums import ALL, ColumnScale, FoldTable, measure, read_rows

# With fewer of the columns in use than this share only these are read.
_FEW = 0.75

_HELD_BYTES = 200_000_000
"""Predictions of the rows of a fold that are held at a time."""


class BlockAnswers:
    """Held-out predictions of ridges on a `regressors.blocks.BlockTable`, and fits of them on all rows.

    Parameters
    ----------
    table : FoldTable
        With a BlockTable as its features, and with one array of weights or none.
    candidates : iterable of Candidate
        What to answer: ridges alone.
    n_jobs : int or None, default=None
        Systems solved at once, in threads.

    Attributes
    ----------
    doubt : dict of Candidate to float
        As of `regressors.solvers.in_memory.MemoryAnswers`; complete when all predictions have been given.

    Raises
    ------
    ValueError
        If a value is not finite, the folds cut the rows into too many parts, or there are more columns than rows.
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
        """Return the held-out predictions of some candidates for all rows: means over folds, nan where none tests."""
        chosen = list(candidates)
        places = np.array([self._candidates.index(candidate) for candidate in chosen])
        total, n_tested = np.zeros((len(chosen), len(self._table.y))), np.zeros(len(self._table.y))
        for fold, (_, test) in enumerate(self._table.folds):
            total[:, test] += self._predict(fold, places)[0]
            n_tested[test] += 1
        total[:, n_tested == 0] = np.nan
        return dict(zip(chosen, total / np.where(n_tested > 0, n_tested, 1.0), strict=True))

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
