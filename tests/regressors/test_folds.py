"""Folds: groups never cross, rows are tested once, MOS stays balanced, the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold, StratifiedGroupKFold, train_test_split

from regressors import folds as folds_module
from regressors.folds import Fold, check_folds, make_folds


@st.composite
def grouped_tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """MOS and groups of very unequal sizes, with ties in MOS."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = rng.geometric(draw(st.floats(0.05, 0.9)), size=draw(st.integers(5, 30)))
    groups = np.repeat([f"user {k}" for k in range(len(sizes))], sizes)
    order = rng.permutation(len(groups))
    return np.round(rng.normal(size=len(groups)), draw(st.sampled_from([0, 1, 6]))), groups[order]


def assert_partition(folds: list[Fold], n_rows: int) -> None:
    tested = np.concatenate([test for _, test in folds])
    assert np.sort(tested).tolist() == list(range(n_rows))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(n_rows))
        assert len(test) > 0


@given(
    table=grouped_tables(), n_splits=st.integers(2, 5), n_strata=st.integers(1, 8), seed=st.integers(0, 99)
)
def test_groups_never_cross_and_each_row_is_tested_once(
    table: tuple[np.ndarray, np.ndarray], n_splits: int, n_strata: int, seed: int
) -> None:
    y, groups = table
    folds = make_folds(y, groups, n_splits=n_splits, n_strata=n_strata, random_state=seed)
    assert len(folds) == n_splits
    assert_partition(folds, len(y))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])


@given(table=grouped_tables(), test_size=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_holdout_is_one_grouped_fold(
    table: tuple[np.ndarray, np.ndarray], test_size: float, seed: int
) -> None:
    y, groups = table
    [(train, test)] = make_folds(y, groups, kind="holdout", test_size=test_size, random_state=seed)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert not set(groups[train]) & set(groups[test])
    assert len(train) > 0
    assert len(test) > 0
    largest = np.unique(groups, return_counts=True)[1].max()
    assert abs(len(test) - test_size * len(y)) <= max(largest, 0.1 * len(y)) + 1


@given(table=grouped_tables(), kind=st.sampled_from(["grouped", "kfold", "holdout"]))
def test_the_seed_decides(table: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    y, groups = table
    first, again = (make_folds(y, groups, kind=kind, n_splits=3, random_state=7) for _ in range(2))
    assert [test.tolist() for _, test in first] == [test.tolist() for _, test in again]
    others = [make_folds(y, groups, kind=kind, n_splits=3, random_state=seed) for seed in range(8)]
    assert len({tuple(fold[0][1].tolist()) for fold in others}) > 1 or len(set(groups)) < 6


@given(table=grouped_tables())
def test_names_of_groups_have_no_say(table: tuple[np.ndarray, np.ndarray]) -> None:
    y, groups = table
    _, numbers = np.unique(groups, return_inverse=True)
    renamed = -1.0 * numbers  # other kind, other alphabetical order, same partition
    expected = make_folds(y, groups, n_splits=2)
    assert [t.tolist() for _, t in make_folds(y, renamed, n_splits=2)] == [t.tolist() for _, t in expected]


def test_mos_is_balanced_as_well_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.geometric(0.3, size=300))
    y = rng.normal(size=300)[groups] + rng.normal(size=len(groups))
    ours = make_folds(y, groups)
    strata = np.digitize(y, np.quantile(y, [0.2, 0.4, 0.6, 0.8]))
    theirs = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, strata, groups))

    def unevenness(folds: list[Fold]) -> float:
        counts = np.array([np.bincount(strata[test], minlength=5) for _, test in folds])
        return float(np.std(counts, axis=0).sum())

    assert unevenness(ours) <= unevenness(theirs)
    means = [y[test].mean() for _, test in ours]
    assert max(means) - min(means) < 0.1 * y.std()


def test_strata_matter() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    spread = [
        np.std([y[test].mean() for _, test in make_folds(y, np.arange(200), n_strata=n, random_state=1)])
        for n in (1, 10)
    ]
    assert spread[1] < 0.5 * spread[0]


