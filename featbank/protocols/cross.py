"""Cross-dataset evaluation: a recipe fitted on one dataset, judged on another, MOS rescaled by a declared map."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from featbank.errors import RunError
from featbank.protocols.outcome import Outcome
from featbank.protocols.preparation import Material, fit_rows
from featbank.runs.evaluate import as_written, judge
from featbank.runs.split import written_groups
from featbank.runs.trust import check_duplicates
from regressors.evaluation.metrics import METRICS

NOMINAL: Final = "nominal"
IDENTITY: Final = "none"
_EXPLICIT = re.compile(r"^([-+.\deE]+),([-+.\deE]+):([-+.\deE]+),([-+.\deE]+)$")


@dataclass(frozen=True)
class ScaleMap:
    """A straight line from one MOS scale onto another, declared before any score is seen.

    Attributes
    ----------
    source, target : (float, float)
        Worst and best of each scale.
    """

    source: tuple[float, float]
    target: tuple[float, float]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Bring values of the source scale onto the target scale."""
        (a, b), (c, d) = self.source, self.target
        return c + (np.asarray(values, dtype=np.float64) - a) * (d - c) / (b - a)

    def __str__(self) -> str:
        (a, b), (c, d) = self.source, self.target
        return f"{a:g} to {b:g} onto {c:g} to {d:g}"


def declare_map(text: str, source: tuple[float, float], target: tuple[float, float]) -> ScaleMap:
    """Read the declaration of a map.

    Parameters
    ----------
    text : str
        ``nominal`` (the nominal ends of one scale onto those of the other), ``none`` (the scales are the same), or four
        numbers ``a,b:c,d`` that say that a and b of the first scale are c and d of the second.
    source, target : (float, float)
        Nominal ends of the two scales, worst first.

    Returns
    -------
    ScaleMap

    Raises
    ------
    RunError
        If the text is none of these, a scale is unknown, or the map does not increase.
    """
    if text == IDENTITY:
        return ScaleMap((0.0, 1.0), (0.0, 1.0))
    if text == NOMINAL:
        ends = (source, target)
        if not all(math.isfinite(value) for scale in ends for value in scale):
            raise RunError(
                "protocol: --map nominal needs datasets that state the ends of their scale; give four numbers instead, "
                "such as --map 0,100:1,5."
            )
    else:
        match = _EXPLICIT.match(text)
        try:
            a, b, c, d = (float(part) for part in match.groups()) if match else (0.0,) * 4
        except ValueError as error:
            raise RunError(f"protocol: --map {text!r} holds something that is no number.") from error
        ends = ((a, b), (c, d))
    (a, b), (c, d) = ends
    if not (a < b and c < d):
        raise RunError(
            f"protocol: --map must be nominal, none, or four numbers a,b:c,d with a < b and c < d, got {text!r}. "
            "A DMOS, where lower is better, is turned round when the dataset is read."
        )
    return ScaleMap((a, b), (c, d))


def run_cross(source: Material, target: Material, scale: ScaleMap, *, workers: int | None = None) -> Outcome:
    """Fit on one dataset and judge on another.

    Parameters
    ----------
    source, target : Material
        Of the same recipe.
    scale : ScaleMap
        From the first MOS scale onto the second.
    workers : int or None

    Returns
    -------
    Outcome
        ``scores``: one row each for the model, its own out-of-fold predictions, and constants; ``predictions``.

    Raises
    ------
    RunError
        If the features of the datasets differ in shape.
    """
    if list(source.X.columns) != list(target.X.columns):
        raise RunError(
            f"protocol: the recipe has {source.X.shape[1]} columns on {source.table.name!r} and {target.X.shape[1]} on "
            f"{target.table.name!r}. Imported bands must be computed in the same way on both."
        )
    positions = np.arange(len(source.rows))
    ensemble = fit_rows(source, positions, workers=workers or -1)
    predicted = as_written(scale(ensemble.predict(target.X)))
    held_out = ensemble.oof_predictions_
    tested = np.isfinite(held_out)
    names = source.table.name, target.table.name
    judged = {
        f"{names[0]} to {names[1]}": judge(
            target.y, predicted, groups=target.rows["group"], with_intervals=True
        ),
        f"within {names[0]}, out of fold": judge(
            source.y[tested], held_out[tested], groups=source.rows["group"][tested], with_intervals=True
        ),
        f"constant: mean of {names[0]}": judge(
            target.y, np.full(len(target.y), scale(np.array([source.y.mean()]))[0]), with_intervals=False
        ),
        f"constant: mean of {names[1]}": judge(
            target.y, np.full(len(target.y), target.y.mean()), with_intervals=False
        ),
    }
    scores = pd.DataFrame(
        [
            {"predictor": name, "n": entry["n"]}
            | {metric: entry[metric] for metric in METRICS}
            | {
                f"srcc_{end}": bounds[i]
                for bounds in [(entry.get("ci95") or {}).get("srcc", (None, None))]
                for i, end in enumerate(("low", "high"))
            }
            for name, entry in judged.items()
        ]
    )
    first, within = scores.iloc[0], scores.iloc[1]
    value = "none, because its predictions are constant" if pd.isna(first["srcc"]) else f"{first['srcc']:.3f}"
    sentence = (
        f"Fitted on {source.which} of {names[0]}, the recipe reaches on {target.which} of {names[1]} "
        f"an SRCC of {value}"
    )
    if pd.notna(first["srcc_low"]):
        sentence += f" (95 % interval {first['srcc_low']:.3f} to {first['srcc_high']:.3f})"
    if pd.notna(within["srcc"]):
        sentence += f"; within its own dataset it has {within['srcc']:.3f} out of fold"
    copies = check_duplicates(target.X, source.X)
    predictions = target.rows[["split", "subset", "group", "mos"]].copy()
    predictions["group"] = written_groups(target.rows["group"], target.rows.index.to_series())
    predictions.insert(0, "image", predictions.index)
    predictions["predicted"] = predicted
    settings: dict[str, Any] = {
        "source": {"dataset": names[0], "rows": source.which},
        "target": {"dataset": names[1], "rows": target.which},
        "map": {"source": list(scale.source), "target": list(scale.target)},
    }
    notes = (
        f"MOS were rescaled by a line fixed beforehand, {scale}; only MAE and RMSE depend on it.",
        copies.sentence,
        *(f"{name}: {entry['ci95_reason']}" for name, entry in judged.items() if "ci95_reason" in entry),
    )
    return Outcome(
        "cross", "Cross-dataset evaluation", f"{sentence}.", settings, scores, None, notes, predictions
    )
