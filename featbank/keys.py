"""The key of an image: what a row of the bank belongs to.

An image that is at hand is known by the SHA-256 of its bytes, so a renamed or moved file keeps its
features and a changed file loses them. An image that is not at hand (features brought from elsewhere)
is known by its name instead: in a published dataset by the dataset's and its own, else by where it should lie.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from featbank.digest import digest_bytes
from featbank.errors import StoreError
from featbank.remote import (
    MAX_PHOTO_BYTES,
    Place,
    RemotePath,
    RemoteStatus,
    find_statuses,
    is_url,
    replace_file,
)


def key_of_name(dataset: str, image_id: str) -> str:
    """Return the key of an image whose file is not at hand."""
    return digest_bytes(f"featbank image without file\0{dataset}\0{image_id}".encode())


def keys_of_files(
    paths: Sequence[str | Path], workers: int = 2, *, cache: StatCache | None = None, rehash: bool = False
) -> list[str | None]:
    """Digest many files."""
    return (cache or StatCache(None)).digests(paths, workers=workers, rehash=rehash)


DOUBT_S = 2.0
"""Files changed less than this many seconds before they were hashed are hashed again next time."""

SAVE_S = 60.0
"""While hashing goes on, what was learned is saved after this many seconds."""

STORE_WORKERS = 16
"""Objects read at once, at least: a store answers late, but many at a time."""

_STAMP = struct.Struct(">qqqQQ")
_DIGEST_BYTES = 32
_EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
_SCHEMA = pa.schema([("path", pa.binary()), ("entry", pa.binary(_STAMP.size + _DIGEST_BYTES))])
_CHUNK = 4096


class StatCache:
    """Digests of files by path and status, kept in one file.

    Parameters
    ----------
    path : Path, RemotePath or None
        The file; None remembers nothing.
    read_only : bool
        Use what is there, write nothing.
    doubt_s : float
        As `DOUBT_S`, in seconds.
    """

    def __init__(self, path: Place | None, *, read_only: bool = False, doubt_s: float = DOUBT_S) -> None:
        self.path = path
        self.is_read_only = read_only
        self.doubt_s = doubt_s

    def digests(
        self, paths: Sequence[str | Path], *, workers: int = 2, rehash: bool = False
    ) -> list[str | None]:
        """Return the SHA-256 of each file, reading only those that are new or may have changed.

        Parameters
        ----------
        paths : sequence of str or Path, length n_files
            URLs too.
        workers : int
            Threads; hashing releases the interpreter lock.
        rehash : bool
            Read every file, whatever is remembered, and remember it anew.

        Returns
        -------
        list of (str or None), length n_files
            64 hexadecimal digits, or None where there is no regular file, it is larger than any photo that is read, or
            it cannot be read.

        Raises
        ------
        StoreError
            If a store cannot be reached.
        """
        known = {} if rehash else self._load()
        found: list[str | None] = [None] * len(paths)
        unread: list[int] = []
        in_store = find_statuses([str(path) for path in paths if is_url(path)])
        for place, path in enumerate(paths):
            try:
                # A Path for each of a million files takes longer than this.
                status = in_store[str(path)] if is_url(path) else os.stat(path)  # noqa: PTH116
            except (KeyError, OSError, ValueError):  # ValueError: a zero byte in the name
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_PHOTO_BYTES:
                continue  # a pipe would wait for a writer, a sparse file may take hours
            if status.st_size == 0:  # not opened: some files of /proc wait for ever
                found[place] = _EMPTY_DIGEST
                continue
            entry = known.get(os.fsencode(path))
            if entry is not None and entry[: _STAMP.size] == _stamp(status):
                found[place] = entry[_STAMP.size :].hex()
            else:
                unread.append(place)
        if in_store:
            workers = max(workers, STORE_WORKERS)
        if unread:
            self._read_files(paths, unread, found, workers)
        return found

    def _read_files(
        self, paths: Sequence[str | Path], unread: list[int], found: list[str | None], workers: int
    ) -> None:
        learned: dict[bytes, bytes] = {}
        saved, pause = time.monotonic(), SAVE_S
        with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
            # By chunks: a waiting task for each of a million files would take more memory than the digests.
            for chunk in _chunks(unread):
                for place, result in zip(
                    chunk, pool.map(self._read_file, (paths[i] for i in chunk)), strict=True
                ):
                    if result is None:
                        continue
                    digest, stamp = result
                    found[place] = digest.hex()
                    if stamp is not None:
                        learned[os.fsencode(paths[place])] = stamp + digest
                started = time.monotonic()
                if started - saved > pause:
                    self._save(learned)
                    learned, saved = {}, time.monotonic()
                    pause = max(SAVE_S, 20 * (saved - started))
        self._save(learned)

    def _read_file(self, path: str | Path) -> tuple[bytes, bytes | None] | None:
        """Hash a file; its stamp is None where a later change might leave the same stamp."""
        if is_url(path):
            return _read_object(RemotePath.parse(str(path)))
        started_ns = time.time_ns()
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                before = os.fstat(file.fileno())
                digest = hashlib.file_digest(file, "sha256").digest()
                after = os.fstat(file.fileno())
        except (OSError, ValueError):
            return None
        changed_ns = max(after.st_mtime_ns, after.st_ctime_ns)
        is_settled = changed_ns < started_ns - round(self.doubt_s * 1e9)
        is_same = _stamp(before) == _stamp(after)
        return digest, _stamp(after) if is_settled and is_same else None

    def _load(self) -> dict[bytes, bytes]:
        """Return what is remembered; nothing where the file is missing or damaged."""
        if self.path is None:
            return {}
        try:
            data = self.path.read_bytes()
        except OSError:
            return {}
        body = memoryview(data)[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
            return {}
        try:
            table = pa.ipc.open_file(pa.py_buffer(body)).read_all()
        except (pa.ArrowException, OSError, ValueError):
            return {}
        if not table.schema.equals(_SCHEMA):
            return {}
        return dict(zip(table["path"].to_pylist(), table["entry"].to_pylist(), strict=True))

    def _save(self, learned: dict[bytes, bytes]) -> None:
        """Add to the file in one step. A neighbour's update may be lost; its files are then hashed once more."""
        if not learned or self.is_read_only or self.path is None:
            return
        entries = self._load() | learned
        columns = [
            pa.array(column, type=field.type)
            for column, field in zip(zip(*sorted(entries.items()), strict=True), _SCHEMA, strict=True)
        ]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
        body = memoryview(sink.getvalue())
        try:
            replace_file(self.path, hashlib.sha256(body).digest(), body)
        except OSError as error:
            # The work goes on without: what is lost is the time of hashing again.
            logging.getLogger(__name__).info("stat cache %s cannot be written: %s", self.path, error)


def _read_object(place: RemotePath) -> tuple[bytes, bytes | None] | None:
    """Hash an object; its stamp is None where the store has no mark of the content, or it changed meanwhile."""
    try:
        before = place.stat()
        digest = bytes.fromhex(place.digest())
        after = place.stat()
    except FileNotFoundError:
        return None
    except StoreError as error:
        if error.is_refusal:
            return None
        raise
    return digest, _stamp(after) if after.identity and before == after else None


def _stamp(status: os.stat_result | RemoteStatus) -> bytes:
    if isinstance(status, RemoteStatus):
        mark = hashlib.sha256(status.identity.encode()).digest()
        return status.st_size.to_bytes(_STAMP.size - len(mark), "big") + mark
    return _STAMP.pack(
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino & (2**64 - 1),
        status.st_dev & (2**64 - 1),
    )


def _chunks(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), _CHUNK):
        yield places[start : start + _CHUNK]
