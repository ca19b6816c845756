from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from skimage.metrics import structural_similarity

from featbank.demo.camera import CameraSettings
from featbank.demo.measure import MS_SSIM_WEIGHTS, fidelity, ms_ssim, ssim_maps_mean, viewing_size, vif
from featbank.demo.render import develop
from featbank.demo.texture import fractal


def _pair(seed=0, height=190, width=240):
    rng = np.random.default_rng(seed)
    reference = np.clip(120 + 45 * fractal(height, width, 2.2, rng), 0, 255)
    noisy = scipy.ndimage.gaussian_filter(reference, 1.0) * 0.9 + rng.normal(0, 6, reference.shape)
    return reference.astype(np.float32), np.clip(noisy, 0, 255).astype(np.float32)


def test_ssim_agrees_with_scikit_image():
    reference, picture = _pair()
    full, maps = structural_similarity(
        reference.astype(float),
        picture.astype(float),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    # scikit-image pads the map and then averages its inside: the same pixels as the "valid" part.
    assert ssim_maps_mean(reference, picture)[0] == pytest.approx(float(maps[5:-5, 5:-5].mean()), abs=2e-5)
    assert full == pytest.approx(float(maps[5:-5, 5:-5].mean()), abs=1e-9)


def _gaussian(n, sigma):
    x = np.arange(n) - (n - 1) / 2
    g = np.exp(-0.5 * (x / sigma) ** 2)
    window = np.outer(g, g)
    return window / window.sum()


def _filtered(plane, window):
    return scipy.signal.convolve2d(plane, window, mode="valid")


def _ms_ssim_by_definition(x, y):
    """Equation 7 of Wang, Simoncelli and Bovik (2003), written out in float64."""
    window, product = _gaussian(11, 1.5), 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        mx, my = _filtered(x, window), _filtered(y, window)
        vx, vy = _filtered(x * x, window) - mx**2, _filtered(y * y, window) - my**2
        cov = _filtered(x * y, window) - mx * my
        value = (2 * cov + 7.65**2) / (vx + vy + 7.65**2)
        if scale == 4:
            value = value * (2 * mx * my + 2.55**2) / (mx**2 + my**2 + 2.55**2)
        product *= value.mean() ** weight
        h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        x, y = (p[:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3)) for p in (x, y))
    return product


def _vif_by_definition(x, y):
    """Pixel-domain VIF of Sheikh and Bovik (2006), pixel by pixel in float64."""
    kept = total = 0.0
    for scale in range(4):
        n = 2 ** (4 - scale) + 1
        window = _gaussian(n, n / 5)
        if scale:
            x, y = _filtered(x, window)[::2, ::2], _filtered(y, window)[::2, ::2]
        mx, my = _filtered(x, window), _filtered(y, window)
        vx, vy = _filtered(x * x, window) - mx**2, _filtered(y * y, window) - my**2
        cov = _filtered(x * y, window) - mx * my
        for sx, sy, c in zip(vx.ravel(), vy.ravel(), cov.ravel(), strict=True):
            sx, sy = max(sx, 0.0), max(sy, 0.0)
            g = c / (sx + 1e-10)
            s = sy - g * c
            if sx < 1e-10:
                g, s, sx = 0.0, sy, 0.0
            if sy < 1e-10:
                g, s = 0.0, 0.0
            if g < 0:
                g, s = 0.0, sy
            s = max(s, 1e-10)
            kept += np.log2(1 + g * g * sx / (s + 2.0))
            total += np.log2(1 + sx / 2.0)
    return kept / total


def test_ms_ssim_agrees_with_its_definition():
    reference, picture = _pair(1)
    expected = _ms_ssim_by_definition(reference.astype(float), picture.astype(float))
    assert ms_ssim(reference, picture) == pytest.approx(expected, abs=1e-5)


def test_vif_agrees_with_its_definition():
    reference, picture = _pair(2)
    expected = _vif_by_definition(reference.astype(float), picture.astype(float))
    assert vif(reference, picture) == pytest.approx(expected, rel=1e-4)


def test_equal_pictures_reach_one_and_no_other_does():
    reference, picture = _pair()
    for measure in (ms_ssim, vif):
        assert measure(reference, reference) == pytest.approx(1.0, abs=1e-6)
        assert measure(reference, picture) < 0.99
    assert fidelity(reference, reference) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)


def test_vif_rewards_contrast_but_the_joint_measure_does_not():
    reference, _ = _pair()
    stretched = ((reference - 120) * 1.3 + 120).astype(np.float32)
    assert vif(reference, stretched) > 1.0
    joint, similarity, _ = fidelity(reference, stretched)
    assert joint == pytest.approx(similarity**7)


def test_a_reference_without_detail_carries_no_information_to_lose():
    plain = np.full((180, 200), 90.0, dtype=np.float32)
    # What float32 leaves of its variance is far below the visual noise and counts for next to nothing.
    assert vif(plain, plain) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("measure", [ms_ssim, vif])
def test_pictures_of_other_shapes_or_too_small_are_refused(measure):
    with pytest.raises(ValueError, match="of one shape"):
        measure(np.zeros((200, 200), np.float32), np.zeros((200, 201), np.float32))
    with pytest.raises(ValueError, match="at least 176 pixels"):
        measure(np.zeros((100, 300), np.float32), np.zeros((100, 300), np.float32))


def test_only_pictures_beyond_the_definitions_viewing_distance_are_halved():
    assert viewing_size(np.zeros((20, 2880), np.float32)).shape == (20, 2880)
    assert viewing_size(np.zeros((20, 3840), np.float32)).shape == (10, 1920)


LADDERS = {
    "soft": [{"lens_sigma": s} for s in (4.0, 8.0, 16.0, 30.0)],
    "defocus": [{"defocus_radius": r} for r in (8.0, 16.0, 32.0, 64.0)],
    "motion": [{"motion_length": v} for v in (24.0, 48.0, 96.0, 200.0)],
    "noise": [{"shot_noise": v, "read_noise": 4 * v} for v in (3e-4, 1e-3, 3e-3, 1e-2)],
    "smear": [{"shot_noise": v, "read_noise": 4 * v, "denoise": 1.5} for v in (1e-3, 3e-3, 1e-2)],
    "under": [{"exposure_ev": v} for v in (-0.3, -0.8, -1.5, -2.2)],
    "over": [{"exposure_ev": v} for v in (0.4, 0.9, 1.5)],
    "veil": [{"veil": v} for v in (0.1, 0.25, 0.5)],
    "halo": [{"sharpen": v, "sharpen_sigma": 6.0} for v in (0.5, 1.2, 2.5)],
    "enlarged": [{"shrink": v} for v in (1.5, 2.5, 4.0)],
    "compression": [{"jpeg_quality": v} for v in (80, 50, 25, 8)],
}


@pytest.mark.parametrize("name", LADDERS)
def test_fidelity_falls_with_every_defect_of_the_camera(name):
    field = np.clip(0.2 + 0.08 * fractal(270, 480, 2.2, np.random.default_rng(4)), 0.005, 1.0)
    light = np.stack([field, 0.9 * field, 0.7 * field]).astype(np.float32)
    values = [
        develop(light, CameraSettings(**{"jpeg_quality": 96} | options), np.random.default_rng(1)).fidelity
        for options in [{}, *LADDERS[name]]
    ]
    assert values[0] > 0.94
    assert all(a > b for a, b in pairwise(values)), values
    assert values[-1] < 0.9
