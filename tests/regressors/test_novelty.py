"""Rows unlike those of a fit: how many of the same kind are taken for such, and what a file must hold."""

import json

import numpy as np
import pandas as pd
import pytest

from regressors.novelty import BandNovelty


def table(n_rows: int, seed: int) -> pd.DataFrame:
    """Correlated, skewed columns on very different scales, one of them constant."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n_rows, 4)) @ np.random.default_rng(0).normal(size=(4, 30))
    values = np.exp(0.3 * mixed + 0.3 * rng.normal(size=(n_rows, 30))) * np.logspace(-6, 6, 30)
    values[:, 7] = 3.0
    return pd.DataFrame(values, columns=[f"{'ab'[k // 20]}:{k % 20:04d}" for k in range(30)])


def test_few_rows_of_the_same_kind_are_taken_for_others() -> None:
    shares = [
        np.mean(BandNovelty().fit(table(100, seed)).distance(table(200, 1000 + seed)) > 1)
        for seed in range(30)
    ]
    assert np.mean(shares) <= 0.03
    assert np.mean(np.array(shares) > 0.05) <= 0.2


def test_a_row_that_is_odd_in_one_band_alone_is_marked() -> None:
    rows = table(100, 1)
    odd = rows.iloc[:1].copy()
    odd.loc[:, "b:0000":] = (rows.mean() + 8 * rows.std())["b:0000":].to_numpy()
    novelty = BandNovelty().fit(rows)
    assert novelty.distance(odd)[0] > 1
    assert novelty.predict(rows).mean() > 0.9
    constant = rows.iloc[:1].assign(**{"a:0007": 100.0})
    assert novelty.distance(constant)[0] > 1


def test_a_training_row_that_is_extreme_in_few_columns_hides_no_row_that_is_odd_in_most() -> None:
    rng = np.random.default_rng(5)
    columns = [f"a:{k:04d}" for k in range(60)]
    rows = pd.DataFrame(rng.normal(size=(100, 60)), columns=columns)
    rows.iloc[0, :2] = 40.0
    odd = pd.DataFrame(np.where(np.arange(60) % 2, 2.5, -2.5)[None], columns=columns)
    novelty = BandNovelty().fit(rows)
    assert novelty.distance(odd)[0] > 1
    assert novelty.distance(pd.DataFrame(rng.normal(size=(200, 60)), columns=columns)).max() < 1


def test_the_file_gives_the_same_distances_and_is_checked() -> None:
    rows = table(60, 2)
    novelty = BandNovelty().fit(rows)
    stored = json.loads(json.dumps(novelty.as_json(), allow_nan=False))
    again = BandNovelty.from_json(stored, list(rows.columns))
    assert again.distance(rows) == pytest.approx(novelty.distance(rows), rel=1e-4)
    wrong = [
        {**stored, "center": stored["center"][:-1]},
        {**stored, "scale": [0.0, *stored["scale"][1:]]},
        {**stored, "units": [1.0]},
        {**stored, "center": [float("inf"), *stored["center"][1:]]},
        {**stored, "bound": -1.0},
        {name: value for name, value in stored.items() if name != "units"},
        {**stored, "center": "text"},
        {**stored, "bound": None},
    ]
    for other in wrong:
        with pytest.raises(ValueError, match=r"BandNovelty|could not convert"):
            BandNovelty.from_json(other, list(rows.columns))


def test_share_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        BandNovelty(share=0).fit(table(30, 0))
