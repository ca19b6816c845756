"""Runs a student with ONNX Runtime: small enough for every installation, the same numbers with and without torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from featbank.encoders.spec import Encoder, EncoderSpec
from featbank.encoders.students.description import (
    FAMILY,
    StudentDescription,
    describe_student,
    read_network,
)
from featbank.errors import EncoderError

EPOCH: Final = 1
"""Raised with any change of the code here that moves the features."""

BATCH_PIXELS: Final = 2**21
"""Crops run together while they have at most this many pixels: bounds memory whatever the view."""


class StudentEncoder(Encoder):
    """A student network.

    Parameters
    ----------
    description : StudentDescription
    """

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
        return {
            **self.pass_identity(),
            "taps": ["embedding"],
            "pooling": "in the graph",
        }

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

        Raises
        ------
        EncoderError
            If the network does not take this size.
        """
        self.check_size(height, width)
        return self.description.count_macs(height, width)

    def check_size(self, height: int, width: int) -> None:
        """Refuse sides that are too short or not a multiple of the stem's block.

        Raises
        ------
        EncoderError
            If a side does not fit.
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
    except (RuntimeError, ValueError) as error:  # what ONNX Runtime's own errors derive from
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(
            f"{FAMILY}:{description.name}: ONNX Runtime {onnxruntime.__version__} cannot open the network: {error}"
        ) from error


def build_student(name: str) -> StudentEncoder:
    """Build the encoder ``featbank:NAME``; the network is opened with the first crops.

    Raises
    ------
    UnknownNameError
        If no student has this name.
    EncoderError
        If its description cannot be read.
    """
    return StudentEncoder(describe_student(name.removeprefix(f"{FAMILY}:")))
