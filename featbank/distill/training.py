"""The training loop of small networks, and what it keeps on the disk: checkpoints, and blocks of numbers by photograph.

Every batch follows from the seed and the number of its step, so a run that was stopped and taken up again
sees the same batches and ends with the same weights as an undisturbed one on the same device.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from timm.optim import param_groups_weight_decay
from torch import nn
from tqdm import tqdm

from featbank.atomic import replacing
from featbank.digest import digest_json, seed_from
from featbank.errors import RunError
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
from featbank.images import read_photo
from featbank.views import View

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, the rate a cosine after ``warmup`` (share of the steps) of linear growth.

    Norms and biases have no weight decay; ``clip`` is the largest norm of a step's gradient.
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
    checkpoint : Path
        File for the state; removed by no one but the caller.
    identity : dict
        What the training depends on; a checkpoint of another identity is refused.
    seed : int
        Of dropout and the like.
    device : str
        ``cpu`` or ``cuda``, where the forward pass runs in bfloat16 as far as that is safe (autocast).
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
    groups = param_groups_weight_decay(module, schedule.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate)
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


def keep_blocks(
    folder: Path,
    name: str,
    request: Mapping[str, object],
    shape: tuple[int, ...],
    dtype: type[np.generic],
    make_blocks: Callable[[], Iterable[NDArray[Any]]],
    *,
    cure: str = "Make room.",
    show_progress: bool = False,
) -> NDArray[Any]:
    """Compute one block of numbers for each photograph and keep them, or open the file where that was done.

    Parameters
    ----------
    folder : Path
        For ``NAME.npy`` and ``NAME.json``; created if needed.
    name : str
        What the blocks are, also for messages and the bar.
    request : mapping
        JSON-able values that decide every number; a finished file of the same request is used again.
    shape : tuple of int
        Of all blocks together, photographs first.
    make_blocks : callable
        Gives the blocks in order; called only where there is no such file.
    cure : str
        What to do when there is no room.

    Returns
    -------
    array of shape ``shape``
        Memory-mapped, read-only.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    digest = digest_json(request)
    path, mark = folder / f"{name}.npy", folder / f"{name}.json"
    if mark.is_file() and json.loads(mark.read_text("utf-8")) == digest:
        return np.load(path, mmap_mode="r")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        # Not through a memory map: a full disk would then kill the process instead of raising.
        with path.open("wb") as file:
            head = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            off = None if show_progress else True  # None: where there is no terminal
            for block in tqdm(make_blocks(), total=shape[0], desc=name, disable=off):
                file.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
        mark.write_text(json.dumps(digest), encoding="utf-8")
    except OSError as error:
        n_bytes = np.prod(shape, dtype=np.float64) * np.dtype(dtype).itemsize
        raise RunError(
            f"student: cannot write {n_bytes / 1e9:.1f} GB of {name} to {path} ({error.strerror}). {cure}"
        ) from error
    return np.load(path, mmap_mode="r")


_TRIM: Final = 0.12
"""Largest share of a side that is trimmed."""


def crop_size(view: View) -> tuple[int, int]:
    """Return height and width of a view's crops.

    Raises RunError if they are not the same on every photograph, or the view has a second scale.
    """
    sizes = {
        view.geometry(h, w)[0][1:] for h, w in ((UHD_HEIGHT_PX, UHD_WIDTH_PX), (3000, 2000), (900, 1600))
    }
    if len(sizes) > 1 or len(view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)) > 1:
        raise RunError(
            f"distill: a student's view must give crops of one size at one scale, but {view.name!r} does not. "
            "For example tiles_5x5/center_224."
        )
    return next(iter(sizes))


def _cut(path: str, digest: str, view: View, n_crops: int, seed: int) -> NDArray[np.uint8]:
    """Take half of the crops from the view itself and half from trimmed copies."""
    pixels = read_photo(path).pixels
    rng = np.random.default_rng(seed_from("crops", str(seed), digest))
    height, width = pixels.shape[:2]
    found: list[NDArray[np.uint8]] = []
    while sum(map(len, found)) < n_crops:
        if found:
            trims = rng.uniform(0.0, _TRIM / 2.0, 4)
            top, left = int(trims[0] * height), int(trims[1] * width)
            bottom, right = height - int(trims[2] * height), width - int(trims[3] * width)
            source = np.ascontiguousarray(pixels[top:bottom, left:right])
        else:
            source = pixels
        crops = view.scales(source, seed_from(digest, view.name, str(len(found))))[0]
        n_wanted = max(1, n_crops // 2)
        found.append(crops[np.sort(rng.permutation(len(crops))[:n_wanted])])
    return np.concatenate(found)[:n_crops]


def keep_crops(
    photos: Sequence[tuple[str, str]],
    view: View,
    folder: Path,
    *,
    n_crops: int = 16,
    seed: int = 0,
    workers: int = 1,
    show_progress: bool = False,
) -> NDArray[np.uint8]:
    """Cut crops of photographs, or open the file where that was done; each photograph is decoded once.

    Half of them are crops of the view itself, half of it on randomly trimmed copies: trimming moves every crop and
    changes no pixel, so quality stays what it was.

    Parameters
    ----------
    photos : sequence of (path, digest)
    n_crops : int
        Of each photograph.
    workers : int
        Processes.

    Returns
    -------
    uint8 array of shape (n_photos, n_crops, height, width, 3)
        Memory-mapped; crops of the untrimmed view come first.

    Raises
    ------
    RunError
        If the view does not fit or the file cannot be written.
    ImageError
        If a photograph cannot be read.
    """
    height, width = crop_size(view)
    request = {
        "photos": [digest for _, digest in photos],
        "view": view.identity(),
        "n": n_crops,
        "seed": seed,
    }
    return keep_blocks(
        folder,
        "crops",
        request,
        (len(photos), n_crops, height, width, 3),
        np.uint8,
        lambda: Parallel(n_jobs=min(workers, len(photos)), return_as="generator")(
            delayed(_cut)(file, key, view, n_crops, seed) for file, key in photos
        ),
        cure="Make room, or ask for fewer with --crops.",
        show_progress=show_progress,
    )
