"""Writes image files byte by byte, including ones that no library would write: the counterpart of our readers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def save(pixels: NDArray[np.generic] | Image.Image, image_format: str, **options: object) -> bytes:
    """Write with Pillow, into memory."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------- PNG


def png_chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """One chunk; a wrong checksum can be forced."""
    crc = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_header(width: int, height: int, depth: int, color_type: int, *, interlaced: bool = False) -> bytes:
    """The header chunk."""
    return png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    )


def png_rows(samples: NDArray[np.integer], depth: int) -> bytes:
    """Scan lines without prediction; ``samples`` of shape (height, width) or (height, width, channels)."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").tobytes()
    elif depth == 8:
        rows = flat.astype(np.uint8).tobytes()
    else:
        bits = (flat[:, :, None].astype(np.int64) >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    step = len(rows) // height
    return b"".join(b"\0" + rows[i * step : (i + 1) * step] for i in range(height))


def png_bytes(
    samples: NDArray[np.integer],
    color_type: int,
    depth: int = 8,
    *,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A whole PNG; ``before`` and ``after`` are chunks around the image data."""
    height, width = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7]
        rows = b"".join(png_rows(part, depth) for part in passes if part.size)
    else:
        rows = png_rows(samples, depth)
    return b"".join(
        [
            PNG_SIGNATURE,
            png_header(width, height, depth, color_type, interlaced=interlaced),
            before,
            png_chunk(b"IDAT", zlib.compress(rows)),
            after,
            png_chunk(b"IEND", b""),
        ]
    )


# ---------------------------------------------------------------- TIFF

_TIFF_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1, 16: 8}


@dataclass
class TiffPage:
    """One page: image data in strips or tiles, and any tags as tag -> (type, values)."""

    strips: Sequence[bytes]
    tags: dict[int, tuple[int, Sequence[int]]] = field(default_factory=dict)
    is_tiled: bool = False


def tiff_page(
    samples: NDArray[np.generic],
    order: str = "<",
    *,
    photometric: int | None = None,
    tags: dict[int, tuple[int, Sequence[int]]] | None = None,
) -> TiffPage:
    """An uncompressed page of one strip for ``samples`` of shape (height, width[, channels])."""
    height, width = samples.shape[:2]
    n_channels = samples.shape[2] if samples.ndim == 3 else 1
    sample_format = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = samples.dtype.itemsize * 8
    meaning = photometric if photometric is not None else {1: 1, 2: 1, 3: 2, 4: 2}[n_channels]
    base: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * n_channels),
        259: (3, [1]),
        262: (3, [meaning]),
        277: (3, [n_channels]),
        278: (4, [height]),
        339: (3, [sample_format] * n_channels),
    }
    return TiffPage([data], base | (tags or {}))


def tiff_bytes(
    pages: Sequence[TiffPage], order: str = "<", *, big: bool = False, next_of_last: int = 0
) -> bytes:
    """A classic or big TIFF file; ``next_of_last`` can point the last page anywhere."""
    mark = b"II" if order == "<" else b"MM"
    offset_type, offset_code, inline = (16, "Q", 8) if big else (4, "I", 4)
    header_size = 16 if big else 8
    out = bytearray(header_size)
    pointer_at = 8 if big else 4
    for page in pages:
        offsets = []
        for strip in page.strips:
            offsets.append(len(out))
            out += strip
        where, sizes = (324, 325) if page.is_tiled else (273, 279)
        tags = dict(page.tags)
        tags.setdefault(where, (offset_type, offsets))
        tags.setdefault(sizes, (offset_type, [len(strip) for strip in page.strips]))
        entries = []
        for tag in sorted(tags):
            kind, values = tags[tag]
            value = struct.pack(f"{order}{len(values)}{_TIFF_CODES[kind]}", *values)
            if len(value) > inline:
                out += b"\0" * (len(out) % 2)
                at, value_field = len(out), b""
                out += value
                value_field = struct.pack(order + offset_code, at)
            else:
                value_field = value.ljust(inline, b"\0")
            entries.append(struct.pack(f"{order}HH{offset_code}", tag, kind, len(values)) + value_field)
        out += b"\0" * (len(out) % 2)
        struct.pack_into(order + offset_code, out, pointer_at, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries)
        pointer_at = len(out)
        out += struct.pack(order + offset_code, next_of_last)
    out[: 8 if big else 4] = (
        mark + struct.pack(f"{order}HHH", 43, 8, 0) if big else mark + struct.pack(f"{order}H", 42)
    )
    return bytes(out)


