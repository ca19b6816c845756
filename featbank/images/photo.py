"""The public step from a file to a photo: fetch, name the format, decode, finish."""

from __future__ import annotations

import base64
import importlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbank.digest import digest_bytes
from featbank.errors import ImageError
from featbank.images.colour import to_srgb
from featbank.images.formats import (
    MAX_PIXELS,
    Raster,
    decode_foreign,
    exif_of,
    is_camera_raw,
    missing_package,
    read_orientation,
)
from featbank.images.jpeg import decode_jpeg
from featbank.images.png import decode_png
from featbank.images.source import HEAD_BYTES, MAX_FILE_BYTES, SUFFIXES, read_bytes, sniff
from featbank.remote import Place, RemotePath, as_place, utf8_name


@dataclass(frozen=True, eq=False)
class Photo:
    """One decoded photograph.

    Attributes
    ----------
    pixels : uint8 array of shape (height, width, 3), C-contiguous
        Upright sRGB in [0, 255].
    digest : str
        SHA-256 of the file's bytes, 64 hexadecimal digits; the identity of the image.
    format : str
        What the content is, such as ``JPEG``, whatever the file is called.
    mode : str
        Channels as stored, then ``;bits`` where they are not eight: ``RGB``, ``L;16``, ``CMYK``, ``P``.
    actions : tuple of str
        Everything that was done on the way, in order; empty for an ordinary sRGB photo. Each is a word,
        with a detail after a colon where there is one:
        ==================================  ===========================================================
        ``misnamed:.png``                   the suffix promises another format than the content is
        ``first-frame-of:12``               the other frames or pages were left out
        ``gray-to-rgb``, ``cmyk-to-rgb``    channels replicated; inks multiplied
        ``adobe-inversion``                 CMYK stored with 255 for no ink was inverted
        ``palette-to-rgb``                  colours looked up
        ``bilevel-to-8``, ``10-bit-to-8``,  depth changed to eight bits
        ``16-bit-to-8``, ``float-to-8``
        ``white-is-zero``                   deep samples that counted from white were inverted
        ``icc:Display P3``                  converted by the embedded profile (none if it says sRGB)
        ``icc-ignored:broken``              or ``empty``, ``incomplete``, ``mismatch``, ``too-large``: taken as sRGB
        ``cicp:12/13``                      converted from signalled primaries and curve (none if they are sRGB's)
        ``gamma-ignored:1``                 a PNG gamma other than sRGB's was not applied
        ``alpha-over-white``                transparency laid on white
        ``opaque-alpha-dropped``            an alpha channel without effect was left out
        ``transparency-ignored:16-bit``     a transparent colour that can no longer be told apart
        ``orientation:6``                   turned or mirrored as EXIF says
        ``orientation-ignored:9``           an EXIF value without meaning
        ``exif-ignored:broken``             an unreadable EXIF block
        ``unusual-sampling``                decoded by Pillow, without the strict check for damage
        ``mended:bytes-before-end``         or ``bytes-between-segments``, ``scan-parameters``, ``jfif-version``: what
                                            libjpeg warns of in a JPEG although every pixel is in place
        ``truncated-kept``,                 a damaged JPEG, decoded because ``keep_truncated`` was asked for
        ``corrupt-kept``
        ``raw-preview``                     the full-size preview that a camera put into its raw file
        ==================================  ===========================================================
    """

    pixels: NDArray[np.uint8]
    digest: str
    format: str
    mode: str
    actions: tuple[str, ...]

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])


Source = str | Place | bytes | NDArray[np.uint8] | Image.Image
"""What `read_photo` takes: a file, its URL, its content, or an image in memory."""


TRUNCATED_VARIABLE = "FEATBANK_TRUNCATED"


def keeps_truncated() -> bool:
    """Tell whether this process takes what is left of damaged JPEGs; by default they are refused."""
    return os.environ.get(TRUNCATED_VARIABLE) == "keep"


@contextmanager
def keeping_truncated() -> Iterator[None]:
    """Take what is left of damaged JPEGs, here and in processes that are started inside."""
    before = os.environ.get(TRUNCATED_VARIABLE)
    os.environ[TRUNCATED_VARIABLE] = "keep"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRUNCATED_VARIABLE]
        else:
            os.environ[TRUNCATED_VARIABLE] = before


