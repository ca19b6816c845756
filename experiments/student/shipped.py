"""Trains the student that the package ships, on a weakly rated set.

One embedding learns four things at once: the measures of a picture, the order of versions of one patch, the
kind of distortion, and the natural-scene statistics of the picture (what a weight-free encoder already
knows need not be found again from ratings).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import nn
from torch.nn import functional

from experiments.student.weak_set import TRAINED_MEASURES, WeakSet
from featbank.atomic import replacing
from featbank.distill.loop import Batch, Schedule, train
from featbank.distill.network import Heads, StudentNetwork

STATISTICS_FILE: Final = "nss.npy"
_LIMIT: Final = 4.0
"""Statistics are clipped to this many standard deviations: their tails are long and say little."""


@dataclass(frozen=True)
class ShippedPlan:
    """How the shipped student is trained.

    Attributes
    ----------
    architecture, stem : str
    n_embedding : int
    crop : int
        Side of training crops in pixels, a multiple of 2.
    patches, versions : int
        Patches in a batch and versions of each.
    n_steps : int
    learning_rate : float
    rank_weight, kind_weight, statistics_weight : float
        Of the parts of the loss beside the measures' own.
    held_out : float
        Share of photographs never trained on.
    seed : int
    """

    architecture: str = "mobilenetv3_small_075"
    stem: str = "unshuffle"
    n_embedding: int = 128
    crop: int = 128
    patches: int = 8
    versions: int = 8
    n_steps: int = 4500
    learning_rate: float = 3e-3
    rank_weight: float = 0.5
    kind_weight: float = 0.1
    statistics_weight: float = 0.5
    held_out: float = 0.15
    seed: int = 0


def normal_scores(values: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map values to the normal scores of their ranks among reference values; ties share one.

    Measures crowd near 1, where people see most of the difference; ranks spread them.
    """
    ordered = np.sort(reference)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return np.asarray(norm.ppf(np.clip((low + high + 1.0) / 2.0 / (len(ordered) + 1.0), 1e-3, 1.0 - 1e-3)))


