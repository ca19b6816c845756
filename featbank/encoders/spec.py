"""What an encoder is: its name with options, its declared facts and the interface that extraction relies on.

Holds no encoder. The interface is the same for weight-free statistics and for frozen networks: a batch of
crops goes in, one finite vector per crop comes out, and two identities say what the numbers depend on.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from featbank.errors import EncoderError

ROLES = ("quality", "content", "scene", "keypoint", "mobile")


@dataclass(frozen=True)
class EncoderSpec:
    """The facts about an encoder that can be listed without building it.

    Parameters
    ----------
    name : str
        ``family:name``, for example ``"classic:nss"``; unique in the registry.
    role : {"quality", "content", "scene", "keypoint", "mobile"}
        What the features are meant to describe.
    title : str
        One line for people.
    reference : str
        Paper or papers that define the features.
    licence : str
        Licence of code and weights together, the stricter of the two.
    weights : str
        ``"none"`` for a weight-free encoder, otherwise the name of the checkpoint.
    n_features : int
        Length of one vector, at least 1.

    Raises
    ------
    EncoderError
        If the name is not ``family:name``, the role is unknown, or ``n_features < 1``.
    """

    name: str
    role: str
    title: str
    reference: str
    licence: str
    weights: str
    n_features: int

    def __post_init__(self) -> None:
        family, colon, rest = self.name.partition(":")
        if not (family and colon and rest):
            raise EncoderError(
                f"EncoderSpec: name must be spelt 'family:name', got {self.name!r}. "
                "Put the family in front, for example 'classic:nss'."
            )
        if self.role not in ROLES:
            raise EncoderError(
                f"EncoderSpec: role of {self.name!r} must be one of {', '.join(ROLES)}, got {self.role!r}."
            )
        if self.n_features < 1:
            raise EncoderError(
                f"EncoderSpec: n_features of {self.name!r} must be at least 1, got {self.n_features!r}."
            )


class Encoder(ABC):
    """Frozen function from crops to vectors.

    Subclasses implement the underscored work; this class checks what goes in and what comes out, so that no
    encoder can hand NaN, a wrong width or a wrong type to the bank. A vector depends on its own crop alone.

    Parameters
    ----------
    spec : EncoderSpec
        The declared facts, as the registry holds them.

    Attributes
    ----------
    files : tuple of str
        Of an encoder in a file of the user's own: the files beside it that it reads, which are part of its key.
    """

    files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.name!r})"

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers, ready for JSON.

        Name, weights digest, taps, pooling, input normalisation, parameters, numerics class and the integer
        ``epoch`` of the code, which is raised with any change of the code that moves the features.
        """

    @abstractmethod
    def pass_identity(self) -> dict[str, Any]:
        """Return what decides the forward computation alone, ready for JSON.

        Taps and pooling are left out: two features with equal pass identity and equal view come from one
        forward pass, whose multiply-accumulates a budget counts once.
        """

    @abstractmethod
    def count_macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one crop of ``height`` by ``width`` pixels.

        Raises EncoderError if the encoder does not take this size.
        """

    @abstractmethod
    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the vectors of crops whose type and size have been checked."""

    @property
    def n_params(self) -> int:
        """Number of trained parameters that the forward pass uses; 0 for a weight-free encoder."""
        return 0

    @property
    def has_graph(self) -> bool:
        """Whether `write_graph` can write the encoder; False for one that is no network."""
        return False

    def write_graph(self, height: int, width: int) -> bytes:
        """Write the encoder as an ONNX graph: uint8 ``crops`` of ``encode`` in, vectors out, the number of crops free.

        Raises EncoderError if it cannot be written.
        """
        raise EncoderError(f"{self.spec.name}: it is no network, and has no graph.")

    def check_size(self, height: int, width: int) -> None:
        """Refuse a crop size that this encoder cannot take; by default any size of at least one pixel.

        Raises EncoderError if the size is not accepted.
        """
        if height < 1 or width < 1:
            raise EncoderError(
                f"{self.spec.name}: crops need at least one pixel, got {height} x {width} pixels."
            )

    def feature_names(self) -> list[str] | None:
        """Return the names of the columns where they mean something, else ``None``."""
        return None

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return one vector per crop.

        Parameters
        ----------
        crops : uint8 array of shape (n_crops, height, width, 3)
            sRGB pixels in [0, 255]; not changed. ``n_crops`` may be 0.

        Returns
        -------
        float32 array of shape (n_crops, n_features)
            Finite; row ``i`` depends on ``crops[i]`` alone.

        Raises
        ------
        EncoderError
            If the crops are not such an array, if the size is refused, or if the features come out of another
            width or not finite (a fault of the encoder, caught before it reaches the bank).
        """
        return self.encode_together([self], crops)[0]

    def encode_together(
        self, encoders: Sequence[Encoder], crops: NDArray[np.uint8]
    ) -> list[NDArray[np.float32]]:
        """Encode the same crops with several encoders of equal `pass_identity`, this one among them, in their order.

        The numbers and errors are those of ``encode``.
        """
        self._check_crops(crops)
        if len(crops) == 0:
            return [np.empty((0, encoder.spec.n_features), dtype=np.float32) for encoder in encoders]
        blocks = self._encode_together(encoders, crops)
        return [encoder._checked(block, crops) for encoder, block in zip(encoders, blocks, strict=True)]

    def _encode_together(
        self, encoders: Sequence[Encoder], crops: NDArray[np.uint8]
    ) -> list[NDArray[np.float32]]:
        """Compute the vectors; a family that reads several taps of one network runs it once."""
        return [encoder._encode(crops) for encoder in encoders]

    def _check_crops(self, crops: NDArray[np.uint8]) -> None:
        """Refuse anything but uint8 crops of an accepted size."""
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8:
            received = f"an array of {crops.dtype}" if isinstance(crops, np.ndarray) else type(crops).__name__
            raise EncoderError(
                f"{self.spec.name}: crops must be a uint8 array of sRGB pixels, got {received}. "
                "Take them from a view, which yields uint8."
            )
        if crops.ndim != 4 or crops.shape[3] != 3:
            raise EncoderError(
                f"{self.spec.name}: crops must have the shape (n_crops, height, width, 3), got {crops.shape}. "
                "Write `image[np.newaxis]` for a single image."
            )
        self.check_size(crops.shape[1], crops.shape[2])

    def _checked(self, vectors: NDArray[np.float32], crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refuse vectors of another width or type, or with a value that is not finite."""
        n_crops, height, width, _ = crops.shape
        expected = (n_crops, self.spec.n_features)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise EncoderError(
                f"{self.spec.name}: features must be float32 of shape {expected}, "
                f"got {vectors.dtype} of shape {vectors.shape}. The encoder and its EncoderSpec disagree."
            )
        if not np.isfinite(vectors).all():
            columns = np.flatnonzero(~np.isfinite(vectors).all(axis=0))
            names = self.feature_names()
            shown = [names[c] if names else str(c) for c in columns[:5]]
            raise EncoderError(
                f"{self.spec.name}: {columns.size} of {self.spec.n_features} features are not finite "
                f"({', '.join(shown)}) on crops of {height} x {width} pixels; nothing was kept."
            )
        return vectors


