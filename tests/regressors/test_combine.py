"""Member weights: optimality against general optimisers, and the laws of each rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize

from regressors.ensemble import RULES, fit_combination


@st.composite
def member_tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MOS, members of very different skill (some copied, some backwards), and integer row weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(10, 60)), draw(st.integers(2, 6))
    y = rng.normal(size=n)
    P = y[:, None] * rng.uniform(-0.3, 1.2, size=m) + rng.normal(size=(n, m)) * rng.uniform(0.05, 2, size=m)
    P += rng.normal(size=m)
    if draw(st.booleans()):
        P[:, 1] = P[:, 0]
    weights = rng.integers(0, 4, size=n)
    weights[:5] = 1
    scale = 10.0 ** draw(st.integers(-4, 4))
    return scale * y, scale * P, weights


def loss(y: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sum(weights * (y - predictions) ** 2) / np.sum(weights * (y - y.mean()) ** 2))


@given(table=member_tables())
def test_simplex_weights_are_optimal(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, P, w = table
    ours = fit_combination("simplex", y, P, sample_weight=w)
    unit = np.abs(y).max()

    def objective(v: np.ndarray) -> float:
        return loss(y / unit, P / unit @ v, w)

    start = np.full(P.shape[1], 1 / P.shape[1])
    theirs = minimize(
        objective,
        start,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert objective(ours.weights) <= theirs.fun + 1e-9


@given(table=member_tables())
def test_nnls_weights_are_optimal(table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, P, w = table
    ours = fit_combination("nnls", y, P, sample_weight=w)
    unit = np.abs(y).max()
    root = np.sqrt(w)[:, None]
    design = np.column_stack([np.ones(len(y)), P / unit])
    bounds = (np.r_[-np.inf, np.zeros(P.shape[1])], np.inf)
    theirs = lsq_linear(root * design, root[:, 0] * y / unit, bounds=bounds, method="bvls", tol=1e-14)
    assert loss(y, ours(P), w) <= loss(y, unit * design @ theirs.x, w) + 1e-9


@pytest.mark.parametrize("rule", RULES)
@given(table=member_tables())
def test_weights_are_never_negative(rule: str, table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, P, w = table
    assert (fit_combination(rule, y, P, sample_weight=w).weights >= 0).all()


@pytest.mark.parametrize("rule", ["uniform", "simplex"])
@given(table=member_tables())
def test_convex_rules_stay_between_the_members(
    rule: str, table: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    y, P, w = table
    combination = fit_combination(rule, y, P, sample_weight=w)
    assert combination.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert combination.intercept == 0.0
    combined, slack = combination(P), 1e-12 * np.abs(P).max()
    assert (combined >= P.min(axis=1) - slack).all()
    assert (combined <= P.max(axis=1) + slack).all()


@pytest.mark.parametrize("rule", RULES)
@given(table=member_tables())
def test_a_single_member_is_itself(rule: str, table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, P, _ = table
    combination = fit_combination(rule, y, P[:, :1])
    np.testing.assert_array_equal(combination(P[:, :1]), P[:, 0])


@pytest.mark.parametrize("rule", RULES)
@given(table=member_tables(), seed=st.integers(0, 99))
def test_the_order_of_members_is_irrelevant(
    rule: str, table: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int
) -> None:
    y, P, _ = table
    order = np.random.default_rng(seed).permutation(P.shape[1])
    first, second = fit_combination(rule, y, P), fit_combination(rule, y, P[:, order])
    # Copies of a member may share its weight in any way; the prediction is the same.
    np.testing.assert_allclose(second(P[:, order]), first(P), atol=1e-7 * np.abs(P).max())


@pytest.mark.parametrize("rule", ["nnls", "simplex"])
@given(table=member_tables())
def test_a_weight_is_a_repetition(rule: str, table: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, P, w = table
    weighted = fit_combination(rule, y, P, sample_weight=w)
    repeated = fit_combination(rule, np.repeat(y, w), np.repeat(P, w, axis=0))
    np.testing.assert_allclose(weighted(P), repeated(P), atol=1e-7 * np.abs(P).max())


@given(table=member_tables())
def test_no_rule_loses_to_its_best_member_on_its_own_rows(
    table: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    y, P, w = table
    best = min(loss(y, column, w) for column in P.T)
    assert loss(y, fit_combination("simplex", y, P, sample_weight=w)(P), w) <= best + 1e-9


def test_a_perfect_member_takes_all() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=30)
    P = np.column_stack([rng.normal(size=30), y, rng.normal(size=30)])
    assert fit_combination("simplex", y, P).weights == pytest.approx([0, 1, 0], abs=1e-9)
    assert fit_combination("simplex", y, np.column_stack([y, y])).weights.sum() == pytest.approx(1.0)


def test_nnls_repairs_scale_and_offset() -> None:
    y = np.random.default_rng(0).normal(size=30)
    P = np.column_stack([0.5 * y + 3, np.zeros(30)])
    combination = fit_combination("nnls", y, P)
    np.testing.assert_allclose(combination(P), y, atol=1e-12)


def test_backward_members_get_exactly_nothing() -> None:
    y = np.random.default_rng(0).normal(size=30)
    combination = fit_combination("nnls", y, np.column_stack([-y, -2 * y]))
    assert combination.weights.tolist() == [0.0, 0.0]
    assert combination.intercept == pytest.approx(y.mean())


@pytest.mark.parametrize(
    ("rule", "predictions", "message"),
    [
        ("convex", np.ones((3, 2)), "rule must be one of"),
        ("nnls", np.ones((2, 2)), r"shape \(3, n_members\)"),
        ("nnls", np.ones((3, 0)), "n_members"),
        ("nnls", np.full((3, 2), np.nan), "6 values that are not finite"),
    ],
)
def test_inadmissible_input_is_refused(rule: str, predictions: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_combination(rule, np.arange(3.0), predictions)
