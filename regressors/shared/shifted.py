"""One symmetric matrix, many diagonal shifts: the linear systems of a whole path of ridge penalties.

Four exact ways: a Cholesky factorisation per shift when there are few; reduction to tridiagonal form for small
matrices; for larger ones a small space (`regressors.shared.rational_krylov`), or, where the spectrum makes that space
large, reduction to tridiagonal or band form (`regressors.shared.band_reduction`). After a
reduction one more shift costs next to nothing. The crossing points were measured with OpenBLAS on one thread.
Other threads run meanwhile, see `regressors.shared.lapack`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from regressors.checks import FloatArray, check_choice
from regressors.shared.band_reduction import BandReduction
from regressors.shared.lapack import (
    cholesky,
    factorise_band,
    rotate_tridiagonal,
    solve_band,
    solve_cholesky,
    solve_tridiagonal,
    tridiagonalise,
)
from regressors.shared.rational_krylov import RationalKrylov, max_vectors

METHODS = ("cholesky", "krylov", "tridiagonal", "band")

# Up to this size the LAPACK reduction to tridiagonal form is at least as fast as ours to band form.
_LARGEST_TRIDIAGONAL = 1400
# A wider band makes the products of matrices faster and the systems of each shift dearer.
_BAND_WIDTH = 192
# From this size on the space of a few dozen vectors is found faster than a reduction.
_SMALLEST_KRYLOV = 600
# Responses to rounding below this part of the predictions are bounded, not drawn.
_CALM = 1e-10
_EPS = float(np.finfo(np.float64).eps)


class ShiftedSolutions(NamedTuple):
    """Solutions of (A + shift I) x = r for several shifts.

    Attributes
    ----------
    x : float64 array of shape (n, n_shifts)
        Solutions; nan where a shifted matrix is not positive definite in this precision.
    change : float64 array of shape (n, n_shifts)
        How ``x`` responds to one random perturbation of A of the size of its rounding errors; or more, where
        that is still tiny.
    """

    x: FloatArray
    change: FloatArray


def choose_method(n: int, n_shifts: int) -> str:
    """Choose how to solve ``n_shifts`` systems of size ``n``.

    Parameters
    ----------
    n : int
        Size of the matrix.
    n_shifts : int
        Number of shifts.

    Returns
    -------
    {"cholesky", "krylov", "tridiagonal", "band"}
    """
    if n_shifts <= (3 if n <= _LARGEST_TRIDIAGONAL else 5) or n < 3:
        return "cholesky"
    return "krylov" if n >= _SMALLEST_KRYLOV else _reduction(n)


def _reduction(n: int) -> str:
    return "tridiagonal" if n <= _LARGEST_TRIDIAGONAL else "band"


def extra_numbers(n: int, n_shifts: int) -> int:
    """Return how many numbers `solve_shifted` holds besides its matrix, at most.

    Parameters
    ----------
    n : int
        Size of the matrix.
    n_shifts : int
        Number of shifts.

    Returns
    -------
    int
    """
    vectors = 6 * n * n_shifts
    if choose_method(n, n_shifts) == "cholesky" or _reduction(n) == "tridiagonal":
        return vectors + n * n + 64 * n
    # The reflections are a second triangle.
    reduction = n * n // 2 + (n_shifts + 2) * (_BAND_WIDTH + 1) * n
    return vectors + max(reduction, 3 * max_vectors(n) * n)


def solve_shifted(
    matrix: FloatArray, right: FloatArray, shifts: Sequence[float], *, method: str = "auto"
) -> ShiftedSolutions:
    """Solve (A + shift I) x = r for each shift, and probe the response to rounding errors in A.

    Rounding leaves each entry of A uncertain by about ``e_ij = eps sqrt(a_ii a_jj)``. With E a random symmetric-free
    draw of that size, the solution moves by (A + shift I)^-1 E x, and E x is drawn directly: its entries are
    independent with deviations ``eps sqrt(a_ii) sqrt(sum_j a_jj x_j ** 2)``. What such a draw moves, no two
    ways of computing can agree on.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), C-contiguous
        Symmetric and positive semi-definite; overwritten.
    right : float64 array of shape (n,)
        Right-hand side r.
    shifts : sequence of float
        Positive shifts.
    method : {"auto", "cholesky", "krylov", "tridiagonal", "band"}, default="auto"
        How to solve; "auto" is `choose_method`.

    Returns
    -------
    ShiftedSolutions

    Raises
    ------
    ValueError
        If the method is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.shared.shifted import solve_shifted
    >>> solve_shifted(np.diag([1.0, 3.0]), np.array([2.0, 4.0]), [1.0, 5.0]).x.round(3).tolist()
    [[1.0, 0.333], [1.0, 0.5]]
    """
    check_choice("solve_shifted", "method", method, ("auto", *METHODS))
    n = len(matrix)
    chosen = choose_method(n, len(shifts)) if method == "auto" else method
    size = _EPS * np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    draw = np.random.default_rng(0).standard_normal(n)

    def perturb(x: FloatArray) -> FloatArray:
        spread = np.sqrt(((size[:, None] / _EPS * x) ** 2).sum(axis=0))
        return (size * draw)[:, None] * spread

    if chosen == "krylov":
        solved = _by_krylov(matrix, right, shifts, perturb)
        if solved is not None:
            return solved
        chosen = _reduction(n)
    if chosen == "cholesky":
        return _by_cholesky(matrix, right, shifts, perturb)
    solve = _tridiagonal(matrix) if chosen == "tridiagonal" else _band(matrix)
    x = solve(np.repeat(right[:, None], len(shifts), axis=1), shifts)
    return ShiftedSolutions(x, solve(perturb(x), shifts))


def _by_krylov(
    matrix: FloatArray,
    right: FloatArray,
    shifts: Sequence[float],
    perturb: Callable[[FloatArray], FloatArray],
) -> ShiftedSolutions | None:
    """Solve in a small space; None, and the matrix as it was, where that is not enough."""
    space = RationalKrylov(matrix.T, right, shifts)
    if space.x is not None:
        disturbance = perturb(space.x)
        change = space.invert(disturbance)
        scale = np.sqrt(max(float((right @ space.x).max()), 0.0))
        if space.energy(disturbance, change).max() <= _CALM * scale:
            return ShiftedSolutions(space.x, change * space.inflation)
    space.restore()
    return None


def _by_cholesky(
    matrix: FloatArray,
    right: FloatArray,
    shifts: Sequence[float],
    perturb: Callable[[FloatArray], FloatArray],
) -> ShiftedSolutions:
    n = len(matrix)
    x, change = np.full((n, len(shifts)), np.nan), np.full((n, len(shifts)), np.nan)
    diagonal = np.diagonal(matrix).copy()
    for k, shift in enumerate(shifts):
        # Only the lower triangle is read, so that with its own copy the factorisation may overwrite.
        shifted = np.array(matrix, order="F")
        np.fill_diagonal(shifted, diagonal + shift)
        if not cholesky(shifted):
            continue
        x[:, k] = solve_cholesky(shifted, right)
        change[:, k] = solve_cholesky(shifted, perturb(x[:, k : k + 1])[:, 0])
    return ShiftedSolutions(x, change)


def _tridiagonal(matrix: FloatArray) -> Callable[[FloatArray, Sequence[float]], FloatArray]:
    """Reduce to tridiagonal form; return the solver of one right-hand side for each shift."""
    # The transpose of a C-ordered symmetric matrix is the same matrix in Fortran's order, without a copy.
    reduced = matrix.T
    diagonal, off, factors = tridiagonalise(reduced)

    def solve(right: FloatArray, shifts: Sequence[float]) -> FloatArray:
        rotated = rotate_tridiagonal(reduced, factors, right, transposed=True)
        for k, shift in enumerate(shifts):
            solution = solve_tridiagonal(diagonal + shift, off, rotated[:, k])
            rotated[:, k] = np.nan if solution is None else solution
        return _rotate_columns(
            lambda columns: rotate_tridiagonal(reduced, factors, columns, transposed=False), rotated
        )

    return solve


def _band(matrix: FloatArray) -> Callable[[FloatArray, Sequence[float]], FloatArray]:
    """Reduce to band form; return the solver of one right-hand side for each shift."""
    reduction = BandReduction(matrix.T, min(_BAND_WIDTH, len(matrix)))
    # The probe solves with the same shifts again, so the factors stay: width n numbers for each.
    factors: dict[float, FloatArray | None] = {}

    def factorise(shift: float) -> FloatArray | None:
        if shift not in factors:
            band = reduction.band.copy(order="F")
            band[0] += shift
            factors[shift] = band if factorise_band(band) else None
        return factors[shift]

    def solve(right: FloatArray, shifts: Sequence[float]) -> FloatArray:
        rotated = reduction.rotate(right)
        for k, shift in enumerate(shifts):
            factor = factorise(shift)
            rotated[:, k] = np.nan if factor is None else solve_band(factor, rotated[:, k])
        return _rotate_columns(reduction.rotate_back, rotated)

    return solve


def _rotate_columns(rotate: Callable[[FloatArray], FloatArray], columns: FloatArray) -> FloatArray:
    # A product of matrices may spread nan to neighbours, so the failed columns stay out of it.
    usable = np.isfinite(columns).all(axis=0)
    rotated = np.full_like(columns, np.nan)
    if usable.any():
        rotated[:, usable] = rotate(columns[:, usable])
    return rotated
