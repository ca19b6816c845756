"""One feature shard: an Arrow IPC file of keys and vectors that proves itself when it is read.

The file is an ordinary Feather v2 file without compression: ``pandas.read_feather`` opens it. Its schema
metadata hold, under ``featbank``, a JSON object with a CRC-32 of the key column and of each block of
rows, so that every value handed out has been checked against damage while only the blocks asked for are
read. The SHA-256 of the whole file is its name. Measured on one core: CRC-32 4.3 GB/s, SHA-256 1.8,
BLAKE2b 0.9; hence CRC-32 at each read and SHA-256 on writing, verifying and compacting.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.bank.files import explain, is_vanished
from featbank.bank.keys import KEY_BYTES, Keys
from featbank.bank.spec import FORMAT_VERSION, FeatureSpec
from featbank.digest import canonical_json
from featbank.errors import BankError

BLOCK_ROWS = 64
"""Rows under one checksum: 512 kB at 2048 float32, the least that is read to serve one row."""

METADATA_KEY = b"featbank"

_ONE_THREAD = pa.ipc.IpcReadOptions(use_threads=False)


class DamagedShardError(BankError):
    """A shard whose bytes are not what was written."""


def damaged(path: Path, fact: str) -> DamagedShardError:
    """Build the error for a shard that cannot be trusted."""
    return DamagedShardError(
        f"bank: shard {path} is damaged: {fact}. None of its rows was used. Delete this one file and run the "
        "command that filled the bank again: only its rows are computed anew. `featbank bank verify` lists every "
        "damaged file."
    )


def _crc(data: NDArray[Any]) -> str:
    return f"{zlib.crc32(data.data):08x}"


def _blocks(vectors: NDArray[Any]) -> list[NDArray[Any]]:
    return [vectors[start : start + BLOCK_ROWS] for start in range(0, len(vectors), BLOCK_ROWS)]


def encode_shard(spec: FeatureSpec, keys: Keys, vectors: NDArray[Any]) -> memoryview:
    """Write rows as the bytes of one shard; the same rows always give the same bytes.

    Parameters
    ----------
    spec : FeatureSpec
        The feature the rows belong to.
    keys : array of shape (n_rows,) and dtype S32
        Distinct, ascending.
    vectors : float array of shape (n_rows, n_features)
        C-contiguous, finite, of the stored dtype.

    Returns
    -------
    memoryview
        The whole file.
    """
    raw = np.ascontiguousarray(keys)
    metadata = {
        "format": FORMAT_VERSION,
        "kind": "feature",
        "feature": spec.digest,
        "n_rows": len(raw),
        "block_rows": BLOCK_ROWS,
        "key_crc32": _crc(raw.view(np.uint8)),
        "vector_crc32": "".join(_crc(block) for block in _blocks(vectors)),
    }
    element = pa.from_numpy_dtype(vectors.dtype)
    schema = pa.schema(
        [
            pa.field("key", pa.binary(KEY_BYTES), nullable=False),
            pa.field("vector", pa.list_(element, spec.n_features), nullable=False),
        ],
        metadata={METADATA_KEY: canonical_json(metadata).encode("ascii")},
    )
    key_column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(KEY_BYTES), len(raw), [None, pa.py_buffer(raw)]
    )
    vector_column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), spec.n_features)
    batch = pa.RecordBatch.from_arrays([key_column, vector_column], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:  # uncompressed unless asked otherwise
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


@dataclass(frozen=True)
class Shard:
    """An open shard; its arrays lie in the mapped file and are read as they are touched.

    Attributes
    ----------
    path : Path
        The file.
    keys : array of shape (n_rows,) and dtype S32
        Checked.
    vectors : float array of shape (n_rows, n_features)
        Not checked: use :meth:`take`, or :meth:`check` first.
    """

    path: Path
    keys: Keys
    vectors: NDArray[Any]
    _block_crcs: str

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Copy rows after checking the blocks they lie in.

        Parameters
        ----------
        rows : int array of shape (n,)
            Row numbers, 0 to n_rows - 1, in any order.

        Returns
        -------
        float array of shape (n, n_features)
            In the stored dtype.

        Raises
        ------
        DamagedShardError
            If a block's checksum differs.
        """
        self._check(np.unique(rows // BLOCK_ROWS).tolist())
        return self.vectors[rows]

    def check(self) -> None:
        """Check all vectors, for those who then read :attr:`vectors` themselves.

        Raises
        ------
        DamagedShardError
            If a block's checksum differs.
        """
        self._check(range(-(-len(self.vectors) // BLOCK_ROWS)))

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            part = self.vectors[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            if _crc(part) != self._block_crcs[8 * block : 8 * block + 8]:
                raise damaged(self.path, f"the checksum of rows {block * BLOCK_ROWS} and following differs")


def open_shard(path: Path, spec: FeatureSpec) -> Shard:
    """Map a shard into memory and check all of it but the vectors.

    Parameters
    ----------
    path : Path
        The file.
    spec : FeatureSpec
        The feature it must belong to.

    Raises
    ------
    FileNotFoundError
        If the file is gone: another process compacted, list the folder again.
    DamagedShardError
        If it is not a whole shard of this feature.
    BankError
        If it cannot be read, or was written by a newer version.
    """
    try:
        with pa.memory_map(str(path)) as source:
            mapped = source.read_buffer()  # copies nothing; through a buffer a shard opens twice as fast
        with pa.ipc.open_file(mapped, options=_ONE_THREAD) as reader:
            if reader.num_record_batches != 1:
                raise damaged(path, f"it must hold one record batch, got {reader.num_record_batches}")
            metadata = _read_metadata(path, reader.schema.metadata, spec)
            _check_schema(path, reader.schema, spec)
            batch = reader.get_batch(0)
            # Full validation looks at offsets and lengths only, these types have no other content to check.
            batch.validate(full=True)
            keys, vectors = _columns(path, batch, spec)
    except OSError as error:
        if isinstance(error, BankError):
            raise
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "shard is gone", str(path)) from error
        if error.errno:
            raise explain("read", path, error) from error
        raise damaged(path, f"Arrow cannot read it ({error})") from error  # e.g. "expected to read 8 bytes"
    except (pa.ArrowException, ValueError) as error:
        raise damaged(path, f"Arrow cannot read it ({error})") from error
    if metadata["n_rows"] != len(keys) or metadata["key_crc32"] != _crc(keys.view(np.uint8)):
        raise damaged(path, "the checksum of its keys differs")
    return Shard(path, keys, vectors, metadata["vector_crc32"])


def _columns(path: Path, batch: pa.RecordBatch, spec: FeatureSpec) -> tuple[Keys, NDArray[Any]]:
    """View both columns as arrays without copying them."""
    n_rows = batch.num_rows
    if n_rows < 1 or batch.column(0).null_count or batch.column(1).null_count:
        raise damaged(path, f"it must hold at least one row and no null, got {n_rows} rows")
    raw = batch.column(0).buffers()[1]
    keys = np.frombuffer(raw, dtype=f"S{KEY_BYTES}", count=n_rows)
    flat = batch.column(1).values  # flatten() would import pyarrow.compute, 60 ms
    if len(flat) != n_rows * spec.n_features:
        raise damaged(path, f"it must hold {n_rows} x {spec.n_features} numbers, got {len(flat)}")
    return keys, flat.to_numpy(zero_copy_only=True).reshape(n_rows, spec.n_features)


def _read_metadata(path: Path, stored: dict[bytes, bytes] | None, spec: FeatureSpec) -> dict[str, Any]:
    """Read and check the JSON object in the schema metadata."""
    try:
        metadata = json.loads((stored or {})[METADATA_KEY])
        version, feature, n_rows = metadata["format"], metadata["feature"], metadata["n_rows"]
        crcs, block_rows = metadata["vector_crc32"], metadata["block_rows"]
        n_crcs = 8 * -(-n_rows // BLOCK_ROWS)
        is_whole = isinstance(metadata["key_crc32"], str) and isinstance(crcs, str) and len(crcs) == n_crcs
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, "its schema metadata hold no featbank record") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BankError(
            f"bank: shard {path} has format version {version}, this featbank reads up to {FORMAT_VERSION}. "
            "Upgrade featbank, or use another bank folder."
        )
    if version != FORMAT_VERSION or block_rows != BLOCK_ROWS or not is_whole:
        raise damaged(path, "its featbank record is not of a known shape")
    if feature != spec.digest:
        raise damaged(path, f"it belongs to feature {feature!r}, not to {spec.digest!r} ({spec.label})")
    return metadata


def _check_schema(path: Path, schema: pa.Schema, spec: FeatureSpec) -> None:
    element = pa.from_numpy_dtype(np.dtype(spec.dtype))
    expected = [("key", pa.binary(KEY_BYTES)), ("vector", pa.list_(element, spec.n_features))]
    found = [(field.name, field.type) for field in schema]
    if found != expected:
        raise damaged(path, f"it must have the columns {expected}, got {found}")
