"""Scores new photographs with a fitted run's model, computing only the features that the model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.runs.folder import MODEL
from experiments.runs.intervals import HIGH, LOW, with_interval
from experiments.runs.model import load_run_model
from featbank.bank import Bank
from featbank.datasets import read_photos
from featbank.encoders import check_weights, has_random_weights
from featbank.errors import RunError
from featbank.extract import FeatureRequest, extract
from featbank.table import build_table, resolve_band
from regressors.evaluation.intervals import ConformalInterval

COLUMNS = ["image", "predicted", LOW, HIGH, "spread", "reason"]


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
        interval; nan for a model without one), ``spread`` (standard deviation over the members), ``reason``
        (empty, or why there is no prediction). ``attrs["simulation"]`` says whether the model learned from
        rendered photos, ``attrs["random_weights"]`` names the bands of random weights, ``attrs["notes"]`` the files
        that were left out.

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
    random_bands = [entry["name"] for entry in manifest["bands"] if has_random_weights(entry["encoder"])]
    marks = {
        "simulation": bool(manifest["simulation"]),
        "random_weights": random_bands,
        "notes": list(table.notes),
    }
    result["reason"] = [reasons.get(image_id, "") for image_id in result["image"]]
    if readable.empty:
        result = result.assign(predicted=np.nan, spread=np.nan, **{LOW: np.nan, HIGH: np.nan})[COLUMNS]
        result.attrs.update(marks)
        return result
    features = build_table(replace(table, frame=readable), bands, bank, "featbank score")
    for row in features.left_out.itertuples():
        result.loc[result["image"] == row.image, "reason"] = f"{row.reason}: {row.message}"
    members = ensemble.predict_members(features.X)
    scored = pd.DataFrame(
        {"predicted": ensemble.predict(features.X), "spread": members.std(axis=1, ddof=0).to_numpy()},
        index=features.X.index,
    )
    calibrated = manifest.get("interval")
    interval = None if calibrated is None else ConformalInterval(**calibrated)
    result = with_interval(result.join(scored, on="image"), interval)[COLUMNS]
    result.attrs.update(marks)
    return result
