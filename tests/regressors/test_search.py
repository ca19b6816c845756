"""BandGridSearchCV: scikit-learn's numbers, interface and failures, whether or not the work is shared."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import LinAlgWarning
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Lasso, Ridge
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVR
from sklearn.utils.validation import has_fit_parameter

from regressors.bands import BandScaler, SelectBands
from regressors.ensemble import BandEnsemble
from regressors.pipelines import make_pipeline, make_search
from regressors.search import BandGridSearchCV, PrecisionWarning, fit_search, fit_searches, predict_held_out
from tests.support.cnn_tables import cnn_table

WIDE, TALL = (40, {"a": 30, "b": 20, "c": 10}), (90, {"a": 12, "b": 8, "c": 6})
RIDGE_GRID = {"select__bands": [None, ["a", "c"]], "regress__alpha": [1e-4, 1.0, 1e2, 1e5]}
BANDED_GRID = {
    "scale__band_weights": [None, {"a": 0.1, "c": 0.5}],
    "scale__unit_band": [False, True],
    "regress__alpha": [1e-2, 1.0],
}
SVR_GRID = {"select__bands": [None, ["b", "a"]], "regress__C": [0.3, 3.0], "regress__gamma": [0.1, 1.0]}


def both(
    estimator: Any, grid: Any, X: Any, y: Any, weights: Any = None, **settings: Any
) -> tuple[GridSearchCV, BandGridSearchCV]:
    settings = {"cv": 3, "error_score": "raise", "scoring": "neg_root_mean_squared_error", **settings}
    plain, shared = (
        fit_search(kind(clone(estimator), grid, **settings), X, y, weights)
        for kind in (GridSearchCV, BandGridSearchCV)
    )
    return plain, shared


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("fitted by scikit-learn")


def assert_equal(plain: GridSearchCV, shared: BandGridSearchCV, X: Any, *, rtol: float = 1e-8) -> None:
    assert shared.best_params_ == plain.best_params_
    assert shared.best_index_ == plain.best_index_
    assert list(shared.cv_results_) == list(plain.cv_results_)
    for name, values in plain.cv_results_.items():
        if name.startswith("split") or name.startswith(("mean_test", "std_test")):
            np.testing.assert_allclose(shared.cv_results_[name], values, rtol=rtol, err_msg=name)
        elif name.startswith("rank"):
            np.testing.assert_array_equal(shared.cv_results_[name], values)
    np.testing.assert_allclose(shared.predict(X), plain.predict(X), rtol=rtol)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize(
    ("name", "grid"), [("ridge", RIDGE_GRID), ("banded-ridge", BANDED_GRID)], ids=["ridge", "banded"]
)
def test_ridge_is_scikit_learns(name: str, grid: Any, size: Any, weighted: bool) -> None:
    X, y = cnn_table(*size)
    weights = np.random.default_rng(1).integers(0, 4, size=len(y)) if weighted else None
    settings = {"scoring": make_search(name, list(size[1]), scoring="rmse").scoring}
    plain, shared = both(make_pipeline(name), grid, X, y, weights, **settings)
    assert shared.fast_path_.startswith("shared: ")
    assert_equal(plain, shared, X)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize(
    ("name", "grid"), [("ridge", RIDGE_GRID), ("banded-ridge", BANDED_GRID)], ids=["ridge", "banded"]
)
def test_the_best_ridge_is_fitted_from_what_is_shared(
    name: str, grid: Any, size: Any, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = cnn_table(*size)
    X = X.iloc[:, np.random.default_rng(2).permutation(X.shape[1])]
    weights = np.random.default_rng(1).integers(0, 4, size=len(y)) if weighted else None
    settings = {"scoring": make_search(name, list(size[1]), scoring="rmse").scoring, "cv": 3}
    plain, shared = (
        kind(make_pipeline(name), grid, error_score="raise", **settings)
        for kind in (GridSearchCV, BandGridSearchCV)
    )
    fit_search(plain, X, y, weights)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "fit", refuse)
        fit_search(shared, X, y, weights)
    for theirs, ours in zip(plain.best_estimator_, shared.best_estimator_, strict=True):
        assert vars(theirs).keys() == vars(ours).keys()
    theirs, ours = plain.best_estimator_[-1], shared.best_estimator_[-1]
    assert type(theirs.intercept_) is type(ours.intercept_)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-10)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-8, atol=1e-10 * np.abs(theirs.coef_).max())
    for attribute in ("n_features_in_", "n_iter_", "solver_"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["linear-svr", "rbf-svr"])
def test_support_vectors_are_scikit_learns(name: str, weighted: bool) -> None:
    X, y = cnn_table(*WIDE)
    weights = np.random.default_rng(1).integers(0, 3, size=len(y)) if weighted else None
    settings = {"scoring": make_search(name, scoring="mae").scoring}
    plain, shared = both(make_pipeline(name), SVR_GRID, X, y, weights, **settings)
    assert shared.fast_path_.startswith("shared: 8 candidates over 2 subsets")
    assert_equal(plain, shared, X)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["linear-svr", "rbf-svr"])
def test_the_best_support_vectors_are_fitted_from_what_is_shared(
    name: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = cnn_table(*TALL)
    X = X.iloc[:, np.random.default_rng(2).permutation(X.shape[1])]
    weights = np.random.default_rng(1).integers(0, 4, size=len(y)) if weighted else None
    settings = {"scoring": make_search(name, scoring="mae").scoring, "cv": 3, "error_score": "raise"}
    plain, shared = (
        kind(make_pipeline(name), SVR_GRID, **settings) for kind in (GridSearchCV, BandGridSearchCV)
    )
    fit_search(plain, X, y, weights)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "fit", refuse)
        fit_search(shared, X, y, weights)
    for theirs, ours in zip(plain.best_estimator_, shared.best_estimator_, strict=True):
        assert vars(theirs).keys() == vars(ours).keys()
    theirs, ours = plain.best_estimator_[-1], shared.best_estimator_[-1]
    np.testing.assert_array_equal(ours.support_, theirs.support_)
    np.testing.assert_allclose(ours.support_vectors_, theirs.support_vectors_, rtol=1e-12)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=1e-8)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-8)
    assert ours.n_iter_ == theirs.n_iter_


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_std=False),
        MinMaxScaler(),
        RobustScaler(),
        BandScaler({"a": 0.5}, unit_band=True),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("regressor", "grid"),
    [
        (Ridge(), {"alpha": [0.1, 10.0]}),
        (SVR(), {"C": [1.0, 30.0], "epsilon": [0.2], "gamma": [0.003, 0.03]}),
        (SVR(kernel="linear"), {"C": [0.3, 3.0]}),
    ],
    ids=["ridge", "svr", "linear-svr"],
)
def test_scikit_learns_own_regressors_and_scalers_share_as_well(
    regressor: Any, grid: dict[str, Any], scaler: Any, weighted: bool
) -> None:
    X, y = cnn_table(*WIDE)
    # Each scaler and each regressor takes its weights or does not, as they do in scikit-learn.
    steps = [("scale", scaler), ("regress", regressor)]
    pipeline = Pipeline([("select", SelectBands()), *steps])
    weights = np.random.default_rng(1).integers(1, 4, size=len(y)).astype(float)
    routed = {
        f"{name}__sample_weight": weights
        for name, step in steps
        if weighted and has_fit_parameter(step, "sample_weight")
    }
    grid = {f"regress__{name}": values for name, values in grid.items()}
    plain, shared = (
        kind(clone(pipeline), grid, cv=3, scoring="neg_mean_absolute_error").fit(X, y, **routed)
        for kind in (GridSearchCV, BandGridSearchCV)
    )
    # Weights given step by step are scikit-learn's to route, and the linear kernel of what these scalers leave
    # uncentred is its to compute.
    is_plain = weighted or (
        isinstance(scaler, MinMaxScaler | RobustScaler) and getattr(regressor, "kernel", "") == "linear"
    )
    assert shared.fast_path_.startswith("plain: " if is_plain else "shared: ")
    # The solver of support vectors stops within its tolerance; sums in another order may stop it elsewhere.
    assert_equal(plain, shared, X, rtol=1e-7 if isinstance(regressor, SVR) else 1e-8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_floats_are_widened_first(dtype: type) -> None:
    X, y = cnn_table(*WIDE, dtype=dtype)
    plain, shared = both(make_pipeline("ridge"), RIDGE_GRID, X, y)
    assert_equal(plain, shared, X)
    wide = both(make_pipeline("ridge"), RIDGE_GRID, X.astype(np.float64), y)[1]
    np.testing.assert_allclose(
        shared.cv_results_["mean_test_score"], wide.cv_results_["mean_test_score"], rtol=1e-12
    )


@pytest.mark.parametrize(
    "cv",
    [
        ShuffleSplit(3, test_size=0.3, random_state=0),
        GroupKFold(3),
        [(np.arange(30), np.arange(30, 60)), (np.arange(30), np.arange(60, 90))],
        [(np.arange(20).repeat(2), np.arange(20, 90))],
        [(np.arange(90) < 50, np.arange(90) >= 50)],
    ],
    ids=["overlapping", "groups", "one training set twice", "repeated rows", "masks"],
)
def test_any_folds_will_do(cv: Any) -> None:
    X, y = cnn_table(*TALL)
    groups = {"groups": np.arange(90) // 3} if isinstance(cv, GroupKFold) else {}
    settings = {"cv": cv, "scoring": "r2"}
    plain = GridSearchCV(make_pipeline("ridge"), RIDGE_GRID, **settings).fit(X, y, **groups)
    shared = BandGridSearchCV(make_pipeline("ridge"), RIDGE_GRID, **settings).fit(X, y, **groups)
    assert shared.fast_path_.startswith("shared: ")
    assert_equal(plain, shared, X)


def test_columns_far_from_zero_and_columns_alive_in_one_fold_lose_no_digits() -> None:
    X, y = cnn_table(*TALL)
    X["a:0005"] += 1e6
    X["b:0005"] = 1e-7 * np.random.default_rng(0).normal(size=90)
    X.loc[3, "b:0005"] = 1e3
    # Penalties at which the plain fit itself is exact enough to compare with.
    grid = {"regress__alpha": [1.0, 10.0, 100.0, 1e3]}
    plain, shared = both(make_pipeline("ridge"), grid, X, y)
    assert_equal(plain, shared, X)


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": ["r2", "neg_max_error"], "refit": "r2"},
        {"scoring": "r2", "refit": lambda results: len(results["params"]) - 1},
    ],
)
def test_several_scorers_and_a_refit_rule_take_the_plain_search(settings: dict) -> None:
    X, y = cnn_table(*TALL)
    plain, shared = both(make_pipeline("ridge"), RIDGE_GRID, X, y, **settings)
    assert shared.fast_path_.startswith("plain: ")
    assert_equal(plain, shared, X)


def test_held_out_predictions_are_those_of_the_best_candidate() -> None:
    X, y = cnn_table(*TALL)
    folds = list(KFold(4).split(X))
    shared = both(make_pipeline("ridge"), RIDGE_GRID, X, y, cv=folds)[1]
    np.testing.assert_allclose(
        shared.oof_predictions_, predict_held_out(shared.best_estimator_, X, y, folds), rtol=1e-8
    )
    part = both(make_pipeline("ridge"), RIDGE_GRID, X, y, cv=[(np.arange(50), np.arange(50, 60))])[1]
    np.testing.assert_array_equal(np.isnan(part.oof_predictions_), ~np.isin(np.arange(90), np.arange(50, 60)))


def test_failing_candidates_fail_as_in_scikit_learn() -> None:
    X, y = cnn_table(*TALL)
    grid = {"select__bands": [["a"], ["nowhere"]], "regress__alpha": [1.0, -1.0]}
    searches = []
    for kind in (GridSearchCV, BandGridSearchCV):
        search = kind(make_pipeline("ridge"), grid, cv=3, error_score=-7.0)
        with pytest.warns(FitFailedWarning, match="9 fits failed out of a total of 12"):
            searches.append(search.fit(X, y))
    plain, shared = searches
    assert shared.fast_path_.startswith("plain: the solvers do not know the candidate")
    assert_equal(plain, shared, X)
    with pytest.raises(ValueError, match="bands must be among"):
        BandGridSearchCV(make_pipeline("ridge"), grid, cv=3, error_score="raise").fit(X, y)


@pytest.mark.parametrize(
    ("estimator", "grid", "settings", "reason"),
    [
        (Ridge(), {"alpha": [1.0]}, {}, "not a Pipeline"),
        (make_pipeline("ridge").set_params(regress=Lasso()), {"regress__alpha": [1.0]}, {}, "Lasso"),
        (
            make_pipeline("ridge").set_params(scale=RobustScaler(unit_variance=True)),
            {"regress__alpha": [1.0]},
            {},
            "Robust",
        ),
        (
            make_pipeline("ridge").set_params(scale=MinMaxScaler(clip=True)),
            {"regress__alpha": [1.0]},
            {},
            "clips",
        ),
        (
            make_pipeline("ridge").set_params(scale=MinMaxScaler(), regress=SVR(kernel="linear")),
            {"regress__C": [1.0]},
            {},
            "linear kernel",
        ),
        (
            make_pipeline("ridge").set_params(regress=KernelRidge()),
            {"regress__alpha": [1.0]},
            {},
            "KernelRidge",
        ),
        (make_pipeline("ridge").set_params(regress=SVR()), {"regress__gamma": ["scale"]}, {}, "'scale'"),
        (make_pipeline("ridge"), {"regress__fit_intercept": [True]}, {}, "'regress__fit_intercept'"),
        (make_pipeline("ridge"), {"regress__alpha": [1.0]}, {"return_train_score": True}, "training rows"),
        (make_pipeline("ridge"), {"regress__alpha": [1.0]}, {"scoring": lambda e, X, y: 0.0}, "function"),
        (make_pipeline("ridge").set_params(regress__solver="svd"), {"regress__alpha": [1.0]}, {}, "'svd'"),
    ],
)
def test_what_cannot_be_shared_is_searched_plainly(
    estimator: Any, grid: Any, settings: Any, reason: str
) -> None:
    X, y = cnn_table(*TALL)
    plain, shared = both(estimator, grid, X, y, **settings)
    assert shared.fast_path_.startswith("plain: ")
    assert reason in shared.fast_path_
    assert_equal(plain, shared, X)


def test_repeated_rows_with_different_mos_are_warned_about() -> None:
    X, y = cnn_table(*WIDE)
    X.iloc[20:] = X.iloc[:20].to_numpy()
    folds = [(np.r_[:15, 20:35], np.r_[15:20, 35:40])]
    search = BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [1e-8, 1e3]}, cv=folds)
    with pytest.warns(PrecisionWarning, match="1 of 2 candidates depend on rounding errors"):
        search.fit(X, y)
    assert issubclass(PrecisionWarning, LinAlgWarning)


@pytest.mark.parametrize("n_repeated", [0, 15])
def test_warnings_come_where_and_only_where_digits_are_uncertain(n_repeated: int) -> None:
    """What two of scikit-learn's own solvers cannot agree on is warned about; ordinary tables are not."""
    X, y = cnn_table(*WIDE)
    X.iloc[20 : 20 + n_repeated] = X.iloc[:n_repeated].to_numpy()
    train, test = np.arange(35), np.arange(35, 40)
    scaler = StandardScaler().fit(X.iloc[train])
    Z = scaler.transform(X)
    spread = np.ptp(y[train])
    for alpha in 10.0 ** np.arange(-10, 3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=LinAlgWarning)
            one, other = (
                Ridge(alpha=alpha, solver=solver).fit(Z[train], y[train]).predict(Z[test])
                for solver in ("svd", "cholesky")
            )
        difference = np.abs(one - other).max() / spread
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            BandGridSearchCV(
                make_pipeline("ridge"), {"regress__alpha": [alpha]}, cv=[(train, test)], refit=False
            ).fit(X, y)
        warned = any(issubclass(warning.category, PrecisionWarning) for warning in caught)
        if difference > 1e-8:
            assert warned, alpha
        if difference < 1e-12:
            assert not warned, alpha
        if not n_repeated:
            assert not warned, alpha


