"""A table of features that stays in the bank's files: bands side by side, rows by image, read by blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.bank.mapped import MappedRows


class MappedTable:
    """Bands of one table, each in its mapped files.

    Parameters
    ----------
    bands : sequence of MappedRows
        Rows of the same images in the same order.
    columns : sequence of str
        Names of all columns, band after band.
    index : Index
        Names of the images.
    """

    def __init__(self, bands: Sequence[MappedRows], columns: Sequence[str], index: pd.Index) -> None:
        self._bands = list(bands)
        self.columns = pd.Index(columns)
        self.index = index
        self._starts = np.cumsum([0, *(band.n_features for band in bands)])

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of images and columns."""
        return len(self.index), len(self.columns)

    def read(self, rows: NDArray[np.intp], columns: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Return a copy of some rows, of all columns or of some, in float64.

        Parameters
        ----------
        rows, columns : int array
            Positions, in any order.
        """
        values = np.empty((len(rows), len(self.columns) if columns is None else len(columns)))
        for band, start, stop in zip(self._bands, self._starts[:-1], self._starts[1:], strict=True):
            if columns is None:
                band.read(rows, values[:, start:stop])
                continue
            here = np.flatnonzero((columns >= start) & (columns < stop))
            if len(here):
                own = np.empty((len(rows), band.n_features), dtype=band.dtype)
                band.read(rows, own)
                values[:, here] = own[:, columns[here] - start]
        return values

    def arrange(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the order in which rows are read fastest: that of the first band's files."""
        return np.argsort(self._bands[0].place[rows], kind="stable")
