"""BandEnsemble: laws of members, weights and held-out predictions; a citizen of scikit-learn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.svm import SVR

from regressors import ensemble, search
from regressors.ensemble import RULES, BandEnsemble, NoSkillWarning, fit_combination
from regressors.evaluation.metrics import srcc
from regressors.folds import make_folds
from regressors.pipelines import make_search
from regressors.search import fit_search, predict_held_out
from tests.support.band_tables import band_table

ALPHAS = [0.1, 10.0]
FIVE_MEMBERS = ["all", "without:quality", "without:content", "without:scene", "without:keypoint"]
FOUR_BANDS = {"quality": 6, "content": 4, "scene": 3, "keypoint": 2}


def small(*arguments: Any, **parameters: Any) -> BandEnsemble:
    return BandEnsemble(*arguments, **{"alpha": ALPHAS, "cv": 2, **parameters})


@pytest.fixture(scope="module")
def fitted() -> tuple[BandEnsemble, pd.DataFrame, np.ndarray]:
    X, y = band_table(100, FOUR_BANDS)
    return small(combine="simplex").fit(X, y), X, y


def test_four_bands_make_the_five_regressors_of_the_report() -> None:
    X, y = band_table(60, FOUR_BANDS)
    model = small().fit(X, y)
    assert model.member_names_ == FIVE_MEMBERS
    assert model.member_bands_[2] == ("quality", "scene", "keypoint")
    assert [member["select"].bands_ for member in model.members_] == model.member_bands_
    assert [member["regress"].n_features_in_ for member in model.members_] == [15, 9, 11, 12, 13]


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ("all", ["all"]),
        ("each", ["only:quality", "only:content", "only:scene"]),
        ([["scene", "quality"], ["content"]], ["quality+scene", "content"]),
    ],
)
def test_other_members(members: Any, names: list[str]) -> None:
    X, y = band_table(40)
    assert small(members).fit(X, y).member_names_ == names


def test_one_band_leaves_nothing_to_leave_out() -> None:
    X, y = band_table(40, {"quality": 4})
    model = small().fit(X, y)
    assert model.member_names_ == ["all"]
    assert model.weights_.tolist() == [1.0]
    assert model.intercept_ == 0.0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ("leave-one-out", "members must be one of"),
        ([["quality"], ["quality"]], "different subsets"),
        ([["quality", "content"], ["content", "quality"]], "different subsets"),
        ([], "non-empty list"),
        ([[]], "non-empty list of bands"),
        (["quality"], r"Write \[\['a', 'b'\], \['c'\]\]"),
        ([["qualty"]], "Did you mean 'quality'"),
    ],
)
def test_inadmissible_members_are_refused(members: Any, message: str) -> None:
    X, y = band_table(40)
    with pytest.raises(ValueError, match=message):
        small(members).fit(X, y)


@pytest.mark.parametrize("combine", RULES)
def test_laws_of_the_weights(combine: str) -> None:
    X, y = band_table(100)
    model = small(combine=combine).fit(X, y)
    members = model.predict_members(X)
    np.testing.assert_allclose(model.predict(X), model.intercept_ + members @ model.weights_, rtol=1e-12)
    assert (model.weights_ >= 0).all()
    if combine != "nnls":
        assert model.weights_.sum() == pytest.approx(1.0)
        assert model.intercept_ == 0.0
        assert (model.predict(X) >= members.min(axis=1) - 1e-9).all()
        assert (model.predict(X) <= members.max(axis=1) + 1e-9).all()


@pytest.mark.parametrize("combine", RULES)
def test_one_member_is_the_search_itself(combine: str) -> None:
    X, y = band_table()
    folds = make_folds(y, np.arange(len(y)), n_splits=3)
    model = small("all", combine=combine, cv=folds).fit(X, y)
    search = fit_search(make_search("ridge", alpha=ALPHAS, cv=folds), X, y)
    np.testing.assert_array_equal(model.predict(X), search.predict(X))
    np.testing.assert_array_equal(model.oof_predictions_, model.oof_members_["all"])
    np.testing.assert_allclose(model.oof_predictions_, predict_held_out(search.best_estimator_, X, y, folds))
    assert model.member_params_ == [{"alpha": search.best_params_["regress__alpha"]}]


def test_weights_come_from_held_out_predictions_alone() -> None:
    X, y = band_table()
    model = small(combine="nnls").fit(X, y)
    expected = fit_combination("nnls", y, model.oof_members_.to_numpy())
    np.testing.assert_allclose(model.weights_, expected.weights, atol=1e-12)
    assert model.intercept_ == pytest.approx(expected.intercept)


def test_held_out_predictions_of_the_ensemble_are_held_out_twice() -> None:
    """The row's own fold has a say neither in the members nor in their weights."""
    X, y = band_table()
    folds = make_folds(y, np.arange(len(y)), n_splits=3)
    model = small(cv=folds, alpha=[1.0]).fit(X, y)
    train, test = folds[1]
    changed = y.copy()
    changed[test] = np.random.default_rng(0).permutation(changed[test])
    after = small(cv=folds, alpha=[1.0]).fit(X, changed)
    others = np.setdiff1d(np.arange(len(y)), test)
    np.testing.assert_array_equal(train, others)
    np.testing.assert_array_equal(model.oof_members_.iloc[test], after.oof_members_.iloc[test])
    # Weights for these rows come from held-out predictions of other rows, whose members saw these MOS; so the
    # combination may move, but it is the one learned without them.
    expected = fit_combination("nnls", changed[others], after.oof_members_.to_numpy()[others])
    np.testing.assert_allclose(after.oof_predictions_[test], expected(after.oof_members_.to_numpy()[test]))


