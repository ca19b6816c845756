"""Scores of subsets: each is that of its ensemble fitted alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GroupKFold

from regressors.crops import CropEnsemble
from regressors.ensemble import BandEnsemble
from regressors.subset_scores import SubsetScorer
from tests.support.band_tables import band_table

BANDS = ["quality", "content", "scene"]
SUBSETS = [list(chosen) for size in (1, 2, 3) for chosen in combinations(BANDS, size)]


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
    monkeypatch.setattr("regressors.subset_scores.fit_searches", None)
    again = scorer.score(SUBSETS[::-1])
    assert [score.bands for score in again] == [score.bands for score in first[::-1]]
    np.testing.assert_array_equal([s.splits for s in again], [s.splits for s in first[::-1]])


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    expected = SubsetScorer(X, y).score(SUBSETS)
    monkeypatch.setattr("regressors.subset_scores._MAX_BYTES", 1)
    for one, other in zip(SubsetScorer(X, y).score(SUBSETS), expected, strict=True):
        np.testing.assert_allclose(one.splits, other.splits, rtol=1e-12)
        assert one.params == other.params


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
