"""Standardised columns, kernels and Gram matrices of folds against the scaler and plain products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from regressors.shared import shared_gram
from regressors.shared.column_scale import ColumnScale, join_scales, learn_scale
from regressors.shared.fold_table import FoldTable
from regressors.shared.shared_gram import SharedGram

N = 40
BANDS = {"a": np.arange(6), "b": np.array([6, 9, 11]), "c": np.array([7, 8, 10])}
FOLDS = {
    "partition": [(np.arange(10, N), np.arange(10)), (np.arange(30), np.arange(30, N))],
    "overlap": [(np.arange(25), np.arange(25, N)), (np.arange(20), np.arange(30, N))],
    "small": [(np.arange(8), np.arange(8, 20))],
    "repeats": [(np.arange(20).repeat(2), np.arange(20, N))],
}


def features(rng: np.random.Generator) -> np.ndarray:
    X = rng.normal(size=(N, 12)) * np.exp(3 * rng.normal(size=12)) + 10 * rng.normal(size=12)
    X[:, 1] = 2.5  # constant
    X[:, 2] = 0.0
    X[2, 2] = 7.0  # constant in some folds
    X[:, 3] = X[:, 4]  # repeated
    X[:, 5] += 1e7  # far from zero
    X[:, 6] = 1e-6 * rng.normal(size=N)
    X[3, 6] = 1e4  # nearly all of its variance in one row
    return X


def table_of(folds: str, weighted: str, scaling: str = "deviation") -> FoldTable:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, size=N).astype(float)
    weights[[0, 15, 35]] = 2.0
    return FoldTable(
        features(rng),
        rng.normal(size=N),
        BANDS,
        FOLDS[folds],
        None if weighted in ("no", "fit") else weights,
        None if weighted == "no" else weights,
        scaling,
    )


def scaled(table: FoldTable, band: str, fold: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Standardised training and test rows by scikit-learn; exactly constant columns at zero on both sides."""
    train, test = table.folds[fold]
    X = table.features[:, table.bands[band]]
    if table.scaling == "range":
        scaler: Any = MinMaxScaler().fit(X[train])
    else:
        weights = None if table.scale_weight is None else table.scale_weight[train]
        scaler = StandardScaler().fit(X[train], sample_weight=weights)
    return scaler.transform(X[table.train_rows(fold)]), scaler.transform(X[test]), scaler


def learned(table: FoldTable, band: str, fold: int, how: str) -> ColumnScale:
    """The scales of a fold: from its own rows, or from sums shared with the others, in two runs of columns."""
    width = len(table.bands[band])
    if how == "own rows":
        rows, columns = table.folds[fold][0], table.bands[band]
        weights = None if table.scale_weight is None else table.scale_weight[rows]

        def cut(rows: np.ndarray, part: slice) -> np.ndarray:
            return table.features[np.ix_(rows, columns[part])]

        return learn_scale(cut, width, rows, weights, scaling=table.scaling)
    return join_scales([table.column_scales(band, part)[fold] for part in (slice(0, 2), slice(2, width))])


def close(actual: np.ndarray, desired: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * np.abs(desired).max(initial=1e-300))


@pytest.mark.parametrize("how", ["own rows", "shared sums"])
@pytest.mark.parametrize("weighted", ["no", "both"])
@pytest.mark.parametrize("folds", FOLDS)
def test_scales_are_the_scalers(folds: str, weighted: str, how: str) -> None:
    table = table_of(folds, weighted)
    for fold in range(len(table.folds)):
        for band in BANDS:
            _, _, scaler = scaled(table, band, fold)
            scale = learned(table, band, fold, how)
            np.testing.assert_allclose(scale.mean, scaler.mean_, rtol=1e-12, atol=1e-15)
            used = scale.factor > 0
            np.testing.assert_allclose(1 / scale.factor[used], scaler.scale_[used], rtol=1e-9)
            np.testing.assert_array_equal(scaler.var_[~used] <= 1e-25, True)
            np.testing.assert_array_equal(scale.varies, scaler.scale_ == np.sqrt(scaler.var_))


@pytest.mark.parametrize("how", ["own rows", "shared sums"])
def test_ranges_are_the_scalers(how: str) -> None:
    table = table_of("partition", "no", "range")
    for fold in range(2):
        for band in BANDS:
            _, _, scaler = scaled(table, band, fold)
            scale = learned(table, band, fold, how)
            used = scale.factor > 0
            np.testing.assert_allclose(scale.factor[used], scaler.scale_[used], rtol=1e-12)
            np.testing.assert_array_equal(scaler.data_range_[~used], 0)


@pytest.mark.parametrize("scaling", ["deviation", "range"])
@pytest.mark.parametrize("weighted", ["no", "both", "fit"])
@pytest.mark.parametrize("folds", FOLDS)
def test_kernels_are_inner_products_about_the_weighted_mean(folds: str, weighted: str, scaling: str) -> None:
    if weighted == "both" and scaling == "range":
        pytest.skip("the MinMaxScaler takes no weights")
    table = table_of(folds, weighted, scaling)
    for fold in range(len(table.folds)):
        weights = table.train_weights(fold)
        for band in BANDS:
            train, test, _ = scaled(table, band, fold)
            centre = weights @ train / weights.sum()
            train, test = train - centre, test - centre
            kernel = table.kernel(band, fold, learned(table, band, fold, "shared sums"))
            close(kernel.train, train @ train.T, 1e-8)
            # What is constant on the training rows shows in no inner product, but in the norms.
            varies = np.ptp(train, axis=0) > 0
            close(kernel.test, test[:, varies] @ train[:, varies].T, 1e-8)
            close(kernel.test_norms, (test**2).sum(axis=1), 1e-8)


@pytest.mark.parametrize("stored", ["all parts", "no part", "one at a time"])
@pytest.mark.parametrize("weighted", ["no", "both", "fit"])
@pytest.mark.parametrize("folds", FOLDS)
def test_gram_matrices_of_folds_are_plain_products(
    folds: str, weighted: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stored == "one at a time":
        monkeypatch.setattr(shared_gram, "_MAX_STORED_BYTES", 0)
    table = table_of(folds, weighted)
    chosen = ["a", "b"]
    gram = SharedGram(table, chosen, stored=stored != "no part")
    np.testing.assert_array_equal(gram.columns(["b"]), [6, 7, 8])
    for fold in range(len(table.folds)):
        scales = {band: learned(table, band, fold, "shared sums") for band in chosen}
        normal = gram.fold(fold, scales)
        weights, target = table.train_weights(fold), table.y[table.train_rows(fold)]
        parts = [scaled(table, band, fold)[:2] for band in chosen]
        train, test = (np.hstack([part[side] for part in parts]) for side in (0, 1))
        used = np.concatenate([scales[band].factor > 0 for band in chosen])
        centre = weights @ train / weights.sum()
        train, test = (train - centre)[:, used], (test - centre)[:, used]
        y_mean = weights @ target / weights.sum()
        assert normal.y_mean == pytest.approx(y_mean, rel=1e-12)
        close(normal.gram[np.ix_(used, used)], (train * weights[:, None]).T @ train)
        close(normal.right[used], train.T @ (weights * (target - y_mean)))
        close(normal.test[:, used], test, 1e-9)
        np.testing.assert_array_equal(normal.gram[~used], 0)
