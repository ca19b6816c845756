"""Puts whole files into a folder or not at all; knows names, bytes and error numbers, not what is inside.

Everything the bank promises about kills, full disks and neighbours rests on three rules kept here: a file
gets its final name only when all its bytes are on the disk (`featbank.atomic`), a final name never gets other bytes,
and nobody waits for anybody.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from featbank import atomic
from featbank.errors import BankError, OutputError, StoreError
from featbank.remote import Place

SHARD_NAME = re.compile(r"[0-9a-f]{64}\.arrow")
"""A shard is named by the SHA-256 of its bytes, so ``sha256sum *.arrow`` checks a bank without this package."""

# A file removed by a neighbour: plainly, or on NFS under our open handle.
_VANISHED = {errno.ENOENT, errno.ESTALE}
_ATTEMPTS = 5


def is_vanished(error: OSError) -> bool:
    """Tell whether ``error`` means that another process removed the file in the meantime."""
    return error.errno in _VANISHED


def explain(action: str, path: Place, error: OSError) -> BankError:
    """Turn an error of the operating system, or of a store, into one sentence of fact and one of cure.

    Parameters
    ----------
    action : str
        What was tried, for example ``"write"``.
    path : Path or RemotePath
        On which file or folder.
    error : OSError
        What the operating system or the store said.

    Returns
    -------
    BankError
        Ready to be raised; keeps ``errno``.
    """
    said = atomic.describe_error(error)
    if isinstance(error, StoreError):
        said, cure = error.reason, error.cure
    elif error.errno in atomic.FULL:
        cure = "Make room, or move the bank, and run the same command again: it goes on where it stopped."
    elif error.errno in atomic.FORBIDDEN:
        cure = "Use a folder you may write to (`--bank DIR`), or open the bank for reading only."
    elif is_vanished(error):
        cure = (
            "Another process removed it meanwhile: a prune, or a machine that shares the folder but no file locks. "
            "Run the same command again."
        )
    else:
        cure = "Check the disk or the network share, then run the same command again."
    result = BankError(
        f"bank: cannot {action} {path}: {said}. What was stored before is intact, "
        f"and no partial file counts. {cure}"
    )
    result.errno = error.errno
    return result


def list_shards(folder: Path) -> list[str]:
    """Return the names of the finished shards in ``folder``, sorted; empty when there is no such folder.

    Raises
    ------
    BankError
        If the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if SHARD_NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain("list", folder, error) from error


def list_shards_settled(folder: Path) -> list[str]:
    """Return the names of the finished shards once two listings in a row agree.

    A listing is not one moment: a neighbour that replaces shards meanwhile can hide from it both an old one,
    removed before its turn, and the new one, put after its turn. But then the new one was there before the
    first listing ended, so the second one shows it.

    Raises
    ------
    BankError
        If the folder cannot be listed.
    """
    names = list_shards(folder)
    while (again := list_shards(folder)) != names:
        names = again
    return names


def put(folder: Path, name: str, data: bytes | memoryview) -> Path:
    """Store ``data`` as ``folder/name``, all of it or nothing, surviving a kill and a power cut.

    Parameters
    ----------
    folder : Path
        Created when missing.
    name : str
        Final file name; an existing file of that name is replaced in one step.
    data : bytes or memoryview
        The whole content.

    Returns
    -------
    Path
        The finished file.

    Raises
    ------
    BankError
        If the folder cannot be written to, or the disk is full; the temporary file is then gone.
    """
    target = folder / name
    for attempt in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(target, "bank") as scratch:
                scratch.write_bytes(data)
            break
        except OSError as error:
            # A neighbour removed the folder, or without common locks took the file for a dead process's: made anew.
            if attempt + 1 == _ATTEMPTS or not is_vanished(error):
                cause = error.__cause__ if isinstance(error, OutputError) else error
                raise explain("write", target, cause if isinstance(cause, OSError) else error) from error
    return target


def try_writing(folder: Path) -> None:
    """Make and remove an empty file, to learn before long work what would be refused after it.

    Raises
    ------
    BankError
        If the operating system refuses. A folder that is gone is no error: whoever writes makes it.
    """
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if not is_vanished(error):
            raise explain("write to", folder, error) from error


def shard_name(data: bytes | memoryview) -> str:
    """Return the name that the bytes of a shard give it: equal shards of racing writers are one file."""
    return f"{hashlib.sha256(data).hexdigest()}.arrow"


def remove_files(folder: Path, names: Iterable[str]) -> int:
    """Remove files in the order given; those already gone count as removed by a neighbour.

    Returns
    -------
    int
        How many this call removed.

    Raises
    ------
    BankError
        If the operating system refuses.
    """
    n_removed = 0
    for name in names:
        path = folder / name
        try:
            path.unlink()
            n_removed += 1
        except OSError as error:
            if not is_vanished(error):
                raise explain("remove", path, error) from error
    return n_removed