def exif_bytes(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with nothing but an orientation."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 274, 3, 1, orientation, 0, 0)


# ---------------------------------------------------------------- JPEG


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """One marker segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(data: bytes, *segments: bytes) -> bytes:
    """Insert segments right after the start-of-image marker."""
    return data[:2] + b"".join(segments) + data[2:]


def jpeg_exif(orientation: int, order: str = "<") -> bytes:
    """An APP1 segment with an orientation."""
    return jpeg_segment(0xE1, b"Exif\0\0" + exif_bytes(orientation, order))


def jpeg_icc(profile: bytes, number: int = 1, total: int = 1) -> bytes:
    """An APP2 segment with one part of a colour profile."""
    return jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([number, total]) + profile)


def jpeg_frame_at(data: bytes) -> int:
    """Position of the frame header's marker; the tests' own files have one of the usual types."""
    position = 2
    while data[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position


def jpeg_without(data: bytes, marker: int) -> bytes:
    """Drop the first segment of a kind."""
    position = 2
    while data[position + 1] != marker:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data[:position] + data[end:]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Overwrite bytes in place."""
    return data[:at] + new + data[at + len(new) :]


# ---------------------------------------------------------------- ICC profiles

# Bradford-adapted sRGB and Display P3 primaries in the D50 connection space, columns R, G, B.
SRGB_TO_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
WIDE_TO_D50 = np.array([[0.5150, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0010, 0.0419, 0.7841]])
D50 = (0.9642, 1.0, 0.8249)


def _s15fixed16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def _icc(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += padded
    size = start + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4s", size, b"lcms", 0x02100000, kind, space, connection, b"", b"acsp", b""
    )
    header = header.ljust(68, b"\0") + _s15fixed16(*D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _description(text: str) -> bytes:
    ascii_text = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_text)) + ascii_text + b"\0" * 78


def _gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"


def icc_rgb(name: str, to_d50: NDArray[np.floating], gamma: float) -> bytes:
    """A display profile: one power law, three primaries."""
    tags = {b"desc": _description(name), b"wtpt": b"XYZ \0\0\0\0" + _s15fixed16(*D50)}
    for i, letter in enumerate("rgb"):
        tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + _s15fixed16(*to_d50[:, i])
        tags[f"{letter}TRC".encode()] = _gamma(gamma)
    return _icc(b"RGB ", b"XYZ ", b"mntr", tags)


def icc_gray(name: str, gamma: float) -> bytes:
    """A gray profile: one power law."""
    tags = {b"desc": _description(name), b"wtpt": b"XYZ \0\0\0\0" + _s15fixed16(*D50), b"kTRC": _gamma(gamma)}
    return _icc(b"GRAY", b"XYZ ", b"mntr", tags)


def icc_cmyk(name: str, lab_of_inks: NDArray[np.floating]) -> bytes:
    """A printer profile: Lab at the 16 corners of ink space, shape (2, 2, 2, 2, 3), C slowest, K next to last."""
    identity = bytes(range(256))
    lightness = lab_of_inks[..., :1] * 255 / 100
    codes = np.concatenate([lightness, lab_of_inks[..., 1:] + 128], axis=-1)
    grid = np.clip(np.rint(codes), 0, 255).astype(np.uint8).tobytes()
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _s15fixed16(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += identity * 4 + grid + identity * 3
    tags = {
        b"desc": _description(name),
        b"wtpt": b"XYZ \0\0\0\0" + _s15fixed16(*D50),
        b"A2B0": lut,
        b"A2B1": lut,
    }
    return _icc(b"CMYK", b"Lab ", b"prtr", tags)


def srgb_encode(linear: NDArray[np.floating]) -> NDArray[np.uint8]:
    """IEC 61966-2-1: linear light in [0, 1] to 8-bit sRGB."""
    light = np.clip(linear, 0, 1)
    return np.rint(
        255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    ).astype(np.uint8)


def lab_to_srgb(lab: NDArray[np.floating]) -> NDArray[np.uint8]:
    """CIE Lab (D50) to 8-bit sRGB."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array(D50)
    return srgb_encode(xyz @ np.linalg.inv(SRGB_TO_D50).T)
