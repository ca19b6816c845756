"""Writes the model card of a distilled student: what it is, how it was made, how it compares, what to mind."""

from __future__ import annotations

from typing import Any

SIMULATION = "Teacher and photographs are a simulation: these figures prove nothing about real photos."


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def write_card(result: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    result : dict
        What `experiments.students.distill.distill` returns.
    """
    plan = result["plan"]
    lines = [
        f"# {result['encoder']}",
        "",
        f"A student of the run `{result['teacher']}`: {plan['architecture']} with the stem `{plan['stem']}`, view "
        f"`{plan['view']}`, {plan['n_embedding']} features.",
        "",
        "| rows | photos | SRCC student to teacher | SRCC student to MOS | SRCC teacher to MOS |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['rows']} | {row['n']} | {_number(row['srcc_teacher'])} | {_number(row['srcc_mos'])} | "
        f"{_number(row['srcc_mos_teacher'])} |"
        for row in result["agreement"]
    ]
    ratio = result["seconds_teacher"] / result["seconds_student"]
    lines += [
        "",
        "Training photographs are among those learned from: only the other rows say how well the student generalises.",
        "",
        "| | student | teacher |",
        "|---|---|---|",
        f"| GMACs per UHD photo | {result['gmacs']:.3f} | {result['gmacs_teacher']:.3f} |",
        f"| seconds per photo, decoding included | {result['seconds_student']:.3f} | {result['seconds_teacher']:.3f} |",
        f"| parameters | {result['params_m']:.3f} M | |",
        "",
        f"The teacher takes {ratio:.1f} times as long. Learned from {result['n_learned']} photographs in "
        f"{plan['n_steps']} steps ({result['train_s']:.0f} s), matching {result['components']} principal components of "
        f"the teacher's features ({100 * result['explained']:.0f} % of their variance) and its score by MSE.",
        "",
        "Use it only where the teacher's own terms and those of the photographs allow it.",
    ]
    if result["simulation"]:
        lines += ["", SIMULATION]
    return "\n".join(lines) + "\n"
