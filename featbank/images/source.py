"""Fetches the bytes of one file and names their format by content; decodes nothing.

Only formats on the allow list get further. Pillow alone would try some forty, among them ones whose plug-ins
start other programs (EPS) or ask the system to draw (WMF).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from featbank.digest import digest_bytes
from featbank.errors import ImageError, StoreError
from featbank.remote import MAX_PHOTO_BYTES, Place

MAX_FILE_BYTES = MAX_PHOTO_BYTES

HEAD_BYTES = 512
_PART_BYTES = 1 << 20

REASONS: dict[str, str] = {
    "missing": "no file of that name",
    "not-a-file": "a folder, pipe, socket or device, not a file",
    "unreadable": "the operating system refused to read the file",
    "empty": "a file of zero bytes",
    "not-an-image": "content that is no known image format",
    "unsupported": "an image, but of a format or variant that is not decoded",
    "too-large": "more pixels, bytes or parts than the limit allows",
    "truncated": "the file ends before the image does",
    "corrupt": "damaged or contradictory image data",
    "memory": "the machine had too little memory for the decoded image",
}
"""Every reason an `ImageError` of this package can carry, and what it means."""

# The suffixes that are no surprise for a format; any other one is recorded as misnamed.
SUFFIXES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png", ".apng"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "WEBP": frozenset({".webp"}),
    "GIF": frozenset({".gif"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
    "JPEG2000": frozenset({".jp2", ".j2k", ".j2c", ".jpx", ".jpc", ".jpf"}),
    "AVIF": frozenset({".avif"}),
}

RAW_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef", "mos", "mrw"),
        *("nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
    )
)
"""Endings of camera raw files: photographs, but not decoded, and their embedded previews are not taken for them."""

IMAGE_SUFFIXES = frozenset(RAW_SUFFIXES | {".heic", ".heif", ".hif", ".jxl"}).union(*SUFFIXES.values())
"""Endings, in lower case, of the files that a folder's listing takes for images. Formats that cannot be decoded are
listed too: such a file is then refused by name with the reason, instead of being passed over."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)

# Recognised so that the message can say what the file is instead of "not an image".
_REFUSED_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"%PDF", "a PDF file"),
    (b"\xd7\xcd\xc6\x9a", "a WMF drawing"),
    (b"\x01\0\t\0\0\x03", "a WMF drawing"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\x01\0", "an icon file"),
    (b"\0\0\x02\0", "a cursor file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"FUJIFILMCCD-RAW", "a camera raw file"),
    (b"IIU\0", "a camera raw file"),
    (b"IIRO", "a camera raw file"),
    (b"DDS ", "a DirectDraw surface"),
    (b"qoif", "a QOI file"),
    (b"PF\n", "a float map"),
    (b"Pf\n", "a float map"),
    (b"P7\n", "a PAM file"),
)

_NOT_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"<!doctype html", "an HTML page, probably an error page saved under an image's name"),
    (b"<html", "an HTML page, probably an error page saved under an image's name"),
)


def read_bytes(path: Place) -> bytes:
    """Read a whole image file, 1 to `MAX_FILE_BYTES` bytes, refusing what is no file or too large before reading it.

    Raises ImageError: ``missing``, ``not-a-file``, ``unreadable``, ``empty`` or ``too-large``;
    StoreError if a store cannot be reached, which is no fault of this image.
    """
    with _explained():
        check_place(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            try:
                sniff(head)
            except ImageError as error:
                hasher = hashlib.sha256(head)
                while part := file.read(_PART_BYTES):
                    hasher.update(part)
                raise ImageError(error.reason, str(error), hasher.hexdigest()) from error
            return head + file.read()


def check_place(path: Place) -> None:
    """Refuse what is no file, empty or too large, without opening it.

    Raises ImageError: With reason ``missing``, ``not-a-file``, ``unreadable``, ``empty`` or
    ``too-large``; StoreError if a store cannot be reached.
    """
    with _explained():
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for a writer, a device might never end.
            raise ImageError("not-a-file", "is a folder, pipe, socket or device; give the path of a file")
        if status.st_size == 0:
            raise ImageError("empty", "has zero bytes; copy or download the file again", digest_bytes(b""))
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError("too-large", f"has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the operating system or a store refuses into an `ImageError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ImageError("missing", "does not exist; check the path") from error
    except OSError as error:
        if isinstance(error, ImageError) or (isinstance(error, StoreError) and not error.is_refusal):
            raise
        raise ImageError("unreadable", f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, ImageError):
            raise
        # The only other ValueError of this block: a path with a zero byte, which names no file anywhere.
        raise ImageError("missing", f"is no possible path: {error}") from error


def sniff(head: bytes) -> str:
    """Name the format of a file by its first 32 bytes or more, a key of `SUFFIXES`.

    Raises ImageError: ``unsupported`` for image formats off the allow list, ``not-an-image`` for
    anything else.
    """
    for magic, image_format in _MAGIC:
        if head.startswith(magic):
            return image_format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#":
        return "PPM"
    if head[4:8] == b"ftyp":
        if _is_avif(head):
            return "AVIF"
        brand = head[8:12].decode("ascii", "replace")
        raise ImageError(
            "unsupported", f"is a media file of brand {brand!r} (HEIC or video); convert it to JPEG or PNG"
        )
    for magic, name in _REFUSED_MAGIC:
        if head.startswith(magic):
            raise ImageError("unsupported", f"is {name}; convert it to one of {', '.join(SUFFIXES)}")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        raise ImageError("unsupported", "is an SVG drawing; convert it to PNG")
    for magic, name in _NOT_IMAGES:
        if start.startswith(magic):
            raise ImageError("not-an-image", f"is {name}")
    raise ImageError("not-an-image", f"holds no known image format; it begins with {head[:8]!r}")


def _is_avif(head: bytes) -> bool:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
    return b"avif" in brands or b"avis" in brands
