"""Remembers every image that was looked at: what it was, what was done to it, or why it was refused.

One log of a bank tells of the images themselves; a log of each feature tells which readable images it failed on.

The same technique as for features: immutable shards named by their bytes, no lock, no order between
processes. Which record of an image counts is told in :mod:`featbank.bank.image_record`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featbank.bank.compaction import Compaction
from featbank.bank.files import explain, is_vanished, shard_name
from featbank.bank.image_record import (
    RECORD_SCHEMA,
    ImageRecord,
    encode_records,
    resolve_records,
    restrict_records,
)
from featbank.bank.place import (
    list_shards,
    list_shards_settled,
    measure,
    put,
    remove_files,
    remove_folder,
    sweep_temporaries,
)
from featbank.bank.rows import relisting
from featbank.bank.shard import damaged
from featbank.bank.spec import FORMAT_VERSION, SPEC_NAME, read_json
from featbank.bank.verification import Problem, check_files
from featbank.errors import BankError
from featbank.remote import Place

if TYPE_CHECKING:
    import pandas as pd

IMAGE_LOG_NAME = "images"
_SPEC = {"bank_format_version": FORMAT_VERSION, "kind": "image-log"}


class ImageLog:
    """The record of images seen by one bank; get it from :attr:`featbank.bank.Bank.images`.

    Parameters
    ----------
    path : Path or RemotePath
        Its folder, created by the first record.
    read_only : bool
        Refuse everything that writes.
    """

    def __init__(self, path: Place, *, read_only: bool = False) -> None:
        self.path = path
        self.is_read_only = read_only
        self._tables: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def record(self, rows: Iterable[ImageRecord | Mapping[str, Any]]) -> Place | None:
        """Store records as one new shard; recording the same again changes nothing.

        Parameters
        ----------
        rows : iterable of ImageRecord, or of mappings with its fields
            In any order.

        Returns
        -------
        Path, RemotePath or None
            The shard, or None when there was no row.

        Raises
        ------
        TypeError, ValueError
            If a mapping has unknown or missing fields, or a record contradicts itself.
        BankError
            If it cannot be written; then nothing is stored.
        """
        self._check_writable()
        records = [row if isinstance(row, ImageRecord) else ImageRecord(**row) for row in rows]
        return self._put(_encode(encode_records(records))) if records else None

    def _put(self, data: memoryview) -> Place:
        if not (self.path / SPEC_NAME).is_file():
            text = json.dumps(_SPEC, sort_keys=True, indent=2)
            put(self.path, SPEC_NAME, (text + "\n").encode("ascii"))
        return put(self.path, shard_name(data), data)

    def frame(self) -> pd.DataFrame:
        """Return one row per image: the record that counts.

        Returns
        -------
        pandas.DataFrame
            Columns as the fields of :class:`ImageRecord`, ordered by key, then path.

        Raises
        ------
        BankError
            If a shard is damaged or cannot be read.
        """
        return resolve_records(self._table()).to_pandas()

    def failures(self, keys: Collection[str] | None = None) -> pd.DataFrame:
        """Return the images that could not be used and were not read successfully since.

        Parameters
        ----------
        keys : collection of str, optional
            Only these keys (and the failures without a key). By default all images this bank ever saw, also
            those whose file has been repaired since and thus has another key.

        Returns
        -------
        pandas.DataFrame
            Columns as :meth:`frame`.
        """
        table = resolve_records(self._table())
        table = table.filter(
            pa.array([status == "failed" for status in table["status"].to_pylist()], pa.bool_())
        )
        return (table if keys is None else restrict_records(table, keys)).to_pandas()

    def _table(self) -> pa.Table:
        """Return all records as they were stored."""
        return relisting(self.path, lambda: self._load(list_shards_settled(self.path)))

    def _load(self, names: list[str]) -> pa.Table:
        known = self._tables
        tables = {name: known[name] if name in known else _read_shard(self.path / name) for name in names}
        self._tables = tables  # swapped in whole, for threads that share this log
        return pa.concat_tables([RECORD_SCHEMA.empty_table(), *tables.values()])

    def size(self) -> int:
        """Return the number of distinct images recorded."""
        return len(resolve_records(self._table()))

    def count_outside(self, keep: Collection[str]) -> int:
        """Count the records that :meth:`compact` with the same ``keep`` would remove."""
        table = resolve_records(self._table())
        return len(table) - len(restrict_records(table, keep))

    def compact(self, keep: Collection[str] | None = None) -> Compaction:
        """Merge all shards into one that holds the records that count, equal byte for byte in equal logs.

        Parameters
        ----------
        keep : collection of str, optional
            Remove the records of all images but these and those without a key. By default every image stays.

        Returns
        -------
        Compaction

        Raises
        ------
        BankError
            If a shard is damaged, or the folder cannot be written to; no record is lost.
        """
        self._check_writable()
        sweep_temporaries(self.path)

        def rewrite() -> Compaction:
            inputs = list_shards_settled(self.path)
            n_bytes = measure(self.path, inputs)
            found = resolve_records(self._load(inputs))
            table = found if keep is None else restrict_records(found, keep)
            outputs = {}
            if len(table):
                data = _encode(table)
                outputs[shard_name(data)] = data.nbytes
                if shard_name(data) not in inputs:
                    self._put(data)
            obsolete = sorted(set(inputs) - set(outputs), reverse=True)
            remove_files(self.path, obsolete)
            return Compaction(
                n_rows=len(table),
                n_dropped=len(found) - len(table),
                n_shards_before=len(inputs),
                n_shards_after=len(outputs),
                n_removed=len(obsolete),
                n_bytes_before=n_bytes,
                n_bytes_after=sum(outputs.values()),
            )

        return relisting(self.path, rewrite)

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise BankError(
                f"bank: {self.path} was opened for reading only, cannot record images. Open the bank without "
                "read_only, or use a bank folder of your own (`--bank DIR`)."
            )

    def remove(self) -> None:
        """Delete the log with all its records; nothing happens where there is none.

        Raises
        ------
        BankError
            If the operating system refuses.
        """
        self._check_writable()
        remove_files(self.path, list_shards(self.path))
        sweep_temporaries(self.path)
        remove_files(self.path, [SPEC_NAME])
        with contextlib.suppress(OSError):  # there was none, or a neighbour records into it
            remove_folder(self.path)

    def check_version(self) -> None:
        """Refuse a log written by a newer version.

        Raises
        ------
        BankError
            If it was, or its ``spec.json`` is damaged.
        """
        try:
            read_json(self.path / SPEC_NAME)
        except FileNotFoundError:
            return  # no image recorded yet

    def verify(self) -> list[Problem]:
        """Check every byte of the log.

        Returns
        -------
        list of Problem
            Empty when all is well.
        """
        where = self.path.name if self.path.name == IMAGE_LOG_NAME else f"failures of {self.path.name[:12]}"
        sound, problems = check_files(self.path, where)
        try:
            self.check_version()
        except BankError as error:
            problems.append(Problem(where, self.path / SPEC_NAME, "specification", str(error)))
        for name in sound:
            try:
                _read_shard(self.path / name)
            except FileNotFoundError:
                continue  # compacted away by a neighbour
            except BankError as error:
                problems.append(Problem(where, self.path / name, "unreadable", str(error)))
        return problems


def _encode(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, RECORD_SCHEMA) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _read_shard(path: Place) -> pa.Table:
    """Read a shard of the log after checking all its bytes; they are few."""
    try:
        data = path.read_bytes()
    except OSError as error:
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "shard is gone", str(path)) from error
        raise explain("read", path, error) from error
    if shard_name(data) != path.name:
        raise damaged(path, "its bytes do not have the SHA-256 of its name")
    try:
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, f"Arrow cannot read it ({error})") from error
    if not table.schema.equals(RECORD_SCHEMA, check_metadata=True):
        raise damaged(path, "its columns or its format version are not those of an image log of this version")
    return table
