"""Opens everything but plain JPEG and PNG through Pillow's plug-ins of the allow list; what every decoder hands over.

The plug-in classes are called directly: `PIL.Image.open` would apply Pillow's own, process-wide pixel limit instead of
this package's. Nothing process-wide is changed. Pillow's TIFF reader takes tags that do not concern pixels (nested
EXIF, maker notes, further pages) for part of opening a file, whatever their size, and turns the image by itself in some
versions: it is given a directory with the imaging tags alone. Formats of `EXTRAS` are read where their package is
installed.

References
----------
.. [1] Aldus Corporation, "TIFF Revision 6.0", 1992, sections 2 and 8.
.. [2] ISO/IEC 18181-1, "JPEG XL image coding system", 2024, section D.2 (size header).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import math
import re
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from featbank.errors import FeatbankError, ImageError

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
    cicp : tuple of two int, optional
        Code points of colour primaries and transfer curve (ITU-T H.273), where the file has no profile.
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
    cicp: tuple[int, int] | None = None
    exif: bytes | None = None
    actions: list[str] = field(default_factory=list)


def check_size(width: int, height: int) -> None:
    """Refuse a header that claims no pixels, or more than `MAX_PIXELS`.

    Raises ImageError: ``corrupt`` for a side below one pixel, ``too-large`` above the limit.
    """
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"claims a size of {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(
            "too-large",
            f"claims {width} x {height} pixels, more than the limit of {MAX_PIXELS}; scale it down first",
        )


ORIENTATION = 274
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _SAMPLES = 256, 257, 258, 259, 262, 284, 277
_ROWS_PER_STRIP, _STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 278, 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT, _SUBFILE, _SUB_IFDS, _ICC, _DNG = (
    322,
    323,
    339,
    254,
    330,
    34675,
    50706,
)
# Everything a decoder needs to find and read the samples; all other tags are left out of the clean copy.
_IMAGING = frozenset(
    {*range(256, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326), 338, 339, 347}
    | {*range(512, 522), *range(529, 533)}
)
_FACTS = frozenset({ORIENTATION, _SUBFILE, _SUB_IFDS, _ICC, _DNG})
_TYPE_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1))
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I"}
# None, three kinds of fax, LZW, JPEG, deflate twice, packed bits: what Pillow reads everywhere.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
# Gray, RGB, palette and CMYK; YCbCr may store fewer samples than pixels.
_FULL_SAMPLING = frozenset({0, 1, 2, 3, 5})
_MAX_SAMPLES = 6  # CMYK with two more; of more, Pillow logs an error of the program


class _Directory:
    """The wanted tags of the first directory of a block, by number: type, count, place of the values, raw entry."""

    def __init__(self, data: bytes, wanted: frozenset[int]) -> None:
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None:
            raise ImageError("corrupt", f"has a TIFF block that begins with {data[:2]!r}, not 'II' or 'MM'")
        self.data, self.order = data, order
        self.entries: dict[int, tuple[int, int, int, bytes]] = {}
        self.repeated: set[int] = set()
        try:
            (start,) = struct.unpack_from(f"{order}I", data, 4)
            (n_entries,) = struct.unpack_from(f"{order}H", data, start)
            end = start + 2 + 12 * n_entries
            if end > len(data):
                raise ImageError("truncated", "ends inside its TIFF directory")
            for entry in range(start + 2, end, 12):
                tag, kind, count, value = struct.unpack_from(f"{order}HHII", data, entry)
                n_bytes = count * _TYPE_BYTES.get(kind, 0)
                if tag not in wanted or kind not in _TYPE_BYTES:
                    continue
                place = entry + 8 if n_bytes <= 4 else value
                if place + n_bytes > len(data):
                    raise ImageError("truncated", f"ends before the values of its TIFF tag {tag}")
                if tag in self.entries:
                    self.repeated.add(tag)
                self.entries[tag] = (kind, count, place, data[entry : entry + 12])
        except struct.error as error:
            raise ImageError("truncated", "ends inside its TIFF directory") from error
        # The last directory of some writers lacks the pointer to a next one.
        self.has_next = data[end : end + 4] not in {b"", b"\0\0\0\0"}

    def content(self, tag: int) -> bytes | None:
        """Return the bytes of a tag."""
        if tag not in self.entries:
            return None
        kind, count, place, _ = self.entries[tag]
        return self.data[place : place + count * _TYPE_BYTES[kind]]

    def integers(self, tag: int) -> list[int]:
        """Return the values of an integer tag; none where it is absent or of another type."""
        code = _INTEGERS.get(self.entries[tag][0]) if tag in self.entries else None
        values = struct.iter_unpack(self.order + code, self.content(tag) or b"") if code else ()
        return [value for (value,) in values]

    def integer(self, tag: int, default: int) -> int:
        """Return the first value of an integer tag, or ``default``."""
        return next(iter(self.integers(tag)), default)


@dataclass(frozen=True)
class CleanTiff:
    """The first page of a TIFF file with its imaging tags alone, and what the other tags said.

    ``is_white_zero``: the deep samples count from white, while the rewritten file says they count from black.
    ``orientation`` is 0 where there is none.
    """

    data: bytes
    bits: int
    is_float: bool
    is_white_zero: bool
    orientation: int
    icc: bytes | None
    has_more_pages: bool


def read_orientation(exif: bytes) -> int | None:
    """Read the orientation from an EXIF block, with or without its six-byte mark; may be out of range, None if absent.

    Raises ImageError if the block is no readable directory.
    """
    block = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    return next(iter(_Directory(block, frozenset({ORIENTATION})).integers(ORIENTATION)), None)


def is_camera_raw(data: bytes) -> bool:
    """Tell whether a TIFF file is a camera's raw file, whose first page is a preview."""
    if data[8:10] == b"CR":
        return True
    try:
        page = _Directory(data, _FACTS)
    except ImageError:  # damaged, or no ordinary TIFF: reading it gives the reason
        return False
    return _DNG in page.entries or (page.integer(_SUBFILE, 0) & 1 == 1 and _SUB_IFDS in page.entries)


