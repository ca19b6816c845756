"""What a teacher, a fitted run, says of photographs, and how a student compares with it.

Validation and test photographs are never learned from, not even without their MOS. Further photographs, of
which nobody need know a MOS, are all learned from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.datasets.image_table import make_frame
from featbank.encoders.student import FAMILY
from featbank.errors import RunError
from featbank.extract import FeatureRequest, extract
from featbank.feature import compute_features, make_feature
from featbank.images import read_photo
from featbank.keys import keys_of_files
from featbank.runs.model import MODEL, load_run_model
from featbank.table import build_table, resolve_band
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import srcc

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
    """Add further photographs to a dataset, without MOS, split and group; return their names, too.

    The names begin with ``further/``. A file whose bytes the dataset has as well, or that occurs twice, is left out: it
    may be held out there.
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
    """Let the teacher, a run folder or its model, see every photograph; features that the bank lacks are computed.

    Raises RunError if the teacher cannot be loaded, or uses features that were imported.
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
        np.asarray(features.X, dtype=np.float64),
        np.asarray(ensemble.predict(features.X), dtype=np.float64),
        requests,
        str(manifest["recipe"]),
        bool(manifest["simulation"]),
    )


def split_lesson(
    rows: pd.DataFrame, seed: int, share: float = 0.2
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return positions to learn from and to watch; whole groups are held out, given splits are kept.

    Further photographs are learned from, and never watched. ``share`` of the groups is held out where the dataset has
    no validation split.
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
    explained : float
        Share of the standardised features' variance that the components keep.
    """

    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    explained: float


def make_targets(lesson: Lesson, learn: NDArray[np.int_], n_components: int) -> Targets:
    """Standardise and reduce, by the photographs learned from alone."""
    scaler = StandardScaler().fit(lesson.features[learn])
    scaled = scaler.transform(lesson.features)
    n = min(n_components, len(learn) - 1, scaled.shape[1])
    pca = PCA(n, whiten=True, random_state=0).fit(scaled[learn])
    taught = lesson.scores[learn]
    deviation = float(taught.std()) if np.ptp(taught) > 0 else 1.0
    return Targets(
        # Whitened: without it the first component alone would make the loss.
        np.clip(pca.transform(scaled), -4.0, 4.0).astype(np.float32),
        ((lesson.scores - taught.mean()) / deviation).astype(np.float32),
        float(pca.explained_variance_ratio_.sum()),
    )


_FEWEST_ROWS: Final = 3
_N_TIMED: Final = 5
_N_FOLDS: Final = 5
_ALPHA: Final = tuple(np.logspace(-1, 5, 13))


def compare_scores(
    lesson: Lesson, predicted: NDArray[np.float64], learn: NDArray[np.int_]
) -> list[dict[str, Any]]:
    """Compare student, teacher and MOS, by split, subset and whether the student learned from the photographs.

    Parameters
    ----------
    predicted : float64 array of shape (n_photos,)
        The student's scores, on any scale.
    learn : int array
        Positions of the photographs learned from.

    Returns
    -------
    list of dict
        ``rows`` (split and subset), ``learned``, ``n``, ``srcc_teacher`` and its 95 % ``interval`` (groups drawn with
        replacement), ``srcc_mos`` and ``srcc_mos_teacher``; None where undefined, as without MOS. Fewer than 3
        photographs get no entry. Where photographs not learned from are of several splits, a last one,
        ``together``, takes them all.
    """
    learned = np.isin(np.arange(len(lesson.rows)), learn)
    split = lesson.rows["split"].replace("", "all").to_numpy()
    exclusive = (lesson.rows["subset"] == "exclusive").to_numpy()
    parts = []
    for name in dict.fromkeys(split):
        for is_learned in (True, False):
            chosen = (split == name) & (learned == is_learned)
            parts += [(name, is_learned, chosen), (f"{name}/exclusive", is_learned, chosen & exclusive)]
    if len(set(split[~learned])) > 1:
        parts.append(("together", False, ~learned))
    return [
        _compare_part(lesson, predicted, *part) for part in parts if np.count_nonzero(part[2]) >= _FEWEST_ROWS
    ]


