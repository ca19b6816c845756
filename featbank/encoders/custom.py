"""Encoders of the user's own: a Python file named in the recipe, or a plugin of an installed package.

Twenty lines are enough. Write a subclass of `Encoder` whose constructor takes no argument, in ``mine.py``:

>>> import numpy as np
>>> from featbank.encoders import Encoder, EncoderSpec
>>> class Brightness(Encoder):
...     def __init__(self):
...         super().__init__(EncoderSpec(
...             name="file:mine.py:Brightness", role="quality", title="mean of each channel",
...             reference="mine", licence="mine", weights="none", n_features=3))
...     def identity(self):
...         return {"name": "brightness", "parameters": {}, "epoch": 1}
...     def pass_identity(self):
...         return self.identity()
...     def count_macs(self, height, width):
...         return 3 * height * width
...     def _encode(self, crops):
...         return crops.mean(axis=(1, 2)).astype(np.float32) / 255

and name it in a recipe as ``encoder = "file:mine.py:Brightness"``; relative paths start at the working directory.
Or let a package declare the entry point group ``featbank.encoders``, for example
``brightness = "mine:Brightness"``, and write ``encoder = "plugin:brightness"``.

What goes in and comes out is checked as for every encoder, and the digest of the file (or the package's
version) is part of the key: editing the code recomputes its features. Naming a file runs its code.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.digest import digest_file
from featbank.encoders.spec import Encoder, EncoderSpec
from featbank.errors import EncoderError, unknown_name

GROUP = "featbank.encoders"


class CustomEncoder(Encoder):
    """A user's encoder under the name of the recipe, with the digest of its code in the identity.

    Parameters
    ----------
    name : str
        As in the recipe.
    inner : Encoder
    code : str
        Digest of the file, or name and version of the package.
    """

    def __init__(self, name: str, inner: Encoder, code: str) -> None:
        spec = inner.spec
        super().__init__(
            EncoderSpec(
                name, spec.role, spec.title, spec.reference, spec.licence, spec.weights, spec.n_features
            )
        )
        self.inner = inner
        self.code = code

    def identity(self) -> dict[str, Any]:
        """Return the user's identity and the code's."""
        return {"custom": self.inner.identity(), "code": self.code}

    def pass_identity(self) -> dict[str, Any]:
        """Return the user's pass identity and the code's."""
        return {"custom": self.inner.pass_identity(), "code": self.code}

    def count_macs(self, height: int, width: int) -> int:
        """Return what the user's encoder counts."""
        return self.inner.count_macs(height, width)

    @property
    def n_params(self) -> int:
        """Number of parameters that the user's encoder states."""
        return self.inner.n_params

    def check_size(self, height: int, width: int) -> None:
        """Ask the user's encoder.

        Raises
        ------
        EncoderError
            If it refuses the size.
        """
        super().check_size(height, width)
        self.inner.check_size(height, width)

    def feature_names(self) -> list[str] | None:
        """Return the user's column names."""
        return self.inner.feature_names()

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return self.inner._encode(crops)
        except EncoderError:
            raise
        except Exception as error:
            # A user's slip on one photo must not end a run over thousands of others.
            raise EncoderError(
                f"encoder {self.spec.name!r}: its code failed on {len(crops)} crops of {crops.shape[1]} x "
                f"{crops.shape[2]} pixels: {type(error).__name__}: {error}."
            ) from error


def build_custom_encoder(name: str) -> Encoder:
    """Build ``file:PATH.py:Class`` or ``plugin:NAME``.

    Raises
    ------
    EncoderError
        If the file or the class is missing, its code fails, or the class is no encoder.
    UnknownNameError
        If no installed package offers the plugin.
    """
    family, _, rest = name.partition(":")
    if family == "file":
        place, colon, attribute = rest.rpartition(":")
        if not (colon and place.endswith(".py") and attribute.isidentifier()):
            raise EncoderError(f"encoder {name!r} must be spelt 'file:PATH.py:ClassName'.")
        path = Path(place)
        if not path.is_file():
            raise EncoderError(
                f"encoder {name!r}: there is no file {str(path.resolve())!r}. Relative paths start at the working "
                "directory; give the path as seen from there."
            )
        code = digest_file(path)
        return CustomEncoder(name, _instance(name, getattr(_module(name, path, code), attribute, None)), code)
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if rest not in points:
        raise unknown_name(
            "encoder plugin", name, [f"plugin:{key}" for key in points], "featbank list encoders"
        )
    point = points[rest]
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    return CustomEncoder(name, _instance(name, point.load()), package)


def _module(name: str, path: Path, code: str) -> ModuleType:
    # The digest in the name keeps two versions of one file apart in a long-lived process.
    module_name = f"featbank_custom_{code[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise EncoderError(f"encoder {name!r}: {str(path)!r} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise EncoderError(
            f"encoder {name!r}: running {str(path)!r} failed: {type(error).__name__}: {error}."
        ) from error
    return module


def _instance(name: str, target: object) -> Encoder:
    if not (isinstance(target, type) and issubclass(target, Encoder)):
        raise EncoderError(
            f"encoder {name!r} must name a subclass of featbank.encoders.Encoder, got {target!r}."
        )
    try:
        return target()  # type: ignore[call-arg]
    except TypeError as error:
        raise EncoderError(
            f"encoder {name!r}: the constructor of a custom encoder must take no argument and state an EncoderSpec: "
            f"{error}."
        ) from error
