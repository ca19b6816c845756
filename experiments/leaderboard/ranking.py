"""The challenge's main score: the mean of a team's ranks in five metrics; the lowest wins."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from experiments.leaderboard.published import METRIC_COLUMNS

ERRORS: Final = ("mae", "rmse")
"""Metrics where lower is better."""

PODIUM: Final = ("winner", "first runner-up", "second runner-up")


def rank_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank every row in every metric; the best has rank 1.

    Parameters
    ----------
    scores : DataFrame
        `METRIC_COLUMNS` as numbers, one row for each participant; undefined values are nan.

    Returns
    -------
    DataFrame of int
        Same index. Equal values share the better rank, an undefined value ranks last: a constant
        prediction, which has no correlation, cannot profit from it.
    """
    ranks = {}
    for name in METRIC_COLUMNS:
        ranks[name] = (
            scores[name].rank(method="min", ascending=name in ERRORS, na_option="bottom").astype(np.int64)
        )
    return pd.DataFrame(ranks, index=scores.index)


def main_scores(scores: pd.DataFrame) -> pd.Series:
    """Compute the main score of every row: the mean of its five ranks among all rows.

    Parameters
    ----------
    scores : DataFrame
        As in `rank_metrics`.

    Returns
    -------
    Series of float, at least 1
        Same index; the lowest wins.

    References
    ----------
    .. [1] V. Hosu et al., "AIM 2024 Challenge on UHD Blind Photo Quality Assessment", section 2.1, the
       equation of the main score.
    """
    return rank_metrics(scores).sum(axis=1) / len(METRIC_COLUMNS)
