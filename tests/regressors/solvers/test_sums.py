"""Scales, kernels and normal equations of folds against scikit-learn's scalers and plain products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from regressors import bands
from regressors.bands import BlockTable
from regressors.folds import make_folds
from regressors.solvers import sums
from regressors.solvers.sums import ALL, MAX_PARTS, FoldTable, cut_parts, measure, standardised
from regressors.solvers.systems import band_kernel
from tests.support.band_tables import ArraySource

N = 40
BANDS = {"a": np.arange(6), "b": np.array([6, 9, 11]), "c": np.array([7, 8, 10])}
FOLDS = {
    "partition": [(np.arange(10, N), np.arange(10)), (np.arange(30), np.arange(30, N))],
    "overlap": [(np.arange(25), np.arange(25, N)), (np.arange(20), np.arange(30, N))],
    "small": [(np.arange(8), np.arange(8, 20))],
    "repeats": [(np.arange(20).repeat(2), np.arange(20, N))],
    "many": [(np.delete(np.arange(N), [n, (n + 7) % N]), np.array([n])) for n in range(N)],
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
        None if weighted == "no" else weights,
        scaling,
    )


def scaled(table: FoldTable, fold: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Standardised training and test rows by scikit-learn; exactly constant columns at zero on both sides."""
    train, test = table.folds[fold]
    X = table.features
    if table.scaling == "range":
        scaler: Any = MinMaxScaler().fit(X[train])
    elif table.scaling == "quartiles":
        scaler = RobustScaler().fit(X[train])
    else:
        weights = None if table.weight is None else table.weight[train]
        scaler = StandardScaler().fit(X[train], sample_weight=weights)
    return scaler.transform(X[table.train_rows(fold)]), scaler.transform(X[test]), scaler


def weights_of(table: FoldTable, fold: int) -> np.ndarray:
    weights = table.train_weights(fold)
    return np.ones(len(table.train_rows(fold))) if weights is None else weights


def close(actual: np.ndarray, desired: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * np.abs(desired).max(initial=1e-300))


@pytest.mark.parametrize("weighted", ["no", "both"])
@pytest.mark.parametrize("folds", FOLDS)
def test_scales_are_the_scalers(folds: str, weighted: str) -> None:
    table = table_of(folds, weighted)
    for fold in range(len(table.folds)):
        _, _, scaler = scaled(table, fold)
        scale = measure(table).scales[fold]
        np.testing.assert_allclose(scale.mean, scaler.mean_, rtol=1e-12, atol=1e-15)
        used = scale.factor > 0
        np.testing.assert_allclose(1 / scale.factor[used], scaler.scale_[used], rtol=1e-9)
        np.testing.assert_array_equal(scaler.var_[~used] <= 1e-25, True)
        np.testing.assert_array_equal(scale.varies, scaler.scale_ == np.sqrt(scaler.var_))


@pytest.mark.parametrize("scaling", ["range", "quartiles"])
def test_ranges_and_quartiles_are_the_scalers(scaling: str) -> None:
    table = table_of("partition", "no", scaling)
    for fold in range(2):
        _, _, scaler = scaled(table, fold)
        scale = measure(table).scales[fold]
        used = scale.factor > 0
        expected = scaler.scale_ if scaling == "range" else 1 / scaler.scale_
        np.testing.assert_allclose(scale.factor[used], expected[used], rtol=1e-12)
        np.testing.assert_array_equal(np.ptp(table.matrix[table.folds[fold][0]][:, ~used], axis=0), 0)


@pytest.mark.parametrize("scaling", ["deviation", "range"])
@pytest.mark.parametrize("weighted", ["no", "both"])
@pytest.mark.parametrize("folds", FOLDS)
def test_kernels_are_inner_products_about_the_weighted_mean(folds: str, weighted: str, scaling: str) -> None:
    if weighted == "both" and scaling == "range":
        pytest.skip("the MinMaxScaler takes no weights")
    table = table_of(folds, weighted, scaling)
    measures = measure(table)
    for fold in range(len(table.folds))[:3]:
        weights = weights_of(table, fold)
        every_train, every_test, _ = scaled(table, fold)
        for band, columns in BANDS.items():
            train, test = every_train[:, columns], every_test[:, columns]
            centre = weights @ train / weights.sum()
            train, test = train - centre, test - centre
            kernel = band_kernel(table, band, fold, measures.centres[fold], measures.scales[fold])
            close(kernel.train, train @ train.T, 1e-8)
            # What is constant on the training rows shows in no inner product, but in the norms.
            varies = np.ptp(train, axis=0) > 0
            close(kernel.test, test[:, varies] @ train[:, varies].T, 1e-8)
            close(kernel.test_norms, (test**2).sum(axis=1), 1e-8)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("weighted", ["no", "both"])
@pytest.mark.parametrize("folds", FOLDS)
def test_normal_equations_of_folds_are_plain_products(
    folds: str, weighted: str, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "PRODUCT_BYTES", 1000)  # in several blocks
    table = table_of(folds, weighted)
    columns = np.sort(np.concatenate([BANDS["a"], BANDS["b"]]))
    measures = measure(table)
    measures.sums.multiply(columns[:3])
    measures.sums.multiply(columns, stored=stored)
    for fold in range(len(table.folds))[:3]:
        scale = measures.scales[fold]
        normal = measures.sums.normal(fold, measures.target, scale.factor)
        np.testing.assert_array_equal(normal.columns, columns)
        weights, y = weights_of(table, fold), table.y[table.train_rows(fold)]
        train, test, _ = scaled(table, fold)
        used = scale.factor[columns] > 0
        centre = weights @ train / weights.sum()
        train, test = (train - centre)[:, columns][:, used], (test - centre)[:, columns][:, used]
        y_mean = weights @ y / weights.sum()
        assert normal.y_mean == pytest.approx(y_mean, rel=1e-12)
        close(normal.gram[np.ix_(used, used)], (train * weights[:, None]).T @ train)
        close(normal.right[used], train.T @ (weights * (y - y_mean)))
        np.testing.assert_array_equal(normal.gram[~used], 0)
        found = standardised(table, table.folds[fold][1], columns, measures.centres[fold], scale)
        close(found[:, used], test, 1e-9)


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BLOCK_BYTES", 64 * 8 * 6)


