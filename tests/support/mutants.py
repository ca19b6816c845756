"""Thousands of damaged files out of a few valid ones; the same seed always gives the same bytes."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import gray_picture, picture

SUFFIXES = ("jpg", "png", "gif", "bmp", "tif", "webp")

NUMBERS = (0, 1, 2, 7, 255, 256, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
"""What is written over lengths and sizes: the ends of integers. As sides of an image they ask for 17 million pixels or
for more than any limit; what lies between is an honest large image, which costs what `test_memory` says."""


def valid_files() -> list[tuple[str, bytes]]:
    """Return valid files as (suffix, content), several kinds of each format."""
    rgb, gray = picture(), gray_picture()
    alpha = np.dstack([rgb, gray])
    frames = [Image.fromarray(np.roll(rgb, 9 * shift, axis=1)).quantize(32) for shift in range(3)]
    animation = {"save_all": True, "append_images": frames[1:], "duration": 40}
    palette = Image.fromarray(rgb).quantize(64)
    files = [("jpg", tiny.save(rgb, "JPEG", quality=90))]
    files += [("jpg", tiny.save(rgb, "JPEG", quality=70, progressive=True, subsampling=0))]
    files += [("jpg", tiny.save(gray, "JPEG", quality=90, restart_marker_rows=1))]
    files += [("jpg", tiny.save(Image.fromarray(rgb).convert("CMYK"), "JPEG"))]
    files += [("png", tiny.save(image, "PNG")) for image in (rgb, gray, alpha, palette)]
    files += [("gif", tiny.save(frames[0], "GIF")), ("gif", tiny.save(frames[0], "GIF", **animation))]
    files += [("bmp", tiny.save(image, "BMP")) for image in (rgb, gray, palette)]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files.append(("tif", tiny.save(rgb, "TIFF", compression=compression)))
    files += [("webp", tiny.save(rgb, "WEBP")), ("webp", tiny.save(alpha, "WEBP", lossless=True))]
    return [*files, ("webp", tiny.save(alpha, "WEBP", quality=60))]


def mutants(n_files: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield file names and contents: one to three kinds of damage each, every valid file in turn."""
    dice, valid = random.Random(seed), valid_files()
    for number in range(n_files):
        suffix, data = valid[number % len(valid)]
        names = []
        for _ in range(dice.choice((1, 1, 2, 3))):
            damage = dice.choice(DAMAGES)
            names.append(damage.__name__.strip("_"))
            data = damage(data, dice, valid)
        if suffix == "png" and dice.random() < 0.7:
            data = _with_right_checksums(data)  # otherwise nothing behind the checksums would be reached
        if dice.random() < 0.1:
            suffix = dice.choice(SUFFIXES)
        yield f"{number:05d}_{'_'.join(names)}.{suffix}", data


def _flips(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    out = bytearray(data)
    # Headers are a small part of a file and its most tender one.
    end = len(out) if dice.random() < 0.5 else min(len(out), 128)
    for _number in range(dice.choice((1, 1, 4, 32)) if end else 0):
        out[dice.randrange(end)] ^= 1 << dice.randrange(8)
    return bytes(out)


def _cut(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _hole(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    start = dice.randrange(len(data) + 1)
    return data[:start] + data[start + dice.randrange(1, 64) :]


def _repeat(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    start = dice.randrange(len(data) + 1)
    part = data[start : start + dice.randrange(1, 200)]
    return data[:start] + part * dice.choice((2, 3, 50)) + data[start:]


def _noise(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    start = dice.randrange(len(data) + 1)
    noise = dice.randbytes(dice.randrange(1, 64))
    return data[:start] + noise + data[start + dice.choice((0, len(noise))) :]


def _splice(data: bytes, dice: random.Random, valid: list[tuple[str, bytes]]) -> bytes:
    """Put the head of another file, of any format, before the rest of this one."""
    head = dice.choice(valid)[1]
    at = dice.randrange(min(len(head), 512))
    return head[:at] + data[dice.choice((at, dice.randrange(len(data) + 1))) :]


def _join(data: bytes, dice: random.Random, valid: list[tuple[str, bytes]]) -> bytes:
    return data + dice.choice(valid)[1]


def _number(data: bytes, dice: random.Random, _: list[tuple[str, bytes]]) -> bytes:
    """Write a number over a size, a length or whatever lies there."""
    places = list(_places(data)) if dice.random() < 0.7 else []
    at = dice.choice(places) if places else dice.randrange(max(1, min(len(data), 1024)))
    kind = dice.choice(("<H", ">H", "<I", ">I"))
    value = dice.choice(NUMBERS) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    return data[:at] + struct.pack(kind, value) + data[at + struct.calcsize(kind) :]


DAMAGES: tuple[Callable[[bytes, random.Random, list[tuple[str, bytes]]], bytes], ...]
DAMAGES = (_flips, _cut, _hole, _repeat, _noise, _splice, _join, _number, _number)


def _places(data: bytes) -> Iterator[int]:
    """Yield where sizes and lengths of the format begin."""
    if data[:2] == b"\xff\xd8":
        for at in range(2, min(len(data), 2048)):
            if data[at] == 0xFF and data[at + 1 : at + 2] not in {b"\0", b"\xff"}:
                yield at + 2
                if data[at + 1 : at + 2] in {b"\xc0", b"\xc2"}:
                    yield from (at + 5, at + 7)
    elif data[:4] == b"\x89PNG":
        yield from (16, 20)
        yield from (data.find(name) - 4 for name in (b"PLTE", b"IDAT", b"IEND") if name in data)
    elif data[:3] == b"GIF":
        yield from (6, 8, *(at + shift for at in [data.find(b",", 13)] for shift in (1, 3, 5, 7)))
    elif data[:2] == b"BM":
        yield from (2, 10, 14, 18, 22, 28, 30, 34, 46)
    elif data[:2] in {b"II", b"MM"} and len(data) > 8:
        first = int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big")
        yield from (4, first, *(first + 2 + 12 * tag + shift for tag in range(12) for shift in (2, 4, 8)))
    elif data[:4] == b"RIFF":
        yield from (4, 16, 24, 26, 27, 28)


def _with_right_checksums(data: bytes) -> bytes:
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
