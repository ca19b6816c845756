"""Planted leaks and copies are found; clean tables, wide or narrow, even or clustered, raise no alarm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regressors.evaluation import controls
from regressors.evaluation.controls import find_leaking_columns, find_near_duplicates, find_nearest_rows

FORMS = {
    "itself": lambda y: y,
    "scaled": lambda y: 100 * y - 3,
    "reversed": lambda y: -y,
    "exponential": np.exp,
    "ranks": lambda y: np.argsort(np.argsort(y)).astype(float),
    "ten levels": lambda y: np.digitize(y, np.quantile(y, np.arange(0.1, 1.0, 0.1))).astype(float),
    "with noise": lambda y: y + 0.1 * np.random.default_rng(9).normal(size=len(y)),
}


def images(
    rng: np.random.Generator, n: int, dimension: int, n_columns: int, clustered: bool = False
) -> np.ndarray:
    """Features of ``n`` images on a curved surface of some dimension, with a little noise."""
    directions = np.random.default_rng(5).normal(size=(dimension, n_columns))
    place = rng.normal(size=(n, dimension))
    if clustered:
        place *= np.exp(rng.normal(size=(n, 1)))
    return np.tanh(place @ directions / np.sqrt(dimension)) + 0.05 * rng.normal(size=(n, n_columns))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_rows", [60, 1200])
def test_the_mos_in_a_column_is_found_in_any_monotone_form(form: str, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    y, X = rng.normal(size=n_rows), rng.normal(size=(n_rows, 300))
    X[:, 123] = FORMS[form](y)
    assert list(find_leaking_columns(X, y)) == [123]


@pytest.mark.parametrize("seed", range(20))
def test_honest_columns_raise_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_rows = int(rng.choice([20, 40, 300, 1000]))
    y = rng.normal(size=n_rows)
    # Strong columns, as a good statistic of blur gives on photos that differ in nothing but blur.
    strong = 2 * y[:, None] + rng.normal(size=(n_rows, 5))
    X = np.hstack([strong, rng.normal(size=(n_rows, 400))])
    assert find_leaking_columns(X, y) == {}


def test_with_few_rows_chance_is_not_taken_for_a_leak() -> None:
    # Of 50,000 columns on 20 rows, several rank like a good statistic by chance.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 50_000)), rng.normal(size=20)
    assert find_leaking_columns(X, y) == {}


def test_constant_columns_and_a_constant_mos_say_nothing() -> None:
    X = np.column_stack([np.ones(50), np.arange(50.0)])
    assert find_leaking_columns(X, np.arange(50.0)) == {1: 1.0}
    assert find_leaking_columns(X, np.ones(50)) == {}
    assert find_leaking_columns(X[:5], np.arange(5.0)) == {}
    with pytest.raises(ValueError, match="must have shape"):
        find_leaking_columns(X, np.arange(49.0))


@pytest.mark.parametrize("dimension", [1, 3, 10, 30])
@pytest.mark.parametrize("clustered", [False, True])
def test_clean_images_are_no_copies_in_20_seeds(dimension: int, clustered: bool) -> None:
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        every = images(rng, 260, dimension, 40, clustered)
        found += len(find_near_duplicates(every[200:], every[:200]).rows)
    assert found == 0


@pytest.mark.parametrize("dimension", [1, 3, 10, 30])
def test_copies_are_found_with_their_partner(dimension: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        every = images(rng, 260, dimension, 40)
        judged, training = every[200:], every[:200]
        judged[[7, 31]] = training[[3, 150]]
        found = find_near_duplicates(judged, training)
        assert dict(zip(found.rows, found.partners, strict=True)) == {7: 3, 31: 150}
        assert (found.ratios == 0).all()


def test_near_copies_are_found_where_features_are_rich() -> None:
    # Noise of a tenth of the spread of each column: another compression, a slight crop.
    rng = np.random.default_rng(0)
    every = images(rng, 700, 12, 300)
    judged, training = every[500:], every[:500]
    judged[:20] = training[:20] + 0.1 * training.std(axis=0) * rng.normal(size=(20, 300))
    found = find_near_duplicates(judged, training)
    assert set(found.rows) == set(range(20))
    assert (found.partners == found.rows).all()


def test_copies_inside_training_do_not_hide_copies_across() -> None:
    rng = np.random.default_rng(0)
    training = images(rng, 200, 8, 60)
    training[50:56] = training[50]  # six copies of one image: no neighbourhood is left around it
    judged = images(rng, 40, 8, 60)
    judged[4] = training[50]
    assert list(find_near_duplicates(judged, training).rows) == [4]


def test_wide_tables_are_projected_and_scales_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    every = images(rng, 300, 10, 1000)
    judged, training = every[250:], every[:250]
    judged[0] = training[9]
    scale = np.exp(5 * rng.normal(size=1000))
    plain = find_near_duplicates(judged, training)
    scaled = find_near_duplicates(pd.DataFrame(judged * scale - 1), pd.DataFrame(training * scale - 1))
    assert list(plain.rows) == list(scaled.rows) == [0]
    assert plain.partners[0] == scaled.partners[0] == 9


def test_many_rows_give_the_findings_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    every = images(rng, 4000, 20, 300)
    judged, training = every[2500:], every[:2500]
    judged[:9] = training[:9] + 0.1 * training.std(axis=0) * rng.normal(size=(9, 300))
    judged[[20, 30]] = training[[2400, 1030]]
    known, nearest = find_near_duplicates(judged, training), find_nearest_rows(judged, training)
    monkeypatch.setattr(controls, "_MAX_PAIRS", 0)
    monkeypatch.setattr(controls, "_SCREEN_BLOCK", 200)
    found = find_near_duplicates(judged, training)
    assert len(known.rows) == 11
    for name in ("rows", "partners", "ratios"):
        assert getattr(found, name).tolist() == getattr(known, name).tolist()
    assert (find_nearest_rows(judged, training) == nearest).mean() > 0.99


def test_nearest_rows_are_those_of_standardised_columns() -> None:
    rng = np.random.default_rng(0)
    training, other = rng.normal(size=(200, 6)) * np.arange(1, 7), rng.normal(size=(30, 6))
    found = find_nearest_rows(np.vstack([training[::-1] + 1e-3, other]), pd.DataFrame(training))
    assert found[:200].tolist() == list(range(200))[::-1]
    distances = np.linalg.norm((other[:, None] - training) / training.std(axis=0), axis=2)
    assert found[200:].tolist() == distances.argmin(axis=1).tolist()
    assert find_nearest_rows(other[:0], training).tolist() == []
    with pytest.raises(ValueError, match=r"find_nearest_rows: .*same columns"):
        find_nearest_rows(other, training[:, 1:])


def test_odd_tables() -> None:
    flat = np.ones((50, 3))
    assert len(find_near_duplicates(np.random.default_rng(0).normal(size=(5, 3)), flat[:10]).rows) == 0
    with pytest.raises(ValueError, match="same columns"):
        find_near_duplicates(flat, flat[:, :2])


@given(st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = images(rng, 90, 5, 20)
    judged, training = every[60:], every[:60]
    judged[3] = training[11]
    order = rng.permutation(30)
    found = find_near_duplicates(judged[order], training)
    assert order[found.rows].tolist() == [3]
