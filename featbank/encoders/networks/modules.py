"""A blueprint's network as a module: bare on the meta device for counting, or with its weights for running."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import nn

from featbank.encoders.macs import ForwardCount, build_on_meta, count_forward
from featbank.encoders.networks import random_weights
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.loading import image_state, load_stored
from featbank.encoders.networks.reading import Read, TapReader

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Trial:
    """What one forward pass on the meta device showed.

    Attributes
    ----------
    count : ForwardCount
    widths : tuple of int
        Columns that each tap gives.
    """

    count: ForwardCount
    widths: tuple[int, ...]


def freeze(module: nn.Module) -> nn.Module:
    """Set evaluation mode and take away every gradient."""
    return module.eval().requires_grad_(False)


@lru_cache(maxsize=128)
def skeleton(blueprint: Blueprint) -> nn.Module:
    """Build the network on the meta device: shapes without memory."""
    return freeze(build_on_meta(blueprint.build))


def tap_reader(network: nn.Module, blueprint: Blueprint, reads: tuple[Read, ...], until: str) -> TapReader:
    """Return a network with its layers read as its blueprint says."""
    return TapReader(
        network,
        reads,
        until,
        channels_last=blueprint.channels_last,
        n_prefix_tokens=blueprint.n_prefix_tokens,
        who=blueprint.base,
    )


@lru_cache(maxsize=4096)
def try_pass(
    blueprint: Blueprint, taps: tuple[str, ...], until: str, kinds: tuple[str, ...], height: int, width: int
) -> Trial:
    """Run one pass on the meta device; errors are the network's own."""
    reader = tap_reader(skeleton(blueprint), blueprint, tuple((tap, kinds) for tap in taps), until)
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
        random_weights.fill_randomly(module, seed)
    # Channels last: with one thread and few crops torch otherwise leaves the fast convolutions aside.
    return freeze(module).to(device=device, dtype=DTYPES[precision], memory_format=torch.channels_last)
