"""Fits on a table that is read by blocks: the numbers of the table in memory, and of scikit-learn."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regressors import BandEnsemble, SubsetScorer, bands, make_folds
from regressors.bands import BlockTable, some_rows, take_columns, take_rows
from regressors.evaluation.controls import (
    find_leaking_columns,
    find_near_duplicates,
    nearest_rows,
    row_blocks,
)
from regressors.persistence import load_model, save_model
from tests.support.band_tables import ArraySource

N_ROWS = 1200
COLUMNS = [f"{band}:{k:04d}" for band in ("nss", "gist", "scene") for k in range(8)]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BLOCK_BYTES", 64 * 8 * len(COLUMNS))


@pytest.fixture(scope="module")
def stored() -> np.ndarray:
    """float16 columns of many sizes, with a dead one, one that hardly varies, and a pair alike."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(N_ROWS, 4))
    values = np.maximum(hidden @ rng.normal(size=(4, 24)) + rng.normal(size=(N_ROWS, 24)), 0)
    values *= np.exp(rng.normal(size=24))
    values[:, 3], values[:, 4], values[17, 4], values[:, 9] = 2.5, 0.0, 1.0, values[:, 10]
    return values.astype(np.float16)


@pytest.fixture(scope="module")
def frame(stored: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(stored.astype(np.float64), columns=COLUMNS)


@pytest.fixture(scope="module")
def y(stored: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return stored[:, [0, 9, 17]].astype(float) @ [0.5, 0.3, 0.2] + rng.normal(size=N_ROWS)


def table_of(stored: np.ndarray) -> BlockTable:
    return BlockTable(ArraySource(stored, COLUMNS))


def holdout() -> list[tuple[np.ndarray, np.ndarray]]:
    return make_folds(np.arange(N_ROWS, dtype=float), np.arange(N_ROWS), kind="holdout")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"members": "each", "unit_band": True, "combine": "simplex", "select_by": "rmse"},
        {"members": "all", "estimator": "banded-ridge", "alpha": [0.1, 10.0]},
        {"members": [["nss"], ["gist", "scene"]], "band_weights": [{"gist": 0.3}, {}]},
        {"cv": holdout(), "select_by": "plcc"},
        {"alpha": [1e-6, 1e4]},
        {"scale": "none", "select_by": "r2"},
    ],
    ids=["default", "each", "banded", "weighted bands", "holdout", "extreme", "unscaled"],
)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_an_ensemble_by_blocks_has_the_numbers_of_one_in_memory(
    options: dict[str, Any], is_weighted: bool, stored: np.ndarray, frame: pd.DataFrame, y: np.ndarray
) -> None:
    weights = np.random.default_rng(2).integers(0, 4, N_ROWS).astype(float) if is_weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of precision, in both
        known = BandEnsemble(**options).fit(frame, y, sample_weight=weights)
        found = BandEnsemble(**options).fit(table_of(stored), y, sample_weight=weights)
    close = {"rtol": 0, "atol": 1e-8 * np.ptp(y)}
    assert np.allclose(found.oof_predictions_, known.oof_predictions_, **close, equal_nan=True)
    assert np.allclose(found.predict(table_of(stored)), known.predict(frame), **close)
    assert np.allclose(found.predict(frame), known.predict(frame), **close)
    assert np.allclose(found.predict_members(table_of(stored)), known.predict_members(frame), **close)
    assert np.allclose(found.column_means_, known.column_means_)
    assert found.member_params_ == known.member_params_
    assert found.member_names_ == known.member_names_
    pd.testing.assert_frame_equal(found.cv_results_, known.cv_results_, rtol=1e-8)
    for own, other in zip(found.members_, known.members_, strict=True):
        assert set(vars(own[1])) == set(vars(other[1]))
        assert np.allclose(own[:-1].transform(frame.head(5)), other[:-1].transform(frame.head(5)))


def test_it_has_the_numbers_of_scikit_learn(stored: np.ndarray, frame: pd.DataFrame, y: np.ndarray) -> None:
    plain = BandEnsemble("all", reference=True).fit(frame, y)
    found = BandEnsemble("all").fit(table_of(stored), y)
    assert found.member_params_ == plain.member_params_
    assert np.abs(found.oof_predictions_ - plain.oof_predictions_).max() < 1e-8 * np.ptp(y)
    assert np.abs(found.predict(frame) - plain.predict(frame)).max() < 1e-8 * np.ptp(y)


def test_the_second_fit_on_the_same_rows_reads_less(stored: np.ndarray, y: np.ndarray) -> None:
    table = table_of(stored)
    folds = make_folds(y, np.arange(N_ROWS))
    BandEnsemble("all", cv=folds).fit(table, y)
    sums = table.shared["row sums"]
    BandEnsemble("each", cv=folds, combine="uniform").fit(table, np.random.default_rng(0).permutation(y))
    assert table.shared["row sums"] is sums
    BandEnsemble("all", cv=3).fit(table, y)
    assert table.shared["row sums"] is not sums


