"""Distils a fitted run into a student: its bands and its scores, matched by MSE (report, section 2.6).

The teacher's features are standardised and reduced by principal components before they are matched. The whole
student learns on crops of a few photographs at a time. Then, with its trunk at rest, embedding and heads learn on whole
photographs: what the trunk gives for every crop of the view is computed once and kept, so that the rest learns from
every photograph many times, in seconds. What the student is worth is measured on the exported encoder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from featbank.atomic import check_folder, remove_files, replacing_files
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.digest import digest_bytes, digest_json, seed_from
from featbank.distill.export import RECEIPT_FILE, STUDENT, WEIGHTS_FILE, load_stored, write_student
from featbank.distill.network import Heads, StudentNetwork, embed_standard, standardise
from featbank.distill.teacher import (
    Targets,
    compare_costs,
    compare_scores,
    make_targets,
    read_out,
    split_lesson,
    student_vectors,
    take_lesson,
    write_card,
)
from featbank.distill.training import Batch, Schedule, crop_size, keep_blocks, keep_crops, train
from featbank.encoders.student import (
    CARD_FILE,
    StudentDescription,
    shipped_students,
    students_folder,
)
from featbank.errors import RunError
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
from featbank.images import read_photo
from featbank.views import View, parse_view
from regressors.evaluation.metrics import srcc

_MOST_CROPS: Final = 32
"""Crops of a photograph that are kept; of more, evenly spread ones."""


@dataclass(frozen=True)
class SettlePlan:
    """How embedding and heads learn on whole photographs; 0 steps leave the student as it is, ``photos`` is a batch."""

    n_steps: int = 1500
    photos: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    feature_weight: float = 1.0
    score_weight: float = 1.0
    seed: int = 0


def trunk_digest(
    network: StudentNetwork, besides: tuple[str, ...] = ("pooled_norm.", "embed.", "mixer.")
) -> str:
    """Return a digest of all that decides what a student's trunk gives for a crop: weights ``besides`` do not."""
    return digest_json(
        {
            name: digest_bytes(value.detach().cpu().contiguous().numpy().tobytes())
            for name, value in network.state_dict().items()
            if not name.startswith(besides)
        }
    )


def pool_photos(
    network: StudentNetwork,
    photos: Sequence[tuple[str, str]],
    view: View,
    folder: Path,
    *,
    device: str = "cpu",
    show_progress: bool = False,
) -> NDArray[np.float32]:
    """Compute what the trunk gives for the crops of photographs (path, digest), or open the file where that was done.

    Returns
    -------
    float32 array of shape (n_photos, n_crops, n_pooled)
        Not yet standardised. Photographs with fewer crops than the view has on a UHD one have
        some of them twice.

    Raises
    ------
    RunError
        If the file cannot be written.
    ImageError
        If a photograph cannot be read.
    """
    network.to(device).eval()
    n_crops = min(_MOST_CROPS, view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)[0][0])
    request = {
        "photos": [digest for _, digest in photos],
        "view": view.identity(),
        "n": n_crops,
        "trunk": trunk_digest(network),
    }

    def blocks() -> Iterator[NDArray[np.float32]]:
        for path, digest in photos:
            crops = view.scales(read_photo(path).pixels, seed_from(digest, view.name))[0]
            chosen = np.linspace(0, len(crops) - 1, n_crops).round().astype(np.intp)
            with torch.inference_mode():
                batch = torch.from_numpy(crops[chosen]).to(device).permute(0, 3, 1, 2).float() / 255.0
                pooled = network.pooled(batch.contiguous(memory_format=torch.channels_last))
            yield pooled.float().cpu().numpy()

    shape = (len(photos), n_crops, network.embed.in_features)
    return keep_blocks(
        folder, "pooled", request, shape, np.float32, blocks, cure="Make room, then run the same command again.",
        show_progress=show_progress,
    )  # fmt: skip


