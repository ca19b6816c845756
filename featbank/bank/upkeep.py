"""Looks after a feature folder: merges its shards into canonical ones, and checks every byte of it.

Canonical shards hold the rows of one range of keys each, ascending. The ranges depend on the number of rows alone
(key space cut into 1, 2, 4, ... equal parts), so two banks with the same rows become equal byte for byte. New shards
are complete before any old one goes, and an old one goes only when all its rows lie in new ones. A kill in between
leaves rows twice, never less than once.

Several compactions at once are safe as rows only grow: a process removes a canonical shard only after putting one of
the same range that holds more rows, or those of its halves. Removals thus lead upwards, and no two processes can each
rely on what the other removes; shards cut after a fixed number of rows would not give this.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.place import SHARD_NAME, explain, is_vanished, shard_name, store_at
from featbank.bank.rows import KeyIndex, relisting
from featbank.bank.shard import (
    BLOCK_ROWS,
    KEY_BYTES,
    SPEC_NAME,
    FeatureSpec,
    Keys,
    Shard,
    damaged,
    encode_shard,
    explained,
    format_keys,
    open_shard,
    read_spec,
)
from featbank.errors import BankError
from featbank.remote import Place, digest_at

SHARD_ROWS = 16_384
"""Upper end of the mean number of rows in a canonical shard; the lower end is half of it."""

AGREEMENT = {"float32": 1e-4, "float16": 4e-3}
"""Rows of one image computed twice may differ by this share of their largest number: engines, batch sizes and
numbers of threads move a forward pass by up to 3e-6, storing as float16 by 5e-4; a real difference
(filter, weights, layer) moves it by 1e-2 and more."""

_SHOWN = 3


# --- compaction


def cut_points(n_rows: int) -> Keys:
    """Return the first key of each range of the canonical partition, ascending; the first is all zero."""
    n_bits = max(0, (n_rows - 1).bit_length() - (SHARD_ROWS - 1).bit_length())
    starts = [
        (number << (8 * KEY_BYTES - n_bits)).to_bytes(KEY_BYTES, "big") for number in range(1 << n_bits)
    ]
    return np.frombuffer(b"".join(starts), dtype=f"S{KEY_BYTES}")


def compact_feature(folder: Place, spec: FeatureSpec) -> int:
    """Replace all shards of a feature folder by canonical ones; return how many files went.

    Raises
    ------
    DamagedShardError
        If an input is damaged; nothing is removed then.
    BankError
        If there is no room for the new shards beside the old ones, or the folder cannot be written to.
    """
    store_at(folder).sweep()
    return relisting(folder, lambda: _compact(folder, spec))


def _compact(folder: Place, spec: FeatureSpec) -> int:
    store = store_at(folder)
    inputs = store.settled_shards()
    shards = {name: _open_whole(folder / name, spec) for name in inputs}
    index = KeyIndex.build({name: shard.keys for name, shard in shards.items()})
    row_bytes = KEY_BYTES + spec.n_features * np.dtype(spec.dtype).itemsize
    outputs, n_waiting = set(), len(index.keys)
    for part in _ranges(index):
        data = encode_shard(spec, index.keys[part], _gather(index, part, shards, spec))
        name = shard_name(data)
        if name not in inputs:
            # Asked beforehand: shards written in vain could not be taken back, as a neighbour may rely on them.
            if store.free_bytes() < n_waiting * row_bytes:
                raise explain("compact", folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            store.put(name, data)
        outputs.add(name)
        n_waiting -= part.stop - part.start
    # Largest names first: while duplicates last, the smallest name serves, and it is the one that was merged.
    obsolete = sorted(set(inputs) - outputs, reverse=True)
    store.remove(obsolete)
    return len(obsolete)


def _open_whole(path: Place, spec: FeatureSpec) -> Shard:
    """Open a shard after checking every byte of it: its rows are about to outlive it."""
    with explained(path):
        if f"{digest_at(path)}.arrow" != path.name:
            raise damaged(path, "its bytes do not have the SHA-256 of its name")
    return open_shard(path, spec)


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


# --- verification


@dataclass(frozen=True)
class Problem:
    """One finding of ``verify``."""

    where: str  # label and folder of the feature, or ``"images"``
    path: Place  # the file, or the folder when it is about several
    # One of ``specification``, ``checksum``, ``unreadable``, ``not-finite``, ``order``, ``disagreement``, ``stray``
    kind: str
    message: str  # the full sentence for people, with the cure


def name_of(spec: FeatureSpec) -> str:
    """Name a feature for people: its label and the beginning of its folder's name."""
    return f"{spec.label} ({spec.digest[:12]})"


