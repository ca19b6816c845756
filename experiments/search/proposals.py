"""Which configurations to try next: a pure function of the space, the seed and the finished generations.

Proposals are made a generation at a time, so that several processes can work on one generation without its content
depending on who is faster; a study that was killed, or shared, is the study that was left alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.search.evaluation import Evaluation
from experiments.search.space import Configuration, Space

if TYPE_CHECKING:
    import optuna

GENERATION = {"srcc": 8, "srcc,gmacs": 20}
"""Proposals in a generation, by objectives."""

_MAX_TRIES = 50


@dataclass(frozen=True)
class Proposal:
    """A configuration to evaluate, and what the sampler needs to remember of it."""

    configuration: Configuration
    memory: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """An evaluated proposal.

    Attributes
    ----------
    index : int
        Place in the study, from 0.
    proposal : Proposal
    evaluation : Evaluation
    """

    index: int
    proposal: Proposal
    evaluation: Evaluation


def objective_values(objectives: str, evaluation: Evaluation) -> list[float]:
    """Return what the sampler optimises, in the order of `directions`."""
    return [evaluation.value] if objectives == "srcc" else [evaluation.value, evaluation.gmacs]


def directions(objectives: str) -> list[Literal["maximize", "minimize"]]:
    """Return Optuna's directions of the objectives."""
    return ["maximize"] if objectives == "srcc" else ["maximize", "minimize"]


def propose(
    space: Space, objectives: str, seed: int, generation: int, finished: Sequence[Finished]
) -> list[Proposal]:
    """Propose the configurations of one generation.

    One objective is sampled by the tree-structured Parzen estimator [1]_, two by NSGA-II [2]_. A draw over the
    budget is repaired, one that was evaluated before is varied until it is new. The very first proposal is the
    recipe as it stands.

    Parameters
    ----------
    space : Space
    objectives : {"srcc", "srcc,gmacs"}
    seed : int
        Of the study.
    generation : int
        From 0.
    finished : sequence of Finished
        All of the earlier generations, in order.

    Returns
    -------
    list of Proposal
        All different, none evaluated before; fewer than a generation where the space is exhausted.

    References
    ----------
    .. [1] J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, "Algorithms for hyper-parameter optimization", NIPS 2011.
    .. [2] K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic algorithm:
       NSGA-II", IEEE Transactions on Evolutionary Computation 6, 2002.
    """
    own_seed, *_ = np.random.SeedSequence((seed, generation)).generate_state(2)
    rng = np.random.default_rng((seed, generation))
    study = _replay(space, objectives, int(own_seed), finished)
    seen = {item.proposal.configuration for item in finished}
    proposals: list[Proposal] = []
    for place in range(GENERATION[objectives]):
        drawn, memory = _ask(study, space)
        if generation == 0 and place == 0:
            drawn = space.own
        new = _make_new(space, space.repair(drawn, rng), seen, rng)
        if new is None:
            break
        seen.add(new)
        proposals.append(Proposal(new, memory))
    return proposals


def rebuild_study(
    space: Space, objectives: str, finished: Sequence[Finished], sampler: optuna.samplers.BaseSampler
) -> optuna.Study:
    """Put finished proposals into a study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=directions(objectives), sampler=sampler)
    distributions = _distributions(space)
    for item in finished:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(space.to_params(item.proposal.configuration)),
                distributions=dict(distributions),
                values=objective_values(objectives, item.evaluation),
                system_attrs=item.proposal.memory,
            )
        )
    return study


def _replay(space: Space, objectives: str, seed: int, finished: Sequence[Finished]) -> optuna.Study:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler
        if objectives == "srcc":
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=2 * GENERATION["srcc"]
            )
        else:
            sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=GENERATION[objectives])
    return rebuild_study(space, objectives, finished, sampler)


def _ask(study: optuna.Study, space: Space) -> tuple[Configuration, dict[str, Any]]:
    trial = study.ask(fixed_distributions=dict(_distributions(space)))
    # NSGA-II notes the generation of a trial with it; the note has to travel with the proposal.
    memory = study.get_trials(deepcopy=False)[trial.number].system_attrs
    return space.from_params(trial.params), dict(memory)


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    import optuna

    return {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in space.choices.items()
    }


def _make_new(
    space: Space, drawn: Configuration, seen: set[Configuration], rng: np.random.Generator
) -> Configuration | None:
    """Walk away from a known configuration by random changes; None if every configuration is known."""
    candidate = drawn
    for _ in range(_MAX_TRIES):
        if candidate not in seen:
            return candidate
        candidate = space.mutate(candidate, rng)
    return next((other for other in space.iterate_feasible() if other not in seen), None)
