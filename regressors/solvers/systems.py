"""Kernels of bands, ridges for many penalties, and support vectors: functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.linalg
from sklearn import config_context
from sklearn.svm import SVR

from regressors.checks import FloatArray, IntArray, check_choice
from regressors.solvers.sums import ColumnScale, FoldTable, standardised

WIDE_COLUMNS = 2048
"""Columns of a band that are standardised at a time."""

# Of a kernel at a time: they stay in the cache through all that is done with them.
_TILE_NUMBERS = 50_000
_ROWS = 16


class BandKernel(NamedTuple):
    """Inner products of the standardised rows of one band, centred at the regressor's means, in one fold.

    Shapes (n_train, n_train), (n_test, n_train), and of each test row with itself (n_test,).
    """

    train: FloatArray
    test: FloatArray
    test_norms: FloatArray


Kernels = Mapping[str, Future[BandKernel]]
"""Of each band in one fold, perhaps still being computed."""


def band_kernel(table: FoldTable, band: str, fold: int, centre: FloatArray, scale: ColumnScale) -> BandKernel:
    """Compute the inner products of a band in one fold; ``centre`` and ``scale`` are those of all columns."""
    columns = table.bands[band]
    rows = table.train_rows(fold)
    test = table.folds[fold][1] if fold >= 0 else rows[:0]
    both, n_train = np.concatenate([rows, test]), len(rows)
    trained, tested = np.zeros((n_train, n_train)), np.zeros((len(test), n_train))
    norms = np.zeros(len(test))
    for start in range(0, len(columns), WIDE_COLUMNS):
        chunk = standardised(table, both, columns[start : start + WIDE_COLUMNS], centre, scale)
        own, other = chunk[:n_train], chunk[n_train:]
        if start == 0:
            trained, tested = own @ own.T, other @ own.T
        else:
            trained += own @ own.T
            tested += other @ own.T
        norms += np.einsum("ij,ij->i", other, other)
    # A column that is constant on the training rows may vary on the test rows. The scaler leaves it in its own unit; no
    # inner product with a training row shows it, but distances do.
    constant = columns[scale.factor[columns] == 0]
    off = table.matrix[test[:, None], constant] - centre[constant]
    norms += np.einsum("ij,ij->i", off, off)
    return BandKernel(trained, tested, norms)


def _weighted_sum(
    matrices: Sequence[FloatArray],
    weights: Sequence[float],
    finish: Callable[[FloatArray, slice], None] = lambda tile, rows: None,
) -> FloatArray:
    """Add matrices up, a few rows at a time, so that these are in the cache when the next is added."""
    total = np.empty_like(matrices[0])
    step = max(1, _TILE_NUMBERS // max(1, total.shape[1]))
    for start in range(0, len(total), step):
        rows = slice(start, start + step)
        tile = total[rows]
        np.multiply(matrices[0][rows], weights[0], out=tile)
        for matrix, weight in zip(matrices[1:], weights[1:], strict=True):
            # Most weights are 1, and a product would be one more pass.
            tile += matrix[rows] if weight == 1 else weight * matrix[rows]
        finish(tile, rows)
    return total


def linear_kernel(factors: Mapping[str, float], kernels: Kernels) -> tuple[FloatArray, FloatArray]:
    """Add up the kernels of bands by the squares of their factors: (n_train, n_train) and (n_test, n_train)."""
    squares = [factor**2 for factor in factors.values()]
    parts = [kernels[band].result() for band in factors]
    return (
        _weighted_sum([part.train for part in parts], squares),
        _weighted_sum([part.test for part in parts], squares),
    )


def unit_kernel(
    factors: Mapping[str, float],
    kernels: Kernels,
    gamma: float | None,
    *,
    weights: FloatArray | None = None,
    by_variance: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Compute the kernel of support vectors: (n_train, n_train) and (n_test, n_train).

    ``gamma`` None is the linear kernel; ``by_variance`` divides inner products by the total variance, as UnitSVR does.
    """
    squares = [factor**2 for factor in factors.values()]
    parts = [kernels[band].result() for band in factors]
    norms = np.array(squares) @ np.array([np.diagonal(part.train) for part in parts])
    test_norms = np.array(squares) @ np.array([part.test_norms for part in parts])
    total = (float(np.average(norms, weights=weights)) if by_variance else 1.0) or 1.0

    def finish(tile: FloatArray, rows: slice, left: FloatArray, is_train: bool) -> None:
        if gamma is None:
            tile /= total
            return
        # exp(-gamma |x - z|^2); distances that rounding made negative are 0.
        tile *= -2
        tile += left[rows, None]
        tile += norms
        np.maximum(tile, 0.0, out=tile)
        tile *= -gamma / total
        if is_train:
            np.fill_diagonal(tile[:, rows], 0.0)
        np.exp(tile, out=tile)

    return (
        _weighted_sum(
            [part.train for part in parts], squares, lambda tile, rows: finish(tile, rows, norms, True)
        ),
        _weighted_sum(
            [part.test for part in parts], squares, lambda tile, rows: finish(tile, rows, test_norms, False)
        ),
    )


