"""Opens everything but plain JPEG through Pillow's plug-ins of the allow list, and reads out its samples.

The plug-in classes are called directly: `PIL.Image.open` would apply Pillow's own, process-wide pixel limit
instead of this package's. Nothing process-wide is changed.
"""

from __future__ import annotations

import importlib
import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from featbank.errors import FeatbankError, ImageError
from featbank.images.formats import MAX_PROFILE_BYTES, CleanTiff, Raster, check_size, clean_tiff

_PLUGINS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
}

# What Pillow's plug-ins raise on damaged bytes, as found by feeding them such; MemoryError is told apart.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    AttributeError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)

# Pillow warns while it opens; silencing that exchanges a list all threads share, so one at a time.
_OPENING = threading.Lock()

_STRIP_ROWS = 256
_MAX_PPM_COMMENTS = 10_000


@dataclass
class Loaded:
    """A decoded Pillow image and how many frames its file has (0 where counting failed)."""

    image: Image.Image
    n_frames: int


def decode_foreign(data: bytes, image_format: str) -> Raster:
    """Decode the first frame of a TIFF, WebP, GIF, BMP, PPM, JPEG 2000 or AVIF file.

    Parameters
    ----------
    data : bytes
        The whole file.
    image_format : str
        Its format, as `featbank.images.source.sniff` names it.

    Returns
    -------
    Raster

    Raises
    ------
    ImageError
        ``too-large``, ``truncated``, ``corrupt``, ``memory``, or ``unsupported`` for variants without an
        agreed meaning as a picture (signed or 32-bit integers, floats outside [0, 1], Lab).
    """
    if image_format == "TIFF":
        return _decode_tiff(data)
    if image_format == "WEBP":
        _check_webp_header(data)
    if image_format == "PPM" and data[1:2] in b"123" and data.count(b"#") > _MAX_PPM_COMMENTS:
        # Pillow copies the rest of its buffer for each comment: a megabyte of them takes ten seconds.
        raise ImageError(
            "too-large", f"has more than {_MAX_PPM_COMMENTS} comments; save it anew without them"
        )
    loaded = load_foreign(data, image_format)
    icc, exif = loaded.image.info.get("icc_profile"), loaded.image.info.get("exif")
    raster = from_pillow(loaded.image, bits=16 if loaded.image.mode == "I" and image_format == "PPM" else 8)
    raster.exif = exif if isinstance(exif, bytes) and exif else None
    if isinstance(icc, bytes) and icc:
        raster.icc = icc if len(icc) <= MAX_PROFILE_BYTES else None
        raster.actions += [] if raster.icc else ["icc-ignored:too-large"]
    if loaded.n_frames != 1:
        raster.actions.append(f"first-frame-of:{loaded.n_frames or 'many'}")
    return raster


def load_foreign(data: bytes, image_format: str) -> Loaded:
    """Open and decode the first frame with one named Pillow plug-in.

    Raises
    ------
    ImageError
        As `decode_foreign`.
    FeatbankError
        If the process has told Pillow to accept truncated files: then damage could not be noticed.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise FeatbankError(
            "read_photo: PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be False, got True: truncated files would pass "
            "for whole ones. Some part of this program has set it; set it back to False."
        )
    module, name = _PLUGINS[image_format]
    try:
        plugin: type[ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = plugin(io.BytesIO(data))
        check_size(*image.size)
        image.load()
        return Loaded(image, _count_frames(image, plugin, data))
    except ImportError as error:
        raise ImageError(
            "unsupported", f"is {image_format}, which this Pillow cannot decode; upgrade it"
        ) from error
    except MemoryError as error:
        raise ImageError("memory", f"needs more memory than there is: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"is refused by Pillow: {error}") from error
    except _DECODER_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        text = str(error)
        if "not installed" in text or "not available" in text:
            reason = "unsupported"
        else:
            reason = "truncated" if "truncated" in text.lower() else "corrupt"
        raise ImageError(reason, f"has {image_format} data that cannot be decoded ({text})") from error


def _count_frames(image: ImageFile.ImageFile, plugin: type[ImageFile.ImageFile], data: bytes) -> int:
    """Count the frames; 0 where the later ones are too damaged to be counted."""
    if image.format in {"WEBP", "AVIF"}:
        return int(getattr(image, "n_frames", 1))
    if image.format != "GIF":
        return 1
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Counting moves through the file: a second reader leaves the decoded first frame alone.
            return int(getattr(plugin(io.BytesIO(data)), "n_frames", 1))
    except (*_DECODER_ERRORS, Image.DecompressionBombError):
        return 0


def _check_webp_header(data: bytes) -> None:
    """Check the length, and the size of an extended file's canvas: Pillow allocates it on opening."""
    n_bytes = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < n_bytes:
        raise ImageError("truncated", f"has {len(data)} of {n_bytes} bytes; copy or download the file again")
    if data[12:16] == b"VP8X" and len(data) >= 30:
        check_size(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))


