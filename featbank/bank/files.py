"""Puts whole files into a folder or not at all; knows names, bytes and error numbers, not what is inside.

Everything the bank promises about kills, full disks and neighbours rests on three rules kept here: a file
gets its final name only when all its bytes are on the disk, a final name never gets other bytes, and
nobody waits for anybody. There are no locks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from featbank.errors import BankError, StoreError
from featbank.remote import Place

SHARD_NAME = re.compile(r"[0-9a-f]{64}\.arrow")
"""A shard is named by the SHA-256 of its bytes, so ``sha256sum *.arrow`` checks a bank without this package."""

TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{32}\.tmp")
TEMPORARY_MAX_AGE_S = 3600.0
"""A temporary file older than this, in seconds, was left by a killed process: writing one takes seconds."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the process or the file system allows",
    errno.EIO: "the device reported an input/output error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.ENAMETOOLONG: "the path is too long",
    errno.EMFILE: "this process has too many files open",
    errno.ENFILE: "this machine has too many files open",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
# A file removed by a neighbour: plainly, or on NFS under our open handle.
_VANISHED = {errno.ENOENT, errno.ESTALE}


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
    number = error.errno or 0
    reason = _REASONS.get(number, error.strerror or str(error))
    code = errno.errorcode.get(number, "no error number")
    if number in _FULL:
        cure = "Make room, or move the bank, and run the same command again: it goes on where it stopped."
    elif number in _FORBIDDEN:
        cure = "Use a folder you may write to (`--bank DIR`), or open the bank for reading only."
    else:
        cure = "Check the disk or the network share, then run the same command again."
    if isinstance(error, StoreError):
        said, cure = error.reason, error.cure
    else:
        said = f"{reason} ({code})"
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
    with replacing(target) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(data).cast("B")
            while rest:  # a nearly full disk takes a part and reports the lack of room at the next call
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
    return target


def try_writing(folder: Path) -> None:
    """Make and remove an empty file, to learn before long work what would be refused after it.

    Raises
    ------
    BankError
        If the operating system refuses. A folder that is gone is no error: whoever writes makes it.
    """
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.open("xb").close()
        temporary.unlink()
    except OSError as error:
        if not is_vanished(error):
            raise explain("write to", folder, error) from error


def shard_name(data: bytes | memoryview) -> str:
    """Return the name that the bytes of a shard give it: equal shards of racing writers are one file."""
    return f"{hashlib.sha256(data).hexdigest()}.arrow"


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` to write to; on success it becomes ``target`` in one step.

    Yields
    ------
    Path
        A name that does not exist yet, in the folder of ``target`` (created when missing), so that the final
        rename never crosses file systems.

    Raises
    ------
    BankError
        If the operating system refuses any step; the temporary file is then gone and ``target`` is as before.
    """
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary, os.O_RDONLY)
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        if isinstance(error, BankError):
            raise
        raise explain("write", target, error) from error
    finally:
        with contextlib.suppress(OSError):  # gone by the rename, or never made; a leftover is swept by age
            temporary.unlink()


def _flush(path: Path, flags: int) -> None:
    """Wait until the bytes of ``path`` are on the disk."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk, where the file system knows how to."""
    try:
        _flush(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        # Some network and user-space file systems have no flush for folders; their rename is durable or not
        # by their own rules, and the file itself was flushed before.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}:
            raise


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


def sweep_temporaries(folder: Path, max_age_s: float = TEMPORARY_MAX_AGE_S) -> int:
    """Remove temporary files that a killed process left behind.

    Parameters
    ----------
    folder : Path
        Where to look; may be missing.
    max_age_s : float
        Younger files are left alone, they may be in the making, in seconds.

    Returns
    -------
    int
        How many were removed. A file that cannot be removed stays for the next sweep: tidying up is never a
        reason to stop the work.
    """
    n_swept = 0
    limit = time.time() - max_age_s
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if TEMPORARY_NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        if entry.stat().st_mtime < limit:
                            os.unlink(entry.path)  # noqa: PTH108 (scandir gives text, not Path)
                            n_swept += 1
    except OSError:
        return n_swept
    return n_swept
