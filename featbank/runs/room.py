"""Whether a table is fitted in memory or by blocks, and what a large one is judged on; refuses what has no room."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.datasets import ImageTable
from featbank.errors import RunError
from featbank.recipes.reading import RegressionRequest
from featbank.runs.evaluate import INTERVAL_ROWS, MANY_ROWS
from featbank.runs.trust import DUPLICATE_ROWS
from featbank.table import Band, FeatureTable, MappedFeatures
from regressors.blocks import BlockTable, some_rows
from regressors.checks import Table
from regressors.solvers.memory import choose_out_of_core

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
    split = table.frame["split"]
    n_images = table.n_images
    try:
        return choose_out_of_core(
            n_images,
            int((split == "training").sum()) or round(n_images * (1 - test_fraction)),
            sum(band.folder.n_features for band in bands),
            estimators=(regression.estimator, *estimators),
            needs_memory="--reference"
            if reference
            else 'rows = "crops"'
            if regression.rows != "images"
            else "",
            n_folds=regression.cv.n_splits,
            n_candidates=max(1, len(regression.alpha))
            * max(1, len(regression.band_weights))
            * (len(bands) + 1),
            n_workers=workers or os.cpu_count() or 1,
            limit_gb=limit_gb,
        )
    except ValueError as error:
        raise RunError(f"{who}: {error}") from error


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
