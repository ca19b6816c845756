from itertools import pairwise

import numpy as np
import pytest

from featbank.demo.texture import fractal, grain, smooth_field, smoothstep, tile, window


def radial_slope(plane, low=0.02, high=0.4):
    """Exponent of the radial power spectrum between two frequencies, by least squares on octave bands."""
    n = min(plane.shape)
    part = plane[:n, :n] - plane[:n, :n].mean()
    taper = np.hanning(n)
    power = np.abs(np.fft.rfft2(part * taper[:, None] * taper[None, :])) ** 2
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    edges = np.geomspace(low, high, 9)
    bands = [power[(f >= a) & (f < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(bands), 1)[0]


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_fractal_follows_its_power_law_across_the_seam_of_its_two_parts(beta):
    plane = fractal(512, 640, beta, np.random.default_rng(1))
    assert radial_slope(plane) == pytest.approx(-beta, abs=0.25)


def test_fractal_is_standardised_and_repeats_with_its_generator():
    plane = fractal(300, 400, 2.0, np.random.default_rng(5))
    assert plane.shape == (300, 400)
    assert abs(plane.mean()) < 0.1
    assert plane.std() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_array_equal(plane, fractal(300, 400, 2.0, np.random.default_rng(5)))
    assert np.abs(plane - fractal(300, 400, 2.0, np.random.default_rng(6))).mean() > 0.3


def test_tiles_are_periodic():
    source = tile(2.0)
    inside = np.abs(np.diff(source, axis=0)).mean()
    assert np.abs(source[0] - source[-1]).mean() == pytest.approx(inside, rel=0.25)


def test_stretch_makes_grains_longer_than_high():
    plane = grain(256, 256, 2.0, np.random.default_rng(0), stretch=6.0)
    across = np.abs(np.diff(plane, axis=1)).mean()
    down = np.abs(np.diff(plane, axis=0)).mean()
    assert down > 2.0 * across


def test_window_repeats_a_tile_beyond_its_size():
    source = np.arange(16 * 16, dtype=np.float32).reshape(16, 16)
    result = window(source, 40, 50, np.random.default_rng(2))
    np.testing.assert_array_equal(result[:24], result[16:])
    np.testing.assert_array_equal(result[:, :34], result[:, 16:])
    assert set(np.unique(result)) == set(source.ravel())


def test_smooth_fields_hold_no_fine_detail():
    plane = smooth_field(256, 256, 3.0, np.random.default_rng(0))
    assert np.abs(np.diff(plane, axis=1)).max() < 0.5
    assert plane.std() == pytest.approx(1.0, abs=0.1)


def test_smoothstep_is_monotone_between_its_limits():
    x = np.linspace(-2, 2, 101, dtype=np.float32)
    y = smoothstep(x, -1.0, 1.0)
    assert y[0] == 0.0
    assert y[-1] == 1.0
    assert (np.diff(y) >= 0).all()
    np.testing.assert_allclose(smoothstep(x, 1.0, -1.0), 1.0 - y, atol=1e-6)
