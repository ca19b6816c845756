"""LAPACK routines that leave other threads free and work inside larger matrices.

SciPy's Python functions hold the interpreter's lock while they compute, so that threads over folds would take turns,
and they copy every part of a matrix. The same routines are exported to compiled code by
`scipy.linalg.cython_lapack` and `scipy.linalg.cython_blas`; here ctypes calls them, which releases the lock.

Matrices are float64 in Fortran's order; a part ``a[i:, j:]`` of one is as good as a whole one.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import scipy.linalg.cython_blas as blas
import scipy.linalg.cython_lapack as lapack
from scipy import LowLevelCallable

from regressors.checks import FloatArray

# The arguments of each routine: c a letter, i an integer, d numbers.
_ROUTINES = {
    "dgeqrt3": (lapack, "iididii"),
    "dormqr": (lapack, "cciiididdidii"),
    "dpbtrf": (lapack, "ciidii"),
    "dpbtrs": (lapack, "ciiididii"),
    "dpotrf": (lapack, "cidii"),
    "dpotrs": (lapack, "ciididii"),
    "dptsv": (lapack, "iidddii"),
    "dgemm": (blas, "cciiiddididdi"),
    "dsymm": (blas, "cciiddididdi"),
    "dsymv": (blas, "ciddididdi"),
    "dsyrk": (blas, "cciiddiddi"),
    "dsyr2k": (blas, "cciiddididdi"),
    "dsytrd": (lapack, "cididdddii"),
    "dtrsv": (blas, "cccididi"),
}

_TILE = 256


def is_available() -> bool:
    """Say whether this SciPy exports the routines with the 32-bit integers that are passed here.

    Returns
    -------
    bool
    """
    try:
        for name in _ROUTINES:
            _routine(name)
    except (ImportError, ValueError):
        return False
    return True


@cache
def _routine(name: str) -> Any:  # noqa: ANN401 - a foreign function
    module: ModuleType
    module, kinds = _ROUTINES[name]
    exported = LowLevelCallable.from_cython(module, name)
    arguments = exported.signature.removeprefix("void (").removesuffix(")").split(", ")
    found = "".join({"char *": "c", "int *": "i"}.get(argument, "d") for argument in arguments)
    if found != kinds:
        raise ImportError(f"{name}: expected arguments {kinds}, got {exported.signature}")
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    pointer = get_pointer(exported.function, get_name(exported.function))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(kinds))(pointer)


def _call(name: str, *arguments: bytes | int | float | FloatArray) -> int:
    """Call a routine by reference; return what it leaves in its last argument, the code of its success."""
    held = [
        ctypes.c_int(argument)
        if isinstance(argument, int)
        else ctypes.c_double(argument)
        if isinstance(argument, float)
        else argument
        for argument in arguments
    ]
    _routine(name)(
        *(
            value.ctypes.data
            if isinstance(value, np.ndarray)
            else value
            if isinstance(value, bytes)
            else ctypes.byref(value)
            for value in held
        )
    )
    last = held[-1]
    return int(last.value) if isinstance(last, ctypes.c_int) else 0


def _leading(matrix: FloatArray) -> int:
    """Return the distance of two columns, in numbers."""
    # A matrix of one column may have any stride.
    return max(1, len(matrix), matrix.strides[-1] // matrix.itemsize)


def tridiagonalise(matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Reduce a symmetric matrix to tridiagonal form; the reflections take the place of its lower triangle.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        Its lower triangle counts; overwritten.

    Returns
    -------
    diagonal : float64 array of shape (n,)
    off : float64 array of shape (n - 1,)
    factors : float64 array of shape (n - 1,)
        Of the reflections.
    """
    n = len(matrix)
    diagonal, off, factors, work = np.empty(n), np.empty(n - 1), np.empty(n - 1), np.empty(64 * n)
    _call("dsytrd", b"L", n, matrix, _leading(matrix), diagonal, off, factors, work, len(work), 0)
    return diagonal, off, factors


def rotate_tridiagonal(
    matrix: FloatArray, factors: FloatArray, vectors: FloatArray, *, transposed: bool
) -> FloatArray:
    """Multiply vectors by the Q (or its transpose) of `tridiagonalise`.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        What `tridiagonalise` left.
    factors : float64 array of shape (n - 1,)
        Of the reflections.
    vectors : float64 array of shape (n, n_vectors)
        One in each column.
    transposed : bool
        Whether to multiply by Q'.

    Returns
    -------
    float64 array of shape (n, n_vectors), Fortran order
    """
    n, n_vectors = vectors.shape
    rotated = np.array(vectors, order="F")
    work = np.empty(64 * max(1, n_vectors) + 4160)
    _call(
        "dormqr",
        b"L",
        b"T" if transposed else b"N",
        n - 1,
        n_vectors,
        n - 1,
        matrix[1:],
        _leading(matrix),
        factors,
        rotated[1:],
        n,
        work,
        len(work),
        0,
    )
    return rotated


def solve_tridiagonal(diagonal: FloatArray, off: FloatArray, right: FloatArray) -> FloatArray | None:
    """Solve a positive definite tridiagonal system.

    Parameters
    ----------
    diagonal : float64 array of shape (n,)
    off : float64 array of shape (n - 1,)
    right : float64 array of shape (n,)

    Returns
    -------
    float64 array of shape (n,), or None
        None if the matrix is not positive definite in this precision.
    """
    solution = np.array(right)
    n = len(solution)
    return solution if _call("dptsv", n, 1, diagonal.copy(), off.copy(), solution, n, 0) == 0 else None


