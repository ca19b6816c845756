"""Tests that guard the science: leaks between folds invent skill, honest folds do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from regressors.ensemble import BandEnsemble, NoSkillWarning
from regressors.evaluation.metrics import evaluate, srcc
from regressors.folds import make_folds

N_IMAGES, N_COPIES, N_COLUMNS = 80, 5, 200


@pytest.fixture(scope="module")
def noise() -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """80 images, 5 noisy copies each; features and MOS have nothing to do with each other."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(N_IMAGES), N_COPIES)
    X = rng.normal(size=(N_IMAGES, N_COLUMNS))[image] + 0.05 * rng.normal(size=(len(image), N_COLUMNS))
    columns = [f"{'a' if k < N_COLUMNS // 2 else 'b'}:{k:04d}" for k in range(N_COLUMNS)]
    return pd.DataFrame(X, columns=columns), rng.normal(size=N_IMAGES)[image], image


def test_leak_canary(noise: tuple[pd.DataFrame, np.ndarray, np.ndarray]) -> None:
    """Rows of one image on both sides of a fold invent a perfect model; grouped folds find nothing.

    With 80 independent images the SRCC of an unrelated prediction has standard deviation 0.11; the grouped
    bound 0.35 is missed by chance with probability below 0.2 %, and the seed is fixed.
    """
    X, y, image = noise
    leaking = BandEnsemble("all", alpha=[1.0], cv=make_folds(y, kind="kfold")).fit(X, y)
    honest = BandEnsemble("all", alpha=[1.0]).fit(X, y, groups=image)
    assert srcc(y, leaking.oof_predictions_) > 0.98
    assert abs(srcc(y, honest.oof_predictions_)) < 0.35


def test_choosing_among_many_candidates_invents_little(
    noise: tuple[pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    """The best of 13 penalties and of all weightings of three members still predicts nothing held out."""
    X, y, image = noise
    model = BandEnsemble(alpha=np.logspace(-1, 5, 4), combine="simplex").fit(X, y, groups=image)
    assert abs(srcc(y, model.oof_predictions_)) < 0.35


def test_shuffled_mos_scores_near_zero() -> None:
    """A signal that is there, destroyed by permuting MOS in training; judged on separate rows.

    One model on permuted MOS points anywhere among 20 columns: its SRCC has standard deviation 0.2. The mean of
    twelve has 0.06, so that 0.2 is missed by chance once in a thousand seeds.
    """
    rng = np.random.default_rng(1)
    X = pd.DataFrame(rng.normal(size=(600, 20)), columns=[f"{'ab'[k % 2]}:{k:04d}" for k in range(20)])
    y = X.iloc[:, :4].sum(axis=1).to_numpy() + rng.normal(size=600)
    real = BandEnsemble(alpha=[1.0, 100.0], combine="simplex").fit(X[:300], y[:300])
    assert srcc(y[300:], real.predict(X[300:])) > 0.8
    scores = []
    for _ in range(12):
        shuffled = BandEnsemble("all", alpha=[1.0, 100.0], cv=3).fit(X[:300], rng.permutation(y[:300]))
        scores.append(srcc(y[300:], shuffled.predict(X[300:])))
    assert abs(np.mean(scores)) < 0.2


def test_held_out_metrics_foretell_those_of_new_rows() -> None:
    """Out-of-fold scores of training are no better than scores of rows never seen, and little worse (mean of eight)."""
    gaps = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame(rng.normal(size=(480, 30)), columns=[f"{'abc'[k % 3]}:{k:04d}" for k in range(30)])
        y = X.iloc[:, :6].sum(axis=1).to_numpy() + 2 * rng.normal(size=480)
        model = BandEnsemble(alpha=[30.0], cv=6).fit(X[:180], y[:180])
        inside = evaluate(y[:180], model.oof_predictions_)
        outside = evaluate(y[180:], model.predict(X[180:]))
        gaps.append(inside["plcc"] - outside["plcc"])
    # Sampling alone makes single gaps of 0.05, so their mean has standard error 0.02; members of the inner
    # folds have a sixth fewer rows, which costs about 0.02.
    assert -0.08 < np.mean(gaps) < 0.04


def test_crops_as_rows_need_nothing_but_their_image_as_group() -> None:
    rng = np.random.default_rng(2)
    image = np.repeat(np.arange(60), 4)
    quality = rng.normal(size=60)
    X = pd.DataFrame(
        quality[image, None] + rng.normal(size=(240, 6)), columns=[f"crop:{k:04d}" for k in range(6)]
    )
    model = BandEnsemble(alpha=[1.0]).fit(X, quality[image], groups=image)
    by_image = pd.Series(model.oof_predictions_).groupby(image).mean()
    assert srcc(quality, by_image) > srcc(quality[image], model.oof_predictions_) > 0.8


def test_a_model_without_skill_says_so_instead_of_scoring(
    noise: tuple[pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    X, y, image = noise
    with pytest.warns(NoSkillWarning):
        model = BandEnsemble("each", alpha=[1e-3], random_state=1).fit(X, y, groups=image)
    assert np.isnan(evaluate(y, model.predict(X))["srcc"])
