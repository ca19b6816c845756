"""Support-vector regression on kernels computed beforehand, one kernel for all penalties and tubes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache

import numpy as np
from sklearn import config_context
from sklearn.svm import SVR

from regressors.checks import FloatArray
from regressors.shared.candidates import Candidate
from regressors.shared.fold_table import FoldTable
from regressors.shared.kernel_fits import Found, KernelValues
from regressors.svr import SupportVectors

_FEWEST_ROWS = 500
"""Training rows below which libsvm has ended before a compiled solver is loaded."""


def fit_support_vectors(
    table: FoldTable, candidate: Candidate, kernel: Future[KernelValues], fold: int
) -> Found:
    """Fit `sklearn.svm.SVR` or `regressors.svr.UnitSVR` on one kernel.

    Parameters
    ----------
    table : FoldTable
        Target, weights and folds.
    candidate : Candidate
        What to fit.
    kernel : future of KernelValues
        Of the candidate.
    fold : int
        Number of the fold.

    Returns
    -------
    list of (Candidate, float64 array, float)
    """
    train, test = kernel.result()
    solution, (y_mean, y_scale) = solve_support_vectors(table, candidate, train, fold)
    unit = test[:, solution.support] @ solution.dual + solution.intercept
    return [(candidate, y_mean + y_scale * unit, 0.0)]


def solve_support_vectors(
    table: FoldTable, candidate: Candidate, kernel: FloatArray, fold: int
) -> tuple[SupportVectors, tuple[float, float]]:
    """Find the support vectors of one candidate.

    Parameters
    ----------
    table : FoldTable
        Target, weights and folds.
    candidate : Candidate
        Penalty, tube and settings of the solver.
    kernel : float64 array of shape (n_train, n_train)
        Between training rows.
    fold : int
        Number of the fold.

    Returns
    -------
    SupportVectors
    units : (float, float)
        Mean and unit of the target that the solver saw.
    """
    target, weights = table.y[table.train_rows(fold)], table.given_weights(fold)
    y_mean, y_scale = 0.0, 1.0
    if candidate.family == "unit-svr":
        y_mean = float(np.average(target, weights=weights))
        y_scale = float(np.sqrt(np.average((target - y_mean) ** 2, weights=weights))) or 1.0
    unit_target = (target - y_mean) / y_scale
    cost, epsilon = candidate.values[:2]
    tol, max_iter, cache_size_mb, shrinking = candidate.solver
    # A limit of steps ends in scikit-learn's own warning, a tolerance out of range in its own error.
    is_usual = len(target) >= _FEWEST_ROWS and max_iter == -1 and 0 < tol < np.inf
    solve = compiled_solver() if is_usual else None
    if solve is not None:
        costs = np.full(len(target), cost) if weights is None else cost * weights
        solution = solve(kernel, unit_target, costs, epsilon, tol=tol, shrinking=bool(shrinking))
        return solution, (y_mean, y_scale)
    svr = SVR(
        kernel="precomputed",
        C=cost,
        epsilon=epsilon,
        tol=tol,
        max_iter=int(max_iter),
        cache_size=cache_size_mb,
        shrinking=bool(shrinking),
    )
    # The kernel is finite, as the table is; looking again would read it once for each candidate.
    with config_context(assume_finite=True):
        svr.fit(kernel, unit_target, sample_weight=weights)
    return SupportVectors.of(svr), (y_mean, y_scale)


@lru_cache(maxsize=1)
def compiled_solver() -> Callable[..., SupportVectors] | None:
    """Return `regressors.shared.smo.solve_svr`, ready to run, or None where it cannot be had.

    The first call on a machine compiles it, which takes some seconds; later ones load what was compiled.

    Returns
    -------
    callable or None
        None without numba, or where the disk has no room for what is compiled; libsvm then takes the same steps.
    """
    try:
        from regressors.shared.smo import solve_svr

        solve_svr(np.eye(2), np.array([0.0, 1.0]), np.ones(2), 0.1)
    except (ImportError, OSError):
        return None
    return solve_svr