def exif_of(orientation: int) -> bytes:
    """Write the smallest EXIF block that states an orientation."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, ORIENTATION, 3, 1, min(orientation, 65535), 0, 0)


def clean_tiff(data: bytes) -> CleanTiff:
    """Rewrite a TIFF file so that it holds the first page and its imaging tags alone.

    Raises ImageError: ``unsupported`` for what Pillow does not read right: BigTIFF, signed or 32-bit
    integers, deep planes apart, more than six samples, rare compressions; ``truncated`` or ``corrupt`` where the
    directory points outside the file, lacks its size, or lists less data than the image has.
    """
    if data[2:4] in {b"+\0", b"\0+"}:
        raise ImageError("unsupported", "is a BigTIFF file; save it as an ordinary TIFF or PNG")
    page = _Directory(data, _IMAGING | _FACTS)
    if page.repeated & _IMAGING:
        raise ImageError("corrupt", f"says twice what its TIFF tag {min(page.repeated & _IMAGING)} is")
    bits, kind, n_samples = page.integer(_BITS, 1), page.integer(_SAMPLE_FORMAT, 1), page.integer(_SAMPLES, 1)
    compression, is_apart = page.integer(_COMPRESSION, 1), page.integer(_PLANAR, 1) == 2
    if (
        n_samples > _MAX_SAMPLES
        or compression not in _COMPRESSIONS
        or kind not in {1, 3}
        or (kind == 1 and bits > 16)
        or (is_apart and bits > 8)
    ):
        raise ImageError(
            "unsupported",
            f"is a TIFF of {n_samples} samples of {bits} bits, sample format {kind}, compression {compression}"
            f"{', planes apart' if is_apart else ''}; convert it to RGB of 8 or 16 unsigned bits",
        )
    _check_layout(page, bits, n_samples, n_samples if is_apart else 1)
    # Pillow inverts 8-bit white-is-zero samples but hands out deeper ones as they are.
    is_white_zero = bits > 8 and page.integer(_PHOTOMETRIC, 1) == 0
    icc, orientation = page.content(_ICC), page.integer(ORIENTATION, 0)
    return CleanTiff(
        _rewrite(page, is_white_zero), bits, kind == 3, is_white_zero, orientation, icc, page.has_next
    )


def _check_layout(page: _Directory, bits: int, n_samples: int, n_planes: int) -> None:
    """Refuse pages whose strips or tiles are too few or too short: what they lack would be black, or other bytes."""
    width, height = page.integer(_WIDTH, 0), page.integer(_HEIGHT, 0)
    check_size(width, height)
    if _TILES in page.entries:
        across, down = page.integer(_TILE_WIDTH, 0), page.integer(_TILE_HEIGHT, 0)
        if across < 1 or down < 1:
            raise ImageError("corrupt", f"claims tiles of {across} x {down} pixels")
        expected, places, sizes = -(-width // across) * -(-height // down), _TILES, _TILE_BYTES
    else:
        rows = max(1, min(page.integer(_ROWS_PER_STRIP, height), height))
        expected, places, sizes = -(-height // rows), _STRIPS, _STRIP_BYTES
    found = page.entries[places][1] if places in page.entries else 0
    if page.integer(_COMPRESSION, 1) != 1 and sizes not in page.entries:
        raise ImageError("corrupt", "does not say how long its compressed strips or tiles are")
    # One plain strip may say that it is longer than its samples are.
    n_bytes = height * -(-width * n_samples * bits // 8)
    most = n_bytes if page.integer(_COMPRESSION, 1) == 1 and found == 1 else math.inf
    lengths = zip(page.integers(places), page.integers(sizes), strict=False)
    ends = [place + int(min(size, most)) for place, size in lengths]
    if max(ends, default=0) > len(page.data):
        raise ImageError(
            "truncated", f"ends {max(ends) - len(page.data)} bytes before its last strip or tile does"
        )
    if found < expected * n_planes:
        raise ImageError(
            "corrupt", f"lists {found} strips or tiles where its size needs {expected * n_planes}"
        )
    if page.integer(_COMPRESSION, 1) == 1 and page.integer(_PHOTOMETRIC, 1) in _FULL_SAMPLING:
        needed, listed = width * height * n_samples * bits // 8, sum(page.integers(sizes))
        if 0 < listed < needed:
            raise ImageError("truncated", f"lists {listed} bytes of samples where its size needs {needed}")


def _rewrite(page: _Directory, is_white_zero: bool) -> bytes:
    """Append a directory of the imaging tags and point the header at it; offsets of samples stay valid."""
    raw = {tag: entry[3] for tag, entry in page.entries.items() if tag in _IMAGING}
    if is_white_zero:
        raw[_PHOTOMETRIC] = struct.pack(f"{page.order}HHIHxx", _PHOTOMETRIC, 3, 1, 1)
    padding = b"\0" * (-len(page.data) % 8)
    header = page.data[:4] + struct.pack(f"{page.order}I", len(page.data) + len(padding))
    count = struct.pack(f"{page.order}H", len(raw))
    body = b"".join(raw[tag] for tag in sorted(raw))
    return b"".join([header, memoryview(page.data)[8:], padding, count, body, b"\0" * 4])


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
    "HEIC": ("pillow_heif.as_plugin", "HeifImageFile"),
    "JXL": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile"),
}

EXTRAS = {"HEIC": "heic", "JXL": "jxl", "RAW": "raw"}
"""Formats that a package beside Pillow reads, and the extra of featbank that installs it."""

# How Pillow says that a file is whole and of a kind it has no decoder for.
_UNSUPPORTED = re.compile(
    "not installed|not available|unsupported|unknown (pixel|raw) mode|data organization", re.I
)

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
    """Decode the first frame of any file but a JPEG, PNG or camera raw, as `sniff` names its format.

    Raises ImageError: ``too-large``, ``truncated``, ``corrupt``, ``memory``, ``not-installed``, or ``unsupported`` for
    variants without an agreed meaning as a picture (signed or 32-bit integers, floats outside [0, 1],
    Lab).
    """
    if image_format == "TIFF":
        return _decode_tiff(data)
    if image_format == "WEBP":
        _check_webp_header(data)
    if image_format == "JXL":
        check_size(*_jxl_size(data))
    if image_format == "PPM" and data[1:2] in b"123" and data.count(b"#") > _MAX_PPM_COMMENTS:
        # Pillow copies the rest of its buffer for each comment: a megabyte of them takes ten seconds.
        raise ImageError(
            "too-large", f"has more than {_MAX_PPM_COMMENTS} comments; save it anew without them"
        )
    loaded = load_foreign(data, image_format)
    icc, exif = loaded.image.info.get("icc_profile"), loaded.image.info.get("exif")
    bits = 16 if loaded.image.mode == "I" and image_format == "PPM" else 8
    cicp = None
    if image_format in {"AVIF", "HEIC"}:
        bits, cicp = _read_boxes(data, loaded.image)
    raster = from_pillow(loaded.image, bits=bits)
    raster.cicp = cicp
    raster.exif = exif if isinstance(exif, bytes) and exif else None
    if isinstance(icc, bytes) and icc:
        raster.icc = icc if len(icc) <= MAX_PROFILE_BYTES else None
        raster.actions += [] if raster.icc else ["icc-ignored:too-large"]
    if loaded.n_frames != 1:
        raster.actions.append(f"first-frame-of:{loaded.n_frames or 'many'}")
    return raster


def _read_boxes(data: bytes, image: Image.Image) -> tuple[int, tuple[int, int] | None]:
    """Return bits per sample and the colour code points of an AVIF or HEIC file; Pillow tells neither."""
    config, colour = data.find(b"av1C"), data.find(b"colrnclx")
    flags = data[config + 6] if 0 <= config < len(data) - 6 else 0
    bits = int(image.info.get("bit_depth", 12 if flags & 0x20 else 10 if flags & 0x40 else 8))
    cicp = struct.unpack_from(">HH", data, colour + 8) if 0 <= colour < len(data) - 12 else None
    return bits, cicp


def _jxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG XL file, whose plug-in decodes it as it opens it; ref. [2]."""
    box = re.search(rb"jxlc|jxlp....", data[: 1 << 16], re.S) if data[:1] == b"\0" else None
    start = (box.end() if box else 0) + 2
    bits, at = int.from_bytes(data[start : start + 12], "little"), 0

    def take(n_bits: int) -> int:
        nonlocal at
        at += n_bits
        return bits >> (at - n_bits) & ((1 << n_bits) - 1)

    is_small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if is_small else 1 + take((9, 13, 18, 30)[take(2)])

    height = side()
    ratio = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[take(3)]
    return height * ratio[0] // ratio[1] or side(), height