def test_metadata_is_routed_as_in_scikit_learn() -> None:
    X, y = cnn_table(*TALL)
    rng = np.random.default_rng(0)
    weights, groups = rng.integers(1, 4, size=90).astype(float), np.arange(90) // 3
    searches = []
    with config_context(enable_metadata_routing=True):
        for kind in (GridSearchCV, BandGridSearchCV):
            pipeline = make_pipeline("ridge")
            pipeline["scale"].set_fit_request(sample_weight=False)
            pipeline["regress"].set_fit_request(sample_weight=True)
            scorer = make_scorer(mean_absolute_error, greater_is_better=False).set_score_request(
                sample_weight=True
            )
            search = kind(pipeline, RIDGE_GRID, cv=GroupKFold(3), scoring=scorer)
            searches.append(search.fit(X, y, sample_weight=weights, groups=groups))
    plain, shared = searches
    assert shared.fast_path_.startswith("plain: metadata is to be routed, sample_weight")
    assert_equal(plain, shared, X)


def test_pandas_output_changes_no_number() -> None:
    X, y = cnn_table(*TALL)
    plain, shared = (
        kind(make_pipeline("ridge").set_output(transform="pandas"), RIDGE_GRID, cv=3).fit(X, y)
        for kind in (GridSearchCV, BandGridSearchCV)
    )
    assert shared.fast_path_.startswith("shared: ")
    assert_equal(plain, shared, X)
    scaled = [search.best_estimator_[:-1].transform(X) for search in (plain, shared)]
    assert isinstance(scaled[0], pd.DataFrame)
    assert type(scaled[0]) is type(scaled[1])
    np.testing.assert_allclose(scaled[0], scaled[1], rtol=1e-12, atol=1e-12)


