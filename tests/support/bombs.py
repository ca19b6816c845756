"""Small files that would keep a decoder busy for minutes, or fill the memory: each repeats something cheap."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import Case, gray_picture

SIDE_PX = 8000


def bombs() -> Iterator[Case]:
    """Yield files below 4 MB with the one reason each must be refused for, or none where it is a photo.

    What each took without its limit stands beside it, on one core of 2025.
    """
    yield Case("scans.jpg", jpeg_scans(8000), "too-large")  # 62 s
    yield Case("scans_of_one_channel.jpg", _sequential_scans(8000), "too-large")
    yield Case("segments.jpg", b"\xff\xd8" + b"\xff\xfe\0\2" * 900_000, "too-large")
    yield Case("fill_bytes.jpg", b"\xff\xd8" + b"\xff" * 3_900_000, "truncated")
    yield Case("empty_chunks.png", _empty_chunks(320_000), "too-large")  # 160 MB
    yield Case("overlapping_pages.tif", _overlapping_pages(4000), None)  # 42 s
    yield Case("comments.pgm", b"P2 4 4 255\n" + b"#\n" * 500_000 + b"1 " * 16, "too-large")  # 9 s
    yield Case("frames.gif", _gif_frames(200_000), None)


def jpeg_scans(n_scans: int) -> bytes:
    """A gray progressive JPEG that sends "nothing new" for all blocks of 64 million pixels again and again."""
    n_blocks = (SIDE_PX // 8) ** 2
    frame = struct.pack(">BHHB", 8, SIDE_PX, SIDE_PX, 1) + bytes([1, 0x11, 0])
    head = b"\xff\xd8" + tiny.jpeg_segment(0xDB, b"\0" + bytes([1] * 64)) + tiny.jpeg_segment(0xC2, frame)
    # One code of one bit in each table: difference 0, and a run of 2^14 + 14 bits of empty blocks.
    head += _table(0x00, 0x00) + _table(0x10, 0xE0)
    means = tiny.jpeg_segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(n_blocks // 8)
    n_runs, rest = divmod(n_blocks, (1 << 15) - 1)
    bits = "0" + "1" * 14
    bits = bits * n_runs + "0" + format(rest - (1 << 14), "014b")
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return head + means + (tiny.jpeg_segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + data) * n_scans + b"\xff\xd9"


def _sequential_scans(n_scans: int) -> bytes:
    """A colour JPEG whose first channel is sent again and again, without any data."""
    frame = struct.pack(">BHHB", 8, 1024, 1024, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    head = b"\xff\xd8" + tiny.jpeg_segment(0xDB, b"\0" + bytes([1] * 64)) + tiny.jpeg_segment(0xC0, frame)
    scan = tiny.jpeg_segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + bytes(32)
    return head + _table(0x00, 0x00) + _table(0x10, 0x00) + scan * n_scans + b"\xff\xd9"


def _table(number: int, symbol: int) -> bytes:
    """A Huffman table with one symbol, of code 0."""
    return tiny.jpeg_segment(0xC4, bytes([number, 1, *[0] * 15, symbol]))


def _empty_chunks(n_chunks: int) -> bytes:
    plain = tiny.png_bytes(gray_picture(), 0)
    at = plain.index(b"IDAT") - 4
    return plain[:at] + tiny.png_chunk(b"IDAT", b"") * n_chunks + plain[at:]


def _overlapping_pages(n_pages: int) -> bytes:
    """A TIFF of 4 x 4 pixels whose next pages each claim 60,000 tags and begin twelve bytes after the last."""
    n_tags, pixels_at = 60_000, 8 + 2 + 9 * 12 + 4
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, pixels_at), (277, 1), (278, 4), (279, 16)]
    first = pixels_at + 16
    data = bytearray(first + 2 + 12 * (n_tags + n_pages) + 4)
    struct.pack_into("<4sIH", data, 0, b"II*\0", 8, len(tags))
    for place, (tag, value) in enumerate(tags):
        struct.pack_into("<HHII", data, 10 + 12 * place, tag, 4, 1, value)
    struct.pack_into("<I", data, 10 + 12 * len(tags), first)
    for at in range(first, first + 12 * n_pages, 12):
        struct.pack_into("<H", data, at, n_tags)
        struct.pack_into("<I", data, at + 2 + 12 * n_tags, at + 12)
    return bytes(data)


def _gif_frames(n_frames: int) -> bytes:
    plain = tiny.save(gray_picture()[:4, :4], "GIF")
    at = plain.index(b",", 13 + 3 * (2 << (plain[10] & 7)))
    return plain[:at] + plain[at:-1] * n_frames + b";"
