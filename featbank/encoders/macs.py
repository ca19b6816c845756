"""Counts multiply-accumulates with torch's dispatcher-level counter, without computing anything.

One convention everywhere: the products of convolutions, linear layers, matrix products and attention, at one
multiply-accumulate each; no bias, normalisation, activation, pooling or resampling. The forward pass runs on
the meta device, where tensors have shapes and no memory, so a 4K image costs nothing to count. Counting on
meta also keeps attention in its countable form: fused kernels of real devices are partly invisible to the
counter. Parameters are frozen first, because the counter demands gradient functions of trainable ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

COUNTER = "torch.utils.flop_counter.FlopCounterMode on the meta device, FLOPs / 2"
"""What stands behind every GMACs figure of a network; weight-free encoders count by formula."""


@dataclass(frozen=True)
class ForwardCount:
    """Cost of one forward pass: multiply-accumulates, and elements of the parameters that it reads."""

    macs: int
    n_params: int


def build_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device, whatever the caller's default device."""
    import torch

    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # as torch says where a constructor (RegNet's) computes with values
        with torch.random.fork_rng(devices=[]):
            return build().to("meta")


def count_forward(module: nn.Module, *inputs: Any) -> ForwardCount:  # noqa: ANN401 - tensors of any kind
    """Count one call of a module on the meta device with the given inputs."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter
    from torch.utils.flop_counter import FlopCounterMode

    module.requires_grad_(False)
    # FrozenBatchNorm2d keeps its weights as buffers; they are statistics, not trained parameters.
    sizes = {id(parameter): parameter.numel() for parameter in module.parameters()}
    seen: set[int] = set()

    class _Witness(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            kwargs = kwargs or {}
            seen.update(id(item) for item in tree_iter((args, kwargs)) if id(item) in sizes)
            return func(*args, **kwargs)

    with torch.no_grad(), FlopCounterMode(display=False) as counter, _Witness():
        module(*inputs)
    return ForwardCount(counter.get_total_flops() // 2, sum(sizes[key] for key in seen))
