from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from featbank.demo.camera import CameraSettings, sample_light
from featbank.demo.canvas import Canvas, luminance
from featbank.demo.processing import display_luma
from featbank.demo.render import develop
from featbank.demo.scenes import SCENES

WIDTH, HEIGHT = 640, 430


def _light(kind, seed=3):
    return SCENES[kind].paint(Canvas(WIDTH, HEIGHT, np.random.default_rng(seed)))


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_are_light_well_exposed_and_repeat_with_their_generator(kind):
    light = _light(kind)
    assert light.shape == (3, HEIGHT, WIDTH)
    assert light.dtype == np.float32
    assert np.isfinite(light).all()
    assert light.min() >= 0.0
    y = luminance(light)
    assert 0.01 < y.mean() < 0.6
    assert np.percentile(y, 99) < 1.6
    assert y.std() > 0.1 * y.mean()
    np.testing.assert_array_equal(light, _light(kind))
    assert np.abs(light - _light(kind, 4)).mean() > 0.005


@pytest.mark.parametrize("kind", SCENES)
def test_a_clean_photo_of_every_kind_is_almost_flawless(kind):
    settings = CameraSettings(lens_sigma=0.3, shot_noise=2e-5, read_noise=2e-4, jpeg_quality=94)
    photo = develop(sample_light(_light(kind)), settings, np.random.default_rng(0))
    # No kind is marked down for what it shows: the whole spread is below a step of quality.
    assert photo.fidelity > 0.93


def _octave_slope(luma):
    """Exponent of the radial power spectrum over both ends of the picture, from 1/128 to a quarter per pixel."""
    n = min(luma.shape)
    taper = np.hanning(n)
    power = 0.0
    for part in (luma[:n, :n], luma[-n:, -n:]):
        power += np.abs(np.fft.rfft2((part - part.mean()) * taper[:, None] * taper[None, :])) ** 2
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    edges = 2.0 ** np.arange(-7, -1.9, 0.5)
    bands = [power[(f >= a) & (f < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(bands), 1)[0]


@pytest.mark.parametrize("kind", SCENES)
def test_spectra_and_contrast_are_those_of_photographs(kind):
    luma = display_luma(sample_light(_light(kind)), 0.15)
    # Nineteen real 4K photos have slopes from -2.0 to -3.5 and normalised contrasts from 0.06 to 0.6.
    assert -4.0 < _octave_slope(luma) < -1.2
    mean = gaussian_filter(luma, 7 / 6)
    deviation = np.sqrt(np.abs(gaussian_filter(luma * luma, 7 / 6) - mean**2))
    assert 0.04 < ((luma - mean) / (deviation + 1)).std() < 0.7


def test_at_least_three_kinds_are_exclusive_and_more_are_not():
    exclusive = [kind for kind in SCENES.values() if kind.is_exclusive]
    assert len(exclusive) >= 3
    assert len(SCENES) - len(exclusive) >= 6
