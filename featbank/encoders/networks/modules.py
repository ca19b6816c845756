"""Networks as modules: bare on the meta device or with their weights, read at layers and pooled to vectors."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn

from featbank.digest import seed_from
from featbank.encoders.macs import ForwardCount, build_on_meta, count_forward
from featbank.encoders.networks.catalogue import Blueprint
from featbank.encoders.networks.loading import image_state, load_stored
from featbank.encoders.spec import STAGES
from featbank.errors import EncoderError

OUT = "out"
"""The tap that stands for the network's own vector."""


Read = tuple[str, tuple[str, ...]]
"""A layer and the ways it is pooled."""


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Ends a forward pass at the layer named by ``until``."""


def expand_taps(
    module: nn.Module, taps: Sequence[str], who: str, stages: Sequence[str] = ()
) -> tuple[str, ...]:
    """Replace patterns, where ``*`` stands for any text without a dot, by layer names in the network's own order.

    ``stages`` are the patterns that the tap `STAGES` stands for; where there are none, timm's own record is used.

    Raises EncoderError if a pattern fits no layer; the message gives near names.
    """
    names = [name for name, _ in module.named_modules() if name]
    top = ", ".join([name for name, _ in module.named_children()][:20])
    found: dict[str, None] = {}
    stages = stages or [info["module"] for info in getattr(module, "feature_info", ())]
    if STAGES in taps and not stages and STAGES not in names:
        raise EncoderError(
            f"encoder {who!r}: tap {STAGES!r} needs a network whose stages are known, and this one's are not. "
            f"Name its layers instead; top layers: {top}."
        )
    wanted = [name for tap in taps for name in (stages if tap == STAGES and stages else [tap])]
    for tap in wanted:
        if tap == OUT:
            found[OUT] = None
            continue
        pattern = re.compile(r"[^.]*".join(map(re.escape, tap.split("*"))))
        fitting = [name for name in names if pattern.fullmatch(name)]
        if not fitting:
            near = difflib.get_close_matches(tap, names, n=3, cutoff=0.3)
            raise EncoderError(
                f"encoder {who!r}: tap {tap!r} must name a layer or be {OUT!r}. Near names: "
                f"{', '.join(near) or 'none'}; "
                f"top layers: {top}."
            )
        found.update(dict.fromkeys(fitting))
    return tuple(found)


def run_taps(
    module: nn.Module, crops: torch.Tensor, taps: Sequence[str], until: str = ""
) -> dict[str, torch.Tensor]:
    """Run the network once on crops (n, 3, height, width), up to the layer ``until``, and keep the tapped layers.

    Raises EncoderError if a tapped layer did not run, or gives something else than one tensor.
    """
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, output: object) -> None:
        if not isinstance(output, torch.Tensor):
            raise EncoderError(
                f"tap {name!r} gives {type(output).__name__}, not one tensor. Tap a layer inside it instead."
            )
        kept[name] = output

    def stop(*_: object) -> None:
        raise _Stop

    handles = []
    try:
        for name in taps:
            if name != OUT:
                layer = module.get_submodule(name)
                handles.append(layer.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)))
        if until:
            handles.append(module.get_submodule(until).register_forward_hook(stop))
        try:
            output = module(crops)
        except _Stop:
            output = None
        if OUT in taps:
            keep(OUT, output)
    finally:
        for handle in handles:
            handle.remove()
    silent = ", ".join(name for name in taps if name not in kept)
    if silent:
        end = f" until {until!r}" if until else ""
        raise EncoderError(f"taps {silent} did not run in the forward pass{end}.")
    return kept


def pool(
    layer: torch.Tensor,
    kinds: Sequence[str],
    *,
    channels_last: bool = False,
    n_prefix_tokens: int = 0,
    who: str = "",
) -> torch.Tensor:
    """Turn what a layer gave into one vector for each crop, float32 (n, channels * n_kinds).

    Parameters
    ----------
    layer : float tensor
        Maps (n, channels, height, width) or, with ``channels_last``, (n, height, width, channels); token lists
        (n, n_tokens, channels); or vectors (n, channels), which pass unchanged.
    kinds : sequence of {"mean", "std", "max", "cls"}
        Over positions, without the prefix tokens; ``cls`` is the first token. Concatenated in order.

    Raises
    ------
    EncoderError
        If the shape is another one, or there is no class token.
    """
    layer = layer.float()
    if layer.ndim == 2:
        return layer
    if layer.ndim == 4:
        tokens = layer.flatten(1, 2) if channels_last else layer.flatten(2).transpose(1, 2)
        n_prefix = 0
    elif layer.ndim == 3:
        tokens, n_prefix = layer, n_prefix_tokens
    else:
        raise EncoderError(
            f"{who}: a tapped layer must give maps, tokens or vectors, got shape {tuple(layer.shape)}."
        )
    if "cls" in kinds and n_prefix == 0:
        raise EncoderError(
            f"{who}: pool 'cls' needs a class token, and this layer has none. Use mean, std or max instead."
        )
    # Sums of many values in single precision: the order must not depend on the batch, so positions are last.
    patches = tokens[:, n_prefix:].transpose(1, 2).contiguous()
    pooled = {
        "mean": lambda: patches.mean(dim=2),
        "std": lambda: patches.std(dim=2, correction=0),
        "max": lambda: patches.amax(dim=2),
        "cls": lambda: tokens[:, 0],
    }
    return torch.cat([pooled[kind]() for kind in kinds], dim=1)


class TapReader(nn.Module):
    """One forward pass of a blueprint's network up to the layer ``until``, read at layers and pooled."""

    def __init__(self, network: nn.Module, blueprint: Blueprint, reads: Sequence[Read], until: str) -> None:
        super().__init__()
        self.network, self.blueprint, self.reads, self.until = network, blueprint, tuple(reads), until

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one (n, n_columns) for each read."""
        layers = run_taps(self.network, crops, list(dict.fromkeys(tap for tap, _ in self.reads)), self.until)
        facts = self.blueprint
        layout: dict[str, Any] = {
            "channels_last": facts.channels_last, "n_prefix_tokens": facts.n_prefix_tokens, "who": facts.base,
        }  # fmt: skip
        return tuple(pool(layers[tap], kinds, **layout) for tap, kinds in self.reads)


RANDOM_EPOCH = 3
"""Raised with any change of `fill_randomly` that moves the numbers."""


_PROMPTS = "prompts_features"


def fill_randomly(module: nn.Module, seed: int, name: str = "") -> None:
    """Overwrite a network's weights with random ones that do not depend on library versions.

    ``name`` is the encoder's: two encoders of one architecture are two networks, as they are with their own weights.

    Matrices and kernels are normal with variance 1 / fan-in; offsets are 0; scales of normalisation, gains, layer
    scales and statistics keep the constant that their layer starts with, except that a constant of 0 in a scale
    becomes 1, since it would silence its branch. No layer then makes its signal grow, whose rounding errors would
    grow with it.
    """
    state = dict(module.named_parameters()) | {
        name: buffer for name, buffer in module.named_buffers() if name.endswith(_PROMPTS)
    }
    with torch.no_grad():
        for place, tensor in state.items():
            tensor.copy_(_values(place, tensor, seed, name))


def _values(place: str, tensor: torch.Tensor, seed: int, name: str) -> torch.Tensor:
    is_constant = tensor.numel() > 0 and bool((tensor == tensor.reshape(-1)[0]).all())
    last = place.rpartition(".")[2]
    if tensor.ndim <= 1 and last == "bias":
        return torch.zeros_like(tensor)
    # One number for each channel is a scale, in whatever shape (normalisation-free networks have gains); stored
    # prompts are no layer's scale.
    is_scale = tensor.ndim <= 1 or tensor.numel() == tensor.shape[0]
    if is_constant and last != _PROMPTS and (is_scale or tensor.any()):
        return torch.ones_like(tensor) if last in {"weight", "gain"} and not tensor.any() else tensor
    fan_in = max(1, tensor.numel() // tensor.shape[0]) if tensor.ndim >= 2 else tensor.numel()
    deviation = math.sqrt(1.0 / fan_in)
    rng = np.random.Generator(np.random.PCG64(seed_from("featbank random weights", str(seed), name, place)))
    values = rng.standard_normal(tuple(tensor.shape), dtype=np.float32)
    return torch.from_numpy(values * np.float32(deviation)).to(tensor.dtype)


DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Trial(NamedTuple):
    """What one forward pass on the meta device showed: its cost, and the columns that each tap gives."""

    cost: ForwardCount
    widths: tuple[int, ...]


def freeze(module: nn.Module) -> nn.Module:
    """Set evaluation mode and take away every gradient."""
    return module.eval().requires_grad_(False)


@lru_cache(maxsize=128)
def skeleton(blueprint: Blueprint) -> nn.Module:
    """Build the network on the meta device: shapes without memory."""
    return freeze(build_on_meta(blueprint.build))


@lru_cache(maxsize=4096)
def try_pass(
    blueprint: Blueprint, taps: tuple[str, ...], until: str, kinds: tuple[str, ...], height: int, width: int
) -> Trial:
    """Run one pass on the meta device; errors are the network's own."""
    reader = TapReader(skeleton(blueprint), blueprint, [(tap, kinds) for tap in taps], until)
    widths: list[int] = []
    reader.register_forward_hook(lambda _m, _i, out: widths.extend(block.shape[1] for block in out))
    count = count_forward(reader, torch.empty(1, 3, height, width, device="meta"))
    return Trial(count, tuple(widths))


@lru_cache(maxsize=16)
def load_network(
    blueprint: Blueprint, seed: int | None, digest: str, precision: str, device: str
) -> nn.Module:
    """Build the network with its weights, whose digest is part of the key of the cache."""
    # The library's initialisation is overwritten; it must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        module = blueprint.build()
    if seed is None:
        expected = module.state_dict()
        stored = load_stored(blueprint.source, digest)
        module.load_state_dict(image_state(blueprint, stored, expected), strict=True)
    else:
        fill_randomly(module, seed, blueprint.base)
    # Channels last: with one thread and few crops torch otherwise leaves the fast convolutions aside.
    return freeze(module).to(device=device, dtype=DTYPES[precision], memory_format=torch.channels_last)
