"""Natural textures: random fields with power-law spectra down to single pixels, and what is made of them.

The spectra of natural photographs fall with about the second power of frequency [1]_ [2]_. A field of ten
million pixels is put together of two parts: low frequencies drawn afresh for the photo on a coarse grid,
high frequencies cut from a periodic tile that each process computes once. Both follow the same law, so
the sum has it too, up to the Nyquist frequency.

References
----------
.. [1] D. J. Field, "Relations between the statistics of natural images and the response properties of
   cortical cells", J. Opt. Soc. Am. A 4 (1987) 2379.
.. [2] A. van der Schaaf and J. H. van Hateren, "Modelling the power spectra of natural images",
   Vision Research 36 (1996) 2759.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from featbank.demo.filters import Plane, enlarge
from featbank.digest import seed_from

TILE_SIZE = 1024
"""Side of the periodic tiles in pixels; a power of two, so that indices wrap by a bit mask."""

_COARSE = 8
_CUT = 1.0 / 32.0
"""Frequency in cycles per pixel at which the tile takes over from the field drawn for the photo."""


def _frequencies(height: int, width: int) -> Plane:
    """Radial frequency in cycles per sample, shape (height, width // 2 + 1), with 1 at the origin."""
    fy = np.fft.fftfreq(height).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    return radius


@lru_cache(maxsize=16)
def tile(beta: float, name: str = "a", stretch: float = 1.0) -> Plane:
    """Return a periodic tile with power spectrum f**-beta above the cut-off, and none below it.

    Parameters
    ----------
    beta : float
        Exponent of the power spectrum, 0 (white) to 4.
    name : str
        Another name gives an independent tile of the same law.
    stretch : float
        How much longer than high the grains are: brushed, woven, rippled surfaces have more than 1.

    Returns
    -------
    float32 array of shape (1024, 1024), read-only
        In the units of the law: the field of :func:`fractal` before its normalisation.
    """
    rng = np.random.default_rng(seed_from("tile", name, repr(beta), repr(stretch)))
    spectrum = scipy.fft.rfft2(rng.standard_normal((TILE_SIZE, TILE_SIZE), dtype=np.float32), workers=1)
    fy = np.fft.fftfreq(TILE_SIZE).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(TILE_SIZE).astype(np.float32)[None, :] * np.float32(stretch)
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    gain = radius ** np.float32(-beta / 2.0) * _above(radius)
    gain[0, 0] = 0.0
    spectrum *= gain
    out = scipy.fft.irfft2(spectrum, s=(TILE_SIZE, TILE_SIZE), workers=1)
    out = np.ascontiguousarray(out, dtype=np.float32)
    out.setflags(write=False)
    return out


def _above(radius: Plane) -> Plane:
    """Amplitude share of the tile: a smooth step around the cut-off (power shares sum to one)."""
    t = np.clip(np.log2(radius / np.float32(_CUT)) + 0.5, 0.0, 1.0)
    return np.sin(t * np.float32(np.pi / 2.0))


def window(source: Plane, height: int, width: int, rng: np.random.Generator) -> Plane:
    """Cut a window of any size from a periodic tile at a random place, mirrored and turned at random.

    Parameters
    ----------
    source : float32 array of shape (size, size)
    height, width : int
        Wanted size; larger than the tile is allowed, it repeats.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (height, width), contiguous
    """
    turn = int(rng.integers(0, 4))
    top, left = (int(v) for v in rng.integers(0, source.shape[0], size=2))
    view = source[::-1] if turn & 1 else source
    view = view[:, ::-1] if turn & 2 else view
    size = view.shape[0]
    out = np.empty((height, width), dtype=source.dtype)
    row = 0
    while row < height:
        y = (top + row) % size
        rows = min(size - y, height - row)
        column = 0
        while column < width:
            x = (left + column) % size
            columns = min(size - x, width - column)
            out[row : row + rows, column : column + columns] = view[y : y + rows, x : x + columns]
            column += columns
        row += rows
    return out


def coarse_field(
    height: int,
    width: int,
    beta: float,
    rng: np.random.Generator,
    *,
    stretch: float = 1.0,
    grid: int = _COARSE,
) -> Plane:
    """Draw the low frequencies of a power-law field on a grid of every ``grid``-th pixel.

    Returns
    -------
    float32 array of shape (ceil(height / grid) + 2, ceil(width / grid) + 2)
        In the units of :func:`tile`; frequencies above the cut-off faded out by the same smooth step.
    """
    rows, columns = -(-height // grid) + 2, -(-width // grid) + 2
    spectrum = scipy.fft.rfft2(rng.standard_normal((rows, columns), dtype=np.float32), workers=1)
    fy = np.fft.fftfreq(rows).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(columns).astype(np.float32)[None, :] * np.float32(stretch)
    radius = np.hypot(fy, fx) / np.float32(grid)
    # Below two periods per picture the law would make one big gradient of every field.
    radius = np.maximum(radius, np.float32(1.5 / max(height, width)))
    below = np.sqrt(np.maximum(1.0 - _above(radius) ** 2, 0.0))
    spectrum *= radius ** np.float32(-beta / 2.0) * below / np.float32(grid)
    spectrum[0, 0] = 0.0
    return np.ascontiguousarray(scipy.fft.irfft2(spectrum, s=(rows, columns), workers=1), dtype=np.float32)


def fractal(
    height: int, width: int, beta: float, rng: np.random.Generator, *, name: str = "a", stretch: float = 1.0
) -> Plane:
    """Draw a random field whose power spectrum follows f**-beta from the picture's size to single pixels.

    Parameters
    ----------
    height, width : int
        Size in pixels.
    beta : float
        Exponent of the power spectrum: 2 is natural texture, 3 and more are clouds and relief.
    rng : numpy.random.Generator
    name, stretch
        As for :func:`tile`.

    Returns
    -------
    float32 array of shape (height, width), mean about 0, standard deviation 1
    """
    low = coarse_field(height, width, beta, rng, stretch=stretch)
    out = enlarge(low, _COARSE, height, width)
    out += window(tile(beta, name, stretch), height, width, rng)
    sample = out[::8, ::8]
    gain = np.float32(1.0 / max(float(sample.std()), 1e-12))
    out *= gain
    out -= np.float32(sample.mean())
    return out


def grain(height: int, width: int, beta: float, rng: np.random.Generator, *, stretch: float = 1.0) -> Plane:
    """Return fine texture alone: the tile's frequencies above the cut-off, with standard deviation 1."""
    source = tile(beta, "grain", stretch)
    out = window(source, height, width, rng)
    out *= np.float32(1.0 / source[::4, ::4].std())
    return out


def smooth_field(
    height: int,
    width: int,
    beta: float,
    rng: np.random.Generator,
    *,
    grid: int = _COARSE,
    stretch: float = 1.0,
) -> Plane:
    """Draw a field without fine detail (light, clouds, colour drift), standard deviation 1, full size."""
    low = coarse_field(height, width, beta, rng, grid=grid, stretch=stretch)
    low = (low - low.mean()) / max(float(low.std()), 1e-12)
    return enlarge(low, grid, height, width)


def smoothstep(x: Plane, low: float, high: float) -> Plane:
    """Map ``x`` to 0 below ``low``, to 1 above ``high``, and by a cubic between; ``high`` may be below ``low``."""
    t = np.clip((x - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)
