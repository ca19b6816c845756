"""The second part of making the shipped student: with its trunk at rest, a mixer learns to read statistics beside it.

A trunk trained on some hundred photographs overlooks what statistics of neighbours and colours say, and what one
of them means depends on the others. What the trunk and the statistics give for every picture of the weakly
rated set is computed once; on it a small hidden layer learns in minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from experiments.students.kept import keep_blocks
from experiments.students.loop import Batch, Schedule, train
from experiments.students.network import Heads, Mixer, StudentNetwork
from experiments.students.picture_statistics import PictureStatistics
from experiments.students.settle import trunk_digest
from experiments.students.shipped import measure_targets, normal_scores
from experiments.students.weak_set import TRAINED_MEASURES, WeakSet

_AT_ONCE: Final = 32
_OWN: Final = ("mixer.",)
_FLAWLESS: Final = "none"


@dataclass(frozen=True)
class MixPlan:
    """How a mixer learns.

    Attributes
    ----------
    n_mixed : int
        Units of its hidden layer; 0 leaves the student as it is.
    n_steps : int
    pictures : int
        In a batch.
    learning_rate, weight_decay : float
    drop_seen, drop_mixed : float
        Shares left out in training, see `Mixer`.
    within_weight, kind_weight : float
        Of the parts of the loss beside the measures' own.
    held_out : float
        Share of photographs never trained on.
    seed : int
    """

    n_mixed: int = 256
    n_steps: int = 1500
    pictures: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    drop_seen: float = 0.15
    drop_mixed: float = 0.3
    within_weight: float = 0.5
    kind_weight: float = 0.1
    held_out: float = 0.15
    seed: int = 0


def widen(trunk: StudentNetwork, plan: MixPlan) -> StudentNetwork:
    """Return a network with a mixer above the trunk, as trained, of one without statistics."""
    torch.manual_seed(plan.seed)
    network = StudentNetwork(trunk.architecture, trunk.stem_kind, trunk.n_embedding, True, plan.n_mixed)
    state, kept = network.state_dict(), trunk.state_dict()
    for name, value in kept.items():
        # Of the normalisation, the trunk's part; statistics have not been seen yet.
        state[name] = torch.cat([value, state[name][len(value) :]]) if value.ndim == 1 else value
    network.load_state_dict(state)
    return network.eval()


def learn_statistics(network: StudentNetwork, weak_set: WeakSet, rows: NDArray[np.int_]) -> None:
    """Give the statistics' part of the normalisation the moments of the pictures in ``rows``."""
    statistics = PictureStatistics()
    with torch.inference_mode():
        values = torch.cat(
            [
                statistics(_crops(weak_set, rows[start : start + _AT_ONCE])).double()
                for start in range(0, len(rows), _AT_ONCE)
            ]
        )
    n_trunk = network.embed.in_features
    norm = network.pooled_norm
    with torch.no_grad():
        norm.running_mean[n_trunk:] = values.mean(dim=0).float()
        norm.running_var[n_trunk:] = values.var(dim=0, unbiased=False).float()


def _crops(weak_set: WeakSet, rows: NDArray[np.int_]) -> torch.Tensor:
    pictures = torch.from_numpy(np.array(weak_set.pictures[rows])).permute(0, 3, 1, 2).float() / 255.0
    return pictures.contiguous(memory_format=torch.channels_last)


