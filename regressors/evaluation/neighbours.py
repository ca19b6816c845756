"""Nearest rows of a table, exactly, block by block: memory for one block and the best so far, whatever the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from regressors.blocks import BlockTable
from regressors.checks import FloatArray, IntArray, Table

# Rows whose distances to all queries are in memory together.
_ROWS = 4096


def row_blocks(X: Table, rows: IntArray | None = None) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield positions and float64 values of the rows of a table.

    Parameters
    ----------
    X : data frame, BlockTable, or float array of shape (n_rows, n_features)
    rows : int array of shape (n,), optional
        Which; all by default.
    """
    if isinstance(X, BlockTable):
        yield from X.blocks(rows)
        return
    values = np.asarray(X, dtype=np.float64)
    chosen = np.arange(len(values)) if rows is None else rows
    for start in range(0, len(chosen), _ROWS):
        part = chosen[start : start + _ROWS]
        yield part, values[part]


def _cut(blocks: Iterable[tuple[IntArray, FloatArray]]) -> Iterator[tuple[IntArray, FloatArray]]:
    for rows, block in blocks:
        for start in range(0, len(rows), _ROWS):
            yield rows[start : start + _ROWS], block[start : start + _ROWS]


def nearest_rows(
    queries: FloatArray, blocks: Iterable[tuple[IntArray, FloatArray]], n_neighbours: int
) -> tuple[FloatArray, IntArray]:
    """Find the nearest rows of each query.

    Parameters
    ----------
    queries : float64 array of shape (n_queries, n_columns)
    blocks : iterable of (int array, float64 array)
        Positions and values of the rows.
    n_neighbours : int
        How many.

    Returns
    -------
    distances : float64 array of shape (n_queries, n_neighbours)
        Euclidean, ascending; infinite where there are fewer rows.
    rows : int array of shape (n_queries, n_neighbours)
        Their positions; -1 where there are fewer rows.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.evaluation.neighbours import nearest_rows, row_blocks
    >>> distances, rows = nearest_rows(np.array([[0.9]]), row_blocks(np.array([[0.0], [1.0], [3.0]])), 2)
    >>> distances.round(6).tolist(), rows.tolist()
    ([[0.1, 0.9]], [[1, 0]])
    """
    best = np.full((len(queries), n_neighbours), np.inf)
    where = np.full((len(queries), n_neighbours), -1, dtype=np.intp)
    # |q - b| ** 2 = [-2 q, |q| ** 2, 1] [b, 1, |b| ** 2]', one product of matrices.
    left = np.column_stack([-2.0 * queries, np.einsum("ij,ij->i", queries, queries), np.ones(len(queries))])
    for rows, block in _cut(blocks):
        right = np.column_stack([block, np.ones(len(block)), np.einsum("ij,ij->i", block, block)])
        squares = left @ right.T
        # Only few rows of a later block are nearer than the best so far.
        query, nearer = np.nonzero(squares < best[:, -1:])
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(query)], strict=True):
            k, found = query[start], nearer[start:stop]
            joined = np.concatenate([best[k], squares[k, found]])
            order = np.argsort(joined, kind="stable")[:n_neighbours]
            best[k] = joined[order]
            where[k] = np.concatenate([where[k], rows[found]])[order]
    return np.sqrt(np.maximum(best, 0.0)), where
