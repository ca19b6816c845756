"""What a family knows of a network before any weights are there: how to build, feed and read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featbank.encoders.networks.sheets import Triple
from featbank.encoders.weights import WeightsSource

if TYPE_CHECKING:
    from torch import nn


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
