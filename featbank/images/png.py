"""Checks PNG files chunk by chunk and hands on only what concerns pixels.

Pillow does not check the checksum of image data, leaves missing rows black without a word, inflates text
chunks, and follows animation chunks. Here every checksum is verified, the image data must hold every row, and
only the chunks of the default image reach the decoder: a text bomb costs nothing, a flipped bit is refused.

References
----------
.. [1] W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 2025, sections 5 and 11.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featbank.errors import ImageError
from featbank.images.formats import MAX_PROFILE_BYTES, Raster, check_size, from_pillow, load_foreign

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: ("L", 1), 2: ("RGB", 3), 3: ("P", 1), 4: ("LA", 2), 6: ("RGBA", 4)}
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_INFLATE_BYTES = 1 << 20
_MAX_CHUNKS = 1 << 18
"""Most chunks that are looked at: a file of the largest size has as many of 4 KiB, less than any writer's usual. Each
takes some memory here, so that a file of empty ones would take forty times its size."""

_SRGB_GAMMA = 0.45455
# First column, first row, step across, step down.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass
class _PngParts:
    width: int = 0
    height: int = 0
    depth: int = 0
    color_type: int = 0
    kept: list[bytes | memoryview] = field(default_factory=list)
    is_interlaced: bool = False
    data: list[memoryview] = field(default_factory=list)
    has_palette: bool = False
    n_frames: int = 1
    transparent: bytes | None = None
    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    exif: bytes | None = None
    raw_exif: bytes | None = None
    has_srgb_mark: bool = False
    gamma: float | None = None
    actions: list[str] = field(default_factory=list)


def decode_png(data: bytes) -> Raster:
    """Decode a PNG file; of an animated one, the default image.

    Parameters
    ----------
    data : bytes
        The whole file; bytes after its end chunk are ignored.

    Returns
    -------
    Raster
        Gray or RGB of eight bits, with alpha where the file has any.

    Raises
    ------
    ImageError
        ``too-large`` (pixels, or number of chunks), ``truncated``, ``corrupt`` (wrong checksum, contradictory
        header), or ``unsupported`` for unknown critical chunks.
    """
    parts = _read_chunks(data)
    loaded = load_foreign(b"".join([_SIGNATURE, *parts.kept]), "PNG")
    channels, _ = _CHANNELS[parts.color_type]
    raw = np.asarray(loaded.image) if parts.transparent is not None else None
    raster = from_pillow(loaded.image, bits=parts.depth)
    raster.mode = channels if parts.depth == 8 else f"{channels};{parts.depth}"
    raster.icc, raster.cicp, raster.exif = parts.icc, parts.cicp, parts.exif or parts.raw_exif
    raster.actions += parts.actions
    if raw is not None and parts.transparent is not None:
        _apply_transparent_color(raster, raw, parts)
    if parts.n_frames > 1:
        raster.actions.append(f"first-frame-of:{parts.n_frames}")
    if parts.gamma is not None and parts.icc is None and parts.cicp is None and not parts.has_srgb_mark:
        raster.actions.append(f"gamma-ignored:{parts.gamma:g}")
    return raster


def _read_chunks(data: bytes) -> _PngParts:
    parts = _PngParts()
    view = memoryview(data)
    position = len(_SIGNATURE)
    kind = b""
    n_chunks = 0
    while kind != b"IEND":
        n_chunks += 1
        if n_chunks > _MAX_CHUNKS:
            raise ImageError(
                "too-large", f"has more than {_MAX_CHUNKS} PNG chunks; save it anew with an ordinary encoder"
            )
        if position + 12 > len(data):
            raise ImageError("truncated", "ends before the PNG end chunk; copy or download the file again")
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise ImageError(
                "truncated", f"ends inside a PNG chunk {kind!r}; copy or download the file again"
            )
        body = view[position + 8 : end - 4]
        is_intact = zlib.crc32(view[position + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
        if position == len(_SIGNATURE):
            if kind != b"IHDR" or length != 13:
                raise ImageError(
                    "corrupt", f"begins with a PNG chunk {kind!r} of {length} bytes, not a header"
                )
            _read_image_header(parts, bytes(body))
        elif kind == b"IHDR":
            raise ImageError("corrupt", "has two PNG headers")
        is_critical = not kind[0] & 0x20
        if not is_intact and (is_critical or kind == b"tRNS"):
            raise ImageError(
                "corrupt", f"has a PNG chunk {kind!r} with a wrong checksum; copy the file again"
            )
        if is_critical:
            if kind not in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}:
                raise ImageError("unsupported", f"needs a PNG extension {kind!r}; save it as a plain PNG")
            parts.kept.append(view[position:end])
            if kind == b"IDAT":
                parts.data.append(body)
            parts.has_palette |= kind == b"PLTE"
        elif kind == b"tRNS" and parts.color_type == 3:
            parts.kept.append(view[position:end])
        elif is_intact:
            _read_extra(parts, kind, body)
        position = end
    if parts.color_type == 3 and not parts.has_palette:
        raise ImageError("corrupt", "has PNG colour indices but no palette")
    _check_rows(parts)
    return parts


def _read_image_header(parts: _PngParts, body: bytes) -> None:
    parts.width, parts.height, parts.depth, parts.color_type, _, _, interlace = struct.unpack(
        ">IIBBBBB", body
    )
    parts.is_interlaced = interlace == 1
    if parts.depth not in _DEPTHS.get(parts.color_type, set()):
        raise ImageError("corrupt", f"claims PNG colour type {parts.color_type} with {parts.depth} bits")
    check_size(parts.width, parts.height)


def _read_extra(parts: _PngParts, kind: bytes, body: memoryview) -> None:
    if kind == b"tRNS" and parts.color_type in {0, 2}:
        parts.transparent = bytes(body)
    elif kind == b"eXIf":
        parts.exif = bytes(body)
    elif kind == b"sRGB":
        parts.has_srgb_mark = True
    elif kind == b"gAMA" and len(body) == 4:
        gamma = int.from_bytes(body, "big") / 100_000
        # Writers state 1/2.2 for sRGB; anything else would change the pixels if it were honoured.
        parts.gamma = gamma if abs(gamma - _SRGB_GAMMA) > 0.02 else None
    elif kind == b"acTL" and len(body) == 8:
        parts.n_frames = int.from_bytes(body[:4], "big")
    elif kind == b"iCCP" and parts.icc is None:
        parts.icc = _inflate(parts, bytes(body).partition(b"\0")[2][1:], "icc-ignored")
    elif kind == b"cICP" and len(body) == 4:
        if body[2] or body[3] != 1:
            raise ImageError(
                "unsupported", "holds PNG samples that are not RGB of full range; save it as sRGB"
            )
        parts.cicp = (body[0], body[1])
    elif kind in {b"tEXt", b"zTXt"} and bytes(body[:22]) in {
        b"Raw profile type exif\0",
        b"Raw profile type APP1\0",
    }:
        text = (
            bytes(body[22:]) if kind == b"tEXt" else _inflate(parts, bytes(body[23:]), "exif-ignored") or b""
        )
        # ImageMagick's form: a name, a number of bytes, and these in hexadecimal digits
        with contextlib.suppress(ValueError):
            block = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
            parts.raw_exif = block if block.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")) else parts.raw_exif


def _inflate(parts: _PngParts, body: bytes, action: str) -> bytes | None:
    """Inflate what a chunk holds; None where it is damaged or larger than any profile, which is recorded."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(body, MAX_PROFILE_BYTES)
    except zlib.error:
        parts.actions.append(f"{action}:broken")
        return None
    if not inflater.eof:
        parts.actions.append(f"{action}:too-large" if inflater.unconsumed_tail else f"{action}:broken")
        return None
    return content


