"""The space: exactly the configurations within the budget, each once, under one spelling."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.errors import RunError
from featbank.recipes.reading import parse_recipe
from featbank.search.space import Space, cut_members, restrict_candidates
from tests.support.search_study import BANDS, SEARCH, recipe_text, study_parts


@given(
    costs=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=6),
    budget=st.floats(1.0, 60.0),
    shared=st.booleans(),
)
def test_enumeration_is_every_subset_within_the_budget(
    costs: list[float], budget: float, shared: bool
) -> None:
    names = list(BANDS)[: len(costs)]
    recipe = parse_recipe(recipe_text(names), "r")
    # With ``shared`` the first two bands tap one pass and pay once.
    passes = {name: (name, cost) for name, cost in zip(names, costs, strict=True)}
    if shared and len(names) > 1:
        passes[names[1]] = passes[names[0]]

    def cost(subset: tuple[str, ...]) -> float:
        return sum(dict(passes[name] for name in subset).values())

    expected = {
        subset
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
        if cost(subset) <= budget * (1 + 1e-12)
    }
    if not expected:
        with pytest.raises(RunError, match="admits no band"):
            Space(recipe, passes, budget)
        return
    space = Space(recipe, passes, budget)
    found = [configuration.variants for configuration in space.list_feasible() or []]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_every_configuration_has_one_spelling_and_survives_its_parameters() -> None:
    space, _, _ = study_parts(["a", "b", "c"], search=SEARCH)
    listed = space.list_feasible()
    assert listed is not None
    assert len(set(listed)) == len(listed) < space.size
    for configuration in listed:
        assert space.canonical(configuration) == configuration
        assert space.from_params(space.to_params(configuration)) == configuration
        assert set(space.to_params(configuration)) == set(space.choices)


def test_more_than_the_limit_is_not_listed() -> None:
    space, _, _ = study_parts()
    listed = space.list_feasible()
    assert listed is not None
    assert space.list_feasible(len(listed)) == listed
    assert space.list_feasible(len(listed) - 1) is None


@given(seed=st.integers(0, 2**32 - 1), budget=st.floats(1.0, 60.0))
def test_repair_and_mutation_stay_within_the_budget(seed: int, budget: float) -> None:
    space, _, _ = study_parts(search=SEARCH, budget=budget)
    rng = np.random.default_rng(seed)
    configuration = space.repair(space.own, rng)
    for _ in range(5):
        assert space.is_feasible(configuration)
        assert space.gmacs(configuration) <= budget * (1 + 1e-9)
        other = space.mutate(configuration, rng)
        assert space.canonical(other) == other
        configuration = other


def test_a_feasible_draw_is_not_repaired() -> None:
    space, _, _ = study_parts(["c", "d"])
    assert space.repair(space.own, np.random.default_rng(0)) == space.own


def test_an_unknown_cost_is_refused() -> None:
    recipe = parse_recipe(recipe_text(["a", "b"]), "r")
    with pytest.raises(RunError, match="--gmacs"):
        Space(recipe, {"a": ("a", 1.0), "b": ("b", float("nan"))}, 50.0)


def test_the_winner_becomes_a_recipe_that_parses_and_opens_nothing() -> None:
    space, _, _ = study_parts(search=SEARCH)
    chosen = space.repair(space.own, np.random.default_rng(1))
    recipe = space.recipe_of(chosen, "best")
    assert recipe.search is None
    assert [band.name for band in recipe.bands] == list(chosen.variants)
    assert parse_recipe(recipe.to_toml(), recipe.name) == recipe


def test_what_names_left_out_bands_is_cut() -> None:
    assert restrict_candidates([{"a": 0.1, "b": 2.0}, {"b": 3.0}, {"a": 0.1}], ["a", "c"]) == ({"a": 0.1}, {})
    assert cut_members((("a", "b"), ("b",), ("a",)), ["a"]) == (("a",),)
    assert cut_members((("b",),), ["a", "c"]) == (("a", "c"),)