def test_a_holdout_leaves_the_other_rows_unpredicted() -> None:
    X, y = band_table()
    [(train, test)] = make_folds(y, np.arange(len(y)), kind="holdout")
    model = small(cv=[(train, test)]).fit(X, y)
    assert np.isnan(model.oof_predictions_[train]).all()
    assert np.isfinite(model.oof_predictions_[test]).all()
    assert np.isnan(model.oof_members_.iloc[train].to_numpy()).all()
    np.testing.assert_allclose(
        model.oof_predictions_[test], model.intercept_ + model.oof_members_.iloc[test] @ model.weights_
    )


def test_members_are_refitted_on_all_rows() -> None:
    X, y = band_table()
    model = small("each").fit(X, y)
    alone = clone(model.members_[1]).fit(X, y)
    np.testing.assert_allclose(alone.predict(X), model.predict_members(X)["only:content"])


def test_results_name_every_candidate(fitted: tuple) -> None:
    model, _, _ = fitted
    results = model.cv_results_
    assert results.columns.tolist() == [
        "member", "rank", "alpha", "mean_test_score", "std_test_score", *(f"split{k}_test_score" for k in range(2)),
    ]  # fmt: skip
    assert len(results) == 5 * len(ALPHAS)
    splits = results[[f"split{k}_test_score" for k in range(2)]]
    np.testing.assert_allclose(results["mean_test_score"], splits.mean(axis=1))
    best = results[results["rank"] == 1].drop_duplicates("member")
    assert best["alpha"].tolist() == [params["alpha"] for params in model.member_params_]


def test_results_of_banded_ridge_name_the_band_weights() -> None:
    X, y = band_table(40)
    model = small(estimator="banded-ridge", alpha=[1.0], band_weights=[{"scene": 1.0}, {"scene": 0.1}]).fit(
        X, y
    )
    results = model.cv_results_
    assert {"weight:quality", "weight:content", "weight:scene"} <= set(results.columns)
    assert len(results) == 2 + 2 + 2 + 1  # without the scene both candidates are one
    assert results["weight:scene"].isna().sum() == 1
    with pytest.raises(ValueError, match="Did you mean 'scene'"):
        small(estimator="banded-ridge", band_weights=[{"scenes": 1.0}]).fit(X, y)


def test_groups_keep_rows_together() -> None:
    X, y = band_table(60)
    groups = np.repeat(np.arange(20), 3)
    model = small().fit(X, y, groups=groups)
    for train, test in model.folds_:
        assert not set(groups[train]) & set(groups[test])
    by_splitter = small(cv=GroupKFold(3)).fit(X, y, groups=groups)
    for train, test in by_splitter.folds_:
        assert not set(groups[train]) & set(groups[test])


def test_folds_of_another_table_are_refused() -> None:
    X, y = band_table(60)
    folds = make_folds(y, np.arange(60), n_splits=3)
    with pytest.raises(ValueError, match="Explicit folds belong to one table"):
        small(cv=folds).fit(X[:30], y[:30])
    with pytest.raises(ValueError, match="tests 1 rows that it also fits on"):
        small(cv=[([0, 1, 2], [2, 3])]).fit(X, y)


