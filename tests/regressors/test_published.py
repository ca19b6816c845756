"""Published results on real features, reproduced; needs the folder named by FEATBANK_TEST_DATA."""

from __future__ import annotations

import warnings
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat
from scipy.optimize import OptimizeWarning, curve_fit
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVR

from regressors.bands import SelectBands
from regressors.ensemble import BandEnsemble
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import (
    apply_logistic4,
    fit_logistic4,
    krcc,
    plcc,
    plcc_logistic,
    rmse,
    srcc,
)
from regressors.folds import make_folds
from regressors.pipelines import make_pipeline, make_search
from regressors.search import BandGridSearchCV, PrecisionWarning, fit_search, predict_held_out

pytestmark = pytest.mark.dataset

# The authors' script deletes these rows, counted from 1, on every data set.
VIDEVAL_DELETED = [
    3,
    6,
    10,
    22,
    23,
    46,
    51,
    52,
    68,
    74,
    77,
    99,
    103,
    122,
    136,
    141,
    158,
    173,
    368,
    426,
    467,
    477,
    506,
    563,
]
RVS_SUBSETS = [
    "NSS", "CNN", "Saliency", "NSS_CNN", "NSS_Saliency", "CNN_Saliency", "NSS_CNN_Saliency",
    "VSFACNN", "VSFACNN_Saliency", "NSS_VSFACNN", "NSS_VSFACNN_Saliency",
]  # fmt: skip


@pytest.fixture(scope="module")
def videval(real_data: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Features, MOS and the authors' SRCC of 100 splits."""
    folder = real_data / "videval-live-vqc"
    features = loadmat(folder / "LIVE_VQC_VIDEVAL_light720_6fps_feats.mat")["feats_mat"]
    features = np.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)
    mos = pd.read_csv(folder / "LIVE_VQC_metadata.csv")["MOS"].to_numpy()
    keep = np.setdiff1d(np.arange(len(mos)), np.array(VIDEVAL_DELETED) - 1)
    published = loadmat(folder / "LIVE_VQC_VIDEVAL_light720_6fps_corr.mat")["SRCC_test"].ravel()
    columns = [f"videval:{k:04d}" for k in range(features.shape[1])]
    return pd.DataFrame(features[keep], columns=columns), mos[keep], published


def videval_split(n_rows: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    train, test = train_test_split(np.arange(n_rows), test_size=0.2, random_state=ceil(8.8 * i))
    return train, test


def ridge_srcc(videval: tuple[pd.DataFrame, np.ndarray, np.ndarray], i: int) -> float:
    X, y, _ = videval
    train, test = videval_split(len(y), i)
    # Videos have no uploader in this set: each row stands alone, and the recipe says so.
    folds = make_folds(y[train], np.arange(len(train)))
    search = make_search("ridge", alpha=np.logspace(-3, 6, 10), cv=folds, scoring="rmse")
    return srcc(y[test], fit_search(search, X.iloc[train], y[train]).predict(X.iloc[test]))


def rvs_table(real_data: Path) -> tuple[pd.DataFrame, np.ndarray, pd.Series]:
    """Bands NSS, CNN and saliency of 294 videos, their MOS and names."""
    folder = real_data / "rvs-1080p"
    names = ("NSS", "CNN", "Saliency")
    blocks = {name: loadmat(folder / f"YOUTUBE_UGC_1080P_{name}_feats.mat")["feats_mat"] for name in names}
    columns = [f"{band.lower()}:{k:04d}" for band, block in blocks.items() for k in range(block.shape[1])]
    X = pd.DataFrame(np.nan_to_num(np.hstack(list(blocks.values())), posinf=0.0, neginf=0.0), columns=columns)
    metadata = pd.read_csv(folder / "YOUTUBE_UGC_1080P_metadata.csv")
    return X, metadata["MOSFull"].to_numpy(), metadata["vid"]


def test_plain_ridge_on_the_first_videval_splits(
    videval: tuple[pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    """The same ten splits as published; over all hundred ridge has median 0.748, the authors' SVR 0.743."""
    ours = [ridge_srcc(videval, i) for i in range(1, 11)]
    theirs = videval[2][:10]
    assert 0.72 < np.median(ours) < 0.78
    assert np.corrcoef(ours, theirs)[0, 1] > 0.5  # easy splits are easy for both


@pytest.mark.slow
def test_plain_ridge_on_all_videval_splits(videval: tuple[pd.DataFrame, np.ndarray, np.ndarray]) -> None:
    ours = np.array([ridge_srcc(videval, i) for i in range(1, 101)])
    assert np.median(ours) == pytest.approx(0.748, abs=0.004)
    assert np.median(videval[2]) == pytest.approx(0.7429, abs=5e-5)
    assert np.mean(ours > videval[2]) == pytest.approx(0.59, abs=0.06)


@pytest.mark.parametrize("i", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 11))])
def test_the_published_videval_protocol_gives_the_published_metrics(
    videval: tuple[pd.DataFrame, np.ndarray, np.ndarray], real_data: Path, i: int
) -> None:
    """One split by the authors' own rules, with the logistic map of this package where they use theirs."""
    X, y, _ = videval
    saved = loadmat(real_data / "videval-live-vqc" / "LIVE_VQC_VIDEVAL_light720_6fps_corr.mat")
    published = {name: saved[f"{name}_test"].ravel()[i - 1] for name in ("SRCC", "KRCC", "PLCC", "RMSE")}
    train, test = videval_split(len(y), i)
    inner, validation = train_test_split(train, test_size=0.2, random_state=ceil(6.6 * i))
    Z = MinMaxScaler().fit(X.iloc[inner]).transform(X)
    best = (np.inf, 0.0, 0.0)
    for C in 2.0 ** np.arange(1, 11):
        for gamma in 2.0 ** np.arange(-8, 2):
            predicted = SVR(C=C, gamma=gamma).fit(Z[inner], y[inner]).predict(Z[validation])
            fitted = fit_logistic4(y[validation], predicted)
            assert fitted is not None
            best = min(best, (rmse(y[validation], apply_logistic4(fitted, predicted)), C, gamma))
    Z = MinMaxScaler().fit(X.iloc[train]).transform(X)
    predicted = SVR(C=best[1], gamma=best[2]).fit(Z[train], y[train]).predict(Z[test])
    assert srcc(y[test], predicted) == pytest.approx(published["SRCC"], abs=1e-12)
    assert krcc(y[test], predicted) == pytest.approx(published["KRCC"], abs=1e-12)
    fitted = fit_logistic4(y[test], predicted)
    assert fitted is not None
    error = rmse(y[test], apply_logistic4(fitted, predicted))
    # Nearly always the same map. Where their optimiser ended elsewhere, it ended at a worse one (split 3 loses 0.09
    # of PLCC) or outside our box, at a hardly better one.
    assert error <= published["RMSE"] + 0.02
    assert plcc_logistic(y[test], predicted) >= published["PLCC"] - 1e-3
    if i in {1, 2, 4, 5}:
        assert plcc_logistic(y[test], predicted) == pytest.approx(published["PLCC"], abs=1e-6)
        assert error == pytest.approx(published["RMSE"], abs=1e-5)


