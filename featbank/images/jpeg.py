"""Decodes JPEG strictly: damaged data is refused where most decoders fill up with gray and say nothing.

libjpeg-turbo decodes through simplejpeg, whose strict mode turns the library's warnings into errors; its
pixels are those of Pillow, at a quarter of the time. The markers before the image data are read here, so that
size, colour profile and orientation are known before anything is allocated. What libjpeg warns of although every
pixel is in place is mended in a copy of the bytes, which then must decode without any warning.

References
----------
.. [1] ITU-T T.81, "Digital compression and coding of continuous-tone still images", 1992, annex B.
.. [2] ICC.1:2022, "Image technology colour management", annex B.4 (profiles in JPEG).
.. [3] Adobe, "Supporting the DCT filters in PostScript level 2", technical note 5116, 1992 (APP14).
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from featbank.errors import ImageError
from featbank.images.formats import MAX_PROFILE_BYTES, Raster, check_size, load_foreign

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Sequential and progressive, Huffman or arithmetic; the others are lossless or hierarchical.
_DECODABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})
_ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_MAX_SEGMENTS = 1 << 16
"""Most segments before the image data: a file of the largest size has fewer when each is full."""

_MAX_SCANS = 100
"""Most passes over the image. Encoders write ten or so, libtiff stops at the same number. Each costs a walk over all
blocks, though it may fill only a few bytes: one megabyte of scans would keep the decoder busy for minutes, a
hundred for hours."""

# Whatever stands before it is skipped, as libjpeg does.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Inside image data 0xff is followed by zero, by a restart mark, or by a marker that ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SEQUENTIAL = (
    b"\x00\x3f\x00"  # how a scan that is no part of a progression ends: coefficients 0 to 63, all bits
)
_MIN_PADDING = 4
_KINDS = {1: ("L", "GRAY"), 3: ("RGB", "RGB"), 4: ("CMYK", "CMYK")}


@dataclass
class JpegHeader:
    """What the markers before the image data say."""

    frame: int = 0
    bits: int = 0
    width: int = 0
    height: int = 0
    n_components: int = 0
    n_scan_components: int = 0
    data_at: int = 0
    has_adobe_mark: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    icc_problem: str = ""
    icc_spans: list[tuple[int, int]] = field(default_factory=list)
    # What libjpeg would warn of: where it begins and ends, harmless bytes instead, what to call it
    mends: list[tuple[int, int, bytes, str]] = field(default_factory=list)


def decode_jpeg(data: bytes, *, keep_truncated: bool = False) -> Raster:
    """Decode a JPEG file.

    Parameters
    ----------
    data : bytes
        The whole file; bytes after the end of the image are ignored, as phones append previews and films.
    keep_truncated : bool
        Hand out what libjpeg-turbo makes of damaged image data, gray where data is missing.

    Returns
    -------
    Raster
        Gray, RGB, or CMYK with 255 for full ink.

    Raises
    ------
    ImageError
        ``unsupported`` for lossless, hierarchical and 12-bit files and for two components, ``too-large`` for too
        many pixels or scans, ``truncated``, or ``corrupt`` for anything libjpeg-turbo would warn about.
    """
    header = read_header(data)
    if header.bits != 8 or header.frame not in _DECODABLE_FRAMES or header.n_components not in _KINDS:
        raise ImageError(
            "unsupported",
            f"is a JPEG of {header.bits} bits, {header.n_components} components and frame type "
            f"{header.frame:#x}; convert it to an 8-bit baseline JPEG or a PNG",
        )
    check_size(header.width, header.height)
    if not keep_truncated:
        _check_length(header, len(data))
    _check_scans(header, data)
    kind, colorspace = _KINDS[header.n_components]
    actions = [f"mended:{name}" for name in dict.fromkeys(name for *_, name in header.mends)]
    if header.icc_problem:
        # The strict decoder would refuse the pixels for the sake of a damaged profile.
        header.mends += [(start, end, b"", "") for start, end in header.icc_spans]
    data = _mended(data, header.mends)
    try:
        samples = _decode_padded(data, colorspace, actions)
    except ImageError as error:
        if not keep_truncated:
            raise
        samples = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=False)
        samples = samples[:, :, 0] if samples.shape[2] == 1 else samples
        actions.append(f"{error.reason}-kept")
    if samples is None:
        samples = _decode_unusual(data)
        actions.append("unusual-sampling")
    if kind == "CMYK" and header.has_adobe_mark:
        # Adobe's programs store 255 for no ink and say so by their mark; plain CMYK stores 255 for full ink.
        np.subtract(255, samples, out=samples)
        actions.append("adobe-inversion")
    if header.icc_problem:
        actions.append(f"icc-ignored:{header.icc_problem}")
    return Raster(samples, kind, kind, icc=header.icc, exif=header.exif, actions=actions)


def read_header(data: bytes) -> JpegHeader:
    """Read the markers of a JPEG file up to its image data.

    Raises ImageError: ``truncated`` when the file ends before the image data, ``corrupt`` when the
    markers make no sense, ``too-large`` when there are more of them than any writer makes.
    """
    header = JpegHeader()
    parts: list[tuple[int, int, bytes]] = []
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise ImageError("truncated", "ends inside the JPEG header")
        if data[position : found.start()].strip(b"\xff"):
            header.mends.append((position, found.start(), b"", "bytes-between-segments"))
        marker, position = data[found.end() - 1], found.end()
        if marker in _STANDALONE:
            continue
        if marker in {_SOI, _EOI}:
            raise ImageError("corrupt", "has a JPEG header that ends before any image data")
        if position + 2 > len(data):
            raise ImageError("truncated", "ends inside the JPEG header")
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if length < 2:
            raise ImageError("corrupt", f"has a JPEG segment of length {length}")
        if position + length > len(data):
            raise ImageError("truncated", "ends inside the JPEG header")
        position += length
        if marker == _SOS:
            header.n_scan_components, header.data_at = segment[0] if segment else 0, position
            if header.frame not in _PROGRESSIVE_FRAMES and segment[-3:] != _SEQUENTIAL:
                header.mends.append((position - 3, position, _SEQUENTIAL, "scan-parameters"))
            break
        if marker in _FRAMES:
            _read_frame(header, marker, segment)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0") and header.exif is None:
            header.exif = segment[6:]
        elif marker == 0xE2 and segment.startswith(b"ICC_PROFILE\0"):
            # Profiles above 64 kB come in numbered parts; ref. [2].
            header.icc_spans.append((position - length - 2, position))
            parts.append((*segment[12:14].ljust(2, b"\0"), segment[14:]))
        elif marker == 0xE0 and segment.startswith(b"JFIF\0") and segment[5:6] not in {b"", b"\1", b"\2"}:
            header.mends.append((position - length + 7, position - length + 8, b"\1", "jfif-version"))
        elif marker == 0xEE and segment.startswith(b"Adobe"):
            header.has_adobe_mark = True
    else:
        raise ImageError("too-large", f"has more than {_MAX_SEGMENTS} JPEG segments before its image data")
    if not header.frame:
        raise ImageError("corrupt", "has JPEG image data before its frame header")
    _join_profile(header, parts)
    return header


def _read_frame(header: JpegHeader, marker: int, segment: bytes) -> None:
    if header.frame:
        raise ImageError("corrupt", "has two JPEG frame headers")
    if len(segment) < 6:
        raise ImageError("corrupt", "has a JPEG frame header that is too short")
    header.frame = marker
    header.bits, header.height, header.width, header.n_components = struct.unpack(">BHHB", segment[:6])


def _join_profile(header: JpegHeader, parts: list[tuple[int, int, bytes]]) -> None:
    """Join the numbered parts as libjpeg does; it warns of any that are missing, double, or of another total."""
    if not parts:
        return
    profile = b"".join(body for _, _, body in sorted(parts))
    if [(i, n) for i, n, _ in sorted(parts)] != [(i, len(parts)) for i in range(1, len(parts) + 1)]:
        header.icc_problem = "incomplete"
    elif not profile:
        header.icc_problem = "empty"
    elif len(profile) > MAX_PROFILE_BYTES:
        header.icc_problem = "too-large"
    else:
        header.icc = profile


def _check_length(header: JpegHeader, n_bytes: int) -> None:
    """Refuse a file too short for its size before libjpeg fills that size with gray.

    A Huffman code has at least one bit. A sequential block has one code for its mean and at least one for
    the rest; a progressive block has at least the one for its mean.
    """
    if header.frame in _ARITHMETIC_FRAMES:
        return
    n_blocks = -(-header.width // 8) * -(-header.height // 8)
    n_bits = n_blocks * (1 if header.frame in _PROGRESSIVE_FRAMES else 2)
    if n_bytes * 8 < n_bits:
        raise ImageError(
            "truncated",
            f"has {n_bytes} bytes, too few for any JPEG of {header.width} x {header.height} pixels",
        )


def _check_scans(header: JpegHeader, data: bytes) -> None:
    """Refuse more scans than any encoder writes before libjpeg walks over the image for each of them."""
    if header.frame not in _PROGRESSIVE_FRAMES and header.n_scan_components >= header.n_components:
        return  # the first scan is the whole image, and what follows is not decoded
    n_scans = 1
    for marker, position in _later_markers(data, header.data_at):
        if marker == _SOS:
            n_scans += 1
            end = position + int.from_bytes(data[position : position + 2], "big")
            if header.frame not in _PROGRESSIVE_FRAMES and data[end - 3 : end] != _SEQUENTIAL:
                header.mends.append((end - 3, end, _SEQUENTIAL, "scan-parameters"))
        if n_scans > _MAX_SCANS:
            raise ImageError(
                "too-large", f"has more than {_MAX_SCANS} JPEG scans; save it anew with an ordinary encoder"
            )


def _later_markers(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield the markers from the first scan to the end mark, and where the bytes behind each begin."""
    while (end := _SCAN_END.search(data, position)) is not None:
        marker, position = data[end.end() - 1], end.end()
        if marker not in _STANDALONE:
            yield marker, position
            if marker == _EOI:
                return
            # Tables between scans may hold any bytes; a length beyond the file leaves nothing to find.
            position += max(2, int.from_bytes(data[position : position + 2], "big"))


