"""The routines called through ctypes: true, at home inside larger matrices, and leaving other threads free."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import scipy.linalg

from regressors.shared import lapack


def definite(n: int) -> np.ndarray:
    factors = np.random.default_rng(n).normal(size=(n, n + 3))
    return np.asfortranarray(factors @ factors.T)


def part_of_larger(matrix: np.ndarray) -> np.ndarray:
    larger = np.full((len(matrix) + 5, matrix.shape[1] + 4), np.nan, order="F")
    larger[3:-2, 2:-2] = matrix
    return larger[3:-2, 2:-2]


def test_the_routines_are_there() -> None:
    assert lapack.is_available()


@pytest.mark.parametrize("n", [1, 2, 30])
def test_cholesky(n: int) -> None:
    matrix, right = definite(n), np.random.default_rng(0).normal(size=n)
    factor = part_of_larger(matrix)
    assert lapack.cholesky(factor)
    np.testing.assert_allclose(
        lapack.solve_cholesky(factor, right), np.linalg.solve(matrix, right), rtol=1e-8
    )
    several = np.asfortranarray(np.column_stack([right, right + 1]))
    np.testing.assert_allclose(
        lapack.solve_cholesky(factor, several), np.linalg.solve(matrix, several), rtol=1e-8
    )
    assert not lapack.cholesky(np.asfortranarray(-matrix))


@pytest.mark.parametrize("shape", [(1,), (30,), (30, 1), (30, 4)])
def test_symmetric_products_read_the_upper_triangle_alone(shape: tuple[int, ...]) -> None:
    matrix = definite(shape[0])
    upper = part_of_larger(np.asfortranarray(np.triu(matrix)))
    vectors = np.asfortranarray(np.random.default_rng(0).normal(size=shape))
    np.testing.assert_allclose(lapack.multiply_symmetric(upper, vectors), matrix @ vectors, rtol=1e-11)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_tridiagonal_form(n: int) -> None:
    matrix, right = definite(n), np.random.default_rng(0).normal(size=n)
    reduced = part_of_larger(matrix)
    diagonal, off, factors = lapack.tridiagonalise(reduced)
    tridiagonal = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    orthogonal = lapack.rotate_tridiagonal(reduced, factors, np.eye(n), transposed=False)
    np.testing.assert_allclose(orthogonal @ tridiagonal @ orthogonal.T, matrix, atol=1e-12 * np.trace(matrix))
    back = lapack.rotate_tridiagonal(reduced, factors, orthogonal, transposed=True)
    np.testing.assert_allclose(back, np.eye(n), atol=1e-13)
    solution = lapack.solve_tridiagonal(diagonal, off, right)
    np.testing.assert_allclose(solution, np.linalg.solve(tridiagonal, right), rtol=1e-8)
    assert lapack.solve_tridiagonal(-diagonal, off, right) is None


@pytest.mark.parametrize(("n", "width"), [(4, 0), (20, 1), (20, 7)])
def test_band_systems(n: int, width: int) -> None:
    matrix = np.tril(np.triu(definite(n), -width), width) + n**2 * np.eye(n)
    band = np.zeros((width + 1, n), order="F")
    for below in range(width + 1):
        band[below, : n - below] = np.diagonal(matrix, -below)
    right = np.arange(1.0, n + 1)
    factor = band.copy("F")
    assert lapack.factorise_band(factor)
    np.testing.assert_allclose(lapack.solve_band(factor, right), np.linalg.solve(matrix, right))
    band[0] *= -1
    assert not lapack.factorise_band(band)


@pytest.mark.parametrize("shape", [(1, 1), (9, 4), (40, 40)])
def test_panels(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape)
    panel = part_of_larger(matrix)
    t = lapack.factorise_panel(panel)
    v = np.tril(panel, -1)
    np.fill_diagonal(v, 1.0)
    orthogonal = np.eye(shape[0]) - v @ t @ v.T
    np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(shape[0]), atol=1e-13)
    np.testing.assert_allclose(orthogonal[:, : shape[1]] @ np.triu(panel[: shape[1]]), matrix, atol=1e-13)


def test_rank_two_updates_touch_the_lower_triangle_alone() -> None:
    matrix = definite(12)
    v, w = (np.asfortranarray(np.random.default_rng(k).normal(size=(12, 3))) for k in (1, 2))
    updated = part_of_larger(matrix)
    lapack.subtract_rank_two(updated, v, w)
    np.testing.assert_allclose(np.tril(updated), np.tril(matrix - v @ w.T - w @ v.T), atol=1e-12)
    np.testing.assert_array_equal(np.triu(updated, 1), np.triu(matrix, 1))


def test_other_threads_run_meanwhile() -> None:
    matrix = definite(900)
    span, ticks = [], []

    def work() -> None:
        span.append(time.perf_counter())
        lapack.tridiagonalise(matrix)
        span.append(time.perf_counter())

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        ticks.append(time.perf_counter())
    start, stop = span
    # Were the interpreter's lock held, nothing at all would happen inside the span.
    assert sum(start + 0.1 * (stop - start) < tick < stop - 0.1 * (stop - start) for tick in ticks) > 10


def test_an_unexpected_signature_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    routines = {**lapack._ROUTINES, "dpotrf": (scipy.linalg.cython_lapack, "cidi")}
    monkeypatch.setattr(lapack, "_ROUTINES", routines)
    lapack._routine.cache_clear()
    assert not lapack.is_available()
    lapack._routine.cache_clear()
