"""All penalties of one ridge: (A + alpha I) x = r for many alphas from one reduction of A.

Small matrices are solved by their eigenvectors, few penalties by a Cholesky factorisation each. Otherwise A = Q T Q'
with T tridiagonal or, for large matrices, of band form, after which one more penalty costs little. All leave other
threads free while they compute. The sizes at which one way overtakes the other were measured with one BLAS thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg
import scipy.linalg.cython_lapack
from scipy import LowLevelCallable
from scipy.linalg.lapack import dptsv

from regressors.checks import FloatArray, check_choice

_EPS = float(np.finfo(np.float64).eps)
_LARGEST_EIGEN = 256
_LARGEST_TRIDIAGONAL = 1400
# A wider band makes the products of matrices faster and the systems of each penalty dearer.
_BAND_WIDTH = 160
_TILE = 512


class PathSolutions(NamedTuple):
    """Solutions for each penalty.

    Attributes
    ----------
    x : float64 array of shape (n, n_alphas)
        Solutions; where A + alpha I is not positive definite in this precision, by A without its negative eigenvalues.
    change : float64 array of shape (n, n_alphas)
        How ``x`` responds to one random perturbation of A of the size of its rounding errors; ``x`` itself where
        A + alpha I is not positive definite.
    """

    x: FloatArray
    change: FloatArray


def choose_method(n: int, n_alphas: int) -> str:
    """Choose how to solve ``n_alphas`` systems of size ``n``: "cholesky", "eigen", "tridiagonal" or "band"."""
    if n_alphas <= (3 if n <= _LARGEST_TRIDIAGONAL else 5) or n < 3:
        return "cholesky"
    if n <= _LARGEST_EIGEN or _routines() is None:
        return "eigen"
    return "tridiagonal" if n <= _LARGEST_TRIDIAGONAL else "band"


def extra_numbers(n: int, n_alphas: int) -> int:
    """Return how many numbers `solve_path` holds at most besides a matrix of size ``n``."""
    vectors = 6 * n * n_alphas
    if choose_method(n, n_alphas) == "band":
        return vectors + n * n // 2 + (n_alphas + 2) * (_BAND_WIDTH + 1) * n + 2 * _TILE * n
    return vectors + 2 * n * n + 64 * n


def solve_path(
    matrix: FloatArray, right: FloatArray, alphas: Sequence[float], *, method: str = "auto"
) -> PathSolutions:
    """Solve (A + alpha I) x = r for each alpha, and probe the response to rounding errors in A.

    Rounding leaves each entry of A uncertain by about ``e_ij = eps sqrt(a_ii a_jj)``. With E a random draw of that
    size, the solution moves by (A + alpha I)^-1 E x, and E x is drawn directly: its entries are independent with
    deviations ``eps sqrt(a_ii) sqrt(sum_j a_jj x_j ** 2)``. What such a draw moves, no two ways of computing agree on.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), C-contiguous
        Symmetric and positive semi-definite; overwritten.
    right : float64 array of shape (n,)
        Right-hand side r.
    alphas : sequence of float
        Positive penalties.
    method : {"auto", "cholesky", "eigen", "tridiagonal", "band"}, default="auto"
        How to solve; "auto" is `choose_method`.

    Returns
    -------
    PathSolutions

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.solvers.path import solve_path
    >>> solve_path(np.diag([1.0, 3.0]), np.array([2.0, 4.0]), [1.0, 5.0]).x.round(3).tolist()
    [[1.0, 0.333], [1.0, 0.5]]
    """
    check_choice("solve_path", "method", method, ("auto", *METHODS))
    n, size = len(matrix), np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if not n:
        return PathSolutions(*np.zeros((2, 0, len(alphas))))
    form = METHODS[choose_method(n, len(alphas)) if method == "auto" else method](matrix)
    x = np.empty((n, len(alphas)), order="F")
    rotated = form.rotate(right[:, None])[:, 0]
    failed = []
    for k, alpha in enumerate(alphas):
        solution = form.solve(rotated, alpha)
        if solution is None:
            failed.append(k)
        else:
            x[:, k] = solution
    if failed:
        values, vectors = form.eigen()
        shares = vectors.T @ rotated
        shifted = np.maximum(values, 0.0)[:, None] + np.asarray(alphas, dtype=np.float64)[failed]
        x[:, failed] = vectors @ (shares[:, None] / shifted)
    x = form.rotate_back(x)
    draw = np.random.default_rng(0).standard_normal(n)
    spread = np.sqrt(((size[:, None] * x) ** 2).sum(axis=0))
    change = form.rotate((_EPS * size * draw)[:, None] * spread)
    for k, alpha in enumerate(alphas):
        if k not in failed:
            change[:, k] = form.solve(change[:, k], alpha)
    change = form.rotate_back(change)
    change[:, failed] = x[:, failed]
    return PathSolutions(x, change)


class _Form(Protocol):
    """A = Q T Q': what `solve_path` needs of a way to solve."""

    def __init__(self, matrix: FloatArray) -> None: ...

    def rotate(self, vectors: FloatArray) -> FloatArray:
        """Return Q' times vectors of shape (n, n_vectors)."""

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        """Return Q times vectors of shape (n, n_vectors)."""

    def solve(self, right: FloatArray, alpha: float) -> FloatArray | None:
        """Solve (T + alpha I) x = r of shape (n,); None if it is not positive definite."""

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        """Return the eigenvalues and eigenvectors of T."""


