"""One run in words and rows of text: verdict, tables, sections; knows no markup."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from featbank.encoders import random_weights_note
from featbank.report.figures import (
    INTERCEPT,
    band_shares,
    curve_parameter,
    cv_curves,
    member_weights,
    share_title,
    short_parameter,
)
from featbank.report.style import (
    AGAINST_NOTE,
    METRIC_TITLES,
    MINUS,
    against,
    count,
    decimals_for,
    duration,
    fixed,
    interval,
    number,
    percent,
    plural,
    sentence_case,
    split_title,
)
from featbank.report.tables import (
    CONSTANT,
    METADATA_RIDGE,
    NEAREST,
    comparison_rows,
    markdown_text,
    score_lines,
    split_rows,
)
from featbank.runs.folder import METRIC_NAMES, SPLITS, RunData, Scores, as_float, mos_groups
from featbank.runs.trust import ALARM, CAUTION, check_agreement, disagreements

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
    is_clear : bool
        Whether the run beats everything it is compared with, intervals included.
    """

    sentence: str
    is_clear: bool


def best_single_band(run: RunData) -> tuple[str, Scores] | None:
    """Band that alone ranks the headline split best; None for a run of one band or without such scores."""
    if len(run.single_bands) < 2:
        return None
    found = [
        (band, sets[run.headline])
        for band, sets in run.single_bands.items()
        if run.headline in sets and math.isfinite(sets[run.headline].metrics["srcc"])
    ]
    return max(found, key=lambda item: item[1].metrics["srcc"], default=None)


def word_verdict(run: RunData) -> Verdict:
    """Say how well the run ranks its headline split, and how that stands to band, metadata and constant."""
    scores = run.scores[run.headline]
    value, ends = scores.metrics["srcc"], scores.ci95.get("srcc", (math.nan, math.nan))
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
        other = single[1].metrics["srcc"]
        relations.append(against(value, ends, other))
        parts.append(f"{relations[-1]} the best single band, {single[0]} ({fixed(other, 3)})")
    floor = run.baselines.get(METADATA_RIDGE, {}).get(run.headline)
    if floor is not None and math.isfinite(floor.metrics["srcc"]):
        other = floor.metrics["srcc"]
        relations.append(against(value, ends, other))
        parts.append(f"{relations[-1]} a ridge on the metadata alone ({fixed(other, 3)})")
    sentence = f"{claim}, {' and '.join(parts)}" if parts else claim
    constant, beats_constant = _against_constant(run)
    is_clear = beats_constant and set(relations) <= {"above"} and not ends[0] <= 0
    return Verdict(f"{sentence}{constant}.", is_clear)


def _against_constant(run: RunData) -> tuple[str, bool]:
    constant = run.baselines.get(CONSTANT, {}).get(run.headline)
    mae = run.scores[run.headline].metrics["mae"]
    if constant is None or not (math.isfinite(constant.metrics["mae"]) and math.isfinite(mae)):
        return "", True
    floor = constant.metrics["mae"]
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
    if math.isfinite(run.scores[run.headline].metrics["srcc"]) and any(others):
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


SIMULATION_NOTE = (
    "These photos were rendered and their MOS come from simulated raters: "
    "the results prove nothing about real photos."
)


def table_markdown(run: RunData) -> str:
    """Title, verdict, metrics by split and comparisons as Markdown, for a README or an issue."""
    lines = [f"# {markdown_text(run.title)}", ""]
    if run.is_simulation:
        lines += [f"> **Simulation.** {SIMULATION_NOTE}", ""]
    if run.random_bands:
        lines += [f"> **{markdown_text(random_weights_note(run.random_bands))}**", ""]
    lines += [markdown_text(word_verdict(run).sentence), "", "## Metrics by split", ""]
    lines += score_lines("split", split_rows(run))
    comparisons = comparison_rows(run)
    if len(comparisons) > 1:
        lines += ["", f"## What it is compared with ({split_title(run.headline)})", ""]
        lines += score_lines("predictor", comparisons)
    return "\n".join([*lines, ""])


MAX_MISSES = 12
MAX_FAILURES = 100
MAX_FACTS = 300
MAX_NOTES = 12

_SHOWN_ELSEWHERE = frozenset(
    {
        "recipe",
        "features",
        "passes",
        "chosen",
        "band_share",
        "failures",
        "durations",
        "seconds_per_photo",
        "notes",
    }
)


