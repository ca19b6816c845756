"""Scores new photographs with a fitted run's model, computing only the features that the model needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.bank import Bank
from featbank.datasets import ImageTable, read_photos
from featbank.digest import digest_json
from featbank.encoders import check_weights, has_random_weights
from featbank.errors import ImageError, RunError, first_few
from featbank.extract import FeatureRequest, extract
from featbank.feature import Feature, compute_features, make_feature
from featbank.images import Source, read_photo
from featbank.runs.model import HIGH, LOW, MODEL, load_novelty, load_run_model, with_interval
from featbank.table import build_table, resolve_band
from regressors.ensemble import BandEnsemble
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
_MISSING = "missing: no file of that name, or it cannot be read"

BATCH = 64
"""Images that are scored together where scores are given as they come."""


def is_table_of_scores(path: Path) -> bool:
    """Tell by its first columns whether a file is a table that `score_paths` gave."""
    with path.open("rb") as file:
        return file.readline(1000).decode("utf-8", errors="replace").startswith(_HEADER)


def json_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table of scores for JSON, which has no nan."""
    return [
        {key: None if value != value else value for key, value in row.items()}
        for row in scores.to_dict("records")
    ]


class Scorer:
    """A fitted model in memory: predicts the MOS of images that are files, bytes, arrays or images of Pillow.

    Everything is loaded once, and nothing is written: no bank is read or filled. Several threads may score at once.

    Parameters
    ----------
    ensemble : BandEnsemble
        Fitted.
    manifest : mapping of str to object
        Of its model file.

    Raises
    ------
    RunError
        If the model needs features that cannot be computed from images, or that this version would compute
        differently.
    EncoderError
        If weights are missing.

    Examples
    --------
    >>> scorer = Scorer.load("runs/starter")  # doctest: +SKIP
    >>> scorer.score(["a.jpg", numpy_pixels, pillow_image, request.body])["predicted"]  # doctest: +SKIP
    """

    def __init__(self, ensemble: BandEnsemble, manifest: Mapping[str, Any]) -> None:
        entries = manifest["bands"]
        check_weights(e["encoder"] for e in entries if not e["encoder"].startswith("imported:"))
        features = []
        for entry in entries:
            if entry["encoder"].startswith("imported:"):
                raise RunError(
                    f"score: the model needs the imported band {entry['name']!r}, which featbank cannot compute from "
                    "photos. Fit a recipe of computed bands to score new photos."
                )
            feature = make_feature(entry["encoder"], entry["view"], entry["aggregate"])
            # Whole photos have the same features whether damaged ones are kept or not.
            digests = [digest_json(feature.identity_with(keep)) for keep in (False, True)]
            if entry["digest"] not in digests:
                raise RunError(
                    f"score: band {entry['name']!r} ({feature.label}) would be computed differently than when the "
                    f"model was fitted (feature digest {digests[0][:12]} here, {entry['digest'][:12]} in the model); "
                    "its predictions would be wrong without a sign. Fit the recipe again with this version."
                )
            features.append(feature)
        self.ensemble = ensemble
        self.manifest = manifest
        self.features: list[Feature] = features
        self._novelty = load_novelty(manifest, ensemble)
        calibrated = manifest.get("interval")
        self._interval = None if calibrated is None else ConformalInterval(**calibrated)

    @classmethod
    def load(cls, model: str | Path) -> Scorer:
        """Load ``model.skops``, or the one of a run folder.

        Raises
        ------
        RunError
            If there is no such file, or it is damaged, untrusted, or not a featbank model.
        """
        path = Path(model).expanduser()
        return cls(*load_run_model(path / MODEL if path.is_dir() else path))

    def score(self, images: Iterable[Source]) -> pd.DataFrame:
        """Predict the MOS of images.

        Parameters
        ----------
        images : iterable of str, Path, bytes, uint8 array or PIL.Image.Image
            As `featbank.images.read_photo` takes them.

        Returns
        -------
        DataFrame
            As `score_paths` gives it; ``image`` is the path, or the place in the sequence, from 0. An image that cannot
            be read has a row with the reason.
        """
        names: list[str] = []
        reasons: list[str] = []
        vectors: dict[int, NDArray[np.float32]] = {}
        for place, image in enumerate([images] if isinstance(images, str | bytes | Path) else images):
            name = str(image) if isinstance(image, str | Path) else str(place)
            names.append(name)
            try:
                computed, _ = compute_features(self.features, read_photo(image))
            except ImageError as error:
                reasons.append(f"{error.reason}: {error}")
                continue
            found = [vector for vector in computed if isinstance(vector, np.ndarray)]
            failed = [str(error) or "out of memory" for error in computed if isinstance(error, Exception)]
            reasons.append(failed[0] if failed else "")
            if not failed:
                vectors[place] = np.concatenate(found)
        result = pd.DataFrame({"image": names, "reason": reasons})
        columns = list(self.ensemble.feature_names_in_)
        values = np.array(list(vectors.values()), dtype=np.float64).reshape(-1, len(columns))
        return self.judge(result, pd.DataFrame(values, index=list(vectors), columns=columns))

    def judge(self, result: pd.DataFrame, X: pd.DataFrame, notes: Sequence[str] = ()) -> pd.DataFrame:
        """Predict from features.

        Parameters
        ----------
        result : DataFrame
            ``image`` and ``reason``, a row for each image.
        X : DataFrame of shape (n_readable, n_features)
            Features of those that have some; the index is that of ``result``.
        notes : sequence of str
            What else is to be said.

        Returns
        -------
        DataFrame
            As `score_paths` gives it.
        """
        scored = pd.DataFrame(index=X.index, columns=["predicted", "spread", "distance"], dtype=np.float64)
        if len(X):
            scored["predicted"] = self.ensemble.predict(X)
            scored["spread"] = self.ensemble.predict_members(X).std(axis=1, ddof=0).to_numpy()
            scored["distance"] = np.nan if self._novelty is None else self._novelty.distance(X)
        result = with_interval(result.join(scored), self._interval)
        unlike = result["distance"] > 1
        # What the interval promises holds for photos like those of its calibration, and for no others.
        result.loc[unlike, [LOW, HIGH]] = np.nan
        result["unlike_training"] = unlike.astype(object).where(result["distance"].notna(), None)
        low, high = self.manifest["mos_range"]
        predicted = result["predicted"]
        result["off_scale"] = np.select([predicted < low, predicted > high], ["below", "above"], "")
        result["simulation"] = bool(self.manifest["simulation"])
        result = result[COLUMNS]
        result.attrs["simulation"] = bool(self.manifest["simulation"])
        result.attrs["mos_range"] = [low, high]
        result.attrs["random_weights"] = [
            entry["name"] for entry in self.manifest["bands"] if has_random_weights(entry["encoder"])
        ]
        has_novelty = self._novelty is not None
        result.attrs["notes"] = [*notes, *_marks(result, low, high, has_novelty=has_novelty)]
        return result


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
    table = read_photos(paths)
    return next(score_batches(Scorer.load(model), table, bank, workers=workers, size=table.n_images))