OPTIONS: Final = {
    "taps": "layers to read, comma-separated; 'out' is the network's own vector, 'stages' the last layer of every "
    "stage; '*' stands for one level of a name",
    "pool": "how a map or token list becomes a vector: mean, std, max, cls, joined by '+'; 'stages' by mean+std, all "
    "else by mean unless told otherwise",
    "until": "the layer after which the forward pass stops",
    "l2": "1 divides every tap's vector by its Euclidean norm, 0 does not",
    "prompts": "name of a prompt list: cosine similarities with it replace the vector",
    "precision": "fp32 or bf16",
    "random": "seed of random weights, for trying things out",
}
"""Options of network encoders with their meaning, in the order in which they are written."""

STAGES: Final = "stages"
"""The tap that stands for the last layer of every stage, each pooled to mean and deviation unless told otherwise."""

POOLS: Final = ("mean", "std", "max", "cls")
_CHOICES: Final = {"l2": ("0", "1"), "precision": ("fp32", "bf16")}


@dataclass(frozen=True)
class EncoderName:
    """A parsed encoder name.

    Attributes
    ----------
    family, model : str
        ``timm`` and ``mobilenetv3_large_100.ra_in1k``, for example.
    options : dict of str to str
        As written, in the order of `OPTIONS`.
    """

    family: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The name without options."""
        return f"{self.family}:{self.model}"

    @property
    def text(self) -> str:
        """The canonical spelling."""
        options = "&".join(f"{key}={self.options[key]}" for key in OPTIONS if key in self.options)
        return f"{self.base}?{options}" if options else self.base

    @property
    def taps(self) -> tuple[str, ...]:
        """Layers to read, as written; empty where the encoder's own default holds."""
        return tuple(self.options["taps"].split(",")) if "taps" in self.options else ()

    @property
    def pool(self) -> tuple[str, ...]:
        """Poolings to apply to maps and tokens, in order."""
        return tuple(self.options.get("pool", "mean+std" if STAGES in self.taps else "mean").split("+"))

    @property
    def seed(self) -> int | None:
        """Seed of random weights, None for the published ones."""
        return int(self.options["random"]) if "random" in self.options else None