def authors_rmse(y: np.ndarray, y_pred: np.ndarray) -> float:
    """RMSE after the map as the authors fit it: the local minima of their optimiser decide on some splits."""

    def logistic(x: np.ndarray, top: float, bottom: float, middle: float, width: float) -> np.ndarray:
        return bottom + (top - bottom) / (1 + np.exp(-(x - middle) / np.abs(width)))

    start = [np.max(y), np.min(y), np.mean(y_pred), 0.5]
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore", category=OptimizeWarning)
        found, _ = curve_fit(logistic, y_pred, y, p0=start, maxfev=100_000)
        return rmse(y, logistic(y_pred, *found))


@pytest.mark.parametrize("i", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 101))])
def test_shared_kernels_reproduce_the_published_srcc(
    videval: tuple[pd.DataFrame, np.ndarray, np.ndarray], i: int
) -> None:
    """The authors' protocol as one grid search: its best candidate, refitted on the 80 %, has their SRCC."""
    X, y, published = videval
    train, test = videval_split(len(y), i)
    inner, validation = train_test_split(np.arange(len(train)), test_size=0.2, random_state=ceil(6.6 * i))
    search = BandGridSearchCV(
        Pipeline([("select", SelectBands()), ("scale", MinMaxScaler()), ("regress", SVR())]),
        # Of equals the first wins: C before gamma, as in the authors' loops.
        {"regress__C": 2.0 ** np.arange(1, 11), "regress__gamma": 2.0 ** np.arange(-8, 2)},
        scoring=make_scorer(authors_rmse, greater_is_better=False),
        cv=[(inner, validation)],
    )
    search.fit(X.iloc[train], y[train])
    assert search.fast_path_ == "shared: 100 candidates over 1 subsets of bands in 1 folds"
    assert srcc(y[test], search.predict(X.iloc[test])) == pytest.approx(published[i - 1], abs=1e-12)


