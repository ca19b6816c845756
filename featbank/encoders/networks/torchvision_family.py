"""Encoders of torchvision: ``torchvision:ARCHITECTURE/WEIGHTS``, for example ``torchvision:swin_t/IMAGENET1K_V1``."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights

from featbank.encoders.macs import build_on_meta
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import role_of
from featbank.encoders.networks.loading import State, match_state, read_published
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

_HEADS = ("fc", "head", "heads", "classifier")


def _weights(model: str) -> tuple[str, Any]:
    architecture, _, tag = model.partition("/")
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise unknown_name(
            "torchvision architecture", architecture, known, "torchvision.models.list_models()"
        )
    members = {weights.name: weights for weights in get_model_weights(architecture)}
    if tag not in members:
        raise unknown_name(
            "torchvision weights", model, [f"{architecture}/{name}" for name in members], "torchvision.models"
        )
    return architecture, members[tag]


def torchvision_source(model: str) -> WeightsSource:
    """Return where the weights of ``ARCHITECTURE/WEIGHTS`` are published; the file's name begins its digest.

    Raises
    ------
    UnknownNameError
        If torchvision knows no such architecture or weights.
    """
    _, weights = _weights(model)
    found = re.search(r"-([0-9a-f]{8})\.pth$", weights.url)
    is_swag = "swag" in weights.url.lower() or "SWAG" in weights.name
    licence, terms = ("CC-BY-NC-4.0", "restricted") if is_swag else ("BSD-3-Clause", "open")
    return WeightsSource(
        f"torchvision:{model}",
        weights.url,
        weights.meta.get("recipe", weights.url),
        licence,
        terms,
        found.group(1) if found else "",
    )


def torchvision_blueprint(model: str) -> Blueprint:
    """Describe the network of ``ARCHITECTURE/WEIGHTS``.

    Raises
    ------
    UnknownNameError
        If torchvision knows no such architecture or weights.
    EncoderError
        If the architecture has no head that could be taken off.
    """
    architecture, weights = _weights(model)
    source = torchvision_source(model)
    contract = weights.transforms()
    side = int(contract.crop_size[0])
    build_on_meta(partial(build_headless, architecture))  # refuses an architecture without a known head
    return Blueprint(
        base=f"torchvision:{model}",
        title=f"torchvision {architecture}, {weights.name}",
        role=role_of(f"torchvision:{model}"),
        reference="torchvision model zoo",
        licence=source.licence,
        source=source,
        build=partial(build_headless, architecture),
        mean=tuple(contract.mean),
        std=tuple(contract.std),
        native_size=(side, side),
        channels_last=architecture.startswith("swin"),
        n_prefix_tokens=1 if architecture.startswith("vit") else 0,
        n_params_published=int(weights.meta["num_params"]),
    )


def build_headless(architecture: str) -> nn.Module:
    """Build a classification network whose forward ends before the last linear layer.

    Raises
    ------
    EncoderError
        If the architecture keeps its head in another place than the known ones.
    """
    network = torchvision.models.get_model(architecture, weights=None)
    name = next((head for head in _HEADS if isinstance(getattr(network, head, None), nn.Module)), None)
    if name is None:
        raise EncoderError(
            f"torchvision:{architecture}: the head must be one of the attributes {', '.join(_HEADS)}; this "
            "architecture has none of them. Choose another one, or bring your own encoder (family `file:`)."
        )
    head = getattr(network, name)
    if isinstance(head, nn.Sequential) and isinstance(head[0], nn.LayerNorm):
        # ConvNeXt normalises and flattens inside its classifier: only the linear layer goes.
        head[-1] = nn.Identity()
    else:
        setattr(network, name, nn.Identity())
    return network


def convert_torchvision(model: str, path: Path) -> State:
    """Turn a published torchvision file into the state of the headless network.

    Raises
    ------
    EncoderError
        If its tensors are not exactly those of the whole network.
    """
    architecture, _ = _weights(model)
    published = read_published(path)
    if not isinstance(published, dict):
        raise EncoderError(
            f"weights: torchvision:{model} must be a dictionary of tensors, got {type(published).__name__}."
        )
    whole = build_on_meta(partial(torchvision.models.get_model, architecture, weights=None)).state_dict()
    headless = build_on_meta(partial(build_headless, architecture)).state_dict()
    # Files older than torch 0.4 do not count batches; the counter plays no part in evaluation.
    state = {
        key: published.get(key, torch.zeros(tensor.shape, dtype=tensor.dtype))
        for key, tensor in whole.items()
        if key in published or key.endswith("num_batches_tracked")
    }
    left_over = [str(key) for key in published if key not in whole]
    state = match_state(f"torchvision:{model}", state, whole, left_over)
    return {key: state[key] for key in headless}
