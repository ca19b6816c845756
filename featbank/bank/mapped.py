"""Rows of one feature left in their mapped files, in the type they are stored in, found by position.

What is read is checked once, when the rows are opened; afterwards a row costs its copy. A file that another process
replaces meanwhile stays readable until it is let go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.keys import KeyIndex
from featbank.bank.shard import open_shard
from featbank.bank.spec import FeatureSpec
from featbank.errors import BankError
from featbank.remote import Place

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
        """Fill ``out`` with rows, converting to its type.

        Parameters
        ----------
        rows : int array of shape (n,)
            In any order; may repeat.
        out : float array of shape (n, n_features)
            Is overwritten.
        """
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
