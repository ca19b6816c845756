"""Fitting the best ridge on all rows from what the search has computed.

Selection, and scaling other than the plain one, are fitted by scikit-learn; the coefficients come from the Gram
matrix of all rows, that the folds were cut from, or from a kernel, computed band by band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from regressors.checks import FloatArray, IntArray, Table
from regressors.shared.candidates import Candidate
from regressors.shared.column_scale import ColumnScale
from regressors.shared.elsewhere import local_jobs
from regressors.shared.fold_fits import dual_system, is_primal, primal_system
from regressors.shared.fold_table import FoldTable
from regressors.shared.kernel_fits import Scales, band_factors
from regressors.shared.shared_gram import FoldGram, SharedGram
from regressors.shared.shifted import ShiftedSolutions, solve_shifted

# Systems of fewer unknowns are solved by one thread.
_SMALLEST_SHARED = 2500


class RidgeRefit:
    """Fits ridge candidates of a search on all rows.

    What they have in common is computed in other threads from the moment this object is made, so that it is there
    when the scores have been compared.

    Parameters
    ----------
    table : FoldTable
        Features, target and weights.
    candidates : iterable of Candidate
        Those that may be asked for.
    scales : mapping of str to ColumnScale
        Of each band over all rows.
    gram : SharedGram, or None
        Of the bands that were solved by Gram matrices.
    n_jobs : int or None, default=None
        Threads.
    """

    def __init__(
        self,
        table: FoldTable,
        candidates: Iterable[Candidate],
        scales: Scales,
        gram: SharedGram | None,
        *,
        n_jobs: int | None = None,
    ) -> None:
        self._whole, self._scales, self._gram = table.whole(), scales, gram
        self._n_workers = local_jobs(n_jobs)
        keys = list({replace(c, values=(), solver=()): None for c in candidates if can_refit(table, c)})
        asked = list(dict.fromkeys(band for key in keys for band in key.bands))
        self._limits = threadpool_limits(limits=1, user_api="blas")
        self._pool = ThreadPoolExecutor(self._n_workers)
        self._normal = self._pool.submit(self._normal_equations, keys)
        self._kernels = {band: self._pool.submit(self._kernel, band, keys) for band in asked}

    def close(self) -> None:
        """Give up what has not begun, and give BLAS its threads back."""
        self._pool.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def _normal_equations(self, keys: Sequence[Candidate]) -> FoldGram | None:
        if self._gram is None or not any(self._is_primal(key) for key in keys):
            return None
        return self._gram.whole(self._scales)

    def _is_primal(self, candidate: Candidate) -> bool:
        return is_primal(candidate, self._whole, 0, self._scales)

    def _kernel(self, band: str, keys: Sequence[Candidate]) -> FloatArray | None:
        """Return the inner products of a band's rows, if some candidate needs them."""
        if all(self._is_primal(key) for key in keys if band in key.bands):
            return None
        rows = self._rows(band)
        product: FloatArray = rows @ rows.T
        return product

    def _rows(self, band: str) -> FloatArray:
        """Return a band's standardised rows."""
        # In few wide steps: the thread that compares scores meanwhile lends the interpreter's lock rarely.
        scale = self._scales[band]
        rows, every = self._whole.train_rows(0), slice(0, len(scale.mean))
        return self._whole.standardised(band, rows, every, scale.mean, scale)

    def fit(self, pipeline: Pipeline, X: Table, y: ArrayLike, candidate: Candidate) -> Pipeline | None:
        """Fit a pipeline of bands, scaler and ridge on all rows; once only.

        Parameters
        ----------
        pipeline : Pipeline
            With its parameters set; fitted in place.
        X : data frame or float array of shape (n_rows, n_features)
            Feature table.
        y : float array of shape (n_rows,)
            MOS.
        candidate : Candidate
            The parameters of the pipeline, one of those given at the start.

        Returns
        -------
        Pipeline, or None
            None where scikit-learn must fit.
        """
        whole = self._whole
        for band in set(self._kernels) - set(candidate.bands):
            self._kernels[band].cancel()
        knows_scaler = type(pipeline.steps[1][1]) is StandardScaler and whole.scale_weight is None
        _fit_front(pipeline, X, y, whole.scale_weight, knows_scaler=knows_scaler)
        used = self._primal(candidate) if self._is_primal(candidate) else self._dual(candidate)
        if used is None or not np.isfinite(used).all():
            return None
        order = np.argsort(np.concatenate([whole.bands[band] for band in candidate.bands]))
        regress = pipeline.steps[-1][1]
        regress.coef_ = used[order]
        if knows_scaler:
            _fill_scaler(
                pipeline.steps[1][1], [self._scales[band] for band in candidate.bands], order, len(whole.y)
            )
        weights = whole.train_weights(0)
        # The scaled columns have mean zero.
        regress.intercept_ = np.float64(weights @ whole.y[whole.train_rows(0)] / weights.sum())
        return pipeline

    def _primal(self, candidate: Candidate) -> FloatArray | None:
        gram, normal = self._gram, self._normal.result()
        if gram is None or normal is None or not set(candidate.bands) <= set(gram.bands):
            return None
        columns, factors, matrix = primal_system(candidate, normal, gram, self._scales)
        solved = self._solve(matrix, factors * normal.right[columns], candidate.values)
        # The regressor sees the columns already multiplied by their factors.
        varies = np.concatenate([self._scales[band].factor > 0 for band in candidate.bands])
        coefficients = np.zeros(len(varies))
        coefficients[varies] = solved.x[:, 0]
        return coefficients

    def _dual(self, candidate: Candidate) -> FloatArray | None:
        whole, factors = self._whole, band_factors(candidate, self._scales)
        total = np.zeros((len(whole.train_rows(0)),) * 2)
        for band, factor in zip(candidate.bands, factors, strict=True):
            kernel = self._kernels[band].result()
            if kernel is None:
                return None
            total += kernel if factor == 1 else factor**2 * kernel
        root, target, _ = dual_system(whole, 0, total)
        dual = root * self._solve(total, target, candidate.values).x[:, 0]
        parts = self._pool.map(lambda band: dual @ self._rows(band), candidate.bands)
        return np.concatenate([factor * part for factor, part in zip(factors, parts, strict=True)])

    def _solve(self, matrix: FloatArray, right: FloatArray, shifts: Sequence[float]) -> ShiftedSolutions:
        # Nothing else runs now, so that BLAS may have the cores; but where there is little to do, and other programs
        # have a core, its threads wait for each other for many times what one thread takes.
        n_threads = self._n_workers if len(matrix) >= _SMALLEST_SHARED else 1
        with threadpool_limits(limits=n_threads, user_api="blas"):
            return solve_shifted(matrix, right, shifts)