def check_files(folder: Place, where: str) -> tuple[list[str], list[Problem]]:
    """Compare every shard's bytes with its name; return the sound ones and the findings, named by ``where``."""
    store, sound, problems = store_at(folder), [], []
    for name in store.shards():
        path = folder / name
        try:
            digest = digest_at(path)
        except OSError as error:
            if not is_vanished(error):  # else compacted away by a neighbour: its rows are in another shard
                problems.append(Problem(where, path, "unreadable", str(explain("read", path, error))))
            continue
        if f"{digest}.arrow" == name:
            sound.append(name)
        else:
            fact = f"bank: {path} has other bytes than were written (SHA-256 {digest[:12]}...). "
            cure = "Delete this file; only its rows are computed anew."
            problems.append(Problem(where, path, "checksum", fact + cure))
    for name in store.names():
        if name.endswith(".arrow") and not name.startswith(".") and not SHARD_NAME.fullmatch(name):
            fact = f"bank: {folder / name} is ignored, a shard must be named by the SHA-256 of its bytes. "
            cure = "If it is a renamed shard, give it that name; otherwise delete it."
            problems.append(Problem(where, folder / name, "stray", fact + cure))
    return sound, problems


def verify_feature(folder: Place, spec: FeatureSpec) -> list[Problem]:
    """Check specification, checksums, columns, width, finiteness and duplicates; hidden files are no problems."""
    where = name_of(spec)
    sound, problems = check_files(folder, where)
    try:
        spec.check_agrees(read_spec(folder), folder)
    except FileNotFoundError:
        if sound:
            fact = f"bank: {folder} has no {SPEC_NAME}"
            problems.append(Problem(where, folder / SPEC_NAME, "specification", fact))
    except BankError as error:
        problems.append(Problem(where, folder / SPEC_NAME, "specification", str(error)))
    columns: dict[str, Keys] = {}
    for name in sound:
        path = folder / name
        try:
            shard = open_shard(path, spec)
            if np.any(shard.keys[1:] <= shard.keys[:-1]):
                problems.append(_foreign(where, path, "order", "its keys are not distinct and ascending"))
            for start in range(0, len(shard.keys), BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, len(shard.keys)))
                bad = rows[~np.isfinite(shard.take(rows)).all(axis=1)]
                if len(bad):
                    some = ", ".join(format_keys(shard.keys[bad[:_SHOWN]]))
                    fact = f"{len(bad)} rows hold NaN or infinities ({some})"
                    problems.append(_foreign(where, path, "not-finite", fact))
            columns[name] = shard.keys
        except FileNotFoundError:
            continue
        except BankError as error:
            problems.append(Problem(where, path, "unreadable", str(error)))
    return problems + _disagreements(folder, spec, columns)


def _foreign(where: str, path: Place, kind: str, fact: str) -> Problem:
    return Problem(where, path, kind, f"bank: {path} was not written by featbank: {fact}. Delete this file.")


def _disagreements(folder: Place, spec: FeatureSpec, columns: dict[str, Keys]) -> list[Problem]:
    """Compare rows that are stored more than once with the one that is served."""
    index, problems = KeyIndex.build(columns), []
    for name, keys in sorted(columns.items()):
        positions = index.locate(keys)
        for served, places, rows in index.by_shard(positions):
            again = (rows != places) | (served != name)
            rows, places = rows[again], places[again]
            difference = _compare(folder, spec, served, rows, name, places)
            bad = places[difference > AGREEMENT[spec.dtype]]
            if len(bad):
                some = ", ".join(format_keys(keys[bad[:_SHOWN]]))
                message = (
                    f"bank: {folder}: {len(bad)} images have two different rows, in {served} (served) and {name}, up "
                    f"to {difference.max():.2g} of their size apart ({some}). The identity does not cover what "
                    "changed: raise the epoch of the code that computes this feature, or delete both files to compute "
                    "the rows anew."
                )
                problems.append(Problem(name_of(spec), folder, "disagreement", message))
    return problems


def _compare(
    folder: Place,
    spec: FeatureSpec,
    a: str,
    rows_a: NDArray[np.integer[Any]],
    b: str,
    rows_b: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Return the largest difference within each pair of rows as a share of their largest number."""
    try:
        left = open_shard(folder / a, spec).vectors
        right = open_shard(folder / b, spec).vectors
    except FileNotFoundError:  # compacted meanwhile: there are no two rows any more
        return np.zeros(len(rows_a))
    result = np.zeros(len(rows_a))
    for start in range(0, len(rows_a), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        x = left[rows_a[part]].astype(np.float64)
        y = right[rows_b[part]].astype(np.float64)
        size = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
        result[part] = np.abs(x - y).max(axis=1) / np.where(size > 0, size, 1.0)
    return result
