"""Turns an encoder name of a network family into its encoder, and a published file into the kept weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from featbank.encoders.names import EncoderName, parse_encoder_name
from featbank.encoders.networks import checkpoint_family, open_clip_family, timm_family, torchvision_family
from featbank.encoders.networks.blueprint import Blueprint
from featbank.encoders.networks.encoder import NetworkEncoder
from featbank.encoders.networks.loading import State, take_in
from featbank.encoders.weights import find_sources
from featbank.errors import EncoderError

_BLUEPRINTS = {
    "timm": timm_family.timm_blueprint,
    "open_clip": open_clip_family.open_clip_blueprint,
    "torchvision": torchvision_family.torchvision_blueprint,
    "checkpoint": checkpoint_family.checkpoint_blueprint,
}


@lru_cache(maxsize=256)
def blueprint_of(base: str) -> Blueprint:
    """Return the blueprint of ``family:model``.

    Raises
    ------
    UnknownNameError, EncoderError
        If the family does not know the model, or cannot read it as an encoder.
    """
    name = parse_encoder_name(base)
    return _BLUEPRINTS[name.family](name.model)


def build_network_encoder(text: str) -> NetworkEncoder:
    """Build the encoder called ``text``; loads no weights.

    Raises
    ------
    UnknownNameError, EncoderError
        If the name breaks the grammar, is not known, or an option does not fit.
    """
    return _build(parse_encoder_name(text).text)


@lru_cache(maxsize=256)
def _build(text: str) -> NetworkEncoder:
    # Encoders keep no state of their own, so one of each name serves the whole process.
    name = parse_encoder_name(text)
    return NetworkEncoder(name, blueprint_of(name.base))


def take_in_weights(base: str, path: Path, accepted: str = "") -> dict[str, object]:
    """Check and convert a published file and put it into the weights folder.

    Parameters
    ----------
    base : str
        Encoder name; options are ignored.
    path : Path
        The file as published.
    accepted : str
        Licence accepted by name.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    EncoderError
        If the licence was not accepted or the file does not fit.
    """
    name: EncoderName = parse_encoder_name(parse_encoder_name(base).base)
    sources = find_sources(name.text)
    if not sources:
        raise EncoderError(f"weights: encoder {base!r} needs no weights file.")

    def convert(file: Path) -> State:
        if name.family == "timm":
            return timm_family.convert_timm(name.model, file)
        if name.family == "torchvision":
            return torchvision_family.convert_torchvision(name.model, file)
        if name.family == "open_clip":
            return open_clip_family.convert_open_clip(name.model.partition("/")[0], name.base, file)
        return checkpoint_family.convert_checkpoint(name.model, file)

    return take_in(path, sources[0], convert, accepted)