def read_photo(source: Source, *, keep_truncated: bool | None = None) -> Photo:
    """Read one image as upright 8-bit sRGB pixels.

    The content decides the format, never the name. Whatever can be decoded without doubt is, and everything
    done is recorded; whatever is damaged or has no agreed meaning is refused with a reason. Memory stays
    within a few times three bytes per pixel, and nothing is allocated before the header's size has passed
    the limit.

    Parameters
    ----------
    source : str, Path, RemotePath, bytes, uint8 array or PIL.Image.Image
        The file, its URL in a store, or its content. An array of shape (height, width) or (height, width, 3) is taken
        as upright sRGB; an image of Pillow by its own profile and EXIF, as the file that it would be saved to.
    keep_truncated : bool, optional
        Take of a JPEG with damaged or missing image data what libjpeg-turbo makes of it, or refuse it; by default as
        `keeps_truncated` says.

    Raises
    ------
    ImageError
        If there are no trustworthy pixels; its ``reason`` is a key of `featbank.images.REASONS`.
    StoreError
        If a store cannot be reached, which is no fault of this image.
    FeatbankError
        If this process has told Pillow to accept truncated files.
    TypeError
        If ``source`` is of another kind.

    Notes
    -----
    Of samples deeper than eight bits the high byte is taken: a gray image and its RGB copy, a PNG and a TIFF
    agree. Transparent parts are laid on white, the page that viewers show behind them. CMYK without a profile
    becomes RGB by multiplying what each ink lets through. A profile is applied with the relative colorimetric
    intent and black point compensation. Colours that are signalled by code points (PNG, AVIF, HEIC) are converted
    and clipped to sRGB; HDR photos (PQ, HLG) are refused, as no one rendering of them is agreed. Newer versions of
    Pillow refuse TIFF, WebP and GIF files above 179 million pixels by themselves, below the limit of this package; the
    reason is ``too-large`` all the same.

    Examples
    --------
    >>> photo = read_photo(b"P5 2 1 255 " + bytes([0, 200]))
    >>> photo.pixels.tolist(), photo.format, photo.actions
    ([[[0, 0, 0], [200, 200, 200]]], 'PPM', ('gray-to-rgb',))
    """
    if isinstance(source, np.ndarray):
        return _photo_of_array(source)
    if isinstance(source, Image.Image):
        label, source = f"image of mode {source.mode}", _as_file(source)
    elif not isinstance(source, str | Path | RemotePath | bytes):
        raise TypeError(
            "read_photo: source must be a path, the bytes of a file, a uint8 array or an image of Pillow, got "
            f"{type(source).__name__}"
        )
    else:
        label = f"{len(source)} bytes" if isinstance(source, bytes) else utf8_name(source)
    try:
        return _read(source, keeps_truncated() if keep_truncated is None else keep_truncated)
    except ImageError as error:
        raise ImageError(error.reason, f"read_photo: {label} {error}", error.digest) from error


