"""Distils a fitted run into a student: its bands and its scores, matched by MSE (report, section 2.6).

The teacher's features are standardised and reduced by principal components before they are matched. The whole
student learns on crops, then what is above its trunk on whole photographs. What it is worth is measured on
the exported encoder, as its users have it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch

from featbank.atomic import check_folder, remove_files, replacing_files
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.distill.against_teacher import compare_costs, compare_scores, read_out, student_vectors
from featbank.distill.card import write_card
from featbank.distill.crops import crop_size, keep_crops
from featbank.distill.export import RECEIPT_FILE, STUDENT, WEIGHTS_FILE, load_stored, write_student
from featbank.distill.lesson import make_targets, split_lesson, take_lesson
from featbank.distill.loop import Schedule, train
from featbank.distill.network import StudentNetwork
from featbank.distill.pupil import CropBatches, DistillPlan, Student, crop_losses, predict_scores
from featbank.distill.settle import pool_photos, settle, settled_scores
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
_CHECKPOINT, _SETTLE = "checkpoint.pt", "settle.pt"
_WORK_FILES: Final = (
    _CHECKPOINT,
    _SETTLE,
    *(f"{blocks}.{ending}" for blocks in ("crops", "pooled") for ending in ("npy", "json")),
)
"""What lies beside the student until it is finished, so that a killed training goes on."""


def distill(
    table: ImageTable,
    teacher: Path,
    name: str,
    bank: Bank,
    plan: DistillPlan,
    *,
    device: str = "cpu",
    further: ImageTable | None = None,
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
    further : ImageTable, optional
        More photographs to learn from, without MOS.
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
        If the name is a shipped student's, or the teacher cannot teach.
    OutputError
        If the student's folder holds anything else than an earlier student, or cannot be written.
    """
    if name in shipped_students() or not name.isidentifier():
        raise RunError(
            f"distill: the student's name must be a plain word that no shipped student bears, got {name!r}."
        )
    if not plan.n_steps and not plan.start:
        raise RunError(
            "distill: without steps on crops the trunk stays what it was, and random weights see nothing. "
            "Ask for steps, or start from a shipped student: --start auto."
        )
    folder = students_folder() / name
    check_folder(folder, STUDENT, "distill --out")
    view = parse_view(plan.view)
    crop_size(view)
    lesson = take_lesson(table, teacher, bank, workers, further)
    learn, watch = split_lesson(lesson.rows, plan.seed)
    if len(learn) < 2 or len(watch) < 2:
        raise RunError(
            f"distill: {len(lesson.rows)} photographs leave {len(learn)} to learn from and {len(watch)} to watch; "
            "at least 2 of each are needed. Give more photographs, of several groups."
        )
    targets = make_targets(lesson, learn, plan.n_components)
    work = folder.with_name(f".{name}.training")
    photos = list(zip(lesson.rows["path"], lesson.rows["digest"], strict=True))
    torch.manual_seed(plan.seed)
    student = Student(plan, targets.features.shape[1])
    if plan.start:
        _start_from(plan.start, student.network)
    started = time.monotonic()
    identity = {"plan": asdict(plan), "photos": [digest for _, digest in photos], "teacher": lesson.name}
    if plan.n_steps:
        crops = keep_crops(
            photos, view, work, n_crops=plan.n_crops, seed=plan.seed, workers=workers or 2, show_progress=True
        ).crops

        def show(step: int, losses: dict[str, float]) -> None:
            if log is None or ((step + 1) % _EVALUATE_EVERY and step + 1 != plan.n_steps):
                return
            agreement = srcc(lesson.scores[watch], predict_scores(student, crops, watch, device))
            log(f"step {step + 1} of {plan.n_steps}: {_progress(losses, agreement)}")

        train(
            student,
            CropBatches(crops, targets, learn, plan),
            lambda module, batch: crop_losses(plan, module, batch),
            Schedule(plan.n_steps, plan.learning_rate),
            checkpoint=work / _CHECKPOINT,
            identity=identity,
            seed=plan.seed,
            device=device,
            log=show,
        )
    pooled = pool_photos(student.network, photos, view, work, device=device, show_progress=True)
    settled = settle(
        student.network,
        student.heads,
        pooled,
        targets,
        learn,
        plan.settle_plan(),
        checkpoint=work / _SETTLE,
        identity=identity,
        device=device,
    )
    if log is not None:
        agreement = srcc(lesson.scores[watch], settled_scores(student.network, student.heads, pooled, watch))
        log(f"settled on whole photos: {_progress(settled, agreement)}")
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
        "settled": settled,
    }
    facts = StudentDescription(
        name=name,
        title=f"Student of the run {lesson.name!r}" + (" (simulation)" if lesson.simulation else ""),
        reference="distilled by this project's user; report, section 2.6",
        licence="as the teacher's and the photographs'",
        architecture=f"{plan.architecture}, stem {plan.stem}" + (", statistics" if plan.statistics else ""),
        view=plan.view,
        n_features=0, n_params=0, size_multiple=1, min_size=1, layers=(), sha256="",
    )  # fmt: skip
    write_student(folder, student.network, facts, "", half=False)
    scores, result["alpha"] = read_out(student_vectors(name, plan.view, lesson, bank, workers), lesson, learn)
    result["agreement"] = compare_scores(lesson, scores, learn)
    result |= compare_costs(name, plan.view, lesson)
    with replacing_files(folder, STUDENT, "distill") as new:
        (new / CARD_FILE).write_text(write_card(result), encoding="utf-8")
        (new / RECEIPT_FILE).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    remove_files(work, _WORK_FILES)
    return result


def _progress(losses: dict[str, float], agreement: float) -> str:
    parts = ", ".join(f"{key} {value:.3f}" for key, value in losses.items())
    return f"loss {parts}; held-out SRCC to the teacher {agreement:.3f}"


def _start_from(start: str, network: StudentNetwork) -> None:
    path = resources.files("featbank.encoders.students") / start / WEIGHTS_FILE
    if not load_stored(Path(str(path)), network):
        raise RunError(
            f"distill: the shipped student {start!r} has another architecture than {network.architecture!r}. "
            "Start from random weights: --start none."
        )
