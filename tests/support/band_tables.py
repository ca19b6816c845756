"""Small feature tables with bands, and targets that depend on them in a known way."""

from __future__ import annotations

import numpy as np
import pandas as pd


def band_table(
    n_rows: int = 120, widths: dict[str, int] | None = None, *, seed: int = 0, noise: float = 0.3
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table and a target that is a noisy sum of the first column of each band but the last.

    Columns of one band share a latent factor, as columns of one encoder do; the last band is pure noise.
    """
    widths = {"quality": 6, "content": 4, "scene": 3} if widths is None else widths
    rng = np.random.default_rng(seed)
    columns, blocks, signal = [], [], np.zeros(n_rows)
    for number, (band, width) in enumerate(widths.items()):
        latent = rng.normal(size=(n_rows, 1))
        block = (latent if number < len(widths) - 1 else 0.0) + 0.5 * rng.normal(size=(n_rows, width))
        if number < len(widths) - 1:
            signal += latent[:, 0] / (1 + number)
        columns += [f"{band}:{k:04d}" for k in range(width)]
        # Unequal scales and offsets, so that standardisation matters.
        blocks.append(block * rng.uniform(0.1, 10, size=width) + rng.normal(size=width))
    X = pd.DataFrame(np.hstack(blocks), columns=columns, index=[f"image{k:03d}" for k in range(n_rows)])
    return X, 3.0 + signal + noise * rng.normal(size=n_rows)


class ArraySource:
    """A matrix in memory, or a mapped file, as a source of a `regressors.bands.BlockTable`."""

    def __init__(self, values: np.ndarray, columns: list[str]) -> None:
        self._values, self.columns, self.index = values, pd.Index(columns), pd.RangeIndex(len(values))

    def read(self, rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        chosen = self._values[rows] if columns is None else self._values[rows[:, None], columns]
        return chosen.astype(np.float64, copy=False)

    def arrange(self, rows: np.ndarray) -> np.ndarray:
        return np.argsort(rows, kind="stable")