def _photo_of_array(pixels: NDArray[np.uint8]) -> Photo:
    """Take pixels as they are; the digest is that of an array, which equals no file's."""
    is_gray = pixels.ndim == 2
    if (
        pixels.dtype != np.uint8
        or not (is_gray or (pixels.ndim == 3 and pixels.shape[2] == 3))
        or not pixels.size
    ):
        raise TypeError(
            "read_photo: an array must be uint8 of shape (height, width) or (height, width, 3), with sRGB levels, "
            f"got {pixels.dtype} of shape {pixels.shape}. Scale floats and order channels first."
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ImageError(
            "too-large", f"read_photo: an array of shape {pixels.shape} has more than {MAX_PIXELS:,} pixels"
        )
    digest = digest_bytes(f"array {pixels.shape}".encode() + pixels.tobytes())
    colour = np.repeat(pixels[..., None], 3, axis=2) if is_gray else np.ascontiguousarray(pixels)
    return Photo(colour, digest, "array", "L" if is_gray else "RGB", ("gray-to-rgb",) if is_gray else ())


def _as_file(image: Image.Image) -> bytes:
    """Write an image of Pillow, so that its colours and its turn are read by the rules of files."""
    file = io.BytesIO()
    kept = {name: image.info[name] for name in ("exif", "icc_profile") if image.info.get(name)}
    try:
        if image.mode == "CMYK":
            image.save(file, "TIFF", **kept)
        else:
            image.save(file, "PNG", compress_level=0, **kept)
    except (
        OSError,
        SyntaxError,
        ValueError,
    ) as error:  # a file cut short, as Pillow finds when it decodes; a mode
        raise ImageError("unsupported", f"read_photo: an image of Pillow cannot be used: {error}") from error
    return file.getvalue()


def _read(source: str | Place | bytes, keep_truncated: bool) -> Photo:
    data = source if isinstance(source, bytes) else read_bytes(as_place(source))
    suffix = "" if isinstance(source, bytes) else as_place(source).suffix.lower()
    digest = digest_bytes(data)  # of what is decoded, whatever the file may hold by now
    try:
        image_format = _format_of(data, suffix)
        misnamed = (f"misnamed:{suffix}",) if suffix and suffix not in SUFFIXES[image_format] else ()
        if image_format == "JPEG":
            raster = decode_jpeg(data, keep_truncated=keep_truncated)
        elif image_format == "RAW":
            raster = _decode_preview(data)
        elif image_format == "PNG":
            raster = decode_png(data)
        else:
            raster = decode_foreign(data, image_format)
        del data
        pixels, done = to_srgb(raster)
    except ImageError as error:
        error.digest = digest
        raise
    except MemoryError as error:
        raise ImageError("memory", "needs more memory than there is; scale it down first", digest) from error
    return Photo(pixels, digest, image_format, raster.mode, misnamed + done)


def _format_of(data: bytes, suffix: str) -> str:
    if not data:
        raise ImageError("empty", "hold no image; give the content of a file")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError("too-large", f"are too many; at most {MAX_FILE_BYTES} are read")
    image_format = sniff(data[:HEAD_BYTES])
    # Not every raw file can be told by its content.
    is_raw = image_format == "TIFF" and (suffix in SUFFIXES["RAW"] or is_camera_raw(data))
    return "RAW" if is_raw else image_format


# A preview is of full size with at least this share of the raw pixels: cameras crop their borders.
_FULL_SIZE = 0.8
_FLIPS = {3: 3, 5: 8, 6: 6}  # LibRaw's turns as EXIF orientations


def _decode_preview(data: bytes) -> Raster:
    """Take the JPEG of full size that most cameras put into their raw files: what their own program makes of it."""
    try:
        rawpy = importlib.import_module("rawpy")
    except ImportError as error:
        raise missing_package("RAW") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            size, flip, preview = raw.sizes, raw.sizes.flip, raw.extract_thumb()
    except rawpy.LibRawError as error:
        raise ImageError(
            "unsupported",
            f"is a camera raw file without a readable preview ({error}); develop it to TIFF or JPEG",
        ) from error
    if preview.format != rawpy.ThumbFormat.JPEG:
        raise ImageError(
            "unsupported", "is a camera raw file whose preview is no JPEG; develop it to TIFF or JPEG"
        )
    raster = decode_jpeg(preview.data)
    height, width = raster.samples.shape[:2]
    if height * width < _FULL_SIZE * size.height * size.width:
        raise ImageError(
            "unsupported",
            f"is a camera raw file of {size.width} x {size.height} pixels with a preview of {width} x {height}; "
            "develop it to TIFF or JPEG",
        )
    is_unturned = (height > width) == (size.height > size.width)
    if flip in _FLIPS and is_unturned and (raster.exif is None or read_orientation(raster.exif) in {None, 1}):
        raster.exif = exif_of(_FLIPS[flip])
    raster.actions.insert(0, "raw-preview")
    return raster


# A colour JPEG of 16 x 16 pixels with halved chroma. The digest of its pixels stands for the behaviour of the
# decoder: should a new library version change one level of one pixel, features get another key.
_PROBE = base64.b64decode(
    b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    b"q62rZ4C8ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSk"
    b"pKSkpKSkpKT/wAARCAAQABADASIAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAAAgAD/8QAIxAAAgEDBAEFAAAAAAAAAAAAAQIR"
    b"AxIhADFBUSJxgbHh8P/EABUBAQEAAAAAAAAAAAAAAAAAAAAB/8QAGBEAAwEBAAAAAAAAAAAAAAAAAAERITH/2gAMAwEAAhEDEQA/"
    b"ADVuWoFdnaoN4JMGRg+8fs6mAakAKasInxgwO/v041pe6mVUgEXOzbkQM9zvsdAgpDLWtBE3FQZGcEz1886KPpZuH//Z"
)

DECODE_POLICY: dict[str, Any] = {
    "epoch": 1,
    "jpeg": "libjpeg-turbo, accurate DCT, smooth upsampling, warnings refused",
    "orientation": "upright by EXIF",
    "colour": "ICC to sRGB, relative colorimetric, black point compensation; broken or absent is sRGB",
    "cmyk": "profile, else (1 - ink)(1 - black)",
    "depth": "high byte of integers, floats in [0, 1] times 255",
    "alpha": "over white",
    "gray": "replicated",
    "frames": "first",
    "probe": digest_bytes(read_photo(_PROBE).pixels.tobytes()),
}
"""Identity of all decisions of this package, part of every feature's key; JSON-able.

``epoch`` is raised by hand when a change of code changes pixels; ``probe`` changes by itself when the JPEG
library does.
"""


def decode_policy(*, keep_truncated: bool) -> dict[str, Any]:
    """Return the identity of all decisions where damaged JPEGs are refused, or where what is left of them is kept."""
    return DECODE_POLICY | ({"truncated": "kept"} if keep_truncated else {})