def see_pictures(network: StudentNetwork, weak_set: WeakSet, folder: Path) -> NDArray[np.float32]:
    """Compute what the mixer sees of every picture, shape (n, n_seen), or open the file where that was done.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    n = len(weak_set.ratings)
    request = {"n": n, "network": trunk_digest(network, besides=_OWN)}

    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, n, _AT_ONCE):
            with torch.inference_mode():
                seen = network.seen(_crops(weak_set, np.arange(start, min(start + _AT_ONCE, n))))
            yield from seen.numpy()

    n_seen = network.mixer.first.in_features if network.mixer is not None else network.n_embedding
    return np.asarray(keep_blocks(folder, "seen", request, (n, n_seen), np.float32, blocks))


def within_kinds(ratings: pd.DataFrame, rows: NDArray[np.int_]) -> NDArray[np.float32]:
    """Return normal scores of the trained measures among pictures of the same kind, for ``rows``.

    Mild kinds differ little from each other on the scale of all; flawless pictures get 0.
    """
    chosen = ratings.iloc[rows]
    out = np.zeros((len(rows), len(TRAINED_MEASURES)), dtype=np.float32)
    for kind, places in chosen.groupby("kind", sort=True).indices.items():
        if kind == _FLAWLESS:
            continue
        for column, name in enumerate(TRAINED_MEASURES):
            values = chosen[name].to_numpy()[places]
            out[places, column] = normal_scores(values, values)
    return out


class _Reading(nn.Module):
    """Mixer and heads: what is seen of pictures to their targets."""

    def __init__(self, mixer: Mixer, heads: Heads, plan: MixPlan) -> None:
        super().__init__()
        self.mixer, self.heads, self.plan = mixer, heads, plan

    def forward(self, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = self.heads(self.mixer(seen, self.plan.drop_seen, self.plan.drop_mixed))
        return out


def mix(
    network: StudentNetwork,
    seen: NDArray[np.float32],
    weak_set: WeakSet,
    plan: MixPlan,
    folder: Path,
    *,
    device: str = "cpu",
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> None:
    """Train a network's mixer, or take a stopped training up again.

    Parameters
    ----------
    network : StudentNetwork
        Its mixer is changed in place, nothing else.
    seen : float32 array of shape (n, n_seen)
        Of all pictures of the set, see `see_pictures`.
    weak_set : WeakSet
        Photographs held out and chains never met are left out.
    plan : MixPlan
    folder : Path
        For the checkpoint.
    device, log
        As for `experiments.students.loop.train`.

    Raises
    ------
    RunError
        As `experiments.students.loop.train`.
    ValueError
        If the network has no mixer.
    """
    if network.mixer is None:
        raise ValueError("mix: the network must have a mixer; make it with `widen`.")
    ratings, is_training = weak_set.ratings, weak_set.is_training(plan.held_out)
    rows = np.flatnonzero(is_training)
    measures = measure_targets(ratings, is_training)[rows]
    within = within_kinds(ratings, rows)
    names = {kind: k for k, kind in enumerate(sorted(ratings["kind"].iloc[rows].unique()))}
    kinds = ratings["kind"].iloc[rows].map(names).to_numpy(dtype=np.int64)
    heads = Heads(
        network.n_embedding, {"measures": measures.shape[1], "within": within.shape[1], "kind": len(names)}
    )

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([plan.seed, step])
        picked = rng.integers(0, len(rows), plan.pictures)
        return {
            "seen": torch.from_numpy(seen[rows[picked]]),
            "measures": torch.from_numpy(measures[picked]),
            "within": torch.from_numpy(within[picked]),
            "kind": torch.from_numpy(kinds[picked]),
        }

    train(
        _Reading(network.mixer, heads, plan),
        batch,
        lambda module, batch: _losses(plan, module, batch),
        Schedule(plan.n_steps, plan.learning_rate, plan.weight_decay),
        checkpoint=folder / "mix.pt",
        identity={"mix": asdict(plan), "n": len(rows), "network": trunk_digest(network, besides=_OWN)},
        seed=plan.seed,
        device=device,
        log=log,
    )


def _losses(plan: MixPlan, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    out = module(batch["seen"])
    return {
        "measures": functional.smooth_l1_loss(out["measures"].float(), batch["measures"], beta=0.5),
        "within": plan.within_weight
        * functional.smooth_l1_loss(out["within"].float(), batch["within"], beta=0.5),
        "kind": plan.kind_weight * functional.cross_entropy(out["kind"].float(), batch["kind"]),
    }
