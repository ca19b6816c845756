"""Judges a table of predictions, whoever made them, by the metrics, intervals and checks of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.datasets import SPLITS, SUBSETS, read_mos, read_own_table
from featbank.datasets.image_table import SPLIT_WORDS
from featbank.errors import DatasetError
from featbank.remote import Place
from featbank.runs import trust
from featbank.runs.evaluate import as_written, judge, score_baselines
from featbank.runs.split import name_groups, split_names
from featbank.runs.trust import ALARM, CAUTION, OK, Finding

_IMAGES: Final = ("path", "image", "image_name", "filename", "file", "")

TURNED: Final = -0.3
"""SRCC from which predictions are called turned round: no skill stays nearer to zero."""


def evaluate_file(
    file: str | Place,
    columns: Mapping[str, str] | None = None,
    mos: str = "",
    encoding: str = "",
) -> dict[str, Any]:
    """Judge a table of predictions.

    Parameters
    ----------
    file : str, Path or RemotePath
        A table of any kind that datasets may have, with the columns ``mos`` (or ``dmos``, which is turned) and
        ``predicted``, and, if known, ``image``, ``split``, ``subset`` and ``group``.
    columns, mos, encoding
        As of `featbank.datasets.read_dataset`; ``predicted`` may be chosen, too.

    Returns
    -------
    dict
        ``file``; ``metrics`` by part (``training``, ``test``, ``test/exclusive``, ..., ``all`` without a split), as in
        ``metrics.json``; ``findings``, as in ``trust.json``; ``n`` and ``left_out`` rows; ``notes``, sentences.

    Raises
    ------
    DatasetError
        If a column is missing or holds something else, an image has several rows, or fewer than two rows have both
        MOS and prediction.

    Examples
    --------
    >>> evaluate_file("runs/starter/predictions.csv")["metrics"]["test"]["srcc"]  # doctest: +SKIP
    """
    rows, notes = _read(file, columns, mos, encoding)
    known = np.isfinite(rows["mos"]) & np.isfinite(rows["predicted"])
    n_left_out = int((~known).sum())
    if n_left_out:
        notes.append(f"{n_left_out:,} of {len(rows):,} rows without MOS or prediction are passed over.")
    rows = rows[known]
    if len(rows) < 2:
        raise DatasetError(
            f"evaluate: {file} has {len(rows)} rows with MOS and prediction, expected at least 2."
        )
    predicted = rows["predicted"].to_numpy()
    parts = _parts(rows)
    metrics = {
        part: judge(
            rows["mos"].to_numpy()[mask], predicted[mask], groups=rows["group"][mask], with_intervals=True
        )
        for part, mask in parts.items()
        if mask.sum() >= 2
    }
    if "training" in metrics:
        notes.append(
            "Rows of the split training are judged as they stand: in a run's predictions.csv they are out of fold."
        )
    findings = _examine(rows, predicted, metrics)
    return {
        "file": str(file),
        "n": len(rows),
        "left_out": n_left_out,
        "metrics": metrics,
        "findings": [asdict(finding) for finding in findings],
        "notes": notes,
    }


def _read(
    file: str | Place, columns: Mapping[str, str] | None, mos: str, encoding: str
) -> tuple[pd.DataFrame, list[str]]:
    """Read the columns that count, values as `as_written` gives them, and what is to be said of them."""
    table = read_own_table(file, columns=columns, mos=mos, encoding=encoding, further=("predicted",))
    if "predicted" not in table.columns or not {"mos", "dmos"} & table.columns.keys():
        raise DatasetError(
            f"evaluate: {file} needs the columns 'mos' (or 'dmos') and 'predicted', its columns are "
            f"{', '.join(map(repr, list(table.columns)[:20]))}. Name them with --columns mos=NAME,predicted=NAME."
        )
    notes: list[str] = []
    image = next((name for name in _IMAGES if name in table.columns), None)
    if image is None:
        notes.append("No column names the images: each row is an image of its own.")
    empty = [""] * len(table)
    frame = pd.DataFrame(
        {
            "image": [str(line) for line in table.lines] if image is None else table.unique(image),
            "mos": as_written(read_mos(table, notes)),
            "predicted": as_written(table.numbers("predicted")),
            "split": table.words("split", SPLITS, SPLIT_WORDS) if "split" in table.columns else empty,
            "subset": table.words("subset", SUBSETS) if "subset" in table.columns else empty,
            "group": table.columns.get("group", empty),
        }
    )
    if not any(frame["group"]):
        notes.append("No column 'group': intervals take every image as independent of the others.")
    frame["group"] = name_groups(frame["group"], frame["image"])
    is_open = frame["split"] == ""
    frame.loc[is_open, "split"] = "all" if is_open.all() else "no split"
    return frame, [*table.notes(), *notes]


def _parts(rows: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Return the mask of each part: training, the judged splits with their subsets, and what has no split."""
    others = {name: (rows["split"] == name).to_numpy() for name in ("training", "all", "no split")}
    parts = {"training": others.pop("training"), **split_names(rows), **others}
    return {part: mask for part, mask in parts.items() if mask.any()}


