import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featbank.demo.filters import (
    convolve_psf,
    correlate_same,
    correlate_valid,
    enlarge,
    gaussian_blur,
    gaussian_taps,
    halve,
    strips,
)


def _plane(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width), dtype=np.float32)


@given(st.integers(1, 200), st.integers(1, 70))
def test_strips_cover_every_row_once(height, rows):
    covered = [row for s in strips(height, rows) for row in range(s.start, s.stop)]
    assert covered == list(range(height))


@given(st.integers(12, 150), st.integers(12, 150), st.integers(0, 5), st.integers(0, 9))
def test_correlate_same_agrees_with_scipy(height, width, half, seed):
    plane = _plane(height, width, seed)
    taps = np.random.default_rng(seed).random(2 * half + 1)
    taps /= taps.sum()
    expected = scipy.ndimage.correlate1d(plane.astype(float), taps, axis=0, mode="reflect")
    expected = scipy.ndimage.correlate1d(expected, taps, axis=1, mode="reflect")
    np.testing.assert_allclose(correlate_same(plane, taps), expected, atol=2e-6)


@given(st.integers(12, 150), st.integers(12, 150), st.integers(1, 12))
def test_correlate_valid_is_the_inside_of_the_padded_result(height, width, n_taps):
    plane = _plane(height, width)
    taps = np.arange(1.0, n_taps + 1) / sum(range(1, n_taps + 1))
    expected = scipy.ndimage.correlate1d(
        plane.astype(float), taps, axis=0, origin=-(n_taps // 2) + (n_taps - 1) // 2
    )
    expected = sum(taps[k] * plane[k : height - n_taps + 1 + k].astype(float) for k in range(n_taps))
    expected = sum(taps[k] * expected[:, k : width - n_taps + 1 + k] for k in range(n_taps))
    np.testing.assert_allclose(correlate_valid(plane, taps), expected, atol=2e-6)


def test_correlate_valid_refuses_a_plane_smaller_than_the_taps():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        correlate_valid(_plane(10, 50), gaussian_taps(1.5, 11))


def test_correlation_does_not_change_its_input():
    plane = _plane(40, 50)
    kept = plane.copy()
    correlate_same(plane, gaussian_taps(1.0))
    convolve_psf(plane[None], np.full((3, 3), 1 / 9))
    np.testing.assert_array_equal(plane, kept)


@given(st.floats(0.3, 8.0))
def test_gaussian_taps_sum_to_one_and_have_the_asked_width(sigma):
    taps = gaussian_taps(sigma, 2 * int(np.ceil(6 * sigma)) + 1)
    x = np.arange(len(taps)) - len(taps) // 2
    assert taps.sum() == pytest.approx(1.0)
    # Sampling a narrow Gaussian changes its variance; from half a pixel on it is exact to a percent.
    if sigma >= 0.6:
        assert (taps * x**2).sum() == pytest.approx(sigma**2, rel=0.01)


@pytest.mark.parametrize("sigma", [3.0, 15.0])
def test_gaussian_blur_agrees_with_scipy_also_when_it_works_on_a_reduced_plane(sigma):
    plane = gaussian_blur(_plane(200, 301), 2.0)
    expected = scipy.ndimage.gaussian_filter(plane, sigma, mode="reflect", truncate=3.0)
    inside = (slice(60, -60), slice(60, -60))
    assert np.abs(gaussian_blur(plane, sigma) - expected)[inside].max() < 0.02 * plane.std() + 1e-3


def test_gaussian_blur_of_no_width_is_the_plane_itself():
    plane = _plane(20, 20)
    assert gaussian_blur(plane, 0.0) is plane


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_enlarge_agrees_with_pillow_inside(factor):
    plane = _plane(20, 26)
    height, width = 20 * factor, 26 * factor
    expected = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
    edge = 3 * factor
    result = enlarge(plane, factor, height, width)
    np.testing.assert_allclose(result[edge:-edge, edge:-edge], expected[edge:-edge, edge:-edge], atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 3, 8, 16]), st.floats(0, 5))
def test_enlarge_keeps_constants_and_cuts_to_size(height, width, factor, value):
    small = np.full((-(-height // factor), -(-width // factor)), value, dtype=np.float32)
    result = enlarge(small, factor, height, width)
    assert result.shape == (height, width)
    np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)


def test_enlarge_refuses_a_plane_that_is_too_small():
    with pytest.raises(ValueError, match="too small"):
        enlarge(_plane(4, 4), 8, 33, 32)


@pytest.mark.parametrize("height", [50, 401, 950])
def test_convolve_psf_agrees_with_a_direct_convolution_across_bands_and_up_to_the_border(height):
    planes = np.stack([_plane(height, 61, 1), _plane(height, 61, 2)])
    psf = np.random.default_rng(3).random((5, 9))
    psf /= psf.sum()
    result = convolve_psf(planes, psf)
    for plane, blurred in zip(planes, result, strict=True):
        np.testing.assert_allclose(blurred, scipy.ndimage.convolve(plane, psf, mode="reflect"), atol=1e-5)


def test_a_kernel_larger_than_the_picture_still_conserves_light():
    plane = _plane(20, 24)[None]
    assert convolve_psf(plane, np.full((31, 61), 1 / (31 * 61)))[0].mean() == pytest.approx(
        plane.mean(), rel=0.05
    )


def test_halve_averages_blocks_and_drops_an_odd_line():
    plane = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(halve(plane), [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4]])
