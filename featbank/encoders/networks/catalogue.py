"""What is known of networks before any weights are there: how to build, feed and read them, published checkpoints.

The facts stand in ``catalogue.toml``; no deep-learning library is needed, and the families' own libraries are asked
only for what they publish. A role says what features are meant to describe and changes no number; models that are not
listed are taken as ``content``: what an image shows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from featbank.encoders.registry import LISTING, load_part
from featbank.encoders.spec import EncoderName, parse_encoder_name
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[float, float, float]

NORMALISATIONS: Final[dict[str, tuple[Triple, Triple]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Means and deviations by name; "none" is raw RGB in [0, 1]."""

LEARNED: Final = "clip-iqa-plus"
"""Name of CLIP-IQA+'s learned prompts, which need a file of their own."""

STORED: Final = "stored"
"""Name of the prompt features that a checkpoint brings along."""


@dataclass(frozen=True)
class CheckpointSheet:
    """One published checkpoint; title, role and reference as in `EncoderSpec`.

    Attributes
    ----------
    architecture : str
        Name of the builder in `featbank.encoders.networks.families`.
    gmacs_224 : float
        Cost of one crop of 224 x 224 pixels.
    rules : sequence of (pattern, replacement)
        Regular expressions on whole keys; the first that matches maps the key.
    state_path : str
        Key of the published dictionary that holds the tensors; empty if it is the state itself.
    drop : sequence of str
        Patterns of keys that are left out: heads, projectors, text towers.
    filled : sequence of str
        Patterns of expected keys that the file may lack because they play no part: they become zeros.
    normalisation : str
        One of `NORMALISATIONS`.
    l2 : bool
        Whether the published features are divided by their norm.
    text_model : str
        As of `Blueprint`.
    n_params_published : int
        Parameters of the whole published network, heads included; 0 where that is not known.
    side_px : int
        Side of the square crops on which it was trained.
    fitted_on : str
        Published dataset whose training MOS the network has learned; empty where it has learned none that counts.
    blocks_by_stage : sequence of int
        Where the file numbers blocks through: how many each stage has. Rules see ``_blocks.STAGE.BLOCK``.
    """

    source: WeightsSource
    title: str
    role: str
    reference: str
    architecture: str
    n_features: int
    gmacs_224: float
    rules: Sequence[Sequence[str]]
    state_path: str = ""
    drop: Sequence[str] = ()
    filled: Sequence[str] = ()
    normalisation: str = "imagenet"
    l2: bool = False
    text_model: str = ""
    n_params_published: int = 0
    note: str = ""
    fitted_on: str = ""
    side_px: int = 224
    blocks_by_stage: Sequence[int] = ()

    @property
    def remark(self) -> str:
        """The note, and what is to be known of a network that has learned MOS."""
        learned = f"has learned the MOS of {self.fitted_on}'s training split" if self.fitted_on else ""
        return "; ".join(filter(None, (self.note, learned)))


class Suggestion(NamedTuple):
    """A proven encoder of an open family: ``gmacs`` are for one square crop of ``side_px``."""

    name: str
    role: str
    title: str
    n_features: int
    side_px: int
    gmacs: float
    licence: str


_FACTS: Final[dict[str, Any]] = tomllib.loads(
    resources.files("featbank.encoders.networks").joinpath("catalogue.toml").read_text("utf-8")
)

PROMPTS: Final = {name: tuple(texts) for name, texts in _FACTS["prompts"].items()}
"""Prompt lists encoded by the text tower of the encoder's own weights."""

SHEETS: Final = {
    name: CheckpointSheet(**facts | {"source": WeightsSource(f"checkpoint:{name}", **facts["source"])})
    for name, facts in _FACTS["checkpoints"].items()
}
"""All checkpoints by the name after ``checkpoint:``."""

LEARNED_PROMPTS: Final = WeightsSource(**_FACTS["learned_prompts"])
"""CLIP-IQA+'s learned context tokens."""

SUGGESTIONS: Final = tuple(Suggestion(*row) for row in _FACTS["suggestions"])
"""Encoders that the recipes use or that are known to work well at their cost."""

