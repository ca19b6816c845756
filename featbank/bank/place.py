"""Where the files of a bank lie: one interface for a folder on a disk and for a part of an object store.

Everything the bank promises about kills, full disks and neighbours rests on three rules kept here: a file gets its
final name only when all its bytes are stored, a final name never gets other bytes, and nobody waits for anybody. On
a disk that takes a hidden file and a rename (`featbank.atomic`); a store puts an object whole or not at all, has no
folders to make, and must list at once what was put.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from featbank import atomic
from featbank.errors import BankError, OutputError, StoreError
from featbank.remote import Place, RemotePath, store_error

SHARD_NAME = re.compile(r"[0-9a-f]{64}\.arrow")
"""A shard is named by the SHA-256 of its bytes, so ``sha256sum *.arrow`` checks a bank without this package."""

_WHOLE_OBJECT_SCHEMES = frozenset(
    {"abfs", "abfss", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}
)
"""Stores in which an object appears whole or not at all. Elsewhere (sftp, ftp) a kill leaves a part under the name."""

_VANISHED = {errno.ENOENT, errno.ESTALE}  # removed by a neighbour: plainly, or on NFS under our open handle
_ATTEMPTS = 5


def is_vanished(error: OSError) -> bool:
    """Tell whether ``error`` means that another process removed the file in the meantime."""
    return error.errno in _VANISHED


def explain(action: str, path: Place, error: OSError) -> BankError:
    """Turn an error of the operating system, or of a store, into one sentence of fact and one of cure."""
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


@contextlib.contextmanager
def _explaining(action: str, path: Place) -> Iterator[None]:
    """Explain what the system refuses; that a file is gone passes."""
    try:
        yield
    except OSError as error:
        if not is_vanished(error):
            raise explain(action, path, error) from error


def shard_name(data: bytes | memoryview) -> str:
    """Return the name that the bytes of a shard give it: equal shards of racing writers are one file."""
    return f"{hashlib.sha256(data).hexdigest()}.arrow"


class Store:
    """The files directly in one folder, by name; one that is not there holds none. Get it from `store_at`.

    Every method raises BankError, with the cure, where the operating system or the store refuses.

    Parameters
    ----------
    path : Path or RemotePath
        The folder, on a disk here and in a store in `RemoteStore`.
    """

    def __init__(self, path: Any) -> None:  # noqa: ANN401 - a Path or a RemotePath
        self.path = path

    def _entries(self) -> Iterable[Any]:
        with os.scandir(self.path) as entries:
            return list(entries)

    def _names(self, is_wanted: Callable[[Any], bool]) -> list[str]:
        with _explaining("list", self.path):
            return sorted(entry.name for entry in self._entries() if is_wanted(entry))
        return []

    def names(self) -> list[str]:
        """Return the names of all files, ascending."""
        return self._names(lambda entry: entry.is_file())

    def folders(self) -> list[str]:
        """Return the names of the folders directly below, ascending."""
        return self._names(lambda entry: entry.is_dir())

    def shards(self) -> list[str]:
        """Return the names of the finished shards, ascending."""
        return self._names(lambda entry: SHARD_NAME.fullmatch(entry.name) is not None)

    def settled_shards(self) -> list[str]:
        """Return the names of the finished shards once two listings in a row agree.

        A listing is not one moment: a neighbour that replaces shards meanwhile can hide from it both an old one,
        removed before its turn, and the new one, put after its turn. But then the new one was there before the
        first listing ended, so the second one shows it.
        """
        names = self.shards()
        while (again := self.shards()) != names:
            names = again
        return names

    def measure(self, names: Sequence[str]) -> int:
        """Add up the sizes of files in bytes; raises FileNotFoundError if one is gone."""
        wanted = set(names)
        sizes = [entry.stat().st_size for entry in self._entries() if entry.name in wanted]
        if len(sizes) < len(wanted):
            raise FileNotFoundError(errno.ENOENT, "shard is gone", str(self.path))
        return sum(sizes)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files one by one, in the order given; those already gone were removed by a neighbour."""
        for name in names:
            with _explaining("remove", self.path / name):
                (self.path / name).unlink()

    def put(self, name: str, data: bytes | memoryview) -> Place:
        """Store a file, all of it or nothing, surviving a kill and a power cut; one of that name is replaced."""
        target: Path = self.path / name
        for attempt in range(_ATTEMPTS):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                with atomic.replacing(target, "bank") as scratch:
                    scratch.write_bytes(data)
                break
            except OSError as error:
                # A neighbour removed the folder, or without common locks took the file for a dead process's: again.
                if attempt + 1 == _ATTEMPTS or not is_vanished(error):
                    cause = error.__cause__ if isinstance(error, OutputError) else error
                    raise explain("write", target, cause if isinstance(cause, OSError) else error) from error
        return target

    def map(self, name: str) -> pa.Buffer:
        """Return the bytes of a file, mapped so that the system may take their memory back; raises OSError."""
        with pa.memory_map(str(self.path / name)) as source:
            return source.read_buffer()

    def check_writable(self, name: str) -> None:
        """Refuse before long work what would be refused after it; ``name`` is a file that never changes."""
        with _explaining("write to", self.path):
            tempfile.TemporaryFile(dir=self.path).close()

    def remove_folder(self) -> bool:
        """Remove the folder if it is empty; False if somebody keeps files in it."""
        with _explaining("remove", self.path):
            try:
                self.path.rmdir()
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    return False
                raise
        return True

    def make(self) -> None:
        """Make the folder of a new bank, and those above it; refused where a file is in the way."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise _in_the_way(self.path) from error
        except OSError as error:
            raise explain("create", self.path, error) from error

    def free_bytes(self) -> float:
        """Return the room on the disk."""
        return shutil.disk_usage(self.path).free

    def sweep(self) -> None:
        """Remove hidden files that killed processes left."""
        atomic.sweep(self.path)


class RemoteStore(Store):
    """Objects in a store that fsspec reaches."""

    def _entries(self) -> Iterable[Any]:
        return list(self.path.scan())

    def put(self, name: str, data: bytes | memoryview) -> Place:
        """Store an object by one request."""
        target: RemotePath = self.path / name
        try:
            target.write_bytes(data)
        except StoreError as error:
            raise explain("write", target, error) from error
        return target

    def map(self, name: str) -> pa.Buffer:
        """Fetch an object into a file without a name, which goes with the buffer."""
        data = (self.path / name).read_bytes()
        if not data:
            return pa.py_buffer(data)  # what is empty cannot be mapped
        try:
            with tempfile.NamedTemporaryFile(prefix="featbank-") as copy:
                copy.write(data)
                copy.flush()
                with pa.memory_map(copy.name) as source:
                    return source.read_buffer()
        except OSError as error:
            reason = f"its copy in {tempfile.gettempdir()} cannot be written ({error.strerror or error})"
            cure = "Make room there, or name another folder by TMPDIR."
            raise store_error(str(self.path / name), reason, cure, error.errno or errno.EIO) from error

    def check_writable(self, name: str) -> None:
        """Put an object once more that is there: a trial object could outlive a kill."""
        target = self.path / name
        with _explaining("write to", self.path):
            target.write_bytes(target.read_bytes())

    def remove_folder(self) -> bool:
        """Say whether it is gone, as it is with its last object."""
        return not self.names()

    def make(self) -> None:
        """Do nothing: the first object makes the folder."""
        if self.path.is_file():
            raise _in_the_way(self.path)

    def free_bytes(self) -> float:
        """Return infinity: a store does not run full."""
        return math.inf

    def sweep(self) -> None:
        """Do nothing: a store has no hidden files."""


def store_at(place: Place) -> Store:
    """Return the files of a place, on a disk or in a store.

    Raises
    ------
    StoreError
        If it lies in a store where a killed writer could leave half a file under a final name.
    """
    if not isinstance(place, RemotePath):
        return Store(place)
    if place.scheme not in _WHOLE_OBJECT_SCHEMES:
        raise store_error(
            str(place),
            f"a bank cannot lie behind {place.scheme}://, where a kill may leave half a file",
            f"Use a folder or one of {', '.join(f'{name}://' for name in sorted(_WHOLE_OBJECT_SCHEMES))}.",
            errno.ENOTSUP,
        )
    return RemoteStore(place)


def _in_the_way(root: Place) -> BankError:
    return BankError(f"bank: {root} must be a folder, got a file. Name another one with `--bank DIR`.")


def refuse_read_only(place: Place, is_read_only: bool) -> None:
    """Refuse to change what was opened for reading only, before any work."""
    if is_read_only:
        raise BankError(
            f"bank: {place} was opened for reading only and cannot be written. Open the bank without read_only, or use "
            "a bank folder of your own (`--bank DIR`)."
        )
