"""What a protocol gives, and the folder it is written into: CSV, figure, page, receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from featbank.atomic import replacing_folder
from featbank.runs.evaluate import FLOAT_FORMAT
from featbank.runs.folder import PROTOCOL, RECEIPT, write_json
from featbank.runs.receipt import build_receipt

if TYPE_CHECKING:
    from featbank.bank import Bank
    from featbank.protocols.preparation import Material

OUTCOME = "protocol.json"
SCORES = "scores.csv"


@dataclass(frozen=True)
class Outcome:
    """The result of one protocol.

    Attributes
    ----------
    kind : str
        ``repeated``, ``cross`` or ``curve``.
    title, sentence : str
        For people.
    settings : dict
        What was asked, JSON-able.
    scores : DataFrame
        Every fit, or every predictor.
    summary : DataFrame or None
        As `regressors.evaluation.repeated.summarise_scores` gives it.
    notes : tuple of str
        What a reader has to know.
    predictions : DataFrame or None
        By image, for a single fit.
    """

    kind: str
    title: str
    sentence: str
    settings: dict[str, Any]
    scores: pd.DataFrame
    summary: pd.DataFrame | None
    notes: tuple[str, ...]
    predictions: pd.DataFrame | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what ``protocol.json`` holds."""
        frame = self.scores if self.summary is None else self.summary
        return {
            "protocol": self.kind,
            "sentence": self.sentence,
            "settings": self.settings,
            "summary": json_rows(frame),
            "notes": list(self.notes),
        }


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a frame into JSON-able rows, undefined numbers into null."""
    return [
        {
            key: None if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def write_outcome(
    outcome: Outcome,
    materials: list[Material],
    bank: Bank,
    out: Path,
    *,
    write_page: Callable[[Outcome, Path, str, bool], object],
    durations: dict[str, float],
    started: datetime,
) -> Path:
    """Write the folder of a protocol; an earlier one there is replaced as a whole.

    Parameters
    ----------
    outcome : Outcome
    materials : list of Material
        Datasets behind it; the receipt describes the first, and the others under ``also``.
    bank : Bank
    out : Path
    write_page : callable
        Takes the outcome, the folder, the recipe's title, and whether it is a simulation.
    durations : dict of str to float
        Seconds.
    started : datetime

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If ``out`` cannot be written.
    """
    first = materials[0]
    receipts = [
        build_receipt(
            material.recipe,
            material.table,
            material.rows,
            material.bands,
            bank.root,
            {
                "protocol": outcome.settings,
                "durations": durations,
                "started": started.astimezone(UTC).isoformat(timespec="seconds"),
                "notes": [*material.notes, *outcome.notes],
            },
        )
        for material in materials
    ]
    with replacing_folder(out, PROTOCOL, "protocol --out") as folder:
        write_json(folder / OUTCOME, outcome.as_json())
        write_json(folder / RECEIPT, receipts[0] | {"also": [receipt["dataset"] for receipt in receipts[1:]]})
        outcome.scores.to_csv(folder / SCORES, index=False, float_format=FLOAT_FORMAT)
        if outcome.summary is not None:
            outcome.summary.to_csv(folder / "summary.csv", index=False, float_format=FLOAT_FORMAT)
        if outcome.predictions is not None:
            outcome.predictions.to_csv(folder / "predictions.csv", index=False, float_format=FLOAT_FORMAT)
        (folder / "recipe.toml").write_text(first.recipe.to_toml(), encoding="utf-8")
        write_page(outcome, folder, first.recipe.title, any(m.table.is_simulation for m in materials))
    return out / "protocol.html"
