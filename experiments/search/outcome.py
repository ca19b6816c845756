"""What a finished study says: its table, its winner, its Pareto front, and which choices mattered."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from experiments.search.proposals import Finished, rebuild_study
from experiments.search.space import LEFT_OUT, OPTIONS, Space

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
            len(item.proposal.configuration.variants),
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
            len(item.proposal.configuration.variants),
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
        configuration, evaluation = item.proposal.configuration, item.evaluation
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
    study = rebuild_study(space, objectives, finished, optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=_IMPORTANCE_SEED),
            target=lambda trial: trial.values[0],  # noqa: PD011 - of an Optuna trial
        )
    return {name: float(share) for name, share in found.items()}
