"""Fitting the best ridge on all rows from what the search has computed.

Selection, and scaling other than the plain one, are fitted by scikit-learn; the coefficients come from the Gram
matrix of all rows, that the folds were cut from, or from a kernel, computed band by band.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from regressors.checks import FloatArray, IntArray, Table
from regressors.shared.candidates import Candidate
from regressors.shared.fits import dual_system, is_primal, primal_system
from regressors.shared.fold_table import ColumnScale, FoldTable, SharedGram
from regressors.shared.kernel_fits import Scales, band_factors
from regressors.shared.shifted import solve_shifted


def refit_ridge(
    pipeline: Pipeline,
    X: Table,
    y: ArrayLike,
    table: FoldTable,
    candidate: Candidate,
    gram: SharedGram | None,
    *,
    n_jobs: int | None = None,
) -> Pipeline | None:
    """Fit a pipeline of bands, scaler and ridge on all rows.

    Parameters
    ----------
    pipeline : Pipeline
        With its parameters set; fitted in place.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    table : FoldTable
        The same features, target and weights.
    candidate : Candidate
        The parameters of the pipeline.
    gram : SharedGram, or None
        Of the bands that were solved by Gram matrices.
    n_jobs : int or None, default=None
        Threads.

    Returns
    -------
    Pipeline, or None
        None where scikit-learn must fit.
    """
    # Other scalers do not centre where the ridge does.
    if (
        candidate.family != "ridge"
        or table.scaling != "deviation"
        or table.fit_weight is not table.scale_weight
    ):
        return None
    whole = table.whole()
    n_workers = max(1, effective_n_jobs(n_jobs))
    bands = list(dict.fromkeys([*candidate.bands, *(gram.bands if gram is not None else ())]))
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(n_workers) as pool:
        waited = {band: pool.submit(whole.column_scale, band, 0) for band in bands}
        # In this thread, because scikit-learn's settings belong to threads.
        knows_scaler = type(pipeline.steps[1][1]) is StandardScaler and table.scale_weight is None
        _fit_front(pipeline, X, y, table.scale_weight, knows_scaler=knows_scaler)
        scales = {band: scale.result() for band, scale in waited.items()}
        parts: list[tuple[FloatArray, FloatArray]] = []
        if not is_primal(candidate, whole, 0, scales):
            parts = list(pool.map(lambda band: _inner_products(whole, band, scales), candidate.bands))
    # Nothing else runs now, so that BLAS may have the cores.
    with threadpool_limits(limits=n_workers, user_api="blas"):
        if parts:
            used = _dual(whole, candidate, scales, parts)
        elif gram is not None and set(candidate.bands) <= set(gram.bands):
            used = _primal(candidate, scales, gram)
        else:
            return None
    if not np.isfinite(used).all():
        return None
    order = np.argsort(np.concatenate([table.bands[band] for band in candidate.bands]))
    varies = np.concatenate([scales[band].factor > 0 for band in candidate.bands])
    coefficients = np.zeros(len(order))
    coefficients[varies] = used
    regress = pipeline.steps[-1][1]
    regress.coef_ = coefficients[order]
    if knows_scaler:
        _fill_scaler(pipeline.steps[1][1], [scales[band] for band in candidate.bands], order, len(table.y))
    weights = whole.train_weights(0)
    # The scaled columns have mean zero.
    regress.intercept_ = np.float64(weights @ table.y[whole.train_rows(0)] / weights.sum())
    return pipeline


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
    """Set what the scaler learns from rows; the way it was computed is the scaler's own."""
    scaler.mean_ = np.concatenate([scale.mean for scale in scales])[order]
    scaler.var_ = np.concatenate([scale.variance for scale in scales])[order]
    varies = np.concatenate([scale.varies for scale in scales])[order]
    scaler.scale_ = np.where(varies, np.sqrt(scaler.var_), 1.0)
    scaler.n_samples_seen_ = type(scaler.n_samples_seen_)(n_rows)


def _primal(candidate: Candidate, scales: Scales, gram: SharedGram) -> FloatArray:
    normal = gram.whole(scales)
    columns, factors, matrix = primal_system(candidate, normal, gram, scales)
    return solve_shifted(matrix, factors * normal.right[columns], candidate.values).x[:, 0]


def _inner_products(whole: FoldTable, band: str, scales: Scales) -> tuple[FloatArray, FloatArray]:
    rows, _, _ = whole.standardised(band, 0, scales[band])
    return rows, rows @ rows.T


def _dual(
    whole: FoldTable, candidate: Candidate, scales: Scales, parts: Sequence[tuple[FloatArray, FloatArray]]
) -> FloatArray:
    factors = band_factors(candidate, scales)
    kernel = np.zeros((len(whole.train_rows(0)),) * 2)
    for (_, product), factor in zip(parts, factors, strict=True):
        product *= factor**2
        kernel += product
    root, target, _ = dual_system(whole, 0, kernel)
    dual = root * solve_shifted(kernel, target, candidate.values).x[:, 0]
    return np.concatenate([factor * (dual @ rows) for (rows, _), factor in zip(parts, factors, strict=True)])
