"""Named random weights, for trying a recipe without any download: the same numbers everywhere for one seed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from featbank.digest import seed_from

EPOCH = 2
"""Raised with any change of this module that moves the numbers."""


_PROMPTS = "prompts_features"


def fill_randomly(module: nn.Module, seed: int) -> None:
    """Overwrite a network's weights with random ones that do not depend on library versions.

    Matrices and kernels are normal with variance 1 / fan-in; offsets are 0; scales of normalisation, gains, layer
    scales and statistics keep the constant that their layer starts with, except that a constant of 0 in a scale
    becomes 1, since it would silence its branch. No layer then makes its signal grow, whose rounding errors would
    grow with it: behind a gate that is driven into saturation they become errors of whole per cents.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    seed : int
        The same seed and names give the same weights.
    """
    state = dict(module.named_parameters()) | {
        name: buffer for name, buffer in module.named_buffers() if name.endswith(_PROMPTS)
    }
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(_values(name, tensor, seed))


def _values(name: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    is_constant = tensor.numel() > 0 and bool((tensor == tensor.reshape(-1)[0]).all())
    last = name.rpartition(".")[2]
    if tensor.ndim <= 1 and last == "bias":
        return torch.zeros_like(tensor)
    # One number for each channel is a scale, in whatever shape (normalisation-free networks have gains); stored
    # prompts are no layer's scale.
    is_scale = tensor.ndim <= 1 or tensor.numel() == tensor.shape[0]
    if is_constant and last != _PROMPTS and (is_scale or tensor.any()):
        return torch.ones_like(tensor) if last in {"weight", "gain"} and not tensor.any() else tensor
    fan_in = max(1, tensor.numel() // tensor.shape[0]) if tensor.ndim >= 2 else tensor.numel()
    deviation = math.sqrt(1.0 / fan_in)
    rng = np.random.Generator(np.random.PCG64(seed_from("featbank random weights", str(seed), name)))
    values = rng.standard_normal(tuple(tensor.shape), dtype=np.float32)
    return torch.from_numpy(values * np.float32(deviation)).to(tensor.dtype)