def _decode_tiff(data: bytes) -> Raster:
    clean = clean_tiff(data)
    if clean.sample_format not in {1, 3} or (clean.sample_format == 1 and clean.bits > 16):
        raise ImageError(
            "unsupported",
            f"is a TIFF of {clean.bits} bits and sample format {clean.sample_format}, whose black and white levels "
            "are unknown; convert it to 8 or 16 unsigned bits",
        )
    image = load_foreign(clean.data, "TIFF").image
    raster = from_pillow(image, bits=clean.bits)
    if clean.is_white_zero:
        np.subtract(255, raster.samples, out=raster.samples)
        raster.actions.append("white-is-zero")
    if clean.icc is not None and len(clean.icc) <= MAX_PROFILE_BYTES:
        raster.icc = clean.icc
    if clean.orientation is not None:
        raster.exif = _exif_of(clean)
    if clean.n_pages > 1:
        raster.actions.append(f"first-frame-of:{clean.n_pages}")
    return raster


def _exif_of(clean: CleanTiff) -> bytes:
    """Write the orientation of a TIFF file as the smallest EXIF block, the form other formats carry it in."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, min(clean.orientation or 0, 65535), 0, 0)


def from_pillow(image: Image.Image, bits: int) -> Raster:
    """Read the samples of a decoded Pillow image.

    Parameters
    ----------
    image : PIL.Image.Image
        Loaded, of any mode that the allow-listed formats yield.
    bits : int
        Bits per sample in the file.

    Returns
    -------
    Raster
        Eight bits per sample: of deeper ones the high byte, so that gray and RGB, PNG and TIFF, agree.

    Raises
    ------
    ImageError
        ``unsupported`` for modes without an agreed meaning as a picture.
    """
    mode = image.mode
    suffix = "" if bits == 8 else f";{bits}"
    deep = ["16-bit-to-8"] if bits == 16 else []
    if mode in {"L", "RGB", "CMYK"}:
        return Raster(np.array(image), mode, mode + suffix, actions=deep)
    if mode == "1":
        return Raster(np.array(image.convert("L")), "L", "L;1", actions=["bilevel-to-8"])
    if mode.startswith("I;16") or (mode == "I" and bits == 16):
        scale = 12 if bits == 12 else 16
        samples = _high_byte(np.asarray(image), scale)
        return Raster(samples, "L", f"L;{scale}", actions=[f"{scale}-bit-to-8"])
    if mode == "F":
        return Raster(_from_float(np.asarray(image)), "L", "L;32F", actions=["float-to-8"])
    if mode == "P" and "transparency" not in image.info:
        return Raster(np.array(image.convert("RGB")), "RGB", "P", actions=["palette-to-rgb"])
    if mode in {"P", "PA"}:
        raster = _split_alpha(image.convert("RGBA"), "RGB", mode)
        raster.actions.append("palette-to-rgb")
        return raster
    if mode in {"LA", "La"}:
        return _split_alpha(image.convert("LA") if mode == "La" else image, "L", "LA" + suffix, deep)
    if mode in {"RGBA", "RGBa"}:
        return _split_alpha(image.convert("RGBA") if mode == "RGBa" else image, "RGB", "RGBA" + suffix, deep)
    if mode in {"RGBX", "YCbCr"}:
        return Raster(np.array(image.convert("RGB")), "RGB", mode, actions=deep)
    raise ImageError("unsupported", f"holds samples of Pillow mode {mode!r}; convert it to 8-bit RGB")


def _split_alpha(image: Image.Image, kind: str, mode: str, actions: list[str] | None = None) -> Raster:
    array = np.array(image)
    samples = array[..., 0] if kind == "L" else array[..., :3]
    return Raster(samples, kind, mode, alpha=array[..., -1], actions=list(actions or []))


def _high_byte(samples: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    out = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _STRIP_ROWS):
        strip = slice(start, start + _STRIP_ROWS)
        out[strip] = np.clip(samples[strip].astype(np.int32) >> (bits - 8), 0, 255)
    return out


def _from_float(samples: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Scale floats in [0, 1] to 0..255; no other range has a white level that everybody agrees on."""
    out = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _STRIP_ROWS):
        strip = samples[start : start + _STRIP_ROWS]
        # Written so that NaN fails the comparison too.
        if not (np.all(strip >= 0) and np.all(strip <= 1)):
            raise ImageError(
                "unsupported",
                "holds float samples outside [0, 1] or NaN, whose white level is unknown; scale it first",
            )
        out[start : start + _STRIP_ROWS] = np.rint(strip * 255)
    return out
