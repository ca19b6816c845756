import numpy as np
import pytest

from featbank.demo.camera import (
    CameraSettings,
    add_noise,
    apply_style,
    expose,
    reduce_noise,
    sample_light,
    take_photo,
    white_noise,
)
from featbank.demo.canvas import luminance
from featbank.demo.processing import FULL_WELL
from featbank.demo.texture import fractal

WIDTH, HEIGHT = 480, 320


def _rng(seed=0):
    return np.random.default_rng(seed)


def _plain(value, n_channels=3):
    return np.full((n_channels, HEIGHT, WIDTH), value, dtype=np.float32)


def _scene(seed=0):
    field = np.clip(0.2 + 0.06 * fractal(HEIGHT, WIDTH, 2.0, _rng(seed)), 0.01, 0.9)
    return np.stack([field, 0.8 * field, 0.6 * field]).astype(np.float32)


def test_a_flawless_camera_passes_light_unchanged():
    light = _scene()
    np.testing.assert_array_equal(expose(light, CameraSettings(), _rng()), light)


def test_one_stop_doubles_the_light_until_the_well_is_full():
    light = _scene()
    once = expose(light, CameraSettings(), _rng())
    twice = expose(light, CameraSettings(exposure_ev=1.0), _rng())
    np.testing.assert_allclose(twice, np.minimum(2.0 * once, FULL_WELL), rtol=1e-6)
    assert expose(light, CameraSettings(exposure_ev=6.0), _rng()).max() == FULL_WELL


def test_noise_variance_is_linear_in_the_signal():
    settings = CameraSettings(shot_noise=2e-3, read_noise=5e-3)
    levels = np.array([0.02, 0.1, 0.3, 0.6, 1.0])
    variances = [add_noise(_plain(v), settings, _rng(k)).var() for k, v in enumerate(levels)]
    slope, intercept = np.polyfit(levels, variances, 1)
    # 460,800 samples per level: variances are known to 0.4 %, these bounds are far beyond three deviations.
    assert slope == pytest.approx(2e-3, rel=0.03)
    assert intercept == pytest.approx(25e-6, rel=0.3)
    np.testing.assert_allclose(variances, slope * levels + intercept, rtol=0.03)


def test_noise_has_no_bias_and_differs_between_channels():
    noisy = add_noise(_plain(0.4), CameraSettings(shot_noise=1e-3, read_noise=1e-3), _rng())
    assert noisy.mean() == pytest.approx(0.4, abs=2e-4)
    residue = noisy - 0.4
    assert abs(np.corrcoef(residue[0].ravel(), residue[1].ravel())[0, 1]) < 0.02


def test_white_noise_is_standard_normal_and_white():
    noise = white_noise(200, 300, _rng())
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.02
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.02


def test_chroma_noise_adds_coarse_blotches():
    settings = CameraSettings(shot_noise=1e-3, chroma_noise=2.0)
    noisy = add_noise(_plain(0.4), settings, _rng())[0] - 0.4
    neighbours = (noisy[:, 1:] * noisy[:, :-1]).mean() / noisy.var()
    assert neighbours > 0.3


@pytest.mark.parametrize(
    "settings",
    [
        CameraSettings(lens_sigma=16.0),
        CameraSettings(defocus_radius=24.0),
        CameraSettings(motion_length=64.0, motion_angle=0.7, motion_bend=2.0),
    ],
    ids=["lens", "defocus", "motion"],
)
def test_blur_conserves_light_and_lowers_contrast(settings):
    light = _scene()
    blurred = expose(light, settings, _rng())
    np.testing.assert_allclose(blurred.mean(axis=(1, 2)), light.mean(axis=(1, 2)), rtol=5e-3)
    assert np.abs(np.diff(blurred)).mean() < 0.7 * np.abs(np.diff(light)).mean()


