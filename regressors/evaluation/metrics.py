"""Agreement between MOS and predicted quality: correlations, errors, the logistic map, and scikit-learn scorers.

Every function takes MOS first and prediction second, both higher is better, and optional sample weights: a
row of weight two counts exactly as the row written twice, a row of weight zero as a row removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.stats import kendalltau, rankdata
from sklearn.metrics import make_scorer, r2_score

from regressors.checks import (
    FloatArray,
    Scorer,
    check_choice,
    check_pair,
    check_vector,
    check_weights,
)

MIN_POINTS = 5
"""Four parameters pass through any four points; below five different ones a fit says nothing."""

LARGE_ROWS = 5_000
"""With more rows the box is searched on half as many drawn ones, and only the best map is refined on all."""

# The box. The centre may lie half a range outside the data, for relations that only bend one way. The width
# runs from a tenth of the standard deviation of x (a narrower map is a cliff between two images: on 59 videos
# the unbounded optimum sets one of them apart and gains 0.1 of PLCC) to a straight line (over three
# deviations, tanh(3 / 200) differs from its argument by less than 1e-4 of it).
CENTRE_MARGIN = 0.5
_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0, 100.0)
_N_CENTRES = 49
_FLAT = 1e-6  # a map whose deviation over the rows is less is constant there: its shape would be rounding
_N_STARTS = 4


class Logistic4(NamedTuple):
    """The logistic map of the Video Quality Experts Group, ``f(x) = b2 + (b1 - b2) / (1 + exp(-(x - b3) / b4))``.

    Attributes
    ----------
    upper, lower : float
        b1 and b2, the values far to the right and to the left, in MOS points; lower is above upper when it decreases.
    centre, width : float
        b3, where the map is half-way, and b4 > 0, in units of the prediction.
    """

    upper: float
    lower: float
    centre: float
    width: float


def apply_logistic4(parameters: Logistic4, y_pred: ArrayLike) -> FloatArray:
    """Map predictions to the MOS scale.

    Parameters
    ----------
    parameters : Logistic4
        What `fit_logistic4` returned.
    y_pred : float array of shape (n_images,)
        Predicted quality, finite, on the scale the map was fitted on.
    """
    x = check_vector("apply_logistic4", "y_pred", y_pred)
    # tanh instead of exp: no overflow far to the left.
    rise = 0.5 + 0.5 * np.tanh(0.5 * (x - parameters.centre) / parameters.width)
    return parameters.lower + (parameters.upper - parameters.lower) * rise


def fit_logistic4(
    y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> Logistic4 | None:
    """Fit the four-parameter logistic map [1]_ from prediction to MOS by least squares.

    For a given centre and width the other two follow from a regression, so that two numbers are searched, over a
    compact box: the centre at most half a range outside the predictions, the width between 0.1 and 100 of their
    standard deviations. Starts are the best of 49 centres for each of 8 widths; damped Gauss-Newton steps refine them
    [2]_ and the best is kept. Of more than 5,000 rows, 2,500 drawn ones find the best, which all rows refine.

    Parameters
    ----------
    y, y_pred : float arrays of shape (n_images,)
        MOS, and predicted quality on any scale; predictions that rank backwards get a decreasing map.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    Logistic4, or None
        None when no map exists: fewer than five different pairs of MOS and prediction, or a constant argument.

    Raises
    ------
    ValueError
        If the lengths differ or a value is not finite.

    References
    ----------
    .. [1] Video Quality Experts Group, "Final report on the validation of objective models of video quality
       assessment", 2000, equation for the logistic mapping of objective scores.
    .. [2] G. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares
       problems whose variables separate", SIAM J. Numer. Anal. 10, 1973.
    """
    mos, predicted = check_pair("fit_logistic4", y, y_pred)
    weights = np.ones(len(mos))
    if sample_weight is not None:
        weights = check_weights("fit_logistic4", sample_weight, len(mos))
        mos, predicted, weights = mos[weights > 0], predicted[weights > 0], weights[weights > 0]
    if len(mos) == 0 or np.ptp(mos) == 0 or np.ptp(predicted) == 0:
        return None
    if len(np.unique(np.column_stack([mos, predicted]), axis=0)) < MIN_POINTS:
        return None
    search = LogisticSearch(mos, predicted, weights)
    centre, width = search.fit()
    rise = 0.5 * np.tanh(0.5 * (search.x - centre) / width)
    mean_rise, mean_y = np.average(rise, weights=weights), np.average(mos, weights=weights)
    centred = rise - mean_rise
    slope = np.sum(weights * centred * (mos - mean_y)) / np.sum(weights * centred**2)
    lower = mean_y - slope * (0.5 + mean_rise)
    return Logistic4(
        upper=float(lower + slope),
        lower=float(lower),
        centre=float(search.shift + search.scale * centre),
        width=float(search.scale * width),
    )


class LogisticSearch:
    """Least-squares search of the map's centre and width in a box; the linear parameters follow from them.

    Both axes are shifted and scaled by the whole set first, ``x = (y_pred - shift) / scale``; weights are positive.
    """

    def __init__(self, y: FloatArray, x: FloatArray, weights: FloatArray) -> None:
        self.shift = float(np.average(x, weights=weights))
        self.scale = float(np.abs(x - self.shift).max())
        # Two steps, so that squares of tiny numbers do not vanish.
        self.scale *= float(np.sqrt(np.average(((x - self.shift) / self.scale) ** 2, weights=weights)))
        self.x = (x - self.shift) / self.scale
        self._weights = weights / weights.sum()
        centred = y - y.mean()
        centred /= np.abs(centred).max()
        self._y = centred - self._weights @ centred
        margin = CENTRE_MARGIN * float(np.ptp(self.x))
        self._centres = np.linspace(float(self.x.min()) - margin, float(self.x.max()) + margin, _N_CENTRES)

    def fit(self) -> tuple[float, float]:
        """Find the best centre and width, in units of ``x``, from the best points of the grid, or those of a sample."""
        box = [(self._centres[0], self._centres[-1]), (np.log(_WIDTHS[0]), np.log(_WIDTHS[-1]))]
        options = {"ftol": 1e-15, "gtol": 1e-12}
        found = [
            minimize(self._unexplained, start, jac=True, bounds=box, options=options)
            for start in (self._starts_of_sample() if len(self.x) > LARGE_ROWS else self._starts_of_grid())
        ]
        centre, log_width = min(found, key=lambda result: result.fun).x
        return float(centre), float(np.exp(log_width))

    def _starts_of_grid(self) -> list[tuple[float, float]]:
        r2 = self._grid_r2(self._weights[np.newaxis], self._grid, self._y)[0]
        if not r2.any():  # nearly all rows are alike
            return [(0.0, 0.0)]
        best = np.argsort(-r2.max(axis=0), kind="stable")[:_N_STARTS]
        return [(self._centres[np.argmax(r2[:, k])], np.log(_WIDTHS[k])) for k in best]

    def _starts_of_sample(self) -> list[tuple[float, float]]:
        rows = np.random.default_rng(0).choice(len(self.x), LARGE_ROWS // 2, replace=False)
        x, y, weights = self.x[rows], self._y[rows], self._weights[rows]
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return self._starts_of_grid()
        sample = LogisticSearch(y, x, weights)
        centre, width = sample.fit()
        return [(sample.shift + sample.scale * centre, float(np.log(sample.scale * width)))]

    def best_r2(self, weights: FloatArray) -> FloatArray:
        """Return the squared correlation of the grid's best map for weights of shape (n_weightings, n_rows)."""
        return self._grid_r2(weights, self._grid, self._y).max(axis=(1, 2))

    @cached_property
    def _grid(self) -> FloatArray:
        """The rise of every map of the grid, shape (n_rows, n_centres * n_widths)."""
        rise = np.tanh(0.5 * (self.x[:, None, None] - self._centres[:, None]) / np.array(_WIDTHS))
        rise = rise.reshape(len(self.x), -1)
        # Centred and scaled first: the moments of a weighting then lose no digits for flat maps.
        rise -= rise.mean(axis=0)
        deviation = np.sqrt(np.mean(rise**2, axis=0))
        rise *= np.where(deviation > _FLAT, 1 / np.maximum(deviation, _FLAT), 0.0)
        return rise

    def _grid_r2(self, weights: FloatArray, rise: FloatArray, y: FloatArray) -> FloatArray:
        """Return squared correlations with MOS, shape (n_weightings, n_centres, n_widths); 0 where undefined."""
        weights = weights / weights.sum(axis=1, keepdims=True)
        mean, mean_y = weights @ rise, weights @ y
        variance, ss_y = weights @ rise**2 - mean**2, weights @ y**2 - mean_y**2
        covariance = weights @ (rise * y[:, None]) - mean * mean_y[:, None]
        usable = (variance > 1e-9) & (ss_y > 1e-14)[:, None]  # flat on these rows: never the best
        r2 = np.divide(covariance**2, variance * ss_y[:, None], out=np.zeros_like(variance), where=usable)
        return r2.reshape(len(weights), _N_CENTRES, len(_WIDTHS))

    def _unexplained(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Return the share of the variance of MOS that a map leaves, and its gradient by (centre, log width)."""
        width = np.exp(theta[1])
        v = (self.x - theta[0]) / width
        r = 0.5 * np.tanh(0.5 * v)
        slopes = np.stack([(r * r - 0.25) / width, (r * r - 0.25) * v])
        r -= self._weights @ r
        rr, ss, ry = (self._weights @ product for product in (r * r, self._y**2, r * self._y))
        if rr <= _FLAT**2:
            return 1.0, np.zeros(2)
        slope = ry / rr
        gradient = -2 * slope * (slopes @ (self._weights * (self._y - slope * r))) / ss
        return 1.0 - slope * ry / ss, gradient


# A vector whose deviation is below this share of its mean holds rounding, not information.
ROUNDING = 1e-13
# Decimals that take part in choosing among candidates.
_SELECTION_DIGITS = 12


def srcc(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Rank correlation between MOS and prediction (Spearman), ties at their mean rank.

    Parameters
    ----------
    y, y_pred : float arrays of shape (n_images,)
        MOS on the dataset's own scale and predicted quality on any scale, higher is better.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float in [-1, 1], or nan if either argument is constant

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or n_images < 2.

    Examples
    --------
    >>> from regressors.evaluation.metrics import srcc
    >>> srcc([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0])
    0.8
    """
    mos, predicted, weights = _prepare("srcc", y, y_pred, sample_weight)
    return _pearson(midranks(mos, weights), midranks(predicted, weights), weights)


def plcc(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Linear correlation between MOS and prediction as they are (Pearson), without any mapping.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`; in [-1, 1], or nan if the deviation of either is below
    1e-13 of its mean.
    """
    mos, predicted, weights = _prepare("plcc", y, y_pred, sample_weight)
    return _pearson(mos, predicted, weights)


def krcc(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Share of concordant minus share of discordant pairs, corrected for ties (Kendall's tau-b [1]_).

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`; in [-1, 1], or nan if either is constant. With weights
    each pair counts with the product of its two weights, at a cost of n_images squared instead of n_images log
    n_images.

    References
    ----------
    .. [1] M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945.
    """
    mos, predicted, weights = _prepare("krcc", y, y_pred, sample_weight)
    if np.ptp(mos) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    if (
        sample_weight is None and len(mos) == 2
    ):  # scipy's p value, which nobody asked for, divides by zero there
        return float(np.sign(mos[1] - mos[0]) * np.sign(predicted[1] - predicted[0]))
    if sample_weight is None:
        return float(np.clip(kendalltau(mos, predicted, method="asymptotic").statistic, -1.0, 1.0))
    concordance = sum(
        float(weights[i] * np.dot(weights, np.sign(mos - mos[i]) * np.sign(predicted - predicted[i])))
        for i in range(len(mos))
    )
    untied = _untied_pairs(mos, weights) * _untied_pairs(predicted, weights)
    return float(np.clip(concordance / np.sqrt(untied), -1.0, 1.0))


def rmse(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Root of the mean squared error, in MOS points; exactly 0 for a perfect prediction.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`, the prediction on the scale of the MOS; one row is
    enough.
    """
    mos, predicted, weights = _prepare("rmse", y, y_pred, sample_weight, min_rows=1)
    error = mos - predicted
    largest = float(np.abs(error).max())
    if largest == 0:
        return 0.0
    # Scaled, so that neither huge nor tiny errors leave the range of squares.
    return largest * float(np.sqrt(np.average((error / largest) ** 2, weights=weights)))


def mae(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean absolute error, in MOS points.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`, the prediction on the scale of the MOS; one row is
    enough.
    """
    mos, predicted, weights = _prepare("mae", y, y_pred, sample_weight, min_rows=1)
    return float(np.average(np.abs(mos - predicted), weights=weights))


def plcc_logistic(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """PLCC after the four-parameter logistic map, fitted on these same rows.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`; in [0, 1], or nan if no map can be fitted, see
    `fit_logistic4`. Never negative: a model that ranks backwards gets a decreasing map, so it stands beside `plcc`
    and `srcc`, and never alone.
    """
    mos, predicted, weights = _prepare("plcc_logistic", y, y_pred, sample_weight)
    fitted = fit_logistic4(mos, predicted, sample_weight=weights)
    if fitted is None:
        return float("nan")
    return _pearson(mos, apply_logistic4(fitted, predicted), weights)


def rmse_logistic(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """RMSE after the four-parameter logistic map, fitted on these same rows; where there is none, of the mean MOS.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`; in MOS points.
    """
    mos, predicted, weights = _prepare("rmse_logistic", y, y_pred, sample_weight)
    fitted = fit_logistic4(mos, predicted, sample_weight=weights)
    mean = np.full(len(mos), np.average(mos, weights=weights))
    mapped = mean if fitted is None else apply_logistic4(fitted, predicted)
    return rmse(mos, mapped, sample_weight=weights)


METRICS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {"mae": mae, "rmse": rmse, "plcc": plcc, "srcc": srcc, "krcc": krcc, "plcc_logistic": plcc_logistic}
)
"""Every metric by the name it has in `metrics.json`."""

EVALUATED = (*METRICS, "rmse_logistic")
"""What `evaluate` gives: every metric, and the RMSE that follows from one of them."""

ERRORS = ("mae", "rmse", "rmse_logistic")
"""Metrics where lower is better."""


def evaluate(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> dict[str, float]:
    """Compute every metric of one set of images.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`. Returns ``n`` (int, number of rows), then ``mae``,
    ``rmse``, ``plcc``, ``srcc``, ``krcc``, ``plcc_logistic``, ``rmse_logistic``; nan where a metric is not defined.
    """
    mos, _, weights = _prepare("evaluate", y, y_pred, sample_weight)
    values = {name: metric(y, y_pred, sample_weight=sample_weight) for name, metric in METRICS.items()}
    # What a least-squares map leaves of the MOS' deviation follows from its correlation; a second fit is not needed.
    left = 1.0 - np.nan_to_num(values["plcc_logistic"]) ** 2
    deviation = rmse(mos, np.full(len(mos), np.average(mos, weights=weights)), sample_weight=weights)
    return {"n": len(mos), **values, "rmse_logistic": float(deviation * np.sqrt(max(0.0, left)))}


def make_metric_scorer(name: str) -> Scorer:
    """Make a fresh scikit-learn scorer of one metric: greater is better, errors are negated.

    For choosing among models a correlation with a constant prediction counts as 0: a candidate that predicts one
    value for all images must lose, not stop the search. A constant MOS in a fold is an error. Correlations are
    rounded to 12 decimals, predictions to 12 decimals of their largest value: what differs less is a tie.
    """
    check_choice("make_metric_scorer", "name", name, _SELECTION)
    return make_scorer(_SELECTION[name], greater_is_better=not name.startswith(ERRORS))


def _select_srcc(y: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    return _correlation_or_zero(srcc, y, y_pred, sample_weight)


def _select_plcc(y: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    return _correlation_or_zero(plcc, y, y_pred, sample_weight)


def _select_krcc(y: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    return _correlation_or_zero(krcc, y, y_pred, sample_weight)


def _correlation_or_zero(
    metric: Callable[..., float], y: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None
) -> float:
    # Copies of a row get predictions that differ in the last bits, and rank correlations of neighbouring candidates
    # often tie. Without rounding both, those bits would choose the candidate, and a row of weight two would not
    # choose as the row written twice.
    predicted = np.asarray(y_pred, dtype=np.float64)
    size = np.abs(predicted).max(initial=0.0)
    tied = np.round(predicted / size, _SELECTION_DIGITS) if 0 < size < np.inf else predicted
    value = metric(y, tied, sample_weight=sample_weight)
    if not np.isnan(value):
        return round(value, _SELECTION_DIGITS)
    if np.ptp(np.asarray(y)) == 0:
        raise ValueError(
            f"{metric.__name__}: the held-out rows of a fold all have one MOS, so no candidate can be ranked on them. "
            "Use fewer or stratified folds (make_folds), or select by 'rmse'."
        )
    return 0.0


_SELECTION: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "srcc": _select_srcc,
        "plcc": _select_plcc,
        "krcc": _select_krcc,
        "rmse": rmse,
        "mae": mae,
        "r2": r2_score,  # what scikit-learn's searches select by unless told otherwise
        "rmse_logistic": rmse_logistic,
    }
)

SCORERS: Mapping[str, Scorer] = MappingProxyType({name: make_metric_scorer(name) for name in _SELECTION})
"""scikit-learn scorers by metric name, for `GridSearchCV(scoring=...)`; see `make_metric_scorer`."""


def scores_of_rows(scorer: Scorer, y: FloatArray, predictions: FloatArray) -> FloatArray | None:
    """Score many predictions, shape (n, n_images), at once as a scorer does one by one; None where it must.

    By the scorer ``srcc`` of `SCORERS`, which would spend most of its time on checks.
    """
    if getattr(scorer, "_score_func", None) is not _select_srcc or np.ptp(y) == 0:
        return None
    size = np.abs(predictions).max(axis=1, keepdims=True)
    scaled = predictions / np.where(size > 0, size, 1.0)
    ranks, target = rankdata(np.round(scaled, _SELECTION_DIGITS), axis=1), rankdata(y)
    ranks -= ranks.mean(axis=1, keepdims=True)
    target -= target.mean()
    norms = np.sqrt(np.einsum("ij,ij->i", ranks, ranks) * (target @ target))
    # Of constant predictions there is no rank, and the score is 0.
    found = np.divide(ranks @ target, norms, out=np.zeros(len(ranks)), where=norms > 0)
    return np.round(np.clip(found, -1.0, 1.0), _SELECTION_DIGITS)


def midranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Rank values, ties at the middle of the weight they share; with unit weights the mean ranks minus one half."""
    _, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weights)
    return (np.cumsum(mass) - 0.5 * mass)[inverse]


def _prepare(
    who: str, y: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None, *, min_rows: int = 2
) -> tuple[FloatArray, FloatArray, FloatArray]:
    mos, predicted = check_pair(who, y, y_pred, min_rows=min_rows)
    if sample_weight is None:
        return mos, predicted, np.ones(len(mos))
    weights = check_weights(who, sample_weight, len(mos))
    keep = weights > 0
    return mos[keep], predicted[keep], weights[keep]


def _pearson(a: FloatArray, b: FloatArray, weights: FloatArray) -> float:
    units, total = [], weights.sum()
    for values in (a, b):
        centred = values - (values * weights).sum() / total
        largest = np.abs(centred).max()
        if values.min() == values.max() or largest <= ROUNDING * np.abs(values).max():
            return float("nan")
        # Scaled first, so that squares neither overflow nor vanish.
        centred /= largest
        units.append(centred / np.sqrt((weights * centred**2).sum()))
    # Not by `min` and `max`, which take nan for a bound.
    return float(np.clip((weights * units[0] * units[1]).sum(), -1.0, 1.0))


def _untied_pairs(values: FloatArray, weights: FloatArray) -> float:
    """Weight of the ordered pairs of rows with different values."""
    _, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weights)
    return float(np.sum(mass * (weights.sum() - mass)))
