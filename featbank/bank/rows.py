"""Reads rows out of many shards while other processes may replace them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featbank.bank.keys import KeyIndex, Keys
from featbank.bank.place import list_shards_settled
from featbank.bank.shard import open_shard, read_keys
from featbank.bank.spec import FeatureSpec
from featbank.errors import BankError
from featbank.remote import Place

T = TypeVar("T")

RELIST_LIMIT = 50
"""How often a reader looks again before it gives up: each time, a neighbour finished a whole compaction."""


def relisting(folder: Place, read: Callable[[], T]) -> T:
    """Call ``read`` until no shard vanishes under it.

    Parameters
    ----------
    folder : Path or RemotePath
        For the message.
    read : callable
        Lists the folder and reads shards; raises FileNotFoundError when one is gone.

    Raises
    ------
    BankError
        If shards vanish again and again.
    """
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
        """Return where each key lies now; only shards not seen before are opened.

        Raises
        ------
        BankError
            If a shard is damaged or cannot be read.
        """
        return relisting(self._folder, lambda: self._load(list_shards_settled(self._folder)))

    def _load(self, names: list[str]) -> KeyIndex:
        index = self._index
        if tuple(names) == index.names:
            return index
        known = self._columns
        columns = {name: known[name] if name in known else self._read_keys(name) for name in names}
        index = KeyIndex.build(columns)
        # Whole objects are swapped in, so that threads sharing this reader see the old or the new state.
        self._columns, self._index = columns, index
        return index

    def _read_keys(self, name: str) -> Keys:
        return read_keys(self._folder / name, self._spec)

    def gather(self, index: KeyIndex, positions: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill ``out`` with the vectors at ``positions`` of ``index``, converting to its dtype.

        Parameters
        ----------
        index : KeyIndex
            From :meth:`index`.
        positions : int64 array of shape (n,)
            Positions in ``index.keys``.
        out : float array of shape (n, n_features)
            Is overwritten.

        Raises
        ------
        FileNotFoundError
            If a shard is gone: take a new index.
        BankError
            If a shard is damaged or cannot be read.
        """
        for name, places, rows in index.by_shard(positions):
            out[places] = open_shard(self._folder / name, self._spec).take(rows)
