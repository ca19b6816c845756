"""What the weight-free encoders share: one crop at a time, named numbers, no parameters."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.encoders.spec import Encoder
from featbank.errors import EncoderError

MIN_SIDE_PX = 8
_NAMING_SIDE_PX = 64


class ClassicEncoder(Encoder):
    """Encoder whose features are named numbers computed from one crop by numpy and scipy alone."""

    #: Raised with any change of the code that moves a feature.
    epoch: int = 1

    @abstractmethod
    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the named features of one crop of shape (height, width, 3), always in the same order."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, ready for JSON."""

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers; a weight-free encoder is its own forward pass."""
        return {
            "name": self.spec.name,
            "weights": self.spec.weights,
            "taps": [],
            "pooling": "none",
            "normalisation": "none",
            "parameters": self.parameters(),
            "numerics": "float32",
            "epoch": self.epoch,
        }

    def pass_identity(self) -> dict[str, Any]:
        """Return what decides the computation: name, parameters, numerics and epoch."""
        identity = self.identity()
        return {
            key: identity[key]
            for key in ("name", "weights", "normalisation", "parameters", "numerics", "epoch")
        }

    def check_size(self, height: int, width: int) -> None:
        """Refuse crops with a side of less than 8 pixels.

        Raises
        ------
        EncoderError
            If either side is shorter.
        """
        if min(height, width) < MIN_SIDE_PX:
            raise EncoderError(
                f"{self.spec.name}: crops must be at least {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels, "
                f"got {height} x {width}. Choose a view with larger crops."
            )

    def feature_names(self) -> list[str]:
        """Return the names of the columns in order."""
        blank = np.zeros((_NAMING_SIDE_PX, _NAMING_SIDE_PX, 3), dtype=np.uint8)
        return list(self.describe(blank))

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([list(self.describe(crop).values()) for crop in crops], dtype=np.float32)
