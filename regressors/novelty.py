"""Tells rows that are unlike those of a fit: where a prediction is an extrapolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from regressors.bands import BlockTable, locate_bands, some_rows
from regressors.checks import FloatArray, Folds, IntArray, Table, check_fraction

MIN_ROWS: Final = 20
"""Held-out rows from which a bound means something."""

MARGIN: Final = 1.1
"""The bound lies this much above the quantile of held-out rows, which is uncertain where they are few."""

EXTREME_DEVIATIONS: Final = 50.0
"""No statistic of a photo lies this many standard deviations from those of the training photos, unless it exploded."""

MOMENT_ROWS: Final = 10_000
"""Rows of a table read by blocks that tell means and deviations."""

# Standard deviations below this part of a column's size are rounding, not variation.
_LEAST_DEVIATION = 1e-6


class BandNovelty(OutlierMixin, BaseEstimator):
    """Distance of rows from those of the fit, in units of the bound that held-out rows of the fit set.

    A row's distance in a band is the mean absolute value of its standardised columns, divided by its median over
    held-out rows; the largest of all bands counts. Absolute values rather than squares, since statistics of photos
    have heavy tails: one held-out photo that is extreme in a few columns would set a bound that pure noise, which is
    moderately odd in most of them, stays below. The bound is `MARGIN` times the conformal quantile of held-out rows:
    of new rows of the same kind, at most about ``share`` lie beyond it.

    Parameters
    ----------
    share : float in (0, 1), default=0.02
        Share of rows of the same kind that may be taken for others.
    cv : int or list of (train, test), default=5
        Folds that hold rows out; some rows may be in no test part.

    Attributes
    ----------
    center_, scale_ : float arrays of shape (n_features,)
        Means and standard deviations.
    units_, bound_ : float array of shape (n_bands,), float
        Median distance of held-out rows in each band, and in these the largest of a row that is like the others.
    n_calibration_ : int
        Held-out rows behind it.
    offset_ : float
        -1, as scikit-learn defines it: ``decision_function = score_samples - offset_``.
    """

    def __init__(self, share: float = 0.02, cv: Folds = 5) -> None:
        self.share = share
        self.cv = cv

    def fit(self, X: Table, y: ArrayLike | None = None) -> BandNovelty:
        """Learn what rows look like; a ValueError if ``share`` lies outside (0, 1), or there is one row only."""
        check_fraction("BandNovelty", "share", self.share)
        values: FloatArray = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        folds = self.cv
        if isinstance(folds, int):
            folds = KFold(min(folds, len(values)), shuffle=True, random_state=0).split(values)
        held_out = []
        for train, test in folds:
            self.center_, self.scale_ = _moments(values[train])
            held_out.append(self._by_band(values[test]))
        distances = np.concatenate(held_out)
        units = np.median(distances, axis=0)
        self.units_ = np.where(units > 0, units, 1.0)
        ordered = np.sort((distances / self.units_).max(axis=1))
        rank = int(np.ceil((len(ordered) + 1) * (1 - self.share)))
        self.bound_ = MARGIN * float(ordered[min(rank, len(ordered)) - 1]) or 1.0
        self.n_calibration_ = len(ordered)
        self.center_, self.scale_ = _moments(values)
        self.offset_ = -1.0
        return self

    def distance(self, X: Table) -> FloatArray:
        """Return how far rows are from those of the fit, shape (n_rows,); above 1 they are unlike them."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        ratios: FloatArray = (self._by_band(values) / self.units_).max(axis=1) / self.bound_
        return ratios

    def score_samples(self, X: Table) -> FloatArray:
        """Return the negative of `distance`."""
        return -self.distance(X)

    def decision_function(self, X: Table) -> FloatArray:
        """Return 1 - `distance`, negative for rows unlike those of the fit."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Table) -> IntArray:
        """Return 1 for rows like those of the fit and -1 for others."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _by_band(self, values: FloatArray) -> FloatArray:
        """Return the distance of each row in each band, shape (n_rows, n_bands)."""
        sizes = np.abs((values - self.center_) / self.scale_)
        bands = locate_bands(getattr(self, "feature_names_in_", None), values.shape[1])
        return np.column_stack([sizes[:, columns].mean(axis=1) for columns in bands.values()])

    def as_json(self) -> dict[str, Any]:
        """Return what was learned, JSON-able; numbers are rounded to what shows in no third digit of a distance."""
        check_is_fitted(self)
        return {
            "center": [float(f"{value:.11g}") for value in self.center_],
            "scale": [float(f"{value:.5g}") for value in self.scale_],
            "units": self.units_.tolist(),
            "bound": self.bound_,
            "n_calibration": self.n_calibration_,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], columns: Sequence[str]) -> BandNovelty:
        """Build the fitted estimator from `as_json` and the table's columns again; a ValueError if they do not fit."""
        found = cls()
        names = np.array(columns, dtype=object)
        n_bands = len(locate_bands(list(columns), len(columns)))
        try:
            arrays = [np.array(stored[name], dtype=np.float64) for name in ("center", "scale", "units")]
            found.bound_, found.n_calibration_ = float(stored["bound"]), int(stored["n_calibration"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"BandNovelty: incomplete, {type(error).__name__} {error}.") from error
        shapes = [array.shape for array in arrays]
        if shapes != [(len(names),), (len(names),), (n_bands,)] or not (
            all(np.isfinite(array).all() for array in arrays)
            and all((array > 0).all() for array in arrays[1:])
            and 0 < found.bound_ < np.inf
        ):
            raise ValueError(
                f"BandNovelty: the stored numbers, of shapes {shapes}, do not describe {len(names)} columns in "
                f"{n_bands} bands."
            )
        found.center_, found.scale_, found.units_ = arrays
        found.n_features_in_, found.feature_names_in_, found.offset_ = len(names), names, -1.0
        return found


def find_extreme_columns(X: Table, rows: Table) -> dict[str, float]:
    """Find columns in which rows lie so far from those of a fit ``X`` that any weight on them ruins a prediction.

    Returns the largest distance of a row by column, in standard deviations, where above `EXTREME_DEVIATIONS`; largest
    first.
    """
    fitted = X.frame(some_rows(X, MOMENT_ROWS)) if isinstance(X, BlockTable) else X
    center, scale = _moments(np.asarray(fitted, dtype=np.float64))
    distances = (np.abs(np.asarray(rows, dtype=np.float64) - center) / scale).max(axis=0, initial=0.0)
    found = np.flatnonzero(distances > EXTREME_DEVIATIONS)
    found = found[np.argsort(-distances[found], kind="stable")]
    return {str(X.columns[column]): float(distances[column]) for column in found}


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return means, and standard deviations without zeros: a constant column is measured by its own size."""
    center, scale = values.mean(axis=0), values.std(axis=0)
    size = np.abs(center)
    scale = np.where(scale > _LEAST_DEVIATION * size, scale, size)
    return center, np.where(scale > 0, scale, 1.0)
