"""Where a bank lies: everything it asks of its place, be that a folder on a disk or a part of an object store.

The rest of the bank knows names and bytes and calls these functions; what a disk takes to keep the bank's promises
stands in :mod:`featbank.bank.files`, what a store takes stands here and is less. One PUT stores an object whole or
not at all, so there are no temporary files to rename or to sweep; shards are named by their bytes, so rivals write
equal ones; there are no folders to make. Needed of a store: what was put is listed at once.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from featbank.atomic import sweep
from featbank.bank import files
from featbank.bank.files import SHARD_NAME, explain, is_vanished
from featbank.errors import BankError, StoreError
from featbank.remote import Place, RemotePath
from featbank.store_access import store_error

_WHOLE_OBJECT_SCHEMES = frozenset(
    {"abfs", "abfss", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}
)
"""Stores in which an object appears whole or not at all. Elsewhere (sftp, ftp) a kill leaves a part under the name."""


def check_place(root: Place) -> None:
    """Refuse a store in which a killed writer could leave half a file under a final name.

    Raises
    ------
    StoreError
        If it is of such a kind.
    """
    if isinstance(root, RemotePath) and root.scheme not in _WHOLE_OBJECT_SCHEMES:
        raise store_error(
            str(root),
            f"a bank cannot lie behind {root.scheme}://, where a kill may leave half a file",
            f"Use a folder or one of {', '.join(f'{name}://' for name in sorted(_WHOLE_OBJECT_SCHEMES))}.",
            errno.ENOTSUP,
        )


def list_names(folder: Place) -> list[str]:
    """Return the names of all files in ``folder``, sorted; empty when there is no such folder.

    Raises
    ------
    BankError
        If the folder cannot be listed.
    """
    try:
        if isinstance(folder, RemotePath):
            return [entry.name for entry in folder.scan() if entry.is_file()]
        return sorted(os.listdir(folder))  # noqa: PTH208 (names alone are needed)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain("list", folder, error) from error


def list_folders(folder: Place) -> list[str]:
    """Return the names of the folders in ``folder``, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder on a disk; in a store that is an empty one.
    OSError
        If it cannot be listed.
    """
    if isinstance(folder, RemotePath):
        return [entry.name for entry in folder.scan() if entry.is_dir()]
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def list_shards(folder: Place) -> list[str]:
    """Return the names of the finished shards in ``folder``, sorted; empty when there is no such folder.

    Raises
    ------
    BankError
        If the folder cannot be listed.
    """
    if isinstance(folder, RemotePath):
        return [name for name in list_names(folder) if SHARD_NAME.fullmatch(name)]
    return files.list_shards(folder)


def list_shards_settled(folder: Place) -> list[str]:
    """Return the names of the finished shards once two listings in a row agree; see `files.list_shards_settled`.

    A store lists by pages, in the order of names: no more one moment than a folder's listing.

    Raises
    ------
    BankError
        If the folder cannot be listed.
    """
    if not isinstance(folder, RemotePath):
        return files.list_shards_settled(folder)
    names = list_shards(folder)
    while (again := list_shards(folder)) != names:
        names = again
    return names


def measure(folder: Place, names: Sequence[str]) -> int:
    """Add up the sizes of files in bytes.

    Raises
    ------
    FileNotFoundError
        If one is gone.
    """
    if not isinstance(folder, RemotePath):
        return sum((folder / name).stat().st_size for name in names)
    sizes = {entry.name: entry.status.st_size for entry in folder.scan()}
    gone = next((name for name in names if name not in sizes), None)
    if gone is not None:
        raise FileNotFoundError(errno.ENOENT, "shard is gone", str(folder / gone))
    return sum(sizes[name] for name in names)


def map_file(path: Place) -> pa.Buffer:
    """Return the bytes of a file, mapped rather than read, so that the system may take their memory back.

    From a store they are fetched into a file without a name, which goes with the buffer.

    Raises
    ------
    OSError
        If it cannot be read; FileNotFoundError where it is gone.
    """
    if not isinstance(path, RemotePath):
        with pa.memory_map(str(path)) as source:
            return source.read_buffer()  # copies nothing; through a buffer a shard opens twice as fast
    data = path.read_bytes()
    if not data:
        return pa.py_buffer(data)  # what is empty cannot be mapped
    try:
        with tempfile.NamedTemporaryFile(prefix="featbank-") as copy:
            copy.write(data)
            copy.flush()
            with pa.memory_map(copy.name) as source:
                return source.read_buffer()
    except OSError as error:
        cure = "Make room there, or name another folder by TMPDIR."
        reason = f"its copy in {tempfile.gettempdir()} cannot be written ({error.strerror or error})"
        raise store_error(str(path), reason, cure, error.errno or errno.EIO) from error


def put(folder: Place, name: str, data: bytes | memoryview) -> Place:
    """Store ``data`` as ``folder/name``, all of it or nothing; an existing file of that name is replaced in one step.

    Raises
    ------
    BankError
        If the folder cannot be written to, or the disk is full.
    """
    if not isinstance(folder, RemotePath):
        return files.put(folder, name, data)
    target = folder / name
    try:
        target.write_bytes(data)
    except StoreError as error:
        raise explain("write", target, error) from error
    return target


def try_writing(folder: Place, name: str) -> None:
    """Learn before long work what would be refused after it.

    Parameters
    ----------
    folder : Path or RemotePath
    name : str
        A file that never changes. In a store it is put once more: a trial object could outlive a kill.

    Raises
    ------
    BankError
        If it is refused. A folder that is gone is no error: whoever writes makes it.
    """
    if not isinstance(folder, RemotePath):
        files.try_writing(folder)
        return
    target = folder / name
    try:
        target.write_bytes(target.read_bytes())
    except OSError as error:
        if not is_vanished(error):
            raise explain("write to", folder, error) from error


def remove_files(folder: Place, names: Iterable[str]) -> int:
    """Remove files in the order given; those already gone count as removed by a neighbour.

    Returns
    -------
    int
        How many this call removed; a store that does not tell counts all.

    Raises
    ------
    BankError
        If it is refused.
    """
    if not isinstance(folder, RemotePath):
        return files.remove_files(folder, names)
    n_removed = 0
    for name in names:  # one by one: a request for many at once keeps no order
        try:
            (folder / name).unlink()
            n_removed += 1
        except OSError as error:
            if not is_vanished(error):
                raise explain("remove", folder / name, error) from error
    return n_removed


def remove_folder(folder: Place) -> bool:
    """Remove an empty folder, which in a store is gone with its last object.

    Returns
    -------
    bool
        False if somebody keeps files in it; it then stays.

    Raises
    ------
    BankError
        If it is refused.
    """
    if isinstance(folder, RemotePath):
        return not list_names(folder)
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        if not is_vanished(error):
            raise explain("remove", folder, error) from error
    return True


def sweep_temporaries(folder: Place) -> None:
    """Remove temporary files that a killed process left behind; a store has none."""
    if isinstance(folder, Path):
        sweep(folder)


def free_bytes(folder: Place) -> float:
    """Return how much room there is, in bytes; a store does not run full."""
    return shutil.disk_usage(folder).free if isinstance(folder, Path) else math.inf


def make_root(root: Place) -> None:
    """Make the folder of a new bank; in a store its first object does.

    Raises
    ------
    BankError
        If it is refused, or a file is in the way.
    """
    in_the_way = BankError(f"bank: {root} must be a folder, got a file. Name another one with `--bank DIR`.")
    if isinstance(root, RemotePath):
        if root.is_file():
            raise in_the_way
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise in_the_way from error
    except OSError as error:
        raise explain("create", root, error) from error
