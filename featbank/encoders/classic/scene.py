"""The encoders of small whole images: ``classic:gist`` (spatial envelope) and ``classic:layout`` (colours, edges)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import ClassicEncoder, Image

N_SCALES = 4
N_ORIENTATIONS = 8
GRID = 4
# Centre frequencies in cycles per pixel: 0.3, then each lower by 1.85; the values of the published code.
HIGHEST_FREQUENCY = 0.3
FREQUENCY_RATIO = 1.85
# Width of the whitening low-pass in cycles per image, and the contrast that counts as none.
_PREFILTER_CYCLES = 4.0
_CONTRAST_FLOOR = 0.2
# Energies are compared in octaves above this share of the normalised contrast.
_ENERGY_FLOOR = 2.0**-7
_MAX_CACHED_PIXELS = 2**18


class GistEncoder(ClassicEncoder):
    """Spatial envelope of a scene: 4 scales, 8 orientations, 16 cells.

    Meant for a small squashed image such as 256 x 256 pixels. Cost and memory grow with the crop; the filters
    are tied to pixels, so that a larger crop describes finer structure.

    References
    ----------
    Oliva and Torralba (2001), Modeling the shape of the scene, IJCV 42(3), sections 3 and 6.
    """

    def parameters(self) -> dict[str, Any]:
        """Return the filter bank's layout."""
        return {
            "scales": N_SCALES,
            "orientations": N_ORIENTATIONS,
            "grid": GRID,
            "highest_frequency": HIGHEST_FREQUENCY,
            "frequency_ratio": FREQUENCY_RATIO,
            "prefilter_cycles": _PREFILTER_CYCLES,
        }

    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the 512 named energies, in octaves, of one crop of shape (height, width, 3)."""
        height, width, _ = crop.shape
        padded = whiten(np.pad(filters.luminance(crop), _padding(height, width), mode="symmetric"))
        spectrum = fft.fft2(padded)
        (top, _), (left, _) = _padding(height, width)
        rows, columns = filters.grid_edges(height, GRID), filters.grid_edges(width, GRID)
        features = {}
        for (scale, orientation), kernel in kernels(*padded.shape):
            response = fft.ifft2(spectrum * kernel, overwrite_x=True)[top : top + height, left : left + width]
            energy = filters.cell_means(np.abs(response), rows, columns)
            for cell, value in np.ndenumerate(np.log2(energy + _ENERGY_FLOOR)):
                features[f"scale{scale}_turn{orientation}_cell{cell[0]}{cell[1]}"] = float(value)
        return features

    def count_macs(self, height: int, width: int) -> int:
        """Return the filter arithmetic for one crop.

        Two low-pass filters of the prefilter (four real transforms and two products), one complex transform, and for
        each of the 32 filters a product and an inverse transform.
        """
        self.check_size(height, width)
        padded_height, padded_width = (
            n + sum(pad) for n, pad in zip((height, width), _padding(height, width), strict=True)
        )
        transform = filters.fft_macs(padded_height, padded_width)
        n_points = padded_height * padded_width
        prefilter = 2 * transform + 2 * 2 * padded_height * (padded_width // 2 + 1)
        return prefilter + transform + N_SCALES * N_ORIENTATIONS * (2 * n_points + transform)


def whiten(luma: Image) -> Image:
    """Return the logarithm of a luma (height, width) in [0, 255] without low frequencies, over its local contrast.

    Local deviation near 1 wherever there is contrast, 0 for a constant image.

    References
    ----------
    Oliva and Torralba (2001), IJCV 42(3), section 3.1.
    """
    height, width = luma.shape
    low_pass = _low_pass(height, width)
    log_luma = np.log1p(luma)
    log_luma -= log_luma.mean(dtype=np.float64).astype(np.float32)
    detail = log_luma - fft.irfft2(fft.rfft2(log_luma) * low_pass, s=luma.shape)
    power = fft.irfft2(fft.rfft2(detail * detail) * low_pass, s=luma.shape)
    return detail / (np.float32(_CONTRAST_FLOOR) + np.sqrt(np.abs(power)))


def kernels(height: int, width: int) -> Iterator[tuple[tuple[int, int], Image]]:
    """Yield ``((scale, orientation), kernel)``, each a one-sided real kernel in the frequency plane.

    References
    ----------
    Oliva and Torralba (2001), IJCV 42(3), equation 8; constants of the authors' published code.
    """
    if height * width <= _MAX_CACHED_PIXELS:
        yield from _cached_kernels(height, width)
    else:
        # A bank of 32 kernels of several megapixels would fill the memory.
        yield from _build_kernels(height, width)


@lru_cache(maxsize=2)
def _cached_kernels(height: int, width: int) -> list[tuple[tuple[int, int], Image]]:
    return list(_build_kernels(height, width))


def _build_kernels(height: int, width: int) -> Iterator[tuple[tuple[int, int], Image]]:
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius, angle = np.hypot(fy, fx), np.arctan2(fy, fx)
    for scale in range(N_SCALES):
        centre = HIGHEST_FREQUENCY / FREQUENCY_RATIO**scale
        radial = 3.5 * (radius / centre - 1) ** 2
        for orientation in range(N_ORIENTATIONS):
            turned = angle + np.pi * orientation / N_ORIENTATIONS
            turned = (turned + np.pi) % (2 * np.pi) - np.pi
            angular = 2 * np.pi * (16 * N_ORIENTATIONS**2 / 32**2) * turned**2
            yield (scale, orientation), np.exp(-radial - angular).astype(np.float32)


@lru_cache(maxsize=4)
def _low_pass(height: int, width: int) -> Image:
    # Cycles per image along each axis; the Gaussian falls to one half at four cycles.
    fy = np.fft.fftfreq(height)[:, None] * height
    fx = np.fft.rfftfreq(width)[None, :] * width
    return np.exp(-(fx**2 + fy**2) * np.log(2) / _PREFILTER_CYCLES**2).astype(np.float32)


def _padding(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the reflected border: an eighth of each side, at most 32 pixels as in the published code."""
    rows, columns = (min(length // 8, 32) for length in (height, width))
    return (rows, rows), (columns, columns)


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
        luma = filters.luminance(crop)
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
    """Return the cosine transform of the means of a colour plane (height, width) on an 8 by 8 grid, float64 (8, 8).

    Orthonormal coefficients in units of 255 levels, divided by 8: the first is the mean.
    """
    grid = [filters.grid_edges(length, COLOUR_GRID) for length in plane.shape]
    means = filters.cell_means(plane, *grid)
    return fft.dctn(means, norm="ortho") / (COLOUR_GRID * 255)


def gradient_layout(luma: Image) -> NDArray[np.float64]:
    """Return histograms of unsigned gradient orientation in 4 by 4 cells, normalised together, (4, 4, 9) in [0, 1].

    All cells form one block of Dalal and Triggs, so that the share of each cell is kept; L2-Hys normalisation:
    unit length, clip at 0.2, unit length again. Bins are 20 degrees from the x axis; 0 for a constant image.
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
