"""Bands: found by name, selected in table order, standardised and weighted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from regressors.bands import WHOLE_TABLE, BandScaler, SelectBands, band_columns, locate_bands
from regressors.ensemble import BandEnsemble
from tests.support.band_tables import band_table

band_names = st.lists(st.text("abc@/:_.", min_size=1, max_size=8), min_size=1, max_size=5, unique=True)


@given(names=band_names, widths=st.lists(st.integers(1, 4), min_size=5, max_size=5), seed=st.integers(0, 99))
def test_any_name_survives_the_round_trip(names: list[str], widths: list[int], seed: int) -> None:
    columns = [f"{name}:{k:04d}" for name, width in zip(names, widths, strict=False) for k in range(width)]
    columns = list(np.random.default_rng(seed).permutation(columns))
    found = band_columns(columns)
    assert set(found) == set(names)
    assert sorted(c for own in found.values() for c in own) == sorted(columns)
    for own in found.values():
        assert own == [c for c in columns if c in own]  # table order


def test_more_than_ten_thousand_columns_are_one_band() -> None:
    assert list(band_columns([f"clip:{k:04d}" for k in range(12_000)])) == ["clip"]


def test_a_table_without_pattern_is_one_band() -> None:
    assert band_columns(["height", "width"]) == {WHOLE_TABLE: ["height", "width"]}
    assert list(locate_bands(None, 3)) == [WHOLE_TABLE]
    assert band_columns([]) == {}


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (["a:0000", "mos"], ValueError, "1 of 2 that are not, for example 'mos'"),
        (["a:0000", "a:0000"], ValueError, "'a:0000' more than once"),
        ([("a", 0), ("a", 1)], TypeError, r"must be strings.*got \('a', 0\)"),
        ([0, 1], TypeError, "got 0"),
    ],
)
def test_doubtful_columns_are_refused(columns: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        band_columns(columns)


def test_two_level_labels_are_refused_by_the_estimators() -> None:
    X = pd.DataFrame(np.eye(3), columns=pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)]))
    # scikit-learn takes such labels without a word, and then takes them in any order.
    for estimator in (SelectBands(), BandScaler(), BandEnsemble()):
        with pytest.raises(TypeError, match="got 2 levels of labels"):
            estimator.fit(X, np.arange(3.0))


def test_selection_keeps_table_order_names_and_index() -> None:
    X, _ = band_table()
    kept = SelectBands(["scene", "quality"]).fit_transform(X)
    assert kept.columns.tolist() == [c for c in X if c.startswith(("quality", "scene"))]
    assert kept.index.equals(X.index)
    np.testing.assert_array_equal(kept, X[kept.columns])


def test_selection_without_names_is_the_same_numbers() -> None:
    X, _ = band_table()
    named, bare = SelectBands(["content"]).fit(X), SelectBands(["content"], keep_names=False).fit(X)
    assert isinstance(bare.transform(X), np.ndarray)
    np.testing.assert_array_equal(named.transform(X), bare.transform(X))
    assert named.get_feature_names_out().tolist() == bare.get_feature_names_out().tolist()


def test_selection_is_in_double_precision() -> None:
    X, _ = band_table()
    assert (SelectBands().fit_transform(X.astype(np.float32)).dtypes == np.float64).all()
    assert SelectBands().fit_transform(X.to_numpy(np.float16)).dtype == np.float64


def test_selection_does_not_touch_the_table() -> None:
    X, _ = band_table()
    before = X.copy()
    chosen = SelectBands().fit_transform(X)
    BandScaler().fit_transform(chosen)
    pd.testing.assert_frame_equal(X, before)


def test_selection_knows_its_mask() -> None:
    X, _ = band_table()
    select = SelectBands(["content"]).fit(X)
    assert select.get_support().sum() == 4
    assert select.get_support(indices=True).tolist() == [6, 7, 8, 9]


def test_other_columns_or_another_order_are_refused_later() -> None:
    X, _ = band_table()
    select = SelectBands(["quality"]).fit(X)
    with pytest.raises(ValueError, match="order"):
        select.transform(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="feature names"):
        select.transform(X.rename(columns={"quality:0000": "quality:0099"}))


@pytest.mark.parametrize(
    ("bands", "error", "message"),
    [
        (["qualty"], ValueError, "got 'qualty'. Did you mean 'quality'"),
        ([], ValueError, "at least one band"),
        ("quality", TypeError, r"Write \['quality'\]"),
    ],
)
def test_unknown_bands_are_refused(bands: list, error: type[Exception], message: str) -> None:
    X, _ = band_table()
    with pytest.raises(error, match=message):
        SelectBands(bands).fit(X)


def test_an_array_has_no_band_names() -> None:
    with pytest.raises(ValueError, match="an array is one band"):
        SelectBands(["quality"]).fit(np.eye(3))


def test_a_missing_value_in_a_chosen_band_is_refused_and_elsewhere_not() -> None:
    X, _ = band_table()
    X.iloc[0, 0] = np.nan  # quality
    with pytest.raises(ValueError, match="NaN"):
        SelectBands(["quality"]).fit(X)
    assert np.isfinite(SelectBands(["content"]).fit_transform(X).to_numpy()).all()


def test_scaling_without_weights_is_standardisation() -> None:
    X, _ = band_table()
    weights = np.random.default_rng(0).integers(0, 3, size=len(X))
    for w in (None, weights):
        ours = BandScaler().fit(X, sample_weight=w).transform(X)
        np.testing.assert_array_equal(ours, StandardScaler().fit(X, sample_weight=w).transform(X))


def test_unit_bands_have_total_variance_one_whatever_their_width() -> None:
    X, _ = band_table(widths={"wide": 40, "narrow": 2})
    X["wide:0003"] = 5.0  # constant columns carry no variance
    scaled = BandScaler(unit_band=True).fit_transform(X)
    for columns in locate_bands(X.columns, X.shape[1]).values():
        assert scaled[:, columns].var(axis=0).sum() == pytest.approx(1.0)


@given(exponents=st.lists(st.floats(-1, 1), min_size=3, max_size=3), log_alpha=st.floats(-3, 3))
def test_a_band_weight_is_a_penalty_alpha_over_its_square(exponents: list[float], log_alpha: float) -> None:
    """Closed form with one penalty per column (Dupre la Tour et al. 2022, section 2.2)."""
    X, y = band_table(40)
    weights = dict(zip(["quality", "content", "scene"], 10.0 ** np.array(exponents), strict=True))
    alpha = 10.0**log_alpha
    model = make_pipeline(BandScaler(weights), Ridge(alpha)).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    penalty = np.concatenate(
        [np.full(n, alpha / weights[b] ** 2) for b, n in (("quality", 6), ("content", 4), ("scene", 3))]
    )
    coefficients = np.linalg.solve(Z.T @ Z + np.diag(penalty), Z.T @ (y - y.mean()))
    np.testing.assert_allclose(model.predict(X), y.mean() + Z @ coefficients, atol=1e-8)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weights_must_be_positive(weight: float) -> None:
    X, _ = band_table()
    with pytest.raises(ValueError, match="positive and finite"):
        BandScaler({"scene": weight}).fit(X)


def test_weights_of_unknown_bands_are_refused() -> None:
    X, _ = band_table()
    with pytest.raises(ValueError, match="Did you mean 'scene'"):
        BandScaler({"scenes": 1.0}).fit(X)
