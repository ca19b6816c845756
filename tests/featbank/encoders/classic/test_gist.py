"""GIST against a direct filter, gratings and symmetries."""

from __future__ import annotations

import numpy as np
import pytest

from featbank.encoders import make_encoder
from featbank.encoders.classic import scene

ENCODER = make_encoder("classic:gist")
RNG = np.random.default_rng(6)


def describe(luma: np.ndarray) -> np.ndarray:
    """Return the energies, shape (4 scales, 8 orientations, 4, 4)."""
    crop = np.repeat(np.rint(luma).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(list(ENCODER.describe(crop).values())).reshape(4, 8, 4, 4)


def grating(frequency: float, turn: float, side: int = 128) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side]
    return 128 + 60 * np.cos(2 * np.pi * frequency * (x * np.cos(turn) + y * np.sin(turn)))


@pytest.mark.parametrize("orientation", [0, 2, 5])
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_grating_excites_its_own_filter(scale: int, orientation: int) -> None:
    frequency = scene.HIGHEST_FREQUENCY / scene.FREQUENCY_RATIO**scale
    # The kernels turn the other way round than the frequency's angle.
    energy = describe(grating(frequency, -np.pi * orientation / scene.N_ORIENTATIONS)).mean(axis=(2, 3))
    assert np.unravel_index(energy.argmax(), energy.shape) == (scale, orientation)


def test_energy_stays_in_the_cell_of_the_texture() -> None:
    luma = np.full((128, 128), 128.0)
    luma[32:64, 96:128] += 60 * np.sign(RNG.normal(size=(32, 32)))
    energy = describe(luma)[0].mean(axis=0)
    assert np.unravel_index(energy.argmax(), energy.shape) == (1, 3)
    assert energy[1, 3] > energy[3, 0] + 2


def test_mirror_swaps_columns_and_turns() -> None:
    luma = np.cumsum(np.cumsum(RNG.normal(size=(96, 128)), axis=0), axis=1)
    luma = 255 * (luma - luma.min()) / np.ptp(luma)
    energy, mirrored = describe(luma), describe(luma[:, ::-1])
    turned = energy[:, [0, 7, 6, 5, 4, 3, 2, 1]][..., ::-1]
    np.testing.assert_allclose(mirrored, turned, atol=0.06)


def test_one_filter_equals_a_circular_convolution_with_its_impulse() -> None:
    luma = RNG.uniform(0, 255, (16, 20)).astype(np.float32)
    _, kernel = next(iter(scene.kernels(16, 20)))
    impulse = np.fft.ifft2(kernel.astype(np.float64))
    expected = np.zeros((16, 20), dtype=complex)
    for y in range(16):
        for x in range(20):
            expected += luma[y, x] * np.roll(impulse, (y, x), axis=(0, 1))
    np.testing.assert_allclose(np.fft.ifft2(np.fft.fft2(luma) * kernel), expected, atol=1e-4)


def test_kernels_pass_their_centre_and_one_side_only() -> None:
    for (scale, orientation), kernel in scene.kernels(128, 128):
        assert 0.95 < kernel.max() <= 1
        assert kernel[0, 0] < 0.04
        row, column = np.unravel_index(kernel.argmax(), kernel.shape)
        frequency = np.hypot(np.fft.fftfreq(128)[row], np.fft.fftfreq(128)[column])
        assert frequency == pytest.approx(0.3 / 1.85**scale, abs=0.006)
        assert kernel[-row, -column] < 0.01, orientation


def test_large_crops_get_the_same_kernels_without_keeping_them() -> None:
    def lookups() -> int:
        found = scene._cached_kernels.cache_info()
        return found.hits + found.misses

    before = lookups()
    (_, small), (_, large) = next(iter(scene.kernels(8, 8))), next(iter(scene.kernels(1024, 1024)))
    assert lookups() == before + 1
    np.testing.assert_allclose(large[::128, ::128], small, atol=1e-6)


def test_whitening_removes_brightness_gain_and_slow_change() -> None:
    detail = RNG.normal(0, 1, (64, 64))
    one, other = (scene.whiten(np.exp(3 + 0.2 * detail + shade).astype(np.float32)) for shade in (0.0, 1.0))
    # log(1 + x) is log(x) up to 1 / x.
    np.testing.assert_allclose(one, other, atol=0.12)
    assert one.std() == pytest.approx(np.std(one / (1 + 0.2 / 0.2)) * 2)
    assert 0.3 < one.std() < 1


def test_constant_image_has_floor_energy() -> None:
    np.testing.assert_allclose(describe(np.full((32, 32), 90.0)), -7, atol=1e-3)


def test_cost_by_hand() -> None:
    # 8 x 8 pixels get a border of one: 100 points.
    transform = int(np.ceil(2 * 100 * np.log2(100)))
    assert ENCODER.count_macs(8, 8) == 2 * transform + 4 * 10 * 6 + transform + 32 * (200 + transform)
