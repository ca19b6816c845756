import io

import numpy as np
import pytest
from PIL import Image

from featbank.demo.processing import (
    FULL_WELL,
    display_luma,
    encode_jpeg,
    jpeg_luma,
    sharpen,
    shrink_and_enlarge,
    to_display,
    tone_table,
)
from featbank.demo.texture import fractal


def _pixels(seed=0, n_channels=3):
    field = np.clip(128 + 40 * fractal(200, 320, 2.2, np.random.default_rng(seed)), 0, 255).astype(np.uint8)
    return np.repeat(field[..., None], n_channels, axis=2)


def test_the_tone_curve_is_srgb_below_the_shoulder_and_ends_at_white():
    table = tone_table(0.0)
    x = np.linspace(0.0, FULL_WELL, len(table))
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055) * 255
    below = x < 0.7
    np.testing.assert_allclose(table[below], srgb[below], atol=1e-3)
    assert table[-1] == pytest.approx(255.0, abs=1e-3)


@pytest.mark.parametrize("contrast", [0.0, 0.15, 0.5])
def test_the_tone_curve_rises_everywhere(contrast):
    assert (np.diff(tone_table(contrast)) >= 0.0).all()


def test_display_values_follow_the_curve_and_cut_what_is_out_of_range():
    planes = np.array([-0.1, 0.0, 0.18, 1.25, 9.0], dtype=np.float32).reshape(1, 1, 5)
    shown = to_display(planes, 0.0)[0, :, 0]
    assert shown.tolist()[:2] == [0, 0]
    assert shown[2] == round((1.055 * 0.18 ** (1 / 2.4) - 0.055) * 255)
    assert shown.tolist()[3:] == [255, 255]


def test_luma_of_the_reference_is_the_luma_of_its_display():
    planes = np.random.default_rng(0).random((3, 50, 60), dtype=np.float32)
    shown = to_display(planes, 0.15).astype(float)
    luma = shown @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(display_luma(planes, 0.15), luma, atol=0.51)


def test_sharpening_overshoots_at_edges_and_leaves_plain_areas():
    pixels = np.full((60, 80, 3), 100, dtype=np.uint8)
    pixels[:, 40:] = 150
    result = sharpen(pixels, 2.0, 1.5)
    assert result.min() < 85
    assert result.max() > 165
    np.testing.assert_array_equal(result[:, :30], 100)
    assert sharpen(pixels, 0.0, 1.5) is pixels


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_detour_through_a_smaller_size_takes_detail_and_keeps_the_shape(n_channels):
    pixels = _pixels(n_channels=n_channels)
    result = shrink_and_enlarge(pixels, 3.0)
    assert result.shape == pixels.shape
    detail = [np.abs(np.diff(p.astype(int), axis=1)).mean() for p in (pixels, result)]
    assert detail[1] < 0.6 * detail[0]
    assert shrink_and_enlarge(pixels, 1.0) is pixels


@pytest.mark.parametrize(("n_channels", "mode"), [(1, "L"), (3, "RGB")])
def test_jpeg_files_have_the_mode_and_lose_more_at_lower_quality(n_channels, mode):
    pixels = _pixels(n_channels=n_channels)
    errors, sizes = [], []
    for quality in (95, 50, 10):
        data = encode_jpeg(pixels, quality, is_subsampled=True)
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.mode == mode
            assert picture.size == (320, 200)
        errors.append(np.abs(jpeg_luma(data) - pixels[..., 0]).mean())
        sizes.append(len(data))
    assert errors[0] < errors[1] < errors[2]
    assert sizes[0] > sizes[1] > sizes[2]


def test_subsampling_halves_the_colour_planes():
    pixels = _pixels()
    with Image.open(io.BytesIO(encode_jpeg(pixels, 90, is_subsampled=True))) as picture:
        assert picture.layer[0][1:3] == (2, 2)
    with Image.open(io.BytesIO(encode_jpeg(pixels, 90, is_subsampled=False))) as picture:
        assert picture.layer[0][1:3] == (1, 1)