def worst_misses(run: RunData) -> list[dict[str, str]]:
    """Images of the headline split with the greatest absolute error, worst first; ``error`` is predicted minus MOS."""
    frame = run.scored(run.headline_split)
    error = frame["predicted"] - frame["mos"]
    # The name breaks ties, so the page does not depend on the order of rows.
    order = frame.assign(_error=error, _size=error.abs()).sort_values(
        ["_size", "image"], ascending=[False, True]
    )
    worst = order.head(MAX_MISSES)
    decimals = decimals_for(worst["_size"].tolist())
    return [
        {
            "image": str(row["image"]),
            "subset": str(row["subset"]),
            "mos": fixed(row["mos"], decimals),
            "predicted": fixed(row["predicted"], decimals),
            "error": ("+" if row["_error"] >= 0 else MINUS) + fixed(abs(row["_error"]), decimals),
            "direction": "rated too high" if row["_error"] >= 0 else "rated too low",
        }
        for row in worst.to_dict("records")
    ]


def member_rows(run: RunData) -> list[dict[str, str]]:
    """Weight, bands, chosen hyper-parameters and cross-validated score of each member."""
    chosen = {str(row.get("member", "")): row for row in run.rows("chosen")}
    weights = member_weights(run)
    bands = {}
    if {"member", "bands"} <= set(run.weights.columns):
        bands = dict(zip(run.weights["member"].astype(str), run.weights["bands"].astype(str), strict=True))
    cv_scores = _best_cv_scores(run)
    names = dict.fromkeys([*weights, *chosen])
    decimals = min(decimals_for(weights.values()), 4)
    rows = [
        {
            "member": name,
            "weight": fixed(weights.get(name, math.nan), decimals),
            "bands": bands.get(name, ""),
            "params": spell_parameters(chosen.get(name, {}).get("params")),
            "rows": spell_value(chosen.get(name, {}).get("rows")),
            "cv": cv_scores.get(name, ""),
        }
        for name in names
    ]
    if {"member", "weight"} <= set(run.weights.columns):
        for value in run.weights.loc[run.weights["member"] == INTERCEPT, "weight"]:
            rows.append(dict.fromkeys(rows[0] if rows else ("member", "weight"), ""))
            rows[-1] |= {"member": INTERCEPT, "weight": number(float(value))}
    return rows


def _best_cv_scores(run: RunData) -> dict[str, str]:
    frame = run.cv_results
    if not {"member", "mean_test_score"} <= set(frame.columns):
        return {}
    found = {}
    for member, rows in frame.groupby("member", sort=False):
        known = rows[np.isfinite(rows["mean_test_score"])]
        if known.empty:
            continue
        best = known.loc[known["mean_test_score"].idxmax()]
        spread = as_float(best.get("std_test_score"))
        text = fixed(float(best["mean_test_score"]), 3)
        found[str(member)] = text if math.isnan(spread) else f"{text} ± {fixed(spread, 3)}"
    return found


def spell_parameters(params: object) -> str:
    """Spell chosen hyper-parameters as ``alpha = 100``, without the pipeline's step names."""
    if isinstance(params, Mapping):
        return ", ".join(
            f"{short_parameter(str(key))} = {spell_value(value)}" for key, value in params.items()
        )
    return spell_value(params)


def spell_value(value: object) -> str:
    """Spell any JSON value on one line; numbers short, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(spell_value(item) for item in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def grid_end_members(run: RunData, parameter: str) -> list[str]:
    """Members whose chosen value lies at an end of the grid, beyond which a better one may lie."""
    return [curve.member for curve in cv_curves(run, parameter) if curve.best in {0, len(curve.x) - 1}]


def band_rows(run: RunData) -> list[dict[str, str]]:
    """List encoder, view, size, cost and share of each band, in the order of their shares."""
    features = {str(row.get("band", "")): row for row in run.rows("features")}
    shares = band_shares(run)
    return [
        {
            "band": band,
            "share": percent(shares[band]) if band in shares else "",
            "encoder": spell_value(features.get(band, {}).get("encoder")),
            "encoder_small": spell_value(features.get(band, {}).get("view")),
            "columns": spell_value(features.get(band, {}).get("n_features")),
            "gmacs": number(as_float(features.get(band, {}).get("gmacs"))),
            "band_small": spell_value(features.get(band, {}).get("role")),
        }
        for band in dict.fromkeys([*shares, *features])
    ]


def share_sentence(run: RunData) -> str:
    """Say what the bands' shares are shares of, on which rows, and what they add up to."""
    shares = band_shares(run)
    whole = share_title(shares)
    rows = run.receipt.get("band_share_rows")
    where = f", on the {rows} rows" if isinstance(rows, str) and rows else ""
    text = f"{sentence_case(whole)} that each band brings (product measure{where})"
    total = sum(shares.values())
    if whole == share_title({"": 1.0}):
        return f"{text}; the shares add up to the whole."
    rest = "the rest is not explained" if total > 0 else "which is worse than a constant"
    return f"{text}; together {percent(total)}, {rest}."


