"""The budget: each pass once, limits inclusive, messages that say what to drop."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regressors.checks import AIM2024_BUDGET_GMACS, BudgetError, check_budget, distinct_passes, sum_gmacs

costs = st.dictionaries(st.text(min_size=1, max_size=5), st.floats(0, 100), min_size=1, max_size=8)


@given(passes=costs)
def test_the_sum_is_over_distinct_passes(passes: dict[str, float]) -> None:
    once = list(passes.items())
    assert sum_gmacs(once) == pytest.approx(sum(passes.values()))
    assert sum_gmacs(once * 3) == sum_gmacs(once)
    assert sum_gmacs(once[::-1]) == sum_gmacs(once)
    assert distinct_passes(once * 2) == passes


@given(passes=costs, more=costs)
def test_adding_a_band_never_lowers_the_sum(passes: dict[str, float], more: dict[str, float]) -> None:
    both = passes | {name: cost for name, cost in more.items() if name not in passes}
    assert sum_gmacs(both.items()) >= sum_gmacs(passes.items())


@given(left=costs, right=costs)
def test_disjoint_passes_add_up(left: dict[str, float], right: dict[str, float]) -> None:
    renamed = {f"other {name}": cost for name, cost in right.items()}
    together = sum_gmacs([*left.items(), *renamed.items()])
    assert together == pytest.approx(sum_gmacs(left.items()) + sum_gmacs(renamed.items()))


def test_no_pass_costs_nothing() -> None:
    assert sum_gmacs([]) == 0.0
    assert check_budget([], 0.0) == 0.0


@given(parts=st.lists(st.floats(0.01, 10), min_size=1, max_size=10))
def test_a_limit_that_is_met_is_accepted(parts: list[float]) -> None:
    passes = [(f"pass {k}", part) for k, part in enumerate(parts)]
    assert check_budget(passes, sum(parts)) == pytest.approx(sum(parts))
    with pytest.raises(BudgetError):
        check_budget(passes, sum(parts) * (1 - 1e-6))


def test_decimal_costs_may_fill_a_decimal_limit() -> None:
    assert check_budget([("a", 0.1), ("b", 0.2)], 0.3) == pytest.approx(0.3)


def test_no_limit_accepts_everything() -> None:
    assert check_budget([("a", 1e6)], None) == 1e6


def test_the_error_names_total_limit_and_the_three_dearest() -> None:
    passes = [("cheap", 1.0), ("dear", 30.0), ("mid", 12.0), ("dear", 30.0), ("low", 8.0)]
    with pytest.raises(BudgetError, match=r"at most 50 GMACs, got 51.*dear 30, mid 12, low 8") as caught:
        check_budget(passes, AIM2024_BUDGET_GMACS)
    assert caught.value.total_gmacs == 51.0
    assert caught.value.dearest == (("dear", 30.0), ("mid", 12.0), ("low", 8.0))
    assert isinstance(caught.value, ValueError)
    assert "cheap" not in str(caught.value)


def test_the_error_survives_a_trip_between_processes() -> None:
    error = BudgetError(60.0, 50.0, [("a", 60.0)])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.budget_gmacs == 50.0


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ([("a", 1.0), ("a", 2.0)], "got 1.0 and 2.0 GMACs for 'a'"),
        ([("a", -1.0)], "non-negative and finite, got -1.0"),
        ([("a", float("nan"))], "non-negative and finite"),
    ],
)
def test_contradictory_costs_are_refused(passes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sum_gmacs(passes)


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_limits_must_be_numbers(limit: float) -> None:
    with pytest.raises(ValueError, match="budget_gmacs"):
        check_budget([("a", 1.0)], limit)
