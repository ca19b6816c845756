"""What an encoder is: its declared facts and the interface that extraction relies on.

Holds no encoder. The interface is the same for weight-free statistics and for frozen networks: a batch of
crops goes in, one finite vector per crop comes out, and two identities say what the numbers depend on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featbank.errors import EncoderError

ROLES = ("quality", "content", "scene", "keypoint", "mobile")


@dataclass(frozen=True)
class EncoderSpec:
    """The facts about an encoder that can be listed without building it.

    Parameters
    ----------
    name : str
        ``family:name``, for example ``"classic:nss"``; unique in the registry.
    role : {"quality", "content", "scene", "keypoint", "mobile"}
        What the features are meant to describe.
    title : str
        One line for people.
    reference : str
        Paper or papers that define the features.
    licence : str
        Licence of code and weights together, the stricter of the two.
    weights : str
        ``"none"`` for a weight-free encoder, otherwise the name of the checkpoint.
    n_features : int
        Length of one vector, at least 1.

    Raises
    ------
    EncoderError
        If the name is not ``family:name``, the role is unknown, or ``n_features < 1``.
    """

    name: str
    role: str
    title: str
    reference: str
    licence: str
    weights: str
    n_features: int

    def __post_init__(self) -> None:
        family, colon, rest = self.name.partition(":")
        if not (family and colon and rest):
            raise EncoderError(
                f"EncoderSpec: name must be spelt 'family:name', got {self.name!r}. "
                "Put the family in front, for example 'classic:nss'."
            )
        if self.role not in ROLES:
            raise EncoderError(
                f"EncoderSpec: role of {self.name!r} must be one of {', '.join(ROLES)}, got {self.role!r}."
            )
        if self.n_features < 1:
            raise EncoderError(
                f"EncoderSpec: n_features of {self.name!r} must be at least 1, got {self.n_features!r}."
            )


class Encoder(ABC):
    """Frozen function from crops to vectors.

    Subclasses implement the underscored work; this class checks what goes in and what comes out, so that no
    encoder can hand NaN, a wrong width or a wrong type to the bank. A vector depends on its own crop alone.

    Parameters
    ----------
    spec : EncoderSpec
        The declared facts, as the registry holds them.

    Attributes
    ----------
    files : tuple of str
        Of an encoder in a file of the user's own: the files beside it that it reads, which are part of its key.
    """

    files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.name!r})"

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers, ready for JSON.

        Name, weights digest, taps, pooling, input normalisation, parameters, numerics class and the integer
        ``epoch`` of the code, which is raised with any change of the code that moves the features.
        """

    @abstractmethod
    def pass_identity(self) -> dict[str, Any]:
        """Return what decides the forward computation alone, ready for JSON.

        Taps and pooling are left out: two features with equal pass identity and equal view come from one
        forward pass, whose multiply-accumulates a budget counts once.
        """

    @abstractmethod
    def count_macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one crop of ``height`` by ``width`` pixels.

        Raises
        ------
        EncoderError
            If the encoder does not take this size.
        """

    @abstractmethod
    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the vectors of crops whose type and size have been checked."""

    @property
    def n_params(self) -> int:
        """Number of trained parameters that the forward pass uses; 0 for a weight-free encoder."""
        return 0

    def check_size(self, height: int, width: int) -> None:
        """Refuse a crop size that this encoder cannot take; by default any size of at least one pixel.

        Raises
        ------
        EncoderError
            If the size is not accepted.
        """
        if height < 1 or width < 1:
            raise EncoderError(
                f"{self.spec.name}: crops need at least one pixel, got {height} x {width} pixels."
            )

    def feature_names(self) -> list[str] | None:
        """Return the names of the columns where they mean something, else ``None``."""
        return None

    def encode_together(
        self, encoders: Sequence[Encoder], crops: NDArray[np.uint8]
    ) -> list[NDArray[np.float32]]:
        """Encode the same crops with several encoders of equal `pass_identity`, this one among them.

        A family whose encoders read different taps of one network overrides this to run the network once;
        the numbers are those of ``encode``.

        Parameters
        ----------
        encoders : sequence of Encoder
            All with this encoder's pass identity.
        crops : uint8 array of shape (n_crops, height, width, 3)

        Returns
        -------
        list of float32 array of shape (n_crops, n_features)
            In the order of ``encoders``.
        """
        return [encoder.encode(crops) for encoder in encoders]

    def encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return one vector per crop.

        Parameters
        ----------
        crops : uint8 array of shape (n_crops, height, width, 3)
            sRGB pixels in [0, 255]; not changed. ``n_crops`` may be 0.

        Returns
        -------
        float32 array of shape (n_crops, n_features)
            Finite; row ``i`` depends on ``crops[i]`` alone.

        Raises
        ------
        EncoderError
            If the crops are not such an array, if the size is refused, or if the features come out of another
            width or not finite (a fault of the encoder, caught before it reaches the bank).
        """
        self._check_crops(crops)
        if len(crops) == 0:
            return np.empty((0, self.spec.n_features), dtype=np.float32)
        return self._checked(self._encode(crops), crops)

    def _check_crops(self, crops: NDArray[np.uint8]) -> None:
        """Refuse anything but uint8 crops of an accepted size."""
        if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8:
            received = f"an array of {crops.dtype}" if isinstance(crops, np.ndarray) else type(crops).__name__
            raise EncoderError(
                f"{self.spec.name}: crops must be a uint8 array of sRGB pixels, got {received}. "
                "Take them from a view, which yields uint8."
            )
        if crops.ndim != 4 or crops.shape[3] != 3:
            raise EncoderError(
                f"{self.spec.name}: crops must have the shape (n_crops, height, width, 3), got {crops.shape}. "
                "Write `image[np.newaxis]` for a single image."
            )
        self.check_size(crops.shape[1], crops.shape[2])

    def _checked(self, vectors: NDArray[np.float32], crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refuse vectors of another width or type, or with a value that is not finite."""
        n_crops, height, width, _ = crops.shape
        expected = (n_crops, self.spec.n_features)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise EncoderError(
                f"{self.spec.name}: features must be float32 of shape {expected}, "
                f"got {vectors.dtype} of shape {vectors.shape}. The encoder and its EncoderSpec disagree."
            )
        if not np.isfinite(vectors).all():
            columns = np.flatnonzero(~np.isfinite(vectors).all(axis=0))
            names = self.feature_names()
            shown = [names[c] if names else str(c) for c in columns[:5]]
            raise EncoderError(
                f"{self.spec.name}: {columns.size} of {self.spec.n_features} features are not finite "
                f"({', '.join(shown)}) on crops of {height} x {width} pixels; nothing was kept."
            )
        return vectors
