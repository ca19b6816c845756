"""Crops as rows: the crops of an image stay together, and predictions belong to images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from regressors import BandEnsemble, band_shares, crop_rows, load_model, save_model

N_CROPS = 3


def table(n_images: int = 40, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Two bands of 2 and 3 columns a crop; MOS follows the mean crop."""
    rng = np.random.default_rng(seed)
    blocks = {"a": rng.normal(size=(n_images, N_CROPS, 2)), "b": rng.normal(size=(n_images, N_CROPS, 3))}
    columns = [f"{band}:{i:04d}" for band, block in blocks.items() for i in range(block[0].size)]
    X = pd.DataFrame(
        np.concatenate([block.reshape(n_images, -1) for block in blocks.values()], axis=1),
        columns=columns,
        index=[f"image{i}" for i in range(n_images)],
    )
    y = (
        blocks["a"].mean(axis=1).sum(axis=1)
        + blocks["b"].mean(axis=1)[:, 0]
        + 0.1 * rng.normal(size=n_images)
    )
    return X, y


@given(n_images=st.integers(1, 5), n_crops=st.integers(1, 4), width=st.integers(1, 3))
def test_rows_are_crops_in_order(n_images: int, n_crops: int, width: int) -> None:
    values = np.arange(n_images * n_crops * width, dtype=float).reshape(n_images, -1)
    frame = pd.DataFrame(values, columns=[f"a:{i:04d}" for i in range(n_crops * width)])
    rows = crop_rows(frame, n_crops)
    np.testing.assert_array_equal(rows.to_numpy(), values.reshape(n_images * n_crops, width))
    np.testing.assert_array_equal(crop_rows(values, n_crops), rows.to_numpy())
    assert list(rows.columns) == [f"a:{i:04d}" for i in range(width)]
    assert list(rows.index) == [i for i in range(n_images) for _ in range(n_crops)]


def test_columns_that_are_no_whole_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of n_crops=2"):
        crop_rows(np.zeros((3, 5)), 2)


def test_it_learns_what_a_ridge_on_the_long_table_learns() -> None:
    X, y = table()
    model = BandEnsemble("all", n_crops=N_CROPS, alpha=[2.0], combine="uniform").fit(X, y)
    long = crop_rows(X, N_CROPS).to_numpy()
    scaler = StandardScaler().fit(long)
    ridge = Ridge(2.0).fit(scaler.transform(long), np.repeat(y, N_CROPS))
    expected = ridge.predict(scaler.transform(long)).reshape(-1, N_CROPS).mean(axis=1)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-8, atol=1e-10)


def test_the_crops_of_an_image_never_meet_across_a_fold() -> None:
    """Noise repeated in all crops of an image cannot be predicted; with crops split up it would be."""
    rng = np.random.default_rng(0)
    crop = rng.normal(size=(60, 30))
    X = pd.DataFrame(np.tile(crop, N_CROPS), columns=[f"a:{i:04d}" for i in range(90)])
    y = rng.normal(size=60)
    model = BandEnsemble("all", n_crops=N_CROPS, alpha=[1e-3], combine="uniform").fit(X, y)
    assert abs(np.corrcoef(model.oof_predictions_, y)[0, 1]) < 0.35
    assert sorted(np.concatenate([test for _, test in model.folds_])) == list(range(60))
    for train, test in model.folds_:
        assert not set(train) & set(test)


def test_groups_and_given_folds_are_those_of_images() -> None:
    X, y = table()
    groups = np.arange(40) // 4
    model = BandEnsemble(n_crops=N_CROPS, alpha=[1.0]).fit(X, y, groups=groups)
    for train, test in model.folds_:
        assert not set(groups[train]) & set(groups[test])
    folds = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    given = BandEnsemble(n_crops=N_CROPS, alpha=[1.0], cv=folds).fit(X, y)
    for (train, test), (own_train, own_test) in zip(folds, given.folds_, strict=True):
        np.testing.assert_array_equal(train, own_train)
        np.testing.assert_array_equal(test, own_test)
    assert clone(given).get_params()["cv"] is not None


def test_every_output_has_one_row_for_each_image() -> None:
    X, y = table()
    model = BandEnsemble(n_crops=N_CROPS, alpha=[1.0]).fit(X, y)
    assert model.predict_members(X).shape == (40, 3)
    assert list(model.predict_members(X).index) == list(X.index)
    assert model.oof_members_.shape == (40, 3)
    np.testing.assert_allclose(model.intercept_ + model.predict_members(X) @ model.weights_, model.predict(X))
    shares = band_shares(model, X, y)
    assert set(shares) == {"a", "b"}
    explained = 1 - np.var(y - model.predict(X)) / np.var(y)
    assert sum(shares.values()) == pytest.approx(explained, abs=1e-8)


def test_a_model_file_gives_the_same_predictions(tmp_path: object) -> None:
    X, y = table()
    model = BandEnsemble(n_crops=N_CROPS, alpha=[1.0]).fit(X, y)
    save_model(tmp_path / "model.skops", model, {"kind": "test"})
    loaded, _ = load_model(tmp_path / "model.skops")
    assert loaded.n_crops == N_CROPS
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
