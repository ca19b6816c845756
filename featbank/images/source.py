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
    "not-installed": "an image of a format that needs a package beside Pillow",
    "too-large": "more pixels, bytes or parts than the limit allows",
    "truncated": "the file ends before the image does",
    "corrupt": "damaged or contradictory image data",
    "memory": "the machine had too little memory for the decoded image",
}
"""Every reason an `ImageError` of this package can carry, and what it means."""

# The suffixes that are no surprise for a format; any other one is recorded as misnamed.
_RAW_KINDS = (
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)

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
    "HEIC": frozenset({".heic", ".heif", ".hif"}),
    "JXL": frozenset({".jxl"}),
    "RAW": frozenset(f".{kind}" for kind in _RAW_KINDS.split()),
}

IMAGE_SUFFIXES = frozenset().union(*SUFFIXES.values())
"""Endings, in lower case, of the files that a folder's listing takes for images. Formats that cannot be decoded here
are listed too: such a file is then refused by name with the reason, instead of being passed over."""

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
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"IIU\0", "RAW"),
    (b"IIRO", "RAW"),
    (b"MMOR", "RAW"),
    (b"\0MRM", "RAW"),
    (b"FOVb", "RAW"),
    (b"II\x1a\0\0\0HEAP", "RAW"),
)

# Brands of the container that HEIC, AVIF, Canon's raw files and films share.
_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
_BRANDS |= {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "RAW"}

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
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"BA", "an OS/2 bitmap array"),
    (b"\x01\xda", "an SGI image"),
    (b"\x0a\x05\x01", "a PCX image"),
    (b"II\xbc\x01", "a JPEG XR file"),
    (b"AT&TFORM", "a DjVu file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"gimp xcf", "a GIMP file"),
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
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))]
        # The general brands stand in AVIF files too, often first.
        found = sorted({_BRANDS[brand] for brand in brands if brand in _BRANDS})
        if found:
            return found[0]
        brand = brands[0].decode("ascii", "replace")
        raise ImageError("unsupported", f"is a film or sound of brand {brand!r}; save a frame as JPEG or PNG")
    if _is_tga(head):
        raise ImageError("unsupported", "is a TGA image; convert it to PNG")
    for magic, name in _REFUSED_MAGIC:
        if head.startswith(magic):
            raise ImageError("unsupported", f"is {name}; convert it to JPEG or PNG")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        raise ImageError("unsupported", "is an SVG drawing; convert it to PNG")
    for magic, name in _NOT_IMAGES:
        if start.startswith(magic):
            raise ImageError("not-an-image", f"is {name}")
    raise ImageError("not-an-image", f"holds no known image format; it begins with {head[:8]!r}")


def _is_tga(head: bytes) -> bool:
    """Tell a Truevision image, which begins with no mark, by a header whose every field is possible."""
    if (
        len(head) < 18
        or head[1] > 1
        or head[2] not in {1, 2, 3, 9, 10, 11}
        or head[16] not in {8, 15, 16, 24, 32}
    ):
        return False
    has_map = head[1] == 1 or head[3:8] == bytes(5)  # an icon or cursor counts its pictures there
    return has_map and head[12:14] != b"\0\0" and head[14:16] != b"\0\0" and head[17] & 0xC0 == 0
