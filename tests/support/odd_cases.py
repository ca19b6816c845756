"""The picture that all odd files show, and the form of one case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 48, 64
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    data: bytes
    reason: str | None = None
    pixels: Pixels | None = None
    tolerance: int = 0
    actions: tuple[str, ...] = ()


def picture() -> Pixels:
    """A smooth picture without any symmetry, uint8 of shape (48, 64, 3)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green, blue = 4 * x, 255 - 5 * y, 128 + 60 * np.sin(x / 9 + y / 17)
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def gray_picture() -> Pixels:
    """Its gray sister, uint8 of shape (48, 64)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (2 * x + 2 * y + 20 * (x > 40)).clip(0, 255).astype(np.uint8)


def as_rgb(gray: NDArray[np.integer]) -> Pixels:
    return np.repeat(gray[:, :, None], 3, axis=2).astype(np.uint8)


def over_white(rgb: NDArray[np.integer], alpha: NDArray[np.integer]) -> Pixels:
    weight = alpha[:, :, None] / 255
    return np.rint(rgb * weight + 255 * (1 - weight)).astype(np.uint8)


def stored_for(upright: Pixels, orientation: int) -> Pixels:
    """What a camera stores so that ``orientation`` makes it upright: Pillow's names for the inverse turns."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    return np.asarray(image.transpose(turn[orientation]) if orientation in turn else image)
