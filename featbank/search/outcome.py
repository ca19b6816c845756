"""What comes out of a study: winner, Pareto front, tables, which choices mattered, and the entry in the receipt."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from featbank.digest import digest_json
from featbank.errors import redact
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import FLOAT_FORMAT
from featbank.runs.receipt import none_if_nan
from featbank.search.space import LEFT_OUT, OPTIONS, Configuration, Space
from featbank.search.study import Finished, Plan, rebuild_study

TRIALS: Final = "trials.csv"
IMPORTANCE: Final = "importance.csv"


_IMPORTANCE_SEED = 0


def pick_winner(finished: Sequence[Finished]) -> Finished:
    """Return the best evaluated configuration: by SRCC, then GMACs, then number of bands, then order.

    Parameters
    ----------
    finished : sequence of Finished
        At least one.

    Returns
    -------
    Finished
    """
    return min(
        finished,
        key=lambda item: (
            -item.evaluation.value,
            item.evaluation.gmacs,
            len(item.configuration.variants),
            item.index,
        ),
    )


def pareto_front(finished: Sequence[Finished]) -> list[Finished]:
    """Return the configurations that no other one equals at less cost or beats at the same cost, cheapest first.

    Parameters
    ----------
    finished : sequence of Finished

    Returns
    -------
    list of Finished
        SRCC and GMACs both grow along it; of equals the one with the fewest bands, then the first.
    """
    front: list[Finished] = []
    for item in sorted(
        finished,
        key=lambda item: (
            item.evaluation.gmacs,
            -item.evaluation.value,
            len(item.configuration.variants),
            item.index,
        ),
    ):
        if not front or item.evaluation.value > front[-1].evaluation.value:
            front.append(item)
    return front


def trials_frame(space: Space, finished: Sequence[Finished]) -> pd.DataFrame:
    """Put a study into a table, in the order of its trials.

    Parameters
    ----------
    space : Space
    finished : sequence of Finished

    Returns
    -------
    DataFrame
        ``trial``, ``srcc`` (mean over folds, empty where predictions are constant), ``std``, ``gmacs``, ``n_bands``,
        ``pareto``, ``winner``, one column for each band (its variant or ``no``), the options, ``split<k>_srcc``.
    """
    front = {item.index for item in pareto_front(finished)}
    winner = pick_winner(finished).index
    rows = []
    for item in finished:
        configuration, evaluation = item.configuration, item.evaluation
        chosen = {space.band_of(name): name for name in configuration.variants}
        row: dict[str, object] = {
            "trial": item.index,
            "srcc": evaluation.srcc,
            "std": float(np.std(evaluation.splits)),
            "gmacs": evaluation.gmacs,
            "n_bands": len(configuration.variants),
            "pareto": item.index in front,
            "winner": item.index == winner,
        }
        row |= {f"band:{band}": chosen.get(band, LEFT_OUT) for band in space.variants}
        for name in OPTIONS:
            value = getattr(configuration, name)
            row[name] = json.dumps(value) if isinstance(value, tuple) else value
        row |= {f"split{k}_srcc": score for k, score in enumerate(evaluation.splits)}
        rows.append(row)
    return pd.DataFrame(rows)


def importance_frame(space: Space, objectives: str, finished: Sequence[Finished]) -> pd.DataFrame:
    """Say how much each choice mattered for SRCC.

    Parameters
    ----------
    space : Space
    objectives : {"srcc", "srcc,gmacs"}
    finished : sequence of Finished

    Returns
    -------
    DataFrame
        ``choice``, ``importance`` (share of the variance of SRCC over the evaluated configurations that a
        functional analysis of variance [1]_ gives to it, empty where all are alike), ``n_with``, ``mean_with`` and
        ``mean_without``, the mean SRCC of the configurations with and without a band, empty for other choices.

    References
    ----------
    .. [1] F. Hutter, H. Hoos, K. Leyton-Brown, "An efficient approach for assessing hyperparameter importance",
       ICML 2014.
    """
    shares = _shares(space, objectives, finished)
    frame = trials_frame(space, finished)
    rows = []
    for choice in space.choices:
        row: dict[str, object] = {"choice": choice, "importance": shares.get(choice, np.nan)}
        if choice.startswith("band:"):
            has_it = frame[choice] != LEFT_OUT
            row["n_with"] = int(has_it.sum())
            row["mean_with"] = frame.loc[has_it, "srcc"].mean()
            row["mean_without"] = frame.loc[~has_it, "srcc"].mean()
        rows.append(row)
    ordered = pd.DataFrame(rows).sort_values("importance", ascending=False, kind="stable")
    return ordered.reset_index(drop=True)


def _shares(space: Space, objectives: str, finished: Sequence[Finished]) -> dict[str, float]:
    import optuna

    values = {item.evaluation.value for item in finished}
    if len(finished) < 2 or len(values) < 2:
        return {}
    study = rebuild_study(space, objectives, finished)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=_IMPORTANCE_SEED),
            target=lambda trial: trial.values[0],  # noqa: PD011 - of an Optuna trial
        )
    return {name: float(share) for name, share in found.items()}


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
        "storage": "search.journal" if storage is None else redact(storage),
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
        **_plain(item.configuration),
    }


def _plain(configuration: Configuration) -> dict[str, Any]:
    values = asdict(configuration)
    return {"bands": list(values.pop("variants")), **values}


def write_study(
    folder: Path,
    space: Space,
    objectives: str,
    finished: Sequence[Finished],
    draw: Callable[[Path, Sequence[Finished], pd.DataFrame, float], object] | None = None,
) -> None:
    """Write the trials, the importance of what was open, and their figures into a run folder."""
    trials_frame(space, finished).to_csv(folder / TRIALS, index=False, float_format=FLOAT_FORMAT)
    importance = importance_frame(space, objectives, finished)
    importance.to_csv(folder / IMPORTANCE, index=False, float_format="%.6g")
    if draw is not None:
        draw(folder, finished, importance, space.budget_gmacs)