def _mended(data: bytes, mends: list[tuple[int, int, bytes, str]]) -> bytes:
    """Replace spans of bytes by others."""
    pieces, at = [], 0
    for start, end, instead, _ in sorted(mends):
        pieces += [data[at:start], instead]
        at = end
    return b"".join([*pieces, data[at:]]) if mends else data


def _decode_padded(data: bytes, colorspace: str, actions: list[str]) -> NDArray[np.uint8] | None:
    """Decode strictly; where only bytes before the end mark are in the way, without them.

    Padding is zeros, or at least `_MIN_PADDING` bytes of one value: what is left over after a damaged scan is neither.
    It goes to the last byte but one of a scan that ends in that value, so that zeros in place of lost data are refused.
    """
    try:
        return _decode_strictly(data, colorspace)
    except ImageError as error:
        ends = [at - 2 for marker, at in _later_markers(data, read_header(data).data_at) if marker == _EOI]
        if not ends or "extraneous bytes before marker 0xd9" not in str(error):
            raise
        end = ends[0]
        pad = data[end - 1 : end]
        start = len(data[:end].rstrip(pad))
        if pad != b"\0" and end - start < _MIN_PADDING:
            raise
        actions.append("mended:bytes-before-end")
        with contextlib.suppress(ImageError):
            return _decode_strictly(data[:start] + data[end:], colorspace)
        return _decode_strictly(data[: start + 1] + data[end:], colorspace)


def _decode_strictly(data: bytes, colorspace: str) -> NDArray[np.uint8] | None:
    """Decode with every warning as an error; None for component samplings that TurboJPEG has no name for."""
    try:
        samples: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=True)
    except ValueError as error:
        text = str(error)
        if "subsampling" in text:
            return None
        reason = "truncated" if "premature end of jpeg file" in text.lower() else "corrupt"
        raise ImageError(
            reason, f"has damaged JPEG data ({text}); copy or download the file again"
        ) from error
    return samples[:, :, 0] if samples.shape[2] == 1 else samples


def _decode_unusual(data: bytes) -> NDArray[np.uint8]:
    """Decode samplings outside TurboJPEG's list with Pillow, which accepts them but warns of no damage."""
    samples = np.array(load_foreign(data, "JPEG").image)
    # Pillow inverts CMYK whether or not there is Adobe's mark; here the samples are wanted as stored.
    return np.subtract(255, samples, out=samples) if samples.ndim == 3 and samples.shape[2] == 4 else samples