def _check_rows(parts: _PngParts) -> None:
    """Inflate the image data once, in small pieces thrown away, to see that it holds every row."""
    missing = _count_row_bytes(parts)
    inflater = zlib.decompressobj()
    try:
        for body in parts.data:
            rest: bytes | memoryview = body
            while missing > 0 and not inflater.eof:
                missing -= len(inflater.decompress(rest, _INFLATE_BYTES))
                rest = inflater.unconsumed_tail
                if not rest:
                    break
    except zlib.error as error:
        raise ImageError("corrupt", f"has PNG image data that cannot be inflated ({error})") from error
    if missing > 0:
        raise ImageError(
            "truncated", f"lacks {missing} bytes of the rows of its {parts.width} x {parts.height} pixels"
        )


def _count_row_bytes(parts: _PngParts) -> int:
    """Bytes of all rows with their filter marks; ref. [1] section 8.1 for the seven passes."""
    n_bits = _CHANNELS[parts.color_type][1] * parts.depth
    passes = _ADAM7 if parts.is_interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, step_x, step_y in passes:
        width, height = -(-(parts.width - left) // step_x), -(-(parts.height - top) // step_y)
        if width > 0 and height > 0:
            total += height * (1 + -(-width * n_bits // 8))
    return total


def _apply_transparent_color(raster: Raster, raw: NDArray[np.generic], parts: _PngParts) -> None:
    """Make one gray level or colour transparent; ``raw`` are the samples before reduction to eight bits."""
    n_values = 1 if parts.color_type == 0 else 3
    if parts.transparent is None or len(parts.transparent) < 2 * n_values:
        raster.actions.append("transparency-ignored:broken")
        return
    key = struct.unpack(f">{n_values}H", parts.transparent[: 2 * n_values])
    if n_values == 1:
        # Pillow spreads 1, 2 and 4 bits over 0..255 and keeps 16 bits as they are.
        level = key[0] if parts.depth == 16 else key[0] * 255 // (2**parts.depth - 1)
        is_clear = raw.astype(bool) == bool(level) if parts.depth == 1 else raw == level
    elif parts.depth == 16:
        # Pillow has dropped the low bytes: neighbours of the colour could no longer be told from it.
        raster.actions.append("transparency-ignored:16-bit")
        return
    else:
        is_clear = np.all(raw == np.array(key), axis=2)
    raster.alpha = np.where(is_clear, np.uint8(0), np.uint8(255))