def dual_system(
    kernel: FloatArray, y: FloatArray, weights: FloatArray | None
) -> tuple[FloatArray | None, FloatArray, float]:
    """Turn a kernel of centred rows into the matrix H K H of its ridge, in place; H has the roots of the weights.

    Returns the diagonal of H or None, H (y - y_mean) and y_mean.
    """
    y_mean = float(np.average(y, weights=weights))
    right = y - y_mean
    root = np.ones(len(y)) if weights is None else np.sqrt(weights)
    if weights is not None:
        kernel *= root
        kernel *= root[:, None]
        right *= root
    # A centred kernel is singular along the roots of the weights, to which the target is orthogonal. With the mean
    # eigenvalue there the solutions are the same, and small penalties no worse conditioned than the others.
    along = root * (np.trace(kernel) / (len(root) * (root @ root)))
    for start in range(0, len(kernel), _ROWS):
        kernel[start : start + _ROWS] += along[start : start + _ROWS, None] * root
    return None if weights is None else root, right, y_mean


_EPS = float(np.finfo(np.float64).eps)
_LARGEST_CHOLESKY = 150
_TILE = 512


class PathSolutions(NamedTuple):
    """Solutions of shape (n, n_alphas), and their response to a random perturbation of A of the size of rounding.

    Where A + alpha I is not positive definite in this precision, A is taken without its negative eigenvalues, and the
    response is the solution itself.
    """

    x: FloatArray
    change: FloatArray


def choose_method(n: int, n_alphas: int) -> str:
    """Choose how to solve ``n_alphas`` systems of size ``n``, by what was measured with one BLAS thread."""
    return "cholesky" if n_alphas <= 3 or n <= _LARGEST_CHOLESKY else "band"


