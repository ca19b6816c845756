"""Finds rows by key: 32-byte image digests as sorted arrays, never one Python object per row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32
"""A key is the SHA-256 of the image's bytes: 32 bytes, written as 64 hexadecimal digits."""

Keys = NDArray[np.bytes_]
"""Keys as a numpy array of dtype ``S32``: compares and sorts as the raw bytes do."""


def parse_keys(keys: Sequence[str]) -> Keys:
    """Turn hexadecimal keys into the bytes that are stored.

    Parameters
    ----------
    keys : sequence of str
        64 lower-case hexadecimal digits each.

    Returns
    -------
    array of shape (n_keys,) and dtype S32

    Raises
    ------
    ValueError
        If a key is not 64 lower-case hexadecimal digits; the message shows the first such key.
    """
    text = "".join(keys)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    # fromhex also takes spaces and capitals: neither survives the way back.
    if (
        len(raw) != KEY_BYTES * len(keys)
        or raw.hex() != text
        or any(len(key) != 2 * KEY_BYTES for key in keys)
    ):
        bad = next(key for key in keys if not _is_key(key))
        raise ValueError(
            f"bank: a key must be 64 lower-case hexadecimal digits (the SHA-256 of the image's bytes), got {bad!r}. "
            "Take it from featbank.digest.digest_file."
        )
    return np.frombuffer(raw, dtype=f"S{KEY_BYTES}")


def _is_key(key: str) -> bool:
    return len(key) == 2 * KEY_BYTES and all(digit in "0123456789abcdef" for digit in key)


def format_keys(keys: Keys) -> list[str]:
    """Turn stored keys back into 64 hexadecimal digits each; the reverse of :func:`parse_keys`."""
    # Through the raw buffer: reading single elements would drop trailing zero bytes.
    text = keys.tobytes().hex()
    width = 2 * KEY_BYTES
    return [text[start : start + width] for start in range(0, len(text), width)]


@dataclass(frozen=True)
class KeyIndex:
    """Where each key's row lies, over all shards of a folder.

    Attributes
    ----------
    names : tuple of str
        Shard names, ascending.
    keys : array of shape (n_rows,) and dtype S32
        Distinct keys, ascending.
    shard : int32 array of shape (n_rows,)
        Position in ``names`` of the shard that serves the key.
    row : int32 array of shape (n_rows,)
        Row inside that shard.
    """

    names: tuple[str, ...]
    keys: Keys
    shard: NDArray[np.int32]
    row: NDArray[np.int32]

    @classmethod
    def build(cls, columns: Mapping[str, Keys]) -> KeyIndex:
        """Join the key columns of shards; of equal keys the one in the smallest shard name serves.

        Parameters
        ----------
        columns : mapping of str to array of shape (n_rows_of_shard,) and dtype S32
            Key column by shard name, in any order.
        """
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
        """Sort positions in :attr:`keys` by the shard that serves them.

        Parameters
        ----------
        positions : int64 array of shape (n,)
            In any order; may repeat.

        Yields
        ------
        name : str
            Shard name, ascending.
        places : int array
            Which of the ``positions`` lie in this shard.
        rows : int32 array
            Their rows inside it.
        """
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