def licence_rows(run: RunData) -> list[dict[str, str]]:
    """Licence, role and bands of each encoder."""
    encoders: dict[tuple[str, str, str], list[str]] = {}
    for row in run.rows("features"):
        key = (spell_value(row.get("encoder")), spell_value(row.get("role")), spell_value(row.get("licence")))
        encoders.setdefault(key, []).append(spell_value(row.get("band")))
    return [
        {"encoder": encoder, "role": role, "licence": licence or "not stated", "bands": ", ".join(bands)}
        for (encoder, role, licence), bands in encoders.items()
    ]


def failure_rows(run: RunData) -> list[dict[str, str]]:
    """List the first failures in the receipt's order."""
    return [
        {name: spell_value(row.get(name)) for name in ("image", "reason", "message")}
        for row in run.rows("failures")[:MAX_FAILURES]
    ]


def failure_summary(run: RunData) -> str:
    """Failures counted by reason, most frequent first."""
    reasons = Counter(spell_value(row.get("reason")) or "no reason given" for row in run.rows("failures"))
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count(n)}" for reason, n in ordered)


def _share_of_listed(run: RunData, n: int) -> str:
    """Say of how many listed images, where the receipt knows it."""
    n_listed = as_float(run.section("dataset").get("n_listed"))
    return f" of {plural(int(n_listed), 'image')} ({percent(n / n_listed)})" if n_listed > 0 else ""


def split_counts(run: RunData) -> str:
    """Images by split, with those of a subset in brackets, from the predictions."""
    frame = run.predictions
    parts = []
    for split in dict.fromkeys([*SPLITS, *sorted(set(frame["split"]))]):
        rows = frame[frame["split"] == split]
        if rows.empty:
            continue
        subsets = Counter(name for name in rows["subset"] if name)
        inside = ", ".join(f"{count(n)} {name}" for name, n in sorted(subsets.items()))
        parts.append(f"{count(len(rows))} {split or 'without split'}" + (f" ({inside})" if inside else ""))
    return ", ".join(parts)


def mos_rows(run: RunData) -> list[dict[str, str]]:
    """Count the MOS by split and subset, and give their mean, standard deviation and range."""
    groups = mos_groups(run.predictions)
    decimals = decimals_for(float(mos.std()) for _, _, mos in groups)
    return [
        {
            "group": f"{split}, {subset}" if subset else split,
            "n": count(len(mos)),
            "mean": fixed(float(mos.mean()), decimals),
            "std": fixed(float(mos.std()), decimals),
            "min": fixed(float(mos.min()), decimals),
            "max": fixed(float(mos.max()), decimals),
        }
        for split, subset, mos in groups
    ]


def scale_sentence(run: RunData) -> str:
    """Say on which scale MAE and RMSE are to be read: the nominal one, and what the headline split uses of it."""
    mos = run.scored(run.headline_split)["mos"].to_numpy(dtype=np.float64)
    nominal = run.mos_range
    text = "MAE and RMSE are in MOS points"
    text += (
        f" on a scale from {number(nominal[0])} to {number(nominal[1])}"
        if nominal
        else " on the dataset's own scale"
    )
    if not len(mos):
        return f"{text}."
    spread = number(float(mos.std()))
    return (
        f"{text}; the MOS of the {run.headline_split} split run from {number(float(mos.min()))} to "
        f"{number(float(mos.max()))}, with a standard deviation of {spread}."
    )


def run_notes(run: RunData) -> list[str]:
    """Give the run's own remarks on its data, such as how far its splits share their uploaders."""
    notes = run.receipt.get("notes")
    return [str(note) for note in notes[:MAX_NOTES]] if isinstance(notes, list) else []


