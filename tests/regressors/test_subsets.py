"""Held-out predictions of subsets: each are those of its ensemble fitted alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import make_scorer, mean_absolute_error

from regressors.ensemble import BandEnsemble
from regressors.subset_scores import SubsetScorer
from tests.support.band_tables import band_table

BANDS = ["quality", "content", "scene"]
SUBSETS = [list(chosen) for size in (1, 2, 3) for chosen in combinations(BANDS, size)]


def columns_of(X: pd.DataFrame, bands: list[str]) -> pd.DataFrame:
    return X[[name for name in X.columns if name.rpartition(":")[0] in bands]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": "banded-ridge"},
        {"estimator": "rbf-svr", "C": [1.0, 10.0], "gamma": [0.1, 1.0], "epsilon": [0.1]},
        {"select_by": "rmse", "cv": [(np.arange(24, 48), np.arange(24))]},
        {"select_by": make_scorer(mean_absolute_error, greater_is_better=False)},
        {"select_by": "r2", "reference": True, "alpha": [1.0]},
    ],
    ids=lambda settings: "-".join(str(value)[:12] for value in settings.values()),
)
def test_a_subset_scores_as_its_ensemble_fitted_alone(settings: dict) -> None:
    X, y = band_table(48)
    model = BandEnsemble(**{"members": "all", "cv": 2, "alpha": [0.1, 10.0], **settings})
    subsets = [["quality"], ["scene", "content"], BANDS]
    for subset, held_out in zip(subsets, SubsetScorer(X, y, model).score(subsets), strict=True):
        alone = clone(model).fit(columns_of(X, subset), y)
        np.testing.assert_allclose(held_out, alone.oof_predictions_, rtol=1e-8)


def test_what_was_scored_once_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    scorer = SubsetScorer(X, y, BandEnsemble("all", cv=3))
    first = scorer.score(SUBSETS)
    monkeypatch.setattr("regressors.subset_scores.fit_searches", None)
    np.testing.assert_array_equal(scorer.score(SUBSETS[::-1]), first[::-1])


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    expected = SubsetScorer(X, y, BandEnsemble("all")).score(SUBSETS)
    monkeypatch.setattr("regressors.subset_scores._MAX_BYTES", 1)
    np.testing.assert_allclose(SubsetScorer(X, y, BandEnsemble("all")).score(SUBSETS), expected, rtol=1e-9)


def test_a_subset_may_name_its_bands_in_any_order() -> None:
    X, y = band_table(60)
    scorer = SubsetScorer(X, y, BandEnsemble("all"))
    one, other = scorer.score([["scene", "quality"], ["quality", "scene"]])
    assert one is other
    with pytest.raises(ValueError, match="Did you mean 'scene'"):
        scorer.score([["scen"]])
    with pytest.raises(ValueError, match="at least one band"):
        scorer.score([[]])