class _Reading(nn.Module):
    """What is above the trunk: crops' pooled maps to one prediction for each photograph."""

    def __init__(self, network: StudentNetwork, heads: Heads) -> None:
        super().__init__()
        self.norm, self.embed, self.heads = network.pooled_norm, network.embed, heads

    def train(self, mode: bool = True) -> _Reading:
        """Put into training mode all but the normalisation, whose moments are those of all crops."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take (n_photos, n_crops, n_pooled)."""
        standard = standardise(self.norm, pooled.flatten(0, 1)).view(pooled.shape)
        out: dict[str, torch.Tensor] = self.heads(embed_standard(self.embed, standard).mean(dim=1))
        return out


def learn_moments(norm: nn.BatchNorm1d, pooled: NDArray[np.float32], learn: NDArray[np.int_]) -> None:
    """Give a normalisation the mean and variance of all crops of the photographs learned from.

    A network that was trained on other pictures, or sees statistics that it was not trained on, has other ones.
    """
    total, squares = np.zeros(pooled.shape[2]), np.zeros(pooled.shape[2])
    for row in learn:
        crops = pooled[row].astype(np.float64)
        total += crops.sum(axis=0)
        squares += (crops * crops).sum(axis=0)
    n = len(learn) * pooled.shape[1]
    mean = total / n
    with torch.no_grad():
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(np.maximum(squares / n - mean * mean, 0.0)))
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def matching_losses(
    out: dict[str, torch.Tensor], batch: Batch, feature_weight: float, score_weight: float
) -> dict[str, torch.Tensor]:
    """Return the two weighted parts of the loss: how far the heads are from the teacher's features and score."""
    return {
        "features": feature_weight * functional.mse_loss(out["features"].float(), batch["features"]),
        "score": score_weight * functional.mse_loss(out["score"].float()[:, 0], batch["score"]),
    }


class _Batches:
    """Batches by step alone: whole photographs."""

    def __init__(
        self, pooled: NDArray[np.float32], targets: Targets, learn: NDArray[np.int_], plan: SettlePlan
    ) -> None:
        self.pooled, self.targets, self.learn, self.plan = pooled, targets, learn, plan

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.plan.seed, step])
        rows = rng.choice(self.learn, size=min(self.plan.photos, len(self.learn)), replace=False)
        return self.of(np.sort(rows))

    def of(self, rows: NDArray[np.int_]) -> Batch:
        """Return the batch of chosen photographs."""
        return {
            "pooled": torch.from_numpy(np.array(self.pooled[rows])),
            "features": torch.from_numpy(self.targets.features[rows]),
            "score": torch.from_numpy(self.targets.scores[rows]),
        }


