"""Reads TIFF directories: the orientation in an EXIF block, and TIFF files reduced to what pixels need.

Pillow's own TIFF reader treats tags that do not concern pixels (nested EXIF, maker notes, further pages) as
part of opening a file, warns about them, and turns the image by itself in some versions. Given a directory
with the imaging tags alone it does none of that, in any version.

References
----------
.. [1] Aldus Corporation, "TIFF Revision 6.0", 1992, sections 2 and 8.
.. [2] CIPA DC-008, "Exif 2.32", 2019, section 4.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from featbank.errors import ImageError
from featbank.images.formats import check_size

ORIENTATION = 274
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_SAMPLE_FORMAT, _SUBFILE, _SUB_DIRECTORIES, _ICC, _DNG_VERSION = 339, 254, 330, 34675, 50706

# Everything a decoder needs to find and read the samples; all other tags are left out of the clean copy.
_IMAGING_TAGS = frozenset(
    {
        _WIDTH,
        _HEIGHT,
        _BITS,
        _COMPRESSION,
        _PHOTOMETRIC,
        266,
        _STRIP_OFFSETS,
        _SAMPLES,
        _ROWS_PER_STRIP,
        _STRIP_SIZES,
        _PLANAR,
    }
    | {292, 293, 317, 320, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, 338, _SAMPLE_FORMAT, 347}
    | {*range(512, 522), 529, 530, 531, 532}
)
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_INTEGER_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
# Gray, RGB, palette and CMYK; YCbCr may store fewer samples than pixels.
_FULL_SAMPLING = frozenset({0, 1, 2, 3, 5})
_MAX_PAGES = 10_000
# CMYK with two more; Pillow takes no more either, and would log it as an error of the program.
_MAX_SAMPLES = 6


@dataclass(frozen=True)
class Entry:
    """One tag: its TIFF type, number of values, where they start, and the entry's own bytes."""

    kind: int
    count: int
    start: int
    raw: bytes


@dataclass(frozen=True)
class Directory:
    """One directory (page) of a TIFF file."""

    data: bytes
    order: str
    is_big: bool
    entries: dict[int, Entry]
    next_offset: int

    def integer(self, tag: int) -> int | None:
        """Return the first value of an integer tag; None where the tag is absent or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _INTEGER_CODES or entry.count < 1:
            return None
        value: int = struct.unpack_from(self.order + _INTEGER_CODES[entry.kind], self.data, entry.start)[0]
        return value

    def integer_or(self, tag: int, default: int) -> int:
        """Return the first value of an integer tag, or ``default``."""
        value = self.integer(tag)
        return default if value is None else value

    def total(self, tag: int) -> int:
        """Return the sum of an integer tag's values; 0 where the tag is absent or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _INTEGER_CODES:
            return 0
        values = struct.iter_unpack(self.order + _INTEGER_CODES[entry.kind], self.content(tag) or b"")
        return sum(value for (value,) in values)

    def content(self, tag: int) -> bytes | None:
        """Return the bytes of a tag."""
        entry = self.entries.get(tag)
        if entry is None:
            return None
        return self.data[entry.start : entry.start + entry.count * _TYPE_BYTES[entry.kind]]


@dataclass(frozen=True)
class CleanTiff:
    """The first page of a TIFF file with its imaging tags alone, and what the other tags said.

    Attributes
    ----------
    data : bytes
        The rewritten file.
    width, height : int
        Size in pixels, as stored.
    bits : int
        Bits per sample.
    sample_format : int
        1 unsigned, 2 signed, 3 float.
    is_white_zero : bool
        Whether the deep samples count from white; the rewritten file says they count from black.
    orientation : int or None
        The orientation tag.
    icc : bytes or None
        The colour profile.
    n_pages : int
        Pages in the file, counted to 10,000 at most.
    """

    data: bytes
    width: int
    height: int
    bits: int
    sample_format: int
    is_white_zero: bool
    orientation: int | None
    icc: bytes | None
    n_pages: int


