"""Lays square windows of native pixels over a crop, so that the cost of a crop has a ceiling.

A photo of eight megapixels is described by a regular lattice of at most 36 windows of 256 x 256 pixels (about a
quarter of its area); a small crop is covered completely. The windows begin at multiples of 8 pixels, where the
block grid of a JPEG file lies when the crop begins at the file's own corner.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

WINDOW_PX = 256
MAX_WINDOWS = 36
# Statistics are collected in blocks of this side; windows are whole multiples of twice the block.
BLOCK_PX = 32
_STEP_PX = 64
_GRID_PX = 8


def window_shape(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the windows of a crop in pixels: multiples of 64, from 64 to 256."""
    return _side(height), _side(width)


def window_corners(height: int, width: int) -> list[tuple[int, int]]:
    """Return the top left corners ``(row, column)`` of the windows of a crop.

    Parameters
    ----------
    height, width : int
        Size of the crop in pixels, after `pad_crop`: at least 64 each.

    Returns
    -------
    list of (int, int)
        1 to 36 corners, all multiples of 8, spread evenly from border to border, row by row.
    """
    side_y, side_x = window_shape(height, width)
    wanted_rows = math.floor(math.sqrt(MAX_WINDOWS * height / width) + 0.5)
    n_rows = min(max(wanted_rows, 1), MAX_WINDOWS, _n_covering(height, side_y))
    n_columns = min(max(MAX_WINDOWS // n_rows, 1), _n_covering(width, side_x))
    rows, columns = _starts(height, side_y, n_rows), _starts(width, side_x, n_columns)
    return [(row, column) for row in rows for column in columns]


def pad_crop(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Continue a crop of less than 64 pixels on a side by reflection to 64; return others unchanged.

    Parameters
    ----------
    crop : uint8 array of shape (height, width, 3)

    Returns
    -------
    uint8 array of shape (max(height, 64), max(width, 64), 3)
    """
    missing = [max(_STEP_PX - crop.shape[axis], 0) for axis in (0, 1)]
    if not any(missing):
        return crop
    return np.pad(crop, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def _side(length: int) -> int:
    return min(WINDOW_PX, max(length // _STEP_PX, 1) * _STEP_PX)


def _n_covering(length: int, side: int) -> int:
    # Windows begin on the grid: what is left beyond its last line would only repeat a window.
    return math.ceil(length // _GRID_PX * _GRID_PX / side)


def _starts(length: int, side: int, n: int) -> list[int]:
    if n == 1:
        return [(length - side) // 2 // _GRID_PX * _GRID_PX]
    return [(length - side) * i // (n - 1) // _GRID_PX * _GRID_PX for i in range(n)]
