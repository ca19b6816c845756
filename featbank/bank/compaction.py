"""Merges the shards of a feature into canonical ones: a pure function of the rows, whoever wrote them and how.

Canonical shards hold the rows of one range of keys each, ascending. The ranges depend on the number of
rows alone (key space cut into 1, 2, 4, ... equal parts), so two banks with the same rows become equal byte
for byte. New shards are complete before any old one goes, and an old one goes only when all its rows
lie in new ones. A kill in between leaves rows twice, never less than once.

Several compactions at once are safe as long as rows only grow: a process removes a canonical shard only after
putting one of the same range that holds more rows, or those of its halves. Removals thus lead upwards, and
no two processes can each rely on what the other removes; shards cut after a fixed number of rows would
not give this. Pruning rows makes shards smaller on purpose: prune from one process at a time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.files import explain, is_vanished, shard_name
from featbank.bank.keys import KEY_BYTES, KeyIndex, Keys
from featbank.bank.place import (
    free_bytes,
    list_shards_settled,
    measure,
    put,
    remove_files,
    sweep_temporaries,
)
from featbank.bank.rows import relisting
from featbank.bank.shard import Shard, damaged, encode_shard, open_shard
from featbank.bank.spec import FeatureSpec
from featbank.errors import StoreError
from featbank.remote import Place, digest_at

SHARD_ROWS = 16_384
"""Upper end of the mean number of rows in a canonical shard; the lower end is half of it."""


@dataclass(frozen=True)
class Compaction:
    """What a compaction did to one folder.

    Attributes
    ----------
    n_rows, n_dropped : int
        Distinct rows kept, and distinct rows left out because no one asked to keep them.
    n_shards_before, n_shards_after : int
        Files.
    n_removed : int
        Files that were there before and are not any more.
    n_bytes_before, n_bytes_after : int
        Their sizes in bytes.
    """

    n_rows: int
    n_dropped: int
    n_shards_before: int
    n_shards_after: int
    n_removed: int
    n_bytes_before: int
    n_bytes_after: int


def cut_points(n_rows: int) -> Keys:
    """Return the first key of each range of the canonical partition, ascending; the first is all zero."""
    n_bits = max(0, (n_rows - 1).bit_length() - (SHARD_ROWS - 1).bit_length())
    starts = [
        (number << (8 * KEY_BYTES - n_bits)).to_bytes(KEY_BYTES, "big") for number in range(1 << n_bits)
    ]
    return np.frombuffer(b"".join(starts), dtype=f"S{KEY_BYTES}")


def compact_feature(folder: Place, spec: FeatureSpec, keep: Keys | None = None) -> Compaction:
    """Replace all shards of a feature folder by canonical ones.

    Parameters
    ----------
    folder : Path or RemotePath
        The feature's folder.
    spec : FeatureSpec
        What its shards hold.
    keep : array of shape (n_keys,) and dtype S32, optional
        Drop every row whose key is not among these. By default all rows stay.

    Returns
    -------
    Compaction

    Raises
    ------
    DamagedShardError
        If an input is damaged; nothing is removed then.
    BankError
        If there is no room for the new shards beside the old ones, or the folder cannot be written to.
    """
    sweep_temporaries(folder)
    return relisting(folder, lambda: _compact(folder, spec, keep))


def _compact(folder: Place, spec: FeatureSpec, keep: Keys | None) -> Compaction:
    inputs = list_shards_settled(folder)
    shards = {name: _open_whole(folder / name, spec) for name in inputs}
    n_bytes_before = measure(folder, inputs)
    index = KeyIndex.build({name: shard.keys for name, shard in shards.items()})
    n_found = len(index.keys)
    if keep is not None:
        index = _restrict(index, keep)
    outputs: dict[str, int] = {}
    n_waiting = len(index.keys)
    for part in _ranges(index):
        data = encode_shard(spec, index.keys[part], _gather(index, part, shards, spec))
        name = _put_new(folder, data, inputs, n_waiting * (KEY_BYTES + _row_bytes(spec)))
        outputs[name] = data.nbytes
        n_waiting -= part.stop - part.start
    # Largest names first: while duplicates last, the smallest name serves, and it is the one that was merged.
    obsolete = sorted(set(inputs) - set(outputs), reverse=True)
    remove_files(folder, obsolete)
    return Compaction(
        n_rows=len(index.keys),
        n_dropped=n_found - len(index.keys),
        n_shards_before=len(inputs),
        n_shards_after=len(outputs),
        n_removed=len(obsolete),
        n_bytes_before=n_bytes_before,
        n_bytes_after=sum(outputs.values()),
    )


def _open_whole(path: Place, spec: FeatureSpec) -> Shard:
    """Open a shard after checking every byte of it: its rows are about to outlive it."""
    try:
        if f"{digest_at(path)}.arrow" != path.name:
            raise damaged(path, "its bytes do not have the SHA-256 of its name")
    except OSError as error:
        if is_vanished(error):
            raise FileNotFoundError(error.errno, "shard is gone", str(path)) from error
        if error.errno or isinstance(error, StoreError):
            raise explain("read", path, error) from error
        raise
    return open_shard(path, spec)


def _restrict(index: KeyIndex, keep: Keys) -> KeyIndex:
    chosen = np.isin(index.keys, keep)
    return KeyIndex(index.names, index.keys[chosen], index.shard[chosen], index.row[chosen])


def _ranges(index: KeyIndex) -> Iterator[slice]:
    """Cut the ascending keys at the canonical points; empty ranges are left out."""
    starts = np.searchsorted(index.keys, cut_points(len(index.keys))).tolist()
    for start, stop in zip(starts, [*starts[1:], len(index.keys)], strict=True):
        if stop > start:
            yield slice(start, stop)


def _gather(index: KeyIndex, part: slice, shards: dict[str, Shard], spec: FeatureSpec) -> NDArray[Any]:
    vectors = np.empty((part.stop - part.start, spec.n_features), dtype=spec.dtype)
    for name, places, rows in index.by_shard(np.arange(part.start, part.stop)):
        vectors[places] = shards[name].vectors[rows]
    return vectors


def _row_bytes(spec: FeatureSpec) -> int:
    return spec.n_features * np.dtype(spec.dtype).itemsize


def _put_new(folder: Place, data: memoryview, inputs: list[str], n_bytes_waiting: int) -> str:
    """Store a canonical shard unless it is there already; return its name."""
    name = shard_name(data)
    if name not in inputs:
        if free_bytes(folder) < n_bytes_waiting:
            # Asked beforehand: shards written in vain could not be taken back, as a neighbour may rely on them.
            raise explain("compact", folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        put(folder, name, data)
    return name
