"""Turns bytes, files and specifications into stable SHA-256 digests; knows nothing of what they mean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: str | Path) -> str:
    """Return the SHA-256 of the names and bytes of all files below a folder as 64 hexadecimal digits.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest_json([[path.relative_to(root).as_posix(), digest_file(path)] for path in files])


def canonical_json(value: object) -> str:
    """Write ``value`` as JSON in the one spelling that digests are taken of.

    Keys are sorted, no spaces, no NaN; floats use Python's shortest round-trip form, so the text does
    not depend on dictionary order or on the process.

    Raises
    ------
    TypeError
        If ``value`` holds something JSON has no form for.
    ValueError
        If ``value`` holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest_json(value: object) -> str:
    """Return the SHA-256 of ``value``'s canonical JSON as 64 hexadecimal digits."""
    return digest_bytes(canonical_json(value).encode("ascii"))


def seed_from(*parts: str) -> int:
    """Derive a 64-bit random seed from strings, the same in every process and on every machine."""
    return int(digest_bytes("\0".join(parts).encode("utf-8"))[:16], 16)
