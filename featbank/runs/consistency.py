"""Computes a run's metrics anew from its predictions and says where its metrics.json tells otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featbank.runs.evaluate import judge, score_parts
from regressors.evaluation.metrics import METRICS

if TYPE_CHECKING:  # the report uses this module
    from featbank.runs.data import RunData

TOLERANCE = 1e-6
"""Written values are judged, so only the rounding of another machine moves a metric; one that moves by more was not
computed from them."""


def recomputed_scores(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Judge written predictions as ``fit`` does.

    Parameters
    ----------
    predictions : DataFrame
        ``image, split, subset, mos, predicted``; rows without MOS or prediction are passed over.

    Returns
    -------
    dict of str to dict
        ``n`` and every metric by part, ``training_cv`` for the out-of-fold predictions; None where a metric is
        undefined.
    """
    known = predictions[np.isfinite(predictions["mos"]) & np.isfinite(predictions["predicted"])]
    scores = score_parts(known, known["predicted"].to_numpy(dtype=np.float64), with_intervals=False)
    training = known[known["split"] == "training"]
    if len(training) >= 2:
        y, y_pred = (training[name].to_numpy(dtype=np.float64) for name in ("mos", "predicted"))
        scores["training_cv"] = judge(y, y_pred, with_intervals=False)
    return scores


def disagreements(run: RunData) -> list[str]:
    """Compare a run's stored metrics with those of its predictions.

    Parameters
    ----------
    run : RunData

    Returns
    -------
    list of str
        One phrase for each value that does not follow from the predictions; empty for an honest run.
    """
    computed = recomputed_scores(run.predictions)
    found = []
    for part, stored in run.scores.items():
        anew = computed.get(part)
        if anew is None:
            if part == "training_cv" or part.startswith(("validation", "test")):
                found.append(f"{part} is scored but has no predictions")
            continue
        if stored.n != anew["n"]:
            found.append(f"{part} is said to have {stored.n:,} images, its predictions {anew['n']:,}")
            continue
        for name in METRICS:
            said = stored.values[name]  # noqa: PD011 - a dict, not a frame
            value = math.nan if anew[name] is None else float(anew[name])
            if _differ(said, value):
                found.append(f"{name.upper()} of {part} is said to be {said:.6g}, is {value:.6g}")
    return found


def _differ(stored: float, computed: float) -> bool:
    if math.isnan(stored) or math.isnan(computed):
        return math.isnan(stored) != math.isnan(computed)
    return abs(stored - computed) > TOLERANCE * max(1.0, abs(computed))
