"""Distils a fitted run into a student: its bands and its scores, matched by MSE (report, section 2.6).

The teacher's features are standardised and reduced by principal components on the photographs that are
learned from; validation and test photographs are never learned from, not even without their MOS.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from experiments.runs.folder import MODEL
from experiments.runs.model import load_run_model
from experiments.students.card import write_card
from experiments.students.crops import crop_size, keep_crops
from experiments.students.export import WEIGHTS_FILE, load_stored, write_student
from experiments.students.loop import Batch, Schedule, train
from experiments.students.network import Heads, StudentNetwork
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.encoders.students.description import (
    StudentDescription,
    describe_student,
    shipped_students,
    students_folder,
)
from featbank.errors import RunError
from featbank.extract import FeatureRequest, extract
from featbank.feature import compute_features, make_feature
from featbank.images import read_photo
from featbank.keys import keys_of_files
from featbank.table import build_table, resolve_band
from featbank.views import parse_view
from regressors.evaluation.metrics import srcc

_EVALUATE_EVERY: Final = 200
_N_TIMED: Final = 5


@dataclass(frozen=True)
class DistillPlan:
    """How a student is distilled.

    Attributes
    ----------
    architecture, stem, view : str
    n_embedding : int
    n_components : int
        Principal components of the teacher's features to match; fewer where there are fewer photographs.
    n_crops : int
        Crops kept of each photograph.
    photos, crops : int
        Photographs in a batch and crops of each.
    n_steps : int
    learning_rate : float
    feature_weight, score_weight : float
        Of the two parts of the loss.
    start : str
        Shipped student to start from, ``""`` for random weights.
    seed : int
    """

    architecture: str = "mobilenetv3_small_075"
    stem: str = "unshuffle"
    view: str = "tiles_5x5/center_224"
    n_embedding: int = 128
    n_components: int = 32
    n_crops: int = 16
    photos: int = 12
    crops: int = 4
    n_steps: int = 1500
    learning_rate: float = 1e-3
    feature_weight: float = 1.0
    score_weight: float = 1.0
    start: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """What the teacher says of every photograph.

    Attributes
    ----------
    rows : DataFrame
        ``path, mos, split, subset, group, digest``; index ``image_id``.
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


def take_lesson(table: ImageTable, teacher: Path, bank: Bank, workers: int | None) -> Lesson:
    """Let the teacher see every photograph; features that the bank lacks are computed.

    Parameters
    ----------
    table : ImageTable
        MOS may be unknown.
    teacher : Path
        Run folder or its model.
    bank : Bank
    workers : int or None

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
    entries = manifest["bands"]
    bands = [
        resolve_band(bank, "photos", b["name"], b["encoder"], b["view"], b["aggregate"]) for b in entries
    ]
    requests = [FeatureRequest(band.encoder, band.view, band.aggregate) for band in bands]
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    summary = extract(images, requests, bank, workers=workers, show_progress=True)
    failed = {failure["image"] for failure in summary.failures}
    frame = table.frame[~table.frame["image_id"].isin(failed)]
    features = build_table(replace(table, frame=frame), bands, bank, "featbank distill")
    rows = features.rows.copy()
    rows["digest"] = keys_of_files(rows["path"].tolist())
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

    Parameters
    ----------
    rows : DataFrame
        Columns ``split`` and ``group``.
    seed : int
    share : float
        Of the groups to hold out where the dataset has no validation split.
    """
    split = rows["split"].to_numpy()
    if (split == "training").any():
        learn = split == "training"
        watch = split == "validation"
        if watch.any():
            return np.flatnonzero(learn), np.flatnonzero(watch)
    else:
        learn = np.ones(len(rows), dtype=bool)
    groups = rows["group"].to_numpy(dtype=str)
    names = np.unique(groups[learn])
    held = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    watch = learn & np.isin(groups, held)
    return np.flatnonzero(learn & ~watch), np.flatnonzero(watch)


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
    mean, std = float(lesson.scores[learn].mean()), float(lesson.scores[learn].std()) or 1.0
    return Targets(
        # Whitened: without it the first component alone would make the loss.
        np.clip(pca.transform(scaled), -4.0, 4.0).astype(np.float32),
        ((lesson.scores - mean) / std).astype(np.float32),
        mean,
        std,
        float(pca.explained_variance_ratio_.sum()),
    )


