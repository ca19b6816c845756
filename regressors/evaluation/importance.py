"""Which band carries the score: parts of the prediction per band, and their shares of the explained variance.

One definition for all regressors. The part of band b in the prediction of an image is its Shapley value in the
game whose coalition S predicts with the bands of S at the image's own values and all others at their training
means. For additive regressors (ridge, linear SVR, any ensemble of them) that is the band's own term of the
sum; for the others it averages over the orders in which bands can be switched on. Either way the parts add up
to the prediction. The share of a band is the product measure of its parts, and the shares add up to the
explained variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from regressors.bands import locate_bands
from regressors.checks import Estimator, FloatArray, IntArray, Table, check_vector, check_weights

# Up to this many bands all 2 ** n_bands coalitions are predicted; above, orders are sampled.
MAX_EXACT_BANDS = 8
_N_ORDERS = 32


def band_parts(
    model: Estimator,
    X: Table,
    *,
    reference: ArrayLike | None = None,
    is_additive: bool | None = None,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Split predictions into one part per band.

    Parameters
    ----------
    model : fitted regressor
        A `BandEnsemble`, or any regressor whose ``predict`` takes ``X``.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table with string columns "band:0000"; other tables are one band.
    reference : float array of shape (n_features,), optional
        Values that stand for "band absent"; the model's ``column_means_``, or the means of ``X`` if it
        has none.
    is_additive : bool, optional
        Whether the prediction is known to be a sum of one term per band, which needs n_bands + 1 predictions
        instead of 2 ** n_bands. The model's ``is_additive_``, or False if it has none.
    random_state : int or None, default=0
        Seed of the sampled orders with more than eight bands and a model that is not additive.

    Returns
    -------
    data frame of float64 of shape (n_rows, n_bands)
        MOS points. Each row sums to the prediction of the row minus the prediction at the reference.

    Raises
    ------
    ValueError
        If ``reference`` has another length than the table has columns.

    Notes
    -----
    With more than eight bands and no additivity, Shapley values are averaged over 32 random orders and their reverses:
    the parts still sum exactly, each one with a sampling error.

    References
    ----------
    .. [1] S. Lundberg and S.-I. Lee, "A unified approach to interpreting model predictions", NeurIPS 2017,
       equation 8 and section 4 (features absent at their means).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sklearn.linear_model import LinearRegression
    >>> from regressors.evaluation.importance import band_parts
    >>> X = pd.DataFrame({"a:0000": [0.0, 1.0, 2.0], "b:0000": [1.0, 0.0, 2.0]})
    >>> model = LinearRegression().fit(X, X["a:0000"] + 10 * X["b:0000"])
    >>> band_parts(model, X).round(6).to_numpy().tolist()
    [[-1.0, 0.0], [0.0, -10.0], [1.0, 10.0]]
    """
    check_is_fitted(model)
    game = _Game(model, X, reference)
    if is_additive is None:
        is_additive = bool(getattr(model, "is_additive_", False))
    if is_additive or len(game.bands) == 1:
        values = (
            np.column_stack([game.predict(frozenset([band])) for band in game.bands]) - game.empty[:, None]
        )
    elif len(game.bands) <= MAX_EXACT_BANDS:
        values = _exact_shapley(game)
    else:
        values = _sampled_shapley(game, np.random.default_rng(random_state))
    return pd.DataFrame(
        values, columns=list(game.bands), index=X.index if isinstance(X, pd.DataFrame) else None
    )