def _compare_part(
    lesson: Lesson, predicted: NDArray[np.float64], name: str, is_learned: bool, chosen: NDArray[np.bool_]
) -> dict[str, Any]:
    groups = lesson.rows["group"].to_numpy(dtype=str)[chosen]
    own, taught = predicted[chosen], lesson.scores[chosen]
    ends = bootstrap_ci(taught, own, groups=groups, metrics=["srcc"])["srcc"]
    mos = lesson.rows["mos"].to_numpy(dtype=np.float64)[chosen]
    known = np.isfinite(mos)
    has_mos = known.sum() >= _FEWEST_ROWS
    return {
        "rows": name,
        "learned": is_learned,
        "n": int(chosen.sum()),
        "srcc_teacher": _defined(srcc(taught, own)),
        "interval": [*map(_defined, ends)],
        "srcc_mos": _defined(srcc(mos[known], own[known])) if has_mos else None,
        "srcc_mos_teacher": _defined(srcc(mos[known], taught[known])) if has_mos else None,
    }


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def compare_costs(name: str, view: str, lesson: Lesson) -> dict[str, float]:
    """Measure GMACs, parameters and seconds per photograph (with decoding) of both, in this process."""
    own = [make_feature(f"featbank:{name}", view, "mean")]
    taught = [make_feature(request.encoder, request.view, request.aggregate) for request in lesson.requests]
    seconds: dict[str, list[float]] = {"decode": [], "student": [], "teacher": []}
    # The first photograph opens networks and tables.
    for path in lesson.rows["path"].tolist()[: _N_TIMED + 1]:
        for who, features in (("decode", []), ("student", own), ("teacher", taught)):
            started = time.perf_counter()
            photo = read_photo(path)
            if features:
                compute_features(features, photo)
            seconds[who].append(time.perf_counter() - started)
    return {
        "gmacs": own[0].gmacs(),
        "gmacs_teacher": sum(feature.gmacs() for feature in taught),
        "params_m": own[0].encoder.n_params / 1e6,
        # Medians, because machines are noisy.
        **{f"seconds_{who}": float(np.median(values[1:] or values)) for who, values in seconds.items()},
    }


def read_out(
    vectors: NDArray[np.float64], lesson: Lesson, learn: NDArray[np.int_]
) -> tuple[NDArray[np.float64], float]:
    """Read the teacher's score off a student's vectors (n_photos, n_features) by a ridge, as its users read MOS.

    Ridge and penalty follow from the photographs ``learn`` alone, the penalty by folds that keep groups together.

    Returns
    -------
    float64 array of shape (n_photos,)
        Predicted scores.
    float
        The penalty.
    """
    groups = lesson.rows["group"].to_numpy(dtype=str)[learn]
    folds = GroupKFold(min(_N_FOLDS, len(np.unique(groups))))
    pipeline, grid = make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": _ALPHA}
    search = GridSearchCV(pipeline, grid, cv=folds, scoring="neg_mean_squared_error")
    search.fit(vectors[learn], lesson.scores[learn], groups=groups)
    return np.asarray(search.predict(vectors)), float(search.best_params_["ridge__alpha"])


def student_vectors(
    name: str, view: str, lesson: Lesson, bank: Bank, workers: int | None
) -> NDArray[np.float64]:
    """Return what the exported encoder gives on its view, shape (n_photos, n_features)."""
    request = FeatureRequest(f"{FAMILY}:{name}", view, "mean")
    images = list(zip(lesson.rows.index, lesson.rows["path"], strict=True))
    extract(images, [request], bank, workers=workers, show_progress=True)
    feature = make_feature(request.encoder, request.view, request.aggregate)
    folder = bank.open(feature.identity, feature.n_features, feature.label)
    return folder.read(lesson.rows["digest"].tolist()).astype(np.float64)


SIMULATION = "Teacher and photographs are a simulation: these figures prove nothing about real photos."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_card(result: dict[str, Any]) -> str:
    """Return the model card of a distilled student as Markdown, of what `featbank.distill.distill.distill` returns."""
    rows = [
        f"| {row['rows']} | {'yes' if row['learned'] else 'no'} | {row['n']} | {_number(row['srcc_teacher'])} "
        f"[{_number(row['interval'][0])}, {_number(row['interval'][1])}] | {_number(row['srcc_mos'])} | "
        f"{_number(row['srcc_mos_teacher'])} |"
        for row in result["agreement"]
    ]
    more = {
        "agreement": "\n".join(rows),
        "statistics": " and natural-scene statistics in the graph" if result["plan"]["statistics"] else "",
        "ratio": result["seconds_teacher"] / result["seconds_student"],
    }
    card = resources.files("featbank.distill").joinpath("card.md").read_text("utf-8").format(**result | more)
    return f"{card}\n{SIMULATION}\n" if result["simulation"] else card
