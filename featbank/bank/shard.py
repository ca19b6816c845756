"""One feature shard: an Arrow IPC file of keys and vectors that proves itself when it is read.

The file is an ordinary Feather v2 file without compression: ``pandas.read_feather`` opens it. Its schema
metadata hold, under ``featbank``, a JSON object with a CRC-32 of the key column and of each block of
rows, so that every value handed out has been checked against damage while only the blocks asked for are
read. The SHA-256 of the whole file is its name. Measured on one core: CRC-32 4.3 GB/s, SHA-256 1.8,
BLAKE2b 0.9; hence CRC-32 at each read and SHA-256 on writing, verifying and compacting.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.bank.place import explain, is_vanished, store_at
from featbank.digest import canonical_json, digest_json
from featbank.errors import BankError, StoreError
from featbank.remote import Place, RemotePath

FORMAT_VERSION = 1
"""Version of everything in a bank folder: ``spec.json``, the shards, the image log."""

KEY = re.compile(r"[0-9a-f]{64}")
KEY_BYTES = 32
"""A key is the SHA-256 of the image's bytes: 32 bytes, written as 64 hexadecimal digits."""

Keys = NDArray[np.bytes_]
"""Keys as a numpy array of dtype ``S32``: compares and sorts as the raw bytes do."""


def parse_keys(keys: Sequence[str]) -> Keys:
    """Turn hexadecimal keys into the bytes that are stored."""
    bad = next((key for key in keys if not KEY.fullmatch(key)), None)
    if bad is not None:
        raise ValueError(
            f"bank: a key must be 64 lower-case hexadecimal digits (the SHA-256 of the image's bytes), got {bad!r}. "
            "Take it from featbank.digest.digest_file."
        )
    return np.frombuffer(bytes.fromhex("".join(keys)), dtype=f"S{KEY_BYTES}")


def format_keys(keys: Keys) -> list[str]:
    """Turn stored keys back into 64 hexadecimal digits each; the reverse of :func:`parse_keys`."""
    # Through the raw buffer: reading single elements would drop trailing zero bytes.
    text = keys.tobytes().hex()
    width = 2 * KEY_BYTES
    return [text[start : start + width] for start in range(0, len(text), width)]


SPEC_NAME = "spec.json"
STORED_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class FeatureSpec:
    """The full description of one feature."""

    # Everything that can change the numbers, as JSON with string keys; its digest names the folder
    identity: dict[str, Any]
    n_features: int  # numbers per image, at least 1
    dtype: str  # how they are stored, ``"float32"`` or ``"float16"``
    label: str  # A name for people, not part of the identity: two recipes may call one feature differently

    def __post_init__(self) -> None:
        text = canonical_json(self.identity)
        # Integers as keys sort as numbers here and as text after reading back: two digests of one thing.
        if not isinstance(self.identity, dict) or canonical_json(json.loads(text)) != text:
            raise ValueError(f"bank: identity must be a JSON object with string keys, got {self.identity!r}")
        if isinstance(self.n_features, bool) or not isinstance(self.n_features, int) or self.n_features < 1:
            raise ValueError(f"bank: n_features must be an integer of at least 1, got {self.n_features!r}")
        if self.dtype not in STORED_DTYPES:
            raise ValueError(f"bank: dtype must be one of {', '.join(STORED_DTYPES)}, got {self.dtype!r}")
        if not isinstance(self.label, str):
            raise TypeError(f"bank: label must be a str, got {self.label!r}")
        object.__setattr__(self, "identity", json.loads(text))  # tuples become lists, as on disk

    @property
    def digest(self) -> str:
        """SHA-256 of the identity's canonical JSON as 64 hexadecimal digits; the folder's name."""
        return digest_json(self.identity)

    def write(self, folder: Place) -> None:
        """Write ``spec.json``; equal specifications give equal bytes."""
        content = {
            "bank_format_version": FORMAT_VERSION,
            "dtype": self.dtype,
            "identity": self.identity,
            "label": self.label,
            "n_features": self.n_features,
        }
        text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True)
        store_at(folder).put(SPEC_NAME, (text + "\n").encode("ascii"))

    def check_agrees(self, stored: FeatureSpec, folder: Place) -> None:
        """Refuse a stored specification that is not this one; labels may differ."""
        for field in ("identity", "n_features", "dtype"):
            wanted, found = getattr(self, field), getattr(stored, field)
            if canonical_json(wanted) != canonical_json(found):
                raise BankError(
                    f"bank: {folder} holds a feature whose {field} is {found!r}, expected {wanted!r} for "
                    f"{self.label!r}. Features of two kinds must not mix: what changes {field} belongs into the "
                    "identity (raise the epoch of the code that computes it), or use another bank folder."
                )


