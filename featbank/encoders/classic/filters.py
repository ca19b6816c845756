"""Linear filters on float32 images, and what each costs in multiply-accumulates.

Every filter of the weight-free encoders goes through this module, so that the cost formulas can be checked
against the filters that really run. Borders are continued by reflection about the edge of the last pixel
(``d c b a | a b c d | d c b a``), which invents no step at the border.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]


def gaussian_taps(sigma: float, radius: int) -> NDArray[np.float64]:
    """Return ``2 radius + 1`` samples of a Gaussian of standard deviation ``sigma`` pixels, with sum 1."""
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-(offsets**2) / (2.0 * sigma**2))
    return taps / taps.sum()


def correlate(image: Image, taps: NDArray[np.float64], axis: int) -> Image:
    """Correlate a float32 image (height, width) along axis 0 (down) or 1 (across) with an odd number of taps.

    Same shape; the middle tap meets the pixel itself. Each value is summed in double precision, then rounded once.
    """
    return ndimage.correlate1d(image, taps, axis=axis, output=np.float32, mode="reflect")


def separable(image: Image, taps: NDArray[np.float64]) -> Image:
    """Correlate with the outer product of ``taps`` with itself; same shape as the image."""
    return correlate(correlate(image, taps, 0), taps, 1)


def difference(image: Image, before: int, after: int, axis: int) -> Image:
    """Return ``image[i + after] - image[i - before]`` along one axis, distances in pixels; same shape as the image.

    Slices do in one pass what a kernel of mostly zeros would do in many.
    """
    result = np.empty_like(image)
    source, target = (image, result) if axis == 0 else (image.T, result.T)
    n = source.shape[0]
    inner = slice(min(before, n), max(n - after, before))
    if n > before + after:
        np.subtract(source[before + after :], source[: n - before - after], out=target[inner])
    for i in (*range(inner.start), *range(min(inner.stop, n), n)):
        np.subtract(source[_reflect(i + after, n)], source[_reflect(i - before, n)], out=target[i])
    return result


def gradient(image: Image) -> tuple[Image, Image]:
    """Return the central differences ``(along x, along y)``, each of the image's shape, in levels per pixel."""
    half = np.float32(0.5)
    along_x, along_y = difference(image, 1, 1, 1), difference(image, 1, 1, 0)
    along_x *= half
    along_y *= half
    return along_x, along_y


def halve(image: Image) -> Image:
    """Return the means of 2 by 2 pixels, float32 (height // 2, width // 2); an odd last row or column is dropped.

    White noise of standard deviation s comes out with s / 2: the factor that the noise statistics rely on.
    """
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    rows = image[0:height:2] + image[1:height:2]
    return (rows[:, 0:width:2] + rows[:, 1:width:2]) * np.float32(0.25)


def block_mean(image: Image, block: int) -> Image:
    """Return the means of ``block`` by ``block`` pixels of an image whose sides are multiples of it."""
    height, width = image.shape
    # Rows first: long contiguous additions, and only a thin array is left for the short ones.
    rows = image.reshape(height // block, block, width).sum(axis=1)
    return rows.reshape(height // block, width // block, block).sum(axis=2) * np.float32(1.0 / block**2)


def correlate_macs(n_pixels: int, n_taps: int) -> int:
    """Cost of `correlate`: one multiply-accumulate per tap that is not zero and pixel."""
    return n_pixels * n_taps


def separable_macs(n_pixels: int, n_taps: int) -> int:
    """Cost of `separable`: two passes of `correlate`."""
    return 2 * correlate_macs(n_pixels, n_taps)


def difference_macs(n_pixels: int) -> int:
    """Cost of `difference`: two taps that are not zero."""
    return correlate_macs(n_pixels, 2)


def gradient_macs(n_pixels: int) -> int:
    """Cost of `gradient`: two differences."""
    return 2 * difference_macs(n_pixels)


def fft_macs(height: int, width: int) -> int:
    """Cost of one complex transform of ``height`` by ``width`` samples.

    A radix-2 transform of N points takes N/2 log2 N butterflies with one complex product each, that is four real
    multiply-accumulates: 2 N log2 N. A transform of real samples costs half of it.
    """
    n_points = height * width
    return math.ceil(2 * n_points * math.log2(max(n_points, 2)))


def grid_edges(length: int, n_cells: int) -> NDArray[np.intp]:
    """Return ``n_cells + 1`` borders that cut ``length`` pixels into cells whose sides differ by at most one pixel."""
    return np.arange(n_cells + 1) * length // n_cells


def cell_means(image: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the means of an image over the cells of a grid whose borders `grid_edges` gave."""
    sums = np.add.reduceat(image, rows[:-1], axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    return sums / np.outer(np.diff(rows), np.diff(columns))


def local_maximum(image: Image) -> Image:
    """Return the largest value among each pixel and its eight neighbours; same shape as the image."""
    across = image.copy()
    np.maximum(across[:, 1:], image[:, :-1], out=across[:, 1:])
    np.maximum(across[:, :-1], image[:, 1:], out=across[:, :-1])
    largest = across.copy()
    np.maximum(largest[1:], across[:-1], out=largest[1:])
    np.maximum(largest[:-1], across[1:], out=largest[:-1])
    return largest


def _reflect(i: int, n: int) -> int:
    """Return the pixel that stands at position ``i`` when ``n`` pixels are continued by reflection."""
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i
