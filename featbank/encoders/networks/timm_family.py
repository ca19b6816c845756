"""Encoders of timm: ``timm:ARCHITECTURE.TAG``; facts and input contract come from the tag's own configuration."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import nn

from featbank.encoders.macs import build_on_meta
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.catalogue import role_of
from featbank.encoders.networks.loading import State, match_state, read_published
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

_NO_LICENCES: Final = (None, "", "unknown", "other")
_OPEN_LICENCES: Final = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})


@cache
def _config(model: str) -> Any:  # noqa: ANN401 - timm.models.PretrainedCfg
    architecture = model.partition(".")[0]
    if not timm.models.is_model(architecture):
        raise unknown_name("timm architecture", architecture, timm.list_models(), "timm.list_models()")
    known = list(timm.list_pretrained(f"{architecture}.*"))
    if model not in known:
        raise unknown_name("timm tag", model, known, f"timm.list_pretrained('{architecture}.*')")
    return timm.get_pretrained_cfg(model)


def timm_source(model: str) -> WeightsSource:
    """Return where the weights of a tag are published.

    Raises
    ------
    UnknownNameError
        If timm knows no such architecture or tag.
    """
    config = _config(model)
    licence = config.license if config.license not in _NO_LICENCES else "unstated"
    terms = "open" if licence in _OPEN_LICENCES else "unstated" if licence == "unstated" else "restricted"
    hub = config.hf_hub_id
    if hub == "timm/":
        hub += model
    if hub:
        page = f"https://huggingface.co/{hub}"
        url = f"{page}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    else:
        page = url = config.url
    return WeightsSource(f"timm:{model}", url, page, licence, terms)


def timm_blueprint(model: str) -> Blueprint:
    """Describe the network of a tag; builds it on the meta device to see its layout.

    Raises
    ------
    UnknownNameError
        If timm knows no such architecture or tag.
    """
    config = _config(model)
    source = timm_source(model)
    architecture = model.partition(".")[0]
    probe = build_on_meta(partial(_create, architecture))
    # Position embeddings are resampled to the crop's grid; at the native size nothing changes.
    options = {"dynamic_img_size": True} if getattr(probe, "dynamic_img_size", None) is False else {}
    whole = build_on_meta(partial(_create, architecture, num_classes=config.num_classes))
    n_published = sum(parameter.numel() for parameter in whole.parameters())
    return Blueprint(
        base=f"timm:{model}",
        title=f"timm {architecture}" + (f", {config.notes[0]}" if config.notes else ""),
        role=role_of(f"timm:{model}"),
        reference=config.paper_name or "timm",
        licence=source.licence,
        source=source,
        build=partial(_create, architecture, **options),
        mean=tuple(config.mean),
        std=tuple(config.std),
        native_size=(config.input_size[1], config.input_size[2]),
        channels_last=getattr(probe, "output_fmt", "NCHW") == "NHWC",
        n_prefix_tokens=int(getattr(probe, "num_prefix_tokens", 0)),
        n_params_published=n_published,
    )


def _create(architecture: str, num_classes: int = 0, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's own
    return timm.create_model(architecture, pretrained=False, num_classes=num_classes, **options)


def convert_timm(model: str, path: Path) -> State:
    """Turn a published timm file into the state of the headless network.

    The file must hold exactly the tensors of the network with its head; where a publisher's own layout differs,
    timm's conversion for that architecture is applied first and the result must be exact.

    Raises
    ------
    EncoderError
        If it does not.
    """
    config = _config(model)
    published = read_published(path)
    if isinstance(published, dict):
        for wrapper in ("state_dict", "model", "state_dict_ema"):
            if isinstance(published.get(wrapper), dict):
                published = published[wrapper]
                break
    if not isinstance(published, dict):
        raise EncoderError(
            f"weights: timm:{model} must be a dictionary of tensors, got {type(published).__name__}."
        )
    architecture = model.partition(".")[0]
    whole = build_on_meta(partial(_create, architecture, num_classes=config.num_classes))
    headless = build_on_meta(partial(_create, architecture))
    state: Mapping[str, torch.Tensor] = published
    expected = whole.state_dict()
    if set(state) != set(expected):
        entrypoint = timm.models.model_entrypoint(architecture)
        convert = getattr(sys.modules[entrypoint.__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            state = convert(dict(state), whole)
    state = match_state(f"timm:{model}", state, expected, [])
    return match_state(
        f"timm:{model}", {k: state[k] for k in headless.state_dict() if k in state}, headless.state_dict(), []
    )
