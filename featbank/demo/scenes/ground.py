"""Textures laid on a plane that runs to the horizon: water, sand, grass seen in perspective."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from featbank.demo.filters import Plane, enlarge, halve
from featbank.demo.texture import TILE_SIZE, tile, window

_OCTAVES = ((8, 1.0), (32, 1.3))
"""Enlargements of the texture that carry the large slopes, with their relative strengths."""


@lru_cache(maxsize=8)
def slope_tile(beta: float, stretch: float, sharp: float) -> tuple[Plane, ...]:
    """Return the slopes of a random relief as periodic tiles at full, half, quarter, ... size.

    Parameters
    ----------
    beta : float
        Exponent of the relief's power spectrum.
    stretch : float
        How much longer crests are than high.
    sharp : float
        0 leaves crests and troughs alike; above 0 crests are narrow and troughs wide, as on water.

    Returns
    -------
    tuple of float32 arrays of shape (1024 / 2**k, 1024 / 2**k)
        The first has standard deviation 1; averaging makes the smaller ones calmer, as distance does.
    """
    relief = tile(beta, "relief", stretch)
    relief = relief / np.float32(relief.std())
    if sharp > 0:
        relief = np.exp(np.float32(sharp) * relief)
    slope = relief - np.roll(relief, (1, 1 if stretch < 1.5 else 0), axis=(0, 1))
    slope = np.ascontiguousarray(slope / slope.std(), dtype=np.float32)
    levels = [slope]
    while levels[-1].shape[0] > 64:
        levels.append(halve(levels[-1]))
    for level in levels:
        level.setflags(write=False)
    return tuple(levels)


def lay_plane(
    levels: tuple[Plane, ...], rows: int, width: int, far: float, rng: np.random.Generator
) -> Plane:
    """Look at a periodic texture on level ground from above, near at the bottom and far at the top.

    Parameters
    ----------
    levels : tuple of float32 arrays
        As :func:`slope_tile` returns them; the one that suits a row's distance is read.
    rows, width : int
        Size of the picture of the ground.
    far : float
        Distance of the first row relative to the last one, greater than 1.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (rows, width)
    """
    t = (np.arange(rows, dtype=np.float64) + 0.5) / rows
    depth = 1.0 / (1.0 / far + t * (1.0 - 1.0 / far))
    # Equal steps on the ground shrink with the square of the distance; 2.5 is the slant at the near edge.
    along = 2.5 * rows * depth + rng.uniform(0, TILE_SIZE)
    start = rng.uniform(0, TILE_SIZE)
    x = np.arange(width, dtype=np.float32) - np.float32(width / 2.0)
    out = np.empty((rows, width), dtype=np.float32)
    for row in range(rows):
        k = min(len(levels) - 1, int(np.log2(max(depth[row] * 1.25, 1.0))))
        level = levels[k]
        size = level.shape[0]
        source = level[int(along[row] / 2**k) % size]
        columns = (x * np.float32(depth[row] / 2**k) + np.float32(start / 2**k + 8 * size)).astype(np.int32)
        np.take(source, columns & (size - 1), out=out[row])
    return out


def relief_plane(
    rows: int,
    width: int,
    far: float,
    rng: np.random.Generator,
    *,
    beta: float = 3.2,
    stretch: float = 2.5,
    sharp: float = 0.0,
    swell: float = 1.0,
) -> Plane:
    """Look at rough ground in perspective, with slopes from a thousand pixels down to one.

    Parameters
    ----------
    rows, width, far
        As for :func:`lay_plane`.
    rng : numpy.random.Generator
    beta, stretch, sharp
        As for :func:`slope_tile`.
    swell : float
        Strength of the large slopes relative to the small ones.

    Returns
    -------
    float32 array of shape (rows, width)
        Slope towards the viewer.
    """
    levels = slope_tile(beta, stretch, sharp)
    fine = lay_plane(levels, rows, width, far, rng)
    for step, strength in _OCTAVES:
        coarse = lay_plane(levels, -(-rows // step) + 1, -(-width // step) + 1, far, rng)
        coarse *= np.float32(swell * strength)
        fine += enlarge(coarse, step, rows, width)
    return fine


def rock_tile(height: int, width: int, rng: np.random.Generator) -> Plane:
    """Return fine slopes of bare rock, float32 array of shape (height, width), standard deviation about 1."""
    return window(slope_tile(2.6, 1.0, 0.0)[0], height, width, rng)
