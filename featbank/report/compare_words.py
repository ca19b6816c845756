"""Words a comparison of runs: its outcome in one sentence, and what each figure of it means; knows no markup."""

from __future__ import annotations

import math

import pandas as pd

from featbank.report.verdict import Verdict
from featbank.report.wording import fixed, interval, plural, split_title
from featbank.runs.comparison import TRAINING, Comparison

LEVEL = 0.05
"""Corrected p below which a difference is called one."""


def p_text(p: float) -> str:
    """Spell a p value: three decimals, small ones as a bound, a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else fixed(p, 3)


def leader(comparison: Comparison, part: str) -> str | None:
    """Run of the highest SRCC on one part; None where no run has one."""
    values = {label: scores.values["srcc"] for label, scores in comparison.scores(part).items()}  # noqa: PD011
    known = {label: value for label, value in values.items() if math.isfinite(value)}
    return max(known, key=known.__getitem__) if known else None


def seen_from(comparison: Comparison, label: str, part: str, metric: str) -> pd.DataFrame:
    """Differences of one run to every other: ``other, difference, low, high, p, p_holm``, its value minus theirs."""
    rows = comparison.differences
    rows = rows[(rows["part"] == part) & (rows["metric"] == metric)]
    first, second = rows[rows["first"] == label], rows[rows["second"] == label]
    turned = pd.DataFrame(
        {
            "other": second["first"],
            "difference": -second["difference"],
            "low": -second["high"],
            "high": -second["low"],
            "p": second["p"],
            "p_holm": second["p_holm"],
        }
    )
    kept = first.rename(columns={"second": "other"})[turned.columns]
    return pd.concat([kept, turned], ignore_index=True)


def word_comparison(comparison: Comparison) -> Verdict:
    """Say which run ranks the headline part best, and whether its lead is more than chance."""
    part = comparison.headline
    where = f"On {split_title(part)} ({plural(comparison.parts[part], 'image')})"
    best = leader(comparison, part)
    if best is None:
        return Verdict(
            f"{where} no run has a rank correlation with MOS: their predictions are constant.", False
        )
    value = comparison.scores(part)[best].values["srcc"]  # noqa: PD011
    rivals = seen_from(comparison, best, part, "srcc")
    rivals = rivals[rivals["difference"].notna()].sort_values("difference", kind="stable")
    text = f"{where} {best} ranks best with SRCC {fixed(value, 3)}"
    if not rivals.empty and rivals["p"].isna().any():
        rival = rivals.iloc[0]
        return Verdict(
            f"{text}, {fixed(rival['difference'], 3)} before {rival['other']}; whether that is chance cannot be told "
            f"from {plural(comparison.groups[part], 'group')} of images.",
            False,
        )
    if rivals.empty:
        return Verdict(f"{text}; the other runs are constant.", True)
    nearest = rivals.iloc[0]
    n_pairs = len(comparison.runs) * (len(comparison.runs) - 1) // 2
    corrected = f", corrected for {n_pairs} comparisons" if n_pairs > 1 else ""
    lead = (
        f"its lead of {fixed(nearest['difference'], 3)} over {nearest['other']} "
        f"({interval(nearest['low'], nearest['high'], 3)}, p {_p_relation(nearest['p_holm'])}{corrected})"
    )
    is_sure = bool((rivals["p_holm"] < LEVEL).all())
    if is_sure:
        return Verdict(f"{text}; {lead} is more than the choice of test images explains.", True)
    level = rivals.loc[rivals["p_holm"] >= LEVEL, "other"].tolist()
    others = "" if len(level) < 2 else f" Not told apart from it: {', '.join(level)}."
    return Verdict(f"{text}; {lead} may be chance.{others}", False)


def comparison_notes(comparison: Comparison) -> list[str]:
    """Sentences on how the figures are meant, for the small print under the verdict."""
    notes = [
        f"Differences, intervals and p come from {comparison.n_resamples:,} paired resamples of the images, drawn by "
        "groups (uploader, scene, reference) where they are known: every resample is given to all runs at once. p is "
        "two-sided; Holm’s correction covers all pairs of one metric on one part, and two runs are told apart where it "
        f"stays below {LEVEL:g}. Intervals are of single pairs. They tell how far other test images would move the "
        "result, not other training images.",
    ]
    if comparison.headline == TRAINING:
        notes.append(
            "The runs have no validation or test split: these are out-of-fold predictions, on folds that chose the "
            "hyper-parameters, hence somewhat too good."
        )
    return [*notes, *comparison.notes]


def _p_relation(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"
