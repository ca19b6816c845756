"""Remembers every image that was looked at: what it was, what was done to it, or why it was refused.

One log of a bank tells of the images themselves; a log of each feature tells which readable images it failed on. The
same technique as for features: immutable shards named by their bytes, no lock, no order between processes. Which of
several records of one image counts is decided without a clock, as processes share none: the higher ``epoch`` of the
decoding rules, then success over failure, then the smaller text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from featbank.bank.place import refuse_read_only, shard_name, store_at
from featbank.bank.rows import relisting
from featbank.bank.shard import FORMAT_VERSION, KEY, METADATA_KEY, SPEC_NAME, damaged, explained, read_json
from featbank.bank.upkeep import Problem, check_files
from featbank.digest import canonical_json
from featbank.errors import BankError
from featbank.remote import Place, utf8_name

if TYPE_CHECKING:
    import pandas as pd

IMAGE_LOG_NAME = "images"
_SPEC = {"bank_format_version": FORMAT_VERSION, "kind": "image-log"}

RECORD_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("n_bytes", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("actions", pa.list_(pa.string()), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
    ],
    metadata={METADATA_KEY: canonical_json({"format": FORMAT_VERSION, "kind": "image-log"}).encode("ascii")},
)


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one image."""

    # SHA-256 of its bytes, 64 hexadecimal digits; empty when they could not be read, then ``path`` stands in
    key: str
    status: str  # ``"ok"`` or ``"failed"``
    path: str = ""  # where it was seen; may be empty when there is a key
    reason: str = ""  # one word for counting when failed, such as ``truncated``; empty when ok
    message: str = ""  # the full sentence for people when failed
    n_bytes: int = 0  # file size in bytes, 0 when unknown
    # width, height: In pixels as delivered to the views, 0 when unknown
    width: int = 0
    height: int = 0
    # format, mode: As stored in the file, for example ``"JPEG"`` and ``"RGB"``
    format: str = ""
    mode: str = ""
    actions: tuple[str, ...] = ()  # what decoding did beyond the plain, for example ``("orientation:6",)``
    epoch: int = 0  # version of the decoding rules; records of a higher one replace those of a lower one

    def __post_init__(self) -> None:
        if self.status not in {"ok", "failed"}:
            raise ValueError(f"ImageRecord: status must be 'ok' or 'failed', got {self.status!r}")
        if not (KEY.fullmatch(self.key) or (self.key == "" and self.path and self.status == "failed")):
            raise ValueError(
                f"ImageRecord: key must be 64 lower-case hexadecimal digits, or empty for a failure with a path; got "
                f"{self.key!r} with path {self.path!r} and status {self.status!r}"
            )
        if (self.status == "failed") != bool(self.reason):
            raise ValueError(
                f"ImageRecord: a failure needs a reason and a success has none, got status {self.status!r} with "
                f"reason {self.reason!r}"
            )
        # A file name need not be text; Arrow stores text only. The escape keeps it readable and distinct.
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                object.__setattr__(self, field.name, utf8_name(value))
        object.__setattr__(self, "actions", tuple(self.actions))


def resolve_records(table: pa.Table) -> pa.Table:
    """Keep the one record of each image that counts, ordered by key, then path."""
    keys, paths = table["key"].to_pylist(), table["path"].to_pylist()
    others: dict[str, list[Any]] = {}

    def rank(row: int) -> tuple[Any, ...]:
        if not others:  # rarely needed, and dear: most images have one record
            others.update({name: table[name].to_pylist() for name in RECORD_SCHEMA.names})
        values = {name: column[row] for name, column in others.items()}
        return (-values.pop("epoch"), values.pop("status") != "ok", *values.values())

    chosen: dict[tuple[str, str], int] = {}
    for row, (key, path) in enumerate(zip(keys, paths, strict=True)):
        image = (key, "" if key else path)
        before = chosen.setdefault(image, row)
        if before != row and rank(row) < rank(before):
            chosen[image] = row
    # The bytes at this path could be read at some time, so their own record tells more than "unreadable".
    read = {path for key, path in zip(keys, paths, strict=True) if key}
    order = [chosen[image] for image in sorted(chosen) if image[0] or image[1] not in read]
    return table.take(pa.array(order, type=pa.int64()))


