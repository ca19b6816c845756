"""Words the outcome of a run in one sentence, with its figures; knows no markup."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featbank.report.wording import (
    AGAINST_NOTE,
    against,
    count,
    decimals_for,
    fixed,
    interval,
    percent,
    plural,
    split_title,
)
from featbank.runs.data import RunData, Scores

METADATA_RIDGE = "metadata_ridge"
CONSTANT = "constant"

_WHERE = {
    "test": "On the test split ({n})",
    "validation": "On the validation split ({n}; the run has no test split)",
    "training_cv": "Out of fold on the training split ({n}; the run has no other split)",
}


@dataclass(frozen=True)
class Verdict:
    """The outcome in words.

    Attributes
    ----------
    sentence : str
    is_clear : bool
        Whether the run beats everything it is compared with, intervals included.
    """

    sentence: str
    is_clear: bool


def best_single_band(run: RunData) -> tuple[str, Scores] | None:
    """Band that alone ranks the headline split best; None for a run of one band or without such scores.

    It is chosen on that very split, which favours the band: the comparison errs against the run.
    """
    if len(run.single_bands) < 2:
        return None
    found = [
        (band, sets[run.headline])
        for band, sets in run.single_bands.items()
        if run.headline in sets and math.isfinite(sets[run.headline].values["srcc"])
    ]
    return max(found, key=lambda item: item[1].values["srcc"], default=None)


def word_verdict(run: RunData) -> Verdict:
    """Say how well the run ranks its headline split, and how that stands to band, metadata and constant."""
    scores = run.scores[run.headline]
    value, ends = scores.values["srcc"], scores.ci95.get("srcc", (math.nan, math.nan))
    where = _WHERE.get(run.headline, f"On {run.headline} ({{n}})").format(n=plural(scores.n, "image"))
    if not math.isfinite(value):
        return Verdict(
            f"{where} the predicted scores have no rank correlation with MOS: they are constant.", False
        )
    bounds = interval(*ends, 3)
    claim = f"{where} the predicted scores reach SRCC {fixed(value, 3)}"
    if bounds:
        claim += f" (95\u00a0% interval {bounds})"
    relations: list[str] = []
    parts: list[str] = []
    single = best_single_band(run)
    if single is not None:
        other = single[1].values["srcc"]
        relations.append(against(value, ends, other))
        parts.append(f"{relations[-1]} the best single band, {single[0]} ({fixed(other, 3)})")
    floor = run.baselines.get(METADATA_RIDGE, {}).get(run.headline)
    if floor is not None and math.isfinite(floor.values["srcc"]):
        other = floor.values["srcc"]
        relations.append(against(value, ends, other))
        parts.append(f"{relations[-1]} a ridge on the metadata alone ({fixed(other, 3)})")
    sentence = f"{claim}, {' and '.join(parts)}" if parts else claim
    constant, beats_constant = _against_constant(run)
    is_clear = beats_constant and set(relations) <= {"above"} and not ends[0] <= 0
    return Verdict(f"{sentence}{constant}.", is_clear)


def _against_constant(run: RunData) -> tuple[str, bool]:
    constant = run.baselines.get(CONSTANT, {}).get(run.headline)
    mae = run.scores[run.headline].values["mae"]
    if constant is None or not (math.isfinite(constant.values["mae"]) and math.isfinite(mae)):
        return "", True
    floor = constant.values["mae"]
    decimals = decimals_for([mae, floor])
    figures = f"MAE {fixed(mae, decimals)} against {fixed(floor, decimals)} for a constant prediction"
    if floor <= 0:
        return f"; {figures}", mae <= 0
    if mae < floor:
        return f"; {figures}, {percent(1 - mae / floor)} less", True
    return f"; {figures}, which is no better than knowing nothing", False


def verdict_notes(run: RunData) -> list[str]:
    """Sentences that say how the words of the verdict are meant, for the small print under it."""
    notes = []
    others = (best_single_band(run), run.baselines.get(METADATA_RIDGE, {}).get(run.headline))
    if math.isfinite(run.scores[run.headline].values["srcc"]) and any(others):
        notes.append(AGAINST_NOTE)
    notes += [
        f"No intervals for {split_title(k)}: {s.ci95_reason}" for k, s in run.scores.items() if s.ci95_reason
    ]
    if best_single_band(run) is not None:
        notes.append(
            f"The best single band is the best of {count(len(run.single_bands))} on these very images, a choice "
            "that favours it."
        )
    if run.headline == "training_cv":
        notes.append(
            "Hyper-parameters were chosen on the same folds, so every value here is somewhat too good."
        )
    return notes
