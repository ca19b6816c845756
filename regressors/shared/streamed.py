"""Grid searches of ridges over a table that is read by blocks: the numbers of the search in memory, in a few passes.

One set of passes gives the sums behind the normal equations of every fold (`regressors.shared.row_sums`); all subsets
of bands, band weights and penalties are solved from them. A further pass over the rows that a fold tests predicts and
scores all candidates, and a last one keeps the predictions of the best. What is held besides grows with the columns,
and with the rows only by a few numbers each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from scipy.linalg import eigh
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from regressors.blocks import BlockTable
from regressors.checks import FloatArray, IntArray, Scorer
from regressors.folds import Fold
from regressors.shared.candidates import Candidate, read_candidate, why_not
from regressors.shared.column_scale import ColumnScale
from regressors.shared.filled import fill_scaler, fit_on_few
from regressors.shared.kernel_fits import band_factors
from regressors.shared.row_sums import Moments, Parts, RowSums, TargetSums
from regressors.shared.shifted import ShiftedSolutions, solve_shifted

_FEW = 0.75
"""With fewer of the columns in use than this share only these are read."""

_HELD_BYTES = 200_000_000
"""Predictions of the rows of a fold that are scored at a time."""


@dataclass(frozen=True)
class BlockSearch:
    """What a search over blocks found.

    Attributes
    ----------
    points : list of dict
        The grid in its order.
    results : dict of str to array
        ``params``, ``rank_test_score``, ``mean_test_score``, ``std_test_score`` and ``split<k>_test_score``, as in
        scikit-learn's ``cv_results_``.
    best_index : int
        Position of the best candidate.
    best_pipeline : Pipeline
        With its parameters set; not fitted.
    best_candidate : Candidate
        The same in the terms of the shared computation.
    held_out : float64 array of shape (n_rows,)
        Held-out predictions of the best candidate, the mean where several folds test a row, nan where none does.
    doubt : dict of Candidate to float
        Effect of rounding on the predictions, as in `regressors.shared.fits.Answers`.
    """

    points: list[dict[str, Any]]
    results: dict[str, Any]
    best_index: int
    best_pipeline: Pipeline
    best_candidate: Candidate
    held_out: FloatArray
    doubt: dict[Candidate, float]


class StreamedFits:
    """Ridges on a table that is read by blocks, for its folds and for all of its rows.

    Parameters
    ----------
    X : BlockTable of shape (n_rows, n_features)
        Feature table.
    y : float64 array of shape (n_rows,)
        MOS.
    folds : sequence of (train, test)
        Row positions; none repeats in one ``train``.
    weights : float64 array of shape (n_rows,), optional
        How many rows each row counts for.
    n_jobs : int or None, default=None
        Systems solved, and candidates scored, at once.

    Raises
    ------
    ValueError
        If a value is not finite, or the folds cut the rows into too many parts.
    """

    def __init__(
        self,
        X: BlockTable,
        y: FloatArray,
        folds: Sequence[Fold],
        weights: FloatArray | None = None,
        *,
        n_jobs: int | None = None,
    ) -> None:
        self.X, self.y, self.folds, self.weights = X, y, folds, weights
        self.bands = X.bands
        self._n_workers = max(1, effective_n_jobs(n_jobs))
        self._sums = self._measure()
        self._target = self._multiply()

    def _measure(self) -> RowSums:
        """Sum the rows, or take the sums of an earlier fit on the same rows, folds and weights."""
        parts = Parts.cut(self.folds, len(self.y), self.weights)
        known = self.X.shared.get("row sums")
        if isinstance(known, RowSums) and known.is_of(parts, self.weights):
            return known
        with threadpool_limits(limits=self._n_workers, user_api="blas"):
            sums = RowSums(self.X, parts, self.weights)
        self.X.shared["row sums"] = sums
        return sums

    def _multiply(self) -> TargetSums:
        """Sum the products with the target, or take those of an earlier fit."""
        known = self.X.shared.get("target sums")
        if isinstance(known, tuple) and known[0] is self._sums and np.array_equal(known[1], self.y):
            found: TargetSums = known[2]
            return found
        target = self._sums.against(self.X, self.y)
        self.X.shared["target sums"] = (self._sums, self.y, target)
        return target

    def whole(self) -> Moments:
        """Return the joint sums of all rows."""
        return self._sums.join(self._target, range(len(self._sums.parts.rows)))

    def _columns(self, bands: Sequence[str]) -> IntArray:
        return np.concatenate([self.bands[band] for band in bands])

    def search(self, searches: Sequence[GridSearchCV]) -> list[BlockSearch]:
        """Answer several searches together.

        Parameters
        ----------
        searches : sequence of GridSearchCV
            Over pipelines of `regressors.pipelines.make_pipeline` that end with a ridge.

        Returns
        -------
        list of BlockSearch

        Raises
        ------
        ValueError
            If a search is not one that can be answered by blocks.
        """
        grids = [list(ParameterGrid(search.param_grid)) for search in searches]
        read = [self._read(search, points) for search, points in zip(searches, grids, strict=True)]
        distinct = list(dict.fromkeys(candidate for row in read for candidate in row))
        solved = self._solve(distinct)
        scorers = [search.scoring for search in searches]
        tasks = [(number, candidate) for number, row in enumerate(read) for candidate in dict.fromkeys(row)]
        scores, doubt = self._score(distinct, solved, scorers, tasks)
        found = []
        for number, (search, points, row) in enumerate(zip(searches, grids, read, strict=True)):
            splits = np.array([scores[number, candidate] for candidate in row])
            results = _results(points, splits)
            best = int(np.argmin(results["rank_test_score"]))
            pipeline = clone(search.estimator).set_params(**clone(points[best], safe=False))
            found.append((points, results, best, pipeline, row))
        best_of = [row[best] for _, _, best, _, row in found]
        held_out = self._held_out(list(dict.fromkeys(best_of)), distinct, solved)
        return [
            BlockSearch(
                points, results, best, pipeline, row[best], held_out[row[best]], {c: doubt[c] for c in row}
            )
            for points, results, best, pipeline, row in found
        ]

    def _read(self, search: GridSearchCV, points: Sequence[Mapping[str, Any]]) -> list[Candidate]:
        pipeline = search.estimator
        reason = why_not(pipeline)
        if reason:
            raise ValueError(f"a table that is read by blocks cannot be searched so: {reason}.")
        defaults = pipeline.get_params()
        candidates = [
            read_candidate(pipeline, point, self.bands, has_names=True, defaults=defaults) for point in points
        ]
        for point, candidate in zip(points, candidates, strict=True):
            if candidate is None or candidate.family != "ridge":
                raise ValueError(
                    f"a table that is read by blocks takes ridges with positive penalties, got {point!r:.200}."
                )
        return [candidate for candidate in candidates if candidate is not None]

    def _solve(self, candidates: Sequence[Candidate]) -> list[_Solved]:
        """Solve every candidate in every fold; the coefficients are those of all columns as stored."""
        groups: dict[Candidate, list[int]] = {}
        for place, candidate in enumerate(candidates):
            groups.setdefault(replace(candidate, values=()), []).append(place)
        n_columns = self.X.shape[1]
        folds = []
        for fold, (train, _) in enumerate(self.folds):
            parts = self._sums.parts.trained[fold]
            if not parts:
                raise ValueError(f"fold {fold} has no training row of positive weight.")
            moments = self._sums.join(self._target, parts)
            self._refuse_wide(groups, moments)
            scales = {band: moments.scale(columns) for band, columns in self.bands.items()}
            spread = float(np.ptp(self.y[train])) or 1.0
            folds.append(
                (moments, scales, _Solved(moments.mean, moments.y_mean, spread, n_columns, len(candidates)))
            )
        tasks = [(fold, key) for fold in range(len(folds)) for key in groups]

        def solve(task: tuple[int, Candidate]) -> None:
            fold, key = task
            moments, scales, solved = folds[fold]
            places = np.array(groups[key])
            columns, factors, found = self._system(
                key, moments, scales, [candidates[k].values[0] for k in places]
            )
            solved.coefficients[np.ix_(columns, places)] = found.x * factors[:, None]
            solved.change[np.ix_(columns, places)] = found.change * factors[:, None]

        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(self._n_workers) as pool:
            list(pool.map(solve, tasks))
        return [solved for _, _, solved in folds]

    def _refuse_wide(self, groups: Mapping[Candidate, object], moments: Moments) -> None:
        widest = max(sum(len(self.bands[band]) for band in key.bands) for key in groups)
        if widest > moments.n_rows:
            raise ValueError(
                f"a table that is read by blocks must have at least as many training rows in each fold as columns, got "
                f"{moments.n_rows} and {widest}. A table with so few rows is fitted in memory: raise the memory limit."
            )

    def _system(
        self,
        key: Candidate,
        moments: Moments,
        scales: Mapping[str, ColumnScale],
        alphas: Sequence[float],
    ) -> tuple[IntArray, FloatArray, ShiftedSolutions]:
        """Solve the standardised system of some bands; return its columns and what makes them columns as stored."""
        columns = self._columns(key.bands)
        inner = np.concatenate([scales[band].factor for band in key.bands])
        widths = [len(self.bands[band]) for band in key.bands]
        factors = inner * np.repeat(band_factors(key, scales), widths)
        used = inner > 0
        columns, factors = columns[used], factors[used]
        right = factors * moments.right[columns]
        if not len(columns):
            nothing = np.zeros((0, len(alphas)))
            return columns, factors, ShiftedSolutions(nothing, nothing)

        def matrix() -> FloatArray:
            return np.array(moments.gram[np.ix_(columns, columns)] * factors * factors[:, None], order="C")

        solved = solve_shifted(matrix(), right, alphas)
        failed = np.flatnonzero(~np.isfinite(solved.x).all(axis=0))
        if len(failed):
            # Not positive definite in this precision: by the eigenvalues, as scikit-learn does then.
            values, vectors = eigh(matrix())
            for k in failed.tolist():
                solved.x[:, k] = vectors @ ((vectors.T @ right) / (np.maximum(values, 0.0) + alphas[k]))
                solved.change[:, k] = solved.x[:, k]  # no digits are promised
        return columns, factors, solved

    def _score(
        self,
        candidates: Sequence[Candidate],
        solved: Sequence[_Solved],
        scorers: Sequence[Scorer],
        tasks: Sequence[tuple[int, Candidate]],
    ) -> tuple[dict[tuple[int, Candidate], list[float]], dict[Candidate, float]]:
        """Predict the rows that each fold tests; score them for each scorer and candidate that belong together.

        Returns the scores by fold, and the effect of rounding on the predictions of each candidate.
        """
        scores: dict[tuple[int, Candidate], list[float]] = {task: [] for task in tasks}
        doubt = dict.fromkeys(candidates, 0.0)
        for fold, (_, test) in enumerate(self.folds):
            weights = {} if self.weights is None else {"sample_weight": self.weights[test]}
            at_once = max(1, _HELD_BYTES // (8 * len(test)))
            for start in range(0, len(candidates), at_once):
                chunk = {candidate: k for k, candidate in enumerate(candidates[start : start + at_once])}
                predicted, moved = self._predict(solved[fold], test, start + np.arange(len(chunk)))
                for candidate, k in chunk.items():
                    doubt[candidate] = max(doubt[candidate], float(moved[k]) / solved[fold].spread)
                here = [task for task in tasks if task[1] in chunk]
                judged = (
                    (scorers[number], predicted[chunk[candidate]], self.y[test], weights)
                    for number, candidate in here
                )
                with ThreadPoolExecutor(self._n_workers) as pool:
                    for task, score in zip(here, pool.map(_judge, judged), strict=True):
                        scores[task].append(score)
        return scores, doubt

    def _predict(self, solved: _Solved, rows: IntArray, places: IntArray) -> tuple[FloatArray, FloatArray]:
        """Predict rows by some candidates: shape (n_candidates, n_rows), and the largest effect of rounding on each."""
        both = np.hstack([solved.coefficients[:, places], solved.change[:, places]])
        table, mean = self.X, solved.mean
        used = np.flatnonzero(both.any(axis=1))
        if len(used) < _FEW * len(both):
            table, mean, both = self.X.select(list(self.X.columns[used])), mean[used], both[used]
        predicted = np.empty((len(places), len(rows)))
        moved = np.zeros(len(places))
        where = _Positions(rows)
        with threadpool_limits(limits=self._n_workers, user_api="blas"):
            for some, block in table.blocks(rows):
                block -= mean
                product = block @ both
                predicted[:, where(some)] = product[:, : len(places)].T
                np.maximum(moved, np.abs(product[:, len(places) :]).max(axis=0), out=moved)
        predicted += solved.y_mean
        return predicted, moved

    def _held_out(
        self, chosen: Sequence[Candidate], candidates: Sequence[Candidate], solved: Sequence[_Solved]
    ) -> dict[Candidate, FloatArray]:
        """Predict the rows that each fold tests by the chosen candidates alone."""
        places = np.array([candidates.index(candidate) for candidate in chosen])
        total, n_tested = np.zeros((len(chosen), len(self.y))), np.zeros(len(self.y))
        for fold, (_, test) in enumerate(self.folds):
            total[:, test] += self._predict(solved[fold], test, places)[0]
            n_tested[test] += 1
        total[:, n_tested == 0] = np.nan
        total /= np.where(n_tested > 0, n_tested, 1.0)
        return dict(zip(chosen, total, strict=True))

    def fit(self, pipeline: Pipeline, candidate: Candidate) -> Pipeline:
        """Fit a pipeline of bands, scaler and ridge on all rows.

        Parameters
        ----------
        pipeline : Pipeline
            With its parameters set; fitted in place.
        candidate : Candidate
            Its parameters.
        """
        moments = self.whole()
        scales = {band: moments.scale(self.bands[band]) for band in candidate.bands}
        columns, _, solved = self._system(candidate, moments, scales, [candidate.values[0]])
        stored = np.zeros(self.X.shape[1])
        # The ridge sees columns standardised and multiplied by the weights of their bands.
        stored[columns] = solved.x[:, 0]
        fit_on_few(pipeline, self.X, self.y)
        (_, select), (_, scale), (_, regress) = pipeline.steps
        order = np.argsort(self._columns(candidate.bands))
        fill_scaler(scale, candidate, scales, order, moments)
        regress.coef_ = stored[select.columns_]
        regress.intercept_ = np.float64(moments.y_mean)
        return pipeline


class _Solved:
    """Coefficients of all candidates in one fold."""

    def __init__(
        self, mean: FloatArray, y_mean: float, spread: float, n_columns: int, n_candidates: int
    ) -> None:
        self.mean, self.y_mean, self.spread = mean, y_mean, spread
        self.coefficients = np.zeros((n_columns, n_candidates))
        self.change = np.zeros((n_columns, n_candidates))


class _Positions:
    """Finds rows in a list of rows."""

    def __init__(self, rows: IntArray) -> None:
        self._order = np.argsort(rows, kind="stable")
        self._sorted = rows[self._order]

    def __call__(self, rows: IntArray) -> IntArray:
        return self._order[np.searchsorted(self._sorted, rows)]


class _Echo(RegressorMixin, BaseEstimator):
    """Predicts its input, so that a scorer judges predictions made elsewhere."""

    def predict(self, predictions: FloatArray) -> FloatArray:
        return predictions


def _judge(task: tuple[Scorer, FloatArray, FloatArray, Mapping[str, FloatArray]]) -> float:
    scorer, predicted, target, weights = task
    return float(scorer(_Echo(), predicted, target, **weights))


def _results(points: Sequence[Mapping[str, Any]], splits: FloatArray) -> dict[str, Any]:
    """Rank candidates as scikit-learn's search does."""
    mean = np.average(splits, axis=1)
    results: dict[str, Any] = {"params": list(points), "mean_test_score": mean}
    results["std_test_score"] = np.sqrt(np.average((splits - mean[:, None]) ** 2, axis=1))
    known = np.nan_to_num(mean, nan=np.nanmin(mean, initial=0.0) - 1.0)
    results["rank_test_score"] = rankdata(-known, method="min").astype(np.int32)
    results |= {f"split{fold}_test_score": splits[:, fold] for fold in range(splits.shape[1])}
    return results