def cholesky(matrix: FloatArray) -> bool:
    """Factorise a symmetric matrix in place; say whether it was positive definite in this precision.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        Its lower triangle is overwritten by the factor.

    Returns
    -------
    bool
    """
    return _call("dpotrf", b"L", len(matrix), matrix, _leading(matrix), 0) == 0


def solve_cholesky(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Solve systems by the factor of `cholesky`.

    Parameters
    ----------
    factor : float64 array of shape (n, n), Fortran order
        Only its lower triangle is read.
    right : float64 array of shape (n,) or (n, n_vectors)

    Returns
    -------
    float64 array of the shape of ``right``, Fortran order
    """
    solution = np.array(right, order="F")
    n, lead = len(solution), _leading(factor)
    if solution.size == n:
        # Many times faster on one vector than what is made for several.
        for transposed in (b"N", b"T"):
            _call("dtrsv", b"L", transposed, b"N", n, factor, lead, solution, 1)
    else:
        _call("dpotrs", b"L", n, solution.shape[1], factor, lead, solution, n, 0)
    return solution


def multiply_symmetric(matrix: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply a symmetric matrix by vectors.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        Only its upper triangle is read.
    vectors : float64 array of shape (n,) or (n, n_vectors), Fortran order

    Returns
    -------
    float64 array of the shape of ``vectors``, Fortran order
    """
    n, lead = len(matrix), _leading(matrix)
    product = np.zeros(vectors.shape, order="F")
    if vectors.size == n:
        _call("dsymv", b"U", n, 1.0, matrix, lead, vectors, 1, 0.0, product, 1)
    else:
        m = vectors.shape[1]
        _call("dsymm", b"L", b"U", n, m, 1.0, matrix, lead, vectors, n, 0.0, product, n)
    return product


def add_own_products(total: FloatArray, rows: FloatArray) -> None:
    """Add the inner products of rows among each other to the upper triangle of a matrix, in place.

    Parameters
    ----------
    total : float64 array of shape (n, n), C order
    rows : float64 array of shape (n, k), C order
    """
    n, k = rows.shape
    # What is C order here is the transpose in Fortran's.
    _call("dsyrk", b"L", b"T", n, k, 1.0, rows, max(1, k), 1.0, total, max(1, n))


def add_products(total: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """Add the inner products of rows with other rows to a matrix, in place.

    Parameters
    ----------
    total : float64 array of shape (n_left, n_right), C order
    left : float64 array of shape (n_left, k), C order
    right : float64 array of shape (n_right, k), C order
    """
    (m, k), n = right.shape, len(left)
    _call(
        "dgemm", b"T", b"N", m, n, k, 1.0, right, max(1, k), left, max(1, k), 1.0, total, max(1, m)
    )  # fmt: skip


def mirror(matrix: FloatArray) -> None:
    """Copy the upper triangle of a matrix, C order, into the lower one, in place."""
    n = len(matrix)
    for start in range(0, n, _TILE):
        part, rest = slice(start, start + _TILE), slice(start + _TILE, n)
        corner = np.triu(matrix[part, part], 1)
        corner += corner.T
        np.fill_diagonal(corner, np.diagonal(matrix)[part])
        matrix[part, part] = corner
        matrix[rest, part] = matrix[part, rest].T


def factorise_band(band: FloatArray) -> bool:
    """Factorise a symmetric band matrix in place; say whether it was positive definite in this precision.

    Parameters
    ----------
    band : float64 array of shape (width + 1, n), Fortran order
        Lower band, ``band[i, j]`` being the element (i + j, j); overwritten by the factor.

    Returns
    -------
    bool
    """
    rows, n = band.shape
    return _call("dpbtrf", b"L", n, rows - 1, band, _leading(band), 0) == 0


def solve_band(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a system by the factor of `factorise_band`.

    Parameters
    ----------
    factor : float64 array of shape (width + 1, n), Fortran order
    right : float64 array of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
    """
    rows, n = factor.shape
    solution = np.array(right)
    _call("dpbtrs", b"L", n, rows - 1, 1, factor, _leading(factor), solution, n, 0)
    return solution


def factorise_panel(panel: FloatArray) -> FloatArray:
    """QR factorisation of a tall panel in place, by recursion.

    Parameters
    ----------
    panel : float64 array of shape (n_rows, n_columns), Fortran order, n_rows >= n_columns
        Overwritten by R and, below it, the reflections V (ones on the diagonal not stored).

    Returns
    -------
    float64 array of shape (n_columns, n_columns), Fortran order
        Upper triangular T, with Q = I - V T V'.
    """
    n_rows, n_columns = panel.shape
    triangle = np.zeros((n_columns, n_columns), order="F")
    _call("dgeqrt3", n_rows, n_columns, panel, _leading(panel), triangle, n_columns, 0)
    return triangle


def subtract_rank_two(matrix: FloatArray, v: FloatArray, w: FloatArray) -> None:
    """Subtract V W' + W V' from the lower triangle of a symmetric matrix, in place.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
    v, w : float64 array of shape (n, n_columns), Fortran order
    """
    n, n_columns = v.shape
    _call(
        "dsyr2k",
        b"L",
        b"N",
        n,
        n_columns,
        -1.0,
        v,
        _leading(v),
        w,
        _leading(w),
        1.0,
        matrix,
        _leading(matrix),
    )
