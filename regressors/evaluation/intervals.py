"""Prediction intervals for single images by split-conformal calibration on held-out predictions.

The residuals of predictions that did not see their row tell how far a prediction may be off; their corrected quantile
is the half width. No distribution is assumed, only that new images are like those of the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom
from sklearn.base import BaseEstimator, RegressorMixin

from regressors.checks import FloatArray, check_pair


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
        """Return the ends of the interval of each prediction.

        Parameters
        ----------
        y_pred : float array of shape (n_images,)
            Predicted MOS; nan gives nan.

        Returns
        -------
        low, high : float arrays of shape (n_images,)
            Not clipped to the MOS scale, as the predictions are not.
        """
        predicted = np.asarray(y_pred, dtype=np.float64)
        return predicted - self.half_width, predicted + self.half_width

    def coverage(self, y: ArrayLike, y_pred: ArrayLike) -> float:
        """Share of the images whose MOS lies inside the interval of their prediction.

        Parameters
        ----------
        y, y_pred : float arrays of shape (n_images,)
            MOS and prediction.
        """
        mos, predicted = check_pair("ConformalInterval", y, y_pred, min_rows=1)
        return float(np.mean(np.abs(mos - predicted) <= self.half_width))

    def chance_range(self, n_images: int, level: float = 0.95) -> tuple[float, float]:
        """Range in which the coverage of images like those of the calibration lies by chance.

        Parameters
        ----------
        n_images : int
            How many are judged.
        level : float, default=0.95
            Probability of the range; the calibration itself is taken as exact.

        Returns
        -------
        (low, high)
            Shares.
        """
        low, high = binom.interval(level, n_images, self.confidence)
        return float(low) / n_images, float(high) / n_images


def calibrate_interval(y: ArrayLike, held_out: ArrayLike, *, confidence: float = 0.9) -> ConformalInterval:
    """Calibrate an interval on predictions that did not see their rows.

    Parameters
    ----------
    y : float array of shape (n_rows,)
        MOS of the calibration rows.
    held_out : float array of shape (n_rows,)
        Their predictions, out of fold or on rows that took no part in the fit.
    confidence : float, default=0.9
        Nominal coverage in (0, 1).

    Returns
    -------
    ConformalInterval

    Raises
    ------
    ValueError
        If a vector is not admissible, or there are too few rows for the confidence, see `min_calibration_rows`.

    Notes
    -----
    MAPIE's `SplitConformalRegressor` does the calibration; it is given residuals and a predictor of zero, since the
    predictions exist already. With out-of-fold predictions the members of the calibration were fitted on fewer rows
    than the final model, which widens the interval a little; the choice of hyper-parameters on the same folds narrows
    it a little. Neither is covered by the theorem of [1]_, so the coverage on sealed rows belongs beside it.

    References
    ----------
    .. [1] J. Lei, M. G'Sell, A. Rinaldo, R. Tibshirani, L. Wasserman, "Distribution-free predictive inference for
       regression", Journal of the American Statistical Association 113, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.evaluation.intervals import calibrate_interval
    >>> calibrate_interval(np.arange(1.0, 20.0), np.zeros(19), confidence=0.9).half_width
    18.0
    """
    who = "calibrate_interval"
    if not 0 < confidence < 1:
        raise ValueError(f"{who}: confidence must lie between 0 and 1, got {confidence!r}. Use 0.9 for 90 %.")
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
    """Return how many rows a calibration needs at least: more than 1 / (1 - confidence), and as many below.

    Parameters
    ----------
    confidence : float in (0, 1)

    Returns
    -------
    int
        11 for 0.9, 21 for 0.95.
    """
    return int(np.floor(1 / min(confidence, 1 - confidence) + 1e-9)) + 1


class _Zero(RegressorMixin, BaseEstimator):
    """Predicts zero for every row, so that the residuals of another model can be given as targets."""

    def __init__(self) -> None:
        self.fitted_ = True  # by which MAPIE tells

    def fit(self, X: FloatArray, y: FloatArray) -> _Zero:
        return self

    def predict(self, X: FloatArray) -> FloatArray:
        return np.zeros(len(X))
