"""The quality encoder obeys the physics of distortion, and its cost formula counts what really runs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage

from featbank.encoders import make_encoder
from featbank.encoders.classic import filters, sharpness
from tests.support.textures import add_noise, blur, scene, through_jpeg

ENCODER = make_encoder("classic:nss")
SCENES = [scene(320, 448, seed) for seed in (2, 5)]


def follow(images: list[np.ndarray], name: str) -> list[float]:
    return [ENCODER.describe(image)[name] for image in images]


def assert_rising(values: list[float]) -> None:
    assert values == sorted(values)
    assert values[-1] > values[0]


@pytest.mark.parametrize("image", SCENES, ids=["a", "b"])
def test_blur_lowers_what_measures_sharpness(image: np.ndarray) -> None:
    found = [ENCODER.describe(blur(image, sigma) if sigma else image) for sigma in (0, 1, 2, 4)]
    for name in (
        "x1_reblur_p50",
        "x2_reblur_p50",
        "x1_edge_p50",
        "x1_x2_textured_gradient_ratio",
        "x1_textured_axis_right",
    ):
        assert_rising([f[name] for f in found][::-1])


@pytest.mark.parametrize("image", SCENES, ids=["a", "b"])
def test_noise_raises_the_noise_estimates_by_its_octaves(image: np.ndarray) -> None:
    # The quietest bright blocks are sky: they show the noise alone.
    octaves = [ENCODER.describe(add_noise(image, sigma))["noise_bright"] for sigma in (4, 8, 16)]
    # Luma averages three channels, so that their noise counts 0.67 of itself.
    luma_gain = np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    for sigma, found in zip((4, 8, 16), octaves, strict=True):
        assert found == pytest.approx(np.log2(sigma * luma_gain), abs=0.25)
    np.testing.assert_allclose(np.diff(octaves), 1, atol=0.15)


@pytest.mark.parametrize("image", SCENES, ids=["a", "b"])
def test_noise_turns_the_ratio_across_scales(image: np.ndarray) -> None:
    clean, noisy = ENCODER.describe(image), ENCODER.describe(add_noise(image, 12))
    assert noisy["x1_x2_smooth_noise_ratio"] > clean["x1_x2_smooth_noise_ratio"] + 0.5
    # White noise halves when the image is halved: one octave.
    assert noisy["x1_x2_smooth_noise_ratio"] == pytest.approx(1, abs=0.15)
    assert noisy["x1_smooth_shape"] > clean["x1_smooth_shape"]


@pytest.mark.parametrize("image", SCENES, ids=["a", "b"])
def test_compression_raises_blocking_and_empties_detail(image: np.ndarray) -> None:
    found = [ENCODER.describe(through_jpeg(image, quality)) for quality in (95, 50, 20, 8)]
    for name in ("grid_x", "grid_y", "dct_textured_zero_low", "dct_smooth_zero_low"):
        assert_rising([f[name] for f in found])
    assert_rising([f["dct_textured_gap_high"] for f in found[:3]][::-1])


def test_blocking_is_found_at_any_phase() -> None:
    image = through_jpeg(SCENES[0], 10)
    whole, cut = ENCODER.describe(image), ENCODER.describe(image[3:, 5:])
    assert cut["grid_x"] == pytest.approx(whole["grid_x"], abs=0.1)
    assert cut["grid_y"] == pytest.approx(whole["grid_y"], abs=0.1)


def test_motion_shows_in_the_direction_of_fine_bands() -> None:
    image = SCENES[0]
    moved = ndimage.uniform_filter1d(image.astype(np.float32), 13, axis=1)
    found = follow([image, np.rint(moved).astype(np.uint8)], "band6_direction")
    assert found[1] > found[0] + 1


def test_smooth_background_does_not_hide_sharp_foreground() -> None:
    sharp = SCENES[0]
    defocused = blur(sharp, 5)
    half = sharp.shape[1] // 2
    mixed = np.concatenate([sharp[:, :half], defocused[:, half:]], axis=1)
    name = "x1_reblur_p90"
    whole, part, none = follow([sharp, mixed, defocused], name)
    assert part == pytest.approx(whole, abs=0.08)
    assert none < part - 0.2


def test_mirror_changes_only_what_has_a_side() -> None:
    # Multiples of eight: the mirrored crop has the same lattice.
    image = SCENES[0]
    found, mirrored = ENCODER.describe(image), ENCODER.describe(image[:, ::-1])
    for name, value in found.items():
        # A repeated last column and the borders between sectors are the only differences.
        assert mirrored[name] == pytest.approx(value, abs=0.12), name


def test_features_are_bounded() -> None:
    rng = np.random.default_rng(1)
    extremes = [
        np.zeros((64, 64, 3), dtype=np.uint8),
        np.full((64, 64, 3), 255, dtype=np.uint8),
        rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        (rng.integers(0, 2, (128, 128, 3)) * 255).astype(np.uint8),
        *SCENES,
    ]
    for image in extremes:
        assert np.abs(list(ENCODER.describe(image).values())).max() < 16


def test_cost_counts_every_filter_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def count(module: ModuleType, name: str, macs: Callable[..., int]) -> None:
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (counted.append(macs(*given)), run(*given))[1])

    count(filters, "separable", lambda image, taps: 2 * image.size * np.count_nonzero(taps))
    count(filters, "gradient", lambda image: 4 * image.size)
    count(sharpness, "collect_reblur", lambda image, _: 4 * 2 * image.size)
    count(sharpness, "log_gabor_moments", lambda image: sharpness.log_gabor_macs(*image.shape))
    ENCODER.describe(np.zeros((200, 300, 3), dtype=np.uint8))
    # Two by two windows of 192 x 256 pixels cover the crop.
    n_windows, height, width = 4, 192, 256
    transforms = sharpness.dct_macs(height * width) + sharpness.band_macs(height, width)
    assert ENCODER.count_macs(200, 300) == sum(counted) + n_windows * transforms


def test_cost_grows_with_windows_up_to_the_ceiling() -> None:
    # Log-Gabor filters see the third of the windows with most contrast.
    gabor = sharpness.log_gabor_macs(128, 128)
    other = ENCODER.count_macs(256, 256) - gabor
    assert ENCODER.count_macs(512, 1024) == 8 * other + 3 * gabor
    assert ENCODER.count_macs(2160, 3840) == 35 * other + 12 * gabor
    assert ENCODER.count_macs(8640, 15360) == 35 * other + 12 * gabor
    assert ENCODER.count_macs(8, 8) == ENCODER.count_macs(64, 64)
