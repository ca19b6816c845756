"""Resizing by Pillow's filters, or by torch's 8-bit bicubic where a view asks for the filter ``fast``."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbank.digest import digest_bytes
from featbank.errors import ViewError

FAST_FILTER = "fast"


def resize_fast(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Reduce uint8 pixels (any, any, 3) to (height, width, 3); about nine times the speed of Pillow for a 4K photo.

    On 4K photographs within one level of Pillow's bicubic. Where an image is squashed more one way than the other,
    Pillow takes the other pass first since its version 13, and clips at hard edges in between: single pixels
    then differ by more, up to 11 levels on photographs of some 500 pixels. Here rows come first on all images:
    what a view shows must not follow the release of a library.

    Raises
    ------
    ViewError
        If torch is not installed.
    """
    torch = _torch()
    # torch takes no read-only memory, and its fast path no gaps between rows.
    whole = np.require(pixels, requirements=["C", "W"])
    planes = torch.from_numpy(whole).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        planes, (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    result: NDArray[np.uint8] = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
    return result


def _torch() -> Any:  # noqa: ANN401 - an optional module
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise ViewError(
            f"view filter {FAST_FILTER!r} needs the package 'torch', which is not installed. Install it with pip "
            "install 'featbank[encoders]', or leave the filter's name away: the default is Pillow's bicubic, whose "
            "features are kept under another key."
        ) from error


FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Filters by name: cubic convolution with a = -0.5, triangle, and Lanczos with three lobes."""

FILTER_NAMES = (*FILTERS, FAST_FILTER)
"""Every filter a view may name. The last one reduces by another library's bicubic (`featbank.views.fast_resize`)
and enlarges by Pillow's: there the libraries differ more, by the order of their passes, and little time is spent.
"""

DEFAULT_FILTER = "bicubic"

MAX_OUTPUT_PIXELS = 300_000_000
"""Most pixels a resize may yield: enlarging a thin strip to a crop's size would otherwise take any memory."""


def resize(pixels: NDArray[np.uint8], height: int, width: int, filter_name: str) -> NDArray[np.uint8]:
    """Resize uint8 pixels (any, any, 3) to (height, width, 3) by one of `FILTER_NAMES`, whatever the aspect.

    Of a slice of a larger image only the slice is read. ``pixels`` itself is returned where the size is already right.

    Raises
    ------
    ViewError
        If the filter's library is not installed.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if filter_name == FAST_FILTER and height <= pixels.shape[0] and width <= pixels.shape[1]:
        return resize_fast(pixels, height, width)
    # Pillow's own box argument would let the filter reach beyond the slice, which no published recipe does.
    resample = FILTERS[DEFAULT_FILTER if filter_name == FAST_FILTER else filter_name]
    resized = Image.fromarray(pixels).resize((width, height), resample=resample)
    return np.array(resized)


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale to half the size, rounded down, by bicubic; a side of one pixel stays.

    References
    ----------
    .. [1] P. C. Madhusudana et al., "Image Quality Assessment using Contrastive Learning", IEEE TIP 31, 2022
       (CONTRIQUE), whose second scale this is.
    """
    return resize(pixels, *half_size(*pixels.shape[:2]), DEFAULT_FILTER)


def half_size(height: int, width: int) -> tuple[int, int]:
    """Return half of a size, rounded down, at least one pixel."""
    return max(1, height // 2), max(1, width // 2)


def size_to_hold(height: int, width: int, min_height: int, min_width: int) -> tuple[int, int]:
    """Return the (height, width) an image is enlarged to so that a crop fits: aspect kept, just enough.

    The side that lacked most becomes exactly the crop's, the other one is rounded to the nearest pixel.
    """
    if height >= min_height and width >= min_width:
        return height, width
    # The factor is the larger one of min_height / height and min_width / width; compared as integers.
    if min_height * width >= min_width * height:
        return min_height, max(min_width, _nearest(width * min_height, height))
    return max(min_height, _nearest(height * min_width, width)), min_width


def check_output(step: str, height: int, width: int, new_height: int, new_width: int) -> None:
    """Refuse a resize whose result would be beyond any use.

    Raises
    ------
    ViewError
        If the result exceeds `MAX_OUTPUT_PIXELS`.
    """
    if new_height * new_width > MAX_OUTPUT_PIXELS:
        raise ViewError(
            f"view step {step!r} must yield at most {MAX_OUTPUT_PIXELS} pixels, but turns an image of "
            f"{width} x {height} into {new_width} x {new_height}. Leave this image out, or use a view with 'square'."
        )


@functools.cache
def probe_filter(filter_name: str) -> str:
    """Digest what a filter does to a fixed picture at several sizes.

    Stands for the behaviour of the library in a view's identity: a new version that changes one level of one
    pixel gives features another key, one that changes nothing keeps the cache.
    """
    y, x = np.mgrid[0:37, 0:53]
    picture = np.stack([(x * x + 7 * y) % 256, (x * y) % 256, (31 * x + 17 * y * y) % 256], axis=-1).astype(
        np.uint8
    )
    # Reduced, enlarged, and both at once: Pillow 13 changed the order of the two passes for such squashes.
    sizes = ((11, 17), (61, 83), (9, 71), (59, 13), (12, 40))
    return digest_bytes(b"".join(resize(picture, *size, filter_name).tobytes() for size in sizes))


def _nearest(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