def hard_columns(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """Plain, far from zero, constant, nearly so, of tiny size, and with one outlier."""
    values = rng.normal(size=(n_rows, 6))
    values[:, 1] = 1e6 + values[:, 1]
    values[:, 2] = 0.1
    values[:, 3] = 0.0
    values[7, 3] = 1.0
    values[:, 4] *= 1e-30
    values[11, 5] = 1e6
    return values


def fold_table(
    values: np.ndarray, y: np.ndarray, folds: Any, weights: Any = None, *, kind: str = "blocks"
) -> FoldTable:
    X = (
        BlockTable(ArraySource(values, [f"a:{k:04d}" for k in range(values.shape[1])]))
        if kind == "blocks"
        else values
    )
    return FoldTable(X, y, {"a": np.arange(values.shape[1])}, folds, weights)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("kind", ["blocks", "array"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_every_fold_has_the_moments_of_its_own_rows(is_weighted: bool, kind: str) -> None:
    rng = np.random.default_rng(0)
    values, y = hard_columns(rng, 500), rng.normal(size=500) + 50
    weights = rng.integers(0, 3, 500).astype(float) if is_weighted else None
    folds = make_folds(y, np.arange(500), n_splits=4)
    measures = measure(fold_table(values, y, folds, weights, kind=kind))
    measures.sums.multiply(np.arange(6))
    for fold, (train, _) in enumerate([*folds, (np.arange(500), None)]):
        fold = ALL if fold == 4 else fold
        own = np.ones(len(train)) if weights is None else weights[train]
        mean = np.average(values[train], axis=0, weights=own)
        about, y_mean = values[train] - mean, np.average(y[train], weights=own)
        scale, found = measures.scales[fold], measures.sums.normal(fold, measures.target, np.ones(6))
        assert scale.mean == pytest.approx(mean, rel=1e-14)
        gram = (about * own[:, None]).T @ about
        size = np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
        largest = np.abs(values).max(axis=0)
        rounding = 1e-16 * np.outer(largest, largest)  # of columns that do not vary
        assert np.all(np.abs(found.gram - gram) <= 1e-9 * size + rounding)
        right = (own * (y[train] - y_mean)) @ about
        assert np.all(np.abs(found.right - right) <= 1e-9 * np.sqrt(np.diagonal(gram)) * len(train) + 1e-12)
        scaler = StandardScaler().fit(values[train], sample_weight=own)
        assert np.where(scale.varies, np.sqrt(scale.variance), 1.0) == pytest.approx(scaler.scale_, rel=1e-10)
        assert scale.factor[2] == 0
        # The only row that differs may be a test row: then the column is constant here.
        seen = values[train][own > 0, 3]
        assert (scale.factor[3] == 0) == (seen == seen[0]).all()


@pytest.mark.parametrize("kind", ["blocks", "array"])
def test_an_outlier_among_the_tested_rows_leaves_no_trace(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 2))
    folds = make_folds(values[:, 0], np.arange(400), n_splits=4)
    y, found = rng.normal(size=400), []
    for outlier in (0.0, 1e12):
        spoiled = values.copy()
        spoiled[folds[0][1][0]] += outlier
        measures = measure(fold_table(spoiled, y, folds, kind=kind))
        measures.sums.multiply(np.arange(2))
        found.append(measures.sums.normal(0, measures.target, measures.scales[0].factor))
    assert np.array_equal(found[0].gram, found[1].gram)
    assert np.array_equal(found[0].right, found[1].right)


def test_rows_are_cut_by_the_folds_that_train_on_them() -> None:
    folds = [(np.array([0, 1, 2]), np.array([3])), (np.array([2, 3]), np.array([0]))]
    parts = cut_parts(fold_table(np.zeros((5, 1)), np.zeros(5), folds), None)
    groups = {tuple(rows.tolist()) for rows in parts.rows}
    assert groups == {(0, 1), (2,), (3,), (4,)}
    for fold, train in enumerate([train for train, _ in folds] + [np.arange(5)]):
        rows = np.concatenate([parts.rows[part] for part in parts.trained[fold]])
        assert sorted(rows.tolist()) == train.tolist()


def test_folds_that_cut_rows_into_crumbs_are_refused_out_of_core_and_summed_alone_in_memory() -> None:
    rng = np.random.default_rng(0)
    folds = [(np.sort(rng.permutation(400)[:200]), np.array([0])) for _ in range(10)]
    values = rng.normal(size=(400, 1))
    with pytest.raises(ValueError, match=f"at most {MAX_PARTS} parts"):
        cut_parts(fold_table(values, values[:, 0], folds), None)
    parts = cut_parts(fold_table(values, values[:, 0], folds, kind="array"), None)
    assert parts.trained == [[part] for part in range(11)]


def test_values_that_are_not_finite_are_refused_by_the_name_of_their_column() -> None:
    values = np.ones((100, 3))
    values[50, 1] = np.nan
    folds = make_folds(np.arange(100.0), np.arange(100), n_splits=2)
    with pytest.raises(ValueError, match="a:0001"):
        measure(fold_table(values, np.ones(100), folds))
