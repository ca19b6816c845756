"""What a teacher, a fitted run, says of photographs: its features, its scores, and which of them may be learned from.

Validation and test photographs are never learned from, not even without their MOS. Further photographs, of
which nobody need know a MOS, are all learned from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.datasets.layout import make_frame
from featbank.errors import RunError
from featbank.extract import FeatureRequest, extract
from featbank.keys import keys_of_files
from featbank.runs.model import MODEL, load_run_model
from featbank.table import build_table, resolve_band

FURTHER: Final = "further"
"""The word in the column ``split`` for photographs beside the dataset's own: all of them are learned from."""


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of every photograph.

    Attributes
    ----------
    rows : DataFrame
        ``path, mos, split, subset, group, digest``; index ``image_id``. The split of further photographs is
        `FURTHER`; a photograph without a group is a group of its own.
    features : float64 array of shape (n_photos, n_features)
        The teacher's bands, side by side.
    scores : float64 array of shape (n_photos,)
        Predicted MOS.
    requests : list of FeatureRequest
        The teacher's features by name.
    name : str
        Of the teacher's recipe.
    simulation : bool
    """

    rows: pd.DataFrame
    features: NDArray[np.float64]
    scores: NDArray[np.float64]
    requests: list[FeatureRequest]
    name: str
    simulation: bool


def join_photos(
    table: ImageTable, further: ImageTable | None, bank: Bank
) -> tuple[ImageTable, frozenset[str]]:
    """Add further photographs to a dataset, without MOS, split and group.

    Parameters
    ----------
    table : ImageTable
        The dataset.
    further : ImageTable or None
        Photographs beside it.
    bank : Bank
        Remembers digests of files.

    Returns
    -------
    ImageTable
        Of both; the further photographs' names begin with ``further/``.
    frozenset of str
        Those names. A file whose bytes the dataset has as well, or that occurs twice, is left out: it may be held
        out there.
    """
    if further is None:
        return table, frozenset()
    cache = bank.stat_cache
    seen: set[str | None] = {None, *keys_of_files(table.frame["path"].tolist(), cache=cache)}
    keep = []
    for digest in keys_of_files(further.frame["path"].tolist(), cache=cache):
        keep.append(digest not in seen)
        seen.add(digest)
    paths = further.frame.loc[keep, "path"].tolist()
    names = [f"{FURTHER}/{name}" for name in further.frame.loc[keep, "image_id"]]
    added = make_frame({"image_id": names, "path": paths, "mos": np.full(len(paths), np.nan)})
    frame = pd.concat([table.frame[list(added.columns)], added], ignore_index=True)
    return replace(table, frame=frame), frozenset(names)


def take_lesson(
    table: ImageTable, teacher: Path, bank: Bank, workers: int | None, further: ImageTable | None = None
) -> Lesson:
    """Let the teacher see every photograph; features that the bank lacks are computed.

    Parameters
    ----------
    table : ImageTable
        MOS may be unknown.
    teacher : Path
        Run folder or its model.
    bank : Bank
    workers : int or None
    further : ImageTable, optional
        More photographs to learn from, see `join_photos`.

    Raises
    ------
    RunError
        If the teacher cannot be loaded, or uses features that were imported.
    """
    ensemble, manifest = load_run_model(teacher / MODEL if teacher.is_dir() else teacher)
    imported = [band["name"] for band in manifest["bands"] if band["encoder"].startswith("imported:")]
    if imported:
        raise RunError(
            f"distill: the teacher uses imported features ({', '.join(imported)}), which cannot be computed for other "
            "photos. Distil a run of computed bands."
        )
    table, names = join_photos(table, further, bank)
    entries = manifest["bands"]
    bands = [resolve_band(bank, None, b["name"], b["encoder"], b["view"], b["aggregate"]) for b in entries]
    requests = [FeatureRequest(band.encoder, band.view, band.aggregate) for band in bands]
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    summary = extract(images, requests, bank, workers=workers, show_progress=True)
    failed = {failure["image"] for failure in summary.failures}
    table = replace(table, frame=table.frame[~table.frame["image_id"].isin(failed)])
    features = build_table(table, bands, bank, "featbank distill")
    rows = features.rows.copy()
    groups = pd.Series(table.fold_groups(), index=table.frame["image_id"])
    rows["group"] = groups.loc[rows.index].to_numpy()
    rows.loc[rows.index.isin(names), "split"] = FURTHER
    rows["digest"] = keys_of_files(rows["path"].tolist(), cache=bank.stat_cache)
    return Lesson(
        rows,
        features.X.to_numpy(dtype=np.float64),
        np.asarray(ensemble.predict(features.X), dtype=np.float64),
        requests,
        str(manifest["recipe"]),
        bool(manifest["simulation"]),
    )


def split_lesson(
    rows: pd.DataFrame, seed: int, share: float = 0.2
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return positions to learn from and to watch; whole groups are held out, given splits are kept.

    Further photographs are learned from, and never watched.

    Parameters
    ----------
    rows : DataFrame
        Columns ``split`` and ``group``.
    seed : int
    share : float
        Of the groups to hold out where the dataset has no validation split.
    """
    split = rows["split"].to_numpy()
    further = split == FURTHER
    if (split == "training").any():
        learn = split == "training"
        watch = split == "validation"
        if watch.any():
            return np.flatnonzero(learn | further), np.flatnonzero(watch)
    else:
        learn = ~further
    groups = rows["group"].to_numpy(dtype=str)
    names = np.unique(groups[learn])
    held = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    watch = learn & np.isin(groups, held)
    return np.flatnonzero((learn & ~watch) | further), np.flatnonzero(watch)


@dataclass(frozen=True)
class Targets:
    """The teacher's features and scores, as the student is to match them.

    Attributes
    ----------
    features : float32 array of shape (n_photos, n_components)
        Principal components, each of unit variance on the photographs learned from.
    scores : float32 array of shape (n_photos,)
        Standardised on them.
    mean, std : float
        Of the scores, to get back to MOS.
    explained : float
        Share of the standardised features' variance that the components keep.
    """

    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    mean: float
    std: float
    explained: float


def make_targets(lesson: Lesson, learn: NDArray[np.int_], n_components: int) -> Targets:
    """Standardise and reduce, by the photographs learned from alone."""
    scaler = StandardScaler().fit(lesson.features[learn])
    scaled = scaler.transform(lesson.features)
    n = min(n_components, len(learn) - 1, scaled.shape[1])
    pca = PCA(n, whiten=True, random_state=0).fit(scaled[learn])
    taught = lesson.scores[learn]
    mean, std = float(taught.mean()), float(taught.std()) if np.ptp(taught) > 0 else 1.0
    return Targets(
        # Whitened: without it the first component alone would make the loss.
        np.clip(pca.transform(scaled), -4.0, 4.0).astype(np.float32),
        ((lesson.scores - mean) / std).astype(np.float32),
        mean,
        std,
        float(pca.explained_variance_ratio_.sum()),
    )
