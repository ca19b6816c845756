"""Agreement between MOS and predicted quality: correlations, errors, and scikit-learn scorers made of them.

Every function takes MOS first and prediction second, both higher is better, and optional sample weights: a
row of weight two counts exactly as the row written twice, a row of weight zero as a row removed.
Intervals are made in `regressors.evaluation.bootstrap`, the logistic map in `regressors.evaluation.logistic`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau
from sklearn.metrics import make_scorer

from regressors.checks import FloatArray, Scorer, check_choice, check_pair, check_weights
from regressors.evaluation.logistic import Logistic4, apply_logistic4, fit_logistic4

__all__ = [
    "METRICS",
    "SCORERS",
    "Logistic4",
    "apply_logistic4",
    "evaluate",
    "fit_logistic4",
    "krcc",
    "mae",
    "make_metric_scorer",
    "plcc",
    "plcc_logistic",
    "rmse",
    "srcc",
]

# A vector whose deviation is below this share of its mean holds rounding, not information.
ROUNDING = 1e-13
# Decimals that take part in choosing among candidates.
_SELECTION_DIGITS = 12


def srcc(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Rank correlation between MOS and prediction (Spearman).

    Unchanged by any increasing map of either argument, hence free of the MOS scale. Ties get their mean rank.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale, higher is better.
    y_pred : float array of shape (n_images,)
        Predicted quality, any scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float in [-1, 1], or nan if either argument is constant
        A constant ranks nothing; nan and not zero, so that nobody reads it as a result.

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

    Unchanged by any increasing affine map of either argument. The value after a logistic map is
    `plcc_logistic` and never called plcc.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale, higher is better.
    y_pred : float array of shape (n_images,)
        Predicted quality, any scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float in [-1, 1], or nan if either argument is constant up to rounding
        Constant means here: a deviation below 1e-13 of the mean.

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or n_images < 2.

    Examples
    --------
    >>> from regressors.evaluation.metrics import plcc
    >>> round(plcc([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]), 6)
    0.981981
    """
    mos, predicted, weights = _prepare("plcc", y, y_pred, sample_weight)
    return _pearson(mos, predicted, weights)


def krcc(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Share of concordant minus share of discordant pairs, corrected for ties (Kendall's tau-b).

    With weights each pair counts with the product of its two weights, which is what row repetition gives.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale, higher is better.
    y_pred : float array of shape (n_images,)
        Predicted quality, any scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for; costs n_images squared operations where the unweighted value
        costs n_images log n_images.

    Returns
    -------
    float in [-1, 1], or nan if either argument is constant

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or n_images < 2.

    References
    ----------
    .. [1] M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945.

    Examples
    --------
    >>> from regressors.evaluation.metrics import krcc
    >>> round(krcc([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0]), 6)
    0.666667
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

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale.
    y_pred : float array of shape (n_images,)
        Predicted MOS, same scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float >= 0

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or there is no row.

    Examples
    --------
    >>> from regressors.evaluation.metrics import rmse
    >>> rmse([1.0, 2.0], [1.0, 4.0]) ** 2
    2.0000000000000004
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

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale.
    y_pred : float array of shape (n_images,)
        Predicted MOS, same scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float >= 0

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or there is no row.

    Examples
    --------
    >>> from regressors.evaluation.metrics import mae
    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    mos, predicted, weights = _prepare("mae", y, y_pred, sample_weight, min_rows=1)
    return float(np.average(np.abs(mos - predicted), weights=weights))


def plcc_logistic(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """PLCC after the four-parameter logistic map, fitted on these same rows.

    The field's second PLCC. It is at least as large as the plain one (up to the flatness of the widest
    map in the box, see `fit_logistic4`), and never negative: a model that ranks backwards gets a
    decreasing map. So it stands beside `plcc` and `srcc`, and never alone.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale, higher is better.
    y_pred : float array of shape (n_images,)
        Predicted quality, any scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    float in [0, 1], or nan if no map can be fitted
        That is: either argument constant, or fewer than five different pairs of MOS and prediction.

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or n_images < 2.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.evaluation.metrics import plcc, plcc_logistic
    >>> x = np.linspace(-4, 4, 30)
    >>> y = 1 / (1 + np.exp(-3 * x))
    >>> round(plcc(y, x), 2), round(plcc_logistic(y, x), 6)
    (0.93, 1.0)
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


def evaluate(y: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> dict[str, float]:
    """Compute every metric of one set of images.

    Parameters
    ----------
    y : float array of shape (n_images,)
        MOS on the dataset's own scale, higher is better.
    y_pred : float array of shape (n_images,)
        Predicted MOS, same scale.
    sample_weight : float array of shape (n_images,), optional
        How many rows each row counts for.

    Returns
    -------
    dict of str to float
        ``n`` (int, number of rows), then ``mae``, ``rmse``, ``plcc``, ``srcc``, ``krcc``,
        ``plcc_logistic``; nan where a metric is not defined (see each function).

    Raises
    ------
    ValueError
        If the lengths differ, a value is not finite, or n_images < 2.

    Examples
    --------
    >>> from regressors.evaluation.metrics import evaluate
    >>> evaluate([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])["rmse"]
    0.0
    """
    mos, _, _ = _prepare("evaluate", y, y_pred, sample_weight)
    values = {name: metric(y, y_pred, sample_weight=sample_weight) for name, metric in METRICS.items()}
    return {"n": len(mos), **values}


def make_metric_scorer(name: str) -> Scorer:
    """Make a fresh scikit-learn scorer of one metric: greater is better, errors are negated.

    For choosing among models a correlation with a constant prediction counts as 0, the mean over random
    orders of its ties: a candidate that predicts one value for all images must lose, not stop the search.
    A constant MOS in a fold is an error, because no candidate can be judged there. Correlations are rounded
    to 12 decimals, predictions to 12 decimals of their largest value: what differs less is a tie.

    Parameters
    ----------
    name : {"srcc", "plcc", "krcc", "rmse", "mae"}
        The metric.

    Returns
    -------
    scorer
        Callable as ``scorer(estimator, X, y, sample_weight=None)``.

    Raises
    ------
    ValueError
        If ``name`` is none of them.
    """
    check_choice("make_metric_scorer", "name", name, _SELECTION)
    return make_scorer(_SELECTION[name], greater_is_better=name not in {"rmse", "mae"})


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
    """Rank values, ties at the middle of the weight they share, up to a constant shift.

    Parameters
    ----------
    values : float64 array of shape (n_rows,)
        What to rank.
    weights : float64 array of shape (n_rows,)
        How many rows each row counts for.

    Returns
    -------
    float64 array of shape (n_rows,)
        With unit weights the usual mean ranks minus one half.
    """
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
