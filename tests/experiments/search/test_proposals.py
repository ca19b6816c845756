"""Proposals are a pure function of seed and finished generations: new, within the budget, and drawn to what is good."""

import numpy as np
import pytest

from experiments.search.evaluation import Evaluation
from experiments.search.outcome import pareto_front, pick_winner
from experiments.search.proposals import GENERATION, Finished, Proposal, propose
from experiments.search.space import Configuration, Space
from tests.support.search_study import SEARCH, study_parts

OBJECTIVES = ("srcc", "srcc,gmacs")


def play(space: Space, objectives: str, seed: int, n_generations: int) -> list[Finished]:
    """Finish generations with a score that grows with the band ``a`` and falls with the others."""
    finished: list[Finished] = []
    for generation in range(n_generations):
        for proposal in propose(space, objectives, seed, generation, finished):
            names = proposal.configuration.variants
            score = 0.5 * ("a" in names) - 0.02 * len(names)
            evaluation = Evaluation((score,), space.gmacs(proposal.configuration))
            finished.append(Finished(len(finished), proposal, evaluation))
    return finished


@pytest.mark.parametrize("objectives", OBJECTIVES)
def test_proposals_are_new_within_the_budget_and_repeatable(objectives: str) -> None:
    space, _, _ = study_parts(search=SEARCH)
    finished = play(space, objectives, 5, 4)
    proposed = [item.proposal.configuration for item in finished]
    assert len(set(proposed)) == len(proposed) == 4 * GENERATION[objectives]
    assert all(space.is_feasible(configuration) for configuration in proposed)
    assert [item.proposal for item in play(space, objectives, 5, 4)] == [item.proposal for item in finished]
    other = [item.proposal.configuration for item in play(space, objectives, 6, 4)]
    assert other[1:] != proposed[1:]


def test_the_first_proposal_is_the_recipe_if_it_fits() -> None:
    space, _, _ = study_parts(["c", "d", "e"])
    assert propose(space, "srcc", 0, 0, [])[0].configuration == space.own


@pytest.mark.parametrize("objectives", OBJECTIVES)
def test_an_exhausted_space_ends_the_proposals(objectives: str) -> None:
    space, _, _ = study_parts(["a", "b", "c"])
    finished = play(space, objectives, 0, 2)
    assert {item.proposal.configuration for item in finished} == set(space.list_feasible() or [])
    assert propose(space, objectives, 0, 2, finished) == []


def test_later_generations_follow_the_good_band() -> None:
    space, _, _ = study_parts(search=SEARCH)
    rng = np.random.default_rng(0)

    def share(configurations: list[Configuration]) -> float:
        return float(np.mean(["a" in configuration.variants for configuration in configurations]))

    drawn = [
        space.repair(
            space.from_params({name: str(rng.choice(values)) for name, values in space.choices.items()}), rng
        )
        for _ in range(400)
    ]
    last = [item.proposal.configuration for seed in range(4) for item in play(space, "srcc", seed, 10)[-40:]]
    # 160 draws: by chance their share leaves the random one by 0.04 (one standard deviation).
    assert share(last) > share(drawn) + 0.2


def test_the_memory_of_the_genetic_sampler_travels_with_its_proposals() -> None:
    space, _, _ = study_parts(search=SEARCH)
    finished = play(space, "srcc,gmacs", 0, 3)
    memories = [item.proposal.memory for item in finished]
    size = GENERATION["srcc,gmacs"]
    assert memories[0] != memories[size] != memories[2 * size]


def test_winner_and_front_of_a_known_study() -> None:
    space, _, _ = study_parts(["a", "c", "d"])
    values = [(0.5, 20.0), (0.7, 24.0), (0.7, 26.0), (0.3, 4.0), (0.2, 6.0), (0.3, 2.0), (float("nan"), 1.0)]
    configurations = space.list_feasible() or []
    finished = [
        Finished(place, Proposal(configuration, {}), Evaluation((score,), cost))
        for place, (configuration, (score, cost)) in enumerate(zip(configurations, values, strict=True))
    ]
    assert pick_winner(finished).index == 1
    assert [item.index for item in pareto_front(finished) if item.evaluation.value > 0] == [5, 0, 1]
