"""Reduction of a symmetric matrix to band form by blocks of Householder reflections.

With A = Q B Q' and B of half-bandwidth w, every shifted system (A + alpha I) x = r costs one banded Cholesky
factorisation, O(n w ** 2), so that the many penalties of a ridge path cost little more than one. Unlike the
reduction to tridiagonal form, nearly all 4/3 n ** 3 operations are products of matrices.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded, get_lapack_funcs, solve_triangular

from regressors.checks import FloatArray

# Columns of one step of the symmetric product and of the update; a tile of them stays in the cache.
_TILE = 256


class BandReduction:
    """A symmetric matrix as Q B Q' with an orthogonal Q and a band matrix B.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), C-contiguous
        Symmetric; its lower triangle is overwritten.
    width : int
        Half-bandwidth w of B, at least 1.

    Attributes
    ----------
    band : float64 array of shape (width + 1, n)
        Lower band of B: ``band[i, j] = B[i + j, j]``, as `scipy.linalg.cholesky_banded` takes it.

    References
    ----------
    .. [1] C. Bischof, B. Lang and X. Sun, "A framework for symmetric band reduction", ACM Transactions on
       Mathematical Software 26, 2000, section 3.
    .. [2] R. Schreiber and C. Van Loan, "A storage-efficient WY representation for products of Householder
       transformations", SIAM Journal on Scientific and Statistical Computing 10, 1989.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.band_reduction import BandReduction
    >>> A = np.diag([1.0, 2.0, 4.0]) + 1
    >>> reduced = BandReduction(A.copy(), 1)
    >>> x = reduced.rotate_back(reduced.solve_band(reduced.rotate(np.ones((3, 1))), 0.5))
    >>> bool(np.allclose((A + 0.5 * np.eye(3)) @ x, 1))
    True
    """

    def __init__(self, matrix: FloatArray, width: int) -> None:
        n = len(matrix)
        self.band = np.zeros((width + 1, n))
        # Each block of reflections I - V T V' acts on the rows from its start on.
        self._blocks: list[tuple[int, FloatArray, FloatArray]] = []
        (geqrf,) = get_lapack_funcs(("geqrf",), (matrix,))
        for start in range(0, n, width):
            stop = min(start + width, n)
            for j in range(start, stop):
                self.band[: stop - j, j] = matrix[j:stop, j]
            if stop == n:
                break
            panel, tau, _, info = geqrf(np.asfortranarray(matrix[stop:, start:stop]), overwrite_a=1)
            if info != 0:
                raise ValueError(f"BandReduction: the QR factorisation of a panel failed with code {info}.")
            n_reflections = len(tau)
            for j in range(width):
                rows = min(j + 1, n_reflections)
                self.band[width - j : width - j + rows, start + j] = panel[:rows, j]
            v, t = _compact_wy(panel, tau)
            trailing = matrix[stop:, stop:]
            # Q'AQ = A - V W' - W V' with W = X - V (T' V' X) / 2 and X = A V T.
            w = _symmetric_product(trailing, v) @ t
            w -= v @ (0.5 * (t.T @ (v.T @ w)))
            _rank_two_update(trailing, v, w)
            self._blocks.append((stop, v, t))

    def rotate(self, vectors: FloatArray) -> FloatArray:
        """Return Q' times vectors of shape (n, n_vectors)."""
        rotated = np.array(vectors, dtype=np.float64)
        for start, v, t in self._blocks:
            rotated[start:] -= v @ (t.T @ (v.T @ rotated[start:]))
        return rotated

    def rotate_back(self, vectors: FloatArray) -> FloatArray:
        """Return Q times vectors of shape (n, n_vectors)."""
        rotated = np.array(vectors, dtype=np.float64)
        for start, v, t in reversed(self._blocks):
            rotated[start:] -= v @ (t @ (v.T @ rotated[start:]))
        return rotated

    def solve_band(self, right: FloatArray, shift: float) -> FloatArray:
        """Solve (B + shift I) x = right.

        Parameters
        ----------
        right : float64 array of shape (n,) or (n, n_right)
            Right-hand sides.
        shift : float
            Diagonal shift that makes the matrix positive definite.

        Returns
        -------
        float64 array of the shape of ``right``

        Raises
        ------
        scipy.linalg.LinAlgError
            If the shifted matrix is not positive definite in this precision.
        """
        shifted = self.band.copy()
        shifted[0] += shift
        factor = cholesky_banded(shifted, overwrite_ab=True, lower=True, check_finite=False)
        return cho_solve_banded((factor, True), right, check_finite=False)


def _compact_wy(panel: FloatArray, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return V and T of the product of reflections, I - V T V', from the output of the QR factorisation."""
    n_reflections = len(tau)
    v = np.ascontiguousarray(np.tril(panel[:, :n_reflections], -1))
    np.fill_diagonal(v, 1.0)
    v[:, tau == 0] = 0.0  # a column that was zero already: no reflection
    inverse = np.triu(v.T @ v, 1)
    np.fill_diagonal(inverse, np.divide(1.0, tau, out=np.ones(n_reflections), where=tau != 0))
    return v, solve_triangular(inverse, np.eye(n_reflections), check_finite=False)


def _symmetric_product(matrix: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply a symmetric matrix, of which only the lower triangle is valid, by vectors."""
    product = np.zeros_like(vectors)
    for start in range(0, len(matrix), _TILE):
        stop = min(start + _TILE, len(matrix))
        corner = np.tril(matrix[start:stop, start:stop])
        corner += np.tril(corner, -1).T
        product[start:stop] += corner @ vectors[start:stop]
        below = matrix[stop:, start:stop]
        product[stop:] += below @ vectors[start:stop]
        product[start:stop] += below.T @ vectors[stop:]
    return product


def _rank_two_update(matrix: FloatArray, v: FloatArray, w: FloatArray) -> None:
    """Subtract V W' + W V' from the lower triangle of a matrix, in place."""
    left, right = np.hstack([v, w]), np.ascontiguousarray(np.hstack([w, v]).T)
    n = len(matrix)
    buffer = np.empty((min(n, 2 * _TILE), min(n, _TILE)))
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        for top in range(start, n, 2 * _TILE):
            bottom = min(top + 2 * _TILE, n)
            part = buffer[: bottom - top, : stop - start]
            np.matmul(left[top:bottom], right[:, start:stop], out=part)
            matrix[top:bottom, start:stop] -= part
