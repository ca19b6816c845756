"""Support-vector regression whose grid means the same on every table and every MOS scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVR
from sklearn.utils.validation import check_is_fitted, validate_data

from regressors.checks import FloatArray, Table, check_choice, check_weights

if TYPE_CHECKING:
    from regressors.solvers.systems import SupportVectors

KERNELS = ("linear", "rbf")

# Kernel values of the rows that are predicted at a time.
_MAX_VALUES = 4_000_000


class UnitSVR(RegressorMixin, BaseEstimator):
    """Epsilon support-vector regression [1]_ in units of the data.

    The target is standardised inside, and the kernel divided by the table's total variance V (the sum of its columns'
    variances), so that C, epsilon and gamma have one meaning on every table and MOS scale: ``<x - m, z - m> / V`` for
    the linear kernel, ``exp(-gamma * |x - z| ** 2 / V)`` for "rbf".

    Parameters
    ----------
    kernel : {"linear", "rbf"}, default="rbf"
    C : float, default=1.0
        Largest absolute dual coefficient, in standard deviations of MOS; positive.
    epsilon : float, default=0.1
        Half-width of the tube without penalty, in standard deviations of MOS; not negative.
    gamma : float, default=1.0
        Inverse width of the RBF kernel; positive. 1 is what scikit-learn calls "scale".
    tol : float, default=1e-3
        Tolerance of the solver's stopping rule.
    max_iter : int, default=-1
        Limit of the solver's steps; -1 for none.
    cache_size_mb : float, default=200
        Memory for kernel values.

    Attributes
    ----------
    support_ : int array of shape (n_support,)
        Positions of the support vectors among the training rows of positive weight.
    support_vectors_ : float64 array of shape (n_support, n_features_in_)
        (x - m) / sqrt(V) of each.
    dual_coef_, intercept_ : float64 array of shape (n_support,), float
        Of the support vectors, for the standardised target.
    y_mean_, y_scale_ : float
        Weighted mean and standard deviation of MOS; the deviation is 1 for a constant MOS.
    x_mean_, total_variance_ : float64 array of shape (n_features_in_,), float
        Weighted means of the columns, and V above; 1 when all columns are constant.
    n_iter_ : int
        Steps of the solver, at least 1.

    References
    ----------
    .. [1] A. Smola and B. Schoelkopf, "A tutorial on support vector regression", Statistics and Computing
       14, 2004.
    """

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        C: float = 1.0,
        epsilon: float = 0.1,
        gamma: float = 1.0,
        tol: float = 1e-3,
        max_iter: int = -1,
        cache_size_mb: float = 200,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.epsilon = epsilon
        self.gamma = gamma
        self.tol = tol
        self.max_iter = max_iter
        self.cache_size_mb = cache_size_mb

    def fit(self, X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None) -> UnitSVR:
        """Fit the regressor.

        Parameters
        ----------
        X : float array or data frame of shape (n_rows, n_features)
            Features, standardised or at least on comparable scales.
        y : float array of shape (n_rows,)
            MOS on any scale.
        sample_weight : float array of shape (n_rows,), optional
            How many rows each row counts for; rows of weight zero are left out.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the data are not admissible.
        """
        return self._fit(X, y, sample_weight, None)

    def fit_solved(
        self, X: Table, y: ArrayLike, solution: SupportVectors, sample_weight: ArrayLike | None = None
    ) -> UnitSVR:
        """Fit the regressor by a solution found elsewhere for the same rows, kernel and parameters."""
        return self._fit(X, y, sample_weight, solution)

    def _fit(
        self, X: Table, y: ArrayLike, sample_weight: ArrayLike | None, solution: SupportVectors | None
    ) -> UnitSVR:
        check_choice("UnitSVR", "kernel", self.kernel, KERNELS)
        for name, value in (("C", self.C), ("gamma", self.gamma)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"UnitSVR: {name} must be positive and finite, got {value!r}.")
        if not (np.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(
                f"UnitSVR: epsilon must be non-negative and finite, got {self.epsilon!r}. "
                "It counts standard deviations of MOS."
            )
        X, mos = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        mos = np.asarray(mos, dtype=np.float64)
        weights = None
        if sample_weight is not None:
            weights = check_weights("UnitSVR", sample_weight, len(mos))
            X, mos, weights = X[weights > 0], mos[weights > 0], weights[weights > 0]
        self.y_mean_ = float(np.average(mos, weights=weights))
        deviation = float(np.sqrt(np.average((mos - self.y_mean_) ** 2, weights=weights)))
        self.y_scale_ = deviation if deviation > 0 else 1.0
        self.x_mean_ = np.average(X, axis=0, weights=weights)
        total = float(np.sum(np.average((X - self.x_mean_) ** 2, axis=0, weights=weights)))
        self.total_variance_ = total if total > 0 else 1.0
        if solution is None:
            svr = SVR(
                kernel=self.kernel,
                C=self.C,
                epsilon=self.epsilon,
                gamma=self.gamma,
                tol=self.tol,
                max_iter=self.max_iter,
                cache_size=self.cache_size_mb,
            )
            svr.fit(self._scale(X), (mos - self.y_mean_) / self.y_scale_, sample_weight=weights)
            from regressors.solvers.systems import SupportVectors  # not for a regressor that only predicts

            solution = SupportVectors.of(svr)
        self.support_, self.dual_coef_, self.intercept_, self.n_iter_ = solution
        self.support_vectors_ = self._scale(X[self.support_])
        return self

    @classmethod
    def holding(cls, svr: SVR) -> UnitSVR:
        """Hold a fitted `sklearn.svm.SVR` with an RBF kernel of a given width, whose units are those of its data."""
        from regressors.solvers.systems import SupportVectors

        held = cls(kernel="rbf", C=svr.C, epsilon=svr.epsilon, gamma=svr.gamma)
        held.n_features_in_ = svr.n_features_in_
        held.y_mean_, held.y_scale_, held.total_variance_ = 0.0, 1.0, 1.0
        held.x_mean_ = np.zeros(svr.n_features_in_)
        held.support_, held.dual_coef_, held.intercept_, held.n_iter_ = SupportVectors.of(svr)
        held.support_vectors_ = np.asarray(svr.support_vectors_, dtype=np.float64)
        return held

    def predict(self, X: Table) -> FloatArray:
        """Predict MOS, shape (n_rows,), on the scale seen in `fit`.

        A ValueError if the columns differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        unit = np.full(len(X), self.intercept_)
        n_support = len(self.support_)
        step = max(1, _MAX_VALUES // max(1, n_support))
        for start in range(0, len(X) if n_support else 0, step):
            rows = self._scale(X[start : start + step])
            unit[start : start + step] += self._kernel(rows) @ self.dual_coef_
        predicted: FloatArray = self.y_mean_ + self.y_scale_ * unit
        return predicted

    def _kernel(self, rows: FloatArray) -> FloatArray:
        if self.kernel == "linear":
            product: FloatArray = rows @ self.support_vectors_.T
            return product
        return rbf_kernel(rows, self.support_vectors_, gamma=self.gamma)

    def _scale(self, X: FloatArray) -> FloatArray:
        # With x / sqrt(V) scikit-learn's own kernels are those of the class docstring.
        scaled: FloatArray = (X - self.x_mean_) / np.sqrt(self.total_variance_)
        return scaled