def test_a_model_fitted_by_blocks_is_saved_and_read_back(
    stored: np.ndarray, frame: pd.DataFrame, y: np.ndarray, tmp_path: Any
) -> None:
    model = BandEnsemble().fit(table_of(stored), y)
    save_model(tmp_path / "model.skops", model, {})
    again, _ = load_model(tmp_path / "model.skops")
    assert np.array_equal(again.predict(frame), model.predict(frame))


def test_subsets_are_scored_as_in_memory(stored: np.ndarray, frame: pd.DataFrame, y: np.ndarray) -> None:
    subsets = [["nss"], ["gist", "scene"], ["nss", "gist", "scene"]]
    model = BandEnsemble(alpha=[0.1, 10.0])
    known, found = SubsetScorer(frame, y, model), SubsetScorer(table_of(stored), y, model)
    for own, other in zip(found.score(subsets), known.score(subsets), strict=True):
        assert np.allclose(own, other, atol=1e-8)


def test_kernels_are_refused_before_anything_is_read(y: np.ndarray) -> None:
    class Unreadable(ArraySource):
        def read(self, rows: Any, columns: Any = None) -> Any:
            assert len(rows) <= 2, "only two rows may be read, for the names"
            return super().read(rows, columns)

    table = BlockTable(Unreadable(np.zeros((N_ROWS, len(COLUMNS))), COLUMNS))
    with pytest.raises(ValueError, match=r"kernel of 1,200 rows takes .* Use a ridge"):
        BandEnsemble(estimator="rbf-svr").fit(table, y)
    with pytest.raises(ValueError, match="reference=True"):
        BandEnsemble(reference=True).fit(table, y)
    with pytest.raises(ValueError, match="'ridge' and 'banded-ridge', got 'linear-svr'"):
        SubsetScorer(table, y, BandEnsemble(estimator="linear-svr"))
    with pytest.raises(TypeError, match="table in memory"):
        BandEnsemble(n_crops=2).fit(table, y)


def test_more_columns_than_training_rows_are_refused(y: np.ndarray) -> None:
    wide = BlockTable(ArraySource(np.random.default_rng(0).normal(size=(20, len(COLUMNS))), COLUMNS))
    with pytest.raises(
        ValueError, match="at least as many training rows in each fold as columns, got 16 and 24"
    ):
        BandEnsemble("all").fit(wide, y[:20])


def test_rows_and_columns_of_a_table_are_chosen_without_reading(stored: np.ndarray) -> None:
    table = table_of(stored)
    rows = np.array([5, 900, 3])
    cut = take_columns(take_rows(table, rows), ["scene:0001", "nss:0002"], names={"nss:0002": "other:0002"})
    assert cut.shape == (3, 2)
    assert list(cut.frame().columns) == ["scene:0001", "other:0002"]
    assert np.array_equal(cut.read(), stored[np.ix_(rows, [17, 2])].astype(float))
    assert list(cut.index) == [5, 900, 3]
    assert set(cut.bands) == {"scene", "other"}
    with pytest.raises(KeyError, match="scene:9999"):
        table.select(["scene:9999"])


def test_blocks_hold_every_row_once(stored: np.ndarray) -> None:
    table = table_of(stored)
    chosen = some_rows(table, 500, random_state=3)
    rows = np.concatenate([part for part, _ in table.blocks(chosen)])
    assert np.array_equal(np.sort(rows), chosen)
    for part, values in table.blocks(chosen):
        assert len(part) <= table.block_rows
        assert np.array_equal(values, stored[part].astype(float))


def test_nearest_rows_are_those_of_all_distances() -> None:
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(9000, 5)), rng.normal(size=(40, 5))
    distances, places = nearest_rows(queries, row_blocks(rows), 7)
    every = np.sqrt(((queries[:, None] - rows) ** 2).sum(axis=2))
    assert np.array_equal(places, np.argsort(every, axis=1)[:, :7])
    assert np.allclose(distances, np.sort(every, axis=1)[:, :7])


def test_leaks_and_copies_are_found_by_blocks_as_in_memory() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1500, 6)).astype(np.float16)
    mos = values[:, 2].astype(float) ** 3
    columns = [f"a:{k:04d}" for k in range(6)]
    table, frame = (
        BlockTable(ArraySource(values, columns)),
        pd.DataFrame(values.astype(float), columns=columns),
    )
    assert find_leaking_columns(table, mos) == find_leaking_columns(frame, mos)
    assert list(find_leaking_columns(table, mos)) == [2]
    judged = pd.DataFrame(rng.normal(size=(60, 6)), columns=columns)
    judged.iloc[:3] = frame.iloc[100:103].to_numpy()
    known, found = find_near_duplicates(judged, frame), find_near_duplicates(judged, table)
    assert {0, 1, 2} <= set(found.rows.tolist())
    assert np.array_equal(found.rows, known.rows)
    assert np.array_equal(found.partners, known.partners)
    assert found.ratios == pytest.approx(known.ratios, abs=1e-7)
    assert found.dimension == pytest.approx(known.dimension, rel=0.2)
