"""Spells the trust checks and the coverage of the intervals for the page; one check is made anew each time."""

from __future__ import annotations

from featbank.report.wording import count, number, percent, split_title
from featbank.runs.consistency import disagreements
from featbank.runs.data import RunData
from featbank.runs.trust import ALARM, CAUTION, check_agreement

LEVEL_TITLES = {"ok": "passed", CAUTION: "caution", ALARM: "ALARM"}

_ORDER = {ALARM: 0, CAUTION: 1}


def trust_rows(run: RunData) -> list[dict[str, str]]:
    """List every check, alarms first; whether metrics follow from predictions is tried on the files as they are."""
    again = check_agreement(disagreements(run))
    findings = [finding for finding in run.findings if finding.get("check") != again.check]
    every = [*findings, again.as_json()]
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
