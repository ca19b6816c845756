"""Trains the student that the package ships, on a weakly rated set, in two parts.

First one embedding learns four things at once: the measures of a picture, the order of versions of one patch, the
kind of distortion, and the natural-scene statistics of the picture. Then, with this trunk at rest, a mixer learns to
read statistics beside it: what one of them means depends on the others. What trunk and statistics give for every
picture is computed once; on it a small hidden layer learns in minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.stats import norm
from torch import nn
from torch.nn import functional

from experiments.student.weak_set import TRAINED_MEASURES, WeakSet
from featbank.digest import digest_bytes
from featbank.distill.distill import trunk_digest
from featbank.distill.network import Heads, StudentNetwork, to_input
from featbank.distill.training import Batch, Schedule, keep_blocks, train
from featbank.encoders import make_encoder

_LIMIT: Final = 4.0
"""Statistics are clipped to this many standard deviations: their tails are long and say little."""


@dataclass(frozen=True)
class ShippedPlan:
    """How the trunk is trained: ``crop`` is a side in pixels, ``patches`` and ``versions`` make a batch.

    ``held_out`` is the share of photographs never trained on; weights are those of the losses beside the measures' own.
    """

    architecture: str = "mobilenetv3_small_075"
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
    encoder, pictures, shape = make_encoder("classic:nss"), weak_set.pictures, (len(weak_set.ratings), 119)
    return keep_blocks(
        folder, "nss", {"encoder": encoder.identity(), "n": shape[0]}, shape, np.float32,
        lambda: Parallel(n_jobs=workers, return_as="generator")(
            delayed(encoder.encode)(np.array(pictures[k : k + 256])) for k in range(0, len(pictures), 256)
        ),
    )  # fmt: skip


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
        positions, patches = np.flatnonzero(is_training), ratings[is_training].groupby(["photo", "patch"])
        self.rows = [positions[rows] for rows in patches.indices.values()]

    def __call__(self, step: int) -> Batch:
        plan = self.plan
        rng = np.random.default_rng([plan.seed, step])
        chosen = rng.choice(len(self.rows), size=plan.patches, replace=len(self.rows) < plan.patches)
        rows = np.concatenate([rng.permutation(self.rows[k])[: plan.versions] for k in chosen])
        owner = np.repeat(range(plan.patches), [min(plan.versions, len(self.rows[k])) for k in chosen])
        crops = np.empty((len(rows), plan.crop, plan.crop, 3), dtype=np.uint8)
        offsets = rng.integers(0, self.pictures.shape[1] - plan.crop + 1, size=(len(rows), 2))
        flips = rng.random((len(rows), 3)) < 0.5
        for i, (row, (y, x), (flip_x, flip_y, turn)) in enumerate(zip(rows, offsets, flips, strict=True)):
            crop = self.pictures[row, y : y + plan.crop, x : x + plan.crop]
            crop = crop[:, ::-1] if flip_x else crop
            crop = crop[::-1] if flip_y else crop
            crops[i] = crop.transpose(1, 0, 2) if turn else crop
        return {
            "crops": torch.from_numpy(crops),
            "measures": torch.from_numpy(self.measures[rows]),
            "kind": torch.from_numpy(self.kind[rows]),
            "statistics": torch.from_numpy(self.statistics[rows]),
            "owner": torch.from_numpy(owner),
        }


def _losses(plan: ShippedPlan, module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    network, heads = module
    out = heads(network(to_input(batch["crops"])))
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
    """Train the student's trunk, or take a stopped training up again; ``statistics`` as of `picture_statistics`.

    Returns
    -------
    StudentNetwork
        In evaluation mode, without heads.
    """
    torch.manual_seed(plan.seed)
    batches = _Batches(weak_set, statistics, plan)
    network = StudentNetwork(plan.architecture, plan.n_embedding)
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


_AT_ONCE: Final = 32
_OWN: Final = ("mixer.",)
_FLAWLESS: Final = "none"


@dataclass(frozen=True)
class MixPlan:
    """How a mixer learns: hidden units, pictures in a batch, shares left out (see `Mixer`), weights of the losses."""

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
    n_read = 2 * len(TRAINED_MEASURES) + n_kinds
    network = StudentNetwork(trunk.architecture, trunk.n_embedding, True, plan.n_mixed, n_read)
    state, kept = network.state_dict(), trunk.state_dict()
    for name, value in kept.items():
        # Of the normalisation, the trunk's part; statistics have not been seen yet.
        state[name] = torch.cat([value, state[name][len(value) :]]) if value.ndim == 1 else value
    network.load_state_dict(state)
    return network.eval()


def pool_pictures(
    network: StudentNetwork, weak_set: WeakSet, rows: NDArray[np.int_], folder: Path
) -> NDArray[np.float32]:
    """Compute what the network pools of the pictures in ``rows``, shape (n, n_pooled), or open the file of that."""
    request = {"rows": digest_bytes(rows.tobytes()), "trunk": trunk_digest(network)}

    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), _AT_ONCE):
            pictures = np.array(weak_set.pictures[rows[start : start + _AT_ONCE]])
            with torch.inference_mode():
                yield network.pooled(to_input(torch.from_numpy(pictures))).numpy()

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
    """Train a network's mixer on what is pooled (n, n_pooled) of the pictures ``rows``, or take it up again.

    Nothing but the mixer is changed. A ValueError if the network has none.
    """
    if network.mixer is None:
        raise ValueError("mix: the network must have a mixer; make it with `widen`.")
    ratings, is_training = weak_set.ratings, np.zeros(len(weak_set.ratings), dtype=bool)
    is_training[rows] = True
    names = {kind: k for k, kind in enumerate(kinds_of(weak_set, rows))}
    with torch.no_grad():
        known = {
            "seen": network.seen(torch.from_numpy(np.array(pooled))),
            "measures": torch.from_numpy(measure_targets(ratings, is_training)[rows]),
            "within": torch.from_numpy(within_kinds(ratings, rows)),
            "kind": torch.tensor(ratings["kind"].iloc[rows].map(names).to_numpy(dtype=np.int64)),
        }

    def batch(step: int) -> Batch:
        picked = np.random.default_rng([plan.seed, step]).integers(0, len(rows), plan.pictures)
        return {name: values[torch.from_numpy(picked)] for name, values in known.items()}

    train(
        network.mixer,
        batch,
        lambda module, batch: _losses_mixing(plan, module, batch),
        Schedule(plan.n_steps, plan.learning_rate, plan.weight_decay),
        checkpoint=folder / "mix.pt",
        identity={"mix": asdict(plan), "n": len(rows), "network": trunk_digest(network, besides=_OWN)},
        seed=plan.seed,
        device=device,
        log=log,
    )


def _losses_mixing(plan: MixPlan, mixer: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    _, readings = mixer(batch["seen"], plan.drop_seen, plan.drop_mixed)
    n = len(TRAINED_MEASURES)
    measures, within, kind = readings.float().split([n, n, readings.shape[1] - 2 * n], dim=1)
    return {
        "measures": functional.smooth_l1_loss(measures, batch["measures"], beta=0.5),
        "within": plan.within_weight * functional.smooth_l1_loss(within, batch["within"], beta=0.5),
        "kind": plan.kind_weight * functional.cross_entropy(kind, batch["kind"]),
    }