def parse_encoder_name(text: str) -> EncoderName:
    """Parse an encoder name.

    Parameters
    ----------
    text : str
        For example ``"timm:mobilenetv3_large_100.ra_in1k?taps=blocks.2,blocks.6&pool=mean+std"``.

    Returns
    -------
    EncoderName
        ``.text`` is the canonical spelling.

    Raises
    ------
    EncoderError
        If the family or the model is missing, or an option is unknown, given twice or has a wrong value.

    Examples
    --------
    >>> parse_encoder_name("timm:resnet18?pool=max&taps=layer2").text
    'timm:resnet18?taps=layer2&pool=max'
    """
    base, _, query = text.partition("?")
    family, colon, model = base.partition(":")
    if not (family and colon and model):
        raise EncoderError(
            f"encoder name must be spelt 'family:name', got {text!r}. "
            "Put the family in front, for example 'timm:resnet50.a1_in1k' or 'checkpoint:arniqa'."
        )
    options: dict[str, str] = {}
    for item in query.split("&") if query else []:
        key, equals, value = item.partition("=")
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise EncoderError(
                f"encoder {text!r}: unknown option {key!r}.{hint} Options: "
                + "; ".join(f"{name} ({meaning})" for name, meaning in OPTIONS.items())
                + "."
            )
        if not equals or not value or key in options:
            raise EncoderError(f"encoder {text!r}: write each option once as key=value, got {item!r}.")
        _check_value(text, key, value)
        options[key] = value
    return EncoderName(family, model, {key: options[key] for key in OPTIONS if key in options})


def _check_value(text: str, key: str, value: str) -> None:
    names, wanted = value.split("," if key == "taps" else "+"), ""
    if key == "random" and not re.fullmatch("[0-9]{1,9}", value):
        wanted = "a whole number of at most 9 digits"
    elif key == "taps" and ("" in names or len(set(names)) < len(names)):
        wanted = "distinct layer names"
    elif key == "pool" and (not set(names) <= {*POOLS} or len(set(names)) < len(names)):
        wanted = f"one of {', '.join(POOLS)} (joined by '+', each once)"
    elif value not in _CHOICES.get(key, (value,)):
        wanted = f"one of {', '.join(_CHOICES[key])}"
    if wanted:
        raise EncoderError(f"encoder {text!r}: {key} must be {wanted}, got {value!r}.")
