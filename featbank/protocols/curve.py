"""Learning curves: how the score grows with the number of rated photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from featbank.errors import RunError
from featbank.protocols.outcome import Outcome
from featbank.protocols.preparation import Material, run_all, score_fit
from regressors.evaluation.metrics import METRICS
from regressors.evaluation.repeated import draw_splits, summarise_scores

SMALLEST = 30
"""Rated photos at which a curve starts by itself."""

N_SIZES = 6


def default_sizes(n_available: int) -> list[int]:
    """Choose sizes from `SMALLEST` to all rows, each about the same multiple of the one before."""
    if n_available <= SMALLEST:
        return [n_available]
    return sorted({round(float(size)) for size in np.geomspace(SMALLEST, n_available, N_SIZES)})


def run_curve(
    material: Material,
    *,
    sizes: Sequence[int] | None = None,
    n_repeats: int = 10,
    test_size: float = 0.2,
    grouped: bool = True,
    random_state: int = 0,
    workers: int | None = None,
) -> Outcome:
    """Fit a recipe on growing parts of the rows and judge each on the same held-out rows.

    Parameters
    ----------
    material : Material
    sizes : sequence of int or None
        Numbers of training images; None chooses six, up to all.
    n_repeats : int
        Random splits, and random orders in which images are rated, behind each point. The smaller parts of one repeat
        are contained in the larger ones.
    test_size : float
        Share of the groups, or images, that judge.
    grouped : bool
        Keep groups off both sides.
    random_state : int
    workers : int or None

    Returns
    -------
    Outcome
        ``scores``: one row for each repeat and size.

    Raises
    ------
    RunError
        If a size is larger than what is left for training, or too small for the recipe's folds.
    """
    groups = material.rows["group"].to_numpy() if grouped else None
    try:
        splits = draw_splits(
            len(material.rows), groups, n_splits=n_repeats, test_size=test_size, random_state=random_state
        )
    except ValueError as error:
        raise RunError(f"protocol: {error}") from error
    available = min(len(train) for train, _ in splits)
    chosen = default_sizes(available) if sizes is None else sorted(set(sizes))
    if chosen[0] < 2 or chosen[-1] > available:
        raise RunError(
            f"protocol: sizes must lie between 2 and {available}, the images left for training in every repeat, got "
            f"{', '.join(map(str, chosen))}."
        )
    rng = np.random.default_rng(random_state)
    jobs, labels = [], []
    for repeat, (train, test) in enumerate(splits):
        order = rng.permutation(train)
        for size in chosen:
            jobs.append((material, np.sort(order[:size]), test))
            labels.append({"repeat": repeat, "size": size})
    results = run_all(score_fit, jobs, len(jobs), workers, "fits")
    scores = pd.DataFrame([label | result for label, result in zip(labels, results, strict=True)])
    summary = summarise_scores(scores, list(METRICS), by="size")
    srcc = summary[summary["metric"] == "srcc"].set_index("size")
    settings: dict[str, Any] = {
        "sizes": chosen,
        "n_repeats": n_repeats,
        "test_size": test_size,
        "grouped": grouped,
        "rows": material.which,
        "random_state": random_state,
    }
    first, last = srcc.iloc[0], srcc.iloc[-1]
    sentence = (
        f"With {chosen[0]:,} rated photos the recipe reaches a median SRCC of {first['median']:.3f} over {n_repeats} "
        f"repeats, with {chosen[-1]:,} of {last['median']:.3f}"
    )
    if len(chosen) > 1:
        gain = last["median"] - srcc.iloc[-2]["median"]
        sentence += f"; the last step, from {chosen[-2]:,}, brought {gain:+.3f}"
    return Outcome("curve", "Learning curve", f"{sentence}.", settings, scores, summary, ())
