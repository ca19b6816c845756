"""A feature: the vector of one encoder on one view of one image.

Here the view, the encoder and the decoding policy meet and become one identity, the bank's key. The
module computes vectors from pixels; it reads and writes no file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from featbank.digest import digest_json, seed_from
from featbank.encoders import Encoder, make_encoder
from featbank.errors import EncoderError, EncoderSetupError, ViewError
from featbank.images import DECODE_POLICY, Photo
from featbank.views import SharedBeginnings, View, parse_view

AGGREGATES = ("mean", "mean+std", "concat")
"""Ways to turn the vectors of a view's crops into one: mean, mean and standard deviation, or all in order."""

UHD_HEIGHT_PX, UHD_WIDTH_PX = 2160, 3840
"""Size for which costs are stated: UHD-1, the UHD-IQA release's width at 16:9."""


@dataclass(frozen=True)
class Feature:
    """One encoder on one view, with the crops' vectors aggregated.

    Parameters
    ----------
    encoder : Encoder
    view : View
    aggregate : str
        One of `AGGREGATES`. The vectors of a view's scales are always concatenated.

    Raises
    ------
    EncoderError
        If the aggregate is unknown, or is ``concat`` on a view whose number of crops varies.
    """

    encoder: Encoder
    view: View
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise EncoderError(
                f"feature: aggregate must be one of {', '.join(AGGREGATES)}, got {self.aggregate!r}."
            )
        if self.aggregate == "concat":
            counts = {
                self.view.geometry(height, width)[0][0]
                for height, width in ((UHD_HEIGHT_PX, UHD_WIDTH_PX), (600, 400), (333, 1000))
            }
            if len(counts) > 1:
                raise EncoderError(
                    f"feature: aggregate 'concat' needs a fixed number of crops, but view {self.view.name!r} "
                    f"gives {sorted(counts)} crops on different sizes. Use 'mean' or 'mean+std'."
                )

    @property
    def label(self) -> str:
        """Readable name such as ``classic:nss@native.mean``."""
        return f"{self.encoder.spec.name}@{self.view.name}.{self.aggregate}"

    @cached_property
    def identity(self) -> dict[str, object]:
        """Everything that can change the numbers, as JSON-able values."""
        return {
            "kind": "computed",
            "decode": DECODE_POLICY,
            "view": self.view.identity(),
            "encoder": self.encoder.identity(),
            "aggregate": self.aggregate,
        }

    @cached_property
    def pass_id(self) -> str:
        """Digest of the forward computation: features with equal pass pay its cost once."""
        return digest_json({"view": self.view.identity(), "encoder": self.encoder.pass_identity()})

    @cached_property
    def n_features(self) -> int:
        """Length of the vector."""
        scales = self.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)
        n_crops = scales[0][0]
        per_crop = self.encoder.spec.n_features * len(scales)
        return per_crop * {"mean": 1, "mean+std": 2, "concat": n_crops}[self.aggregate]

    def gmacs(self, height: int = UHD_HEIGHT_PX, width: int = UHD_WIDTH_PX) -> float:
        """Count the multiply-accumulates for one image through all crops and scales.

        Parameters
        ----------
        height, width : int
            Size of the image in pixels; UHD-1 unless stated.

        Returns
        -------
        float
            GMACs (1e9 multiply-accumulates) of the encoder; decoding and resizing are not counted.
        """
        return (
            sum(
                n_crops * self.encoder.count_macs(crop_height, crop_width)
                for n_crops, crop_height, crop_width in self.view.geometry(height, width)
            )
            / 1e9
        )

    def vector(self, scales: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Turn the crops of one image into its feature.

        Parameters
        ----------
        scales : sequence of uint8 array of shape (n_crops, height, width, 3)
            What ``view.scales`` gave, one array for each scale.

        Returns
        -------
        float32 array of shape (n_features,)

        Raises
        ------
        EncoderError
            If the encoder gives a value that is not finite: it must never enter the bank.
        """
        return self.join([self.encoder.encode(crops) for crops in scales])

    def join(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Concatenate the vectors of the scales and aggregate those of the crops.

        Parameters
        ----------
        blocks : sequence of float32 array of shape (n_crops, encoder.spec.n_features)
            One for each scale.

        Returns
        -------
        float32 array of shape (n_features,)

        Raises
        ------
        EncoderError
            If a value is not finite: it must never enter the bank.
        """
        # crops: (n_crops, n_scales * encoder.n_features)
        crops = np.concatenate(blocks, axis=1)
        if self.aggregate == "mean":
            vector = crops.mean(axis=0, dtype=np.float64)
        elif self.aggregate == "mean+std":
            vector = np.concatenate(
                [crops.mean(axis=0, dtype=np.float64), crops.std(axis=0, dtype=np.float64)]
            )
        else:
            vector = crops.reshape(-1)
        vector = vector.astype(np.float32)
        if not np.isfinite(vector).all():
            raise EncoderError(
                f"encoder {self.encoder.spec.name!r} gave {np.count_nonzero(~np.isfinite(vector))} values that are "
                f"not finite on view {self.view.name!r}; the image is left out rather than stored wrongly."
            )
        return vector


def make_feature(encoder: str, view: str, aggregate: str = "mean") -> Feature:
    """Build a feature from names, as a recipe writes them.

    Raises
    ------
    UnknownNameError
        If the encoder is not known.
    ViewError
        If the view cannot be parsed.
    EncoderError
        If the encoder does not accept the view's crops, or the aggregate does not fit.
    """
    feature = Feature(make_encoder(encoder), parse_view(view), aggregate)
    for _, height, width in feature.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX):
        feature.encoder.check_size(height, width)
    return feature


