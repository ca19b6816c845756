"""Compares predictors on the same rows, sums up scores over repeated splits, and says which band carries a score.

Two predictors judged on one set of images err together on the hard ones, so every resample of the images is given to
all predictors at once, and the differences are judged. The part of band b in the prediction of an image is its Shapley
value in the game whose coalition S predicts with the bands of S at the image's own values and all others at their
training means; for additive regressors that is the band's own term of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t as student
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.utils.validation import check_is_fitted

from regressors.bands import locate_bands
from regressors.checks import (
    Estimator,
    FloatArray,
    IntArray,
    Table,
    check_choice,
    check_fraction,
    check_pair,
    check_vector,
    check_weights,
)
from regressors.evaluation.intervals import (
    RESAMPLED_METRICS,
    group_rows,
    percentiles,
    resample,
    two_sided_p,
)
from regressors.evaluation.metrics import ERRORS
from regressors.folds import Fold

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
    """Compare every pair of predictors in every metric by the paired bootstrap [1]_.

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
        two-sided, at which the interval just touches zero; ``p_holm``, corrected over the pairs of the metric [2]_;
        ``better``, the name of the better one where ``p_holm`` is below 1 - confidence, else empty. Values are nan
        where a predictor has no such metric, and interval and p with fewer than ten groups.

    Raises
    ------
    ValueError
        If there are fewer than two predictors, a vector is not admissible, or an option is out of range.

    References
    ----------
    .. [1] B. Efron and R. Tibshirani, "An introduction to the bootstrap", 1993, chapters 13 and 16.
    .. [2] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6, 1979.
    """
    who = "compare_paired"
    if len(predictions) < 2:
        raise ValueError(f"{who}: predictions must hold at least 2 predictors, got {len(predictions)}.")
    check_fraction(who, "confidence", confidence)
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
    resampled = resample(functions, members, n_resamples, random_state)
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
        In [0, 1], else a ValueError; nan stands for a comparison that could not be made, and does not count.

    Returns
    -------
    float64 array of shape (n_comparisons,)
        Adjusted values, never below the given ones; nan stays nan.

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
        The subset, such as the exclusive images; a ValueError if it has fewer than two.
    metric : str, default="srcc"
        Name from `regressors.evaluation.metrics.METRICS`.
    groups, n_resamples, confidence, random_state
        As in `compare_paired`; a resample of all images holds a resample of the subset.

    Returns
    -------
    dict
        ``whole``, ``subset``, ``drop`` (whole minus subset), ``low``, ``high``; nan where undefined, the ends also
        where the subset has fewer than ten groups.
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
    members = group_rows(who, groups, len(mos))

    def drop(counts: FloatArray) -> FloatArray:
        # A resample may miss a tiny subset altogether: undefined, and left out of the interval.
        usable = counts[:, inside].sum(axis=1) >= 2
        found = np.full(len(counts), np.nan)
        found[usable] = whole(counts[usable]) - part(counts[usable][:, inside])
        return found

    drops = resample({"drop": drop}, members, n_resamples, random_state)["drop"]
    low, high = percentiles(drops, confidence, len(np.unique(members[inside])))
    return {"whole": values[0], "subset": values[1], "drop": values[0] - values[1], "low": low, "high": high}


def closest_shares(y: ArrayLike, predictions: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Share of the images on which each predictor comes closest to the MOS; ties are divided."""
    errors = np.column_stack(
        [np.abs(np.subtract(*check_pair("closest_shares", y, values))) for values in predictions.values()]
    )
    is_closest = errors == errors.min(axis=1, keepdims=True)
    shares = (is_closest / is_closest.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(predictions, shares.tolist(), strict=True))


