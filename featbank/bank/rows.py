"""Reads rows out of many shards while other processes may replace them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featbank.bank.place import store_at
from featbank.bank.shard import KEY_BYTES, FeatureSpec, Keys, open_shard, read_keys
from featbank.errors import BankError
from featbank.remote import Place


@dataclass(frozen=True)
class KeyIndex:
    """Where each key's row lies, over all shards of a folder."""

    names: tuple[str, ...]  # shard names, ascending
    keys: Keys  # array of shape (n_rows,) and dtype S32; Distinct keys, ascending
    # int32 array of shape (n_rows,); Position in ``names`` of the shard that serves the key
    shard: NDArray[np.int32]
    row: NDArray[np.int32]  # int32 array of shape (n_rows,); Row inside that shard

    @classmethod
    def build(cls, columns: Mapping[str, Keys]) -> KeyIndex:
        """Join the key columns of shards; of equal keys the one in the smallest shard name serves."""
        names = tuple(sorted(columns))
        parts = [columns[name] for name in names]
        keys = np.concatenate(parts) if parts else np.empty(0, dtype=f"S{KEY_BYTES}")
        shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        row = np.concatenate(
            [np.arange(len(part), dtype=np.int32) for part in parts] or [np.empty(0, np.int32)]
        )
        # A stable sort keeps the order of the names among equal keys: the first of a run is the smallest name.
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.ones(len(keys), dtype=bool)
        first[1:] = keys[1:] != keys[:-1]
        order = order[first]
        return cls(names, keys[first], shard[order], row[order])

    def by_shard(
        self, positions: NDArray[np.int64]
    ) -> Iterator[tuple[str, NDArray[np.intp], NDArray[np.int32]]]:
        """Sort positions in :attr:`keys` by the shard that serves them."""
        shard = self.shard[positions]
        order = np.argsort(shard, kind="stable")
        cuts = np.flatnonzero(np.diff(shard[order])) + 1
        for places in np.split(order, cuts) if len(order) else ():
            yield self.names[shard[places[0]]], places, self.row[positions[places]]

    def locate(self, keys: Keys) -> NDArray[np.int64]:
        """Return the position of each key in :attr:`keys`, -1 for those that are not there."""
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        positions = np.searchsorted(self.keys, keys).astype(np.int64)
        positions[positions == len(self.keys)] = 0
        positions[self.keys[positions] != keys] = -1
        return positions


T = TypeVar("T")

RELIST_LIMIT = 50
"""How often a reader looks again before it gives up: each time, a neighbour finished a whole compaction."""


def relisting(folder: Place, read: Callable[[], T]) -> T:
    """Call ``read`` until no shard vanishes under it."""
    for attempt in range(RELIST_LIMIT):
        try:
            return read()
        except FileNotFoundError:
            time.sleep(0.001 * attempt)  # a neighbour is at work; the first retry is immediate
    raise BankError(
        f"bank: shards of {folder} vanished {RELIST_LIMIT} times while they were read: another process keeps "
        "rewriting this folder. Stop that process (or the program that deletes files there) and try again."
    )


class RowReader:
    """The rows of one feature, by key, over the shards that exist now.

    Remembers the key columns (32 bytes a row), which is safe because a shard never changes; vectors are
    read from the mapped files each time and no file stays open.

    Parameters
    ----------
    folder : Path or RemotePath
        The feature's folder; may be missing, which is an empty feature.
    spec : FeatureSpec
        What its shards must hold.
    """

    def __init__(self, folder: Place, spec: FeatureSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._columns: dict[str, Keys] = {}
        self._index = KeyIndex.build({})

    def __getstate__(self) -> dict[str, Any]:
        # What is remembered can be read again; sending it to each worker process would cost more.
        return {**self.__dict__, "_columns": {}, "_index": KeyIndex.build({})}

    def index(self) -> KeyIndex:
        """Return where each key lies now; only shards not seen before are opened."""
        return relisting(self._folder, lambda: self._load(store_at(self._folder).settled_shards()))

    def _load(self, names: list[str]) -> KeyIndex:
        index = self._index
        if tuple(names) == index.names:
            return index
        known = self._columns
        columns = {
            name: known[name] if name in known else read_keys(self._folder / name, self._spec)
            for name in names
        }
        index = KeyIndex.build(columns)
        # Whole objects are swapped in, so that threads sharing this reader see the old or the new state.
        self._columns, self._index = columns, index
        return index

    def gather(self, index: KeyIndex, positions: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill ``out`` with the vectors at ``positions`` of ``index``, converting to its dtype."""
        for name, places, rows in index.by_shard(positions):
            out[places] = open_shard(self._folder / name, self._spec).take(rows)


MAX_SHARDS = 4096
"""Files of one feature that are mapped at once; a process may map some 65,000 in all."""

_SHIFT = np.int64(32)


class MappedRows:
    """Rows of one feature, in an order of one's own.

    Parameters
    ----------
    folder : Path or RemotePath
        The feature's folder. Shards of a store are fetched into the folder for temporary files.
    spec : FeatureSpec
        What its shards hold.
    index : KeyIndex
        Where each key lies.
    positions : int64 array of shape (n_rows,)
        Positions in ``index.keys``.

    Attributes
    ----------
    n_features : int
        Numbers per row.
    dtype : dtype
        Stored type.
    place : int64 array of shape (n_rows,)
        Ascending in the order of files and of rows inside a file: rows in this order are read fastest.

    Raises
    ------
    FileNotFoundError
        If a shard is gone: take a new index.
    BankError
        If a shard is damaged or cannot be read, or the rows lie in too many files.
    """

    def __init__(
        self, folder: Place, spec: FeatureSpec, index: KeyIndex, positions: NDArray[np.int64]
    ) -> None:
        self.n_features, self.dtype = spec.n_features, np.dtype(spec.dtype)
        shard, row = index.shard[positions], index.row[positions]
        used = np.unique(shard)
        if len(used) > MAX_SHARDS:
            raise BankError(
                f"bank: rows of feature {spec.label!r} to be read from mapped files must lie in at most "
                f"{MAX_SHARDS} files, got {len(used)}. Merge them once: `featbank bank prune --bank {folder.parent}`."
            )
        self._vectors: list[NDArray[Any]] = []
        for number in used.tolist():
            opened = open_shard(folder / index.names[number], spec)
            opened.check()
            self._vectors.append(opened.vectors)
        self.place = (np.searchsorted(used, shard).astype(np.int64) << _SHIFT) | row.astype(np.int64)

    def __len__(self) -> int:
        return len(self.place)

    def read(self, rows: NDArray[np.intp], out: NDArray[np.floating[Any]]) -> None:
        """Fill ``out`` with rows, converting to its type."""
        place = self.place[rows]
        shard, row = place >> _SHIFT, place & np.int64(0xFFFFFFFF)
        if len(shard) and shard[0] == shard[-1] and (shard == shard[0]).all():
            _convert(self._vectors[int(shard[0])], row, out)
            return
        order = np.argsort(shard, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            if len(places):
                part = np.empty((len(places), self.n_features), dtype=out.dtype)
                _convert(self._vectors[int(shard[places[0]])], row[places], part)
                out[places] = part


def _convert(vectors: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.floating[Any]]) -> None:
    first = int(rows[0])
    if rows[-1] - first == len(rows) - 1 and (np.diff(rows) == 1).all():
        out[...] = vectors[first : first + len(rows)]  # neighbours need no copy in between
    else:
        out[...] = vectors[rows]
