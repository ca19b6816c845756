"""What is known of a network before any weights are there: how to build, feed and read it, how its file's keys map.

Plain data, no deep-learning library: the facts can be listed on a machine that has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from featbank.encoders.weights import WeightsSource

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[float, float, float]

IMAGENET: Final[tuple[Triple, Triple]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Final[tuple[Triple, Triple]] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
NONE: Final[tuple[Triple, Triple]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Raw RGB in [0, 1]: means of 0 and deviations of 1."""


@dataclass(frozen=True)
class CheckpointSheet:
    """One published checkpoint.

    Attributes
    ----------
    source : WeightsSource
    title, role, reference : str
        As in `EncoderSpec`.
    architecture : str
        Name of the builder in `featbank.encoders.networks.checkpoint_family`.
    state_path : str
        Key of the published dictionary that holds the tensors; empty if it is the state itself.
    rules : tuple of (pattern, replacement)
        Regular expressions on whole keys; the first that matches maps the key.
    drop : tuple of str
        Patterns of keys that are left out: heads, projectors, text towers.
    filled : tuple of str
        Patterns of expected keys that the file may lack because they play no part: they become zeros.
    normalisation : (mean, std)
    l2 : bool
        Whether the published features are divided by their norm.
    n_features : int
        Length of the network's own vector.
    gmacs_224 : float
        Cost of one crop of 224 x 224 pixels.
    n_params_published : int
        Parameters of the whole published network, heads included; 0 where that is not known.
    note : str
        What a user should know.
    """

    source: WeightsSource
    title: str
    role: str
    reference: str
    architecture: str
    n_features: int
    gmacs_224: float
    rules: tuple[tuple[str, str], ...]
    state_path: str = ""
    drop: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    normalisation: tuple[Triple, Triple] = IMAGENET
    l2: bool = False
    n_params_published: int = 0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network of a family, by name; equal names are equal networks, so that caches can hold one of each.

    Attributes
    ----------
    base : str
        Encoder name without options.
    title, role, reference, licence : str
        As in `EncoderSpec`.
    source : WeightsSource
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
    l2 : bool
        Default of the option.
    stored_prefix : str
        Beginning of the image network's keys in the stored file; the text tower's keys lack it.
    build_stored : callable or None
        Builds the network whose keys the stored file has, if that is more than the image network.
    text_model : str
        Architecture name for the text tower, empty without one.
    n_params_published : int
        Parameters of the whole published network; 0 where that is not known.
    """

    base: str
    title: str
    role: str
    reference: str
    licence: str
    source: WeightsSource
    build: Callable[[], nn.Module]
    mean: Triple
    std: Triple
    native_size: tuple[int, int]
    channels_last: bool = False
    n_prefix_tokens: int = 0
    l2: bool = False
    stored_prefix: str = ""
    build_stored: Callable[[], nn.Module] | None = None
    text_model: str = ""
    n_params_published: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and other.base == self.base

    def __hash__(self) -> int:
        return hash(self.base)
