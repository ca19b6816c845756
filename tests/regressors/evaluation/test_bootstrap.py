"""Bootstrap intervals: exact agreement with resampling by hand, then coverage and degenerate cases."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regressors.evaluation import intervals
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import METRICS, plcc


def noisy_pair(n: int, seed: int = 0, levels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    y_pred = y + rng.normal(size=n)
    return (np.round(y * levels), np.round(y_pred * levels)) if levels else (y, y_pred)


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("levels", [0, 1])
def test_counts_equal_rows_written_out(name: str, levels: int) -> None:
    y, y_pred = noisy_pair(50, levels=levels)
    counts = next(intervals.draw_counts(np.random.default_rng(0), np.arange(50), 20))
    by_hand = [METRICS[name](np.repeat(y, c), np.repeat(y_pred, c)) for c in counts.astype(int)]
    # The refits of the logistic map keep the box of the full set and one start each (see test_logistic).
    tolerance = 0.01 if name == "plcc_logistic" else 1e-12
    np.testing.assert_allclose(
        intervals.RESAMPLED_METRICS[name](y, y_pred)(counts), by_hand, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("n", [5, 300])
def test_a_resample_has_as_many_rows_as_the_data(n: int) -> None:
    counts = np.concatenate(list(intervals.draw_counts(np.random.default_rng(0), np.arange(n), 300)))
    assert counts.shape == (300, n)
    assert (counts.sum(axis=1) == n).all()
    assert abs(counts.mean() - 1) < 1e-12
    # Multinomial counts have variance 1 - 1 / n; error rate of this bound below 1e-6.
    assert abs(counts.var() - (1 - 1 / n)) < 0.25


def test_groups_are_drawn_whole() -> None:
    members = np.array([0, 0, 1, 2, 2, 2])
    counts = next(intervals.draw_counts(np.random.default_rng(0), members, 100))
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 3] == counts[:, 4]).all()
    assert (counts[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_groups_of_one_row_are_rows() -> None:
    y, y_pred = noisy_pair(60)
    assert bootstrap_ci(y, y_pred) == bootstrap_ci(y, y_pred, groups=np.arange(60))


def test_dependent_rows_widen_the_interval() -> None:
    y, y_pred = noisy_pair(60)
    y, y_pred, groups = np.repeat(y, 5), np.repeat(y_pred, 5), np.repeat(np.arange(60), 5)
    rows = bootstrap_ci(y, y_pred, metrics=["plcc"])["plcc"]
    whole = bootstrap_ci(y, y_pred, groups=groups, metrics=["plcc"])["plcc"]
    assert whole[1] - whole[0] > 1.5 * (rows[1] - rows[0])


def test_the_seed_decides_and_a_subset_of_metrics_changes_nothing() -> None:
    y, y_pred = noisy_pair(80)
    first = bootstrap_ci(y, y_pred, random_state=1)
    assert first == bootstrap_ci(y, y_pred, random_state=1)
    assert first != bootstrap_ci(y, y_pred, random_state=2)
    assert bootstrap_ci(y, y_pred, metrics=["krcc"], random_state=1) == {"krcc": first["krcc"]}


def test_coverage_of_the_true_correlation() -> None:
    """95 % intervals of 120 samples hold the true PLCC in 84 to 100 % (4 sd around, plus known small-n loss)."""
    truth = 1 / np.sqrt(2)
    held = 0
    for seed in range(120):
        y, y_pred = noisy_pair(100, seed=seed + 1)
        low, high = bootstrap_ci(y, y_pred, metrics=["plcc"], n_resamples=400)["plcc"]
        held += low <= truth <= high
    assert held / 120 >= 0.84


@given(confidence=st.floats(0.5, 0.9))
def test_more_confidence_is_wider(confidence: float) -> None:
    y, y_pred = noisy_pair(40)
    narrow = bootstrap_ci(y, y_pred, metrics=["srcc"], n_resamples=200, confidence=confidence)["srcc"]
    wide = bootstrap_ci(y, y_pred, metrics=["srcc"], n_resamples=200, confidence=confidence + 0.09)["srcc"]
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_undefined_resamples_are_left_out_until_they_are_too_many() -> None:
    y = np.arange(30.0)
    mostly_constant = np.zeros(30)
    mostly_constant[0] = 1.0  # absent from (1 - 1/30)^30 = 36 % of the resamples
    intervals = bootstrap_ci(y, mostly_constant)
    assert np.isnan(intervals["srcc"]).all()
    assert np.isfinite(intervals["mae"]).all()
    mostly_constant[:5] = np.arange(5)  # all absent from 0.4 % of them
    assert np.isfinite(bootstrap_ci(y, mostly_constant)["srcc"]).all()


@pytest.mark.parametrize("name", ["plcc", "srcc", "krcc", "plcc_logistic"])
def test_a_constant_prediction_has_no_interval(name: str) -> None:
    assert np.isnan(bootstrap_ci(np.arange(20.0), np.full(20, 0.3), metrics=[name])[name]).all()


def test_a_perfect_prediction_has_intervals_without_width() -> None:
    y = np.arange(20.0)
    intervals = bootstrap_ci(y, y)
    assert intervals["rmse"] == [0.0, 0.0]
    assert intervals["srcc"] == pytest.approx([1.0, 1.0])
    assert intervals["krcc"] == pytest.approx([1.0, 1.0])


def test_many_rows_take_the_other_algorithm_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    y, y_pred = noisy_pair(60, levels=2)
    quadratic = bootstrap_ci(y, y_pred, metrics=["krcc"], n_resamples=50)
    monkeypatch.setattr(intervals, "_MAX_QUADRATIC_ROWS", 10)
    assert bootstrap_ci(y, y_pred, metrics=["krcc"], n_resamples=50)["krcc"] == pytest.approx(
        quadratic["krcc"]
    )


def test_a_thousand_resamples_of_nine_hundred_rows_are_quick() -> None:
    y, y_pred = noisy_pair(900)
    started = time.process_time()
    intervals = bootstrap_ci(y, y_pred)
    # 1.3 s of processor time on a slow core; a loop over resamples takes more than ten.
    assert time.process_time() - started < 5
    assert intervals["plcc"][0] < plcc(y, y_pred) < intervals["plcc"][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": 95}, "confidence must lie between 0 and 1"),
        ({"n_resamples": 1}, "n_resamples must be at least 2"),
        ({"metrics": ["sroc"]}, "Did you mean 'srcc'"),
        ({"groups": ["a"] * 9}, "groups must have shape"),
    ],
)
def test_inadmissible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_ci(np.arange(10.0), np.arange(10.0), **arguments)


def test_drawn_rows_give_the_interval_of_all() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=8000)
    y_pred = y + rng.normal(size=8000)
    names = ["srcc", "rmse", "plcc"]
    known = bootstrap_ci(y, y_pred, metrics=names)
    found = bootstrap_ci(y, y_pred, metrics=names, max_rows=1000)
    for name in names:
        (low, high), (other_low, other_high) = found[name], known[name]
        assert low < METRICS[name](y, y_pred) < high
        assert high - low == pytest.approx(other_high - other_low, rel=0.2)
    assert bootstrap_ci(y, y_pred, metrics=["plcc"], max_rows=8000) == {"plcc": known["plcc"]}


def test_undefined_intervals_stay_undefined_with_drawn_rows() -> None:
    [ends] = bootstrap_ci(np.arange(500.0), np.ones(500), metrics=["plcc"], max_rows=100).values()
    assert np.isnan(ends).all()


def test_few_groups_give_no_interval_and_some_give_a_wide_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=180)
    predicted = y + rng.normal(size=180)
    few = bootstrap_ci(y, predicted, groups=np.arange(180) % 9)
    assert np.isnan(list(few.values())).all()
    widths = [np.ptp(intervals.percentiles(np.linspace(0, 1, 1001), 0.95, n)) for n in (10, 30, 1000)]
    # Student's quantiles: 2.262 for 9 degrees of freedom, widened by the root of 10 / 9, is the normal 99.14 %.
    assert widths == [pytest.approx(v, abs=2e-3) for v in (2 * 0.9914 - 1, 2 * 0.9813 - 1, 0.95)]


def test_a_drawn_part_of_large_groups_has_intervals_as_wide_as_all() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 250)
    y = rng.normal(size=10_000)
    predicted = y + rng.normal(size=40)[groups] + 0.3 * rng.normal(size=10_000)
    every = bootstrap_ci(y, predicted, groups=groups, metrics=["mae"])["mae"]
    some = bootstrap_ci(y, predicted, groups=groups, metrics=["mae"], max_rows=1000)["mae"]
    alone = bootstrap_ci(y, predicted, metrics=["mae"])["mae"]
    assert np.ptp(some) == pytest.approx(np.ptp(every), rel=0.3)
    assert np.ptp(alone) < 0.3 * np.ptp(every)