class _Cholesky:
    """T = A, factorised for each penalty."""

    def __init__(self, matrix: FloatArray) -> None:
        self._matrix, self._diagonal = matrix, np.diagonal(matrix).copy()
        self._factors: dict[float, FloatArray | None] = {}

    def rotate(self, vectors: FloatArray) -> FloatArray:
        return vectors

    rotate_back = rotate

    def solve(self, right: FloatArray, alpha: float) -> FloatArray | None:
        if alpha not in self._factors:
            np.fill_diagonal(self._matrix, self._diagonal + alpha)
            try:
                self._factors[alpha] = np.linalg.cholesky(self._matrix).astype(np.float64, copy=False)
            except np.linalg.LinAlgError:
                self._factors[alpha] = None
        factor = self._factors[alpha]
        return None if factor is None else scipy.linalg.cho_solve((factor, True), right, check_finite=False)

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        np.fill_diagonal(self._matrix, self._diagonal)
        return np.linalg.eigh(self._matrix)


class _Eigen:
    """T diagonal."""

    def __init__(self, matrix: FloatArray) -> None:
        self._values, self._vectors = np.linalg.eigh(matrix)

    def rotate(self, vectors: FloatArray) -> FloatArray:
        return self._vectors.T @ vectors

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        return self._vectors @ vectors

    def solve(self, right: FloatArray, alpha: float) -> FloatArray | None:
        return right / (self._values + alpha) if self._values[0] + alpha > 0 else None

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        return self._values, np.eye(len(self._values))


class _Tridiagonal:
    """T tridiagonal, by LAPACK."""

    def __init__(self, matrix: FloatArray) -> None:
        n = len(matrix)
        # The transpose of a C-ordered symmetric matrix is the same matrix in Fortran's order, without a copy.
        self._reflections = matrix.T
        self._diagonal, self._off, self._tau = np.empty(n), np.empty(n - 1), np.empty(n - 1)
        work = np.empty(64 * n)
        _call("dsytrd", b"L", n, matrix, n, self._diagonal, self._off, self._tau, work, len(work), 0)

    def rotate(self, vectors: FloatArray) -> FloatArray:
        return self._apply(b"T", vectors)

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        return self._apply(b"N", vectors)

    def _apply(self, transposed: bytes, vectors: FloatArray) -> FloatArray:
        n, m = vectors.shape
        rotated, work = np.array(vectors, order="F"), np.empty(64 * m + 4160)
        _call(
            "dormqr", b"L", transposed, n - 1, m, n - 1, self._reflections[1:], n, self._tau, rotated[1:], n, work,
            len(work), 0,
        )  # fmt: skip
        return rotated

    def solve(self, right: FloatArray, alpha: float) -> FloatArray | None:
        _, _, solution, status = dptsv(self._diagonal + alpha, self._off, right)
        return solution if status == 0 else None

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        return scipy.linalg.eigh_tridiagonal(self._diagonal, self._off)