def test_kfold_is_scikit_learns_and_ignores_groups() -> None:
    y = np.arange(23.0)
    ours = make_folds(y, np.zeros(23), kind="kfold", n_splits=4, random_state=3)
    theirs = KFold(4, shuffle=True, random_state=3).split(y)
    assert all((a == c).all() and (b == d).all() for (a, b), (c, d) in zip(ours, theirs, strict=True))
    in_order = make_folds(y, kind="kfold", n_splits=4, shuffle=False)
    assert in_order[0][1].tolist() == list(range(6))


def test_a_plain_holdout_is_scikit_learns_and_ignores_groups() -> None:
    y = np.arange(23.0)
    [(train, test)] = make_folds(y, np.zeros(23), kind="plain-holdout", test_size=0.2, random_state=3)
    theirs = train_test_split(np.arange(23), test_size=0.2, random_state=3)
    assert train.tolist() == sorted(theirs[0])
    assert test.tolist() == sorted(theirs[1])
    assert len(test) == 5
    [(_, last)] = make_folds(y, kind="plain-holdout", test_size=0.2, shuffle=False)
    assert last.tolist() == [18, 19, 20, 21, 22]


def test_without_shuffle_the_table_order_is_kept() -> None:
    first, second = (
        make_folds(np.arange(20.0), np.arange(20), shuffle=False, random_state=s) for s in (0, 1)
    )
    assert [t.tolist() for _, t in first] == [t.tolist() for _, t in second]


@pytest.mark.parametrize("kind", ["grouped", "holdout"])
def test_missing_groups_are_refused_with_the_cure(kind: str) -> None:
    with pytest.raises(ValueError, match=r"needs groups.*numpy\.arange"):
        make_folds(np.arange(10.0), kind=kind)
    with pytest.raises(ValueError, match="every row needs a group, got 2 missing of 4"):
        make_folds(np.arange(4.0), ["a", None, "b", np.nan], kind=kind, n_splits=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"groups": list("aaabbbcc"), "n_splits": 5},
            "5 parts need at least as many groups, got 3.*at most 3",
        ),
        ({"groups": list("aaaaaaaa"), "kind": "holdout"}, "2 parts need at least as many groups, got 1"),
        ({"kind": "kfold", "n_splits": 9}, "needs as many rows, got n_samples=8"),
        ({"kind": "group"}, "Did you mean 'grouped'"),
        ({"groups": list("aaabbbcc"), "n_splits": 1}, "n_splits must be an integer of at least 2"),
        ({"groups": list("aaabbbcc"), "test_size": 20}, "test_size must lie between 0 and 1"),
        ({"groups": list("aaabbbcc"), "n_strata": 0}, "n_strata must be at least 1"),
        ({"groups": list("aaa")}, r"groups must have shape \(8,\)"),
    ],
)
def test_inadmissible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_folds(np.arange(8.0), **arguments)


def test_a_row_without_mos_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        make_folds([1.0, np.nan, 2.0], [1, 2, 3])


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "at least one fold"),
        ([([0, 1], [1, 2])], "tests 1 rows that it also fits on, for example row 1"),
        ([([0, 1], [5])], "between 0 and 3, got 5 to 5"),
        ([([0, 1], [2, 2])], "name each row once"),
        ([([True, False, True, False], [1])], "Boolean masks"),
        ([([0, 1], [])], "non-empty"),
        ([([0, 1], [2], [3])], "pair"),
    ],
)
def test_explicit_folds_are_checked(folds: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_folds(folds, 4)


@pytest.mark.parametrize("kind", ["grouped", "holdout"])
def test_many_groups_are_dealt_as_evenly_as_few(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds_module, "MAX_GREEDY_GROUPS", 100)
    rng = np.random.default_rng(0)
    y, groups = rng.normal(size=6000), rng.integers(0, 2500, 6000)
    folds = make_folds(y, groups, kind=kind)
    edges = np.quantile(y, [0.2, 0.4, 0.6, 0.8])
    share = 0.2
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert len(test) == pytest.approx(share * len(y), rel=0.02)
        for stratum in range(5):
            rows = np.flatnonzero(np.searchsorted(edges, y) == stratum)
            assert np.isin(rows, test).mean() == pytest.approx(share, abs=0.03)
    if kind == "grouped":
        assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(6000))
    again = make_folds(y, groups, kind=kind)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    other = make_folds(y, groups, kind=kind, random_state=1)
    assert not np.array_equal(folds[0][1], other[0][1])
