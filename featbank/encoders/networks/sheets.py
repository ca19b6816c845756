"""What a sheet says of a published checkpoint: how its keys map and its input is normalised; see `catalogue`.

Plain data, no deep-learning library: the facts can be listed on a machine that has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from featbank.encoders.weights import WeightsSource

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
        Name of the builder in `featbank.encoders.networks.architectures`.
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