def score_batches(
    scorer: Scorer, table: ImageTable, bank: Bank, *, workers: int | None = None, size: int = BATCH
) -> Iterator[pd.DataFrame]:
    """Predict the MOS of listed images, ``size`` at a time, in their order; each as `score_paths` gives it."""
    bands = [
        resolve_band(bank, None, e["name"], e["encoder"], e["view"], e["aggregate"])
        for e in scorer.manifest["bands"]
    ]
    requests = [FeatureRequest(band.encoder, band.view, band.aggregate) for band in bands]
    for start in range(0, table.n_images, size):
        listed = table.frame.iloc[start : start + size].reset_index(drop=True)
        images = list(zip(listed["image_id"], listed["path"], strict=True))
        summary = extract(images, requests, bank, workers=workers, show_progress=True)
        reasons = {
            failure["image"]: f"{failure['reason']}: {failure['message']}" for failure in summary.failures
        }
        readable = listed[~listed["image_id"].isin(list(reasons))]
        X = pd.DataFrame(columns=scorer.ensemble.feature_names_in_, dtype=np.float64)
        if not readable["image_id"].isin(summary.missing).all():
            features = build_table(replace(table, frame=readable), bands, bank, "featbank score")
            reasons |= {row.image: f"{row.reason}: {row.message}" for row in features.left_out.itertuples()}
            X = features.X
        reasons |= {image: reasons.get(image, _MISSING) for image in summary.missing}
        result = pd.DataFrame({"image": listed["image_id"]})
        result["reason"] = [reasons.get(image_id, "") for image_id in result["image"]]
        X = X.set_axis(pd.Index(result["image"]).get_indexer(X.index))
        yield scorer.judge(result, X, table.notes if start == 0 else ())


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
