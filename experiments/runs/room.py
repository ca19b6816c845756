"""Whether a table is fitted in memory or by blocks, and what a large one is judged on; refuses what has no room."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.recipes.reading import RegressionRequest
from experiments.runs.evaluate import INTERVAL_ROWS, MANY_ROWS
from experiments.runs.trust import DUPLICATE_ROWS
from featbank.datasets import ImageTable
from featbank.errors import RunError
from featbank.table import Band, FeatureTable, MappedFeatures
from regressors.blocks import BlockTable, some_rows
from regressors.checks import Table
from regressors.shared.room import by_blocks_gb, default_limit_gb, in_memory_gb, kernel_gb

SHARE_ROWS: Final = 10_000
"""Rows behind the shares of the bands, of a table that is read by blocks."""


def choose_blocks(
    who: str,
    table: ImageTable,
    bands: Sequence[Band],
    regression: RegressionRequest,
    *,
    limit_gb: float | None = None,
    test_fraction: float = 0.2,
    estimators: Iterable[str] = (),
    reference: bool = False,
    workers: int | None = None,
) -> bool:
    """Choose between a table in memory and one that is read by blocks, before anything is read.

    Both give the same numbers. Blocks are for ridges on many more images than columns.

    Parameters
    ----------
    who : str
        The command, for the message.
    table : ImageTable
    bands : sequence of Band
    regression : RegressionRequest
    limit_gb : float or None
        Gigabytes (1e9 bytes) that the fit may take; None is four fifths of the memory that is free.
    test_fraction : float
        Share held out where the dataset has no split.
    estimators : iterable of str
        Further estimators that a search may try.
    reference : bool
        Whether plain scikit-learn searches, which needs the table in memory.
    workers : int or None

    Returns
    -------
    bool
        True for blocks.

    Raises
    ------
    RunError
        If kernels, or the table, have no room within the limit.
    """
    limit = default_limit_gb() if limit_gb is None else limit_gb
    n_images, n_columns = table.n_images, sum(band.folder.n_features for band in bands)
    split = table.frame["split"]
    n_training = int((split == "training").sum()) or round(n_images * (1 - test_fraction))
    kernels = [name for name in (regression.estimator, *estimators) if name.endswith("svr")]
    if kernels and kernel_gb(n_training) > limit:
        raise RunError(
            f"{who}: {kernels[0]} on {n_training:,} training images needs kernels of {kernel_gb(n_training):,.3g} GB "
            f'each, the limit is {limit:.3g} GB. Use estimator = "ridge", or fewer images'
            + (", or a higher --memory-limit." if limit_gb is not None else ".")
        )
    needed = in_memory_gb(n_images, n_columns)
    if needed <= limit:
        return False
    hindrance = (
        f"{kernels[0]} takes no other way"
        if kernels
        else "--reference takes no other way"
        if reference
        else 'rows = "crops" takes no other way'
        if regression.rows != "images"
        else f"reading it by blocks takes more images than {2 * n_columns:,}, twice its columns"
        if n_training < 2 * n_columns
        else ""
    )
    if hindrance:
        if limit_gb is None:
            return False  # what is free may grow, and the system decides
        raise RunError(
            f"{who}: {n_images:,} images x {n_columns:,} columns in memory take {needed:.3g} GB, the limit is "
            f"{limit:.3g} GB, and {hindrance}. Raise --memory-limit, or leave it out."
        )
    n_workers = workers or os.cpu_count() or 1
    n_candidates = max(1, len(regression.alpha)) * max(1, len(regression.band_weights)) * (len(bands) + 1)
    least = by_blocks_gb(n_images, n_columns, regression.cv.n_splits, n_candidates, n_workers)
    if least > limit and limit_gb is not None:
        raise RunError(
            f"{who}: {n_images:,} images x {n_columns:,} columns read by blocks take {least:.3g} GB besides the bank's "
            f"files, the limit is {limit:.3g} GB. Raise --memory-limit, or use fewer bands."
        )
    return True


def open_table(features: FeatureTable | MappedFeatures) -> Table:
    """Return the features as what the regressors read: a data frame, or a table of blocks."""
    return BlockTable(features.X) if isinstance(features, MappedFeatures) else features.X


def drawn_rows(X: Table, y: NDArray[np.float64]) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Draw the rows behind the shares of the bands; all of a table in memory."""
    if not isinstance(X, BlockTable):
        return X, y
    rows = some_rows(X, SHARE_ROWS)
    return X.frame(rows), y[rows]


def sizes_of_parts(X: Table, metrics: Mapping[str, Any]) -> dict[str, int]:
    """Say which checks of a run look at a part of the rows, and at how many.

    Parameters
    ----------
    X : DataFrame or BlockTable
        The rows behind the shares of the bands.
    metrics : mapping
        Of the parts that were judged, as in ``metrics.json``.
    """
    sizes: dict[str, int] = {}
    if isinstance(X, BlockTable):
        sizes |= {"band_share": min(SHARE_ROWS, len(X)), "duplicates": min(DUPLICATE_ROWS, len(X))}
    if any(isinstance(part, dict) and part.get("n", 0) > MANY_ROWS for part in metrics.values()):
        sizes["intervals"] = INTERVAL_ROWS
    return sizes


def describe_parts(sizes: Mapping[str, int]) -> list[str]:
    """Say the same in sentences, for the receipt and the report."""
    notes = []
    if "band_share" in sizes:
        notes.append(
            "The table was read by blocks from the bank's files. All scores are of all images, but two checks look at "
            f"drawn ones: the shares of the bands at {sizes['band_share']:,}, the search for duplicates at "
            f"{sizes['duplicates']:,}."
        )
    if "intervals" in sizes:
        notes.append(
            f"The intervals of parts with more than {MANY_ROWS:,} images are those of {sizes['intervals']:,} drawn "
            "ones, narrowed by the root of the ratio."
        )
    return notes