def settle(
    network: StudentNetwork,
    heads: Heads,
    pooled: NDArray[np.float32],
    targets: Targets,
    learn: NDArray[np.int_],
    plan: SettlePlan,
    *,
    checkpoint: Path,
    identity: dict[str, Any],
    device: str = "cpu",
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train embedding and heads on whole photographs, or take a stopped training up again.

    Parameters
    ----------
    network, heads
        Changed in place: the embedding, how that is normalised, and the heads ``features`` and ``score``.
    pooled : float32 array of shape (n_photos, n_crops, n_pooled)
        See `pool_photos`.
    learn : int array
        Positions of the photographs to learn from.
    checkpoint, identity, device, log
        As for `featbank.distill.training.train`.

    Returns
    -------
    dict of str to float
        ``before`` and ``after``: the loss on the photographs learned from. Where training did not lower it, the
        student stays as it was.
    """
    reading = _Reading(network, heads).to(device)
    batches = _Batches(pooled, targets, learn, plan)
    before = _whole_loss(reading, batches, device)
    first = {name: value.clone() for name, value in reading.state_dict().items()}
    learn_moments(network.pooled_norm, pooled, learn)
    train(
        reading,
        batches,
        lambda module, batch: matching_losses(
            module(batch["pooled"]), batch, plan.feature_weight, plan.score_weight
        ),
        Schedule(plan.n_steps, plan.learning_rate, plan.weight_decay),
        checkpoint=checkpoint,
        identity={"settle": asdict(plan), **identity},
        seed=plan.seed,
        device=device,
        log=log,
    )
    after = _whole_loss(reading, batches, device)
    if after > before:
        reading.load_state_dict(first)
    return {"before": before, "after": min(before, after)}


def _whole_loss(reading: _Reading, batches: _Batches, device: str) -> float:
    """Return the loss on all photographs learned from."""
    reading.eval()
    plan, total = batches.plan, 0.0
    with torch.inference_mode():
        for start in range(0, len(batches.learn), plan.photos):
            rows = batches.learn[start : start + plan.photos]
            batch = {name: tensor.to(device) for name, tensor in batches.of(rows).items()}
            parts = matching_losses(reading(batch["pooled"]), batch, plan.feature_weight, plan.score_weight)
            total += len(rows) * float(torch.stack([*parts.values()]).sum())
    return total / len(batches.learn)


def settled_scores(
    network: StudentNetwork, heads: Heads, pooled: NDArray[np.float32], rows: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Predict standardised scores of the whole photographs at positions ``rows``, with what `settle` left."""
    device = network.embed.weight.device
    reading = _Reading(network, heads).eval()
    with torch.inference_mode():
        scores = [reading(torch.from_numpy(np.array(pooled[[row]])).to(device))["score"] for row in rows]
    return np.array([float(score[0, 0]) for score in scores])


@dataclass(frozen=True)
class DistillPlan:
    """How a student is distilled.

    Attributes
    ----------
    statistics : bool
        Whether the embedding also sees statistics that need no learning, see `PictureStatistics`.
    n_components : int
        Principal components of the teacher's features to match; fewer where there are fewer photographs.
    n_crops : int
        Crops kept of each photograph.
    photos, crops : int
        Photographs in a batch and crops of each.
    n_steps, settle_steps : int
        On crops (0 leaves the trunk as it starts), and on whole photographs.
    feature_weight, score_weight : float
        Of the two parts of the loss.
    start : str
        Shipped student to start from, ``""`` for random weights.
    """

    architecture: str = "mobilenetv3_small_075"
    stem: str = "unshuffle"
    view: str = "tiles_5x5/center_128"
    statistics: bool = True
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
    settle_steps: int = 1500
    seed: int = 0

    def settle_plan(self) -> SettlePlan:
        """Return how the second part of the training goes."""
        return SettlePlan(
            n_steps=self.settle_steps,
            feature_weight=self.feature_weight,
            score_weight=self.score_weight,
            seed=self.seed,
        )


class Student(nn.Module):
    """Network and heads: crops of several photographs to one prediction for each photograph."""

    def __init__(self, plan: DistillPlan, n_components: int) -> None:
        super().__init__()
        self.network = StudentNetwork(plan.architecture, plan.stem, plan.n_embedding, plan.statistics)
        self.heads = Heads(plan.n_embedding, {"features": n_components, "score": 1})

    def forward(self, crops: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take (n_photos, n_crops, 3, height, width) in [0, 1]."""
        n_photos, n_crops = crops.shape[:2]
        flat = crops.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        embedding = self.network(flat).view(n_photos, n_crops, -1).mean(dim=1)
        out: dict[str, torch.Tensor] = self.heads(embedding)
        return out


class CropBatches:
    """Batches by step alone: photographs, crops of each, flips."""

    def __init__(
        self, crops: NDArray[np.uint8], targets: Targets, learn: NDArray[np.int_], plan: DistillPlan
    ) -> None:
        self.crops, self.targets, self.learn, self.plan = crops, targets, learn, plan

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
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


def crop_losses(plan: DistillPlan, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the two parts of the loss on a batch of crops."""
    out = module(batch["crops"].float() / 255.0)
    return matching_losses(out, batch, plan.feature_weight, plan.score_weight)


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
    device : str
        ``cpu`` or ``cuda``.
    further : ImageTable, optional
        More photographs to learn from, without MOS.
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
        )

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
    path = resources.files("featbank.encoders") / "students" / start / WEIGHTS_FILE
    if not load_stored(Path(str(path)), network):
        raise RunError(
            f"distill: the shipped student {start!r} has another architecture than {network.architecture!r}. "
            "Start from random weights: --start none."
        )
