"""Exposure and colour against plain formulas and extreme images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.encoders.classic import filters

RNG = np.random.default_rng(4)
CROP = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def test_luminance_weighs_the_channels() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], dtype=np.uint8)
    np.testing.assert_allclose(filters.luminance(colours[None])[0], [76.245, 149.685, 29.07, 255], rtol=1e-5)


def test_colourfulness_equals_the_published_formula() -> None:
    red, green, blue = np.moveaxis(CROP.astype(np.float64), -1, 0)
    first, second = red - green, (red + green) / 2 - blue
    expected = np.sqrt(first.var() + second.var()) + 0.3 * np.sqrt(first.mean() ** 2 + second.mean() ** 2)
    assert filters.colourfulness(CROP) == pytest.approx(expected, rel=1e-5)


@given(level=st.integers(0, 255))
def test_grey_has_no_colour(level: int) -> None:
    assert filters.colourfulness(np.full((4, 4, 3), level, dtype=np.uint8)) == 0


def test_more_saturation_is_more_colourful() -> None:
    grey = np.repeat(CROP.mean(axis=2, keepdims=True), 3, axis=2)
    found = [
        filters.colourfulness((grey + share * (CROP - grey)).astype(np.uint8)) for share in (0, 0.3, 0.6, 1)
    ]
    assert found == sorted(found)
    assert found[0] < 1


def test_exposure_percentiles_equal_numpy() -> None:
    found = filters.describe_photometry(CROP)
    luma = np.rint(filters.luminance(CROP))
    assert found["exposure_mean"] == pytest.approx(filters.luminance(CROP).mean() / 255)
    for name, level in (("exposure_p05", 0.05), ("exposure_p95", 0.95)):
        assert found[name] * 255 == np.quantile(luma, level, method="inverted_cdf")


def test_clipping_and_contrast_of_extreme_images() -> None:
    black = filters.describe_photometry(np.zeros((20, 20, 3), dtype=np.uint8))
    white = filters.describe_photometry(np.full((20, 20, 3), 255, dtype=np.uint8))
    assert black["clipped_dark"] == white["clipped_bright"] > 0
    assert black["clipped_bright"] == white["clipped_dark"] == -5
    assert black["exposure_p95"] == 0
    assert white["exposure_p05"] == 1
    for found in (black, white):
        assert found["contrast"] == 2
        assert found["entropy"] == 0


def test_every_level_once_has_full_entropy() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert filters.describe_photometry(ramp)["entropy"] == pytest.approx(1)


def test_sample_is_regular_and_bounded() -> None:
    large = np.zeros((2160, 3840, 3), dtype=np.uint8)
    n_pixels = filters.sample_pixels(large)[..., 0].size
    assert 100_000 < n_pixels < 200_000
    assert filters.sample_pixels(CROP).shape == CROP.shape


def test_large_photo_is_told_by_its_sample() -> None:
    y, x = np.mgrid[0:1200, 0:1600]
    photo = np.stack([x / 1600, y / 1200, (x + y) / 2800], axis=-1) * 255
    photo = (photo + RNG.normal(0, 5, photo.shape)).clip(0, 255).astype(np.uint8)
    found = filters.describe_photometry(photo)
    assert found["exposure_mean"] == pytest.approx(
        filters.luminance(photo).mean(dtype=np.float64) / 255, abs=0.005
    )