def read_orientation(exif: bytes) -> int | None:
    """Read the orientation from an EXIF block.

    Parameters
    ----------
    exif : bytes
        The block, with or without its six-byte ``Exif`` mark.

    Returns
    -------
    int or None
        The stored value, which may be out of range; None where the tag is absent.

    Raises
    ------
    ImageError
        If the block is no readable directory.
    """
    block = exif[6:] if exif.startswith(b"Exif\0\0") else exif
    directory = _read_directory(block, None, frozenset({ORIENTATION}))
    return directory.integer(ORIENTATION)


def clean_tiff(data: bytes) -> CleanTiff:
    """Rewrite a TIFF file so that it holds the first page and its imaging tags alone.

    Parameters
    ----------
    data : bytes
        The whole file, classic or BigTIFF.

    Returns
    -------
    CleanTiff
        The rewritten file and the facts that were taken out.

    Raises
    ------
    ImageError
        ``unsupported`` for camera raw files, whose first page is a thumbnail, and for more than six samples
        per pixel; ``truncated`` or ``corrupt`` where the directory points outside the file, lacks its size, or
        lists less data than the image has.
    """
    wanted = _IMAGING_TAGS | {ORIENTATION, _SUBFILE, _SUB_DIRECTORIES, _ICC, _DNG_VERSION}
    page = _read_directory(data, None, wanted)
    is_preview = page.integer_or(_SUBFILE, 0) & 1 == 1 and _SUB_DIRECTORIES in page.entries
    if _DNG_VERSION in page.entries or data[8:10] == b"CR" or is_preview:
        raise ImageError(
            "unsupported", "is a camera raw file whose first page is a preview; develop it to TIFF or JPEG"
        )
    width, height = page.integer_or(_WIDTH, 0), page.integer_or(_HEIGHT, 0)
    if page.integer_or(_SAMPLES, 1) > _MAX_SAMPLES:
        raise ImageError("unsupported", f"is a TIFF of {page.integer_or(_SAMPLES, 1)} samples per pixel")
    bits, sample_format = page.integer_or(_BITS, 1), page.integer_or(_SAMPLE_FORMAT, 1)
    _check_layout(page, width, height)
    # Pillow inverts 8-bit white-is-zero samples but hands out deeper ones as they are.
    is_white_zero = bits > 8 and page.integer_or(_PHOTOMETRIC, 1) == 0
    return CleanTiff(
        data=_rewrite(page, is_white_zero),
        width=width,
        height=height,
        bits=bits,
        sample_format=sample_format,
        is_white_zero=is_white_zero,
        orientation=page.integer(ORIENTATION),
        icc=page.content(_ICC),
        n_pages=_count_pages(data, page),
    )


