"""How predictions are judged: metrics by split and subset, baselines, prediction intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbank.runs.split import split_names
from regressors.evaluation.intervals import (
    MIN_GROUPS,
    ConformalInterval,
    bootstrap_ci,
    calibrate_interval,
    min_calibration_rows,
)
from regressors.evaluation.metrics import evaluate

METADATA_PREFIX = "meta:"

FLOAT_FORMAT = "%.10g"
"""How numbers are written into CSV files."""

N_BOOTSTRAP = 1000

FEW_GROUPS = (
    "{n} independent groups of images are too few: intervals are drawn from at least " + str(MIN_GROUPS) + "."
)
"""Why a part has no intervals."""

MANY_ROWS = 5_000
"""Parts of more images have their intervals from `INTERVAL_ROWS` drawn ones."""

INTERVAL_ROWS = 4_000


def as_written(values: ArrayLike) -> NDArray[np.float64]:
    """Round to what a CSV file holds of the values, so that whoever reads it judges the same numbers.

    Copies of a photo have predictions that differ in the last bits; written, they are ties, and are judged as ties.

    Parameters
    ----------
    values : float array of shape (n,)

    Returns
    -------
    float64 array of shape (n,)
        Rounding again changes nothing.

    Examples
    --------
    >>> from featbank.runs.evaluate import as_written
    >>> as_written([1 / 3, 2e20 / 3]).tolist()
    [0.3333333333, 6.666666667e+19]
    """
    flat = np.asarray(values, dtype=np.float64).tolist()
    return np.array([float(FLOAT_FORMAT % value) for value in flat], dtype=np.float64)


def score_parts(
    rows: pd.DataFrame,
    predicted: NDArray[np.float64],
    *,
    with_intervals: bool | Sequence[str],
    random_state: int = 0,
) -> dict[str, dict[str, Any]]:
    """Judge predictions on every evaluated part.

    Parameters
    ----------
    rows : DataFrame
        Columns ``mos``, ``split``, ``subset``, and for intervals ``group``.
    predicted : float array of shape (n_images,)
        In the order of ``rows``.

    Returns
    -------
    dict of str to dict
        Metrics by part (``validation``, ``validation/exclusive``, ``test``, ``test/exclusive``).
    """
    y = rows["mos"].to_numpy(dtype=np.float64)
    return {
        part: judge(
            y[mask],
            predicted[mask],
            groups=rows["group"].to_numpy()[mask] if with_intervals else None,
            with_intervals=with_intervals,
            random_state=random_state,
        )
        for part, mask in split_names(rows).items()
        if mask.sum() >= 2
    }


def judge(
    y: NDArray[np.float64],
    y_pred: NDArray[np.float64],
    *,
    groups: ArrayLike | None = None,
    with_intervals: bool | Sequence[str],
    random_state: int = 0,
) -> dict[str, Any]:
    """Compute every metric of one part from the written values; a metric that is not defined becomes None.

    Parameters
    ----------
    y, y_pred : float array of shape (n_images,)
        Rounded by `as_written`.
    groups : array of shape (n_images,), optional
        Groups that are resampled as a whole; by default each image stands alone.
    with_intervals : bool or sequence of str
        Add 95 % bootstrap intervals, of all metrics or of those named, under ``ci95``: None with fewer than ten groups,
        ``ci95_reason`` then saying so.

    Returns
    -------
    dict
        ``n``, the metrics, and ``ci95``; JSON-able.
    """
    y, y_pred = as_written(y), as_written(y_pred)
    scores: dict[str, Any] = {name: _number(value) for name, value in evaluate(y, y_pred).items()}
    n_groups = len(y) if groups is None else len(np.unique(np.asarray(groups, dtype=str)))
    if with_intervals and n_groups < MIN_GROUPS:
        scores |= {"ci95": None, "ci95_reason": FEW_GROUPS.format(n=n_groups)}
    elif with_intervals:
        intervals = bootstrap_ci(
            y,
            y_pred,
            groups=groups,
            metrics=None if with_intervals is True else with_intervals,
            n_resamples=N_BOOTSTRAP,
            random_state=random_state,
            max_rows=INTERVAL_ROWS if len(y) > MANY_ROWS else None,
        )
        scores["ci95"] = {name: [_number(low), _number(high)] for name, (low, high) in intervals.items()}
    return scores


def predict_from_metadata(training: pd.DataFrame, rows: pd.DataFrame) -> NDArray[np.float64] | None:
    """Predict from the dataset's metadata columns alone, without a pixel.

    A ridge on standardised columns, its penalty chosen by leave-one-out inside the training rows.

    Parameters
    ----------
    training, rows : DataFrame
        Columns that start with ``meta:`` are used; missing values take the training rows' median.

    Returns
    -------
    float array of shape (n_rows,), or None
        None where the dataset has no such columns.
    """
    columns = [
        name
        for name in training.columns
        if str(name).startswith(METADATA_PREFIX) and training[name].min() < training[name].max()
    ]
    if not columns:
        return None
    medians = training[columns].median()
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 6, 19)))
    model.fit(training[columns].fillna(medians).to_numpy(dtype=np.float64), training["mos"].to_numpy())
    return model.predict(rows[columns].fillna(medians).to_numpy(dtype=np.float64))


def score_baselines(
    rows: pd.DataFrame, predictions: Mapping[str, NDArray[np.float64] | None]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Judge several baselines, and single bands, with intervals of SRCC alone: that is drawn beside the model's.

    Parameters
    ----------
    predictions : mapping of str to array or None
        Baselines by name; None for one that the dataset does not allow.

    Returns
    -------
    dict of str to dict
        Metrics by baseline and part.
    """
    return {
        name: score_parts(rows, predicted, with_intervals=["srcc"])
        for name, predicted in predictions.items()
        if predicted is not None
    }


