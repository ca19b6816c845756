import numpy as np
import pytest

from featbank.demo.canvas import Canvas, luminance, mix, over, rgb, set_exposure, tone_to_linear
from featbank.demo.sprites import size_ladder, sprites


def _canvas(**options):
    return Canvas(200, 120, np.random.default_rng(0), **options)


def test_rgb_inverts_the_srgb_curve():
    linear = rgb(0, 128, 255)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(encoded * 255, [0, 128, 255], atol=1e-3)


def test_mix_runs_from_one_colour_to_the_other():
    a, b = rgb(10, 20, 30), rgb(200, 100, 0)
    np.testing.assert_array_equal(mix(a, b, 0.0), a)
    np.testing.assert_allclose(mix(a, b, 1.0), b)


def test_tone_is_a_square_law_around_128():
    np.testing.assert_allclose(tone_to_linear(np.array([0, 64, 128, 256], dtype=np.float32)), [0, 0.25, 1, 4])


def test_what_is_drawn_has_its_colour_and_tone():
    canvas = _canvas()
    red, green = canvas.add_colours([rgb(255, 0, 0), rgb(0, 255, 0)])
    canvas.rectangle((0, 0, 200, 120), red)
    canvas.polygon([(50, 20), (150, 20), (150, 100), (50, 100)], green, 64)
    light = canvas.to_linear()
    np.testing.assert_allclose(light[:, 5, 5], [1, 0, 0])
    np.testing.assert_allclose(light[:, 60, 100], [0, 0.25, 0])


def test_light_multiplies_reflectance():
    canvas = _canvas()
    canvas.rectangle((0, 0, 200, 120), canvas.add_colours([rgb(255, 255, 255)])[0])
    light = np.linspace(0, 1, 200, dtype=np.float32)[None, :].repeat(120, axis=0)
    np.testing.assert_allclose(canvas.to_linear(light), np.stack([light] * 3), atol=1e-6)


def test_coverage_tells_where_something_was_drawn():
    canvas = _canvas(is_transparent=True)
    colour = canvas.add_colours([rgb(9, 9, 9)])[0]
    canvas.ellipse(100, 60, 30, 30, colour)
    canvas.line([(0.0, 5.0), (199.0, 5.0)], 4, colour)
    canvas.text(10, 90, "TEXT", 24, colour)
    cover = canvas.coverage()
    assert cover[60, 100] == 1.0
    assert cover[5, 100] == 1.0
    assert cover[90:116, 10:80].max() > 0.9
    assert cover[40, 5] == 0.0


def test_coverage_of_an_opaque_canvas_is_refused():
    with pytest.raises(ValueError, match="is_transparent=True"):
        _canvas().coverage()


def test_a_full_palette_is_refused():
    canvas = _canvas()
    canvas.add_colours([rgb(1, 2, 3)], 250)
    with pytest.raises(ValueError, match="256 places"):
        canvas.add_colours([rgb(1, 2, 3)], 7)


def test_rectangles_without_area_leave_no_trace():
    canvas = _canvas(is_transparent=True)
    canvas.rectangle((10, 10, 10, 50), 0)
    canvas.rectangle((10, 50, 20, 40), 0)
    assert canvas.coverage().max() == 0.0
    canvas.rectangle((10.2, 10.2, 10.4, 10.4), 0)
    assert canvas.coverage().sum() == 1.0


def test_scatter_covers_about_what_the_dead_leaves_model_predicts():
    canvas = Canvas(600, 400, np.random.default_rng(1), is_transparent=True)
    colours = canvas.add_colours([rgb(100, 100, 100)], 4)
    canvas.scatter("stone", [12, 20, 30], colours, cover=1.0)
    # Independent places leave exp(-cover) of the ground bare; sprites fill most of their square.
    assert canvas.coverage().mean() == pytest.approx(1 - np.exp(-1.0), abs=0.15)


def test_sprites_are_made_once_and_have_matching_layers():
    first = sprites("leaf", 30, 3)
    assert first is sprites("leaf", 30, 3)
    for sprite in first:
        assert sprite.mask.size == sprite.tone.size == sprite.solid.size == (30, 30)
        hard = np.asarray(sprite.solid)
        assert 0.05 < hard.mean() < 0.95
        np.testing.assert_array_equal(hard, np.asarray(sprite.mask) > 127)


def test_size_ladder_runs_between_its_ends_in_even_ratios():
    ladder = size_ladder(20.0, 320.0)
    assert ladder[0] == 20
    assert ladder[-1] == 320
    ratios = np.array(ladder[1:]) / np.array(ladder[:-1])
    assert ratios.max() / ratios.min() < 1.15
    assert min(size_ladder(0.5, 3.0)) >= 6


def test_over_blends_by_its_mask():
    below = np.zeros((3, 4, 5), dtype=np.float32)
    mask = np.full((4, 5), 0.25, dtype=np.float32)
    np.testing.assert_allclose(over(below, rgb(255, 255, 255), mask), 0.25)
    above = np.ones((3, 4, 5), dtype=np.float32)
    np.testing.assert_allclose(over(below, above, np.ones((4, 5), dtype=np.float32)), 1.0)


def test_set_exposure_reaches_the_key_unless_highlights_forbid():
    planes = np.random.default_rng(0).random((3, 400, 400), dtype=np.float32)
    exposed = set_exposure(planes.copy(), 0.2)
    assert luminance(exposed).mean() == pytest.approx(0.2, abs=0.02)
    planes[:, :100] *= 50.0
    bright = set_exposure(planes.copy(), 0.5, ceiling=1.0)
    assert np.percentile(luminance(bright), 99.5) == pytest.approx(1.0, abs=0.1)
