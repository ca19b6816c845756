from itertools import pairwise

import cv2
import numpy as np
import pytest

from featbank.demo import scenes
from featbank.demo.camera import blur
from featbank.demo.scenes import EXCLUSIVE, SCENES, TAGS

HEIGHT, WIDTH = 426, 640


def _radial_slope(plane, low, high):
    """Exponent of the radial power spectrum between two frequencies, by least squares on half octaves."""
    n = min(plane.shape)
    taper = np.outer(np.hanning(n), np.hanning(n))
    power = sum(np.abs(np.fft.rfft2((p - p.mean()) * taper)) ** 2 for p in (plane[:n, :n], plane[-n:, -n:]))
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    edges = 2.0 ** np.arange(np.log2(low), np.log2(high) + 0.1, 0.5)
    bands = [power[(f >= a) & (f < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(bands), 1)[0]


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_a_field_follows_its_power_law_and_is_standardised(beta):
    plane = scenes.field(512, 640, beta, np.random.default_rng(1))
    assert _radial_slope(plane, 1 / 32, 1 / 3) == pytest.approx(-beta, abs=0.35)
    assert abs(plane.mean()) < 0.05
    assert plane.std() == pytest.approx(1.0, abs=0.05)


def test_a_texture_has_its_contrast_and_is_one_on_average():
    plane = scenes.texture(600, 900, 1.8, 0.1, np.random.default_rng(0))
    assert plane.mean() / 128 == pytest.approx(1.0, abs=0.03)
    assert plane.std() / 128 == pytest.approx(0.1, abs=0.025)


def test_shading_multiplies_by_factors_of_any_size():
    picture = scenes.flat(64, 96, (100, 50, 200))
    scenes.shade(picture, np.full((64, 96), 64, np.uint8), np.full((4, 6), 1.5, np.float32))
    np.testing.assert_allclose(picture[10, 10], (75, 37.5, 150), atol=1)


def test_relief_lights_the_side_that_faces_the_light():
    radius = np.ones((200, 200), np.float32)
    cv2.circle(radius, (100, 100), 60, 60.0, -1)
    light = scenes.relief(radius, np.random.default_rng(0), bump=0.0)
    assert light[70, 70] > light[100, 100] > light[130, 130] > 0


@pytest.mark.parametrize("kind", SCENES)
def test_a_scene_is_well_exposed_repeats_with_its_generator_and_looks_like_a_photograph(kind):
    picture = SCENES[kind](HEIGHT, WIDTH, np.random.default_rng(3))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, SCENES[kind](HEIGHT, WIDTH, np.random.default_rng(3)))
    assert np.abs(picture.astype(int) - SCENES[kind](HEIGHT, WIDTH, np.random.default_rng(4))).mean() > 5
    gray = cv2.cvtColor(blur(picture, 0.55), cv2.COLOR_RGB2GRAY).astype(float)
    assert 15 < gray.mean() < 200
    assert gray.std() > 12
    assert (gray >= 254).mean() < 0.15
    # Nineteen real 4K photographs have slopes from -2.0 to -3.5.
    assert -4.0 < _radial_slope(gray, 1 / 64, 1 / 4) < -1.2


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_take_small_and_odd_sizes_and_any_generator(kind):
    for seed in range(12):
        size = ((180, 320), (241, 321))[seed % 2]
        assert SCENES[kind](*size, np.random.default_rng(seed)).shape == (*size, 3)


def test_a_dozen_kinds_four_of_them_of_the_categories_that_the_release_keeps_out_of_training():
    assert len(SCENES) == 12
    words = {tag.lower() for tags in EXCLUSIVE.values() for tag in tags}
    assert words == {"sea", "ocean", "sand", "landscape", "mountain", "scenery", "city", "urban"}
    assert not words & {tag.lower() for paint, tags in TAGS.items() if paint not in EXCLUSIVE for tag in tags}