@pytest.mark.parametrize("estimator", ["ridge", "banded-ridge"])
@pytest.mark.parametrize("combine", ["nnls", "simplex"])
def test_a_weight_is_a_repetition(estimator: str, combine: str) -> None:
    X, y = band_table(60)
    weights = np.random.default_rng(0).integers(0, 4, size=60)
    source = np.repeat(np.arange(60), weights)
    folds = make_folds(y, np.arange(60) % 20, n_splits=3)
    repeated_folds = [tuple(np.flatnonzero(np.isin(source, part)) for part in fold) for fold in folds]
    own = {"estimator": estimator, "combine": combine, "band_weights": [{"scene": 1.0}, {"scene": 0.1}]}
    weighted = small(cv=folds, **own).fit(X, y, sample_weight=weights)
    repeated = small(cv=repeated_folds, **own).fit(X.iloc[source], y[source])
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-9)
    np.testing.assert_allclose(weighted.oof_predictions_[source], repeated.oof_predictions_, atol=1e-9)
    np.testing.assert_allclose(weighted.column_means_, repeated.column_means_)


def test_the_order_of_bands_is_irrelevant() -> None:
    X, y = band_table(80)
    columns = [c for band in ("scene", "quality", "content") for c in X if c.startswith(band)]
    first, second = small().fit(X, y), small().fit(X[columns], y)
    np.testing.assert_allclose(first.predict(X), second.predict(X[columns]), atol=1e-9)


def test_float32_tables_are_computed_in_double_precision() -> None:
    X, y = band_table(60)
    narrow = X.astype(np.float32)
    wide = narrow.astype(np.float64)
    np.testing.assert_allclose(
        small().fit(narrow, y).predict(narrow), small().fit(wide, y).predict(wide), rtol=1e-12
    )


