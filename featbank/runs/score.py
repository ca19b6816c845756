"""Scores new photographs with a fitted run's model, computing only the features that the model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from featbank.bank import Bank
from featbank.datasets import read_photos
from featbank.encoders import check_weights, has_random_weights
from featbank.errors import RunError, first_few
from featbank.extract import FeatureRequest, extract
from featbank.runs.model import HIGH, LOW, MODEL, load_novelty, load_run_model, with_interval
from featbank.table import build_table, resolve_band
from regressors.evaluation.intervals import ConformalInterval

COLUMNS = [
    *(
        "image",
        "predicted",
        LOW,
        HIGH,
        "spread",
        "unlike_training",
        "distance",
        "off_scale",
        "simulation",
        "reason",
    )
]
_HEADER = ",".join(COLUMNS[:5])


def is_table_of_scores(path: Path) -> bool:
    """Tell by its first columns whether a file is a table that `score_paths` gave."""
    with path.open("rb") as file:
        return file.readline(1000).decode("utf-8", errors="replace").startswith(_HEADER)


def score_paths(model: Path, paths: Sequence[str], bank: Bank, *, workers: int | None = None) -> pd.DataFrame:
    """Predict the MOS of files and of everything in folders.

    Parameters
    ----------
    model : Path
        ``model.skops``, or the run folder that holds it.
    paths : sequence of str
        Image files and folders; folders are searched as a whole.
    bank : Bank
        Where features are looked up and kept.
    workers : int or None
        Processes; None takes one for each processor.

    Returns
    -------
    DataFrame
        One row for each image: ``image`` (below the folder, or the path as given), ``predicted`` (MOS on the
        scale of the model's training data), ``predicted_low`` and ``predicted_high`` (ends of its conformal
        interval; nan for a model without one, and for photos unlike the training photos), ``spread`` (standard
        deviation over the members), ``unlike_training`` (bool, None where unknown) and ``distance`` behind it (above 1:
        farther from the training photos than all but one in fifty of these are from the others), ``off_scale`` (empty,
        ``below`` or ``above`` the MOS scale of the training data), ``simulation`` (whether the model learned from
        rendered photos), ``reason`` (empty, or why there is no prediction). ``attrs`` holds ``simulation``,
        ``mos_range``, ``random_weights`` (names of the bands) and ``notes`` (sentences: files left out, photos marked).

    Raises
    ------
    RunError
        If the model needs features that cannot be computed from images, or features that this version
        would compute differently.
    DatasetNotFoundError
        If a path does not exist or no image is found.
    """
    ensemble, manifest = load_run_model(model / MODEL if model.is_dir() else model)
    check_weights(e["encoder"] for e in manifest["bands"] if not e["encoder"].startswith("imported:"))
    bands = []
    for entry in manifest["bands"]:
        if entry["encoder"].startswith("imported:"):
            raise RunError(
                f"score: the model needs the imported band {entry['name']!r}, which featbank cannot compute from "
                "photos. Fit a recipe of computed bands to score new photos."
            )
        band = resolve_band(bank, None, entry["name"], entry["encoder"], entry["view"], entry["aggregate"])
        if band.folder.digest != entry["digest"]:
            raise RunError(
                f"score: band {band.name!r} ({band.folder.label}) would be computed differently than when the model "
                f"was fitted (feature digest {band.folder.digest[:12]} here, {entry['digest'][:12]} in the model); its "
                "predictions would be wrong without a sign. Fit the recipe again with this version."
            )
        bands.append(band)
    table = read_photos(paths)
    requests = [FeatureRequest(band.encoder, band.view, band.aggregate) for band in bands]
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    summary = extract(images, requests, bank, workers=workers, show_progress=True)
    reasons = {failure["image"]: f"{failure['reason']}: {failure['message']}" for failure in summary.failures}
    readable = table.frame[~table.frame["image_id"].isin(list(reasons))]
    result = pd.DataFrame({"image": table.frame["image_id"]})
    result["reason"] = [reasons.get(image_id, "") for image_id in result["image"]]
    scored = pd.DataFrame(columns=["predicted", "spread", "distance"], dtype=np.float64)
    novelty = load_novelty(manifest, ensemble)
    if len(readable):
        features = build_table(replace(table, frame=readable), bands, bank, "featbank score")
        for row in features.left_out.itertuples():
            result.loc[result["image"] == row.image, "reason"] = f"{row.reason}: {row.message}"
        scored = pd.DataFrame(
            {
                "predicted": ensemble.predict(features.X),
                "spread": ensemble.predict_members(features.X).std(axis=1, ddof=0).to_numpy(),
                "distance": np.nan if novelty is None else novelty.distance(features.X),
            },
            index=features.X.index,
        )
    calibrated = manifest.get("interval")
    interval = None if calibrated is None else ConformalInterval(**calibrated)
    result = with_interval(result.join(scored, on="image"), interval)
    unlike = result["distance"] > 1
    # What the interval promises holds for photos like those of its calibration, and for no others.
    result.loc[unlike, [LOW, HIGH]] = np.nan
    result["unlike_training"] = unlike.astype(object).where(result["distance"].notna(), None)
    low, high = manifest["mos_range"]
    predicted = result["predicted"]
    result["off_scale"] = np.select([predicted < low, predicted > high], ["below", "above"], "")
    result["simulation"] = bool(manifest["simulation"])
    result = result[COLUMNS]
    result.attrs["simulation"] = bool(manifest["simulation"])
    result.attrs["mos_range"] = [low, high]
    result.attrs["random_weights"] = [
        entry["name"] for entry in manifest["bands"] if has_random_weights(entry["encoder"])
    ]
    result.attrs["notes"] = [*table.notes, *_marks(result, low, high, has_novelty=novelty is not None)]
    return result


def _marks(scores: pd.DataFrame, low: float, high: float, *, has_novelty: bool) -> list[str]:
    """Count what is marked, in sentences."""
    notes = []
    unlike = scores.loc[scores["unlike_training"] == True, "image"]  # noqa: E712 - None where it is unknown
    if len(unlike):
        notes.append(
            f"{len(unlike):,} of {len(scores):,} photos are unlike the training photos: {first_few(unlike.tolist())}. "
            "Their scores are extrapolations and have no interval."
        )
    off_scale = scores[scores["off_scale"] != ""]
    if len(off_scale):
        pairs = [f"{row.image} {row.off_scale}" for row in off_scale.itertuples()]
        notes.append(f"{len(pairs):,} scores left the MOS scale {low:g} to {high:g}: {first_few(pairs)}.")
    if not has_novelty:
        notes.append(
            "The model cannot tell photos unlike its training photos: it is of an earlier version, or had too few of "
            "them."
        )
    return notes