def test_blur_happens_before_the_well_clips():
    light = _plain(0.05)
    light[:, HEIGHT // 2, WIDTH // 2] = 30.0
    blurred = expose(light, CameraSettings(defocus_radius=32.0), _rng())
    # A point far brighter than white keeps its whole energy in the disc: about fifty pixels of radius four.
    assert blurred[0, HEIGHT // 2 - 2, WIDTH // 2 - 2] > 0.4


def test_a_veil_lowers_contrast_and_keeps_the_mean():
    light = _scene()
    veiled = expose(light, CameraSettings(veil=0.5), _rng())
    assert veiled.mean() == pytest.approx(light.mean(), rel=0.02)
    assert veiled[0].std() == pytest.approx(0.5 * light[0].std(), rel=1e-3)


def test_vignetting_darkens_the_corners_by_its_share():
    shaded = expose(_plain(0.5), CameraSettings(vignette=0.4), _rng())
    assert shaded[0, 0, 0] == pytest.approx(0.3, rel=1e-3)
    assert shaded[0, HEIGHT // 2, WIDTH // 2] == pytest.approx(0.5, rel=1e-3)


def test_aberration_moves_red_and_blue_apart_towards_the_corners_only():
    light = _plain(0.2)
    light[:, :, 440:] = 0.8
    light[:, :, 238:242] = 0.8
    # 16 pixels at 3,840 are 2 pixels here, the distance of red and blue in the corners.
    fringed = expose(light, CameraSettings(aberration=16.0), _rng())
    edge = np.abs(fringed[0] - fringed[2])[:, 430:450].max()
    middle = np.abs(fringed[0] - fringed[2])[:, 230:250].max()
    assert edge > 0.3
    assert middle < 0.05
    np.testing.assert_allclose(fringed[1], light[1])


def test_noise_reduction_smooths_plain_areas_and_keeps_edges():
    settings = CameraSettings(shot_noise=1e-3, read_noise=2e-3, denoise=1.5)
    light = _plain(0.3)
    light[:, :, WIDTH // 2 :] = 0.8
    noisy = add_noise(light.copy(), settings, _rng())
    clean = reduce_noise(noisy, settings)
    plain = (slice(None), slice(20, -20), slice(20, WIDTH // 2 - 20))
    assert clean[plain].std() < 0.4 * noisy[plain].std()
    step = clean[:, :, WIDTH // 2 + 1].mean() - clean[:, :, WIDTH // 2 - 2].mean()
    assert step > 0.45


def test_style_is_kept_by_the_flawless_camera_and_defects_are_not():
    settings = CameraSettings(
        lens_sigma=2.0, shot_noise=1e-3, jpeg_quality=10, shrink=3.0, contrast=0.3, saturation=1.1, warmth=0.2
    )
    assert settings.flawless() == CameraSettings(contrast=0.3, saturation=1.1, warmth=0.2)


def test_saturation_and_warmth_keep_luminance_roughly_and_grey_exactly():
    light = _scene()
    before = luminance(light)
    vivid = apply_style(light.copy(), CameraSettings(saturation=1.3))
    np.testing.assert_allclose(luminance(vivid), before, rtol=1e-3, atol=1e-4)
    grey = apply_style(_plain(0.3), CameraSettings(saturation=1.3))
    np.testing.assert_allclose(grey, 0.3, rtol=1e-5)
    warm = apply_style(_plain(0.3), CameraSettings(warmth=0.2))
    assert np.log(warm[0, 0, 0] / warm[2, 0, 0]) == pytest.approx(0.2, rel=1e-4)


def test_a_grayscale_photo_has_one_channel_of_luminance():
    light = _scene()
    grey = apply_style(light.copy(), CameraSettings(is_grayscale=True))
    np.testing.assert_allclose(grey[0], luminance(light), rtol=1e-6)
    assert take_photo(grey, CameraSettings(is_grayscale=True, sharpen=1.0, shrink=2.0), _rng()).shape == (
        HEIGHT,
        WIDTH,
        1,
    )


def test_sampling_softens_single_pixels_and_conserves_light():
    light = _plain(0.0)
    light[:, 100, 100] = 1.0
    sampled = sample_light(light.copy())
    assert sampled[0].sum() == pytest.approx(1.0, rel=1e-5)
    assert 0.3 < sampled[0, 100, 100] < 0.5


def test_take_photo_repeats_with_its_generator_and_leaves_the_light_alone():
    light = _scene()
    kept = light.copy()
    settings = CameraSettings(
        lens_sigma=6.0, shot_noise=1e-3, read_noise=1e-3, sharpen=0.5, denoise=1.0, aberration=20.0
    )
    first = take_photo(light, settings, _rng(7))
    np.testing.assert_array_equal(first, take_photo(light, settings, _rng(7)))
    assert (first != take_photo(light, settings, _rng(8))).mean() > 0.3
    np.testing.assert_array_equal(light, kept)


def test_records_repeat_the_settings_exactly():
    settings = CameraSettings(lens_sigma=1 / 3, shot_noise=1.23456789e-4).rounded()
    assert CameraSettings(**settings.to_dict()) == settings
