"""Maps encoder names to classes by import path, so that listing encoders imports none of them.

A family of closed names (``classic:``) registers each name; a family of open names (``timm:``) registers one
function that builds any of its encoders from the name. The registry never guesses: an unknown name is an error
with near spellings, a name taken twice is an error that says where the first one came from.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from featbank.encoders.classic.catalogue import CATALOGUE
from featbank.encoders.spec import Encoder, EncoderSpec
from featbank.errors import EncoderError, unknown_name

_LISTING = "featbank list encoders"


class EncoderRegistry:
    """Names of encoders with their facts and the import path of the class that builds each.

    Examples
    --------
    >>> from featbank.encoders.classic.catalogue import CATALOGUE
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
        """Add an encoder under ``spec.name``; nothing is imported.

        Parameters
        ----------
        spec : EncoderSpec
            The declared facts; handed to the class as its only argument.
        path : str
            ``"package.module:Class"``, a subclass of `Encoder`.

        Raises
        ------
        EncoderError
            If the name is taken by another spec or path, or the path is not spelt so. Registering the
            same entry again changes nothing.
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
        """Add a family whose names are open; nothing is imported.

        Parameters
        ----------
        family : str
            The part of a name before the colon.
        path : str
            ``"package.module:function"``, called with the whole name, returns an `Encoder`.

        Raises
        ------
        EncoderError
            If the family is taken by another path, or the path is not spelt so.
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

        Raises
        ------
        UnknownNameError
            If no encoder has this name; the message lists near names.
        EncoderError
            If the import path does not lead to an `Encoder`, or an open family refuses the name.
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
        registry.register_family(family, "featbank.encoders.networks.build:build_network_encoder")
    registry.register_family("featbank", "featbank.encoders.students.encoder:build_student")
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
