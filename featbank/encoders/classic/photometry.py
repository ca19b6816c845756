"""Luminance and chroma of sRGB pixels, and the statistics of exposure, contrast and colour of a whole crop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from featbank.encoders.classic.filters import Image

# Exposure and colour change slowly over a photo: about this many pixels on a regular grid tell them.
_SAMPLE_PIXELS = 2**17
_DARK, _BRIGHT = 3, 252
# A few clipped pixels, a lamp or a glint, are no fault: shares are compared in octaves down to one pixel in 32.
_SHARE_FLOOR = 2.0**-5
# Below this many levels an image looks grey, and octaves of colour mean nothing.
_COLOUR_FLOOR = 8.0
_CONTRAST_FLOOR = 4.0


def luminance(pixels: NDArray[np.uint8]) -> Image:
    """Return the luma of ITU-R BT.601 of gamma-encoded sRGB pixels.

    Parameters
    ----------
    pixels : uint8 array of shape (..., 3)

    Returns
    -------
    float32 array of shape (...) in [0, 255]
    """
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
    """Return the colourfulness of an image: 0 for grey, about 15 for little colour, 109 for extreme colour.

    Parameters
    ----------
    pixels : uint8 array of shape (..., 3)

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
    """Return exposure, contrast, clipping and colour of a crop, on a regular sample of its pixels.

    Parameters
    ----------
    crop : uint8 array of shape (height, width, 3)

    Returns
    -------
    dict of float
        Luma percentiles in units of 255, contrast in octaves of levels, entropy in units of 8 bits, clipped
        shares in octaves, colourfulness and saturation.
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
