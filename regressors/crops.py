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

from regressors.bands import locate_bands
from regressors.blocks import BlockTable
from regressors.checks import FloatArray, Folds, Scorer, Table
from regressors.ensemble import BandEnsemble
from regressors.folds import Fold, check_folds, make_folds


def crop_rows(X: Table, n_crops: int) -> Table:
    """Cut each row into one row for each crop.

    Parameters
    ----------
    X : data frame or float array of shape (n_images, n_features)
        Every band holds the columns of its first crop, then those of the second, and so on.
    n_crops : int
        Crops of each image in every band.

    Returns
    -------
    data frame or float array of shape (n_images * n_crops, n_features / n_crops)
        The crops of an image follow each other. A frame keeps band names, numbers columns anew within each
        band, and repeats the index.

    Raises
    ------
    ValueError
        If the columns of a band cannot be cut into ``n_crops`` equal parts.
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
    members : str or list of list of str
        As `BandEnsemble`, as are all other parameters.
    n_crops : int, default=1
        Crops of each image; the columns of a band lie crop by crop.
    estimator, alpha, C, epsilon, gamma, band_weights, unit_band, combine, select_by, n_jobs, random_state, reference
        As `BandEnsemble`.
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

    Notes
    -----
    For linear members the mean prediction over crops is the prediction for the mean crop; only what is
    learned from differs from averaging first.

    References
    ----------
    .. [1] L. Agnolucci et al., "ARNIQA: Learning Distortion Manifold for Image Quality Assessment", WACV 2024.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from regressors.crops import CropEnsemble
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(60, 4)), columns=[f"a:{i:04d}" for i in range(4)])
    >>> y = X.sum(axis=1)
    >>> model = CropEnsemble(n_crops=2, alpha=[0.1]).fit(X, y)
    >>> model.predict(X).shape
    (60,)
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
        """Search, fit and combine the members on crops.

        Parameters
        ----------
        X : data frame or float array of shape (n_images, n_features)
        y : float array of shape (n_images,)
            MOS of the images.
        groups : array of shape (n_images,), optional
            Images of one group never meet across a fold.
        sample_weight : float array of shape (n_images,), optional

        Returns
        -------
        CropEnsemble
            Itself.

        Raises
        ------
        ValueError
            As `BandEnsemble.fit`, or if a band cannot be cut into crops.
        """
        if isinstance(X, BlockTable):
            raise TypeError(
                "CropEnsemble: X must be a table in memory, got one that is read by blocks, whose crops cannot be cut. "
                "Average crops first, or give a data frame."
            )
        values, mos = validate_data(
            self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2
        )
        n = self.n_crops
        rows = crop_rows(self._table(values), n)
        folds = self._image_folds(values, np.asarray(mos, dtype=np.float64), groups)
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
        """Predict the MOS of images: the mean over their crops.

        Parameters
        ----------
        X : data frame or float array of shape (n_images, n_features)

        Returns
        -------
        float64 array of shape (n_images,)

        Raises
        ------
        ValueError
            If the columns differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        return self._mean(self.crop_model_.predict(self._rows(X)))

    def predict_members(self, X: Table) -> pd.DataFrame:
        """Predict the MOS of images by each member alone: the mean over their crops.

        Parameters
        ----------
        X : data frame or float array of shape (n_images, n_features)

        Returns
        -------
        data frame of float64 of shape (n_images, n_members)

        Raises
        ------
        ValueError
            If the columns differ from those seen in `fit`, or a value is not finite.
        """
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

    def _table(self, values: np.ndarray) -> Table:
        names = getattr(self, "feature_names_in_", None)
        return values if names is None else pd.DataFrame(values, columns=names)

    def _rows(self, X: Table) -> Table:
        """Check a table of images and cut it into crops."""
        values = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return crop_rows(self._table(values), self.n_crops)

    def _image_folds(self, values: np.ndarray, mos: FloatArray, groups: ArrayLike | None) -> list[Fold]:
        if isinstance(self.cv, (int, np.integer)):
            own = np.arange(len(mos)) if groups is None else groups
            return make_folds(mos, own, n_splits=int(self.cv), random_state=self.random_state)
        folds = self.cv.split(values, mos, groups) if hasattr(self.cv, "split") else self.cv
        return check_folds(list(folds), len(mos), who="CropEnsemble: cv")

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
