"""Writes odd and broken image files, each with the pixels or the reason that reading it must give.

`write_odd_files` is used by the tests of `featbank.images` and by the end-to-end test of extraction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import (
    Case,
    Pixels,
    picture,
)
from tests.support.odd_jpegs import broken_jpegs, jpeg_colours, jpegs
from tests.support.odd_others import animations, broken_others, others
from tests.support.odd_pngs import broken_pngs, odd_pngs, pngs
from tests.support.odd_tiffs import broken_tiffs, odd_tiffs, tiffs


@dataclass(frozen=True, eq=False)
class OddFile:
    """One file and its defined outcome: ``pixels`` within ``tolerance``, or ``reason``."""

    path: Path
    reason: str | None = None
    pixels: Pixels | None = None
    tolerance: int = 0
    actions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_image(self) -> bool:
        return self.reason is None


def write_odd_files(folder: Path) -> list[OddFile]:
    """Write every odd file into ``folder``.

    Returns
    -------
    list of OddFile
        In a fixed order, more than 100 files with distinct names, besides a folder, links and a pipe.
    """
    written = []
    families = (jpegs, jpeg_colours, broken_jpegs, pngs, odd_pngs, broken_pngs, tiffs, odd_tiffs)
    families += (broken_tiffs, animations, others, broken_others, _strangers)
    for family in families:
        for case in family():
            path = folder / case.name
            path.write_bytes(case.data)
            written.append(OddFile(path, case.reason, case.pixels, case.tolerance, case.actions))
    return written + _write_non_files(folder)


def _strangers() -> Iterator[Case]:
    yield Case("empty.jpg", b"", "empty")
    yield Case("text.jpg", b"Dear reader, this is no picture.\n" * 20, "not-an-image")
    yield Case("zeros.png", bytes(4096), "not-an-image")
    yield Case("one_byte.gif", b"G", "not-an-image")
    yield Case("error_page.jpg", b"\n<!DOCTYPE html><html><body>404</body></html>", "not-an-image")
    yield Case(
        "lfs_pointer.png",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "not-an-image",
    )
    yield Case("archive.jpg", b"PK\x03\x04" + bytes(200), "not-an-image")
    yield Case(
        "drawing.svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"
    )
    yield Case("document.jpg", b"%PDF-1.7\n" + bytes(100), "unsupported")
    yield Case("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported")
    yield Case("metafile.jpg", b"\xd7\xcd\xc6\x9a" + bytes(100), "unsupported")
    yield Case("photoshop.tif", b"8BPS\0\x01" + bytes(100), "unsupported")
    # Found by their marks whether or not there is a reader, and damaged.
    heic, jxl = (
        "not-installed" if find_spec(package) is None else "corrupt"
        for package in ("pillow_heif", "pillow_jxl")
    )
    yield Case("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), heic)
    yield Case("icon.png", b"\0\0\x01\0\x01\0" + bytes(100), "unsupported")
    yield Case("modern.jxl", b"\xff\x0a" + bytes(100), jxl)


def _write_non_files(folder: Path) -> list[OddFile]:
    """Make what looks like an image in a listing and is no file, or cannot be read."""
    plain = tiny.png_bytes(picture(), 2)
    (folder / "folder.jpg").mkdir()
    (folder / "dangling_link.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "circular_link.jpg").symlink_to(folder / "circular_link.jpg")
    (folder / "target.png").write_bytes(plain)
    (folder / "link.png").symlink_to(folder / "target.png")
    locked = folder / "locked.png"
    locked.write_bytes(plain)
    locked.chmod(0)
    os.mkfifo(folder / "pipe.jpg")
    # The superuser reads locked files like any other.
    readable = os.access(locked, os.R_OK)
    return [
        OddFile(folder / "folder.jpg", "not-a-file"),
        OddFile(folder / "dangling_link.jpg", "missing"),
        OddFile(folder / "circular_link.jpg", "unreadable"),
        OddFile(folder / "target.png", None, picture()),
        OddFile(folder / "link.png", None, picture()),
        OddFile(locked, None, picture()) if readable else OddFile(locked, "unreadable"),
        OddFile(folder / "pipe.jpg", "not-a-file"),
        OddFile(folder / "never_written.jpg", "missing"),
    ]