def _read_directory(data: bytes, offset: int | None, wanted: frozenset[int]) -> Directory:
    """Read the wanted tags of the directory at ``offset``, or of the first one."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ImageError("corrupt", f"has a TIFF block that begins with {data[:2]!r}, not 'II' or 'MM'")
    try:
        is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
        head, tag_format, last = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
        if offset is None:
            offset = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", data, 8 if is_big else 4)[0]
        n_entries = struct.unpack_from(order + head, data, offset)[0]
        position = offset + struct.calcsize(order + head)
        size = struct.calcsize(order + tag_format)
        if n_entries * size > len(data) - position:
            raise ImageError("truncated", "ends inside its TIFF directory")
        entries: dict[int, Entry] = {}
        # Directories may overlap: reading all entries only to leave them out would let a small file take minutes.
        for start in range(position, position + n_entries * size, size) if wanted else ():
            tag, kind, count, _ = struct.unpack_from(order + tag_format, data, start)
            if tag not in wanted or kind not in _TYPE_BYTES:
                continue
            n_bytes = count * _TYPE_BYTES[kind]
            inline = start + size - (8 if is_big else 4)
            at = (
                inline
                if n_bytes <= size - (inline - start)
                else struct.unpack_from(order + last, data, inline)[0]
            )
            if at + n_bytes > len(data):
                raise ImageError("truncated", f"ends before the values of its TIFF tag {tag}")
            entries[tag] = Entry(kind, count, at, data[start : start + size])
        end = position + n_entries * size
        # The last directory of some writers lacks the pointer to a next one.
        next_offset = (
            struct.unpack_from(order + last, data, end)[0] if end + struct.calcsize(last) <= len(data) else 0
        )
    except (struct.error, OverflowError) as error:  # offsets beyond the file, or beyond any file
        raise ImageError("truncated", "ends inside its TIFF directory") from error
    return Directory(data, order, is_big, entries, next_offset)


def _check_layout(page: Directory, width: int, height: int) -> None:
    """Refuse pages whose list of strips or tiles is too short: the missing ones would come out black."""
    check_size(width, height)
    if _TILE_OFFSETS in page.entries:
        across, down = page.integer_or(_TILE_WIDTH, 0), page.integer_or(_TILE_HEIGHT, 0)
        if across < 1 or down < 1:
            raise ImageError("corrupt", f"claims tiles of {across} x {down} pixels")
        expected, found = -(-width // across) * -(-height // down), page.entries[_TILE_OFFSETS].count
    elif _STRIP_OFFSETS in page.entries:
        rows = max(1, min(page.integer_or(_ROWS_PER_STRIP, height), height))
        expected, found = -(-height // rows), page.entries[_STRIP_OFFSETS].count
    else:
        raise ImageError("corrupt", "lists neither strips nor tiles")
    if page.integer_or(_PLANAR, 1) == 2:
        expected *= page.integer_or(_SAMPLES, 1)
    if found < expected:
        raise ImageError("corrupt", f"lists {found} strips or tiles where its size needs {expected}")
    if page.integer_or(_COMPRESSION, 1) == 1 and page.integer_or(_PHOTOMETRIC, 1) in _FULL_SAMPLING:
        # Beyond a strip that is too short, whatever lies next in the file would be taken for pixels.
        needed = width * height * page.integer_or(_SAMPLES, 1) * page.integer_or(_BITS, 1) // 8
        listed = page.total(_TILE_SIZES if _TILE_OFFSETS in page.entries else _STRIP_SIZES)
        if 0 < listed < needed:
            raise ImageError("truncated", f"lists {listed} bytes of samples where its size needs {needed}")


def _rewrite(page: Directory, is_white_zero: bool) -> bytes:
    """Append a directory of the imaging tags and point the header at it; offsets of samples stay valid."""
    raw = {tag: entry.raw for tag, entry in page.entries.items() if tag in _IMAGING_TAGS}
    if is_white_zero:
        one = struct.pack(
            f"{page.order}HHQHxxxxxx" if page.is_big else f"{page.order}HHIHxx", _PHOTOMETRIC, 3, 1, 1
        )
        raw[_PHOTOMETRIC] = one
    data = page.data
    padding = b"\0" * (-len(data) % 8)
    offset = len(data) + len(padding)
    if page.is_big:
        header = data[:8] + struct.pack(f"{page.order}Q", offset)
        count, end = struct.pack(f"{page.order}Q", len(raw)), b"\0" * 8
    else:
        header = data[:4] + struct.pack(f"{page.order}I", offset)
        count, end = struct.pack(f"{page.order}H", len(raw)), b"\0" * 4
    body = b"".join(raw[tag] for tag in sorted(raw))
    return b"".join([header, memoryview(data)[len(header) :], padding, count, body, end])


def _count_pages(data: bytes, first: Directory) -> int:
    """Follow the chain of directories; a broken or circular one ends it."""
    seen: set[int] = set()
    offset = first.next_offset
    while offset and offset not in seen and len(seen) < _MAX_PAGES - 1:
        try:
            page = _read_directory(data, offset, frozenset())
        except ImageError:
            break
        seen.add(offset)
        offset = page.next_offset
    return 1 + len(seen)
