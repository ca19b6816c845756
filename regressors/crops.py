"""The ensemble that learns from crops: every crop of an image is a row with the image's MOS.

ARNIQA and others fit their regressor on crops and average its predictions over an image. Folds are cut between
images first and carried over to crops, so the crops of one image can never meet across a fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, validate_data

from regressors.bands import BlockTable, locate_bands
from regressors.checks import FloatArray, Folds, Scorer, Table
from regressors.ensemble import BandEnsemble
from regressors.folds import resolve_folds


def crop_rows(X: Table, n_crops: int) -> Table:
    """Cut each row into one row for each crop; the crops of an image follow each other.

    Parameters
    ----------
    X : data frame or float array of shape (n_images, n_features)
        Every band holds the columns of its first crop, then those of the second, and so on. A frame keeps band names
        and repeats the index.
    n_crops : int
        Crops of each image in every band; a ValueError if a band cannot be cut into so many equal parts.

    Returns
    -------
    data frame or float array of shape (n_images * n_crops, n_features / n_crops)
    """
    if n_crops == 1:
        return X
    names = list(X.columns) if isinstance(X, pd.DataFrame) else None
    values = np.asarray(X)
    blocks, columns = [], []
    for band, positions in locate_bands(names, values.shape[1]).items():
        if len(positions) % n_crops:
            raise ValueError(
                f"crop_rows: the columns of band {band!r} must be a multiple of n_crops={n_crops}, got "
                f'{len(positions)}. Compute the band with aggregate = "concat" on a view of {n_crops} crops.'
            )
        width = len(positions) // n_crops
        blocks.append(values[:, positions].reshape(len(values) * n_crops, width))
        columns += [f"{band}:{column:04d}" for column in range(width)]
    joined = np.concatenate(blocks, axis=1)
    if not isinstance(X, pd.DataFrame):
        return joined
    return pd.DataFrame(joined, columns=columns, index=X.index.repeat(n_crops))


class CropEnsemble(BandEnsemble):
    """A `BandEnsemble` whose rows are crops; it takes and gives one row for each image.

    Parameters
    ----------
    members, estimator, alpha, C, epsilon, gamma, band_weights, unit_band, combine, select_by, n_jobs
        As `BandEnsemble`, like ``random_state`` and ``reference``.
    n_crops : int, default=1
        Crops of each image; the columns of a band lie crop by crop.
    cv : int or list of (train, test), default=5
        Folds of images.

    Attributes
    ----------
    crop_model_ : BandEnsemble
        The ensemble fitted on crops, whose other attributes are repeated here.
    oof_predictions_ : float64 array of shape (n_images,)
        Mean over the crops of their held-out predictions.
    folds_ : list of (train, test)
        Positions of images.
    column_means_ : float64 array of shape (n_features,)
        Means of the columns as given, crop by crop.
    """

    def __init__(
        self,
        members: str | Sequence[Sequence[str]] = "all+leave-one-out",
        *,
        n_crops: int = 1,
        estimator: str = "ridge",
        alpha: ArrayLike | None = None,
        C: ArrayLike | None = None,
        epsilon: ArrayLike | None = None,
        gamma: ArrayLike | None = None,
        band_weights: Sequence[Mapping[str, float]] | None = None,
        unit_band: bool = False,
        cv: Folds = 5,
        combine: str = "nnls",
        select_by: str | Scorer = "srcc",
        n_jobs: int | None = None,
        random_state: int | None = 0,
        reference: bool = False,
    ) -> None:
        super().__init__(
            members,
            estimator=estimator,
            alpha=alpha,
            C=C,
            epsilon=epsilon,
            gamma=gamma,
            band_weights=band_weights,
            unit_band=unit_band,
            cv=cv,
            combine=combine,
            select_by=select_by,
            n_jobs=n_jobs,
            random_state=random_state,
            reference=reference,
        )
        self.n_crops = n_crops

    def fit(
        self,
        X: Table,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> CropEnsemble:
        """Search, fit and combine the members on crops; parameters as `BandEnsemble.fit`, rows being images."""
        if isinstance(X, BlockTable):
            raise TypeError(
                "CropEnsemble: X must be a table in memory, got one that is read by blocks, whose crops cannot be cut. "
                "Average crops first, or give a data frame."
            )
        values, mos = validate_data(
            self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2
        )
        n = self.n_crops
        rows = crop_rows(self._named(values), n)
        folds = resolve_folds("CropEnsemble", self.cv, values, mos, groups, self.random_state)
        options = {key: value for key, value in self.get_params(deep=False).items() if key != "n_crops"}
        options["cv"] = [(self._crops_of(train), self._crops_of(test)) for train, test in folds]
        inner = BandEnsemble(**options).fit(
            rows,
            np.repeat(mos, n),
            sample_weight=None if sample_weight is None else np.repeat(np.asarray(sample_weight), n),
        )
        self.crop_model_ = inner
        self.bands_, self.members_ = inner.bands_, inner.members_
        self.member_names_, self.member_bands_ = inner.member_names_, inner.member_bands_
        self.member_params_ = inner.member_params_
        self.weights_, self.intercept_ = inner.weights_, inner.intercept_
        self.folds_, self.n_rows_ = folds, len(values)
        self.oof_predictions_ = self._mean(inner.oof_predictions_)
        self.column_means_ = values.mean(axis=0, dtype=np.float64)
        return self

    def predict(self, X: Table) -> FloatArray:
        """Predict the MOS of images, shape (n_images,): the mean over their crops."""
        check_is_fitted(self)
        return self._mean(self.crop_model_.predict(self._rows(X)))

    def predict_members(self, X: Table) -> pd.DataFrame:
        """Predict the MOS of images by each member alone, shape (n_images, n_members): the mean over their crops."""
        check_is_fitted(self)
        by_crop = self.crop_model_.predict_members(self._rows(X))
        return self._mean_members(by_crop, X.index if isinstance(X, pd.DataFrame) else None)

    @property
    def oof_members_(self) -> pd.DataFrame:
        """Held-out predictions of the members: data frame of shape (n_images, n_members), means over crops."""
        check_is_fitted(self)
        return self._mean_members(self.crop_model_.oof_members_, None)

    @property
    def cv_results_(self) -> pd.DataFrame:
        """Every candidate of every member, scored on crops; see `BandEnsemble.cv_results_`."""
        check_is_fitted(self)
        return self.crop_model_.cv_results_

    def _rows(self, X: Table) -> Table:
        """Check a table of images and cut it into crops."""
        values = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return crop_rows(self._named(values), self.n_crops)

    def _crops_of(self, images: ArrayLike) -> np.ndarray:
        """Positions of the crops of images at these positions."""
        starts = np.asarray(images, dtype=np.int64)[:, None] * self.n_crops
        return (starts + np.arange(self.n_crops)).reshape(-1)

    def _mean(self, values: FloatArray) -> FloatArray:
        """Mean over the crops of each image."""
        return values.reshape(-1, self.n_crops).mean(axis=1)

    def _mean_members(self, by_crop: pd.DataFrame, index: pd.Index | None) -> pd.DataFrame:
        values = np.column_stack([self._mean(by_crop[name].to_numpy()) for name in by_crop])
        return pd.DataFrame(values, columns=list(by_crop), index=index)