def _number(value: float) -> float | int | None:
    # JSON has no NaN: a correlation that is not defined (a constant prediction) is null, never zero.
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if math.isfinite(value) else None


CONFIDENCE: Final = 0.9

CHANCE_LEVEL: Final = 0.99
"""Probability of the range in which coverage is called as promised."""


def calibrate(
    y: NDArray[np.float64], held_out: NDArray[np.float64], confidence: float = CONFIDENCE
) -> ConformalInterval | None:
    """Calibrate on held-out predictions.

    Those of the training rows, out of fold, leave validation and test to show whether the intervals hold on images that
    had no part in them; those of validation rows are the better choice where the training images are a narrower lot
    than those to come.

    Parameters
    ----------
    y, held_out : float arrays of shape (n_rows,)
        MOS and out-of-fold predictions; nan where no fold tests a row.

    Returns
    -------
    ConformalInterval or None
        None with too few rows for that confidence.
    """
    tested = np.isfinite(held_out)
    if tested.sum() < min_calibration_rows(confidence):
        return None
    return calibrate_interval(y[tested], held_out[tested], confidence=confidence)


def describe_coverage(
    interval: ConformalInterval | None,
    judged: pd.DataFrame,
    predicted: NDArray[np.float64],
    calibrate_on: str = "training",
) -> dict[str, Any]:
    """Return confidence, half width, and the share of MOS inside on every judged part.

    Parameters
    ----------
    judged : DataFrame
        Columns ``mos``, ``split``, ``subset``.
    predicted : float array of shape (n_judged,)

    Returns
    -------
    dict
        JSON-able; empty without an interval. ``expected`` is the range that chance leaves the share of a part.
    """
    if interval is None:
        return {}
    y = as_written(judged["mos"])
    low, high = (as_written(end) for end in interval.around(predicted))
    coverage = {
        part: {
            "n": int(rows.sum()),
            "share": float(np.mean((low[rows] <= y[rows]) & (y[rows] <= high[rows]))),
            "expected": list(interval.chance_range(int(rows.sum()), CHANCE_LEVEL)),
        }
        for part, rows in split_names(judged).items()
        if not part.startswith(calibrate_on)
    }
    return {
        "confidence": interval.confidence,
        "half_width": interval.half_width,
        "n_calibration": interval.n_calibration,
        "calibrated_on": calibrate_on,
        "coverage": coverage,
    }