def can_refit(table: FoldTable, candidate: Candidate | None) -> bool:
    """Say whether `RidgeRefit` may know how to fit a candidate.

    Parameters
    ----------
    table : FoldTable
        Scaling and weights.
    candidate : Candidate, or None
        None is what the shared computation does not know.

    Returns
    -------
    bool
    """
    # Other scalers do not centre where the ridge does.
    is_centred = table.scaling == "deviation" and table.fit_weight is table.scale_weight
    return candidate is not None and candidate.family == "ridge" and is_centred


def _fit_front(
    pipeline: Pipeline, X: Table, y: ArrayLike, weights: FloatArray | None, *, knows_scaler: bool
) -> None:
    """Fit the first two steps; two rows do for all that does not depend on the rows."""
    (_, select), (_, scale), (_, regress) = pipeline.steps
    few = X.iloc[:2] if isinstance(X, pd.DataFrame) else np.asarray(X)[:2]
    selected = select.fit_transform(few if knows_scaler else X, y)
    scale.fit(selected, y, **({} if weights is None else {"sample_weight": weights}))
    regress.fit(scale.transform(selected[:2]), np.asarray(y)[:2])


def _fill_scaler(scaler: StandardScaler, scales: Sequence[ColumnScale], order: IntArray, n_rows: int) -> None:
    """Set what the scaler learns from rows."""
    scaler.mean_ = np.concatenate([scale.mean for scale in scales])[order]
    scaler.var_ = np.concatenate([scale.variance for scale in scales])[order]
    varies = np.concatenate([scale.varies for scale in scales])[order]
    scaler.scale_ = np.where(varies, np.sqrt(scaler.var_), 1.0)
    scaler.n_samples_seen_ = type(scaler.n_samples_seen_)(n_rows)
