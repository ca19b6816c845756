"""What the weight-free encoders share: linear filters and their cost, luminance and colours, windows of native pixels.

Every filter goes through this module, so that the cost formulas can be checked against the filters that really run.
Borders are continued by reflection about the edge of the last pixel (``d c b a | a b c d | d c b a``), which invents no
step at the border.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from featbank.encoders.spec import Encoder
from featbank.errors import EncoderError

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


MIN_SIDE_PX = 8
_NAMING_SIDE_PX = 64


class ClassicEncoder(Encoder):
    """Encoder whose features are named numbers computed from one crop by numpy and scipy alone."""

    #: Raised with any change of the code that moves a feature.
    epoch: int = 1

    @abstractmethod
    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the named features of one crop of shape (height, width, 3), always in the same order."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, ready for JSON."""

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers; a weight-free encoder is its own forward pass."""
        return {
            "name": self.spec.name,
            "weights": self.spec.weights,
            "taps": [],
            "pooling": "none",
            "normalisation": "none",
            "parameters": self.parameters(),
            "numerics": "float32",
            "epoch": self.epoch,
        }

    def pass_identity(self) -> dict[str, Any]:
        """Return what decides the computation: name, parameters, numerics and epoch."""
        identity = self.identity()
        return {
            key: identity[key]
            for key in ("name", "weights", "normalisation", "parameters", "numerics", "epoch")
        }

    def check_size(self, height: int, width: int) -> None:
        """Refuse crops with a side of less than 8 pixels.

        Raises EncoderError if either side is shorter.
        """
        if min(height, width) < MIN_SIDE_PX:
            raise EncoderError(
                f"{self.spec.name}: crops must be at least {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels, "
                f"got {height} x {width}. Choose a view with larger crops."
            )

    def feature_names(self) -> list[str]:
        """Return the names of the columns in order."""
        blank = np.zeros((_NAMING_SIDE_PX, _NAMING_SIDE_PX, 3), dtype=np.uint8)
        return list(self.describe(blank))

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([list(self.describe(crop).values()) for crop in crops], dtype=np.float32)


# Exposure and colour change slowly over a photo: about this many pixels on a regular grid tell them.
_SAMPLE_PIXELS = 2**17
_DARK, _BRIGHT = 3, 252
# A few clipped pixels, a lamp or a glint, are no fault: shares are compared in octaves down to one pixel in 32.
_SHARE_FLOOR = 2.0**-5
# Below this many levels an image looks grey, and octaves of colour mean nothing.
_COLOUR_FLOOR = 8.0
_CONTRAST_FLOOR = 4.0


def luminance(pixels: NDArray[np.uint8]) -> Image:
    """Return the luma (ITU-R BT.601) of gamma-encoded sRGB pixels uint8 (..., 3), float32 (...) in [0, 255]."""
    luma = pixels[..., 0] * np.float32(0.299)
    luma += pixels[..., 1] * np.float32(0.587)
    luma += pixels[..., 2] * np.float32(0.114)
    return luma


def opponent_colours(pixels: NDArray[np.uint8]) -> tuple[Image, Image]:
    """Return red minus green, and yellow minus blue: ``R - G`` and ``(R + G) / 2 - B``, in levels.

    References
    ----------
    Hasler and Suesstrunk (2003), Measuring colourfulness in natural images, SPIE 5007, section 7.
    """
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    return red - green, (red + green) * np.float32(0.5) - blue


def colourfulness(pixels: NDArray[np.uint8]) -> float:
    """Return the colourfulness of uint8 pixels (..., 3): 0 for grey, about 15 for little, 109 for extreme colour.

    References
    ----------
    Hasler and Suesstrunk (2003), Measuring colourfulness in natural images, SPIE 5007, equation for M(3).
    """
    first, second = opponent_colours(pixels)
    spread = math.hypot(first.std(dtype=np.float64), second.std(dtype=np.float64))
    return spread + 0.3 * math.hypot(first.mean(dtype=np.float64), second.mean(dtype=np.float64))


def sample_pixels(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every n-th pixel of every n-th row, about 131,000 of them; all pixels of a small crop."""
    height, width, _ = crop.shape
    step = max(math.isqrt(height * width // _SAMPLE_PIXELS), 1)
    return crop[step // 2 :: step, step // 2 :: step]


def describe_photometry(crop: NDArray[np.uint8]) -> dict[str, float]:
    """Return exposure, contrast, clipping and colour of a uint8 crop (height, width, 3), on a regular sample.

    Luma percentiles in units of 255, contrast in octaves of levels, entropy in units of 8 bits, clipped shares in
    octaves, colourfulness and saturation.
    """
    sample = sample_pixels(crop)
    luma = luminance(sample)
    # Percentiles and entropy from the histogram of 256 levels: no sorting of pixels.
    counts = np.bincount(np.rint(luma).astype(np.uint8).ravel(), minlength=256)
    share = counts / counts.sum()
    cumulative = np.cumsum(share)
    low, high = (int(np.searchsorted(cumulative, level)) / 255 for level in (0.05, 0.95))
    occupied = share[share > 0]
    highest, lowest = sample.max(axis=-1), sample.min(axis=-1)
    saturation = (highest - lowest) / np.maximum(highest, np.uint8(1)).astype(np.float32)
    return {
        "exposure_mean": float(luma.mean(dtype=np.float64)) / 255,
        "exposure_p05": low,
        "exposure_p95": high,
        "contrast": math.log2(float(luma.std(dtype=np.float64)) + _CONTRAST_FLOOR),
        "entropy": float(-(occupied * np.log2(occupied)).sum()) / 8,
        "clipped_dark": math.log2(float(share[: _DARK + 1].sum()) + _SHARE_FLOOR),
        "clipped_bright": math.log2(float(share[_BRIGHT:].sum()) + _SHARE_FLOOR),
        "saturation": float(saturation.mean(dtype=np.float64)),
        "colourfulness": math.log2(colourfulness(sample) + _COLOUR_FLOOR),
    }


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
    """Return the 1 to 36 top left corners ``(row, column)`` of the windows of a crop after `pad_crop`.

    All are multiples of 8, spread evenly from border to border, row by row.
    """
    side_y, side_x = window_shape(height, width)
    wanted_rows = math.floor(math.sqrt(MAX_WINDOWS * height / width) + 0.5)
    n_rows = min(max(wanted_rows, 1), MAX_WINDOWS, _n_covering(height, side_y))
    n_columns = min(max(MAX_WINDOWS // n_rows, 1), _n_covering(width, side_x))
    rows, columns = _starts(height, side_y, n_rows), _starts(width, side_x, n_columns)
    return [(row, column) for row in rows for column in columns]


def pad_crop(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Continue a crop (height, width, 3) with sides below 64 pixels by reflection to 64; return others unchanged."""
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
