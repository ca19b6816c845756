"""The compiled solver of support-vector regression takes libsvm's steps."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.svm import SVR

pytest.importorskip("numba")

from regressors.checks import FloatArray
from regressors.pipelines import make_pipeline
from regressors.search import BandGridSearchCV
from regressors.solvers import systems
from regressors.solvers.smo import solve_svr
from regressors.solvers.systems import SupportVectors


def _libsvm(kernel: FloatArray, y: FloatArray, cost: float, epsilon: float, **settings: object) -> SVR:
    weight = settings.pop("weight", None)
    return SVR(kernel="precomputed", C=cost, epsilon=epsilon, **settings).fit(kernel, y, sample_weight=weight)


def _assert_same(own: SupportVectors, other: SVR, cost: float) -> None:
    assert own.n_iter == max(1, int(other.n_iter_))
    np.testing.assert_array_equal(own.support, other.support_)
    np.testing.assert_allclose(own.dual, other.dual_coef_[0], rtol=0, atol=1e-9 * cost)
    np.testing.assert_allclose(own.intercept, other.intercept_[0], rtol=0, atol=1e-9 * max(1.0, cost))


@st.composite
def _problems(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Kernels and targets with repeated rows and repeated ratings, which make ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_rows = draw(st.integers(1, 150))
    X = rng.normal(size=(n_rows, draw(st.integers(1, 6))))
    X = X[rng.integers(0, n_rows, size=n_rows)] if draw(st.booleans()) else X
    y = X[:, 0] ** 2 + rng.normal(size=n_rows) * draw(st.sampled_from([0.0, 0.3]))
    y = np.round(y, 1) if draw(st.booleans()) else y
    kernel = (
        rbf_kernel(X, gamma=draw(st.sampled_from([0.1, 1.0]))) if draw(st.booleans()) else linear_kernel(X)
    )
    return kernel, y


@settings(max_examples=60)
@given(
    _problems(),
    st.sampled_from([0.01, 1.0, 100.0]),
    st.sampled_from([0.0, 0.1, 5.0]),
    st.sampled_from([1e-1, 1e-3]),
    st.booleans(),
)
def test_the_steps_and_the_solution_are_those_of_libsvm(problem, cost, epsilon, tol, shrinking):
    kernel, y = problem
    own = solve_svr(kernel, y, np.full(len(y), cost), epsilon, tol=tol, shrinking=shrinking)
    _assert_same(own, _libsvm(kernel, y, cost, epsilon, tol=tol, shrinking=shrinking), cost)


@pytest.mark.parametrize("shrinking", [True, False])
def test_long_solutions_with_weights_are_those_of_libsvm(shrinking):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(700, 8))
    y = X[:, 0] * X[:, 1] + 0.2 * rng.normal(size=700)
    weight = rng.uniform(0.2, 3.0, size=700)
    kernel = rbf_kernel(X, gamma=0.02)
    own = solve_svr(kernel, y, 100.0 * weight, 0.05, shrinking=shrinking)
    # Long enough that variables are set aside and taken back more than once.
    assert own.n_iter > 20_000
    other = _libsvm(kernel, y, 100.0, 0.05, weight=weight, shrinking=shrinking)
    _assert_same(own, other, 100.0)


def test_targets_inside_the_tube_need_no_support_vectors():
    own = solve_svr(np.eye(3), np.array([0.0, 0.1, 0.2]), np.ones(3), 1.0)
    assert len(own.support) == len(own.dual) == 0
    assert own.n_iter == 1
    assert own.intercept == pytest.approx(
        _libsvm(np.eye(3), np.array([0.0, 0.1, 0.2]), 1.0, 1.0).intercept_[0]
    )


def _search(monkeypatch: pytest.MonkeyPatch, solver: object) -> BandGridSearchCV:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(700, 20))
    y = 50 + 10 * np.tanh(X[:, 0]) + 3 * X[:, 1] + rng.normal(size=700)
    monkeypatch.setattr(systems, "compiled_solver", lambda: solver)
    grid = {"regress__C": [1.0, 10.0], "regress__epsilon": [0.1], "regress__gamma": [0.1, 1.0]}
    return BandGridSearchCV(make_pipeline("rbf-svr"), grid, cv=4, scoring="r2").fit(X, y)


def test_a_search_gives_the_same_numbers_with_and_without_it(monkeypatch):
    n_calls = []

    def counted(*args: object, **kwargs: object) -> SupportVectors:
        n_calls.append(1)
        return solve_svr(*args, **kwargs)

    with_it, without = _search(monkeypatch, counted), _search(monkeypatch, None)
    assert len(n_calls) == 4 * 4 + 1
    assert with_it.best_params_ == without.best_params_
    for name in (f"split{k}_test_score" for k in range(4)):
        np.testing.assert_allclose(with_it.cv_results_[name], without.cv_results_[name], rtol=1e-10)


def test_libsvm_takes_over_where_numba_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "regressors.solvers.smo", None)
    systems.compiled_solver.cache_clear()
    try:
        assert systems.compiled_solver() is None
    finally:
        systems.compiled_solver.cache_clear()


def test_libsvm_takes_over_where_the_disk_has_no_room(monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regressors.solvers.smo.solve_svr", full)
    systems.compiled_solver.cache_clear()
    try:
        assert systems.compiled_solver() is None
    finally:
        systems.compiled_solver.cache_clear()
