"""Repeated random splits of one dataset: the whole recipe fitted and judged on each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from featbank.errors import RunError
from featbank.protocols.outcome import Outcome
from featbank.protocols.preparation import Material, run_all, score_fit
from regressors.evaluation.metrics import METRICS
from regressors.evaluation.repeated import draw_splits, summarise_scores


def run_repeated(
    material: Material,
    *,
    n_splits: int = 100,
    test_size: float = 0.2,
    grouped: bool = True,
    random_state: int = 0,
    workers: int | None = None,
) -> Outcome:
    """Fit and judge a recipe on many random splits.

    Parameters
    ----------
    material : Material
    n_splits : int
    test_size : float
        Share of the groups, or images, that test.
    grouped : bool
        Draw whole groups. False draws images and lets groups stand on both sides, as many published figures do.
    random_state : int
    workers : int or None

    Returns
    -------
    Outcome
        ``scores``: one row for each split.

    Raises
    ------
    RunError
        If there are too few rows or groups.
    """
    groups = material.rows["group"].to_numpy() if grouped else None
    try:
        splits = draw_splits(
            len(material.rows), groups, n_splits=n_splits, test_size=test_size, random_state=random_state
        )
    except ValueError as error:
        raise RunError(f"protocol: {error}") from error
    if min(len(test) for _, test in splits) < 2:
        raise RunError(
            f"protocol: a split leaves fewer than 2 test images of {len(material.rows)}. Raise --test-fraction."
        )
    jobs = [(material, train, test) for train, test in splits]
    results = run_all(score_fit, jobs, len(jobs), workers, "splits")
    scores = pd.DataFrame(results)
    scores.insert(0, "split", range(len(scores)))
    summary = summarise_scores(scores, list(METRICS))
    settings: dict[str, Any] = {
        "n_splits": n_splits,
        "test_size": test_size,
        "grouped": grouped,
        "rows": material.which,
        "random_state": random_state,
    }
    row = summary.set_index("metric").loc["srcc"]
    unit = "groups" if grouped else "images"
    sentence = (
        f"Over {n_splits:,} random splits of {material.which} ({test_size:.0%} of the {unit} held out) the recipe "
        f"reaches a median SRCC of {row['median']:.3f}, with a standard deviation of {row['std']:.3f} between splits; "
        f"95 % of the splits lie between {row['low']:.3f} and {row['high']:.3f}."
    )
    notes = []
    if not grouped and material.rows["group"].duplicated().any():
        notes.append("Images of one group may stand on both sides of these splits, which flatters the score.")
    if int(row["undefined"]):
        notes.append(f"{int(row['undefined'])} splits have no SRCC, because their predictions are constant.")
    return Outcome("repeated", "Repeated splits", sentence, settings, scores, summary, tuple(notes))
