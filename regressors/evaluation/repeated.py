"""Repeated random splits, and what a set of scores over them comes to.

One split says little on a few hundred images: the median over many says what a method does, the deviation how far one
split may be from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

from regressors.folds import Fold


def draw_splits(
    n_rows: int,
    groups: ArrayLike | None = None,
    *,
    n_splits: int = 100,
    test_size: float = 0.2,
    random_state: int = 0,
) -> list[Fold]:
    """Draw independent random splits into training and test rows.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    groups : array of shape (n_rows,), optional
        Whole groups are drawn when given; otherwise rows, as most published protocols do.
    n_splits : int, default=100
        How many.
    test_size : float, default=0.2
        Share of the rows, or of the groups, that test.
    random_state : int, default=0
        Seed.

    Returns
    -------
    list of (train, test)
        Sorted row positions. Scikit-learn's `GroupShuffleSplit` and `ShuffleSplit` draw them.

    Raises
    ------
    ValueError
        If a number is out of range, or there are fewer than two rows or groups.
    """
    who = "draw_splits"
    if n_splits < 1:
        raise ValueError(f"{who}: n_splits must be at least 1, got {n_splits!r}.")
    if not 0 < test_size < 1:
        raise ValueError(
            f"{who}: test_size must lie between 0 and 1, got {test_size!r}. Use 0.2 for a fifth."
        )
    labels = None if groups is None else np.asarray(groups)
    if labels is not None and labels.shape != (n_rows,):
        raise ValueError(f"{who}: groups must have shape ({n_rows},), got {labels.shape}.")
    n_units = n_rows if labels is None else len(np.unique(labels))
    if n_units < 2:
        raise ValueError(f"{who}: needs at least 2 {'rows' if labels is None else 'groups'}, got {n_units}.")
    kind = ShuffleSplit if labels is None else GroupShuffleSplit
    splitter = kind(n_splits=n_splits, test_size=test_size, random_state=random_state)
    return [
        (np.sort(train).astype(np.intp), np.sort(test).astype(np.intp))
        for train, test in splitter.split(np.zeros((n_rows, 1)), groups=labels)
    ]


def summarise_scores(scores: pd.DataFrame, metrics: Sequence[str], *, by: str | None = None) -> pd.DataFrame:
    """Give median, mean, deviation, quartiles and range of each metric over repetitions.

    Parameters
    ----------
    scores : DataFrame
        One row for each repetition, one column for each metric; nan where a metric is undefined.
    metrics : sequence of str
        Columns to summarise.
    by : str, optional
        Column whose values are summarised apart.

    Returns
    -------
    DataFrame
        Columns ``metric, n, undefined, median, mean, std, low, q1, q3, high`` and, before them, ``by``. ``low`` and
        ``high`` hold the middle 95 % of the repetitions; ``std`` has divisor n - 1 and is nan for one repetition.
    """
    parts = [(None, scores)] if by is None else list(scores.groupby(by, sort=True))
    rows = []
    for value, part in parts:
        for metric in metrics:
            known = part[metric].dropna().to_numpy(dtype=np.float64)
            quantiles = (
                np.quantile(known, [0.025, 0.25, 0.5, 0.75, 0.975]) if len(known) else np.full(5, np.nan)
            )
            rows.append(
                ({} if by is None else {by: value})
                | {
                    "metric": metric,
                    "n": len(known),
                    "undefined": len(part) - len(known),
                    "median": quantiles[2],
                    "mean": known.mean() if len(known) else np.nan,
                    "std": known.std(ddof=1) if len(known) > 1 else np.nan,
                    "low": quantiles[0],
                    "q1": quantiles[1],
                    "q3": quantiles[3],
                    "high": quantiles[4],
                }
            )
    return pd.DataFrame(rows)
