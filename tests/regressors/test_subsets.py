"""Subset search: a subset scores as its ensemble fitted alone would, budgets hold, the winner's score is nested."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GroupKFold

from regressors.budget import sum_gmacs
from regressors.crops import CropEnsemble
from regressors.ensemble import BandEnsemble
from regressors.evaluation.metrics import srcc
from regressors.folds import make_folds
from regressors.subset_scores import SubsetScorer
from regressors.subsets import MAX_SUBSETS, list_subsets, score_subsets, search_subsets, tabulate_subsets
from tests.support.band_tables import band_table

BANDS = ["quality", "content", "scene"]
SUBSETS = [list(chosen) for size in (1, 2, 3) for chosen in combinations(BANDS, size)]
GMACS = {"quality": 10.0, "content": 20.0, "scene": 30.0}


def columns_of(X: pd.DataFrame, bands: tuple[str, ...] | list[str]) -> pd.DataFrame:
    return X[[name for name in X.columns if name.rpartition(":")[0] in bands]]


@pytest.mark.parametrize(
    "settings",
    [
        {"members": "all"},
        {"members": "all+leave-one-out"},
        {"members": "each", "combine": "simplex"},
        {"members": "all", "estimator": "banded-ridge", "alpha": [0.1, 10.0]},
        {"members": "all", "estimator": "rbf-svr", "C": [1.0, 10.0], "gamma": [0.1, 1.0], "epsilon": [0.1]},
        {"members": "all+leave-one-out", "select_by": "rmse", "cv": GroupKFold(2)},
        {"members": "all", "select_by": make_scorer(mean_absolute_error, greater_is_better=False)},
        {"members": "all", "select_by": "r2", "reference": True, "alpha": [1.0]},
    ],
    ids=lambda settings: "-".join(str(value)[:12] for value in settings.values()),
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_subset_scores_as_its_ensemble_fitted_alone(settings: dict, weighted: bool) -> None:
    if weighted and settings.get("select_by") == "r2":
        pytest.skip("a name of scikit-learn's own is one scorer for all and takes no request")
    X, y = band_table(48)
    groups = np.arange(48) // 2
    weights = np.random.default_rng(1).integers(1, 4, size=48) if weighted else None
    model = BandEnsemble(**{"cv": 2, "alpha": [0.1, 10.0], **settings})
    scorer = SubsetScorer(X, y, model=model, groups=groups, sample_weight=weights)
    for score in scorer.score([["quality"], ["scene", "content"], BANDS]):
        alone = clone(model).fit(columns_of(X, score.bands), y, groups=groups, sample_weight=weights)
        np.testing.assert_allclose(score.oof_predictions, alone.oof_predictions_, rtol=1e-8)
        if len(alone.members_) == 1:
            assert score.params == alone.member_params_[0]
            best = alone.cv_results_.sort_values("rank").iloc[0]
            assert score.splits.mean() == pytest.approx(best["mean_test_score"], rel=1e-8)


def test_members_given_as_a_list_are_cut_to_each_subset() -> None:
    X, y = band_table(60)
    model = BandEnsemble([["quality", "content"], ["content"], ["scene"]], cv=3, combine="simplex")
    scores = SubsetScorer(X, y, model=model).score(
        [["quality", "content"], ["content", "scene"], ["content"]]
    )
    for score, members in zip(
        scores, [[["quality", "content"], ["content"]], [["content"], ["scene"]], [["content"]]], strict=True
    ):
        alone = BandEnsemble(members, cv=3, combine="simplex").fit(columns_of(X, score.bands), y)
        np.testing.assert_allclose(score.oof_predictions, alone.oof_predictions_, rtol=1e-8)


@pytest.mark.parametrize("members", ["all", "all+leave-one-out"])
def test_what_was_scored_once_is_not_searched_again(members: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    scorer = SubsetScorer(X, y, model=BandEnsemble(members, cv=3))
    first = scorer.score(SUBSETS)
    monkeypatch.setattr(scorer, "_choose", None)
    again = scorer.score(SUBSETS[::-1])
    assert [score.bands for score in again] == [score.bands for score in first[::-1]]
    np.testing.assert_array_equal([s.splits for s in again], [s.splits for s in first[::-1]])


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    expected = score_subsets(X, y, SUBSETS)
    monkeypatch.setattr("regressors.subset_scores._MAX_BYTES", 1)
    pd.testing.assert_frame_equal(score_subsets(X, y, SUBSETS), expected, rtol=1e-12)


def test_a_subset_may_name_its_bands_in_any_order() -> None:
    X, y = band_table(60)
    scorer = SubsetScorer(X, y)
    one, other = scorer.score([["scene", "quality"], ["quality", "scene"]])
    assert one is other
    assert one.bands == ("quality", "scene")
    with pytest.raises(ValueError, match="Did you mean 'scene'"):
        scorer.score([["scen"]])
    with pytest.raises(ValueError, match="at least one band"):
        scorer.score([[]])


def test_inadmissible_tables_and_models_are_refused() -> None:
    X, y = band_table(60)
    with pytest.raises(TypeError, match="must be a data frame"):
        SubsetScorer(X.to_numpy(), y)
    with pytest.raises(ValueError, match="one length, got 60 and 59"):
        SubsetScorer(X, y[1:])
    with pytest.raises(TypeError, match="got a CropEnsemble"):
        SubsetScorer(X, y, model=CropEnsemble("all"))
    X.iloc[3, 2] = np.nan
    with pytest.raises(ValueError, match="must be finite, got 1 NaN"):
        SubsetScorer(X, y).score(SUBSETS)


# -- budget ------------------------------------------------------------------------------------------------------

costs = st.lists(st.integers(0, 20), min_size=1, max_size=7)


@given(cost=costs, budget=st.integers(0, 60), n_passes=st.integers(1, 7))
def test_exactly_the_subsets_within_the_budget_are_listed(
    cost: list[int], budget: int, n_passes: int
) -> None:
    bands = [f"b{k}" for k in range(len(cost))]
    # Bands of one pass have its one cost.
    passes = {band: f"p{k % n_passes}" for k, band in enumerate(bands)}
    gmacs = {band: float(cost[k % n_passes]) for k, band in enumerate(bands)}
    expected = [
        chosen
        for size in range(1, len(bands) + 1)
        for chosen in combinations(bands, size)
        if sum_gmacs((passes[band], gmacs[band]) for band in chosen) <= budget
    ]
    if expected:
        assert list_subsets(bands, gmacs, budget, passes=passes) == expected
    else:
        with pytest.raises(ValueError, match="admits no band"):
            list_subsets(bands, gmacs, budget, passes=passes)


def test_the_number_of_subsets_is_limited_not_the_number_of_bands() -> None:
    many = [f"b{k}" for k in range(40)]
    assert len(list_subsets(many, dict.fromkeys(many, 30.0), 60.0)) == 40 + 40 * 39 // 2
    with pytest.raises(ValueError, match=f"at most {MAX_SUBSETS} subsets"):
        list_subsets(many, dict.fromkeys(many, 1.0), 60.0)
    twelve = many[:12]
    assert len(list_subsets(twelve, dict.fromkeys(twelve, 0.0), 0.0)) == 2**12 - 1


def test_costs_must_be_stated_and_agree() -> None:
    X, y = band_table(40)
    with pytest.raises(ValueError, match="got none for 'scene'"):
        search_subsets(X, y, gmacs={"quality": 1.0, "content": 1.0}, budget=5)
    with pytest.raises(ValueError, match="got none for 'scene'"):
        score_subsets(X, y, [["scene"]], gmacs={"quality": 1.0})
    with pytest.raises(ValueError, match="one pass has one cost"):
        list_subsets(["a", "b"], {"a": 1.0, "b": 2.0}, 5, passes={"a": "p", "b": "p"})
    with pytest.raises(ValueError, match="non-negative number, got -1"):
        list_subsets(["a"], {"a": 1.0}, -1)


# -- table -------------------------------------------------------------------------------------------------------


def test_the_table_is_ranked_and_its_front_is_the_undominated() -> None:
    X, y = band_table(90)
    frame = score_subsets(X, y, SUBSETS, gmacs=GMACS, passes={"content": "shared"})
    assert frame["rank"].tolist() == list(range(1, 8))
    assert frame["score"].is_monotonic_decreasing
    cost = dict(zip(frame["subset"], frame["gmacs"], strict=True))
    assert cost["quality+scene"] == 40
    for row in frame.itertuples():
        dominated = (
            (frame["gmacs"] <= row.gmacs)
            & (frame["score"] >= row.score)
            & ((frame["gmacs"] < row.gmacs) | (frame["score"] > row.score))
        ).any()
        assert row.pareto == (not dominated)
        splits = np.array([getattr(row, f"split{k}_score") for k in range(5)])
        assert row.score == pytest.approx(splits.mean())
        assert row.std == pytest.approx(splits.std())
        # 2.776 is Student's quantile for four degrees of freedom; each fold tests a quarter of what it fits.
        margin = 2.7764451 * splits.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
        assert row.high - row.score == pytest.approx(margin, rel=0.02)
        assert row.score - row.low == pytest.approx(margin, rel=0.02)


def test_without_costs_and_with_one_fold_there_is_still_a_table() -> None:
    X, y = band_table(60)
    folds = make_folds(y, np.arange(60), kind="holdout")
    frame = score_subsets(X, y, SUBSETS, model=BandEnsemble("all", cv=folds))
    assert frame["gmacs"].isna().all()
    assert frame["low"].isna().all()
    assert frame["pareto"].tolist() == [score == frame["score"].max() for score in frame["score"]]


def test_equal_scores_rank_the_cheaper_first() -> None:
    X, y = band_table(60)
    twin = X.rename(columns=lambda name: name.replace("quality", "copy"))
    X = pd.concat([X, columns_of(twin, ["copy"])], axis=1)
    scorer = SubsetScorer(X, y)
    scores = scorer.score([["quality"], ["copy"]])
    frame = tabulate_subsets(scores, scorer.folds, gmacs={"quality": 2.0, "copy": 1.0})
    assert frame["subset"].tolist() == ["copy", "quality"]
    assert frame["pareto"].tolist() == [True, False]


# -- search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", ["all", "all+leave-one-out"])
def test_nested_scores_are_those_of_a_search_that_never_saw_the_outer_rows(members: str) -> None:
    X, y = band_table(90, noise=2.0)
    groups = np.arange(90) // 3
    weights = np.random.default_rng(0).integers(1, 3, size=90)
    model = BandEnsemble(members, alpha=[1.0, 100.0], cv=2)
    found = search_subsets(
        X, y, gmacs=GMACS, budget=50.0, model=model, groups=groups, sample_weight=weights, n_outer_splits=3
    )
    assert len(found.frame) == 6
    assert found.nested_score == pytest.approx(found.nested_scores.mean())
    for k, (train, test) in enumerate(make_folds(y, groups, n_splits=3)):
        inner = search_subsets(
            X.iloc[train],
            y[train],
            gmacs=GMACS,
            budget=50.0,
            model=model,
            groups=groups[train],
            sample_weight=weights[train],
            n_outer_splits=None,
        )
        assert inner.best_bands == found.nested_bands[k]
        chosen = columns_of(X, inner.best_bands)
        fitted = clone(model).fit(
            chosen.iloc[train], y[train], groups=groups[train], sample_weight=weights[train]
        )
        expected = srcc(y[test], fitted.predict(chosen.iloc[test]), sample_weight=weights[test])
        assert found.nested_scores[k] == pytest.approx(expected, abs=1e-9)


def test_explicit_folds_are_cut_to_the_outer_training_rows() -> None:
    X, y = band_table(60)
    folds = make_folds(y, np.arange(60), n_splits=3)
    found = search_subsets(
        X, y, gmacs=GMACS, budget=60, model=BandEnsemble("all", cv=folds), n_outer_splits=3
    )
    assert len(found.nested_bands) == 3
    assert np.isfinite(found.nested_scores).all()


def test_without_signal_the_nested_score_is_free_of_the_winners_luck() -> None:
    rng = np.random.default_rng(0)
    luck, nested = [], []
    for _ in range(6):
        X = pd.DataFrame(rng.normal(size=(40, 6)), columns=[f"b{k}:0000" for k in range(6)])
        y = rng.normal(size=40)
        found = search_subsets(
            X,
            y,
            gmacs={f"b{k}": 1.0 for k in range(6)},
            budget=6,
            model=BandEnsemble("all", alpha=[1.0], cv=3),
        )
        luck.append(found.best_score)
        nested.append(found.nested_score)
    # The best of 31 subsets of pure noise looks like skill; the nested score does not.
    assert np.mean(luck) > 0.15
    assert abs(np.mean(nested)) < 0.15


def test_the_search_repeats_itself_and_finds_the_signal() -> None:
    X, y = band_table(120)
    first, second = (
        search_subsets(X, y, gmacs=GMACS, budget=30.0, bands=["quality", "content"], n_outer_splits=None)
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(first.frame, second.frame, rtol=0)
    assert first.best_bands == ("quality", "content")
    assert np.isnan(first.nested_score)
    assert first.nested_bands == []
    assert first.best_score == first.frame["score"].iloc[0]