def test_clones_and_parameters_carry_everything() -> None:
    search = BandGridSearchCV(make_pipeline("ridge"), RIDGE_GRID, cv=4, n_jobs=2, error_score=0.0)
    copy = clone(search)
    assert not hasattr(copy, "cv_results_")
    ours, plain = copy.get_params(deep=False), GridSearchCV(make_pipeline(), {}).get_params(deep=False)
    assert set(ours) == set(plain)
    assert (ours["cv"], ours["n_jobs"], ours["error_score"]) == (4, 2, 0.0)
    copy.set_params(estimator__regress__alpha=7.0)
    assert search.estimator["regress"].alpha == 1.0
    defaults = BandGridSearchCV(make_pipeline(), {}).get_params(deep=False)
    for name, value in plain.items():
        assert name in ("estimator", "error_score") or defaults[name] == value


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_the_number_of_threads_changes_nothing(n_jobs: int) -> None:
    X, y = cnn_table(*WIDE)
    one = BandGridSearchCV(make_pipeline("ridge"), RIDGE_GRID, cv=3, scoring="r2").fit(X, y)
    other = clone(one).set_params(n_jobs=n_jobs).fit(X, y)
    np.testing.assert_array_equal(other.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"])


def test_a_nested_search_tunes_the_inner_one() -> None:
    X, y = cnn_table(*TALL)
    inner = BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [0.1, 10.0]}, cv=2, scoring="r2")
    outer = GridSearchCV(inner, {"estimator__select__bands": [["a"], ["b", "c"]]}, cv=2, scoring="r2").fit(
        X, y
    )
    reference = GridSearchCV(
        GridSearchCV(make_pipeline("ridge"), {"regress__alpha": [0.1, 10.0]}, cv=2, scoring="r2"),
        {"estimator__select__bands": [["a"], ["b", "c"]]},
        cv=2,
        scoring="r2",
    ).fit(X, y)
    assert outer.best_params_ == reference.best_params_
    np.testing.assert_allclose(
        outer.cv_results_["mean_test_score"], reference.cv_results_["mean_test_score"], rtol=1e-8
    )