class _Band:
    """T of band form, by blocks of Householder reflections I - V S V'.

    References
    ----------
    .. [1] C. Bischof, B. Lang and X. Sun, "A framework for symmetric band reduction", ACM Transactions on
       Mathematical Software 26, 2000, section 3.
    """

    def __init__(self, matrix: FloatArray) -> None:
        n, width = len(matrix), min(_BAND_WIDTH, len(matrix))
        self._band = np.zeros((width + 1, n))
        self._blocks: list[tuple[int, FloatArray, FloatArray]] = []
        self._factors: dict[float, FloatArray | None] = {}
        for start in range(0, n, width):
            stop = min(start + width, n)
            for j in range(start, stop):
                self._band[: stop - j, j] = matrix[j:stop, j]
            if stop == n:
                break
            packed, tau = np.linalg.qr(matrix[stop:, start:stop], mode="raw")
            packed, m = packed.T, len(tau)
            for j in range(width):
                rows = min(j + 1, m)
                self._band[width - j : width - j + rows, start + j] = packed[:rows, j]
            v = np.tril(packed[:, :m], -1)
            np.fill_diagonal(v, 1.0)
            inverse = np.triu(v.T @ v, 1)
            np.fill_diagonal(inverse, 1 / np.maximum(tau, 1e-300))  # a reflection of 0 is none
            s = np.linalg.inv(inverse)
            # Q'AQ = A - V W' - W V' with W = X - V (S' V' X) / 2 and X = A V S.
            trailing = matrix[stop:, stop:]
            w = trailing @ (v @ s)
            w -= v @ (0.5 * (s.T @ (v.T @ w)))
            left, right = np.hstack([v, w]), np.hstack([w, v]).T
            for first in range(0, len(left), _TILE):
                trailing[first : first + _TILE] -= left[first : first + _TILE] @ right
            self._blocks.append((stop, v, s))

    def rotate(self, vectors: FloatArray) -> FloatArray:
        rotated = np.array(vectors)
        for start, v, s in self._blocks:
            rotated[start:] -= v @ (s.T @ (v.T @ rotated[start:]))
        return rotated

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        rotated = np.array(vectors)
        for start, v, s in reversed(self._blocks):
            rotated[start:] -= v @ (s @ (v.T @ rotated[start:]))
        return rotated

    def solve(self, right: FloatArray, alpha: float) -> FloatArray | None:
        if alpha not in self._factors:
            band = self._band.copy()
            band[0] += alpha
            try:
                self._factors[alpha] = scipy.linalg.cholesky_banded(band, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                self._factors[alpha] = None
        factor = self._factors[alpha]
        return (
            None
            if factor is None
            else scipy.linalg.cho_solve_banded((factor, True), right, check_finite=False)
        )

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        return scipy.linalg.eig_banded(self._band, lower=True)


METHODS: dict[str, type[_Form]] = {
    "cholesky": _Cholesky,
    "eigen": _Eigen,
    "tridiagonal": _Tridiagonal,
    "band": _Band,
}

# SciPy's Python functions hold the interpreter's lock while LAPACK works, so that threads over folds would take turns.
# SciPy exports the same routines to compiled code; ctypes calls them without the lock. Arguments: c a letter, i an
# integer, d numbers.
_ARGUMENTS = {"dsytrd": "cididdddii", "dormqr": "cciiididdidii"}


@cache
def _routines() -> dict[str, Any] | None:
    """Return the LAPACK routines; None where this SciPy does not export them as expected."""
    routines = {}
    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    for name, kinds in _ARGUMENTS.items():
        try:
            exported = LowLevelCallable.from_cython(scipy.linalg.cython_lapack, name)
        except (ImportError, ValueError):
            return None
        found = exported.signature.removeprefix("void (").removesuffix(")").split(", ")
        if "".join({"char *": "c", "int *": "i"}.get(argument, "d") for argument in found) != kinds:
            return None
        pointer = pointer_of(exported.function, name_of(exported.function))
        routines[name] = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(kinds))(pointer)
    return routines


def _call(name: str, *arguments: bytes | int | FloatArray) -> None:
    """Call a routine; integers go by reference, arrays by the place of their first number."""
    held = [ctypes.c_int(argument) if isinstance(argument, int) else argument for argument in arguments]
    routines = _routines()
    if routines is None:
        raise ImportError(f"this SciPy does not export {name} as expected")
    routines[name](
        *(
            value.ctypes.data
            if isinstance(value, np.ndarray)
            else value
            if isinstance(value, bytes)
            else ctypes.byref(value)
            for value in held
        )
    )
