"""Random splits keep groups whole and differ; summaries are those of numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from regressors.evaluation.comparison import draw_splits, summarise_scores


def test_splits_are_disjoint_whole_and_different() -> None:
    splits = draw_splits(50, n_splits=20)
    assert len(splits) == 20
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(50))
        assert len(test) == 10
    assert len({tuple(test) for _, test in splits}) == 20


def test_groups_stay_on_one_side() -> None:
    groups = np.repeat(np.arange(20), 5)
    for train, test in draw_splits(100, groups, n_splits=10):
        assert not set(groups[train]) & set(groups[test])
        assert len(test) == 20


def test_the_seed_decides() -> None:
    first, same, other = (draw_splits(30, n_splits=3, random_state=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_splits": 0}, "n_splits must be at least 1"),
        ({"test_size": 1.0}, "test_size must lie between"),
        ({"groups": [1, 2]}, r"groups must have shape \(10,\)"),
        ({"groups": [1] * 10}, "at least 2 groups, got 1"),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_splits(10, **options)


def test_the_summary_is_that_of_the_repetitions() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"size": np.repeat([10, 20], 50), "srcc": rng.normal(size=100), "mae": rng.normal(size=100)}
    )
    table.loc[3, "srcc"] = np.nan
    summary = summarise_scores(table, ["srcc", "mae"], by="size").set_index(["size", "metric"])
    first = table.loc[(table["size"] == 10), "srcc"].dropna()
    row = summary.loc[(10, "srcc")]
    assert (row["n"], row["undefined"]) == (49, 1)
    assert row["median"] == np.median(first)
    assert row["std"] == pytest.approx(first.std())
    assert row["low"] < row["q1"] < row["median"] < row["q3"] < row["high"]
    single = summarise_scores(table.iloc[3:4], ["srcc", "mae"]).set_index("metric")
    assert single.loc["srcc"].isna().sum() > 0
    assert np.isnan(single.loc["mae", "std"])