def draw_splits(
    n_rows: int,
    groups: ArrayLike | None = None,
    *,
    n_splits: int = 100,
    test_size: float = 0.2,
    random_state: int = 0,
) -> list[Fold]:
    """Draw independent random splits by scikit-learn's `GroupShuffleSplit` or `ShuffleSplit`, as sorted row positions.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    groups : array of shape (n_rows,), optional
        Whole groups are drawn when given; otherwise rows, as most published protocols do.
    n_splits, test_size, random_state
        How many; the share of the rows, or of the groups, that test; the seed.

    Raises
    ------
    ValueError
        If a number is out of range, or there are fewer than two rows or groups.
    """
    who = "draw_splits"
    if n_splits < 1:
        raise ValueError(f"{who}: n_splits must be at least 1, got {n_splits!r}.")
    check_fraction(who, "test_size", test_size)
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
    """Give the spread of each metric over repetitions.

    One row of ``scores`` for each repetition, whose columns ``metrics`` are summarised, apart by the values of the
    column ``by`` if one is named. Returns columns ``metric, n, undefined, median, mean, std, low, q1, q3, high``;
    ``low`` and ``high`` hold the middle 95 % of the repetitions, ``std`` has divisor n - 1 and is nan for one
    repetition.
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


# Up to this many bands all orders of them are gone through; above, some are drawn.
MAX_EXACT_BANDS = 6
_N_ORDERS = 32


def compare_by_split(scores: pd.DataFrame, others: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Compare two methods that were fitted and judged on the same splits.

    Splits share images, so their differences are no independent draws: the variance of their mean is enlarged by the
    ratio of test to training images [1]_.

    Parameters
    ----------
    scores, others : DataFrame of n_splits rows
        In the same order, with ``n_training``, ``n_test`` and one column for each metric; nan where undefined.
    metrics : sequence of str

    Returns
    -------
    DataFrame
        One row for each metric: ``metric``, ``n`` (splits with both scores), ``median`` and ``mean`` of ``scores``
        minus ``others``, ``wins`` (share of splits on which ``scores`` are better, ties half), ``p`` (nan below two
        splits or without any difference).

    References
    ----------
    .. [1] C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
    """
    rows = []
    for metric in metrics:
        known = (scores[metric].notna() & others[metric].notna()).to_numpy()
        difference = (scores[metric] - others[metric]).to_numpy(dtype=np.float64)[known]
        n = len(difference)
        gain = -difference if metric in ERRORS else difference
        p = float("nan")
        if n > 1 and difference.std() > 0:
            ratio = float((scores["n_test"] / scores["n_training"]).to_numpy()[known].mean())
            t = difference.mean() / (difference.std(ddof=1) * np.sqrt(1 / n + ratio))
            p = float(2 * student.sf(abs(t), n - 1))
        wins = float(np.mean(gain > 0) + np.mean(gain == 0) / 2) if n else float("nan")
        middle = (float(np.median(difference)), float(difference.mean())) if n else (float("nan"),) * 2
        rows.append({"metric": metric, "n": n, "median": middle[0], "mean": middle[1], "wins": wins, "p": p})
    return pd.DataFrame(rows)


