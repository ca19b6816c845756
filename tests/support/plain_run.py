"""Writes the three files of a run folder that carry its numbers, from given rows; the numbers are true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from featbank.runs.evaluate import FLOAT_FORMAT
from featbank.runs.folder import write_json
from featbank.runs.trust import recomputed_scores


def write_plain_run(folder: Path, rows: pd.DataFrame, **changes: Any) -> Path:
    """Write ``predictions.csv``, ``metrics.json`` and ``receipt.json``.

    ``rows``: ``image, split, subset, mos, predicted``. ``changes``: ``gmacs``, ``dataset``, ``simulation``,
    ``title``, ``params_m``, ``seconds``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = [name for name in ("image", "split", "subset", "group", "mos", "predicted") if name in rows]
    rows[named].to_csv(folder / "predictions.csv", index=False, float_format=FLOAT_FORMAT)
    gmacs, simulation = changes.get("gmacs", 1.0), changes.get("simulation", False)
    metrics = recomputed_scores(rows) | {
        "gmacs": gmacs or 0.0,
        "params_m": changes.get("params_m", 2.0),
        "budget_gmacs": 50.0,
        "simulation": simulation,
    }
    write_json(folder / "metrics.json", metrics)
    receipt = {
        "recipe": {"title": changes.get("title", folder.name), "text": ""},
        "dataset": {"name": changes.get("dataset", "uhd-iqa"), "path": "gone", "simulation": simulation},
        "features": [{"band": "a", "encoder": "classic:nss", "view": "native", "gmacs": gmacs}],
        "passes": [{"pass": "classic:nss@native", "bands": ["a"], "gmacs": gmacs, "params_m": 0.0}],
        "seconds_per_photo": changes.get("seconds", {"decode": 0.1, "classic:nss@native": 0.2}),
        "durations": {"fit_s": 1.0},
        "fitted_on": {"split": "training", "n": int((rows["split"] == "training").sum())},
        "notes": [],
    }
    write_json(folder / "receipt.json", receipt)
    return folder
