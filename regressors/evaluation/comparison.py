"""Compares predictors on the same rows: paired bootstrap differences, corrected for how many were looked at.

Two predictors judged on one set of images err together on the hard ones, so their intervals overlap long before
their difference is chance. Here every resample of the images is given to all predictors at once, and the
differences are what is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from regressors.checks import FloatArray, check_choice, check_pair, check_vector
from regressors.evaluation.bootstrap import (
    RESAMPLED_METRICS,
    draw_counts,
    group_rows,
    percentiles,
    two_sided_p,
)

ERRORS: Final = ("mae", "rmse")
"""Metrics where lower is better."""

DEFAULT_METRICS: Final = ("srcc", "plcc", "krcc", "mae", "rmse")


def compare_paired(
    y: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    groups: ArrayLike | None = None,
    n_resamples: int = 5000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Compare every pair of predictors in every metric by the paired bootstrap.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS.
    predictions : mapping of str to float array of shape (n_images,)
        Predicted MOS of at least two predictors, on the same images in the same order.
    metrics : sequence of str
        Names from `regressors.evaluation.metrics.METRICS`.
    groups : array of shape (n_images,), optional
        Whole groups are drawn when given, for images of one uploader are not independent.
    n_resamples : int, default=5000
        Resamples of the images; they bound the smallest p.
    confidence : float, default=0.95
        Of the intervals, in (0, 1).
    random_state : int or None, default=0
        Seed.

    Returns
    -------
    DataFrame
        One row for each metric and pair, in the order given: ``metric, first, second, n``; ``first_value,
        second_value``, and ``difference``, first minus second; ``low, high``, its percentile interval; ``p``,
        two-sided; ``p_holm``, corrected over the pairs of the metric; ``better``, the name of the better one where
        ``p_holm`` is below 1 - confidence, else empty. Values are nan where a predictor has no such metric (a
        constant has no correlation).

    Raises
    ------
    ValueError
        If there are fewer than two predictors, a vector is not admissible, or an option is out of range.

    Notes
    -----
    The interval of confidence 1 - p, made as in `regressors.evaluation.bootstrap.bootstrap_ci`, just touches zero.
    Under no difference p is uniform, which the tests show on noise, by groups and without. With fewer than ten groups
    there is neither. The intervals are of single pairs and not corrected.

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 16.
    .. [2] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6, 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.evaluation.comparison import compare_paired
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=300)
    >>> good, poor = y + rng.normal(size=300), y + 3 * rng.normal(size=300)
    >>> row = compare_paired(y, {"good": good, "poor": poor}, metrics=["srcc"]).iloc[0]
    >>> str(row["better"])
    'good'
    """
    who = "compare_paired"
    if len(predictions) < 2:
        raise ValueError(f"{who}: predictions must hold at least 2 predictors, got {len(predictions)}.")
    if not 0 < confidence < 1:
        raise ValueError(
            f"{who}: confidence must lie between 0 and 1, got {confidence!r}. Use 0.95 for 95 %."
        )
    if n_resamples < 2:
        raise ValueError(f"{who}: n_resamples must be at least 2, got {n_resamples!r}.")
    names = [check_choice(who, "metrics", name, RESAMPLED_METRICS) for name in metrics]
    pairs = {label: check_pair(f"{who}: {label}", y, values) for label, values in predictions.items()}
    members = group_rows(who, groups, len(next(iter(pairs.values()))[0]))
    n_groups = int(members.max()) + 1
    functions = {
        (metric, label): RESAMPLED_METRICS[metric](mos, predicted)
        for metric in names
        for label, (mos, predicted) in pairs.items()
    }
    once = np.ones((1, len(members)))
    observed = {key: float(function(once)[0]) for key, function in functions.items()}
    drawn: dict[tuple[str, str], list[FloatArray]] = {key: [] for key in functions}
    for counts in draw_counts(np.random.default_rng(random_state), members, n_resamples):
        for key, function in functions.items():
            drawn[key].append(function(counts))
    resampled = {key: np.concatenate(values) for key, values in drawn.items()}
    tables = []
    for metric in names:
        rows = []
        for first, second in combinations(pairs, 2):
            differences = resampled[metric, first] - resampled[metric, second]
            values = observed[metric, first], observed[metric, second]
            low, high = percentiles(differences, confidence, n_groups)
            rows.append(
                {
                    "metric": metric,
                    "first": first,
                    "second": second,
                    "n": len(members),
                    "first_value": values[0],
                    "second_value": values[1],
                    "difference": values[0] - values[1],
                    "low": low,
                    "high": high,
                    "p": two_sided_p(differences, n_groups) if np.isfinite([*values, low]).all() else np.nan,
                }
            )
        table = pd.DataFrame(rows)
        table["p_holm"] = holm(table["p"].to_numpy())
        sign = -1.0 if metric in ERRORS else 1.0
        is_sure = (table["p_holm"] < 1 - confidence).to_numpy()
        leader = np.where(sign * table["difference"] > 0, table["first"], table["second"])
        table["better"] = np.where(is_sure, leader, "")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def holm(p: ArrayLike) -> FloatArray:
    """Correct p values for their number, so that the chance of any false claim stays below the level.

    Parameters
    ----------
    p : float array of shape (n_comparisons,)
        In [0, 1]; nan stands for a comparison that could not be made, and does not count.

    Returns
    -------
    float64 array of shape (n_comparisons,)
        Adjusted values, never below the given ones; nan stays nan.

    Raises
    ------
    ValueError
        If a value lies outside [0, 1].

    References
    ----------
    .. [1] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6, 1979.

    Examples
    --------
    >>> from regressors.evaluation.comparison import holm
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError(f"holm: p must lie in [0, 1], got {values!r:.120}.")
    order = known[np.argsort(values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted


def subset_drop(
    y: ArrayLike,
    y_pred: ArrayLike,
    is_subset: ArrayLike,
    *,
    metric: str = "srcc",
    groups: ArrayLike | None = None,
    n_resamples: int = 5000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, float]:
    """Say how much a metric falls from all images to a subset of them, with a bootstrap interval.

    Parameters
    ----------
    y, y_pred : float array of shape (n_images,)
        MOS and predicted MOS of all images.
    is_subset : bool array of shape (n_images,)
        The subset, such as the exclusive images.
    metric : str, default="srcc"
        Name from `regressors.evaluation.metrics.METRICS`.
    groups : array of shape (n_images,), optional
        Whole groups are drawn when given.
    n_resamples, confidence, random_state
        As in `compare_paired`; a resample of all images holds a resample of the subset.

    Returns
    -------
    dict
        ``whole``, ``subset``, ``drop`` (whole minus subset), ``low``, ``high``; nan where undefined, the ends also
        where the subset has fewer than ten groups.

    Raises
    ------
    ValueError
        If a vector is not admissible, or the subset has fewer than two images.
    """
    who = "subset_drop"
    check_choice(who, "metric", metric, RESAMPLED_METRICS)
    mos, predicted = check_pair(who, y, y_pred)
    inside = check_vector(who, "is_subset", is_subset) > 0
    if len(inside) != len(mos) or inside.sum() < 2:
        raise ValueError(
            f"{who}: is_subset must mark at least 2 of the {len(mos)} images, got {int(inside.sum())} "
            f"in {len(inside)} marks."
        )
    whole, part = (
        RESAMPLED_METRICS[metric](mos, predicted),
        RESAMPLED_METRICS[metric](mos[inside], predicted[inside]),
    )
    once = np.ones((1, len(mos)))
    values = float(whole(once)[0]), float(part(once[:, inside])[0])
    drops = []
    members = group_rows(who, groups, len(mos))
    for counts in draw_counts(np.random.default_rng(random_state), members, n_resamples):
        # A resample may miss a tiny subset altogether: undefined, and dropped below.
        held = counts[:, inside]
        usable = held.sum(axis=1) >= 2
        drop = np.full(len(counts), np.nan)
        drop[usable] = whole(counts[usable]) - part(held[usable])
        drops.append(drop)
    low, high = percentiles(np.concatenate(drops), confidence, len(np.unique(members[inside])))
    return {"whole": values[0], "subset": values[1], "drop": values[0] - values[1], "low": low, "high": high}


def closest_shares(y: ArrayLike, predictions: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Share of the images on which each predictor comes closest to the MOS.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS.
    predictions : mapping of str to float array of shape (n_images,)

    Returns
    -------
    dict of str to float
        Sums to one; images on which several come equally close are divided among them.
    """
    errors = np.column_stack(
        [np.abs(np.subtract(*check_pair("closest_shares", y, values))) for values in predictions.values()]
    )
    is_closest = errors == errors.min(axis=1, keepdims=True)
    shares = (is_closest / is_closest.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(predictions, shares.tolist(), strict=True))
