"""A whole path of ridge penalties from one Cholesky factorisation and a few dozen products.

The solutions of (A + shift I) x = r for all shifts lie close to one small space, that of powers of A and of its
shifted inverse applied to r. Both kinds of powers are needed: those of A resolve the large eigenvalues, which matter at
large shifts, those of the inverse the small ones. The space is grown until the residuals say that all shifts are
solved to rounding; where it would take too many vectors the caller is told to solve otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regressors.checks import FloatArray
from regressors.shared.lapack import cholesky, multiply_symmetric, solve_cholesky

# The inverse is taken at this part of the mean eigenvalue: near the small end of the spectra of standardised features.
_POLE = 0.05
# Error of the predictions of the training rows, in parts of those of the smallest shift.
_TOLERANCE = 1e-11
# Rounding ends the fall of its bound higher in large matrices: up to here more vectors are no use, and no need.
_FLOOR = 3e-11
# The error computed with the matrix itself.
_VERIFIED = 1e-11
_FIRST_CHECK, _CHECK_STEP = 24, 8
# Where it would take more vectors, a reduction is as fast.
_MAX_VECTORS = 120
_TILE = 256


def max_vectors(n: int) -> int:
    """Return the largest number of vectors of the space for a matrix of size ``n``.

    Parameters
    ----------
    n : int
        Size of the matrix.

    Returns
    -------
    int
    """
    return min(_MAX_VECTORS, n // 10)


class RationalKrylov:
    """Solutions for several shifts of a symmetric positive semi-definite matrix from one space.

    Parameters
    ----------
    matrix : float64 array of shape (n, n), Fortran order
        Its lower triangle and its diagonal are overwritten by a factor, until `restore`.
    right : float64 array of shape (n,)
        Right-hand side r.
    shifts : sequence of float
        Positive shifts.

    Attributes
    ----------
    x : float64 array of shape (n, n_shifts), or None
        Solutions; None where they were not reached.
    inflation : float64 array of shape (n_shifts,)
        By how much the inverse at the pole may underestimate that at each shift.

    References
    ----------
    .. [1] V. Druskin and L. Knizhnerman, "Extended Krylov subspaces: approximation of the matrix square root and
       related functions", SIAM Journal on Matrix Analysis and Applications 19, 1998.
    .. [2] V. Simoncini, "A new iterative method for solving large-scale Lyapunov matrix equations", SIAM Journal on
       Scientific Computing 29, 2007 (the alternation of both kinds of powers).

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.shared.rational_krylov import RationalKrylov
    >>> A = np.diag(np.arange(1.0, 601.0))
    >>> x = RationalKrylov(np.array(A, order="F"), np.ones(600), [0.1, 10.0]).x
    >>> bool(np.allclose((A + 10 * np.eye(600)) @ x[:, 1], 1))
    True
    """

    def __init__(self, matrix: FloatArray, right: FloatArray, shifts: Sequence[float]) -> None:
        self._matrix = matrix
        self._shifts = np.asarray(shifts, dtype=np.float64)
        self._diagonal = np.diagonal(matrix).copy()
        self._pole = float(np.clip(_POLE * self._diagonal.mean(), self._shifts.min(), self._shifts.max()))
        self.x: FloatArray | None = None
        self.inflation = np.ones(len(shifts))
        np.fill_diagonal(matrix, self._diagonal + self._pole)
        if cholesky(matrix) and right.any():
            # The upper triangle still holds the matrix, but for the diagonal.
            self._off = (self._diagonal - np.diagonal(matrix))[:, None]
            self.x = self._grow(right)

    def multiply(self, vectors: FloatArray) -> FloatArray:
        """Return A times vectors of shape (n, n_vectors), Fortran order."""
        product = multiply_symmetric(self._matrix, vectors)
        product += self._off * vectors
        return product

    def invert(self, vectors: FloatArray) -> FloatArray:
        """Return the inverse at the pole, (A + pole I)^-1, times vectors of shape (n, n_vectors)."""
        return solve_cholesky(self._matrix, vectors)

    def energy(self, residuals: FloatArray, inverted: FloatArray) -> FloatArray:
        """Bound the errors that leave residuals of shape (n, n_shifts), in the norm of the training predictions.

        ``inverted`` is what `invert` makes of the residuals.
        """
        squares = np.einsum("ij,ij->j", residuals, inverted)
        return np.sqrt(np.maximum(squares, 0.0)) * np.sqrt(self.inflation)

    def restore(self) -> None:
        """Make the matrix whole again, in place."""
        n = len(self._matrix)
        for start in range(0, n, _TILE):
            part, rest = slice(start, start + _TILE), slice(start + _TILE, n)
            corner = np.triu(self._matrix[part, part], 1)
            self._matrix[part, part] = corner + corner.T
            self._matrix[rest, part] = self._matrix[part, rest].T
        np.fill_diagonal(self._matrix, self._diagonal)

    def _grow(self, right: FloatArray) -> FloatArray | None:
        """Enlarge the space until all shifts are solved; None if that would take too many vectors."""
        n = len(right)
        limit = max_vectors(n)
        if limit < 2:
            return None
        basis, image = np.empty((n, limit), order="F"), np.empty((n, limit), order="F")
        basis[:, 0] = right / np.linalg.norm(right)
        image[:, :1] = self.multiply(basis[:, :1])
        n_checked, reached, next_check = 0, np.inf, _FIRST_CHECK
        for m in range(1, limit):
            known, inverts = basis[:, :m], m % 2 == 1
            w = self.invert(known[:, -1]) if inverts else image[:, m - 1]
            shares = known.T @ w
            new = w - known @ shares
            again = known.T @ new
            new -= known @ again
            size = float(np.linalg.norm(new))
            if size <= _TOLERANCE * float(np.linalg.norm(w)):
                return self._verified(*self._project(right, known, image[:, :m]), right)
            basis[:, m] = new / size
            if inverts:
                # From (A + pole I) w = v, which saves a product.
                image[:, m] = (known[:, -1] - self._pole * w - image[:, :m] @ (shares + again)) / size
            else:
                image[:, m : m + 1] = self.multiply(basis[:, m : m + 1])
            if m + 1 < next_check:
                continue
            x, error = self._project(right, basis[:, : m + 1], image[:, : m + 1])
            if error <= _TOLERANCE or (error <= _FLOOR and error > reached / 2):
                return self._verified(x, error, right)
            step = _CHECK_STEP
            if n_checked:
                # The error falls geometrically, or faster.
                fall = np.log(reached / error) / (m + 1 - n_checked)
                needed = np.log(error / _TOLERANCE) / fall if fall > 0 else np.inf
                if m + 1 + needed > 1.2 * limit:
                    return None
                step = max(2, int(np.ceil(needed)))
            n_checked, reached = m + 1, error
            next_check = min(m + 1 + step, limit)
        return None

    def _project(self, right: FloatArray, basis: FloatArray, image: FloatArray) -> tuple[FloatArray, float]:
        """Solve within the space; return the solutions and the bound of their error."""
        small = basis.T @ image
        values, rotation = np.linalg.eigh((small + small.T) / 2)
        share = rotation.T @ (basis.T @ right)
        inner = rotation @ (share[:, None] / (np.maximum(values, 0.0)[:, None] + self._shifts))
        x = basis @ inner
        # The error at a shift below the pole may be larger than at the pole, by no more than at the least eigenvalue.
        least = max(float(values[0]), 0.0)
        self.inflation = np.maximum(1.0, (least + self._pole) / (least + self._shifts))
        residuals = right[:, None] - image @ inner - x * self._shifts
        # No direction is longer in the inverse at the pole than by 1 / pole: a bound without solving.
        bounds = np.linalg.norm(residuals, axis=0) * np.sqrt(self.inflation / self._pole)
        return x, float(bounds.max() / _scale(right, x))

    def _verified(self, x: FloatArray, error: float, right: FloatArray) -> FloatArray | None:
        """Return solutions whose residuals by the matrix itself are small, too."""
        if error > _FLOOR:
            return None
        residuals = right[:, None] - self.multiply(np.asfortranarray(x)) - x * self._shifts
        reached = float(self.energy(residuals, self.invert(residuals)).max() / _scale(right, x))
        return x if reached <= _VERIFIED else None


def _scale(right: FloatArray, x: FloatArray) -> float:
    """Return the size of the predictions of the smallest shift, in the norm of `RationalKrylov.energy`."""
    return float(np.sqrt(max(float((right @ x).max()), np.finfo(np.float64).tiny)))