PACKAGES: Final[dict[str, Sequence[str]]] = _FACTS["packages"]
"""Packages that carry files of other families, by encoder name: requirement and path in the wheel."""

STAGES_OF: Final[dict[str, Sequence[str]]] = _FACTS["stages"]
"""Layers that end the stages of architectures, as patterns, for the tap ``stages``."""

OPEN_CLIP_LICENCES: Final[dict[str, tuple[str, str]]] = _FACTS["open_clip_licences"]
"""Licence and terms by tag, as their publishers state them: open_clip's configurations name none."""

_ROLES: Final = {item.name: item.role for item in SUGGESTIONS} | {
    sheet.source.name: sheet.role for sheet in SHEETS.values()
}


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network of a family, by name; equal names are equal networks, so that caches can hold one of each.

    Attributes
    ----------
    source : WeightsSource
        Bears the encoder's name without options.
    build : callable
        Builds the headless image network, weights as its library initialises them; its forward takes float
        (n_crops, 3, height, width) and gives (n_crops, n_features). Works under any default device.
    mean, std : (r, g, b)
        Input normalisation of these very weights; zeros and ones mean raw RGB in [0, 1].
    native_size : (height, width)
        Crop size for which facts are stated.
    channels_last : bool
        Whether maps of inner layers are (n, height, width, channels).
    n_prefix_tokens : int
        Tokens in front of the patches' (class token, registers) in token lists of inner layers.
    text_model : str
        open_clip's name of the model with both towers, which are then kept together; empty without a text tower.
    stages : sequence of str
        Layers that end its stages, as patterns; empty where they are not known, or where the network itself tells.
    """

    source: WeightsSource
    title: str
    reference: str
    build: Callable[[], nn.Module]
    mean: Triple
    std: Triple
    native_size: tuple[int, int]
    channels_last: bool = False
    n_prefix_tokens: int = 0
    l2: bool = False
    text_model: str = ""
    n_params_published: int = 0
    stages: Sequence[str] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and other.base == self.base

    def __hash__(self) -> int:
        return hash(self.base)

    @property
    def base(self) -> str:
        """Encoder name without options."""
        return self.source.name

    @property
    def role(self) -> str:
        """The listed role of the model."""
        return _ROLES.get(self.base, "content")


def fitted_on(encoder: str) -> str:
    """Return the dataset whose training MOS an encoder's network has learned, where that is known; else empty."""
    family, _, model = encoder.partition("?")[0].partition(":")
    sheet = SHEETS.get(model) if family == "checkpoint" and "random=" not in encoder else None
    return sheet.fitted_on if sheet else ""


def packaged_sources() -> list[WeightsSource]:
    """Return the sources of `PACKAGES`; without the library of their family, none."""
    try:
        return [sources_of(parse_encoder_name(name))[0] for name in PACKAGES]
    except EncoderError:
        return []


def sources_of(name: EncoderName) -> tuple[WeightsSource, ...]:
    """Return the files that an encoder needs, the network's first.

    Raises UnknownNameError if the family does not know the model; EncoderError if the family's library
    is not installed.
    """
    if name.family == "checkpoint":
        source = checkpoint_source(name.model)
    else:
        load_part("featbank.encoders.networks.families:check_weights_named", name.text)(name)
        source = load_part("featbank.encoders.networks.families:FAMILIES", name.text)[name.family].source(
            name.model
        )
    return (source, LEARNED_PROMPTS) if name.options.get("prompts") == LEARNED else (source,)


def checkpoint_source(name: str) -> WeightsSource:
    """Return the source of ``checkpoint:name``.

    Raises UnknownNameError if there is no such checkpoint.
    """
    if f"checkpoint:{name}" == LEARNED_PROMPTS.name:
        return LEARNED_PROMPTS
    if name not in SHEETS:
        raise unknown_name(
            "checkpoint", f"checkpoint:{name}", [f"checkpoint:{key}" for key in SHEETS], LISTING
        )
    return SHEETS[name].source
