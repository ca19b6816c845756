"""Settles a student: with its trunk at rest, embedding and heads learn on whole photographs.

Steps on crops show a few crops of a few photographs at a time, and the trunk has most of their cost. What it
gives for every crop of the view, as the exported encoder sees the photograph, is therefore computed once and
kept; on these the rest of the network learns from every photograph many times, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from featbank.digest import digest_bytes, digest_json, seed_from
from featbank.distill.kept import keep_blocks
from featbank.distill.lesson import Targets
from featbank.distill.loop import Batch, Schedule, train
from featbank.distill.network import Heads, StudentNetwork, embed_standard, standardise
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
from featbank.images import read_photo
from featbank.views import View

_MOST_CROPS: Final = 32
"""Crops of a photograph that are kept; of more, evenly spread ones."""


@dataclass(frozen=True)
class SettlePlan:
    """How a student settles.

    Attributes
    ----------
    n_steps : int
        0 leaves the student as it is.
    photos : int
        Photographs in a batch, each with all its kept crops.
    learning_rate, weight_decay : float
    feature_weight, score_weight : float
        Of the two parts of the loss.
    seed : int
    """

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
    """Compute what the trunk gives for the crops of photographs, or open the file where that was done.

    Parameters
    ----------
    network : StudentNetwork
        Put into evaluation mode.
    photos : sequence of (path, digest)
    view : View
        Gives crops of one size.
    folder : Path
        For the file, see `keep_blocks`.
    device : str
    show_progress : bool

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
    network : StudentNetwork
        Its embedding, and how that is normalised, are changed in place, nothing else.
    heads : Heads
        ``features`` and ``score``; changed in place.
    pooled : float32 array of shape (n_photos, n_crops, n_pooled)
        See `pool_photos`.
    targets : Targets
    learn : int array
        Positions of the photographs to learn from.
    plan : SettlePlan
    checkpoint, identity, device, log
        As for `featbank.distill.loop.train`.

    Returns
    -------
    dict of str to float
        ``before`` and ``after``: the loss on the photographs learned from. Where training did not lower it, the
        student stays as it was.

    Raises
    ------
    RunError
        As `featbank.distill.loop.train`.
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
    """Predict standardised scores of whole photographs.

    Parameters
    ----------
    network, heads
        As `settle` left them.
    pooled : float32 array of shape (n_photos, n_crops, n_pooled)
    rows : int array
        Positions of the photographs.
    """
    device = network.embed.weight.device
    reading = _Reading(network, heads).eval()
    with torch.inference_mode():
        scores = [reading(torch.from_numpy(np.array(pooled[[row]])).to(device))["score"] for row in rows]
    return np.array([float(score[0, 0]) for score in scores])
