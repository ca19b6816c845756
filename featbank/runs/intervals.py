"""Prediction intervals of a run: calibrated on out-of-fold training predictions, judged on sealed rows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.errors import RunError
from featbank.runs.evaluate import as_written
from featbank.runs.split import split_names
from regressors.evaluation.intervals import ConformalInterval, calibrate_interval, min_calibration_rows

CONFIDENCE: Final = 0.9

LOW, HIGH = "predicted_low", "predicted_high"
"""Columns of ``predictions.csv`` and of scores."""

TRAINING, VALIDATION = "training", "validation"

CHANCE_LEVEL: Final = 0.99
"""Probability of the range in which coverage is called as promised."""


def check_calibration(confidence: float, calibrate_on: str, rows: pd.DataFrame) -> None:
    """Refuse what cannot be calibrated, before anything is fitted.

    Parameters
    ----------
    confidence : float
    calibrate_on : {"training", "validation"}
    rows : DataFrame
        All rows of the run, with ``split``.

    Raises
    ------
    RunError
        If the confidence lies outside (0, 1), or there are no validation rows to calibrate on.
    """
    if not 0 < confidence < 1:
        raise RunError(f"fit: --confidence must lie between 0 and 1, got {confidence:g}. Use 0.9 for 90 %.")
    if calibrate_on == VALIDATION and not (rows["split"] == VALIDATION).any():
        raise RunError(
            "fit: --calibrate validation needs validation images with a MOS, the dataset has none. Use training."
        )


def calibrate(
    y: NDArray[np.float64], held_out: NDArray[np.float64], confidence: float = CONFIDENCE
) -> ConformalInterval | None:
    """Calibrate on out-of-fold predictions of the training rows.

    Validation rows would do as well, but they are sealed until everything is fixed, and then show whether the
    intervals hold on images that had no part in them.

    Parameters
    ----------
    y, held_out : float arrays of shape (n_rows,)
        MOS and out-of-fold predictions; nan where no fold tests a row.
    confidence : float, default=0.9

    Returns
    -------
    ConformalInterval or None
        None with too few rows for that confidence.
    """
    tested = np.isfinite(held_out)
    if tested.sum() < min_calibration_rows(confidence):
        return None
    return calibrate_interval(y[tested], held_out[tested], confidence=confidence)


def calibrate_run(
    y: NDArray[np.float64],
    held_out: NDArray[np.float64],
    judged: pd.DataFrame,
    predicted: NDArray[np.float64],
    confidence: float,
    calibrate_on: str,
) -> ConformalInterval | None:
    """Calibrate a run's interval where it was asked to be.

    Parameters
    ----------
    y, held_out : float arrays of shape (n_training,)
        MOS and out-of-fold predictions of the training rows.
    judged : DataFrame
        Columns ``mos`` and ``split``.
    predicted : float array of shape (n_judged,)
    confidence : float
    calibrate_on : {"training", "validation"}
        ``training``: out-of-fold predictions, which leaves validation and test to show the coverage. ``validation``:
        its sealed predictions, the better choice where the training images are a narrower lot than those to come; the
        test split alone then shows the coverage. No choice of the model depends on it.

    Returns
    -------
    ConformalInterval or None
    """
    if calibrate_on == TRAINING:
        return calibrate(y, held_out, confidence)
    rows = (judged["split"] == VALIDATION).to_numpy()
    return calibrate(judged["mos"].to_numpy(dtype=np.float64)[rows], predicted[rows], confidence)


def describe_coverage(
    interval: ConformalInterval | None,
    judged: pd.DataFrame,
    predicted: NDArray[np.float64],
    calibrate_on: str = TRAINING,
) -> dict[str, Any]:
    """Return confidence, half width, and the share of MOS inside on every judged part.

    Parameters
    ----------
    interval : ConformalInterval or None
    judged : DataFrame
        Columns ``mos``, ``split``, ``subset``.
    predicted : float array of shape (n_judged,)
    calibrate_on : str
        As in `calibrate_run`; the part it names is left out.

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


def with_interval(frame: pd.DataFrame, interval: ConformalInterval | None) -> pd.DataFrame:
    """Put the ends of the interval after the column ``predicted``; nan without an interval.

    Parameters
    ----------
    frame : DataFrame
        With ``predicted``.
    interval : ConformalInterval or None
    """
    predicted = frame["predicted"].to_numpy(dtype=np.float64)
    low, high = (np.full(len(frame), np.nan),) * 2 if interval is None else interval.around(predicted)
    result = frame.copy()
    place = list(result.columns).index("predicted") + 1
    result.insert(place, LOW, low)
    result.insert(place + 1, HIGH, high)
    return result
