"""What is written down of a search: the words its study is known by, and what came out, for receipt and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pandas as pd

from experiments.recipes.reading import Recipe
from experiments.runs.receipt import none_if_nan
from experiments.search.figures import importance_figure, pareto_figure
from experiments.search.ledger import hide_password
from experiments.search.outcome import importance_frame, pareto_front, pick_winner, trials_frame
from experiments.search.proposals import Finished
from experiments.search.space import Configuration, Space
from experiments.search.worker import Plan
from featbank.digest import digest_json

TRIALS: Final = "trials.csv"
IMPORTANCE: Final = "importance.csv"


@dataclass(frozen=True)
class Nested:
    """Result of one outer fold of the nested search.

    Attributes
    ----------
    score : float
        SRCC of the fold's winner on rows that its search did not see; NaN where undefined.
    configuration : Configuration
        That winner.
    """

    score: float
    configuration: Configuration


def spec_of_study(
    space: Space, plan: Plan, training: pd.DataFrame, digests: dict[str, str], *, reference: bool
) -> dict[str, Any]:
    """Return everything that decides what the trials are; processes share a study when theirs is equal.

    Parameters
    ----------
    space : Space
    plan : Plan
    training : DataFrame
        Rows that the search sees, by image, with ``mos`` and ``group``.
    digests : dict of str to str
        Of the features, by variant of a band.
    reference : bool
        Whether members are searched with plain scikit-learn.

    Returns
    -------
    dict
        JSON-able.
    """
    return {
        # A study is computed in one way throughout, so that two can be compared.
        **({"reference": True} if reference else {}),
        "recipe": space.recipe.digest,
        "budget_gmacs": space.budget_gmacs,
        "objectives": plan.objectives,
        "seed": None if plan.everything is not None else plan.seed,
        "method": plan.method,
        "features": digests,
        "rows": digest_json(
            [
                [str(image), float(mos), str(group)]
                for image, mos, group in zip(training.index, training["mos"], training["group"], strict=True)
            ]
        ),
    }


def say_scope(space: Space, plan: Plan) -> str:
    """Say how many configurations are tried, and within what."""
    if plan.everything is not None:
        return f"all {len(plan.everything)} configurations within {space.budget_gmacs:g} GMACs"
    return (
        f"{plan.n_trials} trials among up to {space.size} configurations within {space.budget_gmacs:g} GMACs"
    )


def document_study(
    space: Space,
    plan: Plan,
    name: str,
    recipe: Recipe,
    finished: Sequence[Finished],
    nested: Sequence[Nested],
    *,
    storage: str | None,
) -> dict[str, Any]:
    """Return what the receipt says of a search.

    Parameters
    ----------
    space : Space
    plan : Plan
    name : str
        Of the study.
    recipe : Recipe
        As given, before the search chose.
    finished : sequence of Finished
        Evaluated configurations, at least one.
    nested : sequence of Nested
        The outer folds; none where the nested score was left out.
    storage : str or None
        Database URL, None for the journal; its password is left out.

    Returns
    -------
    dict
        JSON-able; undefined scores are None.
    """
    winner = pick_winner(finished)
    everything = plan.everything if plan.everything is not None else space.list_feasible()
    is_certified = everything is not None and len(finished) == len(everything)
    scores = [item.score for item in nested]
    nested_srcc = sum(scores) / len(scores) if scores else math.nan
    if is_certified:
        statement = (
            f"Certified optimum of the search: all {len(finished)} configurations within {space.budget_gmacs:g} GMACs "
            "were evaluated, and none has a higher SRCC on the same folds."
        )
    else:
        statement = (
            f"Best of {len(finished)} sampled configurations; not certified, the space holds up to {space.size} within "
            f"and over {space.budget_gmacs:g} GMACs."
        )
    return {
        "study": name,
        "storage": "search.journal" if storage is None else hide_password(storage),
        "recipe": {"name": recipe.name, "digest": recipe.digest, "text": recipe.to_toml()},
        "method": plan.method,
        "objectives": plan.objectives.split(","),
        "seed": plan.seed,
        "budget_gmacs": space.budget_gmacs,
        "space_size": space.size,
        "n_feasible": None if everything is None else len(everything),
        "n_evaluated": len(finished),
        "is_certified": is_certified,
        "statement": statement,
        "winner": _entry(winner),
        "selected_srcc": none_if_nan(winner.evaluation.srcc),
        "nested_srcc": none_if_nan(nested_srcc),
        "nested_folds": [{"srcc": none_if_nan(item.score), **_plain(item.configuration)} for item in nested],
        "pareto": [_entry(item) for item in pareto_front(finished)],
        "optuna": metadata.version("optuna"),
    }


def _entry(item: Finished) -> dict[str, Any]:
    return {
        "trial": item.index,
        "srcc": none_if_nan(item.evaluation.srcc),
        "split_srcc": [none_if_nan(score) for score in item.evaluation.splits],
        "gmacs": item.evaluation.gmacs,
        **_plain(item.proposal.configuration),
    }


def _plain(configuration: Configuration) -> dict[str, Any]:
    values = asdict(configuration)
    return {"bands": list(values.pop("variants")), **values}


def write_study(folder: Path, space: Space, objectives: str, finished: Sequence[Finished]) -> None:
    """Write the trials, the importance of what was open, and their figures into a run folder."""
    trials_frame(space, finished).to_csv(folder / TRIALS, index=False, float_format="%.10g")
    importance = importance_frame(space, objectives, finished)
    importance.to_csv(folder / IMPORTANCE, index=False, float_format="%.6g")
    pareto_figure(finished, space.budget_gmacs).write_png(folder)
    importance_figure(importance).write_png(folder)