@dataclass
class Timing:
    """Seconds spent on one image: decoding is added by the caller."""

    decode_s: float = 0.0
    views_s: float = 0.0
    encode_s: dict[str, float] = field(default_factory=dict)


Failure = EncoderError | ViewError | MemoryError
"""What may keep one feature of a readable photo from being computed."""


def compute_features(
    features: Sequence[Feature], photo: Photo
) -> tuple[list[NDArray[np.float32] | Failure], Timing]:
    """Compute several features of one decoded photo; each distinct view is taken once, each pass runs once.

    Views that begin with the same resize share its result. A feature that cannot be computed takes no other one
    with it.

    Parameters
    ----------
    features : sequence of Feature
    photo : Photo

    Returns
    -------
    list of float32 array of shape (n_features,), or of the error that came in its place
        In the order of ``features``.
    Timing
        Seconds for the views and, by feature label, for the encoders.

    Raises
    ------
    EncoderSetupError
        If an encoder cannot run here at all, whatever the photo.
    """
    timing = Timing()
    found: dict[int, NDArray[np.float32] | Failure] = {}
    views = {feature.view.name: feature.view for feature in features}
    beginnings = SharedBeginnings([view.beginnings() for view in views.values()])
    for name, view in views.items():
        positions = [i for i, feature in enumerate(features) if feature.view.name == name]
        started = time.perf_counter()
        try:
            scales = view.scales(photo.pixels, seed_from(photo.digest, name), beginnings)
        except (ViewError, MemoryError) as error:
            found.update(dict.fromkeys(positions, error))
            continue
        finally:
            timing.views_s += time.perf_counter() - started
        for shared in _by_pass(features, positions):
            started = time.perf_counter()
            found.update(_run_pass(features, shared, scales))
            spent = (time.perf_counter() - started) / len(shared)
            for position in shared:
                timing.encode_s[features[position].label] = spent
    return [found[i] for i in range(len(features))], timing


def _run_pass(
    features: Sequence[Feature], shared: Sequence[int], scales: Sequence[NDArray[np.uint8]]
) -> dict[int, NDArray[np.float32] | Failure]:
    """Run one forward pass for all features that read it."""
    encoders = [features[position].encoder for position in shared]
    try:
        # blocks[k][i]: scale k, feature shared[i]; a network that several features read runs once.
        blocks = [encoders[0].encode_together(encoders, crops) for crops in scales]
        return {
            position: features[position].join([block[i] for block in blocks])
            for i, position in enumerate(shared)
        }
    except EncoderSetupError:
        raise
    except (EncoderError, MemoryError) as error:
        if len(shared) == 1:
            return {shared[0]: error}
    # One of them failed and it is not known which: alone, each has its own outcome.
    return {position: _run_pass(features, [position], scales)[position] for position in shared}


def _by_pass(features: Sequence[Feature], positions: Sequence[int]) -> list[list[int]]:
    """Group positions of features on one view whose forward computation is the same."""
    groups: dict[str, list[int]] = {}
    for position in positions:
        groups.setdefault(features[position].pass_id, []).append(position)
    return list(groups.values())
