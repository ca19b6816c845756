"""Fitting the best support-vector regressor on all rows from a kernel computed band by band.

libsvm computes each kernel value by itself, from all columns; products of matrices do so many times faster.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from regressors.checks import Table
from regressors.shared.candidates import Candidate
from regressors.shared.elsewhere import local_jobs
from regressors.shared.fold_table import FoldTable
from regressors.shared.kernel_fits import Scales, kernel_values
from regressors.shared.support_vectors import solve_support_vectors


def refit_support_vectors(
    pipeline: Pipeline,
    X: Table,
    y: ArrayLike,
    candidate: Candidate,
    table: FoldTable,
    scales: Scales,
    *,
    n_jobs: int | None = None,
) -> Pipeline:
    """Fit a pipeline of bands, scaler and `regressors.svr.UnitSVR` on all rows.

    Parameters
    ----------
    pipeline : Pipeline
        With its parameters set; fitted in place.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    candidate : Candidate
        The parameters of the pipeline.
    table : FoldTable
        The same features and target, and the weights.
    scales : mapping of str to ColumnScale
        Of each band over all rows.
    n_jobs : int or None, default=None
        Threads.

    Returns
    -------
    Pipeline
    """
    whole = table.whole()
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(local_jobs(n_jobs)) as pool,
    ):
        kernels = {
            band: pool.submit(whole.kernel, band, 0, scales[band]) for band in dict.fromkeys(candidate.bands)
        }
        values = kernel_values(whole, candidate, kernels, 0, scales)
    kernels.clear()
    solution, _ = solve_support_vectors(whole, candidate, values.train, 0)
    (_, select), (_, scale), (_, regress) = pipeline.steps
    own = {} if whole.scale_weight is None else {"sample_weight": whole.scale_weight}
    selected = select.fit_transform(X, y)
    scaled = scale.fit(selected, y, **own).transform(selected)
    regress.fit_solved(scaled, np.asarray(y), solution, whole.fit_weight)
    return pipeline


def can_refit_kernel(candidate: Candidate) -> bool:
    """Say whether `refit_support_vectors` knows how to fit a candidate.

    Parameters
    ----------
    candidate : Candidate

    Returns
    -------
    bool
    """
    return candidate.family == "unit-svr"