class _Student(nn.Module):
    """Network and heads: crops of several photographs to one prediction for each photograph."""

    def __init__(self, plan: DistillPlan, n_components: int) -> None:
        super().__init__()
        self.network = StudentNetwork(plan.architecture, plan.stem, plan.n_embedding)
        self.heads = Heads(plan.n_embedding, {"features": n_components, "score": 1})

    def forward(self, crops: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take (n_photos, n_crops, 3, height, width) in [0, 1]."""
        n_photos, n_crops = crops.shape[:2]
        flat = crops.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        embedding = self.network(flat).view(n_photos, n_crops, -1).mean(dim=1)
        out: dict[str, torch.Tensor] = self.heads(embedding)
        return out


class _Batches:
    """Batches by step alone: photographs, crops of each, flips."""

    def __init__(
        self, crops: NDArray[np.uint8], targets: Targets, learn: NDArray[np.int_], plan: DistillPlan
    ) -> None:
        self.crops, self.targets, self.learn, self.plan = crops, targets, learn, plan

    def __call__(self, step: int) -> Batch:
        plan = self.plan
        rng = np.random.default_rng([plan.seed, step])
        rows = rng.choice(self.learn, size=min(plan.photos, len(self.learn)), replace=False)
        picked = np.stack(
            [self.crops[row, np.sort(rng.permutation(self.crops.shape[1])[: plan.crops])] for row in rows]
        )
        if rng.random() < 0.5:
            picked = picked[:, :, :, ::-1]
        return {
            "crops": torch.from_numpy(np.ascontiguousarray(picked)).permute(0, 1, 4, 2, 3),
            "features": torch.from_numpy(self.targets.features[rows]),
            "score": torch.from_numpy(self.targets.scores[rows]),
        }


def predict_scores(
    student: nn.Module, crops: NDArray[np.uint8], rows: Sequence[int] | NDArray[np.int_], device: str = "cpu"
) -> NDArray[np.float64]:
    """Predict standardised scores of photographs from all their kept crops."""
    was_training = student.training
    student.eval()
    out = []
    with torch.inference_mode():
        for row in rows:
            batch = (
                torch.from_numpy(np.array(crops[row])).permute(0, 3, 1, 2)[None].to(device).float() / 255.0
            )
            out.append(float(student(batch)["score"][0, 0]))
    student.train(was_training)
    return np.array(out)


def distill(
    table: ImageTable,
    teacher: Path,
    name: str,
    bank: Bank,
    plan: DistillPlan,
    *,
    device: str = "cpu",
    workers: int | None = None,
    log: Any = None,  # noqa: ANN401 - a callable of one text line, or None
) -> dict[str, Any]:
    """Distil a run into the encoder ``featbank:NAME``.

    Parameters
    ----------
    table : ImageTable
        Photographs, with or without MOS.
    teacher : Path
        Run folder, or its model.
    name : str
        Of the student.
    bank : Bank
    plan : DistillPlan
    device : str
        ``cpu`` or ``cuda``.
    workers : int or None
    log : callable, optional
        Told of progress, one line at a time.

    Returns
    -------
    dict
        ``encoder``, ``folder``, ``gmacs``, ``params_m``, ``seconds_student``, ``seconds_teacher`` (per photograph) and
        ``agreement``: by split and subset ``n``, ``srcc_teacher``, ``srcc_mos``, ``srcc_mos_teacher``.

    Raises
    ------
    RunError
        If the name is a shipped student's, the teacher cannot teach, or files cannot be written.
    """
    if name in shipped_students() or not name.isidentifier():
        raise RunError(
            f"distill: the student's name must be a plain word that no shipped student bears, got {name!r}."
        )
    view = parse_view(plan.view)
    crop_size(view)
    lesson = take_lesson(table, teacher, bank, workers)
    learn, watch = split_lesson(lesson.rows, plan.seed)
    if len(learn) < 2 or len(watch) < 2:
        raise RunError(
            f"distill: {len(lesson.rows)} photographs leave {len(learn)} to learn from and {len(watch)} to watch; "
            "at least 2 of each are needed. Give more photographs, of several groups."
        )
    targets = make_targets(lesson, learn, plan.n_components)
    folder = students_folder() / name
    work = folder.with_name(f".{name}.training")
    photos = list(zip(lesson.rows["path"], lesson.rows["digest"], strict=True))
    crops = keep_crops(
        photos, view, work, n_crops=plan.n_crops, seed=plan.seed, workers=workers or 2, show_progress=True
    ).crops
    torch.manual_seed(plan.seed)
    student = _Student(plan, targets.features.shape[1])
    if plan.start:
        _start_from(plan.start, student.network)

    def show(step: int, losses: dict[str, float]) -> None:
        if log is None or ((step + 1) % _EVALUATE_EVERY and step + 1 != plan.n_steps):
            return
        agreement = srcc(lesson.scores[watch], predict_scores(student, crops, watch, device))
        parts = ", ".join(f"{key} {value:.3f}" for key, value in losses.items())
        log(f"step {step + 1} of {plan.n_steps}: loss {parts}; held-out SRCC to the teacher {agreement:.3f}")

    started = time.monotonic()
    train(
        student,
        _Batches(crops, targets, learn, plan),
        lambda module, batch: _losses(plan, module, batch),
        Schedule(plan.n_steps, plan.learning_rate),
        checkpoint=work / "checkpoint.pt",
        identity={"plan": asdict(plan), "photos": [digest for _, digest in photos], "teacher": lesson.name},
        seed=plan.seed,
        device=device,
        log=show,
    )
    agreement = _agreement(lesson, predict_scores(student, crops, range(len(lesson.rows)), device))
    result: dict[str, Any] = {
        "encoder": f"featbank:{name}",
        "folder": str(folder),
        "teacher": lesson.name,
        "simulation": lesson.simulation,
        "plan": asdict(plan),
        "n_learned": len(learn),
        "components": targets.features.shape[1],
        "explained": targets.explained,
        "train_s": time.monotonic() - started,
        "agreement": agreement,
    }
    facts = StudentDescription(
        name=name,
        title=f"Student of the run {lesson.name!r}" + (" (simulation)" if lesson.simulation else ""),
        reference="distilled by this project's user; report, section 2.6",
        licence="as the teacher's and the photographs'",
        architecture=f"{plan.architecture}, stem {plan.stem}",
        view=plan.view,
        n_features=0, n_params=0, size_multiple=1, min_size=1, layers=(), sha256="",
    )  # fmt: skip
    description = write_student(folder, student.network, facts, "", half=False)
    result |= _costs(name, description, lesson, plan)
    (folder / "README.md").write_text(write_card(result), encoding="utf-8")
    (folder / "receipt.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    return result


def _losses(plan: DistillPlan, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    out = module(batch["crops"].float() / 255.0)
    return {
        "features": plan.feature_weight * functional.mse_loss(out["features"].float(), batch["features"]),
        "score": plan.score_weight * functional.mse_loss(out["score"].float()[:, 0], batch["score"]),
    }


def _start_from(start: str, network: StudentNetwork) -> None:
    from importlib import resources

    describe_student(start)
    path = resources.files("featbank.encoders.students") / start / WEIGHTS_FILE
    if not load_stored(Path(str(path)), network):
        raise RunError(
            f"distill: the shipped student {start!r} has another architecture than {network.architecture!r}. "
            "Start from random weights: --start none."
        )


def _agreement(lesson: Lesson, predicted: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Compare student, teacher and MOS by split and subset; rows learned from are marked as such."""
    rows = lesson.rows
    out = []
    for split in dict.fromkeys(rows["split"]):
        for subset in ("", "exclusive"):
            chosen = (rows["split"] == split).to_numpy()
            if subset:
                chosen &= (rows["subset"] == subset).to_numpy()
            if chosen.sum() < 3:
                continue
            mos = rows["mos"].to_numpy(dtype=np.float64)[chosen]
            known = np.isfinite(mos)
            own, taught = predicted[chosen], lesson.scores[chosen]
            has_mos = known.sum() > 2
            out.append(
                {
                    "rows": f"{split or 'all'}{'/' + subset if subset else ''}",
                    "n": int(chosen.sum()),
                    "srcc_teacher": srcc(taught, own),
                    "srcc_mos": srcc(mos[known], own[known]) if has_mos else None,
                    "srcc_mos_teacher": srcc(mos[known], taught[known]) if has_mos else None,
                }
            )
    return out


def _costs(name: str, description: StudentDescription, lesson: Lesson, plan: DistillPlan) -> dict[str, Any]:
    """Measure seconds per photograph of both, on the same photographs, one after the other in this process."""
    own = [make_feature(f"featbank:{name}", plan.view, "mean")]
    taught = [make_feature(request.encoder, request.view, request.aggregate) for request in lesson.requests]
    paths = lesson.rows["path"].tolist()[: _N_TIMED + 1]
    seconds: dict[str, list[float]] = {"student": [], "teacher": []}
    for path in paths:
        for who, features in (("student", own), ("teacher", taught)):
            started = time.perf_counter()
            compute_features(features, read_photo(path))
            seconds[who].append(time.perf_counter() - started)
    return {
        "gmacs": own[0].gmacs(),
        "gmacs_teacher": sum(feature.gmacs() for feature in taught),
        "params_m": description.n_params / 1e6,
        # The first photograph opens networks and tables; medians, because machines are noisy.
        "seconds_student": float(np.median(seconds["student"][1:])),
        "seconds_teacher": float(np.median(seconds["teacher"][1:])),
    }
