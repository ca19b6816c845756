"""Fast float32 filtering on whole photographs: the arithmetic under the camera, the scenes and the measure.

Convolutions along one axis are written as products with narrow banded matrices: one BLAS call filters a
block of rows or columns, which is several times faster than a tap-by-tap loop on a photo of ten million
pixels. Point-wise work is done in strips that stay in the processor's cache. This module knows nothing of
photographs, cameras or quality.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Plane = NDArray[np.float32]

STRIP_ROWS = 32
"""Rows per strip: 32 rows of 3,840 float32 samples are half a megabyte, which fits in the cache."""

_BLOCK = 64
_BAND_ROWS = 400
_FEW = 7
"""Up to this many taps shifted additions are faster than the banded product."""


def strips(height: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Yield slices that cut ``height`` rows into strips of ``rows`` rows, the last one shorter."""
    for start in range(0, height, rows):
        yield slice(start, min(height, start + rows))


@lru_cache(maxsize=64)
def _banded(taps: tuple[float, ...], block: int) -> Plane:
    """Matrix of shape (block, block + n_taps - 1) whose row i holds the taps from column i on."""
    n = len(taps)
    matrix = np.zeros((block, block + n - 1), dtype=np.float32)
    for i in range(block):
        matrix[i, i : i + n] = taps
    matrix.setflags(write=False)
    return matrix


def correlate_valid(plane: Plane, taps: NDArray[np.floating]) -> Plane:
    """Correlate with the outer product of ``taps`` and itself where all taps lie inside.

    Parameters
    ----------
    plane : float32 array of shape (height, width)
    taps : float array of shape (n_taps,)

    Returns
    -------
    float32 array of shape (height - n_taps + 1, width - n_taps + 1)

    Raises
    ------
    ValueError
        If a side of the plane is shorter than the taps.
    """
    n_taps = len(taps)
    height, width = plane.shape[0] - n_taps + 1, plane.shape[1] - n_taps + 1
    if min(height, width) < 1:
        raise ValueError(f"correlate_valid: both sides must have at least {n_taps} pixels, got {plane.shape}")
    out = np.empty((height, width), dtype=np.float32)
    key = tuple(float(t) for t in taps)
    middle = np.empty((_BLOCK, plane.shape[1]), dtype=np.float32)
    for start in range(0, height, _BLOCK):
        n = min(_BLOCK, height - start)
        _along_rows(plane[start : start + n + n_taps - 1], key, middle[:n])
        _along_columns(middle[:n], key, out[start : start + n])
    return out


def correlate_same(plane: Plane, taps: NDArray[np.floating], out: Plane | None = None) -> Plane:
    """Correlate with the outer product of an odd number of ``taps``; the border is reflected about its edge.

    Parameters
    ----------
    plane : float32 array of shape (height, width)
    taps : float array of shape (n_taps,), n_taps odd
    out : float32 array of shape (height, width), optional
        Where to write; must not be ``plane`` itself.

    Returns
    -------
    float32 array of shape (height, width)
    """
    height, width = plane.shape
    pad = len(taps) // 2
    if out is None:
        out = np.empty((height, width), dtype=np.float32)
    key = tuple(float(t) for t in taps)
    rows_of = np.pad(np.arange(height), pad, mode="symmetric")
    block = max(_BLOCK, len(taps))
    wide = np.empty((block, width + 2 * pad), dtype=np.float32)
    for start in range(0, height, block):
        n = min(block, height - start)
        inside = start - pad >= 0 and start + n + pad <= height
        source = (
            plane[start - pad : start + n + pad] if inside else plane[rows_of[start : start + n + 2 * pad]]
        )
        middle = wide[:n, pad : pad + width]
        _along_rows(source, key, middle)
        if pad:
            wide[:n, :pad] = middle[:, :pad][:, ::-1]
            wide[:n, pad + width :] = middle[:, width - pad :][:, ::-1]
        _along_columns(wide[:n], key, out[start : start + n])
    return out


def _along_rows(source: Plane, key: tuple[float, ...], out: Plane) -> None:
    """Correlate the columns of a block of rows with the taps; ``out`` has n_taps - 1 rows less."""
    n = out.shape[0]
    if len(key) > _FEW:
        np.matmul(_banded(key, n), source, out=out)
        return
    np.multiply(source[:n], np.float32(key[0]), out=out)
    for k in range(1, len(key)):
        out += source[k : k + n] * np.float32(key[k])


def _along_columns(source: Plane, key: tuple[float, ...], out: Plane) -> None:
    """Correlate the rows of a block with the taps; ``out`` has n_taps - 1 columns less."""
    n = out.shape[1]
    if len(key) <= _FEW:
        np.multiply(source[:, :n], np.float32(key[0]), out=out)
        for k in range(1, len(key)):
            out += source[:, k : k + n] * np.float32(key[k])
        return
    block = max(_BLOCK, len(key))
    for start in range(0, n, block):
        columns = min(block, n - start)
        out[:, start : start + columns] = (
            source[:, start : start + columns + len(key) - 1] @ _banded(key, columns).T
        )


