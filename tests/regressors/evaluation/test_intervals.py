"""Conformal intervals: the corrected quantile, and coverage as promised on noise of any shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regressors.ensemble import BandEnsemble
from regressors.evaluation.intervals import ConformalInterval, calibrate_interval, min_calibration_rows


@given(st.integers(11, 300), st.integers(0, 1000))
def test_the_half_width_is_the_corrected_quantile(n: int, seed: int) -> None:
    residuals = np.random.default_rng(seed).normal(size=n)
    place = math.ceil((n + 1) * 0.9 - 1e-9)
    expected = np.sort(np.abs(residuals))[min(place, n) - 1]
    assert calibrate_interval(residuals, np.zeros(n)).half_width == expected


@pytest.mark.filterwarnings("ignore::regressors.ensemble.NoSkillWarning")
@pytest.mark.parametrize("confidence", [0.8, 0.9])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_on_pure_noise_coverage_is_within_two_points(confidence: float, shape: str) -> None:
    # The whole way: an ensemble learns noise, its held-out errors calibrate, fresh rows judge.
    rng = np.random.default_rng(0)
    draw = rng.normal if shape == "normal" else rng.exponential
    n_training, n_fresh = 1500, 20_000
    X, y = rng.normal(size=(n_training + n_fresh, 12)), draw(size=n_training + n_fresh)
    model = BandEnsemble(alpha=[1.0, 100.0]).fit(X[:n_training], y[:n_training])
    interval = calibrate_interval(y[:n_training], model.oof_predictions_, confidence=confidence)
    fresh = slice(n_training, None)
    assert np.mean(np.abs(y[fresh] - model.predict(X[fresh])) <= interval.half_width) == pytest.approx(
        confidence, abs=0.02
    )


def test_coverage_is_promised_on_average_over_calibrations() -> None:
    # The theorem: over calibration and new row together, between c and c + 1 / (n + 1).
    rng = np.random.default_rng(0)
    n, hits = 30, []
    for _ in range(300):
        interval = calibrate_interval(rng.normal(size=n), np.zeros(n), confidence=0.9)
        hits.append(np.mean(np.abs(rng.normal(size=200)) <= interval.half_width))
    assert 0.9 - 0.01 < np.mean(hits) < 0.9 + 1 / (n + 1) + 0.01


def test_predictions_gone_wild_do_not_break_the_calibration() -> None:
    noise = np.random.default_rng(0).normal(size=100)
    held_out = np.zeros(100)
    held_out[0] = 1e20
    assert calibrate_interval(noise, held_out).half_width < 3


def test_ends_lie_around_the_prediction() -> None:
    low, high = ConformalInterval(0.9, 0.25, 100).around([1.0, np.nan])
    assert (low[0], high[0]) == (0.75, 1.25)
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_the_range_of_chance_holds_the_promise_and_narrows() -> None:
    interval = ConformalInterval(0.9, 1.0, 100)
    few, many = interval.chance_range(40), interval.chance_range(900)
    assert few[0] < many[0] < 0.9 < many[1] < few[1]
    rng = np.random.default_rng(0)
    shares = rng.binomial(900, 0.9, 2000) / 900
    assert np.mean((shares >= many[0]) & (shares <= many[1])) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("confidence", "needed"), [(0.5, 3), (0.8, 6), (0.9, 11), (0.95, 21), (0.99, 101)])
def test_how_many_rows_are_needed(confidence: float, needed: int) -> None:
    assert min_calibration_rows(confidence) == needed
    noise = np.random.default_rng(0).normal(size=needed)
    calibrate_interval(noise, np.zeros(needed), confidence=confidence)
    with pytest.raises(ValueError, match=f"at least {needed} held-out rows"):
        calibrate_interval(noise[:-1], np.zeros(needed - 1), confidence=confidence)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate_interval(np.zeros(20), np.zeros(20), confidence=1.0)
    with pytest.raises(ValueError, match="one length"):
        calibrate_interval(np.zeros(20), np.zeros(19))
