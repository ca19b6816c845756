"""Distils a fitted run into a student: its bands and its scores, matched by MSE (report, section 2.6).

The teacher's features are standardised and reduced by principal components before they are matched.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from experiments.students.against_teacher import compare_costs, compare_scores
from experiments.students.card import write_card
from experiments.students.crops import crop_size, keep_crops
from experiments.students.export import WEIGHTS_FILE, load_stored, write_student
from experiments.students.lesson import Targets, make_targets, split_lesson, take_lesson
from experiments.students.loop import Batch, Schedule, train
from experiments.students.network import Heads, StudentNetwork
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.encoders.students.description import (
    CARD_FILE,
    StudentDescription,
    shipped_students,
    students_folder,
)
from featbank.errors import RunError
from featbank.views import parse_view
from regressors.evaluation.metrics import srcc

_EVALUATE_EVERY: Final = 200


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
        ``encoder``, ``folder``, ``teacher``, ``simulation``, ``plan``, ``n_learned``, ``components``, ``explained``,
        ``train_s``, ``agreement`` (see `compare_scores`) and what `compare_costs` returns.

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
    agreement = compare_scores(lesson, predict_scores(student, crops, range(len(lesson.rows)), device), learn)
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
    write_student(folder, student.network, facts, "", half=False)
    result |= compare_costs(name, plan.view, lesson)
    (folder / CARD_FILE).write_text(write_card(result), encoding="utf-8")
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
    path = resources.files("featbank.encoders.students") / start / WEIGHTS_FILE
    if not load_stored(Path(str(path)), network):
        raise RunError(
            f"distill: the shipped student {start!r} has another architecture than {network.architecture!r}. "
            "Start from random weights: --start none."
        )
