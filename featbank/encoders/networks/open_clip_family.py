"""Encoders of open_clip: ``open_clip:ARCHITECTURE/TAG``, the projected image embedding, and the text tower."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import open_clip
import torch

from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import role_of
from featbank.encoders.networks.clip import build_clip, build_image_tower
from featbank.encoders.networks.loading import State, match_state, read_published
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

# open_clip's configurations name no licence; these are the publishers' statements by tag.
_LICENCES: Final = {
    "openai": ("MIT", "open"),
    "webli": ("Apache-2.0", "open"),
    "datacomp_xl_s13b_b90k": ("MIT", "open"),
    "datacomp_s34b_b86k": ("MIT", "open"),
    "laion2b_s34b_b79k": ("MIT", "open"),
    "laion2b_s34b_b88k": ("MIT", "open"),
    "laion400m_e32": ("MIT", "open"),
    "datacompdr": ("apple-amlr", "restricted"),
}


def _split(model: str) -> tuple[str, str, dict[str, Any]]:
    architecture, _, tag = model.partition("/")
    if open_clip.get_model_config(architecture) is None:
        raise unknown_name(
            "open_clip architecture", architecture, open_clip.list_models(), "open_clip.list_models()"
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise unknown_name(
            "open_clip tag", model, [f"{architecture}/{item}" for item in tags], "open_clip.list_pretrained()"
        )
    config = open_clip.get_pretrained_cfg(architecture, tag)
    wants = bool(config.get("quick_gelu", False))
    has = bool(open_clip.get_model_config(architecture).get("quick_gelu", False))
    if wants != has:
        other = f"{architecture}-quickgelu" if wants else architecture.removesuffix("-quickgelu")
        raise EncoderError(
            f"open_clip:{model}: these weights were trained with {'the quick' if wants else 'the exact'} GELU, the "
            f"architecture uses the other one and would give wrong features. Write 'open_clip:{other}/{tag}'."
        )
    return architecture, tag, config


def open_clip_source(model: str) -> WeightsSource:
    """Return where the weights of ``ARCHITECTURE/TAG`` are published.

    Raises
    ------
    UnknownNameError
        If open_clip knows no such architecture or tag.
    EncoderError
        If the tag was trained with the other GELU, or its publisher offers no file that can be read.
    """
    _, tag, config = _split(model)
    licence, terms = _LICENCES.get(tag, ("unstated", "unstated"))
    hub = str(config.get("hf_hub") or "")
    if hub:
        organisation, name, *rest = hub.split("/")
        file = next((part for part in rest if part), "open_clip_model.safetensors")
        page = f"https://huggingface.co/{organisation}/{name}"
        return WeightsSource(f"open_clip:{model}", f"{page}/resolve/main/{file}", page, licence, terms)
    url = str(config.get("url") or "")
    return WeightsSource(f"open_clip:{model}", url, url, licence, terms)


def open_clip_blueprint(model: str) -> Blueprint:
    """Describe the model of ``ARCHITECTURE/TAG``.

    Raises
    ------
    UnknownNameError, EncoderError
        As `open_clip_source`.
    """
    architecture, tag, config = _split(model)
    source = open_clip_source(model)
    with torch.device("meta"):
        whole = build_clip(architecture)
    size = whole.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return Blueprint(
        base=f"open_clip:{model}",
        title=f"CLIP {architecture}, {tag}",
        role=role_of(f"open_clip:{model}"),
        reference="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; "
        "Ilharco et al., OpenCLIP, 2021",
        licence=source.licence,
        source=source,
        build=partial(build_image_tower, architecture),
        mean=tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
        native_size=(int(height), int(width)),
        n_prefix_tokens=1 if hasattr(whole.visual, "class_embedding") else 0,
        stored_prefix="visual.",
        build_stored=partial(build_clip, architecture),
        text_model=architecture,
        n_params_published=sum(parameter.numel() for parameter in whole.parameters()),
    )


def convert_open_clip(architecture: str, name: str, path: Path) -> State:
    """Turn a published open_clip file into the state of both towers.

    Raises
    ------
    EncoderError
        If its tensors are not exactly those of the architecture.
    """
    published = read_published(path)
    if isinstance(published, dict) and isinstance(published.get("state_dict"), dict):
        published = published["state_dict"]
    if not isinstance(published, dict):
        raise EncoderError(
            f"weights: {name} must be a dictionary of tensors, got {type(published).__name__}."
        )
    state = {str(key).removeprefix("module."): value for key, value in published.items()}
    with torch.device("meta"):
        expected = build_clip(architecture).state_dict()
    for key, tensor in expected.items():
        # Published as one number or as a vector of one.
        if (
            key in {"logit_scale", "logit_bias"}
            and key in state
            and state[key].numel() == tensor.numel() == 1
        ):
            state[key] = state[key].reshape(tensor.shape)
    return match_state(name, state, expected, [])
