"""Point spread functions of simulated cameras: what becomes of a point of light.

Every kernel has an odd number of rows and columns, is centred, non-negative and sums to one, so that blur
moves light about and neither adds nor loses any.
"""

from __future__ import annotations

import numpy as np
import scipy.signal
from numpy.typing import NDArray

_OVERSAMPLE = 8

_POINT_PX = 0.1
"""Blurs narrower than this leave a pixel where it is: their kernel would be the single pixel anyway."""

Kernel = NDArray[np.float64]


def _normalised(kernel: Kernel) -> Kernel:
    return kernel / kernel.sum()


def gaussian_psf(sigma: float) -> Kernel:
    """Return a Gaussian, the soft lens: float64 array of shape (k, k), k the first odd size past 3 sigma.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels; up to 0.1 gives the single pixel.
    """
    if sigma <= _POINT_PX:
        return np.ones((1, 1))
    half = int(np.ceil(3.0 * sigma))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return _normalised(np.outer(line, line))


def disc_psf(radius: float) -> Kernel:
    """Return the image of a point out of focus through a round aperture: an even disc.

    Parameters
    ----------
    radius : float
        Radius of the circle of confusion in pixels; up to 0.1 gives the single pixel.

    Returns
    -------
    float64 array of shape (k, k)
        Edge pixels hold the share of their area that the disc covers.
    """
    if radius <= _POINT_PX:
        return np.ones((1, 1))
    half = int(np.ceil(radius + 0.5))
    n = (2 * half + 1) * _OVERSAMPLE
    axis = (np.arange(n) + 0.5) / _OVERSAMPLE - (half + 0.5)
    inside = np.hypot(axis[:, None], axis[None, :]) <= radius
    return _normalised(_bin(inside.astype(np.float64)))


def motion_psf(length: float, angle: float, bend: float) -> Kernel:
    """Return the trace of a point while the camera moves: a bent path of even speed.

    Parameters
    ----------
    length : float
        Length of the path in pixels; 0 gives the single pixel.
    angle : float
        Direction at the middle in radians, 0 along the rows.
    bend : float
        Turn between both ends in radians; 0 is a straight line, as from a moving object, 1 to 3 is a
        shaking hand.

    Returns
    -------
    float64 array of shape (k, k)
    """
    if length <= 0.0:
        return np.ones((1, 1))
    n = max(8, int(np.ceil(length * _OVERSAMPLE)))
    t = (np.arange(n) + 0.5) / n - 0.5
    heading = angle + bend * t
    step = length / n
    x, y = np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step
    x, y = x - x.mean(), y - y.mean()
    half = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()) + 1.0))
    out = np.zeros((2 * half + 1, 2 * half + 1))
    # Bilinear shares keep the centre of the trace where it belongs to a fraction of a pixel.
    column, row = np.floor(x), np.floor(y)
    fx, fy = x - column, y - row
    column, row = column.astype(int) + half, row.astype(int) + half
    for dy, wy in ((0, 1.0 - fy), (1, fy)):
        for dx, wx in ((0, 1.0 - fx), (1, fx)):
            np.add.at(out, (row + dy, column + dx), wy * wx)
    return _normalised(out)


def combine(*kernels: Kernel) -> Kernel:
    """Return the kernel of several blurs one after the other: their convolution."""
    out = np.ones((1, 1))
    for kernel in kernels:
        out = (
            scipy.signal.convolve2d(out, kernel)
            if out.size * kernel.size < 1e6
            else scipy.signal.fftconvolve(out, kernel)
        )
    return _normalised(np.maximum(out, 0.0))


def _bin(fine: Kernel) -> Kernel:
    """Average an oversampled kernel down to whole pixels."""
    n = fine.shape[0] // _OVERSAMPLE
    return fine.reshape(n, _OVERSAMPLE, n, _OVERSAMPLE).mean(axis=(1, 3))
