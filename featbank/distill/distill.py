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
from featbank.distill.network import Heads, StudentNetwork, standardise, to_input
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
from featbank.encoders.student import CARD_FILE, shipped_students, students_folder
from featbank.errors import RunError
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
from featbank.images import read_photo
from featbank.views import View, parse_view
from regressors.evaluation.metrics import srcc

_MOST_CROPS: Final = 32
"""Crops of a photograph that are kept for the second part; of more, evenly spread ones."""
_EVALUATE_EVERY: Final = 200
_CHECKPOINT, _SETTLE = "checkpoint.pt", "settle.pt"
_WORK_FILES: Final = (_CHECKPOINT, _SETTLE, "crops.npy", "crops.json", "pooled.npy", "pooled.json")
"""What lies beside the student until it is finished, so that a killed training goes on."""

Augment = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


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
    n_steps : int
        On crops; 0 leaves the trunk as it starts.
    settle_steps, settle_photos, settle_rate : int, int, float
        Steps on whole photographs, photographs in a batch, learning rate.
    start : str
        Shipped student to start from, ``""`` for random weights.
    """

    architecture: str = "mobilenetv3_small_075"
    view: str = "tiles_5x5/center_128"
    statistics: bool = True
    n_embedding: int = 128
    n_components: int = 32
    n_crops: int = 16
    photos: int = 12
    crops: int = 4
    n_steps: int = 1500
    learning_rate: float = 1e-3
    start: str = ""
    settle_steps: int = 1500
    settle_photos: int = 64
    settle_rate: float = 1e-3
    seed: int = 0


class Student(nn.Module):
    """Network and heads: crops of several photographs to one prediction for each photograph."""

    def __init__(self, network: StudentNetwork, heads: Heads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, crops: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take uint8 (n_photos, n_crops, height, width, 3)."""
        embedding = self.network(to_input(crops.flatten(0, 1))).unflatten(0, crops.shape[:2]).mean(dim=1)
        out: dict[str, torch.Tensor] = self.heads(embedding)
        return out


class Readout(nn.Module):
    """What is above a student's trunk: crops' pooled maps to one prediction for each photograph."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.norm, self.embed, self.heads = student.network.pooled_norm, student.network.embed, student.heads

    def train(self, mode: bool = True) -> Readout:
        """Put into training mode all but the normalisation, whose moments are those of all crops."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        """Take (n_photos, n_crops, n_pooled)."""
        standard = standardise(self.norm, pooled.flatten(0, 1))
        embedding = functional.hardswish(self.embed(standard)).unflatten(0, pooled.shape[:2]).mean(dim=1)
        out: dict[str, torch.Tensor] = self.heads(embedding)
        return out


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
                pooled = network.pooled(to_input(torch.from_numpy(crops[chosen]).to(device)))
            yield pooled.float().cpu().numpy()

    shape = (len(photos), n_crops, network.embed.in_features)
    return keep_blocks(
        folder, "pooled", request, shape, np.float32, blocks, cure="Make room, then run the same command again.",
        show_progress=show_progress,
    )  # fmt: skip


def learn_moments(norm: nn.BatchNorm1d, pooled: NDArray[np.float32], learn: NDArray[np.int_]) -> None:
    """Give a normalisation the mean and variance of all crops of the photographs learned from.

    A network that was trained on other pictures, or sees statistics that it was not trained on, has other ones.
    """
    mean = np.mean([pooled[row].mean(axis=0, dtype=np.float64) for row in learn], axis=0)
    square = np.mean([np.square(pooled[row], dtype=np.float64).mean(axis=0) for row in learn], axis=0)
    with torch.no_grad():
        norm.running_mean.copy_(torch.from_numpy(mean))
        norm.running_var.copy_(torch.from_numpy(np.maximum(square - mean * mean, 0.0)))
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def _make_batch(inputs: NDArray[Any], targets: Targets, rows: NDArray[np.int_]) -> Batch:
    return {
        "inputs": torch.from_numpy(np.array(inputs)),
        "features": torch.from_numpy(targets.features[rows]),
        "score": torch.from_numpy(targets.scores[rows]),
    }


def _losses(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the two parts of the loss: how far the heads are from the teacher's features and score."""
    out = module(batch["inputs"])
    return {
        "features": functional.mse_loss(out["features"].float(), batch["features"]),
        "score": functional.mse_loss(out["score"].float()[:, 0], batch["score"]),
    }


