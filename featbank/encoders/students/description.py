"""What a student's folder says of its network: enough to count and check it without running it.

A folder holds ``network.onnx`` (the graph with its weights), ``student.json`` (this description) and
``README.md`` (the model card). Shipped students lie in this package, distilled ones in the weights folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from featbank.digest import digest_bytes
from featbank.encoders.weights import weights_folder
from featbank.errors import EncoderError, unknown_name

FAMILY: Final = "featbank"
DESCRIPTION_VERSION: Final = 1
NETWORK_FILE: Final = "network.onnx"
DESCRIPTION_FILE: Final = "student.json"
CARD_FILE: Final = "README.md"
MAX_NETWORK_BYTES: Final = 200 * 2**20
"""A student is small by definition; a larger file is something else and is not read."""


@dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates of one layer.

    Attributes
    ----------
    macs : int
        Per output position.
    stride : int
        Input pixels from one output position to the next, along each side; 0 where the layer sees pooled
        maps and so runs once for each crop.
    """

    macs: int
    stride: int

    def count(self, height: int, width: int) -> int:
        """Return the multiply-accumulates on a crop; each strided layer pads, so sizes round up."""
        if self.stride == 0:
            return self.macs
        return self.macs * math.ceil(height / self.stride) * math.ceil(width / self.stride)


@dataclass(frozen=True)
class StudentDescription:
    """The facts of a student.

    Attributes
    ----------
    name : str
        Without the family.
    title, reference, licence : str
        For people, as in `EncoderSpec`.
    architecture : str
        timm's name of the trunk, and what was changed.
    view : str
        The view it was trained for and is meant to be used with.
    n_features : int
        Length of its vector.
    n_params : int
        Parameters that the forward pass reads.
    size_multiple, min_size : int
        Crops need both sides a multiple of the one and at least the other, in pixels.
    layers : tuple of LayerCost
        All layers that multiply, for counting.
    sha256 : str
        Digest of ``network.onnx``.
    """

    name: str
    title: str
    reference: str
    licence: str
    architecture: str
    view: str
    n_features: int
    n_params: int
    size_multiple: int
    min_size: int
    layers: tuple[LayerCost, ...]
    sha256: str

    def to_json(self) -> str:
        """Write the description; `parse_description` reads it back."""
        return json.dumps({"version": DESCRIPTION_VERSION, **asdict(self)}, indent=1) + "\n"

    def count_macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one crop of ``height`` by ``width`` pixels."""
        return sum(layer.count(height, width) for layer in self.layers)


def parse_description(text: str, where: str) -> StudentDescription:
    """Read a description.

    Parameters
    ----------
    text : str
        JSON.
    where : str
        The file, for messages.

    Raises
    ------
    EncoderError
        If it is not a description of this version.
    """
    try:
        fields: Any = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("version", None) != DESCRIPTION_VERSION:
            raise EncoderError(
                f"student: {where!r} must be a description of version {DESCRIPTION_VERSION}. "
                "Distill the student again with this version of featbank."
            )
        fields["layers"] = tuple(LayerCost(**_integers(layer)) for layer in fields["layers"])
        return StudentDescription(**fields)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(
            f"student: the description {where!r} cannot be read ({error}). Distill the student again."
        ) from error


def _integers(layer: Mapping[str, Any]) -> dict[str, int]:
    if any(type(value) is not int or value < 0 for value in layer.values()):
        raise ValueError(f"a layer's cost must be whole numbers, got {dict(layer)}")
    return dict(layer)


def shipped_students() -> list[str]:
    """Return the names of the students in this package."""
    here = resources.files(__package__)
    return sorted(item.name for item in here.iterdir() if (item / DESCRIPTION_FILE).is_file())


def students_folder() -> Path:
    """Return where distilled students lie: ``featbank`` in the weights folder."""
    return weights_folder() / FAMILY


def distilled_students() -> list[str]:
    """Return the names of the students that were distilled on this machine."""
    folder = students_folder()
    if not folder.is_dir():
        return []
    return sorted(item.name for item in folder.iterdir() if (item / DESCRIPTION_FILE).is_file())


def _file(name: str, file: str) -> Any:  # noqa: ANN401 - a path, or a resource of a zipped package
    if name in shipped_students():
        return resources.files(__package__) / name / file
    if name in distilled_students():
        return students_folder() / name / file
    raise unknown_name(
        "student", name, [*shipped_students(), *distilled_students()], "featbank list encoders"
    )


def describe_student(name: str) -> StudentDescription:
    """Read the description of the student called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none of this name, shipped or distilled.
    EncoderError
        If its description cannot be read.
    """
    path = _file(name, DESCRIPTION_FILE)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EncoderError(f"student: cannot read {str(path)!r}: {error}.") from error
    description = parse_description(text, str(path))
    if description.name != name:
        raise EncoderError(
            f"student: {str(path)!r} must describe {name!r}, got {description.name!r}. "
            "A student's folder bears its name: rename it back."
        )
    return description


def read_network(description: StudentDescription) -> bytes:
    """Read a student's graph after checking its digest.

    Raises
    ------
    EncoderError
        If the file is missing, too large, or another one than described.
    """
    path = _file(description.name, NETWORK_FILE)
    try:
        with path.open("rb") as file:
            data: bytes = file.read(MAX_NETWORK_BYTES + 1)
    except OSError as error:
        raise EncoderError(f"student: cannot read {str(path)!r}: {error.strerror}.") from error
    found = digest_bytes(data)
    if len(data) > MAX_NETWORK_BYTES or found != description.sha256:
        raise EncoderError(
            f"student: the SHA-256 of {str(path)!r} must be {description.sha256}, got {found}. The file was changed "
            "or cut; distill the student again, or install the package again if it is a shipped one."
        )
    return data
