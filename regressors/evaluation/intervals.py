"""Bootstrap intervals of every metric, all resamples at once, and conformal intervals of single predictions.

A resample is a vector of row counts, and every metric is a function of counts: sums for the errors and PLCC,
cumulative sums for the ranks of SRCC, one quadratic form for KRCC, one refit per resample for the logistic map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, kendalltau, norm
from scipy.stats import t as student
from sklearn.base import BaseEstimator, RegressorMixin

from regressors.checks import FloatArray, IntArray, check_choice, check_fraction, check_pair
from regressors.evaluation.metrics import METRICS, MIN_POINTS, ROUNDING, LogisticSearch

# Resamples in one go: bounds the memory at this many times n_rows numbers for a dozen intermediates.
_CHUNK = 128
# Rows of the sign matrix of KRCC in one go.
_SIGN_ROWS = 1024
# From here on scipy's n log n algorithm per resample beats the quadratic form.
_MAX_QUADRATIC_ROWS = 10_000
# A metric undefined in more than this share of the resamples has no interval.
MAX_UNDEFINED = 0.05
MIN_GROUPS = 10
"""With fewer groups, or images that stand alone, resamples say too little: there is no interval and no p."""


_Metric = Callable[[FloatArray], FloatArray]
"""From how often each row is drawn, shape (n, n_rows), to the n values of a metric."""
_Key = TypeVar("_Key")


def bootstrap_ci(
    y: ArrayLike,
    y_pred: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metrics: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = 0,
    max_rows: int | None = None,
) -> dict[str, list[float]]:
    """Bootstrap intervals of the metrics of one set of predictions, as other test images would move them.

    Images are drawn with replacement, or whole groups when ``groups`` is given [1]_.

    Parameters
    ----------
    y, y_pred : float arrays of shape (n_images,)
        MOS and predicted MOS, same scale, higher is better.
    groups : array of shape (n_images,), optional
        Group of each image; resamples then differ in their number of images. By default each stands alone.
    metrics : sequence of str, optional
        Names from `regressors.evaluation.metrics.METRICS`; all of them by default.
    n_resamples : int, default=1000
        Number of resamples, at least 2.
    confidence : float, default=0.95
        Share of the resamples inside the interval, in (0, 1).
    random_state : int or None, default=0
        Seed; the same seed gives the same interval.
    max_rows : int, optional
        With more images than this, about that many are drawn, by groups, their intervals narrowed by the root of the
        share of the groups [2]_ and laid around the metric of all. By default all images are resampled.

    Returns
    -------
    dict of str to [low, high]
        Per metric: percentiles of the resamples, taken farther out the fewer groups there are, where Student's
        quantile widened by the root of G / (G - 1) lies in a normal law [3]_. ``[nan, nan]`` with fewer than
        `MIN_GROUPS` groups, and when the metric is undefined in more than 5 % of the resamples.

    Raises
    ------
    ValueError
        If the vectors are not admissible, a metric is unknown, or ``confidence`` or ``n_resamples`` is out of range.

    References
    ----------
    .. [1] A. C. Davison and D. V. Hinkley, "Bootstrap methods and their application", 1997, section 3.8.
    .. [2] P. Bickel, F. Götze and W. van Zwet, "Resampling fewer than n observations: gains, losses, and remedies for
       losses", Statistica Sinica 7, 1997.
    .. [3] T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69, 2015 (the
       expanded percentile interval).
    """
    mos, predicted = check_pair("bootstrap_ci", y, y_pred)
    names = (
        list(METRICS)
        if metrics is None
        else [check_choice("bootstrap_ci", "metrics", m, METRICS) for m in metrics]
    )
    check_fraction("bootstrap_ci", "confidence", confidence)
    if n_resamples < 2:
        raise ValueError(f"bootstrap_ci: n_resamples must be at least 2, got {n_resamples!r}.")
    members = group_rows("bootstrap_ci", groups, len(mos))
    n_groups = int(members.max()) + 1
    if n_groups < MIN_GROUPS:
        return {name: [float("nan")] * 2 for name in names}
    if max_rows is not None and max_rows < len(mos):
        return _ci_of_drawn(mos, predicted, members, names, n_resamples, confidence, random_state, max_rows)
    prepared = {name: RESAMPLED_METRICS[name](mos, predicted) for name in names}
    values = resample(prepared, members, n_resamples, random_state)
    return {name: percentiles(values[name], confidence, n_groups) for name in names}


def _ci_of_drawn(
    mos: FloatArray,
    predicted: FloatArray,
    members: IntArray,
    names: Sequence[str],
    n_resamples: int,
    confidence: float,
    random_state: int | None,
    n_drawn: int,
) -> dict[str, list[float]]:
    """Resample some of the groups, at least a hundred if there are; narrow the intervals to those for all."""
    rng = np.random.default_rng(random_state)
    sizes = np.bincount(members)
    order = rng.permutation(len(sizes))
    n_taken = int(np.searchsorted(np.cumsum(sizes[order]), n_drawn)) + 1
    taken = order[: max(n_taken, 100)]
    drawn = np.flatnonzero(np.isin(members, taken))
    if len(drawn) > 2 * n_drawn:
        drawn = np.sort(rng.choice(drawn, n_drawn, replace=False))
    some = mos[drawn], predicted[drawn]
    intervals = bootstrap_ci(
        *some,
        groups=members[drawn],
        metrics=names,
        n_resamples=n_resamples,
        confidence=confidence,
        random_state=random_state,
    )
    ratio = float(np.sqrt(len(taken) / len(sizes)))
    narrowed = {}
    for name, ends in intervals.items():
        whole, part = METRICS[name](mos, predicted), METRICS[name](*some)
        narrowed[name] = [float(whole + ratio * (end - part)) for end in ends]
    return narrowed


def group_rows(who: str, groups: ArrayLike | None, n_rows: int) -> IntArray:
    """Return the group number of each row, shape (n_rows,); each row its own group without groups."""
    if groups is None:
        return np.arange(n_rows)
    labels = np.asarray(groups)
    if labels.shape != (n_rows,):
        raise ValueError(f"{who}: groups must have shape ({n_rows},), got {labels.shape}.")
    _, members = np.unique(labels, return_inverse=True)
    return members.astype(np.intp)


def draw_counts(rng: np.random.Generator, members: IntArray, n_resamples: int) -> Iterator[FloatArray]:
    """Draw groups with replacement: yield how often each row is drawn, shape (n_chunk, n_rows), in portions."""
    n_groups = int(members.max()) + 1
    for start in range(0, n_resamples, _CHUNK):
        n = min(_CHUNK, n_resamples - start)
        drawn = rng.integers(0, n_groups, size=(n, n_groups)) + n_groups * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups)
        yield counts[:, members].astype(np.float64)


def resample(
    metrics: Mapping[_Key, _Metric], members: IntArray, n_resamples: int, random_state: int | None
) -> dict[_Key, FloatArray]:
    """Compute metrics, functions of row counts, on the same resamples of groups: each of shape (n_resamples,)."""
    drawn: dict[_Key, list[FloatArray]] = {key: [] for key in metrics}
    for counts in draw_counts(np.random.default_rng(random_state), members, n_resamples):
        for key, metric in metrics.items():
            drawn[key].append(metric(counts))
    return {key: np.concatenate(values) for key, values in drawn.items()}


def percentiles(values: FloatArray, confidence: float, n_groups: int) -> list[float]:
    """Return [low, high] of resampled values; nan with few groups or many undefined values, see `bootstrap_ci`."""
    defined = values[np.isfinite(values)]
    if n_groups < MIN_GROUPS or len(defined) < (1 - MAX_UNDEFINED) * len(values):
        return [float("nan"), float("nan")]
    reach = np.sqrt(n_groups / (n_groups - 1)) * student.isf((1 - confidence) / 2, n_groups - 1)
    low, high = np.quantile(defined, [norm.sf(reach), norm.cdf(reach)])
    return [float(low), float(high)]


def two_sided_p(differences: FloatArray, n_groups: int) -> float:
    """Return the p at which the interval of `percentiles` just touches zero; nan below `MIN_GROUPS` groups."""
    known = differences[np.isfinite(differences)]
    if n_groups < MIN_GROUPS or not len(known):
        return float("nan")
    # The observed difference counts as one resample, so that none is beyond all doubt.
    share = (1 + min((known <= 0).sum(), (known >= 0).sum())) / (1 + len(known))
    reach = norm.isf(min(share, 0.5)) * np.sqrt((n_groups - 1) / n_groups)
    return float(min(1.0, 2 * student.sf(reach, n_groups - 1)))


# Each function below takes (y, y_pred) and returns a function from counts of shape (n, n_rows) to the n values.


def _resampled_mae(y: FloatArray, y_pred: FloatArray) -> _Metric:
    error = np.abs(y - y_pred)
    return lambda counts: counts @ error / counts.sum(axis=1)


def _resampled_rmse(y: FloatArray, y_pred: FloatArray) -> _Metric:
    error = (y - y_pred) ** 2
    return lambda counts: np.sqrt(counts @ error / counts.sum(axis=1))


def _resampled_plcc(y: FloatArray, y_pred: FloatArray) -> _Metric:
    a, b = _standardise(y), _standardise(y_pred)

    def metric(counts: FloatArray) -> FloatArray:
        n_rows = counts.sum(axis=1)
        mean_a, mean_b = counts @ a / n_rows, counts @ b / n_rows
        ss_a = counts @ a**2 / n_rows - mean_a**2
        ss_b = counts @ b**2 / n_rows - mean_b**2
        return _ratio(counts @ (a * b) / n_rows - mean_a * mean_b, ss_a, ss_b)

    return metric


def _resampled_srcc(y: FloatArray, y_pred: FloatArray) -> _Metric:
    ranks_y, ranks_pred = _resampled_ranks(y), _resampled_ranks(y_pred)

    def metric(counts: FloatArray) -> FloatArray:
        n_rows = counts.sum(axis=1)
        # Mid-ranks as shares of the rows, whose mean is exactly one half.
        a, b = ranks_y(counts) / n_rows[:, None] - 0.5, ranks_pred(counts) / n_rows[:, None] - 0.5
        weighted = counts * a
        cross = np.einsum("ij,ij->i", weighted, b)
        ss_a, ss_b = np.einsum("ij,ij->i", weighted, a), np.einsum("ij,ij,ij->i", counts, b, b)
        return _ratio(cross / n_rows, ss_a / n_rows, ss_b / n_rows)

    return metric


def _resampled_ranks(values: FloatArray) -> _Metric:
    order = np.argsort(values, kind="stable")
    _, inverse, starts = _tie_groups(values, order)

    def ranks(counts: FloatArray) -> FloatArray:
        mass = np.add.reduceat(counts[:, order], starts, axis=1)  # (n, n_distinct)
        return (np.cumsum(mass, axis=1) - 0.5 * mass)[:, inverse]

    return ranks


def _resampled_krcc(y: FloatArray, y_pred: FloatArray) -> _Metric:
    orders = [np.argsort(v, kind="stable") for v in (y, y_pred)]
    starts = [_tie_groups(v, order)[2] for v, order in zip((y, y_pred), orders, strict=True)]

    def untied(counts: FloatArray, which: int) -> FloatArray:
        mass = np.add.reduceat(counts[:, orders[which]], starts[which], axis=1)
        return counts.sum(axis=1) ** 2 - np.einsum("ij,ij->i", mass, mass)

    def metric(counts: FloatArray) -> FloatArray:
        concordance = np.zeros(len(counts))
        narrow = counts.astype(np.float32)
        for start in range(0, len(y), _SIGN_ROWS):
            rows = slice(start, start + _SIGN_ROWS)
            # Counts and signs are integers: the float32 product is exact below 2 ** 24 rows.
            partial = narrow @ signs[rows].astype(np.float32).T
            concordance += np.einsum("ij,ij->i", counts[:, rows], partial)
        return _ratio(concordance, untied(counts, 0), untied(counts, 1))

    def metric_of_many_rows(counts: FloatArray) -> FloatArray:
        repeats = counts.astype(np.intp)
        return np.array(
            [
                kendalltau(np.repeat(y, r), np.repeat(y_pred, r), method="asymptotic").statistic
                for r in repeats
            ]
        )

    if len(y) > _MAX_QUADRATIC_ROWS:
        return metric_of_many_rows
    signs = np.empty((len(y), len(y)), dtype=np.int8)  # 100 MB at the largest
    for start in range(0, len(y), _SIGN_ROWS):
        rows = slice(start, start + _SIGN_ROWS)
        signs[rows] = np.sign(y[rows, None] - y) * np.sign(y_pred[rows, None] - y_pred)
    return metric


def _resampled_plcc_logistic(y: FloatArray, y_pred: FloatArray) -> _Metric:
    if np.ptp(y) == 0 or np.ptp(y_pred) == 0:
        return lambda counts: np.full(len(counts), np.nan)
    search = LogisticSearch(y, y_pred, np.ones(len(y)))
    x = _standardise(y_pred)
    _, inverse = np.unique(np.column_stack([y, y_pred]), axis=0, return_inverse=True)
    point = inverse.ravel()  # numpy 2.0 alone gives it a second axis
    order = np.argsort(point, kind="stable")
    starts = np.searchsorted(point[order], np.arange(point.max() + 1))

    def metric(counts: FloatArray) -> FloatArray:
        n_points = np.count_nonzero(np.add.reduceat(counts[:, order], starts, axis=1), axis=1)
        n_rows = counts.sum(axis=1)
        spread = counts @ x**2 / n_rows - (counts @ x / n_rows) ** 2
        undefined = (spread <= ROUNDING) | (n_points < MIN_POINTS)
        return np.where(undefined, np.nan, np.sqrt(search.best_r2(counts)))

    return metric


def _resampled_otherwise(metric: Callable[..., float], y: FloatArray, y_pred: FloatArray) -> _Metric:
    """Compute a metric that has no function of its own here resample by resample."""
    return lambda counts: np.array([metric(y, y_pred, sample_weight=weights) for weights in counts])


_OWN = {
    "mae": _resampled_mae,
    "rmse": _resampled_rmse,
    "plcc": _resampled_plcc,
    "srcc": _resampled_srcc,
    "krcc": _resampled_krcc,
    "plcc_logistic": _resampled_plcc_logistic,
}

RESAMPLED_METRICS: Mapping[str, Callable[[FloatArray, FloatArray], _Metric]] = MappingProxyType(
    {name: _OWN.get(name, partial(_resampled_otherwise, metric)) for name, metric in METRICS.items()}
)
"""By name: takes (y, y_pred) and gives a function from row counts to the metric of each resample."""


def _standardise(values: FloatArray) -> FloatArray:
    centred = values - values.mean()
    largest = np.abs(centred).max()
    if largest <= ROUNDING * np.abs(values).max():
        return np.zeros_like(values)
    centred /= largest
    return centred / np.sqrt(np.mean(centred**2))


def _ratio(cross: FloatArray, ss_a: FloatArray, ss_b: FloatArray) -> FloatArray:
    """Correlation from its parts; nan where a variance is rounding."""
    defined = (ss_a > ROUNDING) & (ss_b > ROUNDING)
    product = np.where(defined, ss_a * ss_b, 1.0)
    return np.where(defined, np.clip(cross / np.sqrt(product), -1.0, 1.0), np.nan)


def _tie_groups(values: FloatArray, order: IntArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Return the sorted distinct values, each row's place among them, and where each begins in ``order``."""
    distinct, inverse = np.unique(values, return_inverse=True)
    starts = np.searchsorted(values[order], distinct)
    return distinct, inverse, starts


