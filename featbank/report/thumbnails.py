"""Small JPEGs of the photos a page shows, inlined; a photo that cannot be had becomes a stated absence."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from featbank.errors import ImageError, StoreError
from featbank.images import REASONS, read_photo

LONG_SIDE_PX = 320
_JPEG_QUALITY = 76


@dataclass(frozen=True)
class Thumbnail:
    """A photo small enough for a page, or why there is none.

    Attributes
    ----------
    source : str
        ``data:`` address of a JPEG, empty where there is none.
    reason : str
        Why there is none, empty otherwise.
    width, height : int
        Pixels of the thumbnail, 0 where there is none.
    """

    source: str = ""
    reason: str = ""
    width: int = 0
    height: int = 0


def make_thumbnail(path: str | Path | None) -> Thumbnail:
    """Read a photo through the one decoder and shrink it to 320 pixels on its long side.

    Parameters
    ----------
    path : path or None
        None where the caller knows of no file.

    Returns
    -------
    Thumbnail
        Without a source where the file is absent or no readable image: a page about predictions must not fail
        for want of a picture.
    """
    if path is None:
        return Thumbnail(reason="photo not at hand")
    try:
        photo = read_photo(path)
    except ImageError as error:
        return Thumbnail(reason=REASONS.get(error.reason, error.reason))
    except StoreError:
        return Thumbnail(reason="photo not at hand")
    image = Image.fromarray(photo.pixels)
    scale = min(1.0, LONG_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", width=image.width, height=image.height)
