"""All penalties of one matrix: every way solves the same equations, and the probe sees what rounding can do."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from regressors.solvers import systems
from regressors.solvers.systems import METHODS, choose_method, solve_path

ALPHAS = [1e-3, 1.0, 1e3, 1e6]


def definite(n: int, rank: int | None = None) -> np.ndarray:
    factors = np.random.default_rng(n).normal(size=(n, 2 * n if rank is None else rank))
    return factors @ factors.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 3, 32, 33, 161, 350])
def test_every_method_solves_the_equations(method: str, n: int) -> None:
    matrix, right = definite(n), np.random.default_rng(0).normal(size=n)
    solved = solve_path(matrix.copy(), right, ALPHAS, method=method)
    expected = np.column_stack([np.linalg.solve(matrix + alpha * np.eye(n), right) for alpha in ALPHAS])
    np.testing.assert_allclose(solved.x, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


def decaying(n: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of a spectrum like those of features, and a right-hand side that weak eigenvectors enter, too."""
    rng = np.random.default_rng(n)
    orthogonal = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = 1e6 * np.arange(1, n + 1) ** -power
    matrix = (orthogonal * values) @ orthogonal.T
    return (matrix + matrix.T) / 2, orthogonal @ (np.sqrt(values) * rng.normal(size=n))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_large_and_small_penalties_are_solved_on_spectra_of_features(power: float) -> None:
    matrix, right = decaying(600, power)
    alphas = list(np.logspace(-2, 6, 9))
    reference = solve_path(matrix.copy(), right, alphas, method="cholesky")
    root = np.linalg.cholesky(matrix + 1e-2 * np.eye(600)).T
    solved = solve_path(matrix.copy(), right, alphas, method="band")
    error = np.linalg.norm(root @ (solved.x - reference.x), axis=0)
    assert error.max() < 1e-8 * np.linalg.norm(root @ reference.x, axis=0).max()


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_that_a_penalty_leaves_indefinite_loses_its_negative_part_and_promises_no_digits(
    method: str,
) -> None:
    matrix = definite(30) - 50 * np.eye(30)
    solved = solve_path(matrix.copy(), np.ones(30), [1.0, 1e6], method=method)
    values, vectors = np.linalg.eigh(matrix)
    positive = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(solved.x[:, 0], np.linalg.solve(positive + np.eye(30), np.ones(30)), rtol=1e-8)
    np.testing.assert_array_equal(solved.change[:, 0], solved.x[:, 0])
    np.testing.assert_allclose(solved.x[:, 1], np.linalg.solve(matrix + 1e6 * np.eye(30), np.ones(30)))
    assert np.abs(solved.change[:, 1]).max() < 1e-15


@pytest.mark.parametrize("method", METHODS)
def test_the_probe_grows_as_the_penalty_shrinks_on_a_singular_matrix(method: str) -> None:
    matrix = definite(40, rank=10)
    solved = solve_path(matrix, np.random.default_rng(1).normal(size=40), [1e-6, 1.0], method=method)
    relative = np.abs(solved.change).max(axis=0) / np.abs(solved.x).max(axis=0)
    assert relative[0] > 1e-10
    assert relative[1] < 1e-13


def test_the_choice_follows_size_and_number() -> None:
    assert choose_method(500, 2) == "cholesky"
    assert choose_method(100, 13) == "cholesky"
    assert choose_method(4000, 13) == "band"
    with pytest.raises(ValueError, match="method must be one of"):
        solve_path(np.eye(2), np.ones(2), [1.0], method="eig")


def test_other_threads_run_meanwhile() -> None:
    matrix = definite(700)
    span, ticks = [], []

    def work() -> None:
        span.append(time.perf_counter())
        systems._Band(matrix)
        span.append(time.perf_counter())

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        ticks.append(time.perf_counter())
    start, stop = span
    # Were the interpreter's lock held, nothing at all would happen inside the span.
    assert sum(start + 0.1 * (stop - start) < tick < stop - 0.1 * (stop - start) for tick in ticks) > 10