@dataclass(frozen=True)
class ConformalInterval:
    """A calibrated interval around any prediction.

    Attributes
    ----------
    confidence : float
        Nominal coverage.
    half_width : float
        MOS points to either side of the prediction.
    n_calibration : int
        Held-out predictions behind it.
    """

    confidence: float
    half_width: float
    n_calibration: int

    def around(self, y_pred: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the ends (low, high) of the interval of each prediction, not clipped to the MOS scale."""
        predicted = np.asarray(y_pred, dtype=np.float64)
        return predicted - self.half_width, predicted + self.half_width

    def chance_range(self, n_images: int, level: float = 0.95) -> tuple[float, float]:
        """Shares (low, high) between which the coverage of ``n_images`` lies with probability ``level``."""
        low, high = binom.interval(level, n_images, self.confidence)
        return float(low) / n_images, float(high) / n_images


def calibrate_interval(y: ArrayLike, held_out: ArrayLike, *, confidence: float = 0.9) -> ConformalInterval:
    """Calibrate an interval on predictions that did not see their rows, by MAPIE's `SplitConformalRegressor` [1]_.

    Parameters
    ----------
    y : float array of shape (n_rows,)
        MOS of the calibration rows.
    held_out : float array of shape (n_rows,)
        Their predictions, out of fold or on rows that took no part in the fit. Out of fold, the theorem does not cover
        the choice of hyper-parameters on the same folds: the coverage on sealed rows belongs beside it.
    confidence : float, default=0.9
        Nominal coverage in (0, 1).

    Raises
    ------
    ValueError
        If a vector is not admissible, or there are too few rows for the confidence, see `min_calibration_rows`.

    References
    ----------
    .. [1] J. Lei, M. G'Sell, A. Rinaldo, R. Tibshirani, L. Wasserman, "Distribution-free predictive inference for
       regression", Journal of the American Statistical Association 113, 2018.
    """
    who = "calibrate_interval"
    check_fraction(who, "confidence", confidence)
    mos, predicted = check_pair(who, y, held_out)
    needed = min_calibration_rows(confidence)
    if len(mos) < needed:
        raise ValueError(
            f"{who}: confidence={confidence:g} needs at least {needed} held-out rows, got {len(mos)}. Lower the "
            "confidence or bring more images."
        )
    from mapie.regression import SplitConformalRegressor

    regressor = SplitConformalRegressor(_Zero(), confidence_level=confidence, prefit=True)
    regressor.conformalize(np.zeros((len(mos), 1)), mos - predicted)
    _, ends = regressor.predict_interval(np.zeros((1, 1)))
    return ConformalInterval(float(confidence), float(ends[0, 1, 0]), len(mos))


def min_calibration_rows(confidence: float) -> int:
    """Return how many rows a calibration needs at least: more than 1 / (1 - confidence), 11 for 0.9 and 21 for 0.95."""
    return int(np.floor(1 / min(confidence, 1 - confidence) + 1e-9)) + 1


class _Zero(RegressorMixin, BaseEstimator):
    """Predicts zero for every row, so that the residuals of another model can be given as targets."""

    def __init__(self) -> None:
        self.fitted_ = True  # by which MAPIE tells

    def fit(self, X: FloatArray, y: FloatArray) -> _Zero:
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        return np.zeros(len(X))
