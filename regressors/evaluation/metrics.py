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
from scipy.stats import kendalltau
from sklearn.metrics import make_scorer

from regressors.checks import (
    FloatArray,
    IntArray,
    Scorer,
    check_choice,
    check_pair,
    check_vector,
    check_weights,
)

MIN_POINTS = 5
"""Four parameters pass through any four points; below five different ones a fit says nothing."""

LARGE_ROWS = 20_000
"""With more rows the box is searched on half as many drawn ones, and only the best map is refined on all."""

# The box. The centre may lie half a range outside the data, for relations that only bend one way. The width
# runs from a tenth of the standard deviation of x (a narrower map is a cliff between two images: on 59 videos
# the unbounded optimum sets one of them apart and gains 0.1 of PLCC) to a straight line (over three
# deviations, tanh(3 / 200) differs from its argument by less than 1e-4 of it).
CENTRE_MARGIN = 0.5
_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0, 100.0)
_N_CENTRES = 49
_FLAT = 1e-6  # a map whose deviation over the rows is less is constant there: its shape would be rounding
_MAX_STEPS = 40


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
    [2]_ and the best is kept. Of more than 20,000 rows, half as many drawn ones find the best, which all rows refine.

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
    if _n_points(mos, predicted) < MIN_POINTS:
        return None
    search = LogisticSearch(mos, predicted, weights)
    if len(mos) > LARGE_ROWS:
        centre, width = _fit_from_drawn(search, mos, predicted, weights)
    else:
        centre, width, _ = search.fit(weights[np.newaxis], n_starts=len(_WIDTHS))
    rise = 0.5 * np.tanh(0.5 * (search.x - centre[0]) / width[0])
    mean_rise, mean_y = np.average(rise, weights=weights), np.average(mos, weights=weights)
    centred = rise - mean_rise
    slope = np.sum(weights * centred * (mos - mean_y)) / np.sum(weights * centred**2)
    lower = mean_y - slope * (0.5 + mean_rise)
    return Logistic4(
        upper=float(lower + slope),
        lower=float(lower),
        centre=float(search.shift + search.scale * centre[0]),
        width=float(search.scale * width[0]),
    )


def _n_points(mos: FloatArray, predicted: FloatArray) -> int:
    """Count different pairs, up to what matters."""
    for values in (mos, predicted):
        n_different = len(np.unique(values[:1000]))
        if n_different >= MIN_POINTS:
            return n_different
    return len(np.unique(np.column_stack([mos, predicted]), axis=0))


