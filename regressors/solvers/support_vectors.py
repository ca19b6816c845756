"""Support-vector regression on a kernel computed beforehand, by a compiled solver or by libsvm."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.svm import SVR

from regressors.checks import FloatArray, IntArray

_FEWEST_ROWS = 500
"""Training rows below which libsvm has ended before a compiled solver is loaded."""


class SupportVectors(NamedTuple):
    """What the solver of support-vector regression finds.

    Attributes
    ----------
    support : int array of shape (n_support,)
        Positions of the support vectors among the training rows of positive weight.
    dual : float64 array of shape (n_support,)
        Their dual coefficients.
    intercept : float
        In units of the target that the solver saw.
    n_iter : int
        Steps of the solver.
    """

    support: IntArray
    dual: FloatArray
    intercept: float
    n_iter: int

    @classmethod
    def of(cls, svr: SVR) -> SupportVectors:
        """Read them off a fitted `sklearn.svm.SVR`."""
        # libsvm counts per kernel matrix; no step is needed when all targets lie inside the tube.
        n_iter = max(1, int(np.max(svr.n_iter_)))
        return cls(svr.support_, svr.dual_coef_[0], float(svr.intercept_[0]), n_iter)


def solve_support_vectors(
    kernel: FloatArray,
    y: FloatArray,
    cost: float,
    epsilon: float,
    *,
    weights: FloatArray | None = None,
    tol: float = 1e-3,
    max_iter: float = -1,
    cache_size_mb: float = 200,
    shrinking: bool = True,
) -> SupportVectors:
    """Find the support vectors of a target on a kernel.

    Parameters
    ----------
    kernel : float64 array of shape (n, n)
        Between training rows.
    y : float64 array of shape (n,)
        What to regress on.
    cost, epsilon : float
        Largest absolute dual coefficient, and half-width of the tube without penalty.
    weights : float64 array of shape (n,), optional
        Of the rows; they multiply ``cost``.
    tol, max_iter, cache_size_mb, shrinking
        As of `sklearn.svm.SVR`.

    Returns
    -------
    SupportVectors
    """
    # A limit of steps ends in scikit-learn's own warning, a tolerance out of range in its own error.
    is_usual = len(y) >= _FEWEST_ROWS and max_iter == -1 and 0 < tol < np.inf
    solve = compiled_solver() if is_usual else None
    if solve is not None:
        costs = np.full(len(y), cost) if weights is None else cost * weights
        return solve(kernel, y, costs, epsilon, tol=tol, shrinking=shrinking)
    svr = SVR(
        kernel="precomputed",
        C=cost,
        epsilon=epsilon,
        tol=tol,
        max_iter=int(max_iter),
        cache_size=cache_size_mb,
        shrinking=shrinking,
    )
    # The kernel is finite, as the table is; looking again would read it once for each candidate.
    with config_context(assume_finite=True):
        svr.fit(kernel, y, sample_weight=weights)
    return SupportVectors.of(svr)


@lru_cache(maxsize=1)
def compiled_solver() -> Callable[..., SupportVectors] | None:
    """Return `regressors.solvers.smo.solve_svr`, ready to run; None where libsvm takes the same steps instead.

    The first call on a machine compiles it, which takes some seconds; later ones load what was compiled. There is none
    without numba, or where the disk has no room for what is compiled.
    """
    try:
        from regressors.solvers.smo import solve_svr

        solve_svr(np.eye(2), np.array([0.0, 1.0]), np.ones(2), 0.1)
    except (ImportError, OSError):
        return None
    return solve_svr
