"""Finds the weights file behind an encoder name; asks the families' own libraries what they publish."""

from __future__ import annotations

from featbank.encoders.names import EncoderName
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS
from featbank.encoders.networks.prompts import LEARNED
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

_LISTING = "featbank list encoders"


def sources_of(name: EncoderName) -> tuple[WeightsSource, ...]:
    """Return the files that an encoder needs, the network's first.

    Raises
    ------
    UnknownNameError
        If the family does not know the model.
    EncoderError
        If the family's library is not installed.
    """
    source = _network_source(name)
    return (source, LEARNED_PROMPTS) if name.options.get("prompts") == LEARNED else (source,)


def checkpoint_source(name: str) -> WeightsSource:
    """Return the source of ``checkpoint:name``.

    Raises
    ------
    UnknownNameError
        If there is no such checkpoint.
    """
    if f"checkpoint:{name}" == LEARNED_PROMPTS.name:
        return LEARNED_PROMPTS
    if name not in SHEETS:
        raise unknown_name(
            "checkpoint", f"checkpoint:{name}", [f"checkpoint:{key}" for key in SHEETS], _LISTING
        )
    return SHEETS[name].source


def _network_source(name: EncoderName) -> WeightsSource:
    if name.family == "checkpoint":
        return checkpoint_source(name.model)
    try:
        if name.family == "timm":
            from featbank.encoders.networks.timm_family import timm_source

            return timm_source(name.model)
        if name.family == "open_clip":
            from featbank.encoders.networks.open_clip_family import open_clip_source

            return open_clip_source(name.model)
        from featbank.encoders.networks.torchvision_family import torchvision_source

        return torchvision_source(name.model)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "featbank":
            raise
        raise EncoderError(
            f"encoder {name.text!r} needs the package {error.name!r}, which is not installed. "
            "Install the optional packages of network encoders: pip install 'featbank[encoders]'."
        ) from error
