"""The content encoder ``classic:layout``: where the colours lie and which way the edges run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featbank.encoders.classic import filters, photometry
from featbank.encoders.classic.base import ClassicEncoder
from featbank.encoders.classic.filters import Image

COLOUR_GRID = 8
# Coefficients kept in zigzag order: 21 of luma, 10 of each chroma, admissible counts of the standard.
N_LUMA, N_CHROMA = 21, 10
HOG_CELLS = 4
HOG_ORIENTATIONS = 9
_HOG_CLIP = 0.2
_HOG_FLOOR = 1e-5


class LayoutEncoder(ClassicEncoder):
    """Colour layout and histograms of oriented gradients of a small image.

    Meant for a small squashed image such as 256 x 256 pixels.

    References
    ----------
    Kasutani and Yamada (2001), The MPEG-7 color layout descriptor, ICIP. Dalal and Triggs (2005), Histograms of
    oriented gradients for human detection, CVPR.
    """

    def parameters(self) -> dict[str, Any]:
        """Return grids, counts and clipping."""
        return {
            "colour_grid": COLOUR_GRID,
            "luma_coefficients": N_LUMA,
            "chroma_coefficients": N_CHROMA,
            "hog_cells": HOG_CELLS,
            "hog_orientations": HOG_ORIENTATIONS,
            "hog_clip": _HOG_CLIP,
        }

    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return 41 colour layout and 144 gradient layout numbers of one crop of shape (height, width, 3)."""
        luma = photometry.luminance(crop)
        features: dict[str, float] = {}
        order = _zigzag(COLOUR_GRID)
        # The differences of colour from luma, scaled to the range of 8-bit Cb and Cr.
        blue = (crop[..., 2] - luma) * np.float32(0.564)
        red = (crop[..., 0] - luma) * np.float32(0.713)
        for name, plane, n_kept in (("y", luma, N_LUMA), ("cb", blue, N_CHROMA), ("cr", red, N_CHROMA)):
            coefficients = colour_layout(plane)
            for k, (row, column) in enumerate(order[:n_kept]):
                features[f"{name}_{k:02d}"] = float(coefficients[row, column])
        for (row, column, turn), share in np.ndenumerate(gradient_layout(luma)):
            features[f"hog_cell{row}{column}_turn{turn}"] = float(share)
        return features

    def count_macs(self, height: int, width: int) -> int:
        """Return the filter arithmetic: luma and two chroma planes, the gradient, and three transforms of 8 x 8."""
        self.check_size(height, width)
        transforms = 3 * filters.separable_macs(COLOUR_GRID**2, COLOUR_GRID)
        return filters.gradient_macs(height * width) + transforms


def colour_layout(plane: Image) -> NDArray[np.float64]:
    """Return the cosine transform of the plane's means on an 8 by 8 grid.

    Parameters
    ----------
    plane : float32 array of shape (height, width), at least 8 by 8
        One colour channel in levels.

    Returns
    -------
    float64 array of shape (8, 8)
        Orthonormal coefficients in units of 255 levels, divided by 8: the first is the mean.
    """
    grid = [filters.grid_edges(length, COLOUR_GRID) for length in plane.shape]
    means = filters.cell_means(plane, *grid)
    return fft.dctn(means, norm="ortho") / (COLOUR_GRID * 255)


def gradient_layout(luma: Image) -> NDArray[np.float64]:
    """Return histograms of unsigned gradient orientation in 4 by 4 cells, normalised together.

    All cells form one block of Dalal and Triggs, so that the share of each cell is kept; L2-Hys normalisation:
    unit length, clip at 0.2, unit length again.

    Parameters
    ----------
    luma : float32 array of shape (height, width), at least 4 by 4

    Returns
    -------
    float64 array of shape (4, 4, 9)
        Bins of 20 degrees of the gradient's direction from the x axis, in [0, 1]; 0 for a constant image.
    """
    along_x, along_y = filters.gradient(luma)
    magnitude = np.hypot(along_x, along_y)
    angle = np.arctan2(along_y, along_x)
    turn = np.floor(angle * np.float32(HOG_ORIENTATIONS / np.pi)).astype(np.int64) % HOG_ORIENTATIONS
    row, column = (
        np.searchsorted(filters.grid_edges(length, HOG_CELLS), np.arange(length), side="right") - 1
        for length in luma.shape
    )
    cell = row[:, None] * HOG_CELLS + column[None, :]
    n_bins = HOG_CELLS**2 * HOG_ORIENTATIONS
    sums = np.bincount((cell * HOG_ORIENTATIONS + turn).ravel(), weights=magnitude.ravel(), minlength=n_bins)
    histogram = sums / (luma.size / HOG_CELLS**2)
    histogram = np.minimum(_unit_length(histogram), _HOG_CLIP)
    return _unit_length(histogram).reshape(HOG_CELLS, HOG_CELLS, HOG_ORIENTATIONS)


def _unit_length(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.sqrt(np.square(vector).sum() + _HOG_FLOOR**2)


def _zigzag(n: int) -> list[tuple[int, int]]:
    """Return the cells of an n by n square along its diagonals, turning at the borders, as JPEG orders them."""
    cells = [(row, column) for row in range(n) for column in range(n)]
    return sorted(cells, key=lambda c: (c[0] + c[1], c[0] if (c[0] + c[1]) % 2 else c[1]))
