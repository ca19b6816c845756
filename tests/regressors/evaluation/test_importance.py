"""Band importance: parts sum to the prediction, shares to the explained variance, for every estimator."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression
from sklearn.metrics import explained_variance_score

from regressors.ensemble import BandEnsemble
from regressors.evaluation import comparison
from regressors.evaluation.comparison import band_parts, band_shares
from regressors.pipelines import ESTIMATORS
from tests.support.band_tables import band_table


def small(estimator: str, **parameters: object) -> BandEnsemble:
    grids: dict[str, object] = {"alpha": [1.0], "C": [1.0], "epsilon": [0.1], "gamma": [0.3]}
    if estimator == "banded-ridge":
        grids["band_weights"] = [{"scene": 0.3}]
    return BandEnsemble(estimator=estimator, cv=2, **(grids | parameters))


class Product(RegressorMixin, BaseEstimator):
    """A regressor that is nothing but interaction: the product of the bands' first columns."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: pd.DataFrame, y: np.ndarray | None = None) -> Product:
        return self

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        return X.filter(like=":0000").prod(axis=1).to_numpy()


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request: pytest.FixtureRequest) -> tuple[BandEnsemble, pd.DataFrame, np.ndarray]:
    X, y = band_table(80)
    return small(request.param).fit(X, y, sample_weight=np.arange(1, 81)), X, y


def test_parts_sum_to_the_prediction(fitted: tuple) -> None:
    model, X, _ = fitted
    parts = band_parts(model, X)
    at_means = model.predict(pd.DataFrame([model.column_means_], columns=X.columns))
    assert parts.columns.tolist() == list(model.bands_)
    assert parts.index.equals(X.index)
    np.testing.assert_allclose(parts.sum(axis=1), model.predict(X) - at_means, atol=1e-10)


def test_shares_sum_to_the_explained_variance(fitted: tuple) -> None:
    model, X, y = fitted
    weights = np.random.default_rng(0).integers(1, 4, size=len(y))
    for w in (None, weights):
        shares = band_shares(model, X, y, sample_weight=w)
        expected = explained_variance_score(y, model.predict(X), sample_weight=w)
        assert sum(shares.values()) == pytest.approx(expected, abs=1e-10)


def test_the_band_with_the_signal_has_the_share_and_noise_has_none(fitted: tuple) -> None:
    model, X, y = fitted
    shares = band_shares(model, X, y)
    assert shares["quality"] > shares["content"] > abs(shares["scene"])
    assert abs(shares["scene"]) < 0.08


def test_the_short_cut_for_additive_models_is_the_long_way(fitted: tuple) -> None:
    model, X, _ = fitted
    if model.is_additive_:
        np.testing.assert_allclose(band_parts(model, X), band_parts(model, X, is_additive=False), atol=1e-10)
    else:
        assert np.abs(band_parts(model, X) - band_parts(model, X, is_additive=True)).to_numpy().max() > 1e-6


def test_linear_parts_are_the_terms_of_the_sum() -> None:
    X, y = band_table(60)
    model = LinearRegression().fit(X, y)
    centred = X - X.mean()
    for is_additive in (True, False):
        parts = band_parts(model, X, is_additive=is_additive)
        for band in parts:
            own = [k for k, column in enumerate(X) if column.startswith(band)]
            np.testing.assert_allclose(parts[band], centred.iloc[:, own] @ model.coef_[own], atol=1e-9)


def test_shapley_values_are_means_over_orders() -> None:
    """The definition, order by order, on a regressor that is all interaction."""
    X, _ = band_table(5)
    reference = np.linspace(-1, 1, X.shape[1])
    bands = ["quality", "content", "scene"]

    def predict(present: set[str]) -> np.ndarray:
        table = X.copy()
        for k, column in enumerate(X):
            if column.split(":")[0] not in present:
                table[column] = reference[k]
        return Product().predict(table)

    expected = pd.DataFrame(0.0, index=X.index, columns=bands)
    for order in permutations(bands):
        for k, band in enumerate(order):
            step = predict(set(order[: k + 1])) - predict(set(order[:k]))
            expected[band] += step / math.factorial(len(bands))
    np.testing.assert_allclose(band_parts(Product(), X, reference=reference), expected, atol=1e-9)


def test_sampled_orders_keep_the_sum_and_come_near(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(40)
    model = small("rbf-svr", members="all").fit(X, y)
    exact = band_parts(model, X)
    monkeypatch.setattr(comparison, "MAX_EXACT_BANDS", 2)
    sampled = band_parts(model, X)
    np.testing.assert_allclose(sampled.sum(axis=1), exact.sum(axis=1), atol=1e-10)
    assert np.abs(sampled - exact).to_numpy().max() < 0.15 * np.abs(exact).to_numpy().max()
    pd.testing.assert_frame_equal(sampled, band_parts(model, X, random_state=0))


def test_an_array_is_one_band_with_the_whole_share() -> None:
    X, y = band_table(40)
    values = X.to_numpy()
    model = small("ridge").fit(values, y)
    shares = band_shares(model, values, y)
    assert shares == {"features": pytest.approx(explained_variance_score(y, model.predict(values)))}


def test_a_reference_of_another_width_is_refused() -> None:
    X, y = band_table(40)
    model = LinearRegression().fit(X, y)
    with pytest.raises(ValueError, match="one value per column, got 3 for 13"):
        band_parts(model, X, reference=[0.0, 0.0, 0.0])


def test_there_must_be_variance_to_share() -> None:
    X, y = band_table(40)
    model = LinearRegression().fit(X, y)
    with pytest.raises(ValueError, match="y must vary"):
        band_shares(model, X, np.ones(40))
    with pytest.raises(ValueError, match="one length, got 40 and 39"):
        band_shares(model, X, y[1:])