def assert_same_search(pipeline: Pipeline, grid: dict, X: pd.DataFrame, y: np.ndarray) -> None:
    settings = {"scoring": "neg_root_mean_squared_error", "cv": make_folds(y, np.arange(len(y)))}
    plain = GridSearchCV(pipeline, grid, **settings).fit(X, y)
    shared = BandGridSearchCV(pipeline, grid, **settings).fit(X, y)
    assert shared.fast_path_.startswith("shared: ")
    assert "scikit-learn fitted" not in shared.fast_path_
    assert shared.best_params_ == plain.best_params_
    for name, values in plain.cv_results_.items():
        if name.startswith("split"):
            np.testing.assert_allclose(shared.cv_results_[name], values, rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(shared.predict(X), plain.predict(X), rtol=1e-8)
    np.testing.assert_allclose(
        shared.oof_predictions_, predict_held_out(plain.best_estimator_, X, y, settings["cv"]), rtol=1e-8
    )


@pytest.mark.parametrize("estimator", ["ridge", "rbf-svr", "linear-svr"])
def test_shared_and_plain_search_agree_on_videval(
    videval: tuple[pd.DataFrame, np.ndarray, np.ndarray], estimator: str
) -> None:
    X, y, _ = videval
    grid = {"regress__alpha": np.logspace(-3, 6, 10)} if estimator == "ridge" else {"regress__C": [0.1, 1.0]}
    assert_same_search(make_pipeline(estimator), grid, X, y)


@pytest.mark.parametrize("estimator", ["ridge", "banded-ridge", "rbf-svr"])
def test_shared_and_plain_search_agree_on_three_encoders(real_data: Path, estimator: str) -> None:
    X, y, _ = rvs_table(real_data)
    if estimator == "rbf-svr":
        grid: dict = {
            "select__bands": [["nss", "cnn", "saliency"], ["cnn", "saliency"]],
            "regress__C": [1.0, 10.0],
            "regress__gamma": [0.1, 0.3],
        }
    else:
        # What one huge value in a held-out row does to a linear prediction is the next test's matter.
        X = X[[name for name in X.columns if not name.startswith("nss:")]]
        grid = {"regress__alpha": np.logspace(0, 6, 4)}
        grid |= (
            {"select__bands": [["cnn", "saliency"], ["cnn"], ["saliency"]]}
            if estimator == "ridge"
            else {"scale__band_weights": [None, {"cnn": 0.1, "saliency": 0.5}]}
        )
    assert_same_search(make_pipeline(estimator), grid, X, y)


def test_columns_that_reach_1e24_are_warned_about(real_data: Path) -> None:
    """A column that is tame on the training rows and huge in a held-out one: no digit of that prediction is certain."""
    X, y, _ = rvs_table(real_data)
    search = BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [1.0, 1e6]}, cv=5)
    with pytest.warns(PrecisionWarning, match="2 of 2 candidates depend on rounding errors"):
        search.fit(X, y)


@pytest.mark.parametrize("subset", RVS_SUBSETS)
def test_published_metrics_follow_from_published_predictions(real_data: Path, subset: str) -> None:
    folder = real_data / "rvs-1080p"
    rows = pd.read_csv(folder / f"test_YOUTUBE_UGC_1080P_{subset}_Predicted_Score.csv")
    published = pd.read_csv(folder / f"YOUTUBE_UGC_1080P_{subset}_Correlaiton.csv").iloc[0]
    y, y_pred = rows["MOS"], rows["y_pred1"]
    assert len(rows) == 59
    assert srcc(y, y_pred) == pytest.approx(published["SRCC"], abs=1e-12)
    assert krcc(y, y_pred) == pytest.approx(published["KRCC"], abs=1e-12)
    mapped = rows[f"Predicted Score_{subset}"]
    if subset not in {"NSS_VSFACNN_Saliency"}:
        assert plcc(y, mapped) == pytest.approx(published["PLCC"], abs=1e-7)
        assert rmse(y, mapped) == pytest.approx(published["RMSE"], abs=1e-7)
    # Their map was fitted elsewhere; the best one on these rows can only be better.
    assert plcc_logistic(y, y_pred) > published["PLCC"] - 0.01


def test_an_ensemble_on_published_bands_reaches_the_published_score(real_data: Path) -> None:
    """Bands NSS, CNN and saliency of 294 videos; the authors report SRCC 0.626 on their 59 test videos."""
    folder = real_data / "rvs-1080p"
    X, y, videos = rvs_table(real_data)
    tested = pd.read_csv(folder / "test_YOUTUBE_UGC_1080P_NSS_CNN_Saliency_Predicted_Score.csv")["Video_name"]
    is_test = videos.isin(tested).to_numpy()
    assert is_test.sum() == 59
    # Some NSS columns reach 1e24: a kernel of bounded reach copes, a ridge does not.
    model = BandEnsemble(
        "all", estimator="rbf-svr", C=[10.0], epsilon=[0.1], gamma=[0.1, 0.3], select_by="rmse"
    )
    predicted = model.fit(X[~is_test], y[~is_test]).predict(X[is_test])
    low, high = bootstrap_ci(y[is_test], predicted, metrics=["srcc"])["srcc"]
    assert low < 0.626 < high
    assert srcc(y[is_test], predicted) > 0.55
