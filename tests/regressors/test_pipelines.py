"""Searches: closed forms, equality with scikit-learn written out, candidates, and one rule for weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import LinAlgWarning
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline as pipe
from sklearn.preprocessing import StandardScaler

from featbank.recipes.reading import RegressionRequest
from regressors.bands import BandScaler
from regressors.evaluation.metrics import SCORERS, srcc
from regressors.folds import make_folds
from regressors.pipelines import (
    DEFAULT_GRID,
    ESTIMATORS,
    KINDS,
    SCALES,
    band_weight_candidates,
    make_pipeline,
    make_search,
    readable_params,
)
from regressors.search import fit_pipeline, fit_search, predict_held_out
from tests.support.band_tables import band_table

SMALL = {"alpha": [0.1, 10.0], "C": [1.0], "epsilon": [0.1], "gamma": [0.3]}


def test_the_default_grid_is_that_of_the_report() -> None:
    np.testing.assert_allclose(DEFAULT_GRID["alpha"], [10.0**k for k in range(-6, 7)])
    assert len(make_search("ridge").param_grid["regress__alpha"]) == 13


def test_defaults_stand_in_one_place() -> None:
    request = RegressionRequest()
    for name, kind in KINDS.items():
        grid = make_search(name, ["a", "b"]).param_grid
        for key in kind.grid:
            assert grid[f"regress__{key}"] == list(DEFAULT_GRID[key]) == list(getattr(request, key))
    np.testing.assert_array_equal(DEFAULT_GRID["alpha"], np.logspace(-6, 6, 13))


@pytest.mark.parametrize("n_rows", [40, 12])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3])
def test_ridge_solves_its_normal_equations(n_rows: int, alpha: float) -> None:
    """With more rows than columns, and with fewer."""
    X, y = band_table(n_rows)
    model = make_pipeline("ridge").set_params(regress__alpha=alpha).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    coefficients = np.linalg.solve(Z.T @ Z + alpha * np.eye(Z.shape[1]), Z.T @ (y - y.mean()))
    np.testing.assert_allclose(model.predict(X), y.mean() + Z @ coefficients, atol=1e-8)


def test_a_huge_penalty_predicts_the_mean() -> None:
    X, y = band_table()
    model = make_pipeline("ridge").set_params(regress__alpha=1e12).fit(X, y)
    np.testing.assert_allclose(model.predict(X), y.mean(), atol=1e-6)


def test_the_search_is_scikit_learns_written_out() -> None:
    X, y = band_table()
    folds = make_folds(y, np.arange(len(y)))
    ours = fit_search(make_search("ridge", ["quality", "scene"], cv=folds), X, y)
    columns = [c for c in X if not c.startswith("content")]
    theirs = GridSearchCV(
        pipe(StandardScaler(), Ridge()),
        {"ridge__alpha": DEFAULT_GRID["alpha"]},
        cv=folds,
        scoring=SCORERS["srcc"],
    ).fit(X[columns], y)
    for key in ("mean_test_score", "std_test_score", "split3_test_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-11)
    assert ours.best_index_ == theirs.best_index_
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X[columns]))


def test_the_search_agrees_with_leave_one_out_ridge() -> None:
    """RidgeCV has the closed form of leave-one-out; on columns standardised beforehand both see the same."""
    X, y = band_table(40)
    Z = StandardScaler().fit_transform(X)
    alphas = np.logspace(-2, 3, 6)
    efficient = RidgeCV(alphas, store_cv_results=True).fit(Z, y)
    loo = [(np.delete(np.arange(40), k), np.array([k])) for k in range(40)]
    search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=loo, scoring="neg_mean_squared_error").fit(Z, y)
    np.testing.assert_allclose(
        -search.cv_results_["mean_test_score"], efficient.cv_results_.mean(axis=0), rtol=1e-6
    )
    held_out = predict_held_out(Ridge(alpha=alphas[0]), Z, y, loo)
    np.testing.assert_allclose((y - held_out) ** 2, efficient.cv_results_[:, 0], rtol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_named_estimator_finds_the_signal(estimator: str) -> None:
    X, y = band_table(150)
    search = fit_search(make_search(estimator, ["quality", "content"], cv=3, **SMALL), X[:100], y[:100])
    assert srcc(y[100:], search.predict(X[100:])) > 0.8


@pytest.mark.parametrize("scale", SCALES)
def test_columns_are_scaled_as_the_choice_says(scale: str) -> None:
    X, y = band_table(120)
    X = X * np.geomspace(1e-2, 1e2, X.shape[1]) + 3.0
    fitted = X[:90]
    low, middle, high = (fitted.quantile(q) for q in (0.25, 0.5, 0.75))
    Z = {
        "standard": (X - fitted.mean()) / fitted.std(ddof=0),
        "none": X,
        "minmax": (X - fitted.min()) / (fitted.max() - fitted.min()),
        "robust": (X - middle) / (high - low),
    }[scale]
    search = fit_search(make_search("ridge", alpha=[0.5], scale=scale, cv=3), fitted, y[:90])
    assert search.fast_path_.startswith("shared")
    by_hand = Ridge(0.5).fit(Z[:90], y[:90]).predict(Z[90:])
    np.testing.assert_allclose(search.predict(X[90:]), by_hand, rtol=0, atol=1e-8 * np.ptp(y))


def test_weights_of_bands_are_for_standardised_columns() -> None:
    with pytest.raises(ValueError, match="for standardised columns"):
        make_search("ridge", scale="none", unit_band=True)


def test_banded_ridge_with_one_candidate_is_ridge_on_weighted_bands() -> None:
    X, y = band_table()
    weights = {"quality": 1.0, "content": 0.3, "scene": 0.1}
    search = fit_search(
        make_search("banded-ridge", list(weights), band_weights=[weights], alpha=[2.0], cv=3), X, y
    )
    by_hand = pipe(BandScaler(weights), Ridge(2.0)).fit(X, y)
    np.testing.assert_allclose(search.predict(X), by_hand.predict(X))


def test_banded_ridge_beats_ridge_where_a_band_is_noise() -> None:
    """Two columns carry the signal, a hundred do not; chosen and judged on separate rows, mean of five draws."""
    candidates = [{"noise": weight} for weight in (1.0, 0.3, 0.1)]
    gains = []
    for seed in range(5):
        X, y = band_table(160, {"signal": 2, "noise": 100}, seed=seed, noise=0.5)
        folds = make_folds(y[:80], np.arange(80), n_splits=3)
        scores = []
        for weights in (candidates[:1], candidates):
            search = make_search(
                "banded-ridge", band_weights=weights, alpha=[1.0, 30.0, 1e3], cv=folds, scoring="rmse"
            )
            scores.append(srcc(y[80:], fit_search(search, X[:80], y[:80]).predict(X[80:])))
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


def test_band_weight_candidates() -> None:
    for n_bands in range(1, 6):
        bands = [f"band{k}" for k in range(n_bands)]
        candidates = band_weight_candidates(bands)
        assert candidates[0] == dict.fromkeys(bands, 1.0)
        assert len({tuple(c.values()) for c in candidates}) == len(candidates)
        for candidate in candidates:
            assert list(candidate) == bands
            assert max(candidate.values()) == 1.0
            assert min(candidate.values()) > 0.0
    assert len(band_weight_candidates(["a"])) == 1
    assert band_weight_candidates(["a", "b"], random_state=1) != band_weight_candidates(
        ["a", "b"], random_state=2
    )
    with pytest.raises(ValueError, match="at least one band"):
        band_weight_candidates([])


def test_grids_of_other_estimators_are_ignored() -> None:
    grid = make_search("ridge", C=[1.0], gamma=[1.0]).param_grid
    assert list(grid) == ["regress__alpha"]
    assert "regress__gamma" not in make_search("linear-svr").param_grid


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rigde",), "Did you mean 'ridge'"),
        (("banded-ridge",), "needs the names of its bands"),
        (("ridge", None, {"alpha": []}), "alpha must be a non-empty list"),
        (("ridge", None, {"alpha": [1.0, np.nan]}), "finite numbers"),
        (("ridge", None, {"scoring": "srocc"}), "scoring must be one of"),
        (("banded-ridge", ["a"], {"band_weights": []}), "at least one candidate"),
    ],
)
def test_inadmissible_requests_are_refused(arguments: tuple, message: str) -> None:
    *positional, keywords = [*arguments, {}] if not isinstance(arguments[-1], dict) else arguments
    with pytest.raises(ValueError, match=message):
        make_search(*positional, **keywords)


def test_scikit_learns_own_scorers_work() -> None:
    X, y = band_table()
    by_name = fit_search(make_search("ridge", alpha=[1.0], cv=3, scoring="r2"), X, y)
    by_object = fit_search(make_search("ridge", alpha=[1.0], cv=3, scoring=make_scorer(r2_score)), X, y)
    assert by_name.best_score_ == by_object.best_score_


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("unit_band", [False, True])
def test_a_weight_is_a_repetition_in_fit_and_score(estimator: str, unit_band: bool) -> None:
    X, y = band_table(60)
    weights = np.random.default_rng(0).integers(1, 4, size=60)
    source = np.repeat(np.arange(60), weights)
    groups = np.arange(60) % 20
    folds = make_folds(y, groups, n_splits=3)
    repeated_folds = [tuple(np.flatnonzero(np.isin(source, part)) for part in fold) for fold in folds]
    arguments = {"unit_band": unit_band, **SMALL}
    if estimator == "banded-ridge":
        arguments["band_weights"] = [{"quality": 1.0}, {"scene": 0.1}]
    bands = ["quality", "content", "scene"]
    weighted = make_search(estimator, bands, cv=folds, **arguments)
    repeated = make_search(estimator, bands, cv=repeated_folds, **arguments)
    if estimator.endswith("svr"):
        weighted.set_params(estimator__regress__tol=1e-9)
        repeated.set_params(estimator__regress__tol=1e-9)
    fit_search(weighted, X, y, weights)
    fit_search(repeated, X.iloc[source], y[source])
    tolerance = 1e-4 if estimator.endswith("svr") else 1e-10
    np.testing.assert_allclose(
        weighted.cv_results_["mean_test_score"], repeated.cv_results_["mean_test_score"], atol=tolerance
    )
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=tolerance)
    held_out = predict_held_out(weighted.best_estimator_, X, y, folds, weights)
    held_out_repeated = predict_held_out(repeated.best_estimator_, X.iloc[source], y[source], repeated_folds)
    np.testing.assert_allclose(held_out[source], held_out_repeated, atol=tolerance)


def test_weights_move_the_score_and_not_only_the_fit() -> None:
    X, y = band_table(60)
    weights = np.where(np.arange(60) < 30, 1.0, 9.0)
    folds = make_folds(y, np.arange(60), n_splits=3)
    search = fit_search(make_search("ridge", alpha=[1.0], cv=folds, scoring="mae"), X, y, weights)
    train, test = folds[0]
    fitted = fit_pipeline(clone(search.best_estimator_), X.iloc[train], y[train], weights[train])
    error = np.abs(y[test] - fitted.predict(X.iloc[test]))
    assert -search.cv_results_["split0_test_score"][0] == pytest.approx(
        np.average(error, weights=weights[test])
    )
    assert -search.cv_results_["split0_test_score"][0] != pytest.approx(error.mean())


def test_a_scorer_that_takes_no_weights_is_refused_with_weights() -> None:
    X, y = band_table(30)

    def plain(estimator: object, X: object, y: object) -> float:
        return 0.0

    search = make_search("ridge", alpha=[1.0], cv=3, scoring=plain)
    assert fit_search(search, X, y).best_score_ == 0.0
    with pytest.raises(ValueError, match="the scorer must take weights"):
        fit_search(search, X, y, np.ones(30))


def test_no_trace_of_the_routing_is_left() -> None:
    X, y = band_table(30)
    search = fit_search(make_search("ridge", alpha=[1.0], cv=3), X, y, np.ones(30))
    for pipeline in (search.estimator, search.best_estimator_):
        assert not any("_metadata_request" in vars(step) for _, step in pipeline.steps)
    unweighted = fit_search(make_search("ridge", alpha=[1.0], cv=3), X, y)
    np.testing.assert_allclose(search.predict(X), unweighted.predict(X))


def test_held_out_predictions_are_scikit_learns() -> None:
    X, y = band_table()
    model = make_pipeline("ridge", ["quality"])
    folds = make_folds(y, kind="kfold", n_splits=4)
    np.testing.assert_allclose(predict_held_out(model, X, y, folds), cross_val_predict(model, X, y, cv=folds))


def test_held_out_rows_are_nan_where_no_fold_tests_and_averaged_where_several_do() -> None:
    X, y = band_table(40)
    model = make_pipeline("ridge")
    first, second = (np.arange(10, 40), np.arange(10)), (np.arange(20, 40), np.arange(10))
    both = predict_held_out(model, X, y, [first, second])
    assert np.isnan(both[10:]).all()
    alone = [predict_held_out(model, X, y, [fold])[:10] for fold in (first, second)]
    np.testing.assert_allclose(both[:10], np.mean(alone, axis=0))


def test_an_error_in_a_fit_is_raised_and_not_scored() -> None:
    X, y = band_table(30)
    with pytest.raises(ValueError, match="Did you mean 'quality'"):
        fit_search(make_search("ridge", ["qualities"], cv=3), X, y)


def test_ill_conditioned_candidates_warn_only_when_chosen() -> None:
    rng = np.random.default_rng(0)
    X = np.vander(np.linspace(0, 1, 30), 12)  # powers of one number, nearly dependent
    y = X[:, 0] + rng.normal(size=30)
    folds = make_folds(y, np.arange(30), n_splits=3)
    search = fit_search(make_search("ridge", alpha=[1e-15, 1.0], cv=folds), X, y)
    with pytest.warns(LinAlgWarning):
        predict_held_out(clone(search.estimator).set_params(regress__alpha=1e-15), X, y, folds)


@pytest.mark.slow
def test_parallel_search_gives_the_same() -> None:
    X, y = band_table(60)
    alone, together = (
        fit_search(make_search("ridge", alpha=[0.1, 10.0], cv=3, n_jobs=n), X, y, np.ones(60))
        for n in (None, 2)
    )
    np.testing.assert_array_equal(
        alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"]
    )


def test_parameters_for_tables() -> None:
    assert readable_params({"regress__C": 1, "regress__gamma": np.float64(2)}) == {"C": 1.0, "gamma": 2.0}


def test_narrow_floats_are_widened_before_anything_is_computed() -> None:
    X, y = band_table()
    narrow = X.astype(np.float32)
    wide = pd.DataFrame(narrow.to_numpy(np.float64), columns=X.columns)
    models = [
        make_pipeline("ridge").set_params(regress__alpha=1e-4).fit(table, y) for table in (narrow, wide)
    ]
    np.testing.assert_array_equal(models[0].predict(narrow), models[1].predict(wide))