def _match(
    module: nn.Module,
    inputs: NDArray[Any],
    targets: Targets,
    learn: NDArray[np.int_],
    plan: DistillPlan,
    schedule: Schedule,
    n_photos: int,
    augment: Augment = lambda inputs, rng: inputs,
    **options: Any,  # noqa: ANN401 - those of `train`
) -> None:
    """Train a module on ``n_photos`` of the photographs a step; batches follow from the step alone."""

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([plan.seed, step])
        rows = np.sort(rng.choice(learn, size=min(n_photos, len(learn)), replace=False))
        return _make_batch(augment(inputs[rows], rng), targets, rows)

    train(module, batch, _losses, schedule, seed=plan.seed, **options)


def _some_crops(n_crops: int) -> Augment:
    """Take some crops of each photograph, flipped by chance."""

    def augment(crops: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        order = rng.permuted(np.tile(np.arange(crops.shape[1]), (len(crops), 1)), axis=1)[:, :n_crops]
        picked = np.take_along_axis(crops, order[:, :, None, None, None], axis=1)
        return picked[:, :, :, ::-1] if rng.random() < 0.5 else picked

    return augment


def settle(
    student: Student,
    pooled: NDArray[np.float32],
    targets: Targets,
    learn: NDArray[np.int_],
    plan: DistillPlan,
    *,
    checkpoint: Path,
    identity: dict[str, Any],
    device: str = "cpu",
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train embedding and heads on whole photographs, or take a stopped training up again.

    Parameters
    ----------
    student : Student
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
    readout = Readout(student).to(device)

    def whole_loss() -> float:
        readout.eval()
        total = 0.0
        for rows in np.array_split(learn, -(-len(learn) // plan.settle_photos)):
            batch = {key: value.to(device) for key, value in _make_batch(pooled[rows], targets, rows).items()}
            with torch.inference_mode():
                total += len(rows) * float(sum(_losses(readout, batch).values()))
        return total / len(learn)

    before = whole_loss()
    first = {name: value.clone() for name, value in readout.state_dict().items()}
    learn_moments(student.network.pooled_norm, pooled, learn)
    schedule = Schedule(plan.settle_steps, plan.settle_rate)
    _match(
        readout, pooled, targets, learn, plan, schedule, plan.settle_photos,
        checkpoint=checkpoint, identity={"part": "settle", **identity}, device=device, log=log,
    )  # fmt: skip
    after = whole_loss()
    if after > before:
        readout.load_state_dict(first)
    return {"before": before, "after": min(before, after)}


def predict_scores(
    module: nn.Module, inputs: NDArray[Any], rows: NDArray[np.int_], device: str = "cpu"
) -> NDArray[np.float64]:
    """Predict standardised scores of the photographs at positions ``rows``, by a `Student` or a `Readout`."""
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        out = [module(torch.from_numpy(np.array(inputs[[row]])).to(device))["score"] for row in rows]
    module.train(was_training)
    return np.array([float(score[0, 0]) for score in out])


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
    student = Student(
        StudentNetwork(plan.architecture, plan.n_embedding, plan.statistics),
        Heads(plan.n_embedding, {"features": targets.features.shape[1], "score": 1}),
    )
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

        _match(
            student, crops, targets, learn, plan, Schedule(plan.n_steps, plan.learning_rate), plan.photos,
            _some_crops(plan.crops), checkpoint=work / _CHECKPOINT, identity=identity, device=device, log=show,
        )  # fmt: skip
    pooled = pool_photos(student.network, photos, view, work, device=device, show_progress=True)
    settled = settle(
        student, pooled, targets, learn, plan, checkpoint=work / _SETTLE, identity=identity, device=device
    )
    if log is not None:
        agreement = srcc(lesson.scores[watch], predict_scores(Readout(student), pooled, watch, device))
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
    facts = {
        "name": name,
        "title": f"Student of the run {lesson.name!r}" + (" (simulation)" if lesson.simulation else ""),
        "reference": "distilled by this project's user; report, section 2.6",
        "licence": "as the teacher's and the photographs'",
        "view": plan.view,
    }
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
