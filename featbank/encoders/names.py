"""The grammar of encoder names: ``family:model?option=value&option=value``; knows no network.

Options decide what is read from a forward pass (``taps``, ``pool``, ``l2``, ``prompts``), how far it goes
(``until``), in which numerics (``precision``), and whether the weights are random (``random``). A name is
spelt in one way only, so that equal requests are equal texts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from featbank.errors import EncoderError

OPTIONS: Final = {
    "taps": "layers to read, comma-separated; 'out' is the network's own vector; '*' stands for one level of a name",
    "pool": "how a map or token list becomes a vector: mean, std, max, cls, joined by '+'",
    "until": "the layer after which the forward pass stops",
    "l2": "1 divides every tap's vector by its Euclidean norm, 0 does not",
    "prompts": "name of a prompt list: cosine similarities with it replace the vector",
    "precision": "fp32 or bf16",
    "random": "seed of random weights, for trying things out",
}
"""Options of network encoders with their meaning, in the order in which they are written."""

POOLS: Final = ("mean", "std", "max", "cls")
PRECISIONS: Final = ("fp32", "bf16")


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
        return tuple(self.options.get("pool", "mean").split("+"))

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
    allowed: tuple[str, ...] | None = None
    values = [value]
    if key == "pool":
        allowed, values = POOLS, value.split("+")
    elif key == "l2":
        allowed = ("0", "1")
    elif key == "precision":
        allowed = PRECISIONS
    elif key == "random" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise EncoderError(
            f"encoder {text!r}: random must be a whole number of at most 9 digits, got {value!r}."
        )
    elif key == "taps" and (len(set(value.split(","))) < value.count(",") + 1 or "" in value.split(",")):
        raise EncoderError(f"encoder {text!r}: taps must be distinct layer names, got {value!r}.")
    if allowed is not None and (
        any(item not in allowed for item in values) or len(set(values)) < len(values)
    ):
        joined = " (joined by '+', each once)" if key == "pool" else ""
        raise EncoderError(
            f"encoder {text!r}: {key} must be one of {', '.join(allowed)}{joined}, got {value!r}."
        )
