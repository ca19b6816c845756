"""Builds the networks of published checkpoints without their heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import timm
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from featbank.encoders.networks.clip import build_clip, build_image_tower

N_STORED_PROMPTS: Final = 14
"""QualiCLIP's seven pairs of opposite prompts."""


class PositionFreeAttentionPool(nn.Module):
    """CLIP ResNet's attention pool without positional embedding: one vector from a map of any size.

    The mean of the map asks, the mean and all positions answer. Keys and weights are CLIP's own. CLIP-IQA
    computes an answer for every position and keeps this one; the others never influence it.

    References
    ----------
    Wang, Chan, Loy, Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023, section 3.1.
    """

    def __init__(self, n_channels: int, n_heads: int, n_features: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(n_channels, n_channels)
        self.q_proj = nn.Linear(n_channels, n_channels)
        self.v_proj = nn.Linear(n_channels, n_channels)
        self.c_proj = nn.Linear(n_channels, n_features)
        self.n_heads = n_heads

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool maps of shape (n, channels, height, width) to (n, n_features)."""
        positions = maps.flatten(2).transpose(1, 2)
        mean = positions.mean(dim=1, keepdim=True)
        tokens = torch.cat([mean, positions], dim=1)
        pooled = nn.functional.scaled_dot_product_attention(
            self._split(self.q_proj(mean)), self._split(self.k_proj(tokens)), self._split(self.v_proj(tokens))
        )
        return self.c_proj(pooled.transpose(1, 2).flatten(2)[:, 0])

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, n_tokens, channels) to (n, n_heads, n_tokens, channels / n_heads)."""
        n, n_tokens, n_channels = tokens.shape
        return tokens.reshape(n, n_tokens, self.n_heads, n_channels // self.n_heads).transpose(1, 2)


class PooledTrunk(nn.Module):
    """A trunk that gives a list of maps; the last one is averaged to a vector."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Average the last map."""
        return self.trunk(crops)[-1].mean(dim=(2, 3))


def _resnet(name: str, **options: object) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, **options)
    network.fc = nn.Identity()
    return network


def _headless(name: str, head: str, **options: object) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None, **options)
    setattr(network, head, nn.Identity())
    return network


def _clip_rn50(*, with_prompts: bool = False) -> nn.Module:
    tower = build_image_tower("RN50-quickgelu")
    tower.attnpool = PositionFreeAttentionPool(2048, 32, 1024)
    if with_prompts:
        tower.register_buffer("prompts_features", torch.ones(N_STORED_PROMPTS, 1024))
    return tower


ARCHITECTURES: Final[dict[str, Callable[[], nn.Module]]] = {
    "resnet18": partial(_resnet, "resnet18"),
    "resnet50": partial(_resnet, "resnet50"),
    # The detection models were trained and are published with a normalisation that adds no epsilon.
    "resnet50-frozen-norm": partial(_resnet, "resnet50", norm_layer=partial(FrozenBatchNorm2d, eps=0.0)),
    "mobilenet-v3-frozen-norm": partial(
        _headless, "mobilenet_v3_large", "classifier", norm_layer=FrozenBatchNorm2d
    ),
    "densenet161": partial(_headless, "densenet161", "classifier"),
    "swin_t": partial(_headless, "swin_t", "head"),
    "clip-rn50": partial(_clip_rn50, with_prompts=True),
    "clip-rn50-with-text": _clip_rn50,
    "clip-vit-b32": partial(build_image_tower, "ViT-B-32-quickgelu"),
    "mobilenetv3-trunk": lambda: PooledTrunk(timm.create_model("mobilenetv3_large_100", features_only=True)),
}
"""Builders by the name that a sheet uses."""

STORED: Final[dict[str, Callable[[], nn.Module]]] = {
    "clip-rn50-with-text": partial(build_clip, "RN50-quickgelu"),
}
"""Builders of what is kept on disk, where that is more than the image network."""
