"""Collects what each section of the page lists: misses, members, cost, licences, failures, provenance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featbank.report.model_figures import (
    INTERCEPT,
    band_shares,
    cv_curves,
    member_weights,
    share_title,
    short_parameter,
)
from featbank.report.thumbnails import Thumbnail, make_thumbnail
from featbank.report.wording import MINUS, count, decimals_for, fixed, number, percent, sentence_case
from featbank.runs.data import SPLITS, RunData, as_float, mos_groups

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


@dataclass(frozen=True)
class Miss:
    """One image that the run misjudged, spelled; ``error`` is predicted minus MOS."""

    image: str
    subset: str
    mos: str
    predicted: str
    error: str
    direction: str
    thumbnail: Thumbnail


def worst_misses(run: RunData, photos: Mapping[str, str | Path] | None) -> list[Miss]:
    """Images of the headline split with the greatest absolute error, greatest first."""
    frame = run.scored(run.headline_split)
    error = frame["predicted"] - frame["mos"]
    # The name breaks ties, so the page does not depend on the order of rows.
    order = frame.assign(_error=error, _size=error.abs()).sort_values(
        ["_size", "image"], ascending=[False, True]
    )
    worst = order.head(MAX_MISSES)
    decimals = decimals_for(worst["_size"].tolist())
    misses = []
    for row in worst.to_dict("records"):
        path = photos.get(str(row["image"])) if photos is not None else None
        misses.append(
            Miss(
                image=str(row["image"]),
                subset=str(row["subset"]),
                mos=fixed(row["mos"], decimals),
                predicted=fixed(row["predicted"], decimals),
                error=("+" if row["_error"] >= 0 else MINUS) + fixed(abs(row["_error"]), decimals),
                direction="rated too high" if row["_error"] >= 0 else "rated too low",
                thumbnail=make_thumbnail(path),
            )
        )
    return misses


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