def _examine(
    rows: pd.DataFrame, predicted: NDArray[np.float64], metrics: dict[str, dict[str, Any]]
) -> list[Finding]:
    """Run every check that needs no features."""
    findings = [_check_agreement_with_mos(metrics)]
    is_training = (rows["split"] == "training").to_numpy()
    training, judged, on_judged = rows[is_training], rows[~is_training], predicted[~is_training]
    if len(judged):
        findings.append(trust.check_range(judged, on_judged))
    if len(training) and len(judged):
        shared = trust.check_groups(training, judged, on_judged)
        # Whether the split is a published one, whose groups are what they are, a table does not say.
        findings.append(replace(shared, level=CAUTION) if shared.level == ALARM else shared)
        constant = float(training["mos"].mean())
        floor = score_baselines(judged, {"constant": np.full(len(judged), constant)})
        known = {**metrics, "baselines": floor}
        findings.append(trust.check_skill(known, judged, on_judged, constant))
        y, held_out = training["mos"].to_numpy(), predicted[is_training]
        findings.append(trust.check_scale(y, held_out, on_judged))
    elif trust.is_off_scale(rows["mos"].to_numpy(), predicted).any():
        findings.append(
            Finding(
                "predictions off the scale",
                CAUTION,
                "Predictions lie far outside the range of the MOS: the scales differ, so MAE and RMSE say nothing. "
                "Ranks, PLCC, and both after the logistic map do not depend on the scale.",
                {"low": float(predicted.min()), "high": float(predicted.max())},
            )
        )
    return findings


def _check_agreement_with_mos(metrics: dict[str, dict[str, Any]]) -> Finding:
    """Look for predictions too good to be any, and for those of the wrong sign."""
    scores = {
        part: values["srcc"]
        for part, values in metrics.items()
        if values["n"] >= trust.MIN_ROWS and values["srcc"] is not None
    }
    too_good = [f"{part} {v:.4f}" for part, v in scores.items() if v > trust.IMPLAUSIBLE_HELD_OUT]
    turned = [f"{part} {v:.3f}" for part, v in scores.items() if v < TURNED]
    level, sentence = OK, "Predictions rank the images neither better than raters agree nor backwards."
    if too_good:
        level = ALARM
        sentence = (
            f"SRCC {', '.join(too_good)} is more than raters agree with each other: the predictions are the MOS, were "
            "made from it, or are those of images that the model was taught."
        )
    elif turned:
        level = ALARM
        sentence = (
            f"Predictions fall as the MOS rises (SRCC {', '.join(turned)}): one of the two is a DMOS, or a distance. "
            "Name a DMOS by --columns dmos=NAME, or turn the predictions."
        )
    return Finding("agreement with the MOS", level, sentence, {"srcc": scores})