def _band_width(n: int) -> int:
    # A wider band makes the products of matrices faster and the systems of each penalty dearer.
    return min(n, max(32, min(n // 12, 160)))


def solve_path(
    matrix: FloatArray, right: FloatArray, alphas: Sequence[float], *, method: str = "auto"
) -> PathSolutions:
    """Solve (A + alpha I) x = r for each alpha, and probe the response to rounding errors in A.

    Rounding leaves each entry of A uncertain by about ``e_ij = eps sqrt(a_ii a_jj)``. With E a random draw of that
    size, the solution moves by (A + alpha I)^-1 E x, and E x is drawn directly: its entries are independent with
    deviations ``eps sqrt(a_ii) sqrt(sum_j a_jj x_j ** 2)``. Other threads are left free while it computes.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), C-contiguous
        Symmetric and positive semi-definite; overwritten.
    right : float64 array of shape (n,)
        Right-hand side r.
    alphas : sequence of float
        Positive penalties.
    method : {"auto", "cholesky", "band"}, default="auto"
        Factorise for each penalty, or reduce once to a band; "auto" is `choose_method`.
    """
    check_choice("solve_path", "method", method, ("auto", *METHODS))
    n, size = len(matrix), np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if not n:
        return PathSolutions(*np.zeros((2, 0, len(alphas))))
    form = METHODS[choose_method(n, len(alphas)) if method == "auto" else method](matrix)
    factors = [form.factor(alpha) for alpha in alphas]

    def solve(columns: FloatArray) -> FloatArray:
        solved = np.array(form.rotate(columns), order="F")
        for k, factor in enumerate(factors):
            if factor is not None:
                solved[:, k] = factor(solved[:, k])
        return form.rotate_back(solved)

    x = solve(np.repeat(right[:, None], len(alphas), axis=1))
    failed = [k for k, factor in enumerate(factors) if factor is None]
    if failed:
        values, vectors = form.eigen()
        shares = vectors.T @ form.rotate(right[:, None])
        shifted = np.maximum(values, 0.0)[:, None] + np.asarray(alphas, dtype=np.float64)[failed]
        x[:, failed] = form.rotate_back(vectors @ (shares / shifted))
    spread = np.sqrt(((size[:, None] * x) ** 2).sum(axis=0))
    change = solve((_EPS * size * np.random.default_rng(0).standard_normal(n))[:, None] * spread)
    change[:, failed] = x[:, failed]
    return PathSolutions(x, change)


_Solve = Callable[[FloatArray], FloatArray]


class _Cholesky:
    """A = Q T Q' with Q the identity and T = A, factorised for each penalty."""

    def __init__(self, matrix: FloatArray) -> None:
        self._matrix, self._diagonal = matrix, np.diagonal(matrix).copy()

    def rotate(self, vectors: FloatArray) -> FloatArray:
        """Return Q' times vectors of shape (n, n_vectors)."""
        return vectors

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        """Return Q times vectors of shape (n, n_vectors)."""
        return vectors

    def factor(self, alpha: float) -> _Solve | None:
        """Return the function that solves (T + alpha I) x = r of shape (n,); None if it is not positive definite."""
        np.fill_diagonal(self._matrix, self._diagonal + alpha)
        try:
            lower = np.linalg.cholesky(self._matrix).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            return None
        return lambda right: scipy.linalg.cho_solve((lower, True), right, check_finite=False)

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        """Return the eigenvalues and eigenvectors of T."""
        np.fill_diagonal(self._matrix, self._diagonal)
        return np.linalg.eigh(self._matrix)


class _Band:
    """T of band form, by blocks of Householder reflections I - V S V' (Bischof, Lang and Sun, TOMS 26, 2000)."""

    def __init__(self, matrix: FloatArray) -> None:
        n = len(matrix)
        width = _band_width(n)
        self._band = np.zeros((width + 1, n))
        self._blocks: list[tuple[int, FloatArray, FloatArray]] = []
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

    def factor(self, alpha: float) -> _Solve | None:
        band = self._band.copy()
        band[0] += alpha
        try:
            lower = scipy.linalg.cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        return lambda right: scipy.linalg.cho_solve_banded((lower, True), right, check_finite=False)

    def eigen(self) -> tuple[FloatArray, FloatArray]:
        return scipy.linalg.eig_banded(self._band, lower=True)


METHODS: dict[str, type[_Cholesky | _Band]] = {"cholesky": _Cholesky, "band": _Band}


_FEWEST_ROWS = 500
"""Training rows below which libsvm has ended before a compiled solver is loaded."""


class SupportVectors(NamedTuple):
    """Positions of support vectors among the rows of positive weight, dual coefficients, intercept, steps."""

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
    """Find the support vectors of a target ``y`` of shape (n,) on a kernel of shape (n, n).

    ``weights`` multiply ``cost``; ``tol``, ``max_iter``, ``cache_size_mb``, ``shrinking`` as of `sklearn.svm.SVR`.
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


@cache
def compiled_solver() -> Callable[..., SupportVectors] | None:
    """Return `regressors.solvers.smo.solve_svr`, compiled; None without numba, or where the disk is full."""
    try:
        from regressors.solvers.smo import solve_svr

        solve_svr(np.eye(2), np.array([0.0, 1.0]), np.ones(2), 0.1)
    except (ImportError, OSError):
        return None
    return solve_svr