def gaussian_taps(sigma: float, n_taps: int | None = None) -> NDArray[np.float64]:
    """Return sampled Gaussian weights that sum to one.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels, positive.
    n_taps : int, optional
        Odd length; by default the first odd length that reaches three standard deviations.

    Returns
    -------
    float64 array of shape (n_taps,)
    """
    if n_taps is None:
        n_taps = 2 * int(np.ceil(3.0 * sigma)) + 1
    x = np.arange(n_taps) - (n_taps - 1) / 2.0
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def gaussian_blur(plane: Plane, sigma: float) -> Plane:
    """Blur with a Gaussian; wide ones are computed on a reduced plane, where they lose nothing visible.

    Parameters
    ----------
    plane : float32 array of shape (height, width)
    sigma : float
        Standard deviation in pixels; 0 returns the plane itself.

    Returns
    -------
    float32 array of shape (height, width)
    """
    if sigma <= 0.0:
        return plane
    height, width = plane.shape
    factor = 1
    while sigma / factor > 6.0 and min(plane.shape) >= 32:
        factor *= 2
        # An odd side is made even by repeating its last line, so that nothing is cut off.
        plane = halve(np.pad(plane, [(0, side % 2) for side in plane.shape], mode="edge"))
    blurred = correlate_same(plane, gaussian_taps(sigma / factor))
    return blurred if factor == 1 else enlarge(blurred, factor, height, width)


def _cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic interpolation kernel of Keys (IEEE Trans. ASSP 29 (1981) 1153, equation 15)."""
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return np.where(t < 1.0, near, np.where(t < 2.0, far, 0.0))


@lru_cache(maxsize=32)
def _interpolation(factor: int, block: int) -> Plane:
    """Matrix of shape (block * factor, block + 4) that enlarges ``block`` samples with two more on each side."""
    position = (np.arange(block * factor) + 0.5) / factor - 0.5 + 2.0
    matrix = _cubic(position[:, None] - np.arange(block + 4)[None, :]).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def enlarge(plane: Plane, factor: int, height: int, width: int) -> Plane:
    """Enlarge by a whole factor with cubic interpolation and cut to the wanted size.

    Parameters
    ----------
    plane : float32 array of shape (rows, columns)
        Samples at the centres of blocks of ``factor`` pixels.
    factor : int
        Positive.
    height, width : int
        Wanted size, at most ``rows * factor`` and ``columns * factor``.

    Returns
    -------
    float32 array of shape (height, width)

    Raises
    ------
    ValueError
        If the plane is too small for the wanted size.
    """
    rows, columns = plane.shape
    if height > rows * factor or width > columns * factor:
        raise ValueError(
            f"enlarge: {plane.shape} by {factor} cannot give {(height, width)}, the plane is too small"
        )
    padded = np.pad(plane, 2, mode="edge")
    wide = np.empty((rows + 4, columns * factor), dtype=np.float32)
    block = max(1, _BLOCK // factor)
    for start in range(0, columns, block):
        n = min(block, columns - start)
        wide[:, start * factor : (start + n) * factor] = (
            padded[:, start : start + n + 4] @ _interpolation(factor, n).T
        )
    out = np.empty((height, width), dtype=np.float32)
    wide = wide[:, :width]
    for start in range(0, -(-height // factor), block):
        n = min(block, rows - start)
        stop = min(height, (start + n) * factor)
        matrix = _interpolation(factor, n)[: stop - start * factor]
        np.matmul(matrix, wide[start : start + n + 4], out=out[start * factor : stop])
    return out


def convolve_psf(planes: NDArray[np.float32], psf: NDArray[np.floating]) -> NDArray[np.float32]:
    """Convolve every channel with one small kernel through the Fourier domain; the border is reflected.

    Parameters
    ----------
    planes : float32 array of shape (n_channels, height, width)
    psf : float array of shape (k, l), both odd

    Returns
    -------
    float32 array of shape (n_channels, height, width)

    Notes
    -----
    The picture is worked on in bands of rows (overlap-save), which keeps the transforms in memory that the
    processor reaches quickly. A reflected margin as wide as half the kernel keeps the two ends of a row or
    column from leaking into each other.
    """
    n_channels, height, width = planes.shape
    pad_y, pad_x = psf.shape[0] // 2, psf.shape[1] // 2
    band = min(height, max(_BAND_ROWS, 4 * pad_y))
    rows = scipy.fft.next_fast_len(band + 2 * pad_y, real=True)
    columns = scipy.fft.next_fast_len(width + 2 * pad_x, real=True)
    band = rows - 2 * pad_y
    padded = np.zeros((rows, columns), dtype=np.float32)
    padded[: psf.shape[0], : psf.shape[1]] = psf
    transfer = scipy.fft.rfft2(padded, workers=1)
    # A picture shorter than its margin is reflected more than once; np.pad knows how.
    rows_of = np.pad(np.arange(height), (pad_y, pad_y + rows), mode="symmetric")
    columns_of = np.pad(np.arange(width), (pad_x, columns - width - pad_x), mode="symmetric")
    left, right = pad_x + columns_of[:pad_x], pad_x + columns_of[pad_x + width :]
    out = np.empty_like(planes)
    for channel in range(n_channels):
        for start in range(0, height, band):
            padded[:, pad_x : pad_x + width] = planes[channel][rows_of[start : start + rows]]
            padded[:, :pad_x] = padded[:, left]
            padded[:, pad_x + width :] = padded[:, right]
            spectrum = scipy.fft.rfft2(padded, workers=1)
            spectrum *= transfer
            full = scipy.fft.irfft2(spectrum, s=(rows, columns), workers=1, overwrite_x=True)
            # The kernel's corner, not its centre, lies at the origin: the result is shifted by twice the margin.
            n = min(band, height - start)
            out[channel, start : start + n] = full[2 * pad_y : 2 * pad_y + n, 2 * pad_x : 2 * pad_x + width]
    return out


def halve(plane: Plane) -> Plane:
    """Average blocks of two by two pixels; an odd last row or column is dropped."""
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    even = plane[0:height:2, :width] + plane[1:height:2, :width]
    return (even[:, 0::2] + even[:, 1::2]) * np.float32(0.25)