def provenance(run: RunData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Gather what the receipt says that no other section shows, by its top-level names."""
    single = [("recipe digest", run.section("recipe").get("digest"))]
    groups: list[tuple[str, list[tuple[str, str]]]] = []
    for name, value in run.receipt.items():
        if name in _SHOWN_ELSEWHERE or value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            facts = [(key, spell_value(item)) for key, item in flattened(value)]
            groups.append((name.replace("_", " "), facts[:MAX_FACTS]))
        else:
            single.append((name.replace("_", " "), value))
    facts = [(key, spell_value(value)) for key, value in single if value]
    return [("run", facts), *groups] if facts else groups


def flattened(value: object, prefix: str = "") -> list[tuple[str, object]]:
    """Turn nested tables into pairs of dotted name and value, in their order."""
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    return [
        pair
        for key, item in value.items()
        for pair in flattened(item, f"{prefix}.{key}" if prefix else str(key))
    ]


def pass_rows(run: RunData) -> list[dict[str, str]]:
    """Cost of each distinct pass and the bands that share it, dearest first."""
    rows = run.rows("passes")
    gmacs = [as_float(row.get("gmacs")) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: -gmacs[i] if math.isfinite(gmacs[i]) else 0.0)
    return [
        {
            "pass": spell_value(rows[i].get("pass")),
            "bands": spell_value(rows[i].get("bands")),
            "gmacs": number(gmacs[i]),
            "share": percent(gmacs[i] / run.gmacs) if run.gmacs > 0 else "",
            "params": number(as_float(rows[i].get("params_m"))),
        }
        for i in order
    ]


def time_rows(run: RunData) -> list[dict[str, str]]:
    """Measured time: of one photo by stage of extraction, then of the whole run by its own stages."""
    photo = _seconds(run.section("seconds_per_photo"))
    rows = [{"stage": name, "photo": duration(value), "run": ""} for name, value in photo]
    if len(photo) > 1:
        rows.append({"stage": "extraction in all", "photo": duration(sum(s for _, s in photo)), "run": ""})
    for name, value in _seconds(run.section("durations")):
        label = name.removesuffix("_s").replace("_", " ").replace(".", ", ")
        rows.append({"stage": label, "photo": "", "run": duration(value)})
    return rows


def _seconds(table: Mapping[str, object]) -> list[tuple[str, float]]:
    found = [(name, as_float(value)) for name, value in flattened(table)]
    return [(name, value) for name, value in found if math.isfinite(value)]


def cost_sentence(run: RunData) -> str:
    """Say what one image costs, whether that is within the budget, and what the sum leaves out."""
    gmacs = [as_float(row.get("gmacs")) for row in run.rows("passes") or run.rows("features")]
    unknown = sum(1 for value in gmacs if not math.isfinite(value))
    if not math.isfinite(run.gmacs) or (gmacs and unknown == len(gmacs)):
        return "The run states no GMACs: its features were brought from elsewhere without their cost."
    text = f"One image costs {number(run.gmacs)} GMACs"
    if math.isfinite(run.params_m):
        text += f" and {number(run.params_m)} million parameters"
    if math.isfinite(run.budget_gmacs) and run.budget_gmacs > 0:
        relation = "within" if run.gmacs <= run.budget_gmacs else "above"
        share = percent(run.gmacs / run.budget_gmacs)
        text += f", {relation} the budget of {number(run.budget_gmacs)} GMACs ({share} of it)"
    else:
        text += "; the recipe sets no budget"
    text += ". A pass that several bands tap is paid once."
    if unknown:
        missing = plural(unknown, "pass", "passes")
        text += f" The sum is too low: {missing} came from elsewhere without a stated cost."
    return text


LEVEL_TITLES = {"ok": "passed", CAUTION: "caution", ALARM: "ALARM"}

_ORDER = {ALARM: 0, CAUTION: 1}


def trust_rows(run: RunData) -> list[dict[str, str]]:
    """List every check, alarms first; whether metrics follow from predictions is tried on the files as they are."""
    again = check_agreement(disagreements(run))
    findings = [finding for finding in run.findings if finding.get("check") != again.check]
    every = [*findings, asdict(again)]
    return [
        {
            "check": str(finding.get("check", "")),
            "level": str(finding.get("level", "")),
            "result": LEVEL_TITLES.get(str(finding.get("level")), "unknown"),
            "sentence": str(finding.get("sentence", "")),
        }
        for finding in sorted(every, key=lambda finding: _ORDER.get(str(finding.get("level")), 2))
    ]


def interval_sentence(run: RunData) -> str:
    """Say how wide the intervals are and what they were calibrated on."""
    interval = run.intervals
    if not interval:
        return ""
    on_validation = interval.get("calibrated_on") == "validation"
    source = "predictions of the validation split" if on_validation else "out-of-fold predictions"
    unseen = "test image" if on_validation else "validation or test image"
    like = "validation" if on_validation else "training"
    return (
        f"Each prediction has an interval of ± {number(float(interval['half_width']))} MOS points that should hold the "
        f"MOS of {percent(float(interval['confidence']))} of images like the {like} images. It was calibrated on "
        f"{count(int(interval['n_calibration']))} {source} (split conformal) and has seen no {unseen}."
    )


def coverage_rows(run: RunData) -> list[dict[str, str]]:
    """Coverage of each judged part beside the range that chance leaves it."""
    rows = []
    for part, entry in run.intervals.get("coverage", {}).items():
        low, high = entry["expected"]
        verdict = "as promised" if low <= entry["share"] <= high else "too narrow"
        rows.append(
            {
                "part": split_title(part),
                "n": count(int(entry["n"])),
                "share": percent(float(entry["share"]), 3),
                "expected": f"{percent(float(low), 3)} to {percent(float(high), 3)}",
                "share_small": verdict if entry["share"] <= high else "wider than promised",
            }
        )
    return rows


COMPARED = ("srcc", "plcc", "mae")
"""Metrics that a figure leaves room for beside it; tables.csv has all."""


def summarise(run: RunData) -> dict[str, Any]:
    """Say everything that the page says of a run, but figures and photos, as plain JSON-able data."""
    parameter = curve_parameter(run)
    checks = trust_rows(run)
    n_failures, n_members, bands = len(run.rows("failures")), len(member_weights(run)), band_rows(run)
    facts = {
        "dataset": str(run.section("dataset").get("name") or "not named"),
        "images": split_counts(run),
        "bands": count(len(bands)) if bands else "",
        "members": count(n_members) if n_members else "",
        "cost": f"{number(run.gmacs)} GMACs an image" if run.gmacs > 0 else "",
    }
    return {
        "title": run.title,
        "facts": [(name, value) for name, value in facts.items() if value],
        "simulation_note": SIMULATION_NOTE if run.is_simulation else "",
        "alarms": [row for row in checks if row["level"] == ALARM],
        "trust_rows": checks,
        "has_findings": bool(run.findings),
        "interval_sentence": interval_sentence(run),
        "coverage_rows": coverage_rows(run),
        "random_note": random_weights_note(run.random_bands),
        "verdict": asdict(word_verdict(run)),
        "verdict_notes": verdict_notes(run),
        "metric_titles": [METRIC_TITLES[name] for name in METRIC_NAMES],
        "headline": split_title(run.headline),
        "headline_split": run.headline_split,
        "comparison_titles": [METRIC_TITLES[name] for name in COMPARED],
        "comparison_rows": [asdict(row) for row in comparison_rows(run, COMPARED)],
        "split_rows": [asdict(row) for row in split_rows(run)],
        "has_metadata_ridge": run.headline in run.baselines.get(METADATA_RIDGE, {}),
        "has_nearest_photo": run.headline in run.baselines.get(NEAREST, {}),
        "run_notes": run_notes(run),
        "has_training_cv": "training_cv" in run.scores,
        "has_intervals": any(scores.ci95 for scores in run.scores.values()),
        "scale_sentence": scale_sentence(run),
        "mos_rows": mos_rows(run),
        "has_exclusive": bool((run.predictions["subset"] == "exclusive").any()),
        "share_sentence": share_sentence(run),
        "band_rows": bands,
        "member_rows": member_rows(run),
        "n_members": n_members,
        "is_uniform": run.regression.get("combine") == "uniform",
        "select_by": run.select_by.upper(),
        "cv_parameter": short_parameter(parameter) if parameter else "",
        "grid_end_members": grid_end_members(run, parameter) if parameter else [],
        "misses": worst_misses(run),
        "n_failures": n_failures,
        "failures_title": plural(n_failures, "failure") + _share_of_listed(run, n_failures),
        "failure_rows": failure_rows(run),
        "failure_summary": failure_summary(run),
        "cost_sentence": cost_sentence(run),
        "pass_rows": pass_rows(run),
        "time_rows": time_rows(run),
        "licence_rows": licence_rows(run),
        "recipe_text": run.recipe_text,
        "feature_digests": [
            (spell_value(row.get("band")), spell_value(row.get("digest")))
            for row in run.rows("features")
            if row.get("digest")
        ],
        "provenance": provenance(run),
    }
