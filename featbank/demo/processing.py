"""What a camera does after the sensor: tone curve, sharpening, resizing, compression; and its inverse, decoding.

Pictures here are as displayed: 8-bit values on the sRGB curve, and their luma.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from featbank.demo.canvas import Planes
from featbank.demo.filters import Plane, correlate_same, gaussian_taps, strips

FULL_WELL = 1.25
"""Linear light at which the sensor saturates; 1 is the white of a well exposed picture."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R'G'B' in the luma that JPEG files store (ITU-R BT.601)."""

_TABLE_SIZE = 1 << 16


@lru_cache(maxsize=8)
def tone_table(contrast: float) -> NDArray[np.float32]:
    """Return the tone curve from linear light to display values.

    Parameters
    ----------
    contrast : float
        Strength of the S-shaped part, 0 to 0.5.

    Returns
    -------
    float32 array of shape (65536,) in [0, 255]
        Entry k belongs to the linear light ``k / 65535 * 1.25``. Below 0.7 it is the sRGB curve
        (IEC 61966-2-1); above, a shoulder leads up to the full well.
    """
    x = np.linspace(0.0, FULL_WELL, _TABLE_SIZE)
    knee = 0.7
    top, span = 1.0 - knee, FULL_WELL - knee
    t = np.clip((x - knee) / span, 0.0, 1.0)
    # Quadratic shoulder with slope 1 at the knee that reaches white at the full well.
    shoulder = knee + span * t + (top - span) * t * t
    x = np.where(x < knee, x, np.minimum(shoulder, 1.0))
    v = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1.0 / 2.4) - 0.055)
    v = v + contrast * (v * v * (3.0 - 2.0 * v) - v)
    table = (v * 255.0).astype(np.float32)
    table.setflags(write=False)
    return table


_TO_INDEX = np.float32((_TABLE_SIZE - 1) / FULL_WELL)


def to_display(planes: Planes, contrast: float) -> NDArray[np.uint8]:
    """Apply the tone curve and round to 8 bits.

    Returns
    -------
    uint8 array of shape (height, width, n_channels)
    """
    n_channels, height, width = planes.shape
    table = (tone_table(contrast) + np.float32(0.5)).astype(np.uint8)
    out = np.empty((height, width, n_channels), dtype=np.uint8)
    for rows in strips(height):
        for channel in range(n_channels):
            index = planes[channel, rows] * _TO_INDEX
            np.clip(index, 0.0, _TABLE_SIZE - 1, out=index)
            out[rows, :, channel] = np.take(table, index.astype(np.uint16))
    return out


def display_luma(planes: Planes, contrast: float) -> Plane:
    """Return the luma of the picture as displayed, without rounding: the reference of the measure.

    Returns
    -------
    float32 array of shape (height, width) in [0, 255]
    """
    n_channels, height, width = planes.shape
    table = tone_table(contrast)
    out = np.zeros((height, width), dtype=np.float32)
    for rows in strips(height):
        for channel in range(n_channels):
            index = planes[channel, rows] * _TO_INDEX
            np.clip(index, 0.0, _TABLE_SIZE - 1, out=index)
            value = np.take(table, index.astype(np.uint16))
            value *= np.float32(1.0 if n_channels == 1 else LUMA[channel])
            out[rows] += value
    return out


def sharpen(pixels: NDArray[np.uint8], amount: float, sigma: float) -> NDArray[np.uint8]:
    """Add an unsharp mask of the luma to all channels; strong ones leave halos along edges.

    Parameters
    ----------
    pixels : uint8 array of shape (height, width, n_channels)
    amount : float
        Gain of the mask; 0 returns the pixels themselves.
    sigma : float
        Radius in pixels.

    Returns
    -------
    uint8 array of shape (height, width, n_channels)
    """
    if amount <= 0.0:
        return pixels
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    luma = np.asarray(picture.convert("L"), dtype=np.float32)
    detail = (luma - correlate_same(luma, gaussian_taps(max(sigma, 0.3)))) * np.float32(amount)
    out = np.empty_like(pixels)
    for rows in strips(pixels.shape[0]):
        raised = pixels[rows].astype(np.int16) + np.rint(detail[rows]).astype(np.int16)[..., None]
        out[rows] = np.clip(raised, 0, 255)
    return out


def shrink_and_enlarge(pixels: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Reduce a picture by ``factor`` and enlarge it to its old size, as copies passed around have been."""
    if factor <= 1.0:
        return pixels
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    small = picture.resize(
        (max(8, round(width / factor)), max(8, round(height / factor))), Image.Resampling.BICUBIC
    )
    out = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return out if out.ndim == 3 else out[..., None]


def encode_jpeg(pixels: NDArray[np.uint8], quality: int, *, is_subsampled: bool) -> bytes:
    """Write pixels as the bytes of a JPEG file.

    Parameters
    ----------
    pixels : uint8 array of shape (height, width, n_channels), n_channels 1 or 3
    quality : int
        1 to 100 on the scale of the Independent JPEG Group.
    is_subsampled : bool
        Store colour at half the size (4:2:0).

    Returns
    -------
    bytes
    """
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    file = io.BytesIO()
    options = {} if pixels.shape[2] == 1 else {"subsampling": 2 if is_subsampled else 0}
    picture.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def jpeg_luma(data: bytes) -> Plane:
    """Decode the luma of a JPEG file, float32 array of shape (height, width) in [0, 255]."""
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY")
    return decoded[..., 0].astype(np.float32)
