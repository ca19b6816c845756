"""What the weight-free encoders share: filters and their cost, luminance and colours, windows of native pixels.

Every filter goes through this module, so that the cost formulas can be checked against the filters that really run.
Borders are continued by reflection about the edge of the last pixel (``d c b a | a b c d | d c b a``), which invents no
step at the border.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featbank.encoders.spec import Encoder
from featbank.errors import EncoderError

Image = NDArray[np.float32]


def gaussian_taps(sigma: float, radius: int) -> NDArray[np.float64]:
    """Return ``2 radius + 1`` samples of a Gaussian of standard deviation ``sigma`` pixels, with sum 1."""
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-(offsets**2) / (2.0 * sigma**2))
    return taps / taps.sum()


def separable(image: Image, taps: NDArray[np.float64]) -> Image:
    """Correlate a float32 image (height, width) with the outer product of an odd number of taps with itself."""
    return cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT)


def gradient(image: Image) -> tuple[Image, Image]:
    """Return the central differences ``(along x, along y)``, each of the image's shape, in levels per pixel."""
    along_x, along_y = (
        cv2.Sobel(image, cv2.CV_32F, *order, ksize=1, scale=0.5, borderType=cv2.BORDER_REFLECT)
        for order in ((1, 0), (0, 1))
    )
    return along_x, along_y


def magnitude(along_x: Image, along_y: Image) -> Image:
    """Return the lengths of vectors; those of OpenCV follow where in memory its input lies."""
    squares = along_x * along_x
    squares += along_y * along_y
    return np.sqrt(squares, out=squares)


def halve(image: Image) -> Image:
    """Return the means of 2 by 2 pixels, (height // 2, width // 2); an odd last row or column is dropped.

    White noise of standard deviation s comes out with s / 2: the factor that the noise statistics rely on.
    """
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


def block_mean(image: NDArray[Any], block: int) -> Image:
    """Return the means of ``block`` by ``block`` pixels of an image whose sides are multiples of it.

    Small counts may come as bytes, which add fast; the sum of ``block`` of them must fit into a byte.
    """
    height, width = image.shape
    # Rows first: long contiguous additions, and only a thin array is left for the short ones.
    rows = image.reshape(height // block, block, width).sum(axis=1, dtype=image.dtype)
    sums = rows.reshape(height // block, width // block, block).sum(axis=2, dtype=np.float32)
    return sums * np.float32(1.0 / block**2)


def separable_macs(n_pixels: int, n_taps: int) -> int:
    """Cost of `separable`: one multiply-accumulate per tap that is not zero and pixel, in two passes."""
    return 2 * n_pixels * n_taps


def difference_macs(n_pixels: int) -> int:
    """Cost of a difference of two pixels: two taps that are not zero."""
    return 2 * n_pixels


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


def is_peak(image: Image) -> NDArray[np.bool_]:
    """Tell which pixels are as large as each of their eight neighbours, but for rounding; those of 0 are none.

    Values within a part in 2,048 count as equal, so that the two sides of a symmetric ridge do not depend on the last
    digit of a filter.
    """
    largest = cv2.dilate(image, np.ones((3, 3), dtype=np.uint8))
    largest *= np.float32(1 - 2.0**-11)
    return (image >= largest) & (image > 0)


MIN_SIDE_PX = 8
_NAMING_SIDE_PX = 64


class ClassicEncoder(Encoder):
    """Encoder whose features are named numbers computed from one crop without learned weights."""

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


_OPPONENT = np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])


def luminance(pixels: NDArray[Any]) -> Image:
    """Return the luma (ITU-R BT.601) of gamma-encoded sRGB pixels (height, width, 3), float32 in [0, 255]."""
    return cv2.cvtColor(pixels.astype(np.float32, order="C"), cv2.COLOR_RGB2GRAY)


def opponent_colours(pixels: NDArray[Any]) -> tuple[Image, Image]:
    """Return red minus green, and yellow minus blue: ``R - G`` and ``(R + G) / 2 - B``, in levels.

    References
    ----------
    Hasler and Suesstrunk (2003), Measuring colourfulness in natural images, SPIE 5007, section 7.
    """
    first, second = cv2.split(cv2.transform(pixels.astype(np.float32, order="C"), _OPPONENT))
    return first, second


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