@functools.cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing on standard error what Pillow raises as well."""
    with contextlib.suppress(
        OSError, AttributeError
    ):  # AttributeError: linked into Pillow under hidden names
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def load_foreign(data: bytes, image_format: str) -> Loaded:
    """Open and decode the first frame with one named Pillow plug-in.

    Raises ImageError as `decode_foreign`; FeatbankError if the process has told Pillow to accept
    truncated files: then damage could not be noticed.
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
        raise missing_package(image_format) from error
    except MemoryError as error:
        raise ImageError("memory", f"needs more memory than there is: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"is refused by Pillow: {error}") from error
    except _DECODER_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        text = str(error)
        if _UNSUPPORTED.search(text):
            raise ImageError(
                "unsupported",
                f"is a variant of {image_format} that is not read ({text}); save it as a JPEG or PNG",
            ) from error
        reason = "truncated" if "truncated" in text.lower() else "corrupt"
        raise ImageError(reason, f"has {image_format} data that cannot be decoded ({text})") from error


def missing_package(image_format: str) -> ImageError:
    """Return the error for a format whose package is not installed."""
    extra = EXTRAS.get(image_format)
    cure = f"pip install 'featbank[{extra}]', or convert it to JPEG or PNG" if extra else "upgrade Pillow"
    return ImageError(
        "not-installed", f"is a {image_format} file, and what reads those is not installed: {cure}"
    )


def _count_frames(image: ImageFile.ImageFile, plugin: type[ImageFile.ImageFile], data: bytes) -> int:
    """Count the frames; 0 where the later ones are too damaged to be counted."""
    if image.format in {"WEBP", "AVIF", "HEIF"}:
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
    _silence_libtiff()
    raster = from_pillow(load_foreign(clean.data, "TIFF").image, bits=clean.bits)
    if clean.is_white_zero:
        np.subtract(255, raster.samples, out=raster.samples)
        raster.actions.append("white-is-zero")
    if clean.icc is not None and len(clean.icc) <= MAX_PROFILE_BYTES:
        raster.icc = clean.icc
    if clean.orientation:
        raster.exif = exif_of(clean.orientation)
    if clean.has_more_pages:
        raster.actions.append("first-frame-of:many")
    return raster


def from_pillow(image: Image.Image, bits: int) -> Raster:
    """Read the samples of a loaded Pillow image, of ``bits`` per sample in the file.

    Eight bits per sample: of deeper ones the high byte, so that gray and RGB, PNG and TIFF, agree.

    Raises ImageError: ``unsupported`` for modes without an agreed meaning as a picture.
    """
    mode = image.mode
    suffix = "" if bits == 8 else f";{bits}"
    deep = [f"{bits}-bit-to-8"] if bits > 8 else []
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
