"""The first part of a distillation: trunk, embedding and heads learn from crops of a few photographs at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featbank.distill.lesson import Targets
from featbank.distill.loop import Batch
from featbank.distill.network import Heads, StudentNetwork
from featbank.distill.settle import SettlePlan, matching_losses


@dataclass(frozen=True)
class DistillPlan:
    """How a student is distilled.

    Attributes
    ----------
    architecture, stem, view : str
    statistics : bool
        Whether the embedding also sees statistics that need no learning, see `PictureStatistics`.
    n_embedding : int
    n_components : int
        Principal components of the teacher's features to match; fewer where there are fewer photographs.
    n_crops : int
        Crops kept of each photograph.
    photos, crops : int
        Photographs in a batch and crops of each.
    n_steps : int
        On crops; 0 leaves the trunk as it starts.
    learning_rate : float
    feature_weight, score_weight : float
        Of the two parts of the loss.
    start : str
        Shipped student to start from, ``""`` for random weights.
    settle_steps : int
        Of the second part, on whole photographs.
    seed : int
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
