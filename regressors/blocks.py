"""Tables that are read by blocks of rows and never held as a whole.

A table of a million rows in float64 is larger than what is made of it. Here it stays where it lies, in the type it is
stored in, and its rows come as float64 blocks; `regressors.solvers.out_of_core` fits on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from regressors.bands import locate_bands
from regressors.checks import FloatArray, IntArray, Table

BLOCK_BYTES = 24_000_000
"""Size of one block in float64."""


class _RowSource(Protocol):
    """What a stored table offers."""

    columns: pd.Index
    index: pd.Index

    def read(self, rows: IntArray, columns: IntArray | None = None) -> FloatArray:
        """Return a copy of some rows, of all columns or of some, in float64."""

    def arrange(self, rows: IntArray) -> IntArray:
        """Return the order in which rows are read fastest."""


class BlockTable:
    """Some rows and columns of a stored table, read when they are asked for.

    It has what data frames have to be told apart by: ``columns``, ``index``, ``shape`` and a length.

    Parameters
    ----------
    source : object
        The stored table: the names ``columns`` and ``index``, ``read(rows, columns)`` and ``arrange(rows)``.
    rows : int array of shape (n_rows,), optional
        Which of its rows, in which order; all by default.
    places : int array of shape (n_columns,), optional
        Which of its columns, in which order; all by default.
    columns : sequence of str, optional
        New names of these columns.
    """

    def __init__(
        self,
        source: _RowSource,
        rows: IntArray | None = None,
        places: IntArray | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._source = source
        self._rows = np.arange(len(source.index)) if rows is None else rows
        self._places = places
        if columns is None:
            columns = list(source.columns if places is None else source.columns[places])
        self.columns = pd.Index(columns)
        self.shared: dict[object, object] = {}
        """What was computed from these rows, for those who ask again."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self._rows), len(self.columns)

    @property
    def index(self) -> pd.Index:
        """Names of the rows."""
        return self._source.index[self._rows]

    @property
    def bands(self) -> dict[str, IntArray]:
        """Positions of the columns of each band."""
        return locate_bands(list(self.columns), len(self.columns))

    def take(self, rows: IntArray) -> BlockTable:
        """Return some rows as a table of the same kind; nothing is read.

        Parameters
        ----------
        rows : int array of shape (n,)
            Positions.
        """
        return BlockTable(self._source, self._rows[rows], self._places, list(self.columns))

    def select(self, columns: Sequence[str], *, names: Mapping[str, str] | None = None) -> BlockTable:
        """Return some columns as a table of the same kind; nothing is read.

        Parameters
        ----------
        columns : sequence of str
            Names, in the order wanted.
        names : mapping of str to str, optional
            New names.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        chosen = self.columns.get_indexer(pd.Index(columns))
        if (chosen < 0).any():
            raise KeyError(f"BlockTable: there is no column {list(columns)[int(np.argmin(chosen))]!r}.")
        places = chosen if self._places is None else self._places[chosen]
        renamed = [(names or {}).get(column, column) for column in columns]
        return BlockTable(self._source, self._rows, places, renamed)

    def read(self, rows: IntArray | None = None) -> FloatArray:
        """Return a float64 copy of some rows, or of all.

        Parameters
        ----------
        rows : int array of shape (n,), optional
            Positions.

        Returns
        -------
        float64 array of shape (n, n_columns)
        """
        return self._source.read(self._rows if rows is None else self._rows[rows], self._places)

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return some rows, or all, as a data frame of float64.

        Parameters
        ----------
        rows : int array of shape (n,), optional
            Positions.
        """
        index = self.index if rows is None else self._source.index[self._rows[rows]]
        return pd.DataFrame(self.read(rows), index=index, columns=self.columns, copy=False)

    def blocks(self, rows: IntArray | None = None) -> Iterator[tuple[IntArray, FloatArray]]:
        """Read rows in the order in which they are read fastest.

        Parameters
        ----------
        rows : int array of shape (n,), optional
            Positions; all rows by default. Each comes once.

        Yields
        ------
        rows : int array of shape (n_block,)
            Positions.
        values : float64 array of shape (n_block, n_columns)
            A copy, to be overwritten at will.
        """
        asked = np.arange(len(self._rows)) if rows is None else rows
        if not len(asked):
            return
        order = self._source.arrange(self._rows[asked])
        asked = asked[order]
        step = self.block_rows
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            yield part, self._source.read(self._rows[part], self._places)

    @property
    def block_rows(self) -> int:
        """Rows of one block."""
        return max(64, BLOCK_BYTES // (8 * max(1, len(self.columns))))


def as_frames(X: Table, rows: IntArray | None = None) -> Iterator[tuple[IntArray, pd.DataFrame]]:
    """Cut a BlockTable ``X``, or some ``rows`` of it, into (row positions, data frame without names of rows)."""
    for part, values in X.blocks(rows):
        yield part, pd.DataFrame(values, columns=X.columns, copy=False)


def take_columns(X: Table, columns: Sequence[str], *, names: Mapping[str, str] | None = None) -> Table:
    """Return ``columns`` of a data frame or BlockTable ``X`` in the order wanted, renamed by ``names``."""
    if isinstance(X, BlockTable):
        return X.select(columns, names=names)
    return X[list(columns)].rename(columns=dict(names or {}))


def some_rows(X: Table, n_rows: int, random_state: int = 0) -> IntArray:
    """Draw at most ``n_rows`` ascending row positions of ``X`` without replacement, by the seed ``random_state``."""
    if len(X) <= n_rows:
        return np.arange(len(X))
    drawn = np.random.default_rng(random_state).choice(len(X), n_rows, replace=False)
    return np.sort(drawn)
