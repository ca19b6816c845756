"""Small networks trained by this project, ``featbank:NAME``: what their folder says of them, and running them.

A folder holds ``network.onnx`` (the graph with its weights), ``student.json`` (the description) and ``README.md`` (the
model card). Shipped students lie in this package, distilled ones in the weights folder. ONNX Runtime runs them: the
same numbers with and without torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from featbank.digest import digest_bytes
from featbank.encoders.spec import Encoder, EncoderSpec
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
    """Multiply-accumulates of one layer per output position, and input pixels between positions (``stride``).

    The stride is 0 where the layer sees pooled maps and so runs once for each crop.
    """

    macs: int
    stride: int

    def __post_init__(self) -> None:
        if any(type(value) is not int or value < 0 for value in (self.macs, self.stride)):
            raise ValueError(f"a layer's cost must be whole numbers, got {self}")

    def count(self, height: int, width: int) -> int:
        """Return the multiply-accumulates on a crop; each strided layer pads, so sizes round up."""
        if self.stride == 0:
            return self.macs
        return self.macs * math.ceil(height / self.stride) * math.ceil(width / self.stride)


@dataclass(frozen=True)
class StudentDescription:
    """The facts of a student; title, reference and licence as in `EncoderSpec`.

    Attributes
    ----------
    name : str
        Without the family.
    architecture : str
        timm's name of the trunk, and what was changed.
    view : str
        The view it was trained for and is meant to be used with.
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
    """Read a description from JSON; ``where`` is the file, for messages.

    Raises EncoderError if it is not a description of this version.
    """
    try:
        fields: Any = json.loads(text)
        if isinstance(fields, dict) and fields.pop("version", None) == DESCRIPTION_VERSION:
            fields["layers"] = tuple(LayerCost(**layer) for layer in fields["layers"])
            return StudentDescription(**fields)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise EncoderError(
            f"student: the description {where!r} cannot be read ({error}). Distill the student again."
        ) from error
    raise EncoderError(
        f"student: {where!r} must be a description of version {DESCRIPTION_VERSION}. "
        "Distill the student again with this version of featbank."
    )


def shipped_students() -> list[str]:
    """Return the names of the students in this package."""
    here = resources.files("featbank.encoders") / "students"
    return sorted(item.name for item in here.iterdir() if (item / DESCRIPTION_FILE).is_file())


def students_folder() -> Path:
    """Return where distilled students lie: ``featbank`` in the weights folder."""
    return weights_folder() / FAMILY


def distilled_students() -> list[str]:
    """Return the names of the students that were distilled on this machine."""
    return sorted(file.parent.name for file in students_folder().glob(f"*/{DESCRIPTION_FILE}"))


def _file(name: str, file: str) -> Any:  # noqa: ANN401 - a path, or a resource of a zipped package
    if name in shipped_students():
        return resources.files("featbank.encoders") / "students" / name / file
    if name in distilled_students():
        return students_folder() / name / file
    raise unknown_name(
        "student", name, [*shipped_students(), *distilled_students()], "featbank list encoders"
    )


def describe_student(name: str) -> StudentDescription:
    """Read the description of the student called ``name``.

    Raises UnknownNameError if there is none of this name, shipped or distilled; EncoderError if its
    description cannot be read.
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

    Raises EncoderError if the file is missing, too large, or another one than described.
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


EPOCH: Final = 1
"""Raised with any change of the code here that moves the features."""

BATCH_PIXELS: Final = 2**21
"""Crops run together while they have at most this many pixels: bounds memory whatever the view."""


class StudentEncoder(Encoder):
    """A student network."""

    def __init__(self, description: StudentDescription) -> None:
        self.description = description
        super().__init__(
            EncoderSpec(
                name=f"{FAMILY}:{description.name}",
                role="mobile",
                title=description.title,
                reference=description.reference,
                licence=description.licence,
                weights=description.sha256[:12],
                n_features=description.n_features,
            )
        )

    @property
    def n_params(self) -> int:
        """Number of parameters that the forward pass reads."""
        return self.description.n_params

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers."""
        return {**self.pass_identity(), "taps": ["embedding"], "pooling": "in the graph"}

    def pass_identity(self) -> dict[str, Any]:
        """Return what can change the forward pass: a student's graph holds all of it."""
        return {
            "name": self.spec.name,
            "weights": self.description.sha256,
            "normalisation": "in the graph",
            "numerics": "fp32",
            "epoch": EPOCH,
        }

    def count_macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one crop, by the description's layers.

        Raises EncoderError if the network does not take this size.
        """
        self.check_size(height, width)
        return self.description.count_macs(height, width)

    def check_size(self, height: int, width: int) -> None:
        """Refuse sides that are too short or not a multiple of the stem's block.

        Raises EncoderError if a side does not fit.
        """
        super().check_size(height, width)
        least, multiple = self.description.min_size, self.description.size_multiple
        if min(height, width) < least or height % multiple or width % multiple:
            raise EncoderError(
                f"{self.spec.name}: crops need sides of at least {least} pixels that are multiples of {multiple}, got "
                f"{height} x {width}. Use its own view, {self.description.view!r}."
            )

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        session = _session(self.description)
        n_batch = max(1, BATCH_PIXELS // (crops.shape[1] * crops.shape[2]))
        blocks = [
            session.run(None, {"crops": np.ascontiguousarray(crops[start : start + n_batch])})[0]
            for start in range(0, len(crops), n_batch)
        ]
        return np.concatenate(blocks).astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _session(description: StudentDescription) -> onnxruntime.InferenceSession:
    """Open the graph once a process."""
    options = onnxruntime.SessionOptions()
    # One thread: photos are spread over processes, and the order of additions does not depend on the machine.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            read_network(description), options, providers=["CPUExecutionProvider"]
        )
    except EncoderError:
        raise
    except (RuntimeError, ValueError) as error:  # what ONNX Runtime's own errors derive from
        raise EncoderError(
            f"{FAMILY}:{description.name}: ONNX Runtime {onnxruntime.__version__} cannot open the network: {error}"
        ) from error


def build_student(name: str) -> StudentEncoder:
    """Build the encoder ``featbank:NAME``; the network is opened with the first crops. Raises as `describe_student`."""
    return StudentEncoder(describe_student(name.removeprefix(f"{FAMILY}:")))
