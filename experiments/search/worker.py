"""The loop of one process: read the study, claim what is open, evaluate, write down, until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.search.evaluation import Evaluator
from experiments.search.ledger import Ledger, State
from experiments.search.proposals import GENERATION, Finished, Proposal, propose
from experiments.search.space import MAX_EXHAUSTIVE, Configuration, Space
from featbank.errors import RunError

CHUNK = 16
"""Configurations that are claimed and evaluated at once when all of them are evaluated anyway."""

_POLL_S = 0.2

Report = Callable[[Sequence[Finished], "int | None"], None]


@dataclass(frozen=True)
class Plan:
    """How a study proceeds.

    Attributes
    ----------
    objectives : {"srcc", "srcc,gmacs"}
    seed : int
    n_trials : int
        Most configurations that are sampled.
    everything : tuple of Configuration or None
        All configurations within the budget, if they are evaluated one and all; None if they are sampled.
    """

    objectives: str
    seed: int
    n_trials: int
    everything: tuple[Configuration, ...] | None

    @property
    def method(self) -> str:
        """``exhaustive``, ``tpe`` or ``nsga2``."""
        if self.everything is not None:
            return "exhaustive"
        return "tpe" if self.objectives == "srcc" else "nsga2"


def make_plan(space: Space, objectives: str, seed: int, n_trials: int, method: str) -> Plan:
    """Decide whether all configurations are evaluated or some are sampled.

    Parameters
    ----------
    space : Space
    objectives : {"srcc", "srcc,gmacs"}
    seed, n_trials : int
    method : {"auto", "exhaustive", "sampled"}
        ``auto`` evaluates all when there are at most `MAX_EXHAUSTIVE` of them.

    Returns
    -------
    Plan

    Raises
    ------
    RunError
        If all were asked for and there are too many.
    """
    everything = None if method == "sampled" else space.list_feasible()
    if method == "exhaustive" and everything is None:
        raise RunError(
            f"search: --method exhaustive takes at most {MAX_EXHAUSTIVE} configurations, and this recipe has more "
            f"within {space.budget_gmacs:g} GMACs. Open fewer choices, lower the budget, or use --method sampled."
        )
    return Plan(objectives, seed, n_trials, None if everything is None else tuple(everything))


def run_study(
    ledger: Ledger, space: Space, evaluator: Evaluator, plan: Plan, report: Report = lambda done, total: None
) -> list[Finished]:
    """Work on a study until it is complete, together with whoever else does.

    Parameters
    ----------
    ledger : Ledger
    space : Space
    evaluator : Evaluator
    plan : Plan
    report : callable
        Receives what is finished, and how many there will be if that is known, after every step.

    Returns
    -------
    list of Finished
        By index.
    """
    proposer = _Proposer(space, plan)
    rng = np.random.default_rng()  # only spreads the processes over what is open; no result depends on it
    with ledger.alive():
        while True:
            state = ledger.read()
            report([state.finished[index] for index in sorted(state.finished)], proposer.total)
            wanted = proposer.wanted(state)
            if wanted is None:
                return [state.finished[index] for index in sorted(state.finished) if index < proposer.end]
            free = [index for index in wanted if index not in state.finished and index not in state.claimed]
            if state.claimed and ledger.give_up_dead(state):
                continue
            if not free:
                time.sleep(_POLL_S)
                continue
            if state.claimed:
                free = free[int(rng.integers(len(free))) :] + free
            n_at_once = CHUNK if plan.everything is not None else 1
            claims = ledger.claim({index: wanted[index] for index in list(dict.fromkeys(free))[:n_at_once]})
            if not claims:
                continue
            _evaluate(ledger, evaluator, wanted, claims)


def _evaluate(
    ledger: Ledger, evaluator: Evaluator, wanted: dict[int, Proposal], claims: dict[int, int]
) -> None:
    open_claims = dict(claims)
    try:
        results = evaluator.evaluate([wanted[index].configuration for index in claims])
        for (index, trial_id), result in zip(claims.items(), results, strict=True):
            ledger.finish(trial_id, result)
            del open_claims[index]
    finally:
        for trial_id in open_claims.values():
            ledger.release(trial_id)


class _Proposer:
    """Says which proposals are wanted now; each generation is proposed once the earlier ones are complete."""

    def __init__(self, space: Space, plan: Plan) -> None:
        self._space, self._plan = space, plan
        self._generations: list[list[Proposal]] = []
        self._is_exhausted = plan.everything is not None
        if plan.everything is not None:
            self._generations = [[Proposal(configuration, {}) for configuration in plan.everything]]

    @property
    def end(self) -> int:
        """Index after the last proposal that is wanted."""
        n_known = sum(map(len, self._generations))
        return n_known if self._plan.everything is not None else min(self._plan.n_trials, n_known)

    @property
    def total(self) -> int | None:
        """How many proposals there will be, if that is known."""
        return self.end if self._is_exhausted else self._plan.n_trials

    def wanted(self, state: State) -> dict[int, Proposal] | None:
        """Return the proposals of the present generation by index; None when the study is complete."""
        start = 0
        for generation in range(self._plan.n_trials + 1):
            if generation == len(self._generations) and not self._extend(generation, state):
                return None
            proposals = self._generations[generation]
            indices = range(start, min(start + len(proposals), self.end))
            if not all(index in state.finished for index in indices):
                wanted = {index: proposals[index - start] for index in indices}
                self._check(wanted, state)
                return wanted
            start += len(proposals)
            if start >= self.end and self._is_exhausted:
                return None
        return None

    def _extend(self, generation: int, state: State) -> bool:
        n_known = sum(map(len, self._generations))
        if self._is_exhausted or n_known >= self._plan.n_trials:
            return False
        earlier = [state.finished[index] for index in range(n_known)]
        proposals = propose(self._space, self._plan.objectives, self._plan.seed, generation, earlier)
        self._is_exhausted = len(proposals) < GENERATION[self._plan.objectives]
        if not proposals:
            return False
        self._generations.append(proposals)
        return True

    def _check(self, wanted: dict[int, Proposal], state: State) -> None:
        for index, proposal in wanted.items():
            known = state.finished.get(index)
            if known is not None and known.proposal.configuration != proposal.configuration:
                raise RunError(
                    f"search: trial {index} of this study is {known.proposal.configuration}, but would now be "
                    f"{proposal.configuration}: another version of optuna or featbank began this study. Go on with "
                    "that version, or begin a new search with another --out."
                )
