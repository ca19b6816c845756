"""The laws of distortion on real photographs, where they are present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.encoders import make_encoder
from tests.support.textures import add_noise, blur, through_jpeg

ENCODER = make_encoder("classic:nss")


DISTORTIONS = {
    "none": lambda image: image,
    "blur": lambda image: blur(image, 3),
    "noise": lambda image: add_noise(image, 12),
    "compression": lambda image: through_jpeg(image, 8),
}


@pytest.fixture(scope="module")
def described(real_data: Path) -> dict[str, list[dict[str, float]]]:
    """Features of the middle of each photo by distortion."""
    paths = sorted((real_data / "photos-4k").glob("*.jpg"))
    if not paths:
        # The photographs are no part of the project; a folder of real data may hold metadata alone.
        pytest.skip(f"needs photographs in {real_data / 'photos-4k'}")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in DISTORTIONS}
    for path in paths:
        with Image.open(path) as image:
            left, top = (image.width - 768) // 16 * 8, (image.height - 512) // 16 * 8
            crop = np.asarray(image.convert("RGB").crop((left, top, left + 768, top + 512)))
        for kind, distort in DISTORTIONS.items():
            found[kind].append(ENCODER.describe(distort(crop)))
    return found


@pytest.mark.dataset
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "direction"),
    [
        ("blur", "x1_reblur_p50", -1),
        ("blur", "x2_reblur_p50", -1),
        ("blur", "band6_level", -1),
        ("blur", "x1_textured_axis_right", -1),
        ("noise", "noise_mid", 1),
        ("noise", "x1_x2_smooth_noise_ratio", 1),
        ("noise", "x1_smooth_shape", 1),
        ("compression", "dct_textured_zero_low", 1),
        ("compression", "dct_textured_gap_high", -1),
    ],
)
def test_distortion_moves_its_statistic_on_nearly_all_photos(
    described: dict[str, list[dict[str, float]]], kind: str, name: str, direction: int
) -> None:
    before, after = (np.array([features[name] for features in described[k]]) for k in ("none", kind))
    assert np.mean(direction * (after - before) > 0) >= 0.9
