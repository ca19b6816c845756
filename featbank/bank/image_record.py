"""What is recorded of an image, and which of several records of one image counts.

No clock decides, as processes share none: of two records of one image the higher ``epoch`` of the decoding
rules counts, then success over failure, then the smaller text. So the answer does not depend on who wrote
when, or how often.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import pyarrow as pa

from featbank.bank.shard import METADATA_KEY
from featbank.bank.spec import FORMAT_VERSION
from featbank.digest import canonical_json
from featbank.remote import utf8_name

_KEY = re.compile(r"[0-9a-f]{64}")

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
    """What is known of one image.

    Parameters
    ----------
    key : str
        SHA-256 of its bytes, 64 hexadecimal digits; empty when they could not be read, then ``path`` stands in.
    status : str
        ``"ok"`` or ``"failed"``.
    path : str
        Where it was seen; may be empty when there is a key.
    reason : str
        One word for counting when failed, such as ``truncated``; empty when ok.
    message : str
        The full sentence for people when failed.
    n_bytes : int
        File size in bytes, 0 when unknown.
    width, height : int
        In pixels as delivered to the views, 0 when unknown.
    format, mode : str
        As stored in the file, for example ``"JPEG"`` and ``"RGB"``.
    actions : tuple of str
        What decoding did beyond the plain, for example ``("orientation:6",)``.
    epoch : int
        Version of the decoding rules; records of a higher one replace those of a lower one.
    """

    key: str
    status: str
    path: str = ""
    reason: str = ""
    message: str = ""
    n_bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    actions: tuple[str, ...] = ()
    epoch: int = 0

    def __post_init__(self) -> None:
        if self.status not in {"ok", "failed"}:
            raise ValueError(f"ImageRecord: status must be 'ok' or 'failed', got {self.status!r}")
        if not (_KEY.fullmatch(self.key) or (self.key == "" and self.path and self.status == "failed")):
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
    """Keep the one record of each image that counts, ordered by key, then path.

    Parameters
    ----------
    table : pyarrow.Table
        Of :data:`RECORD_SCHEMA`, with any number of records for an image.
    """
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


def restrict_records(table: pa.Table, keep: Collection[str]) -> pa.Table:
    """Keep the records of the images in ``keep``, and those without a key."""
    kept = set(keep) | {""}
    return table.filter(pa.array([key in kept for key in table["key"].to_pylist()], type=pa.bool_()))
