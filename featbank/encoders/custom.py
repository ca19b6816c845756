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
version) is part of the key: editing the code recomputes its features. So are those of files that the class names in
``files``, such as ``files = ("weights.npz",)`` beside ``mine.py``: what an encoder reads it must name there.

A file is a program of whoever wrote it. It is run only where `code_is_allowed` says so: after ``--allow-code`` of a
command, inside `allow_code`, or with ``FEATBANK_ALLOW_CODE=1`` in the environment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from importlib import metadata
from os import environ
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.digest import digest_bytes, digest_file
from featbank.encoders.spec import Encoder
from featbank.errors import EncoderError, unknown_name

GROUP = "featbank.encoders"
ALLOW_CODE = "FEATBANK_ALLOW_CODE"

_permission: ContextVar[bool] = ContextVar("featbank_allow_code", default=False)


@contextmanager
def allow_code(allowed: bool = True) -> Iterator[None]:
    """Let encoders of the family ``file:`` run for the time of a context, in this thread."""
    token = _permission.set(allowed)
    try:
        yield
    finally:
        _permission.reset(token)


def code_is_allowed() -> bool:
    """Tell whether encoders of the family ``file:`` may run here."""
    return _permission.get() or environ.get(ALLOW_CODE) == "1"


def check_code_allowed(name: str) -> None:
    """Refuse to run a file that an encoder's name points to, unless the user said that it may be run.

    Raises EncoderError: Naming the file and its digest.
    """
    if name.partition(":")[0] == "file" and not code_is_allowed():
        path, _ = _locate(name)
        raise EncoderError(
            f"encoder {name!r} is a Python program, {path.resolve()} (SHA-256 {digest_file(path)[:12]}). It would run "
            "with all your rights, so it was not run. If you trust it, add --allow-code to this command; "
            f"{ALLOW_CODE}=1 in the environment allows all such files, for a machine where they are your own."
        )


def code_agrees(name: str, identity: Mapping[str, Any]) -> bool:
    """Compare a file, and those that it reads, with what an identity says of them; runs nothing.

    ``identity`` is what `CustomEncoder.identity` gave, or its ``code`` and ``files`` alone. An EncoderError if the
    name is misspelt, or a file is missing.
    """
    path, _ = _locate(name)
    files = identity.get("files", {})
    return digest_file(path) == identity.get("code") and files == _digest_files(name, path, list(files))


class CustomEncoder(Encoder):
    """A user's encoder under the name of the recipe; digests of its code and files are in the identity."""

    def __init__(
        self, name: str, inner: Encoder, code: str, digests: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(replace(inner.spec, name=name))
        self.inner = inner
        self._stamp: dict[str, Any] = {"code": code} | ({"files": dict(digests)} if digests else {})

    def identity(self) -> dict[str, Any]:
        """Return the user's identity and the code's."""
        return {"custom": self.inner.identity(), **self._stamp}

    def pass_identity(self) -> dict[str, Any]:
        """Return the user's pass identity and the code's."""
        return {"custom": self.inner.pass_identity(), **self._stamp}

    def count_macs(self, height: int, width: int) -> int:
        """Return what the user's encoder counts."""
        return self.inner.count_macs(height, width)

    @property
    def n_params(self) -> int:
        """Number of parameters that the user's encoder states."""
        return self.inner.n_params

    def check_size(self, height: int, width: int) -> None:
        """Ask the user's encoder.

        Raises EncoderError if it refuses the size.
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

    Raises EncoderError if the file or the class is missing, it must not be run, its code fails, or the
    class is no encoder; UnknownNameError if no installed package offers the plugin.
    """
    family, _, rest = name.partition(":")
    if family == "file":
        path, attribute = _locate(name)
        check_code_allowed(name)
        source = path.read_bytes()  # once: what is digested is what is run
        target = getattr(_module(name, path, source), attribute, None)
        files = _digest_files(name, path, getattr(target, "files", ()))
        return CustomEncoder(name, _instance(name, target), digest_bytes(source), files)
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if rest not in points:
        raise unknown_name(
            "encoder plugin", name, [f"plugin:{key}" for key in points], "featbank list encoders"
        )
    point = points[rest]
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    return CustomEncoder(name, _instance(name, point.load()), package)


def _locate(name: str) -> tuple[Path, str]:
    """Split ``file:PATH.py:Class`` into an existing file and a class."""
    place, colon, attribute = name.partition(":")[2].rpartition(":")
    if not (colon and place.endswith(".py") and attribute.isidentifier()):
        raise EncoderError(f"encoder {name!r} must be spelt 'file:PATH.py:ClassName'.")
    path = Path(place)
    if not path.is_file():
        raise EncoderError(
            f"encoder {name!r}: there is no file {str(path.resolve())!r}. Relative paths start at the working "
            "directory; give the path as seen from there."
        )
    return path, attribute


def _digest_files(name: str, path: Path, files: object) -> dict[str, str]:
    """Digest the files that a class reads; they lie beside or below its code."""
    named = files if isinstance(files, tuple | list) else (None,)
    if not all(isinstance(file, str) and re.fullmatch(r"(?!/)(?!(.*/)?\.\.(/|$)).+", file) for file in named):
        raise EncoderError(
            f"encoder {name!r}: files must be a tuple of names of files beside {path.name}, such as ('weights.npz',), "
            f"got {files!r}."
        )
    absent = [file for file in named if not (path.parent / file).is_file()]
    if absent:
        raise EncoderError(
            f"encoder {name!r}: it reads {', '.join(absent)}, which must lie beside {str(path.resolve())!r}; there is "
            "no such file."
        )
    return {file: digest_file(path.parent / file) for file in sorted(named)}


def _module(name: str, path: Path, source: bytes) -> ModuleType:
    """Run a file's source as a module, whatever compiled code lies beside it."""
    module_name = f"featbank_custom_{digest_bytes(source)[:16]}"
    module = sys.modules[module_name] = ModuleType(
        module_name
    )  # anew: what it read beside itself may have changed
    module.__file__ = str(path.resolve())
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - allowed by the user
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
    except Exception as error:
        raise EncoderError(
            f"encoder {name!r}: the constructor of a custom encoder must take no argument and state an EncoderSpec, "
            f"but it failed: {type(error).__name__}: {error}."
        ) from error
