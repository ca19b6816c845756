"""The form every decoder hands its result over in, and the limits all of them share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featbank.errors import ImageError

MAX_PIXELS = 300_000_000
"""Most pixels (width x height) an image may claim; read from the header, before anything is allocated.

There is no clock on decoding: an alarm cannot stop a C library, and a time limit would make the outcome of a photo
depend on how busy the machine is. Instead the work is bounded. Every decoder's time and memory are at most
proportional to the pixels, limited here, and to the bytes, limited in `featbank.images.source`; whatever a file could
repeat cheaply beyond that (JPEG scans and segments, PNG chunks, TIFF pages, PPM comments) has a limit of its own
where it is read. `tests/featbank/images/test_bombs.py` keeps files that took minutes before.
"""

MAX_PROFILE_BYTES = 8 << 20
"""Largest ICC profile that is looked at; the largest press profiles in use stay below 4 MB."""


@dataclass
class Raster:
    """Decoded samples before colour, transparency and orientation are dealt with.

    Attributes
    ----------
    samples : uint8 array of shape (height, width) or (height, width, 3 or 4)
        Gray, RGB, or CMYK with 255 for full ink.
    kind : {"L", "RGB", "CMYK"}
        What the samples are.
    mode : str
        As stored in the file: channels, then ``;bits`` where they are not eight, such as ``RGB;16``.
    alpha : uint8 array of shape (height, width), optional
        255 is opaque.
    icc : bytes, optional
        The embedded colour profile, unchecked.
    exif : bytes, optional
        The embedded EXIF block, a TIFF directory, unchecked.
    actions : list of str
        What the decoder did, in order.
    """

    samples: NDArray[np.uint8]
    kind: str
    mode: str
    alpha: NDArray[np.uint8] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    actions: list[str] = field(default_factory=list)


def check_size(width: int, height: int) -> None:
    """Refuse a header that claims no pixels, or more than `MAX_PIXELS`.

    Raises
    ------
    ImageError
        ``corrupt`` for a side below one pixel, ``too-large`` above the limit.
    """
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"claims a size of {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(
            "too-large",
            f"claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}; scale it down first",
        )