def measure_targets(ratings: pd.DataFrame, is_training: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return normal scores of the trained measures, shape (n, n_measures); ranks are those of training rows."""
    columns = [
        normal_scores(ratings[name].to_numpy(), ratings[name].to_numpy()[is_training])
        for name in TRAINED_MEASURES
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def picture_statistics(weak_set: WeakSet, folder: Path, workers: int) -> NDArray[np.float32]:
    """Return the natural-scene statistics of every picture, shape (n, 119); computed once and kept."""
    from joblib import Parallel, delayed

    path = folder / STATISTICS_FILE
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    starts = range(0, len(weak_set.pictures), 256)
    blocks = Parallel(n_jobs=workers)(
        delayed(_statistics)(weak_set.pictures[start : start + 256]) for start in starts
    )
    values = np.concatenate(blocks)
    with replacing(path, "student") as scratch:
        np.save(scratch, values, allow_pickle=False)
    return values


def _statistics(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    from featbank.encoders import make_encoder

    return make_encoder("classic:nss").encode(np.ascontiguousarray(pictures))


class _Batches:
    """Batches by step: several patches, several versions of each, one random crop a picture."""

    def __init__(self, weak_set: WeakSet, statistics: NDArray[np.float32], plan: ShippedPlan) -> None:
        self.plan, self.pictures = plan, weak_set.pictures
        ratings = weak_set.ratings
        is_training = weak_set.is_training(plan.held_out)
        self.measures = measure_targets(ratings, is_training)
        # Kinds held out have a number as well, which no batch shows.
        self.kinds = {kind: k for k, kind in enumerate(sorted(ratings["kind"].unique()))}
        self.kind = ratings["kind"].map(self.kinds).to_numpy(dtype=np.int64)
        mean, std = statistics[is_training].mean(axis=0), statistics[is_training].std(axis=0)
        scaled = (statistics - mean) / np.where(std > 0.0, std, 1.0)
        self.statistics = np.clip(scaled, -_LIMIT, _LIMIT).astype(np.float32)
        training = ratings[is_training]
        self.rows = [
            np.asarray(rows) for rows in training.groupby(["photo", "patch"], sort=True).indices.values()
        ]
        positions = np.flatnonzero(is_training)
        self.rows = [positions[rows] for rows in self.rows]
        self.size = self.pictures.shape[1]

    def __call__(self, step: int) -> Batch:
        plan = self.plan
        rng = np.random.default_rng([plan.seed, step])
        chosen = rng.choice(len(self.rows), size=plan.patches, replace=len(self.rows) < plan.patches)
        rows = np.concatenate([rng.permutation(self.rows[k])[: plan.versions] for k in chosen])
        owner = np.concatenate(
            [np.full(min(plan.versions, len(self.rows[k])), n) for n, k in enumerate(chosen)]
        )
        crops = np.empty((len(rows), plan.crop, plan.crop, 3), dtype=np.uint8)
        offsets = rng.integers(0, self.size - plan.crop + 1, size=(len(rows), 2))
        flips = rng.random((len(rows), 3)) < 0.5
        for i, (row, (y, x), (flip_x, flip_y, turn)) in enumerate(zip(rows, offsets, flips, strict=True)):
            crop = self.pictures[row, y : y + plan.crop, x : x + plan.crop]
            crop = crop[:, ::-1] if flip_x else crop
            crop = crop[::-1] if flip_y else crop
            crops[i] = crop.transpose(1, 0, 2) if turn else crop
        return {
            "crops": torch.from_numpy(crops).permute(0, 3, 1, 2),
            "measures": torch.from_numpy(self.measures[rows]),
            "kind": torch.from_numpy(self.kind[rows]),
            "statistics": torch.from_numpy(self.statistics[rows]),
            "owner": torch.from_numpy(owner),
        }


def _losses(plan: ShippedPlan, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    network, heads = module
    crops = batch["crops"].float() / 255.0
    out = heads(network(crops.contiguous(memory_format=torch.channels_last)))
    measures = out["measures"].float()
    first, second = torch.triu_indices(len(measures), len(measures), 1, device=measures.device)
    same = batch["owner"][first] == batch["owner"][second]
    first, second = first[same], second[same]
    gap = batch["measures"][first] - batch["measures"][second]
    margin = (measures[first] - measures[second]) * torch.sign(gap)
    # Pairs count by how far apart they are: the order of near-equal pictures is chance.
    rank = (functional.softplus(-4.0 * margin) * gap.abs().clamp(max=1.0)).mean()
    return {
        "measures": functional.smooth_l1_loss(measures, batch["measures"], beta=0.5),
        "rank": plan.rank_weight * rank,
        "kind": plan.kind_weight * functional.cross_entropy(out["kind"].float(), batch["kind"]),
        "statistics": plan.statistics_weight
        * functional.smooth_l1_loss(out["statistics"].float(), batch["statistics"]),
    }


def train_shipped(
    weak_set: WeakSet,
    statistics: NDArray[np.float32],
    plan: ShippedPlan,
    folder: Path,
    *,
    device: str = "cpu",
    log: Any = None,  # noqa: ANN401 - see `train`
) -> StudentNetwork:
    """Train the student, or take a stopped training up again.

    Parameters
    ----------
    weak_set : WeakSet
    statistics : float32 array of shape (n, n_statistics)
        See `picture_statistics`.
    plan : ShippedPlan
    folder : Path
        For the checkpoint.
    device : str
        ``cpu`` or ``cuda``.
    log : callable, optional
        See `featbank.distill.loop.train`.

    Returns
    -------
    StudentNetwork
        In evaluation mode, without heads.

    Raises
    ------
    RunError
        As `featbank.distill.loop.train`.
    """
    torch.manual_seed(plan.seed)
    batches = _Batches(weak_set, statistics, plan)
    network = StudentNetwork(plan.architecture, plan.stem, plan.n_embedding)
    widths = {
        "measures": len(TRAINED_MEASURES),
        "kind": len(batches.kinds),
        "statistics": statistics.shape[1],
    }
    module = nn.Sequential(network, Heads(plan.n_embedding, widths)).to(memory_format=torch.channels_last)
    train(
        module,
        batches,
        lambda m, batch: _losses(plan, m, batch),
        Schedule(plan.n_steps, plan.learning_rate),
        checkpoint=folder / "checkpoint.pt",
        identity={"plan": asdict(plan), "n": len(weak_set.ratings)},
        seed=plan.seed,
        device=device,
        log=log,
    )
    return network.eval()
