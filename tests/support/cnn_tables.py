"""Small tables like pooled activations of deep networks: rectified, heavy-tailed, with dead and repeated channels."""

from __future__ import annotations

import numpy as np
import pandas as pd


def cnn_table(
    n_rows: int, widths: dict[str, int], *, seed: int = 0, dtype: type = np.float64
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table and a target that few latent factors drive.

    Each band has one dead channel, one constant, one active on a single row, and one that repeats another.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n_rows, 12)) * np.arange(1, 13) ** -0.6
    blocks, names = [], []
    for band, width in widths.items():
        block = latent @ rng.normal(size=(12, width)) + 0.25 * rng.normal(size=(n_rows, width))
        block = np.maximum(block - rng.exponential(0.5, size=width), 0)
        block *= np.exp(rng.normal(size=width)) * np.sqrt(1 + block)
        block[:, 0], block[:, 1], block[:, 2] = 0.0, 3.1, 0.0
        block[rng.integers(n_rows), 2] = 1.7
        block[:, 4] = block[:, 3]
        blocks.append(block)
        names += [f"{band}:{k:04d}" for k in range(width)]
    y = 50 + 8 * (latent @ rng.normal(size=12)) + rng.normal(size=n_rows)
    return pd.DataFrame(np.hstack(blocks).astype(dtype), columns=names), y
