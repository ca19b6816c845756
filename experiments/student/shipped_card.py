"""Writes the model card of a shipped student from the files of its making: plan, set, and what the judge found."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from experiments.student.distortions import CHAINS, DISTORTIONS, HELD_OUT_CHAINS, N_LEVELS
from experiments.student.shipped import ShippedPlan
from experiments.student.weak_set import JUDGE, TRAINED_MEASURES
from featbank.distill.network import StudentNetwork

SCORES, DIFFERENCES, CURVE = "judged.csv", "differences.csv", "curve.csv"


def write_shipped_card(name: str, view: str, network: StudentNetwork, plan: ShippedPlan, work: Path) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    name : str
        Of the encoder.
    view : str
        The view that it is meant for.
    network : StudentNetwork
        The student.
    plan : ShippedPlan
        How its trunk was trained.
    work : Path
        Folder of the steps before: the set, and the judge's tables.

    Raises
    ------
    OSError
        If one of these files is missing.
    """
    made = json.loads((work / "set" / "plan.json").read_text(encoding="utf-8"))
    scores, differences, curve = (pd.read_csv(work / file) for file in (SCORES, DIFFERENCES, CURVE))
    kinds = [kind for kind in (*DISTORTIONS, *CHAINS) if kind in scores]
    columns = [name for name in ("features", "readout", "srcc", "held_out_chains") if name in scores]
    gain = differences[(differences["first"] == "nss") & (differences["second"] == "nss+student")]
    lines = [
        f"# {name}",
        "",
        f"{network.architecture} with the stem `{network.stem_kind}`, {network.n_features} features, for the view "
        f"`{view}`. {_parts(network)}"
        "Weights and graph are Apache-2.0, as the package; `python -m experiments.student` made them, from scratch.",
        "",
        f"It was made with {made['photographs']} photographs (19 wallpapers of 3840 pixels under CC0, the others web "
        f"pictures of about 500 pixels, one object each); {100 * plan.held_out:.0f} % of them, by name, were held out. "
        "They were shrunk, cut to patches and put through "
        f"{len(DISTORTIONS)} kinds of distortion and {len(CHAINS) - len(HELD_OUT_CHAINS)} chains of them at "
        f"{N_LEVELS} levels. Nobody rated them: the targets are {', '.join(TRAINED_MEASURES)}, which compare each "
        "with its flawless patch, the order of versions of one patch, the kind, and natural-scene statistics. "
        "No photograph is part of this package.",
        "",
        f"Judged by {JUDGE}, which it never saw, on the photographs held out; "
        "readouts are fitted on one half of them and predict the other. SRCC; the last "
        f"column on the chains {' and '.join(HELD_OUT_CHAINS)} alone, which it never met.",
        "",
        *_table(scores[columns]),
        "",
        "What it adds to natural-scene statistics, with 95 % intervals (photographs drawn with replacement):",
        "",
        *[
            f"- {row.readout}: {-row.difference:+.3f} [{-row.high:+.3f}, {-row.low:+.3f}]"
            for row in gain.itertuples()
        ],
        "",
        "By kind, ridge:",
        "",
        *_table(
            scores[scores["readout"] == "ridge"]
            .set_index("features")[kinds]
            .T.rename_axis("kind")
            .reset_index()
        ),
        "",
        "Fitted on few pictures (ridge on 16 principal components, mean and deviation over draws):",
        "",
        *_table(curve),
        "",
        "These are full-reference measures of artificial distortions, not opinions of people; on real photographs "
        "with opinions it has not been tried here. Give it weight in an ensemble only as far as held-out ratings "
        "ask for it.",
    ]
    return "\n".join(lines) + "\n"


def _parts(network: StudentNetwork) -> str:
    """Say what the features are where they are not all read off the trunk."""
    if network.mixer is None or network.statistics is None:
        return ""
    return (
        f"Of these, {network.statistics.count()} are statistics of neighbouring pixels, blocks and colours, computed "
        f"in the same graph; {network.n_embedding} are a mixture of them and of what is read off the trunk, through "
        f"a hidden layer of {network.mixer.n_mixed} units, which learned with the trunk at rest; the last "
        f"{network.mixer.n_read} are what it learned to tell: the measures below, each over all kinds of distortion "
        "and within each kind, and the kind. "
    )


def _table(frame: pd.DataFrame) -> list[str]:
    rows = [
        [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in frame.itertuples(index=False)
    ]
    head = [str(column) for column in frame.columns]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
