"""Encoders of published checkpoints, ``checkpoint:NAME``, after the facts of `catalogue`, and their networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import timm
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS, checkpoint_source
from featbank.encoders.networks.clip import N_CONTEXT, build_clip, build_image_tower
from featbank.encoders.networks.loading import State, map_checkpoint, match_state, read_published
from featbank.errors import EncoderError

N_STORED_PROMPTS: Final = 14
"""QualiCLIP's seven pairs of opposite prompts."""

_LOCAL_STAGES: Final = ((256, 16, 64), (512, 32, 16), (1024, 64, 4))


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


class DistortionAwareResNet(nn.Module):
    """HyperIQA's image network: a ResNet-50 whose four stages are each squeezed to a few numbers.

    Grids of averages over 7 x 7 positions and linear layers give 16 numbers for each of the first three stages and
    176 for the last, which makes crops of 224 x 224 pixels the only size. The 224 numbers together are what its
    hyper network reads. Layers of the trunk can be tapped on crops of any size with ``until``.

    References
    ----------
    Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, CVPR 2020,
    section 3.2 (local distortion aware module).
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _resnet("resnet50")
        # Of each stage: channels after its 1 x 1 convolution and cells of its grid; the last has no convolution.
        for level, (n_channels, n_squeezed, n_cells) in enumerate(_LOCAL_STAGES, start=1):
            squeeze = nn.Conv2d(n_channels, n_squeezed, 1, bias=False)
            setattr(self, f"lda{level}_pool", nn.Sequential(squeeze, nn.AvgPool2d(7)))
            setattr(self, f"lda{level}_fc", nn.Linear(n_squeezed * n_cells, 16))
        self.lda4_pool = nn.AvgPool2d(7)
        self.lda4_fc = nn.Linear(2048, 176)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Give (n, 224) for crops (n, 3, 224, 224)."""
        maps = self.trunk.maxpool(self.trunk.relu(self.trunk.bn1(self.trunk.conv1(crops))))
        # The whole trunk comes first, so that a pass which ends with it meets none of the fixed-size layers.
        stages = []
        for level in range(1, 5):
            maps = getattr(self.trunk, f"layer{level}")(maps)
            stages.append(maps)
        cells = [getattr(self, f"lda{level}_pool")(stage).flatten(1) for level, stage in enumerate(stages, 1)]
        parts = [getattr(self, f"lda{level}_fc")(cell) for level, cell in enumerate(cells, 1)]
        return torch.cat(parts, dim=1)


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
    "resnet50-distortion-aware": DistortionAwareResNet,
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


_NATIVE_SIZE = (224, 224)


def checkpoint_blueprint(name: str) -> Blueprint:
    """Describe the network of a published checkpoint.

    Raises
    ------
    UnknownNameError
        If there is no such checkpoint.
    EncoderError
        If the file is no network of its own.
    """
    source = checkpoint_source(name)
    if source == LEARNED_PROMPTS:
        raise EncoderError(
            f"{source.name} holds prompts, not a network; write 'checkpoint:clip-rn50?prompts=clip-iqa-plus'."
        )
    sheet = SHEETS[name]
    has_text = sheet.architecture in STORED
    return Blueprint(
        base=source.name,
        title=sheet.title,
        role=sheet.role,
        reference=sheet.reference,
        licence=source.licence,
        source=source,
        build=ARCHITECTURES[sheet.architecture],
        mean=sheet.normalisation[0],
        std=sheet.normalisation[1],
        native_size=_NATIVE_SIZE,
        channels_last=sheet.architecture == "swin_t",
        n_prefix_tokens=1 if sheet.architecture == "clip-vit-b32" else 0,
        l2=sheet.l2,
        stored_prefix="visual." if has_text else "",
        build_stored=STORED.get(sheet.architecture),
        text_model="RN50-quickgelu" if has_text else "",
        n_params_published=sheet.n_params_published,
    )


def convert_checkpoint(name: str, path: Path) -> State:
    """Turn a published checkpoint into the state that is kept.

    Raises
    ------
    EncoderError
        If the file is refused or its tensors do not fit exactly.
    """
    if checkpoint_source(name) == LEARNED_PROMPTS:
        return _convert_context(path)
    sheet = SHEETS[name]
    published = read_published(path)
    with torch.device("meta"):
        build = STORED.get(sheet.architecture, ARCHITECTURES[sheet.architecture])
        expected = build().state_dict()
    return map_checkpoint(sheet, published, expected)


def _convert_context(path: Path) -> State:
    published = read_published(path)
    tensor = published if isinstance(published, torch.Tensor) else None
    if tensor is None and isinstance(published, dict) and len(published) == 1:
        (tensor,) = published.values()
    if not isinstance(tensor, torch.Tensor):
        raise EncoderError(
            f"weights: {LEARNED_PROMPTS.name} must be one tensor, got {type(published).__name__}. "
            "This is another file than the published one."
        )
    expected = {"ctx": torch.empty(N_CONTEXT, 512, device="meta")}
    return match_state(LEARNED_PROMPTS.name, {"ctx": tensor}, expected, [])
