"""Which encoders there are: the weight-free ones by name, open families by the function that builds them.

Imports none of them: an encoder is imported when it is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from featbank.encoders.spec import Encoder, EncoderSpec
from featbank.errors import EncoderError, unknown_name

LISTING: Final = "featbank list encoders"
_PACKAGE = "featbank.encoders"

_CLASSICS: Final = {
    f"classic:{name}": (
        EncoderSpec(f"classic:{name}", role, title, reference, "Apache-2.0", "none", n_features),
        f"{_PACKAGE}.classic.{path}",
    )
    for name, role, n_features, path, title, reference in (
        ("gist", "scene", 512, "scene:GistEncoder",
         "Spatial envelope: Gabor energies at 4 scales and 8 orientations on a 4 x 4 grid",
         "Oliva and Torralba 2001 (GIST)"),
        ("keypoint", "keypoint", 108, "keypoint:KeypointEncoder",
         "Corner, blob and edge statistics at four pyramid levels",
         "Shi and Tomasi 1994; Lowe 2004; Zhuo and Sim 2011"),
        ("layout", "content", 185, "scene:LayoutEncoder", "Colour layout and gradient-orientation layout",
         "Kasutani and Yamada 2001 (MPEG-7 colour layout); Dalal and Triggs 2005 (HOG)"),
        ("nss", "quality", 119, "nss:NssEncoder",
         "Natural-scene statistics, sharpness, noise, blocking, exposure and colour of native pixels",
         "Mittal, Moorthy and Bovik 2012 (BRISQUE); Crete et al. 2007; Immerkaer 1996; Field 1987"),
    )
}  # fmt: skip
"""Facts of the weight-free encoders, and the class that computes each."""

_FAMILIES: Final = {
    **dict.fromkeys(
        ("timm", "open_clip", "torchvision", "checkpoint"), "networks.families:build_network_encoder"
    ),
    "featbank": "student:build_student",
    **dict.fromkeys(("file", "plugin"), "custom:build_custom_encoder"),
}
"""What builds an encoder of each open family by its name."""


def load_part(path: str, encoder: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Import ``"package.module:attribute"`` of this package for an encoder.

    Raises EncoderError if a library that it needs is not installed.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "featbank":
            raise
        raise EncoderError(
            f"encoder {encoder!r} needs the package {error.name!r}, which is not installed. "
            "Install the optional packages of network encoders: pip install 'featbank[encoders]'."
        ) from error


def make_encoder(name: str) -> Encoder:
    """Build the encoder called ``name``, for example ``"classic:nss"``.

    Raises
    ------
    UnknownNameError
        If no encoder has this name; the message lists near names.
    EncoderError
        If an open family refuses the name, or its library is not installed.
    """
    if name in _CLASSICS:
        spec, path = _CLASSICS[name]
        return load_part(path, name)(spec)
    family = name.partition(":")[0]
    if family not in _FAMILIES:
        raise unknown_name("encoder", name, _CLASSICS, LISTING)
    return load_part(f"{_PACKAGE}.{_FAMILIES[family]}", name)(name)


def list_encoders() -> list[EncoderSpec]:
    """Return the facts of all weight-free encoders, ordered by name, without importing any of them."""
    return [spec for spec, _ in _CLASSICS.values()]