def test_fitting_twice_gives_the_same_and_leaves_the_input() -> None:
    X, y = band_table(60)
    before = X.copy(), y.copy()
    model = small()
    first = model.fit(X, y).predict(X)
    np.testing.assert_array_equal(first, model.fit(X, y).predict(X))
    pd.testing.assert_frame_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_members_without_weight_are_not_asked(fitted: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, X, _ = fitted
    unused = np.flatnonzero(model.weights_ == 0)
    assert len(unused) > 0
    expected = model.predict(X)

    def refuse(self: object, X: object) -> None:
        raise RuntimeError("asked a member without weight")

    for k in unused:
        monkeypatch.setattr(model.members_[k], "predict", refuse.__get__(model.members_[k]))
    np.testing.assert_array_equal(model.predict(X), expected)
    with pytest.raises(RuntimeError, match="asked"):
        model.predict_members(X)


def test_without_skill_there_is_a_warning() -> None:
    """What is learned on one half is the opposite of what holds in the other."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a:0000", "b:0000"])
    first, second = np.arange(20), np.arange(20, 40)
    y = X.sum(axis=1).to_numpy() * np.where(np.arange(40) < 20, 1, -1)
    with pytest.warns(NoSkillWarning, match="no member beats the mean MOS"):
        model = small(alpha=[1.0], cv=[(first, second), (second, first)]).fit(X, y)
    assert model.weights_.tolist() == [0.0, 0.0, 0.0]
    assert model.predict(X) == pytest.approx(np.full(40, y.mean()))


def test_other_columns_are_refused_at_prediction(fitted: tuple) -> None:
    model, X, _ = fitted
    assert model.feature_names_in_.tolist() == X.columns.tolist()
    with pytest.raises(ValueError, match="order"):
        model.predict(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="feature names"):
        model.predict_members(X.drop(columns="scene:0001"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimator": "lasso"}, "estimator must be one of"),
        ({"combine": "nnsl"}, "Did you mean 'nnls'"),
        ({"select_by": "srocc"}, "scoring must be one of"),
        ({"cv": 50}, "50 parts need at least as many groups, got 40"),
        ({"alpha": []}, "alpha must be a non-empty list"),
    ],
)
def test_inadmissible_parameters_are_refused(parameters: dict, message: str) -> None:
    X, y = band_table(40)
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(X, y)


def test_clone_keeps_parameters_and_forgets_the_fit(fitted: tuple) -> None:
    model, _, _ = fitted
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "weights_")


def test_in_a_pipeline_a_grid_search_and_cross_validation() -> None:
    X, y = band_table(90)
    pipeline = Pipeline([("same", FunctionTransformer()), ("model", small())])
    search = GridSearchCV(pipeline, {"model__combine": ["uniform", "simplex"]}, cv=KFold(2)).fit(X, y)
    assert search.best_score_ > 0.5
    assert cross_val_score(small(), X, y, cv=KFold(2)).min() > 0.5
    predicted = cross_val_predict(small(), X, y, cv=KFold(2))
    assert srcc(y, predicted) > 0.7


def test_groups_reach_an_ensemble_inside_cross_validation() -> None:
    X, y = band_table(60)
    groups = np.repeat(np.arange(20), 3)
    scores = cross_val_score(small(), X, y, cv=GroupKFold(2), groups=groups, params={"groups": groups})
    assert scores.min() > 0.3


def test_global_metadata_routing_changes_nothing() -> None:
    X, y = band_table(60)
    expected = small().fit(X, y, sample_weight=np.arange(1, 61)).predict(X)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(small().fit(X, y, sample_weight=np.arange(1, 61)).predict(X), expected)


class OwnSearch:
    """A search that takes GridSearchCV's place: same results, and its own held-out predictions."""

    def __init__(self, inner: GridSearchCV) -> None:
        self.inner = inner

    def fit(self, X: pd.DataFrame, y: np.ndarray, sample_weight: np.ndarray | None = None) -> OwnSearch:
        fit_search(self.inner, X, y, sample_weight)
        self.cv_results_, self.best_params_ = self.inner.cv_results_, self.inner.best_params_
        self.best_estimator_ = self.inner.best_estimator_
        self.oof_predictions_ = predict_held_out(self.best_estimator_, X, y, self.inner.cv, sample_weight)
        return self


def test_another_search_can_take_the_place_of_the_grid_search(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = band_table(60)
    weights = np.arange(1, 61)
    expected = small().fit(X, y, sample_weight=weights)

    def refuse(*arguments: object) -> None:
        raise RuntimeError("predicted again what the search had predicted")

    monkeypatch.setattr(ensemble, "make_search", lambda *a, **k: OwnSearch(make_search(*a, **k)))
    monkeypatch.setattr(search, "predict_held_out", refuse)
    model = small().fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-12)
    np.testing.assert_allclose(model.oof_predictions_, expected.oof_predictions_, rtol=1e-12)


def test_pickle_round_trip(fitted: tuple) -> None:
    model, X, _ = fitted
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    pd.testing.assert_frame_equal(again.cv_results_, model.cv_results_)


def test_an_svr_weighs_bands_too_and_equal_weights_change_nothing() -> None:
    X, y = band_table(80, FOUR_BANDS)
    grids = {"estimator": "rbf-svr", "members": "all", "C": [3.0], "gamma": [0.3], "epsilon": [0.1]}
    plain = small(**grids).fit(X, y).predict(X)
    alike = small(band_weights=[dict.fromkeys(FOUR_BANDS, 0.5)], **grids).fit(X, y).predict(X)
    assert np.allclose(alike, plain, atol=1e-6)


def test_a_band_of_tiny_weight_is_a_band_left_out() -> None:
    X, y = band_table(80, FOUR_BANDS)
    kept = [column for column in X.columns if not column.startswith("scene")]
    # unit_band: the kernel's scale follows the total variance, which the tiny band no longer adds to. gamma
    # multiplies 1 / (n_features * variance), so the total variance alone decides, not the number of columns.
    grids = {
        "estimator": "rbf-svr",
        "members": "all",
        "C": [3.0],
        "gamma": [0.3],
        "epsilon": [0.1],
        "unit_band": True,
    }
    without = small(**grids).fit(X[kept], y).predict(X[kept])
    tiny = small(band_weights=[{"scene": 1e-7}], **grids).fit(X, y).predict(X)
    assert np.allclose(tiny, without, atol=1e-6)
    weighed = small(band_weights=[{"scene": 1e-7}, {}], **grids).fit(X, y)
    assert set(weighed.member_params_[0]) >= {"weight:scene", "weight:quality", "C"}


def test_a_plain_svr_is_scikit_learns_and_held_without_its_private_state() -> None:
    rng = np.random.default_rng(0)
    X, y = (
        pd.DataFrame(rng.normal(size=(60, 6)), columns=[f"m:{i:04d}" for i in range(6)]),
        rng.normal(size=60),
    )
    folds = [(np.arange(40), np.arange(40, 60))]
    grid = {"C": [1.0, 8.0], "gamma": [0.1, 0.5], "epsilon": [0.1]}
    for reference in (False, True):
        ensemble = BandEnsemble(
            "all",
            estimator="plain-svr",
            scale="minmax",
            cv=folds,
            combine="uniform",
            reference=reference,
            **grid,
        ).fit(X, y)
        best = ensemble.member_params_[0]
        plain = make_pipeline(
            MinMaxScaler(), SVR(C=best["C"], gamma=best["gamma"], epsilon=best["epsilon"])
        ).fit(X.to_numpy(), y)
        np.testing.assert_allclose(ensemble.predict(X), plain.predict(X.to_numpy()), atol=1e-9)
        assert type(ensemble.members_[0].named_steps["regress"]).__name__ == "UnitSVR"
