"""Sums by parts against numpy on whole columns, on tables that cost naive sums their digits."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from regressors import blocks
from regressors.blocks import ArraySource, BlockTable
from regressors.folds import make_folds
from regressors.shared.row_sums import MAX_PARTS, Parts, RowSums


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64 * 8 * 6)


def table_of(values: np.ndarray) -> BlockTable:
    return BlockTable(ArraySource(values, [f"a:{k:04d}" for k in range(values.shape[1])]))


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


@pytest.mark.parametrize("is_weighted", [False, True])
def test_every_fold_has_the_moments_of_its_own_rows(is_weighted: bool) -> None:
    rng = np.random.default_rng(0)
    values, y = hard_columns(rng, 500), rng.normal(size=500) + 50
    weights = rng.integers(0, 3, 500).astype(float) if is_weighted else None
    folds = make_folds(y, np.arange(500), n_splits=4)
    table = table_of(values)
    parts = Parts.cut(folds, 500, weights)
    sums = RowSums(table, parts, weights)
    target = sums.against(table, y)
    for fold, (train, _) in enumerate(folds):
        own = np.ones(len(train)) if weights is None else weights[train]
        mean = np.average(values[train], axis=0, weights=own)
        about, y_mean = values[train] - mean, np.average(y[train], weights=own)
        found = sums.join(target, parts.trained[fold])
        assert found.n_rows == np.count_nonzero(own)
        assert found.mean == pytest.approx(mean, rel=1e-14)
        gram = (about * own[:, None]).T @ about
        size = np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
        largest = np.abs(values).max(axis=0)
        rounding = 1e-16 * np.outer(largest, largest)  # of columns that do not vary
        assert np.all(np.abs(found.gram - gram) <= 1e-9 * size + rounding)
        right = (own * (y[train] - y_mean)) @ about
        assert np.all(np.abs(found.right - right) <= 1e-9 * np.sqrt(np.diagonal(gram)) * len(train) + 1e-12)
        scaler = StandardScaler().fit(values[train], sample_weight=own)
        scale = found.scale(np.arange(6))
        assert np.where(scale.varies, np.sqrt(scale.variance), 1.0) == pytest.approx(scaler.scale_, rel=1e-10)
        assert scale.factor[2] == 0
        # The only row that differs may be a test row: then the column is constant here.
        seen = values[train][own > 0, 3]
        assert (scale.factor[3] == 0) == (seen == seen[0]).all()


def test_an_outlier_among_the_tested_rows_leaves_no_trace() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 2))
    folds = make_folds(values[:, 0], np.arange(400), n_splits=4)
    y = rng.normal(size=400)
    clean = table_of(values.copy())
    values[folds[0][1][0]] = 1e12
    spoiled = table_of(values)
    moments = []
    for table in (clean, spoiled):
        parts = Parts.cut(folds, 400)
        sums = RowSums(table, parts, None)
        moments.append(sums.join(sums.against(table, y), parts.trained[0]))
    assert np.array_equal(moments[0].gram, moments[1].gram)
    assert np.array_equal(moments[0].mean, moments[1].mean)


def test_rows_are_cut_by_the_folds_that_train_on_them() -> None:
    folds = [(np.array([0, 1, 2]), np.array([3])), (np.array([2, 3]), np.array([0]))]
    parts = Parts.cut(folds, 5)
    groups = {tuple(rows.tolist()) for rows in parts.rows}
    assert groups == {(0, 1), (2,), (3,), (4,)}
    for fold, (train, _) in enumerate(folds):
        rows = np.concatenate([parts.rows[part] for part in parts.trained[fold]])
        assert sorted(rows.tolist()) == train.tolist()


def test_folds_that_cut_rows_into_crumbs_are_refused() -> None:
    rng = np.random.default_rng(0)
    folds = [(np.sort(rng.permutation(400)[:200]), np.array([0])) for _ in range(10)]
    with pytest.raises(ValueError, match=f"at most {MAX_PARTS} parts"):
        Parts.cut(folds, 400)


def test_values_that_are_not_finite_are_refused_by_the_name_of_their_column() -> None:
    values = np.ones((100, 3))
    values[50, 1] = np.nan
    folds = make_folds(np.arange(100.0), np.arange(100), n_splits=2)
    with pytest.raises(ValueError, match="a:0001"):
        RowSums(table_of(values), Parts.cut(folds, 100), None)