def test_a_citizen_of_scikit_learn() -> None:
    X, y = cnn_table(*TALL)
    search = BandGridSearchCV(make_pipeline("ridge"), RIDGE_GRID, cv=3)
    plain = GridSearchCV(make_pipeline("ridge"), RIDGE_GRID, cv=3)
    np.testing.assert_allclose(
        cross_val_score(search, X, y, cv=3), cross_val_score(plain, X, y, cv=3), rtol=1e-8
    )
    piped = Pipeline([("same", FunctionTransformer()), ("search", search)]).set_output(transform="pandas")
    fitted = piped.fit(X, y)["search"]
    assert fitted.fast_path_.startswith("shared: ")
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict(X), fitted.predict(X))
    assert clone(copy).get_params()["cv"] == 3
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    assert fitted.n_features_in_ == X.shape[1]
    with config_context(transform_output="pandas"):
        assert_equal(plain.fit(X, y), search.fit(X, y), X)


def test_a_second_fit_forgets_the_first() -> None:
    X, y = cnn_table(*TALL)
    search = BandGridSearchCV(make_pipeline("ridge"), RIDGE_GRID, cv=3).fit(X, y)
    assert hasattr(search, "oof_predictions_")
    search.set_params(return_train_score=True).fit(X, y)
    assert not hasattr(search, "oof_predictions_")
    assert search.fast_path_.startswith("plain: ")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", ["ridge", "banded-ridge", "rbf-svr"])
