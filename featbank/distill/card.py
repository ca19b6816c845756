"""Writes the model card of a distilled student: what it is, how it was made, how it compares, what to mind."""

from __future__ import annotations

from typing import Any

SIMULATION = "Teacher and photographs are a simulation: these figures prove nothing about real photos."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_card(result: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    result : dict
        What `featbank.distill.distill.distill` returns.
    """
    plan = result["plan"]
    lines = [
        f"# {result['encoder']}",
        "",
        f"A student of the run `{result['teacher']}`: {plan['architecture']} with the stem `{plan['stem']}`"
        + (" and natural-scene statistics in the graph" if plan["statistics"] else "")
        + f", view `{plan['view']}`, {plan['n_embedding']} features.",
        "",
        "| rows | learned from | photos | SRCC student to teacher | SRCC student to MOS | SRCC teacher to MOS |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['rows']} | {'yes' if row['learned'] else 'no'} | {row['n']} | {_number(row['srcc_teacher'])} "
        f"[{_number(row['interval'][0])}, {_number(row['interval'][1])}] | {_number(row['srcc_mos'])} | "
        f"{_number(row['srcc_mos_teacher'])} |"
        for row in result["agreement"]
    ]
    ratio = result["seconds_teacher"] / result["seconds_student"]
    lines += [
        "",
        "Only photographs that were not learned from say how well the student does. Its scores are read off the "
        f"exported encoder's vectors by a ridge (penalty {result['alpha']:g}, chosen by folds of the photographs "
        "learned from). Intervals are 95 %, by resampled groups.",
        "",
        "| | student | teacher |",
        "|---|---|---|",
        f"| GMACs per UHD photo | {result['gmacs']:.3f} | {result['gmacs_teacher']:.3f} |",
        f"| seconds per photo | {result['seconds_student']:.3f} | {result['seconds_teacher']:.3f} |",
        f"| of which decoding | {result['seconds_decode']:.3f} | {result['seconds_decode']:.3f} |",
        f"| parameters | {result['params_m']:.3f} M | |",
        "",
        f"The teacher takes {ratio:.1f} times as long, decoding included. Learned from {result['n_learned']} "
        f"photographs, in {plan['n_steps']} steps on crops and {plan['settle_steps']} on whole photographs "
        f"({result['train_s']:.0f} s), matching {result['components']} principal components of the teacher's features "
        f"({100 * result['explained']:.0f} % of their variance) and its score by MSE.",
        "",
        "Use it only where the teacher's own terms and those of the photographs allow it.",
    ]
    if result["simulation"]:
        lines += ["", SIMULATION]
    return "\n".join(lines) + "\n"
