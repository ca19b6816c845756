"""The training loop: AdamW, cosine schedule, checkpoints that a kill or a full disk cannot spoil.

Every batch follows from the seed and the number of its step, so a run that was stopped and taken up again
sees the same batches and ends with the same weights as an undisturbed one on the same device.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featbank.atomic import replacing
from featbank.digest import digest_json
from featbank.errors import RunError

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes
    ----------
    n_steps : int
        Steps in all.
    learning_rate : float
        Peak of the cosine, after ``warmup`` (share of the steps) of linear growth.
    weight_decay : float
        Of weights; norms and biases have none.
    clip : float
        Largest norm of a step's gradient.
    """

    n_steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float = 5.0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        n_warm = max(1, round(self.warmup * self.n_steps))
        if step < n_warm:
            return self.learning_rate * (step + 1) / n_warm
        passed = (step - n_warm) / max(1, self.n_steps - n_warm)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, passed)))


def train(
    module: nn.Module,
    make_batch: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], dict[str, torch.Tensor]],
    schedule: Schedule,
    *,
    checkpoint: Path,
    identity: dict[str, Any],
    seed: int = 0,
    device: str = "cpu",
    every_s: float = 120.0,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> nn.Module:
    """Train a module, or take a stopped training up again.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    make_batch : callable
        Gives the batch of a step; must depend on the step alone.
    loss_of : callable
        Gives the parts of the loss by name, already weighted; their sum is minimised.
    schedule : Schedule
    checkpoint : Path
        File for the state; appears by atomic rename, is removed by no one but the caller.
    identity : dict
        What the training depends on; a checkpoint of another identity is refused.
    seed : int
        Of dropout and the like.
    device : str
        ``cpu`` or ``cuda``; on CUDA the forward pass runs in bfloat16 where that is safe (autocast).
    every_s : float
        Seconds between checkpoints.
    log : callable, optional
        Called as ``log(step, losses)`` after every step, losses as floats by name.

    Returns
    -------
    torch.nn.Module
        The trained module in evaluation mode.

    Raises
    ------
    RunError
        If the checkpoint belongs to another training or cannot be written, or the loss stops being finite.
    """
    module.to(device).train()
    optimiser = torch.optim.AdamW(_groups(module, schedule.weight_decay), lr=schedule.learning_rate)
    digest = digest_json({**identity, "schedule": asdict(schedule), "seed": seed})
    first = _resume(checkpoint, digest, module, optimiser, device)
    written = time.monotonic()
    for step in range(first, schedule.n_steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in make_batch(step).items()}
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            parts = loss_of(module, batch)
        total = torch.stack([part.float() for part in parts.values()]).sum()
        values = {name: float(part.detach()) for name, part in parts.items()}
        if not all(map(math.isfinite, values.values())):
            raise RunError(
                f"training: the loss of step {step} is not finite ({values}). "
                f"Lower the learning rate ({schedule.learning_rate}); the last checkpoint is kept at {checkpoint}."
            )
        total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        optimiser.step()
        if log is not None:
            log(step, values)
        is_last = step + 1 == schedule.n_steps
        if is_last or time.monotonic() - written > every_s:
            _save(checkpoint, digest, step + 1, module, optimiser)
            written = time.monotonic()
    return module.eval()


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _save(path: Path, digest: str, step: int, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write the state beside the old one and rename it over: at any moment one whole checkpoint is there."""
    state = {
        "digest": digest,
        "step": step,
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "training") as scratch:
            torch.save(state, scratch)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise RunError(
            f"training: cannot write the checkpoint {path} ({error}). The previous one is intact; make room, then run "
            "the same command to go on from there."
        ) from error


def _resume(path: Path, digest: str, module: nn.Module, optimiser: torch.optim.Optimizer, device: str) -> int:
    """Load the state if there is one and return the step to go on with."""
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["digest"]
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError) as error:
        # Not torch's own text: it advises to load what may run code.
        raise RunError(
            f"training: the checkpoint {path} cannot be read ({type(error).__name__}). Delete it to start anew."
        ) from error
    if found != digest:
        raise RunError(
            f"training: the checkpoint {path} belongs to another training (other data, settings or seed). "
            "Delete it, or choose another name."
        )
    module.load_state_dict(state["module"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
