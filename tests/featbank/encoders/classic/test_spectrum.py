"""Band energies and log-Gabor responses of noise, gratings and turned images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.encoders.classic import sharpness

RNG = np.random.default_rng(5)


def grating(frequency: float, degrees: float, shape: tuple[int, int] = (128, 192)) -> np.ndarray:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    turn = np.deg2rad(degrees)
    return (128 + 50 * np.cos(2 * np.pi * frequency * (x * np.cos(turn) + y * np.sin(turn)))).astype(
        np.float32
    )


def test_white_noise_has_its_variance_in_every_band() -> None:
    energies = [sharpness.band_energies(RNG.normal(100, 6, (256, 256)).astype(np.float32)) for _ in range(12)]
    mean = np.mean(energies, axis=0)
    assert mean.shape == (sharpness.N_BANDS, sharpness.N_DIRECTIONS)
    # The lowest band has some 20 samples for each direction and image: 25 % is more than three deviations.
    np.testing.assert_allclose(mean, 36, rtol=0.25)
    np.testing.assert_allclose(mean[3:], 36, rtol=0.06)


def test_energy_scales_with_the_square_of_contrast_and_not_with_brightness() -> None:
    noise = RNG.normal(0, 5, (64, 128)).astype(np.float32)
    one = sharpness.band_energies(noise + 50)
    np.testing.assert_allclose(sharpness.band_energies(3 * noise + 200), 9 * one, rtol=1e-3)


@pytest.mark.parametrize("direction", range(4))
@pytest.mark.parametrize("band", [1, 4, 7])
def test_grating_lies_in_its_band_and_direction(band: int, direction: int) -> None:
    low, high = sharpness.BAND_EDGES[band : band + 2]
    energy = sharpness.band_energies(grating(np.sqrt(low * high), 45 * direction, (256, 256)))
    assert np.unravel_index(energy.argmax(), energy.shape) == (band, direction)
    # Hann side lobes fall fast: nearly all of the power is there (one bin holds many samples).
    assert energy[band, direction] > 0.9 * energy[band].sum()


def test_turning_by_a_quarter_swaps_directions() -> None:
    image = np.cumsum(RNG.normal(size=(128, 128)), axis=1).astype(np.float32)
    energy, turned = sharpness.band_energies(image), sharpness.band_energies(np.rot90(image).copy())
    # Sectors hold one border each, so that a few samples change sides.
    np.testing.assert_allclose(turned[:, [2, 3, 0, 1]], energy, rtol=0.35)
    assert energy[4, 2] > 2 * energy[4, 0] or energy[4, 0] > 2 * energy[4, 2]


@given(height=st.sampled_from([64, 128, 192, 256]), width=st.sampled_from([64, 128, 192, 256]))
def test_no_band_is_empty_in_any_window(height: int, width: int) -> None:
    image = np.random.default_rng(height + width).normal(0, 10, (height, width)).astype(np.float32)
    assert (sharpness.band_energies(image) > 0).all()


def test_constant_window_has_no_energy() -> None:
    assert sharpness.band_energies(np.full((64, 64), 37.3, dtype=np.float32)).max() < 1e-6


@pytest.mark.parametrize("direction", range(4))
@pytest.mark.parametrize("centre", [0, 1])
def test_log_gabor_answers_to_its_own_grating(centre: int, direction: int) -> None:
    frequency = sharpness.LOG_GABOR_CENTRES[centre]
    moments = sharpness.log_gabor_moments(grating(frequency, 45 * direction, (96, 96)))
    amplitude = moments[..., 2]
    assert np.unravel_index(amplitude.argmax(), amplitude.shape) == (centre, direction)
    # A one-sided filter of gain 1 turns a cosine of amplitude 50 into a wave of constant modulus 25.
    assert amplitude[centre, direction] == pytest.approx(25**2, rel=0.08)
    # The even response is the grating itself, up to its gain.
    wave = grating(frequency, 45 * direction, (96, 96)) - 128
    expected = np.abs(wave).mean() ** 2 / np.square(wave).mean()
    assert moments[centre, direction, 0] ** 2 / moments[centre, direction, 1] == pytest.approx(
        expected, rel=0.05
    )


def test_log_gabor_ignores_brightness() -> None:
    noise = RNG.normal(0, 10, (64, 64)).astype(np.float32)
    np.testing.assert_allclose(
        sharpness.log_gabor_moments(noise + 100), sharpness.log_gabor_moments(noise), rtol=1e-3
    )


def test_costs_by_hand() -> None:
    # 16 points: a complex transform is 128; half of it for real samples, taper and weights of 4 x 3 samples.
    assert sharpness.band_macs(4, 4) == 16 + 64 + 12
    assert sharpness.log_gabor_macs(4, 4) == 128 + 8 * (2 * 16 + 128)
