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

from experiments.student.shipped import measure_targets, normal_scores
from experiments.student.weak_set import TRAINED_MEASURES, WeakSet
from featbank.digest import digest_bytes
from featbank.distill.kept import keep_blocks
from featbank.distill.loop import Batch, Schedule, train
from featbank.distill.network import Mixer, StudentNetwork
from featbank.distill.settle import trunk_digest

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


def kinds_of(weak_set: WeakSet, rows: NDArray[np.int_]) -> list[str]:
    """Return the kinds of distortion of the pictures in ``rows``, in the order of their readings."""
    return sorted(weak_set.ratings["kind"].iloc[rows].unique())


def widen(trunk: StudentNetwork, plan: MixPlan, n_kinds: int) -> StudentNetwork:
    """Return a network with a mixer above the trunk, as trained, of one without statistics.

    Its readings are the trained measures, the same within each kind, and ``n_kinds`` logits of the kinds.
    """
    torch.manual_seed(plan.seed)
    network = StudentNetwork(
        trunk.architecture,
        trunk.stem_kind,
        trunk.n_embedding,
        True,
        plan.n_mixed,
        2 * len(TRAINED_MEASURES) + n_kinds,
    )
    state, kept = network.state_dict(), trunk.state_dict()
    for name, value in kept.items():
        # Of the normalisation, the trunk's part; statistics have not been seen yet.
        state[name] = torch.cat([value, state[name][len(value) :]]) if value.ndim == 1 else value
    network.load_state_dict(state)
    return network.eval()


def pool_pictures(
    network: StudentNetwork, weak_set: WeakSet, rows: NDArray[np.int_], folder: Path
) -> NDArray[np.float32]:
    """Compute what the network pools of the pictures in ``rows``, shape (n, n_pooled), or open the file of that.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    request = {"rows": digest_bytes(rows.tobytes()), "trunk": trunk_digest(network)}

    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), _AT_ONCE):
            pictures = np.array(weak_set.pictures[rows[start : start + _AT_ONCE]])
            crops = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0
            with torch.inference_mode():
                pooled = network.pooled(crops.contiguous(memory_format=torch.channels_last))
            yield from pooled.numpy()

    shape = (len(rows), network.pooled_norm.running_mean.shape[0])
    return keep_blocks(folder, "pooled", request, shape, np.float32, blocks)


def learn_statistics(network: StudentNetwork, pooled: NDArray[np.float32]) -> None:
    """Give the statistics' part of the normalisation the moments of what is pooled (n, n_pooled)."""
    n_trunk = network.embed.in_features
    statistics = torch.from_numpy(pooled[:, n_trunk:].astype(np.float64))
    norm = network.pooled_norm
    with torch.no_grad():
        norm.running_mean[n_trunk:] = statistics.mean(dim=0).float()
        norm.running_var[n_trunk:] = statistics.var(dim=0, unbiased=False).float()


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
    """What is seen of pictures to the readings, by name."""

    def __init__(self, mixer: Mixer, plan: MixPlan) -> None:
        super().__init__()
        self.mixer, self.plan = mixer, plan

    def forward(self, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        _, readings = self.mixer(seen, self.plan.drop_seen, self.plan.drop_mixed)
        n = len(TRAINED_MEASURES)
        parts = torch.split(readings, [n, n, readings.shape[1] - 2 * n], dim=1)
        return dict(zip(("measures", "within", "kind"), parts, strict=True))


def mix(
    network: StudentNetwork,
    pooled: NDArray[np.float32],
    weak_set: WeakSet,
    rows: NDArray[np.int_],
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
    pooled : float32 array of shape (n, n_pooled)
        Of the pictures in ``rows``, see `pool_pictures`.
    weak_set : WeakSet
    rows : int array of shape (n,)
        The pictures to learn from, see `WeakSet.is_training`.
    plan : MixPlan
    folder : Path
        For the checkpoint.
    device, log
        As for `featbank.distill.loop.train`.

    Raises
    ------
    RunError
        As `featbank.distill.loop.train`.
    ValueError
        If the network has no mixer.
    """
    if network.mixer is None:
        raise ValueError("mix: the network must have a mixer; make it with `widen`.")
    ratings, is_training = weak_set.ratings, np.zeros(len(weak_set.ratings), dtype=bool)
    is_training[rows] = True
    with torch.no_grad():
        seen = network.seen_in(torch.from_numpy(np.array(pooled)))
    measures = measure_targets(ratings, is_training)[rows]
    within = within_kinds(ratings, rows)
    names = {kind: k for k, kind in enumerate(kinds_of(weak_set, rows))}
    kinds = ratings["kind"].iloc[rows].map(names).to_numpy(dtype=np.int64)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng([plan.seed, step])
        picked = rng.integers(0, len(rows), plan.pictures)
        return {
            "seen": seen[torch.from_numpy(picked)],
            "measures": torch.from_numpy(measures[picked]),
            "within": torch.from_numpy(within[picked]),
            "kind": torch.from_numpy(kinds[picked]),
        }

    train(
        _Reading(network.mixer, plan),
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
