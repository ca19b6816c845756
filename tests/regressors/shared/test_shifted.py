"""Shifted systems: every way solves the same equations, and the probe sees what rounding can do."""

from __future__ import annotations

import numpy as np
import pytest

from regressors.shared.band_reduction import BandReduction
from regressors.shared.rational_krylov import RationalKrylov
from regressors.shared.shifted import METHODS, choose_method, solve_shifted

SHIFTS = [1e-3, 1.0, 1e3, 1e6]


def definite(n: int, rank: int | None = None) -> np.ndarray:
    factors = np.random.default_rng(n).normal(size=(n, 2 * n if rank is None else rank))
    return factors @ factors.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 3, 17, 96, 97, 200])
def test_every_method_solves_the_equations(method: str, n: int) -> None:
    matrix, right = definite(n), np.random.default_rng(0).normal(size=n)
    solved = solve_shifted(matrix.copy(), right, SHIFTS, method=method)
    expected = np.column_stack([np.linalg.solve(matrix + shift * np.eye(n), right) for shift in SHIFTS])
    np.testing.assert_allclose(solved.x, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("width", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("n", [1, 2, 7, 40, 41])
def test_the_band_form_is_the_matrix_in_other_coordinates(n: int, width: int) -> None:
    matrix = definite(n)
    reduced = BandReduction(np.array(matrix, order="F"), width)
    band = np.zeros((n, n))
    for below in range(min(width, n - 1) + 1):
        band[np.arange(below, n), np.arange(n - below)] = reduced.band[below, : n - below]
    band = band + np.tril(band, -1).T
    orthogonal = reduced.rotate_back(np.eye(n))
    np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(orthogonal @ band @ orthogonal.T, matrix, atol=1e-12 * np.trace(matrix))
    np.testing.assert_allclose(reduced.rotate(orthogonal), np.eye(n), atol=1e-13)


def test_tiles_join_without_a_seam() -> None:
    matrix = definite(600)
    right = np.ones(600)
    ours = solve_shifted(matrix.copy(), right, SHIFTS, method="band").x
    reference = solve_shifted(matrix.copy(), right, SHIFTS, method="cholesky").x
    np.testing.assert_allclose(ours, reference, atol=1e-11 * np.abs(reference).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_that_no_shift_makes_definite_gives_nan_for_that_shift_alone(method: str) -> None:
    matrix = definite(30) - 500 * np.eye(30)
    solved = solve_shifted(matrix, np.ones(30), [1.0, 1e6], method=method)
    assert np.isnan(solved.x[:, 0]).all()
    assert np.isfinite(solved.x[:, 1]).all()


def test_the_probe_grows_as_the_shift_shrinks_on_a_singular_matrix() -> None:
    matrix = definite(40, rank=10)
    solved = solve_shifted(matrix, np.random.default_rng(1).normal(size=40), [1e-6, 1.0], method="cholesky")
    relative = np.abs(solved.change).max(axis=0) / np.abs(solved.x).max(axis=0)
    assert relative[0] > 1e-10
    assert relative[1] < 1e-13


def decaying(n: int, power: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of a spectrum like those of features, and a right-hand side that weak eigenvectors enter, too."""
    rng = np.random.default_rng(n)
    orthogonal = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = 1e6 * np.arange(1, n + 1) ** -power + floor
    matrix = (orthogonal * values) @ orthogonal.T
    return (matrix + matrix.T) / 2, orthogonal @ (np.sqrt(values) * rng.normal(size=n))


@pytest.mark.parametrize(
    ("power", "floor", "is_small"), [(1.0, 50.0, True), (2.0, 0.0, False), (3.0, 0.0, False)]
)
def test_a_small_space_solves_all_shifts_or_says_so(power: float, floor: float, is_small: bool) -> None:
    matrix, right = decaying(700, power, floor)
    shifts = list(np.logspace(-2, 6, 9))
    space = RationalKrylov(np.array(matrix, order="F"), right, shifts)
    assert (space.x is not None) == is_small
    solved = solve_shifted(matrix.copy(), right, shifts, method="krylov")
    reference = solve_shifted(matrix.copy(), right, shifts, method="cholesky")
    root = np.linalg.cholesky(matrix + 1e-2 * np.eye(700)).T
    error = np.linalg.norm(root @ (solved.x - reference.x), axis=0)
    assert error.max() < (1e-10 if is_small else 1e-8) * np.linalg.norm(root @ reference.x, axis=0).max()


def test_a_matrix_is_whole_again_after_its_factor() -> None:
    matrix, right = decaying(600, 1.0, 50.0)
    inner = np.array(matrix, order="F")
    RationalKrylov(inner, right, [1.0, 1e6]).restore()
    np.testing.assert_array_equal(inner, matrix)


def test_the_space_of_a_few_eigenvectors_ends_early() -> None:
    n = 600
    right = np.zeros(n)
    right[:3] = 1.0
    solved = solve_shifted(np.diag(np.arange(1.0, n + 1)), right, SHIFTS, method="krylov")
    expected = right[:, None] / (np.arange(1.0, n + 1)[:, None] + SHIFTS)
    np.testing.assert_allclose(solved.x, expected, rtol=1e-12, atol=1e-13)


def test_the_choice_follows_size_and_number() -> None:
    assert choose_method(500, 2) == "cholesky"
    assert choose_method(500, 13) == "tridiagonal"
    assert choose_method(4000, 13) == "krylov"
    with pytest.raises(ValueError, match="method must be one of"):
        solve_shifted(np.eye(2), np.ones(2), [1.0], method="eig")