def test_an_ensemble_is_the_same_with_and_without(estimator: str, weighted: bool) -> None:
    X, y = cnn_table(*TALL)
    weights = np.random.default_rng(0).integers(1, 4, size=len(y)) if weighted else None
    ours, reference = (
        BandEnsemble(
            estimator=estimator,
            alpha=[1e-2, 1.0, 1e2],
            band_weights=[{"a": 1.0}, {"a": 0.3}],
            C=[1.0, 3.0],
            gamma=[0.3],
            epsilon=[0.1],
            cv=2,
            select_by="rmse",
            reference=reference,
        ).fit(X, y, sample_weight=weights)
        for reference in (False, True)
    )
    assert ours.member_params_ == reference.member_params_
    np.testing.assert_allclose(ours.predict(X), reference.predict(X), rtol=1e-8)
    np.testing.assert_allclose(ours.oof_predictions_, reference.oof_predictions_, rtol=1e-8)
    pd.testing.assert_frame_equal(ours.cv_results_, reference.cv_results_, rtol=1e-8)


def test_searches_fitted_together_are_those_fitted_alone() -> None:
    X, y = cnn_table(*TALL)
    subsets = [["a"], ["a", "b"], ["c"]]
    alone = [fit_search(make_search("ridge", bands, cv=3), X, y) for bands in subsets]
    together = fit_searches([make_search("ridge", bands, cv=3) for bands in subsets], X, y)
    for one, other in zip(alone, together, strict=True):
        assert_equal(one, other, X)
        np.testing.assert_allclose(one.oof_predictions_, other.oof_predictions_, rtol=1e-10)
