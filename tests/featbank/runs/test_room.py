"""Tables in memory, by blocks, or refused: which, and in what words."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.errors import RunError
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import INTERVAL_ROWS, MANY_ROWS
from featbank.runs.fit import FitOptions, _subsamples, choose_blocks
from featbank.table import Band, resolve_band
from regressors.solvers.resources import default_limit_gb, in_memory_gb, kernel_gb
from tests.support.imported_run import prepare


@pytest.fixture
def run(tmp_path: Path) -> tuple[ImageTable, Recipe, list[Band]]:
    table, recipe, bank = prepare(tmp_path)
    return table, recipe, bands_of(bank, table, recipe)


def bands_of(bank: Bank, table: ImageTable, recipe: Recipe) -> list[Band]:
    return [resolve_band(bank, table, band.name, band.encoder) for band in recipe.bands]


def test_a_table_with_room_is_fitted_in_memory(run: tuple[ImageTable, Recipe, list[Band]]) -> None:
    table, recipe, bands = run
    assert not choose_blocks("fit", table, bands, recipe.regression)
    assert not choose_blocks("fit", table, bands, recipe.regression, FitOptions(memory_limit_gb=4))


def test_blocks_without_room_are_refused(run: tuple[ImageTable, Recipe, list[Band]]) -> None:
    table, recipe, bands = run
    with pytest.raises(
        RunError, match=r"fit: 160 images x 25 columns read by blocks take .* Raise --memory-limit"
    ):
        choose_blocks("fit", table, bands, recipe.regression, FitOptions(memory_limit_gb=1e-5))


def test_kernels_without_room_are_refused(run: tuple[ImageTable, Recipe, list[Band]]) -> None:
    table, recipe, bands = run
    for regression, estimators in (
        (replace(recipe.regression, estimator="rbf-svr"), ()),
        (recipe.regression, ("linear-svr",)),
    ):
        with pytest.raises(
            RunError, match=r"svr on 96 training images needs kernels of .* Use estimator = .ridge."
        ):
            choose_blocks("fit", table, bands, regression, FitOptions(memory_limit_gb=1e-5), estimators)


def test_what_only_memory_can_do_is_refused_by_name(run: tuple[ImageTable, Recipe, list[Band]]) -> None:
    table, recipe, bands = run
    limit = in_memory_gb(160, 25) / 2
    crops = replace(recipe.regression, rows="crops")
    svr = replace(recipe.regression, estimator="linear-svr")
    assert kernel_gb(96) < limit
    for regression, reference, words in (
        (crops, False, "rows = .crops. takes no other way"),
        (recipe.regression, True, "--reference takes no other way"),
        (svr, False, "linear-svr takes no other way"),
    ):
        with pytest.raises(RunError, match=words):
            choose_blocks(
                "fit", table, bands, regression, FitOptions(memory_limit_gb=limit, reference=reference)
            )


def test_sizes_follow_from_rows_and_columns() -> None:
    assert in_memory_gb(1_000_000, 512) == pytest.approx(0.4 + 1.7 + 6 * 4.096)
    assert kernel_gb(100_000) == pytest.approx(160)
    assert default_limit_gb() > 0


def test_parts_are_described_only_where_there_are_some() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    assert _subsamples(frame, {"test": {"n": MANY_ROWS}, "exclusive": None}) == ({}, [])
    sizes, [note] = _subsamples(frame, {"test": {"n": 10 * MANY_ROWS}})
    assert sizes == {"intervals": INTERVAL_ROWS}
    assert f"{INTERVAL_ROWS:,} drawn ones" in note