def band_shares(
    model: Estimator,
    X: Table,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    is_additive: bool | None = None,
    random_state: int | None = 0,
) -> dict[str, float]:
    """Share of each band in the explained variance of MOS (product measure).

    With parts f_b and prediction f, all centred over the rows, and centred MOS y,

        share_b = sum(f_b * (2 y - f)) / sum(y ** 2),

    so that the shares add up to ``1 - var(y - f) / var(y)``.

    Parameters
    ----------
    model : fitted regressor
        As in `band_parts`.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS, not constant.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.
    reference, is_additive, random_state
        As in `band_parts`.

    Returns
    -------
    dict of str to float
        Share by band, at most about 1 each; a negative share says that the band makes the prediction worse. The
        sum is the explained variance, for instance `sklearn.metrics.explained_variance_score`.

    Raises
    ------
    ValueError
        If ``y`` is constant or has another length than the table.

    References
    ----------
    .. [1] J. W. Pratt, "Dividing the indivisible: using simple symmetry to partition variance explained",
       1987.
    .. [2] T. Dupre la Tour, M. Eickenberg, A. Nunez-Elizalde and J. Gallant, "Feature-space selection with
       banded ridge regression", NeuroImage 264, 2022, section 2.6 (product measure).
    """
    who = "band_shares"
    mos = check_vector(who, "y", y, min_rows=2)
    parts = band_parts(model, X, reference=reference, is_additive=is_additive, random_state=random_state)
    if len(parts) != len(mos):
        raise ValueError(f"{who}: X and y must have one length, got {len(parts)} and {len(mos)}.")
    weights = np.ones(len(mos)) if sample_weight is None else check_weights(who, sample_weight, len(mos))
    centred = mos - np.average(mos, weights=weights)
    total = float(np.sum(weights * centred**2))
    if total == 0:
        raise ValueError(f"{who}: y must vary, got {len(mos)} equal values. There is no variance to share.")
    values = parts.to_numpy()
    values = values - np.average(values, axis=0, weights=weights)
    shares = (weights * (2 * centred - values.sum(axis=1))) @ values / total
    return {band: float(share) for band, share in zip(parts.columns, shares, strict=True)}


class _Game:
    """Predictions by coalition of bands, each computed once."""

    def __init__(self, model: Estimator, X: Table, reference: ArrayLike | None) -> None:
        self._model, self._X = model, X
        values = np.asarray(X, dtype=np.float64)
        names = list(X.columns) if isinstance(X, pd.DataFrame) else None
        self.bands: Mapping[str, IntArray] = locate_bands(names, values.shape[1])
        if reference is None:
            reference = getattr(model, "column_means_", values.mean(axis=0))
        self._reference = check_vector("band_parts", "reference", reference)
        if len(self._reference) != values.shape[1]:
            raise ValueError(
                f"band_parts: reference must have one value per column, got {len(self._reference)} for "
                f"{values.shape[1]} columns."
            )
        self._values = values
        self._known: dict[frozenset[str], FloatArray] = {}
        self.empty = self.predict(frozenset())

    def predict(self, present: frozenset[str]) -> FloatArray:
        if present not in self._known:
            absent = [columns for band, columns in self.bands.items() if band not in present]
            # No image has any band in the empty coalition: one row stands for all.
            rows = self._values if present else self._values[:1]
            table = rows.copy()
            for columns in absent:
                table[:, columns] = self._reference[columns]
            if isinstance(self._X, pd.DataFrame):
                table = pd.DataFrame(table, columns=self._X.columns, index=self._X.index[: len(table)])
            predicted = np.asarray(self._model.predict(table), dtype=np.float64)
            self._known[present] = np.broadcast_to(predicted, len(self._values))
        return self._known[present]


def _exact_shapley(game: _Game) -> FloatArray:
    bands = list(game.bands)
    n = len(bands)
    values = np.zeros((len(game.empty), n))
    for k, band in enumerate(bands):
        others = [other for other in bands if other != band]
        for size in range(n):
            weight = 1 / (n * math.comb(n - 1, size))
            for coalition in combinations(others, size):
                without = frozenset(coalition)
                values[:, k] += weight * (game.predict(without | {band}) - game.predict(without))
    return values


def _sampled_shapley(game: _Game, rng: np.random.Generator) -> FloatArray:
    bands = list(game.bands)
    values = np.zeros((len(game.empty), len(bands)))
    for order in _orders(len(bands), rng):
        present: frozenset[str] = frozenset()
        before = game.empty
        for k in order:
            present |= {bands[k]}
            after = game.predict(present)
            values[:, k] += (after - before) / (2 * _N_ORDERS)
            before = after
    return values


def _orders(n_bands: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield random orders, each followed by its reverse (antithetic sampling)."""
    for _ in range(_N_ORDERS):
        order = rng.permutation(n_bands)
        yield order
        yield order[::-1]