def encode_records(records: Iterable[ImageRecord]) -> pa.Table:
    """Turn records into a table whose rows do not depend on their order; equal ones become one."""
    values = attrgetter(*RECORD_SCHEMA.names)
    columns = list(zip(*sorted({values(record) for record in records}), strict=True))
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=RECORD_SCHEMA)


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
        self._store = store_at(path)
        self._tables: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def record(self, records: Sequence[ImageRecord]) -> Place | None:
        """Store records as one new shard; return it, or None.

        Recording the same again changes nothing. Raises BankError if it cannot be written; then nothing is stored.
        """
        refuse_read_only(self.path, self.is_read_only)
        return self._put(_encode(encode_records(records))) if records else None

    def _put(self, data: memoryview) -> Place:
        if not (self.path / SPEC_NAME).is_file():
            text = json.dumps(_SPEC, sort_keys=True, indent=2)
            self._store.put(SPEC_NAME, (text + "\n").encode("ascii"))
        return self._store.put(shard_name(data), data)

    def frame(self) -> pd.DataFrame:
        """Return one row per image, the record that counts, by key, then path; columns as `ImageRecord`."""
        return resolve_records(self._table()).to_pandas()

    def failures(self) -> pd.DataFrame:
        """Return the images that could not be used and were not read successfully since, as :meth:`frame`.

        All images this bank ever saw, also those whose file has been repaired since and thus has another key.
        """
        table = resolve_records(self._table())
        is_failed = [status == "failed" for status in table["status"].to_pylist()]
        return table.filter(pa.array(is_failed, pa.bool_())).to_pandas()

    def _table(self) -> pa.Table:
        """Return all records as they were stored."""
        return relisting(self.path, lambda: self._load(self._store.settled_shards()))

    def _load(self, names: list[str]) -> pa.Table:
        known = self._tables
        tables = {name: known[name] if name in known else _read_shard(self.path / name) for name in names}
        self._tables = tables  # swapped in whole, for threads that share this log
        return pa.concat_tables([RECORD_SCHEMA.empty_table(), *tables.values()])

    def compact(self) -> int:
        """Merge all shards into one of the records that count, equal byte for byte in equal logs."""
        refuse_read_only(self.path, self.is_read_only)
        self._store.sweep()

        def rewrite() -> int:
            inputs = self._store.settled_shards()
            table = resolve_records(self._load(inputs))
            output = ""
            if len(table):
                data = _encode(table)
                output = shard_name(data)
                if output not in inputs:
                    self._put(data)
            obsolete = [name for name in reversed(inputs) if name != output]
            self._store.remove(obsolete)
            return len(obsolete)

        return relisting(self.path, rewrite)

    def remove(self) -> None:
        """Delete the log with all its records, if there is one; raises BankError if the system refuses."""
        refuse_read_only(self.path, self.is_read_only)
        self._store.remove(self._store.shards())
        self._store.sweep()
        self._store.remove([SPEC_NAME])
        self._store.remove_folder()  # stays if a neighbour records into it

    def check_version(self) -> None:
        """Refuse a log written by a newer version, or a damaged ``spec.json``, with a BankError."""
        try:
            read_json(self.path / SPEC_NAME)
        except FileNotFoundError:
            return  # no image recorded yet

    def verify(self) -> list[Problem]:
        """Check every byte of the log."""
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
    with explained(path):
        data = path.read_bytes()
        if shard_name(data) != path.name:
            raise damaged(path, "its bytes do not have the SHA-256 of its name")
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    if not table.schema.equals(RECORD_SCHEMA, check_metadata=True):
        raise damaged(path, "its columns or its format version are not those of an image log of this version")
    return table