def _fit_from_drawn(
    search: LogisticSearch, mos: FloatArray, predicted: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Search the box on drawn rows; refine their best map on all."""
    drawn = np.random.default_rng(0).choice(len(mos), LARGE_ROWS // 2, replace=False)
    some = mos[drawn], predicted[drawn], weights[drawn]
    if np.ptp(some[0]) == 0 or np.ptp(some[1]) == 0:
        centre, width = np.zeros(1), np.ones(1)  # nearly all rows are alike
    else:
        few = LogisticSearch(*some)
        centre, width, _ = few.fit(some[2][np.newaxis], n_starts=len(_WIDTHS))
        centre = (few.shift + few.scale * centre - search.shift) / search.scale
        width = few.scale * width / search.scale
    return search.refine(weights[np.newaxis], centre, width)


class LogisticSearch:
    """Least-squares search of the map's centre and width, for many weightings of the same rows at once.

    ``shift`` and ``scale`` are the weighted mean and deviation of the predictions, ``x`` these standardised.
    """

    def __init__(self, y: FloatArray, x: FloatArray, weights: FloatArray) -> None:
        self.shift = float(np.average(x, weights=weights))
        self.scale = float(np.abs(x - self.shift).max())
        # Two steps, so that squares of tiny numbers do not vanish.
        self.scale *= float(np.sqrt(np.average(((x - self.shift) / self.scale) ** 2, weights=weights)))
        self.x = (x - self.shift) / self.scale
        centred = y - y.mean()
        self.y = centred / np.abs(centred).max()
        margin = CENTRE_MARGIN * float(np.ptp(self.x))
        self._centre_bounds = (float(self.x.min()) - margin, float(self.x.max()) + margin)
        self._width_bounds = (float(np.log(_WIDTHS[0])), float(np.log(_WIDTHS[-1])))

    def fit(
        self, weights: FloatArray, *, n_starts: int = 1, tolerance: float = 1e-12
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Find centre, width and squared correlation for weights of shape (n_weightings, n_rows).

        The best of ``n_starts`` refinements is kept, each ended by a step that gains less than ``tolerance``; the
        squared correlation is nan where a weighting leaves fewer than two distinct values.
        """
        weights = weights / weights.sum(axis=1, keepdims=True)
        mean_y = weights @ self.y
        ss_y = weights @ self.y**2 - mean_y**2
        centres, log_widths = self._best_of_grid(weights, mean_y, n_starts)  # (n_weightings, n_starts)
        r2 = np.full(centres.shape, np.nan)
        live = np.flatnonzero(ss_y > 1e-14)
        if live.size:
            rows = np.repeat(live, n_starts)
            state = _Refinement(self, weights[rows], mean_y[rows], ss_y[rows])
            found = state.run(centres[live].ravel(), log_widths[live].ravel(), tolerance)
            centres[live], log_widths[live], r2[live] = (part.reshape(-1, n_starts) for part in found)
        best = np.argmax(np.nan_to_num(r2, nan=-1.0), axis=1)
        chosen = np.arange(len(weights)), best
        return centres[chosen], np.exp(log_widths[chosen]), r2[chosen]

    def refine(
        self, weights: FloatArray, centre: FloatArray, width: FloatArray, *, tolerance: float = 1e-12
    ) -> tuple[FloatArray, FloatArray]:
        """Find the best centre and width near given ones, for each weighting; shapes as in `fit`."""
        weights = weights / weights.sum(axis=1, keepdims=True)
        mean_y = weights @ self.y
        state = _Refinement(self, weights, mean_y, weights @ self.y**2 - mean_y**2)
        low, high = self.bounds
        start = np.clip(np.column_stack([centre, np.log(width)]), low, high)
        centre, log_width, _ = state.run(start[:, 0], start[:, 1], tolerance)
        return centre, np.exp(log_width)

    def _best_of_grid(
        self, weights: FloatArray, mean_y: FloatArray, n_starts: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return the best centre at each width, for the ``n_starts`` best widths."""
        rise, centre, log_width = self._grid
        mean = weights @ rise  # (n_weightings, n_grid)
        variance = weights @ rise**2 - mean**2
        covariance = weights @ (rise * self.y[:, None]) - mean * mean_y[:, None]
        variance = np.where(variance > 1e-9, variance, np.inf)  # flat on these rows: never the best
        r2 = (covariance**2 / variance).reshape(len(weights), _N_CENTRES, len(_WIDTHS))
        by_width = np.argmax(r2, axis=1)  # (n_weightings, n_widths)
        ranked = np.argsort(-np.take_along_axis(r2, by_width[:, None], axis=1)[:, 0], axis=1, kind="stable")
        widths = ranked[:, :n_starts]
        flat = np.take_along_axis(by_width, widths, axis=1) * len(_WIDTHS) + widths
        return centre[flat], log_width[flat]

    @cached_property
    def _grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        centres = np.linspace(*self._centre_bounds, _N_CENTRES)
        centre, log_width = (g.ravel() for g in np.meshgrid(centres, np.log(_WIDTHS), indexing="ij"))
        rise = np.tanh(0.5 * (self.x[:, None] - centre) / np.exp(log_width))  # (n_rows, n_grid)
        # Centred and scaled over all rows first: the moments of a weighting then lose no digits for flat maps.
        rise -= rise.mean(axis=0)
        deviation = np.sqrt(np.mean(rise**2, axis=0))
        rise *= np.where(deviation > _FLAT, 1 / np.maximum(deviation, _FLAT), 0.0)
        return rise, centre, log_width

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper corner of the box over (centre, log width)."""
        return (
            np.array([self._centre_bounds[0], self._width_bounds[0]]),
            np.array([self._centre_bounds[1], self._width_bounds[1]]),
        )


class _Refinement:
    """Damped Gauss-Newton over (centre, log width), linear parameters projected out (reference [2], Kaufman)."""

    def __init__(
        self, search: LogisticSearch, weights: FloatArray, mean_y: FloatArray, ss_y: FloatArray
    ) -> None:
        self._x, self._y = search.x, search.y
        self._low, self._high = search.bounds
        self._weights, self._mean_y, self._ss_y = weights, mean_y, ss_y

    def run(
        self, centre: FloatArray, log_width: FloatArray, tolerance: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        theta = np.stack([centre, log_width], axis=1)  # (n, 2)
        gradient, hessian, r2 = self._derivatives(theta, np.arange(len(theta)))
        damping = np.full(len(theta), 1e-3)
        active = np.arange(len(theta))
        for _ in range(_MAX_STEPS):
            step = self._step(theta[active], gradient[active], hessian[active], damping[active])
            trial = np.clip(theta[active] + step, self._low, self._high)
            new_gradient, new_hessian, new_r2 = self._derivatives(trial, active)
            better = new_r2 > r2[active]
            gain = np.where(better, new_r2 - r2[active], 0.0)
            moved = active[better]
            theta[moved], gradient[moved], hessian[moved] = (
                trial[better],
                new_gradient[better],
                new_hessian[better],
            )
            r2[moved] = new_r2[better]
            damping[active] *= np.where(better, 0.1, 10.0)
            # Done: a good step that gained nothing, or no step that gains even when it is tiny.
            done = (better & (gain < tolerance)) | (damping[active] > 1e8)
            active = active[~done]
            if not active.size:
                break
        return theta[:, 0], theta[:, 1], np.clip(r2, 0.0, 1.0)

    def _step(
        self, theta: FloatArray, gradient: FloatArray, hessian: FloatArray, damping: FloatArray
    ) -> FloatArray:
        # A coordinate at its bound that wants to leave the box is held; the other one moves alone.
        held = ((theta <= self._low) & (gradient < 0)) | ((theta >= self._high) & (gradient > 0))
        g = np.where(held, 0.0, gradient)
        cross = np.where(held.any(axis=1), 0.0, hessian[:, 0, 1])
        diagonal = np.stack([hessian[:, 0, 0], hessian[:, 1, 1]], axis=1)
        # Where the map fits perfectly, or centre and width do the same, these are rounding of either sign.
        floor = np.maximum(1e-12 * diagonal.max(axis=1, keepdims=True), 1e-30)
        diagonal = np.maximum(diagonal * (1.0 + damping[:, None]), floor)
        determinant = np.maximum(diagonal[:, 0] * diagonal[:, 1] - cross**2, floor[:, 0] ** 2)
        step = np.stack(
            [diagonal[:, 1] * g[:, 0] - cross * g[:, 1], diagonal[:, 0] * g[:, 1] - cross * g[:, 0]], axis=1
        )
        return np.clip(step / determinant[:, None], -1.0, 1.0)

    def _derivatives(self, theta: FloatArray, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return descent direction, Gauss-Newton matrix and r2 at ``theta`` of the weightings ``rows``.

        All are weighted sums of products of the map r, its derivatives f and g by centre and log width, and y. The
        constant and r are projected out of f and g on the sums, which loses digits of the step but none of r2, which
        decides.
        """
        w, y, mean_y = self._weights[rows], self._y, self._mean_y[rows]
        width = np.exp(theta[:, 1])[:, None]
        v = (self._x - theta[:, :1]) / width  # (n, n_rows), as all of these
        r = np.tanh(0.5 * v)
        r *= 0.5
        f = r * r
        f -= 0.25
        f /= width
        g = f * v
        g *= width
        r -= np.einsum("ij,ij->i", w, r)[:, None]
        wr, wf, wg = w * r, w * f, w * g
        rr = np.einsum("ij,ij->i", wr, r)
        usable = rr > _FLAT**2
        rr = np.where(usable, rr, 1.0)
        slope = np.where(usable, wr @ y / rr, 0.0)
        r2 = slope**2 * rr / self._ss_y[rows]

        sums, against_r, against_y = [], [], []
        for weighted in (wf, wg):
            total = weighted.sum(axis=1)
            sums.append(total)
            against_r.append(np.einsum("ij,ij->i", weighted, r))
            against_y.append(weighted @ y - total * mean_y)
        gradient = np.stack([slope * (against_y[k] - slope * against_r[k]) for k in range(2)], axis=1)
        hessian = np.empty((len(rows), 2, 2))
        for i, j, weighted, other in ((0, 0, wf, f), (0, 1, wf, g), (1, 1, wg, g)):
            product = (
                np.einsum("ij,ij->i", weighted, other) - sums[i] * sums[j] - against_r[i] * against_r[j] / rr
            )
            hessian[:, i, j] = hessian[:, j, i] = slope**2 * product
        return gradient, hessian, r2


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


METRICS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {"mae": mae, "rmse": rmse, "plcc": plcc, "srcc": srcc, "krcc": krcc, "plcc_logistic": plcc_logistic}
)
"""Every metric by the name it has in `metrics.json`."""

ERRORS = ("mae", "rmse")
"""Metrics where lower is better."""


def evaluate(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> dict[str, float]:
    """Compute every metric of one set of images.

    ``y``, ``y_pred``, ``sample_weight`` and errors as `srcc`. Returns ``n`` (int, number of rows), then ``mae``,
    ``rmse``, ``plcc``, ``srcc``, ``krcc``, ``plcc_logistic``; nan where a metric is not defined.
    """
    mos, _, _ = _prepare("evaluate", y, y_pred, sample_weight)
    values = {name: metric(y, y_pred, sample_weight=sample_weight) for name, metric in METRICS.items()}
    return {"n": len(mos), **values}


def make_metric_scorer(name: str) -> Scorer:
    """Make a fresh scikit-learn scorer of one metric: greater is better, errors are negated.

    For choosing among models a correlation with a constant prediction counts as 0: a candidate that predicts one
    value for all images must lose, not stop the search. A constant MOS in a fold is an error. Correlations are
    rounded to 12 decimals, predictions to 12 decimals of their largest value: what differs less is a tie.
    """
    check_choice("make_metric_scorer", "name", name, _SELECTION)
    return make_scorer(_SELECTION[name], greater_is_better=name not in ERRORS)


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
    {"srcc": _select_srcc, "plcc": _select_plcc, "krcc": _select_krcc, "rmse": rmse, "mae": mae}
)

SCORERS: Mapping[str, Scorer] = MappingProxyType({name: make_metric_scorer(name) for name in _SELECTION})
"""scikit-learn scorers by metric name, for `GridSearchCV(scoring=...)`; see `make_metric_scorer`."""


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