def band_parts(
    model: Estimator,
    X: Table,
    *,
    reference: ArrayLike | None = None,
    is_additive: bool | None = None,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Split predictions into one part per band.

    Parameters
    ----------
    model : fitted regressor
        A `BandEnsemble`, or any regressor whose ``predict`` takes ``X``.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table with string columns "band:0000"; other tables are one band.
    reference : float array of shape (n_features,), optional
        Values that stand for "band absent"; by default the model's ``column_means_``, or the means of ``X``.
    is_additive : bool, optional
        Whether the prediction is known to be a sum of one term per band, which needs n_bands + 1 predictions
        instead of 2 ** n_bands. By default the model's ``is_additive_``, or False.
    random_state : int or None, default=0
        Seed of the orders: with more than eight bands and no additivity, Shapley values are averaged over 32 random
        orders and their reverses.

    Returns
    -------
    data frame of float64 of shape (n_rows, n_bands)
        MOS points. Each row sums to the prediction of the row minus the prediction at the reference.

    Raises
    ------
    ValueError
        If ``reference`` has another length than the table has columns.

    References
    ----------
    .. [1] S. Lundberg and S.-I. Lee, "A unified approach to interpreting model predictions", NeurIPS 2017,
       equation 8 and section 4 (features absent at their means).
    """
    check_is_fitted(model)
    game = _Game(model, X, reference)
    if is_additive is None:
        is_additive = bool(getattr(model, "is_additive_", False))
    if is_additive or len(game.bands) == 1:
        values = (
            np.column_stack([game.predict(frozenset([band])) for band in game.bands]) - game.empty[:, None]
        )
    else:
        values = _shapley(game, np.random.default_rng(random_state))
    return pd.DataFrame(
        values, columns=list(game.bands), index=X.index if isinstance(X, pd.DataFrame) else None
    )


def band_shares(
    model: Estimator,
    X: Table,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    is_additive: bool | None = None,
    random_state: int | None = 0,
) -> dict[str, float]:
    """Share of each band in the explained variance of MOS (product measure [1]_).

    With parts f_b, prediction f and MOS y, all centred over the rows, share_b = sum(f_b * (2 y - f)) / sum(y ** 2),
    so that the shares add up to ``1 - var(y - f) / var(y)``; a negative share says that a band makes the prediction
    worse.

    Parameters
    ----------
    model, X, reference, is_additive, random_state
        As in `band_parts`.
    y : float array of shape (n_rows,)
        MOS, not constant.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Raises
    ------
    ValueError
        If ``y`` is constant or has another length than the table.

    References
    ----------
    .. [1] J. W. Pratt, "Dividing the indivisible: using simple symmetry to partition variance explained", 1987.
    """
    who = "band_shares"
    mos = check_vector(who, "y", y, min_rows=2)
    parts = band_parts(model, X, reference=reference, is_additive=is_additive, random_state=random_state)
    if len(parts) != len(mos):
        raise ValueError(f"{who}: X and y must have one length, got {len(parts)} and {len(mos)}.")
    weights = np.ones(len(mos)) if sample_weight is None else check_weights(who, sample_weight, len(mos))
    centred = mos - np.average(mos, weights=weights)
    total = float(np.sum(weights * centred**2))
    if total == 0:
        raise ValueError(f"{who}: y must vary, got {len(mos)} equal values. There is no variance to share.")
    values = parts.to_numpy()
    values = values - np.average(values, axis=0, weights=weights)
    shares = (weights * (2 * centred - values.sum(axis=1))) @ values / total
    return {band: float(share) for band, share in zip(parts.columns, shares, strict=True)}


class _Game:
    """Predictions by coalition of bands, each computed once."""

    def __init__(self, model: Estimator, X: Table, reference: ArrayLike | None) -> None:
        self._model, self._X = model, X
        values = np.asarray(X, dtype=np.float64)
        names = list(X.columns) if isinstance(X, pd.DataFrame) else None
        self.bands: Mapping[str, IntArray] = locate_bands(names, values.shape[1])
        if reference is None:
            reference = getattr(model, "column_means_", values.mean(axis=0))
        self._reference = check_vector("band_parts", "reference", reference)
        if len(self._reference) != values.shape[1]:
            raise ValueError(
                f"band_parts: reference must have one value per column, got {len(self._reference)} for "
                f"{values.shape[1]} columns."
            )
        self._values = values
        self._known: dict[frozenset[str], FloatArray] = {}
        self.empty = self.predict(frozenset())

    def predict(self, present: frozenset[str]) -> FloatArray:
        if present not in self._known:
            absent = [columns for band, columns in self.bands.items() if band not in present]
            # No image has any band in the empty coalition: one row stands for all.
            rows = self._values if present else self._values[:1]
            table = rows.copy()
            for columns in absent:
                table[:, columns] = self._reference[columns]
            if isinstance(self._X, pd.DataFrame):
                table = pd.DataFrame(table, columns=self._X.columns, index=self._X.index[: len(table)])
            predicted = np.asarray(self._model.predict(table), dtype=np.float64)
            self._known[present] = np.broadcast_to(predicted, len(self._values))
        return self._known[present]


def _shapley(game: _Game, rng: np.random.Generator) -> FloatArray:
    """Average what each band adds, over all orders of the bands, or over random ones and their reverses."""
    n_bands = len(game.bands)
    if n_bands <= MAX_EXACT_BANDS:
        orders = list(permutations(range(n_bands)))
    else:
        drawn = [tuple(rng.permutation(n_bands).tolist()) for _ in range(_N_ORDERS)]
        orders = [way for order in drawn for way in (order, order[::-1])]
    bands, values = list(game.bands), np.zeros((len(game.empty), n_bands))
    for order in orders:
        present: frozenset[str] = frozenset()
        for k in order:
            values[:, k] += game.predict(present | {bands[k]}) - game.predict(present)
            present |= {bands[k]}
    return values / len(orders)
