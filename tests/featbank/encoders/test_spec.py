"""The interface refuses what would put wrong numbers into the bank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from featbank.encoders import Encoder, EncoderSpec
from featbank.errors import EncoderError


def make_spec(**changes: Any) -> EncoderSpec:
    facts: dict[str, Any] = {
        "name": "classic:mean",
        "role": "quality",
        "title": "Mean",
        "reference": "none",
        "licence": "Apache-2.0",
        "weights": "none",
        "n_features": 3,
    }
    return EncoderSpec(**(facts | changes))


class MeanEncoder(Encoder):
    """Mean of each channel, with a fault on demand."""

    fault: str = ""

    def identity(self) -> dict[str, Any]:
        return {"name": self.spec.name, "epoch": 1}

    def pass_identity(self) -> dict[str, Any]:
        return self.identity()

    def count_macs(self, height: int, width: int) -> int:
        return height * width * 3

    def _encode(self, crops: np.ndarray) -> np.ndarray:
        means = crops.mean(axis=(1, 2), dtype=np.float64)
        if self.fault == "nan":
            means[0, 1] = np.nan
        if self.fault == "width":
            means = means[:, :2]
        return means if self.fault == "type" else means.astype(np.float32)


CROPS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_sound_encoder_passes_its_vectors_on() -> None:
    np.testing.assert_allclose(MeanEncoder(make_spec()).encode(CROPS), CROPS.mean(axis=(1, 2)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"1 of 3 features are not finite \(1\)"),
        ("width", r"shape \(2, 3\)"),
        ("type", "must be float32"),
    ],
)
def test_faulty_vectors_are_stopped(fault: str, message: str) -> None:
    encoder = MeanEncoder(make_spec())
    encoder.fault = fault
    with pytest.raises(EncoderError, match=message):
        encoder.encode(CROPS)


def test_names_of_columns_are_optional() -> None:
    assert MeanEncoder(make_spec()).feature_names() is None
    assert MeanEncoder(make_spec()).n_params == 0


def test_size_of_no_pixels_is_refused() -> None:
    with pytest.raises(EncoderError, match="at least one pixel, got 0 x 5"):
        MeanEncoder(make_spec()).encode(np.empty((1, 0, 5, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mean"}, "family:name"),
        ({"name": ":mean"}, "family:name"),
        ({"name": "classic:"}, "family:name"),
        ({"role": "beauty"}, "quality, content, scene, keypoint, mobile"),
        ({"n_features": 0}, "at least 1"),
    ],
)
def test_spec_refuses_contradictions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        make_spec(**changes)
