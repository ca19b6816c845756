"""Which encoders there are: the weight-free ones by name, open families by the function that builds them.

Imports none of them: an encoder is imported when it is made.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from featbank.encoders.spec import Encoder, EncoderSpec
from featbank.errors import EncoderError, unknown_name

LICENCE = "Apache-2.0"

CATALOGUE = (
    (
        EncoderSpec(
            name="classic:nss",
            role="quality",
            title="Natural-scene statistics, sharpness, noise, blocking, exposure and colour of native pixels",
            reference="Mittal, Moorthy and Bovik 2012 (BRISQUE); Crete et al. 2007; Immerkaer 1996; Field 1987",
            licence=LICENCE,
            weights="none",
            n_features=119,
        ),
        "featbank.encoders.classic.nss:NssEncoder",
    ),
    (
        EncoderSpec(
            name="classic:layout",
            role="content",
            title="Colour layout and gradient-orientation layout",
            reference="Kasutani and Yamada 2001 (MPEG-7 colour layout); Dalal and Triggs 2005 (HOG)",
            licence=LICENCE,
            weights="none",
            n_features=185,
        ),
        "featbank.encoders.classic.scene:LayoutEncoder",
    ),
    (
        EncoderSpec(
            name="classic:gist",
            role="scene",
            title="Spatial envelope: Gabor energies at 4 scales and 8 orientations on a 4 x 4 grid",
            reference="Oliva and Torralba 2001 (GIST)",
            licence=LICENCE,
            weights="none",
            n_features=512,
        ),
        "featbank.encoders.classic.scene:GistEncoder",
    ),
    (
        EncoderSpec(
            name="classic:keypoint",
            role="keypoint",
            title="Corner, blob and edge statistics at four pyramid levels",
            reference="Shi and Tomasi 1994; Lowe 2004; Zhuo and Sim 2011",
            licence=LICENCE,
            weights="none",
            n_features=108,
        ),
        "featbank.encoders.classic.keypoint:KeypointEncoder",
    ),
)


_LISTING = "featbank list encoders"


class EncoderRegistry:
    """Names of encoders with their facts and the import path of the class that builds each.

    Examples
    --------
    >>> from featbank.encoders.registry import CATALOGUE
    >>> registry = EncoderRegistry()
    >>> for spec, path in CATALOGUE:
    ...     registry.register(spec, path)
    >>> [spec.role for spec in registry.specs()]
    ['scene', 'keypoint', 'content', 'quality']
    >>> registry.make("classic:gist").spec.n_features
    512
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[EncoderSpec, str]] = {}
        self._families: dict[str, str] = {}

    def register(self, spec: EncoderSpec, path: str) -> None:
        """Add an encoder under ``spec.name``, built by ``"package.module:Class"`` from the spec; nothing is imported.

        Raises EncoderError if the name is taken by another spec or path, or the path is not spelt
        so. Registering the same entry again changes nothing.
        """
        module, colon, attribute = path.partition(":")
        if not (module and colon and attribute):
            raise EncoderError(
                f"register: path of {spec.name!r} must be spelt 'package.module:Class', got {path!r}."
            )
        taken = self._entries.get(spec.name)
        if taken is not None and taken != (spec, path):
            raise EncoderError(
                f"register: the name {spec.name!r} is taken by {taken[1]!r}, got {path!r}. "
                "Choose another name: features of two encoders under one name could not be told apart."
            )
        self._entries[spec.name] = (spec, path)

    def register_family(self, family: str, path: str) -> None:
        """Add a family, whose names ``"package.module:function"`` builds; nothing is imported.

        Raises EncoderError if the family is taken by another path, or the path is not spelt so.
        """
        module, colon, attribute = path.partition(":")
        if not (module and colon and attribute):
            raise EncoderError(
                f"register_family: path of {family!r} must be spelt 'package.module:function', got {path!r}."
            )
        if self._families.setdefault(family, path) != path:
            raise EncoderError(
                f"register_family: the family {family!r} is taken by {self._families[family]!r}, got {path!r}."
            )

    def make(self, name: str) -> Encoder:
        """Import and build the encoder called ``name``.

        Raises UnknownNameError if no encoder has this name; the message lists near names;
        EncoderError if the import path does not lead to an `Encoder`, or an open family refuses the
        name.
        """
        family = name.partition(":")[0]
        if name not in self._entries and family in self._families:
            return self._make_open(name, self._families[family])
        if name not in self._entries:
            raise unknown_name("encoder", name, self._entries, _LISTING)
        spec, path = self._entries[name]
        module, _, attribute = path.partition(":")
        target = getattr(import_module(module), attribute, None)
        if not (isinstance(target, type) and issubclass(target, Encoder)):
            raise EncoderError(
                f"make_encoder: {path!r}, registered for {name!r}, must be a subclass of Encoder, got {target!r}."
            )
        return target(spec)

    def _make_open(self, name: str, path: str) -> Encoder:
        module, _, attribute = path.partition(":")
        try:
            build = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "featbank":
                raise
            raise EncoderError(
                f"encoder {name!r} needs the package {error.name!r}, which is not installed. "
                "Install the optional packages of network encoders: pip install 'featbank[encoders]'."
            ) from error
        encoder = build(name)
        if not isinstance(encoder, Encoder):
            raise EncoderError(f"make_encoder: {path!r} must build an Encoder for {name!r}, got {encoder!r}.")
        return encoder

    def specs(self) -> list[EncoderSpec]:
        """Return the facts of all encoders of closed names, ordered by name."""
        return [self._entries[name][0] for name in sorted(self._entries)]


@cache
def _default_registry() -> EncoderRegistry:
    registry = EncoderRegistry()
    for spec, path in CATALOGUE:
        registry.register(spec, path)
    for family in ("timm", "open_clip", "torchvision", "checkpoint"):
        registry.register_family(family, "featbank.encoders.networks.families:build_network_encoder")
    registry.register_family("featbank", "featbank.encoders.student:build_student")
    for family in ("file", "plugin"):
        registry.register_family(family, "featbank.encoders.custom:build_custom_encoder")
    return registry


def make_encoder(name: str) -> Encoder:
    """Build the encoder called ``name``, for example ``"classic:nss"``.

    Raises
    ------
    UnknownNameError
        If no encoder has this name; the message lists near names.
    """
    return _default_registry().make(name)


def list_encoders() -> list[EncoderSpec]:
    """Return the facts of all registered encoders, ordered by name, without importing any of them."""
    return _default_registry().specs()


def register(spec: EncoderSpec, path: str) -> None:
    """Add an encoder to those that `make_encoder` knows; see `EncoderRegistry.register`.

    Raises
    ------
    EncoderError
        If the name is taken or the path is not ``"package.module:Class"``.
    """
    _default_registry().register(spec, path)
