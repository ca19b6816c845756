"""The network encoders that built-in recipes name, on random weights."""

from __future__ import annotations

from featbank.encoders import Encoder
from featbank.encoders.weights import NETWORK_FAMILIES
from featbank.errors import EncoderError
from featbank.recipes.reading import builtin_recipes, read_recipe

SMALL_NETWORK = "timm:mobilenetv3_small_075.lamb_in1k?random=0"
SMALL_RECIPE = f"""
recipe_version = 1
[[band]]
name = "mobile"
encoder = "{SMALL_NETWORK}"
view = "squash_64x64"
[regression]
alpha = [1.0]
"""


def network_encoders() -> list[str]:
    """Every network that a built-in recipe names, read as the recipe reads it, on random weights."""
    names = {band.encoder for recipe in builtin_recipes() for band in read_recipe(recipe).bands}
    return sorted(
        f"{name}{'&' if '?' in name else '?'}random=7"
        for name in names
        if name.partition(":")[0] in NETWORK_FAMILIES
    )


def small_size(encoder: Encoder) -> tuple[int, int]:
    """A small crop that the network takes: 112 pixels, or its own size if it takes one alone."""
    try:
        encoder.check_size(112, 112)
    except EncoderError:
        return encoder.blueprint.native_size
    return 112, 112
