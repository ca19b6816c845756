"""Encoders of published checkpoints: ``checkpoint:NAME``, after the facts of `catalogue`."""

from __future__ import annotations

from pathlib import Path

import torch

from featbank.encoders.networks.architectures import ARCHITECTURES, STORED
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS
from featbank.encoders.networks.clip import N_CONTEXT
from featbank.encoders.networks.loading import State, map_checkpoint, match_state, read_published
from featbank.encoders.networks.sources import checkpoint_source
from featbank.errors import EncoderError

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
