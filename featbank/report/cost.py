"""Collects what a run costs: multiply-accumulates by pass against the budget, and measured time."""

from __future__ import annotations

import math
from collections.abc import Mapping

from featbank.report.sections import flattened, spell_value
from featbank.report.wording import duration, number, percent, plural
from featbank.runs.data import RunData, as_float


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
