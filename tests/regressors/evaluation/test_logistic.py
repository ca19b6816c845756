"""The logistic map: laws of the fit, and an independent optimiser as the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import differential_evolution

from regressors.evaluation import metrics
from regressors.evaluation.metrics import (
    CENTRE_MARGIN,
    Logistic4,
    LogisticSearch,
    apply_logistic4,
    fit_logistic4,
    plcc,
    plcc_logistic,
)


def squared_error(parameters: Logistic4, y: np.ndarray, x: np.ndarray) -> float:
    return float(np.sum((y - apply_logistic4(parameters, x)) ** 2))


@given(
    centre=st.floats(-1, 1),
    width=st.floats(0.3, 3),
    lower=st.floats(-5, 5),
    height=st.floats(0.5, 100),
    falls=st.booleans(),
)
def test_a_logistic_relation_is_recovered(
    centre: float, width: float, lower: float, height: float, falls: bool
) -> None:
    x = np.linspace(-3, 3, 60)
    wanted = (
        Logistic4(lower, lower + height, centre, width)
        if falls
        else Logistic4(lower + height, lower, centre, width)
    )
    fitted = fit_logistic4(apply_logistic4(wanted, x), x)
    assert fitted is not None
    assert squared_error(fitted, apply_logistic4(wanted, x), x) < 1e-8 * height**2


@pytest.mark.parametrize("seed", range(8))
def test_no_better_map_is_in_the_box(seed: int) -> None:
    """A global optimiser over the same box finds nothing better."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40)
    y = np.tanh(x * rng.uniform(-1, 3)) + rng.uniform(0.1, 1) * rng.normal(size=40)
    fitted = fit_logistic4(y, x)
    assert fitted is not None

    def unexplained(parameters: np.ndarray) -> float:
        rise = np.tanh(0.5 * (x - parameters[0]) / np.exp(parameters[1]))
        return 1.0 - np.corrcoef(rise, y)[0, 1] ** 2 if np.std(rise) > 1e-6 else 1.0

    margin = CENTRE_MARGIN * np.ptp(x)
    box = [(x.min() - margin, x.max() + margin), tuple(np.log(x.std() * np.array([0.1, 100.0])))]
    best = differential_evolution(unexplained, box, seed=0, tol=1e-12, maxiter=200, popsize=12)
    assert squared_error(fitted, y, x) / np.sum((y - y.mean()) ** 2) <= best.fun + 1e-7


def test_the_result_depends_on_nothing_but_the_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    order = rng.permutation(50)
    first, again, shuffled = fit_logistic4(y, x), fit_logistic4(y, x), fit_logistic4(y[order], x[order])
    assert first == again
    assert first is not None
    assert shuffled is not None
    np.testing.assert_allclose(apply_logistic4(first, x), apply_logistic4(shuffled, x), rtol=1e-5)


def test_a_straight_relation_stays_straight() -> None:
    x = np.linspace(0, 1, 30)
    assert plcc_logistic(5 - 2 * x, x) == pytest.approx(1.0, abs=1e-6)
    assert plcc_logistic(x, x) == pytest.approx(1.0, abs=1e-6)


def test_backward_predictions_get_a_decreasing_map_and_a_positive_plcc() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    y = -x + 0.3 * rng.normal(size=80)
    fitted = fit_logistic4(y, x)
    assert fitted is not None
    assert fitted.upper < fitted.lower
    assert plcc(y, x) < -0.9
    assert plcc_logistic(y, x) > 0.9


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0, 4.0], [1.0, 2.0, 3.0, 4.0, 4.0]),
        ([1.0] * 8, list(range(8))),
        (list(range(8)), [1.0] * 8),
    ],
)
def test_without_a_map_there_is_none_and_no_straight_line_instead(y: list, x: list) -> None:
    assert fit_logistic4(y, x) is None
    assert np.isnan(plcc_logistic(y, x))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_scales_of_both_axes_do_not_matter(scale: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    y = np.tanh(2 * x) + 0.2 * rng.normal(size=60)
    assert plcc_logistic(scale * y, x) == pytest.approx(plcc_logistic(y, x), abs=1e-9)
    assert plcc_logistic(y, scale * x + 5 * scale) == pytest.approx(plcc_logistic(y, x), abs=1e-9)


def test_far_values_map_to_the_asymptotes() -> None:
    parameters = Logistic4(upper=5.0, lower=1.0, centre=0.0, width=0.01)
    assert apply_logistic4(parameters, [-1e6, 1e6]).tolist() == [1.0, 5.0]


def test_the_grid_alone_comes_close_for_many_weightings_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = np.tanh(x) + rng.normal(size=60)
    weights = rng.integers(0, 3, size=(20, 60)).astype(float)
    together = LogisticSearch(y, x, np.ones(60)).best_r2(weights)
    alone = [plcc_logistic(y, x, sample_weight=row) for row in weights]
    np.testing.assert_allclose(np.sqrt(together), alone, rtol=0, atol=0.01)


@pytest.mark.parametrize("slope", [1.0, -1.0, 0.0])
def test_many_rows_end_at_the_map_of_the_whole_search(slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    y = np.tanh(slope * x) + 0.3 * rng.normal(size=3000)
    known = plcc_logistic(y, x)
    monkeypatch.setattr(metrics, "LARGE_ROWS", 1000)
    assert plcc_logistic(y, x) == pytest.approx(known, abs=1e-4 if slope == 0 else 1e-9)


def test_many_rows_nearly_all_alike_still_have_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LARGE_ROWS", 100)
    y, x = np.zeros(5000), np.zeros(5000)
    y[:6], x[:6] = np.arange(6), np.arange(6)
    assert plcc_logistic(y, x) > 0.9