def read_json(path: Place) -> dict[str, Any]:
    """Read a ``spec.json`` of any kind and check its format version."""
    try:
        content = json.loads(path.read_bytes())
        version = content["bank_format_version"]
    except OSError as error:
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "no specification", str(path)) from error
        raise explain("read", path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BankError(
            f"bank: {path} must be a JSON object with bank_format_version, got something else ({error}). Delete this "
            "file: it is written anew, and the shards beside it are kept, when the feature is next computed."
        ) from error
    if version != FORMAT_VERSION:
        raise BankError(
            f"bank: {path} has format version {version!r}, this featbank reads version {FORMAT_VERSION}"
            f"{_explain_version(version)}, or use another bank folder (`--bank DIR`): its features are computed anew."
        )
    return content


def _explain_version(version: object) -> str:
    if not isinstance(version, int) or version < 0:
        return ". No featbank writes this: restore the file from a copy"
    if version > FORMAT_VERSION:
        return " (the bank was written by a newer featbank). Upgrade featbank"
    return " (the bank was written by an older featbank). Read it with that one"


def read_spec(folder: Place) -> FeatureSpec:
    """Read the ``spec.json`` of a feature folder and check it against the folder's name."""
    path = folder / SPEC_NAME
    content = read_json(path)
    try:
        spec = FeatureSpec(content["identity"], content["n_features"], content["dtype"], content["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise BankError(
            f"bank: {path} must hold identity, n_features, dtype and label, got a damaged file ({error}). Delete "
            "this file: it is written anew when the feature is next computed."
        ) from error
    if spec.digest != folder.name:
        raise BankError(
            f"bank: {path} describes feature {spec.digest}, but its folder is named {folder.name}. The file was "
            "damaged or the folder renamed: delete this file (it is written anew) or restore the folder's name."
        )
    return spec


BLOCK_ROWS = 64
"""Rows under one checksum: 512 kB at 2048 float32, the least that is read to serve one row."""

METADATA_KEY = b"featbank"

WHOLE_BYTES = 4 << 20
"""A shard in a store is fetched whole up to this size, in bytes, even if only its keys are wanted: by parts it takes
four requests more."""

_ONE_THREAD = pa.ipc.IpcReadOptions(use_threads=False)
_KEY_FIELD = ("key", pa.binary(KEY_BYTES))
_KEYS_ALONE = pa.ipc.IpcReadOptions(use_threads=False, included_fields=[0])


class DamagedShardError(BankError):
    """A shard whose bytes are not what was written."""


def damaged(path: Place, fact: str) -> DamagedShardError:
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
    """Write rows as the bytes of one shard; the same rows always give the same bytes."""
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

    ``keys`` (n_rows, dtype S32) are checked; ``vectors`` (n_rows, n_features) are not: use `take`, or `check` first.
    """

    path: Place
    keys: Keys
    vectors: NDArray[Any]
    _block_crcs: str

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Copy rows after checking the blocks they lie in."""
        self._check(np.unique(rows // BLOCK_ROWS).tolist())
        return self.vectors[rows]

    def check(self) -> None:
        """Check all vectors, for those who then read :attr:`vectors` themselves."""
        self._check(range(-(-len(self.vectors) // BLOCK_ROWS)))

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            part = self.vectors[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            if _crc(part) != self._block_crcs[8 * block : 8 * block + 8]:
                raise damaged(self.path, f"the checksum of rows {block * BLOCK_ROWS} and following differs")


def open_shard(path: Place, spec: FeatureSpec) -> Shard:
    """Map a shard into memory and check all of it but the vectors."""
    with (
        explained(path),
        pa.ipc.open_file(store_at(path.parent).map(path.name), options=_ONE_THREAD) as reader,
    ):
        metadata = _open_metadata(path, reader, spec)
        _check_schema(path, reader.schema, spec)
        batch = reader.get_batch(0)
        # Full validation looks at offsets and lengths only, these types have no other content to check.
        batch.validate(full=True)
        keys, vectors = _columns(path, batch, spec)
    _check_keys(path, keys, metadata)
    return Shard(path, keys, vectors, metadata["vector_crc32"])


def read_keys(path: Place, spec: FeatureSpec) -> Keys:
    """Read the keys of a shard and check them; from a store, of a large shard, little more than the keys is fetched."""
    if isinstance(path, RemotePath):
        with explained(path), path.open(read_ahead=False) as file:
            if file.size > WHOLE_BYTES:
                with pa.ipc.open_file(pa.PythonFile(file, "r"), options=_KEYS_ALONE) as reader:
                    metadata = _open_metadata(path, reader, spec)
                    batch = reader.get_batch(0)
                    if [(field.name, field.type) for field in batch.schema] != [_KEY_FIELD]:
                        raise damaged(path, f"its first column must be {_KEY_FIELD}, got {batch.schema}")
                    keys = _key_column(path, batch).copy()
                _check_keys(path, keys, metadata)
                return keys
    return open_shard(path, spec).keys.copy()  # lets go of the mapped file


@contextlib.contextmanager
def explained(path: Place) -> Iterator[None]:
    """Say of an error whether the shard is gone, cannot be read, or is damaged."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BankError):
            raise
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "shard is gone", str(path)) from error
        if error.errno or isinstance(error, StoreError):
            raise explain("read", path, error) from error
        raise damaged(path, f"Arrow cannot read it ({error})") from error  # e.g. "expected to read 8 bytes"
    except (pa.ArrowException, ValueError) as error:
        raise damaged(path, f"Arrow cannot read it ({error})") from error


def _open_metadata(path: Place, reader: pa.ipc.RecordBatchFileReader, spec: FeatureSpec) -> dict[str, Any]:
    """Return the checked metadata of a file with one record batch."""
    if reader.num_record_batches != 1:
        raise damaged(path, f"it must hold one record batch, got {reader.num_record_batches}")
    return _read_metadata(path, reader.schema.metadata, spec)


def _check_keys(path: Place, keys: Keys, metadata: dict[str, Any]) -> None:
    if metadata["n_rows"] != len(keys) or metadata["key_crc32"] != _crc(keys.view(np.uint8)):
        raise damaged(path, "the checksum of its keys differs")


def _key_column(path: Place, batch: pa.RecordBatch) -> Keys:
    if batch.num_rows < 1 or batch.column(0).null_count:
        raise damaged(path, f"it must hold at least one row and no null, got {batch.num_rows} rows")
    return np.frombuffer(batch.column(0).buffers()[1], dtype=f"S{KEY_BYTES}", count=batch.num_rows)


def _columns(path: Place, batch: pa.RecordBatch, spec: FeatureSpec) -> tuple[Keys, NDArray[Any]]:
    """View both columns as arrays without copying them."""
    n_rows = batch.num_rows
    keys = _key_column(path, batch)
    if batch.column(1).null_count:
        raise damaged(path, "it must hold no null")
    flat = batch.column(1).values  # flatten() would import pyarrow.compute, 60 ms
    if len(flat) != n_rows * spec.n_features:
        raise damaged(path, f"it must hold {n_rows} x {spec.n_features} numbers, got {len(flat)}")
    return keys, flat.to_numpy(zero_copy_only=True).reshape(n_rows, spec.n_features)


def _read_metadata(path: Place, stored: dict[bytes, bytes] | None, spec: FeatureSpec) -> dict[str, Any]:
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


def _check_schema(path: Place, schema: pa.Schema, spec: FeatureSpec) -> None:
    element = pa.from_numpy_dtype(np.dtype(spec.dtype))
    expected = [_KEY_FIELD, ("vector", pa.list_(element, spec.n_features))]
    found = [(field.name, field.type) for field in schema]
    if found != expected:
        raise damaged(path, f"it must have the columns {expected}, got {found}")
