"""Compares a student with its teacher: agreement with it and with MOS, multiply-accumulates, seconds."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbank.bank import Bank
from featbank.distill.lesson import Lesson
from featbank.encoders.students.description import FAMILY
from featbank.extract import FeatureRequest, extract
from featbank.feature import compute_features, make_feature
from featbank.images import read_photo
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import srcc

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
    lesson : Lesson
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
    rows = lesson.rows
    learned = np.isin(np.arange(len(rows)), learn)
    parts = []
    for split in dict.fromkeys(rows["split"]):
        for is_learned in (True, False):
            chosen = (rows["split"] == split).to_numpy() & (learned == is_learned)
            exclusive = chosen & (rows["subset"] == "exclusive").to_numpy()
            parts += [
                (split or "all", is_learned, chosen),
                (f"{split or 'all'}/exclusive", is_learned, exclusive),
            ]
    if rows["split"][~learned].nunique() > 1:
        parts.append(("together", False, ~learned))
    return [
        _compare_part(lesson, predicted, name, is_learned, chosen)
        for name, is_learned, chosen in parts
        if chosen.sum() >= _FEWEST_ROWS
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
    """Measure seconds per photograph of both, on the same photographs, one after the other in this process.

    Parameters
    ----------
    name : str
        Of the student, without its family.
    view : str
    lesson : Lesson

    Returns
    -------
    dict
        ``gmacs``, ``gmacs_teacher`` (per UHD photograph), ``params_m`` (of the student, millions), ``seconds_decode``,
        ``seconds_student``, ``seconds_teacher`` (the latter two with decoding).
    """
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
    """Read the teacher's score off a student's vectors by a ridge, as its users read MOS off them.

    Parameters
    ----------
    vectors : float64 array of shape (n_photos, n_features)
        Of the exported encoder on its own view.
    lesson : Lesson
    learn : int array
        Positions of the photographs learned from: the ridge and its penalty follow from them alone, the latter
        by folds that keep groups together.

    Returns
    -------
    float64 array of shape (n_photos,)
        Predicted scores.
    float
        The penalty.
    """
    groups = lesson.rows["group"].to_numpy(dtype=str)[learn]
    folds = GroupKFold(min(_N_FOLDS, len(np.unique(groups))))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": _ALPHA},
        cv=folds,
        scoring="neg_mean_squared_error",
    ).fit(vectors[learn], lesson.scores[learn], groups=groups)
    return np.asarray(search.predict(vectors)), float(search.best_params_["ridge__alpha"])


def student_vectors(
    name: str, view: str, lesson: Lesson, bank: Bank, workers: int | None
) -> NDArray[np.float64]:
    """Compute what the exported encoder gives on its view, as for every other encoder.

    Returns
    -------
    float64 array of shape (n_photos, n_features)
        In the order of the lesson's rows.
    """
    request = FeatureRequest(f"{FAMILY}:{name}", view, "mean")
    images = list(zip(lesson.rows.index, lesson.rows["path"], strict=True))
    extract(images, [request], bank, workers=workers, show_progress=True)
    feature = make_feature(request.encoder, request.view, request.aggregate)
    folder = bank.open(feature.identity, feature.n_features, feature.label)
    return folder.read(lesson.rows["digest"].tolist()).astype(np.float64)
