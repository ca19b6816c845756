"""Reduction of a symmetric matrix to band form by blocks of Householder reflections.

With A = Q B Q' and B of half-bandwidth w, every shifted system (A + alpha I) x = r costs one banded Cholesky
factorisation, O(n w ** 2), so that the many penalties of a ridge path cost little more than one. Unlike the
reduction to tridiagonal form, nearly all 4/3 n ** 3 operations are products of matrices.
"""

from __future__ import annotations

import numpy as np

from regressors.checks import FloatArray
from regressors.shared.lapack import factorise_panel, subtract_rank_two

# Columns of one step of the symmetric product; a tile of them stays in the cache.
_TILE = 256


class BandReduction:
    """A symmetric matrix as Q B Q' with an orthogonal Q and a band matrix B.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        Symmetric; its lower triangle is overwritten.
    width : int
        Half-bandwidth w of B, at least 1.

    Attributes
    ----------
    band : float64 array of shape (width + 1, n), Fortran order
        Lower band of B: ``band[i, j] = B[i + j, j]``, as `regressors.shared.lapack.factorise_band` takes it.

    References
    ----------
    .. [1] C. Bischof, B. Lang and X. Sun, "A framework for symmetric band reduction", ACM Transactions on
       Mathematical Software 26, 2000, section 3.
    .. [2] R. Schreiber and C. Van Loan, "A storage-efficient WY representation for products of Householder
       transformations", SIAM Journal on Scientific and Statistical Computing 10, 1989.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.shared.band_reduction import BandReduction
    >>> from regressors.shared.lapack import factorise_band, solve_band
    >>> A = np.diag([1.0, 2.0, 4.0]) + 1
    >>> reduced = BandReduction(np.array(A, order="F"), 1)
    >>> right = reduced.rotate(np.ones((3, 1)))
    >>> factorise_band(reduced.band)
    True
    >>> x = reduced.rotate_back(solve_band(reduced.band, right[:, 0])[:, None])
    >>> bool(np.allclose(A @ x, 1))
    True
    """

    def __init__(self, matrix: FloatArray, width: int) -> None:
        n = len(matrix)
        self.band = np.zeros((width + 1, n), order="F")
        # Each block of reflections I - V T V' acts on the rows from its start on.
        self._blocks: list[tuple[int, FloatArray, FloatArray]] = []
        for start in range(0, n, width):
            stop = min(start + width, n)
            for j in range(start, stop):
                self.band[: stop - j, j] = matrix[j:stop, j]
            if stop == n:
                break
            panel = matrix[stop:, start:stop]
            n_reflections = min(len(panel), width)
            t = factorise_panel(panel[:, :n_reflections])
            v = np.asfortranarray(np.tril(panel[:, :n_reflections], -1))
            np.fill_diagonal(v, 1.0)
            # The last panel may be wider than tall.
            panel[:, n_reflections:] -= v @ (t.T @ (v.T @ panel[:, n_reflections:]))
            for j in range(width):
                rows = min(j + 1, n_reflections)
                self.band[width - j : width - j + rows, start + j] = panel[:rows, j]
            trailing = matrix[stop:, stop:]
            # Q'AQ = A - V W' - W V' with W = X - V (T' V' X) / 2 and X = A V T.
            w = _symmetric_product(trailing, v) @ t
            w -= v @ (0.5 * (t.T @ (v.T @ w)))
            subtract_rank_two(trailing, v, np.asfortranarray(w))
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


def _symmetric_product(matrix: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply a symmetric matrix, of which only the lower triangle is valid, by vectors."""
    product = np.zeros(vectors.shape, order="F")
    for start in range(0, len(matrix), _TILE):
        stop = min(start + _TILE, len(matrix))
        corner = np.tril(matrix[start:stop, start:stop])
        corner += np.tril(corner, -1).T
        product[start:stop] += corner @ vectors[start:stop]
        below = matrix[stop:, start:stop]
        product[stop:] += below @ vectors[start:stop]
        product[start:stop] += below.T @ vectors[stop:]
    return product
