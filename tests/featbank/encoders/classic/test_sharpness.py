"""Noise, sharpness and blocking against closed forms, scikit-image and real JPEG files."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from featbank.encoders.classic import sharpness
from tests.support.textures import one_over_f, quantise, through_jpeg

RNG = np.random.default_rng(21)


def texture(side: int = 256) -> np.ndarray:
    return one_over_f(side, side)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    return through_jpeg(quantise(image), quality).astype(np.float32)


def test_structure_tensor_of_a_plane_is_its_slope() -> None:
    y, x = np.mgrid[0:32, 0:64].astype(np.float32)
    columns = sharpness.collect_gradients(2 * x + y, 16)
    inside = np.s_[0:2, 1:3]
    # Rows of the border see a reflected neighbour and half the slope.
    np.testing.assert_allclose(columns["xx"][inside], 4)
    np.testing.assert_allclose(columns["xy"][inside], 2 * (1 - 0.5 / 16))
    assert columns["gradient"].shape == (2, 4)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0, 25.0])
def test_noise_estimate_of_white_noise_is_its_deviation(sigma: float) -> None:
    image = (128 + RNG.normal(0, sigma, (256, 256))).astype(np.float32)
    found = sharpness.collect_noise(image, 32)["noise"].mean()
    # 65,536 correlated magnitudes: 2 % is more than four deviations of their mean.
    assert found == pytest.approx(sigma, rel=0.02)
    # Donoho's robust estimate from the diagonal Haar detail: another statistic of the same noise.
    haar = (image[::2, ::2] - image[1::2, ::2] - image[::2, 1::2] + image[1::2, 1::2]) / 2
    assert found == pytest.approx(np.median(np.abs(haar)) / 0.6745, rel=0.04)


def test_noise_estimate_is_blind_to_ramps_and_straight_edges() -> None:
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    for image in (3 * x - 2 * y, np.where(x < 30, 10, 200).astype(np.float32)):
        np.testing.assert_allclose(sharpness.collect_noise(image, 32)["noise"], 0, atol=0.05)


def test_noise_estimate_equals_the_published_sum() -> None:
    image = RNG.uniform(0, 255, (32, 32)).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
    response = ndimage.correlate(image.astype(np.float64), mask, mode="reflect")
    expected = np.sqrt(np.pi / 2) * np.abs(response).mean() / 6
    assert sharpness.collect_noise(image, 32)["noise"][0, 0] == pytest.approx(expected, rel=1e-5)


def test_reblur_equals_its_definition() -> None:
    image = RNG.uniform(0, 255, (32, 64)).astype(np.float32)
    columns = sharpness.collect_reblur(image, 32)
    for name, axis in (("x", 1), ("y", 0)):
        blurred = ndimage.uniform_filter1d(image.astype(np.float64), 9, axis=axis, mode="reflect")
        before, after = (
            np.abs(ndimage.correlate1d(plane.astype(np.float64), [-1, 1, 0], axis=axis, mode="reflect"))
            for plane in (image, blurred)
        )
        lost = np.maximum(before - after, 0)
        np.testing.assert_allclose(columns[f"change_{name}"][0, 0], before[:, :32].mean(), rtol=1e-4)
        np.testing.assert_allclose(columns[f"lost_{name}"][0, 0], lost[:, :32].mean(), rtol=1e-4)


def test_second_blur_takes_less_from_a_blurred_image() -> None:
    lost, kept = [], []
    for sigma in (0.0, 1.0, 2.0, 4.0):
        image = ndimage.gaussian_filter(texture(), sigma)
        columns = sharpness.collect_reblur(image, 32)
        energy = sharpness.collect_gradients(image, 32)
        lost.append(columns["lost_x"].sum() / columns["change_x"].sum())
        kept.append(columns["soft"].sum() / (energy["xx"] + energy["yy"]).sum())
    assert lost == sorted(lost, reverse=True)
    assert kept == sorted(kept)


def test_cosine_shares_count_the_coefficients_of_plain_sums() -> None:
    image = texture(32)
    k = np.arange(8)
    basis = np.sqrt(np.where(k == 0, 1, 2) / 8)[:, None] * np.cos(
        np.pi * k[:, None] * (2 * k[None, :] + 1) / 16
    )
    order = np.add.outer(k, k)
    counts = {"zero_low": [], "zero_high": [], "above4": []}
    for y in range(0, 32, 8):
        for x in range(0, 32, 8):
            magnitude = np.abs(basis @ image[y : y + 8, x : x + 8].astype(np.float64) @ basis.T)
            low, high = magnitude[(order >= 1) & (order <= 4)], magnitude[order >= 10]
            counts["zero_low"].append((low < 0.5).mean())
            counts["zero_high"].append((high < 0.5).mean())
            counts["above4"].append((low >= 4).mean())
    columns = sharpness.collect_dct(image, 32)
    for name, shares in counts.items():
        assert columns[name].shape == (1, 1)
        assert columns[name][0, 0] == pytest.approx(np.mean(shares), abs=1e-6)


def test_compression_empties_fine_coefficients_and_opens_gaps() -> None:
    zero, gap = [], []
    for quality in (95, 75, 50, 25):
        columns = sharpness.collect_dct(compressed(texture(), quality), 32)
        zero.append(columns["zero_mid"].mean())
        gap.append(columns["above1"].mean() / columns["above12"].mean())
    assert zero == sorted(zero)
    assert gap == sorted(gap, reverse=True)
    # At quality 25 the steps of coarse coefficients are more than 12 levels: none is left between 1 and 12.
    assert gap[-1] == pytest.approx(1, abs=0.01)


def test_grid_profile_of_drawn_blocks_is_exact() -> None:
    image = np.repeat(np.repeat(np.array([[10, 14], [13, 17]], dtype=np.float32), 8, axis=0), 8, axis=1)
    profile = sharpness.block_edge_profile(np.tile(image, (4, 4)))
    assert profile.shape == (2, 2, 8)
    for axis, step in ((0, 4), (1, 3)):
        excess, mean_step = profile[axis]
        np.testing.assert_allclose(mean_step, [0] * 7 + [step])
        # The steps beside the grid lose half of it.
        np.testing.assert_allclose(excess, [-step / 2, 0, 0, 0, 0, 0, -step / 2, step])


def test_grid_of_a_file_stands_out_more_with_less_quality_and_at_its_phase() -> None:
    heights = []
    for quality in (90, 30, 10, 5):
        image = compressed(texture(), quality)
        for axis in (0, 1):
            excess = sharpness.block_edge_profile(image)[axis, 0]
            if quality <= 30:
                assert excess.argmax() == 7
                # Three columns are cut away: the grid moves along.
                moved = np.ascontiguousarray(np.roll(image, -3, axis=1 - axis))
                assert sharpness.block_edge_profile(moved)[axis, 0].argmax() == 4
        heights.append(excess[7] - excess[:7].mean())
    assert heights == sorted(heights)


def test_costs_of_a_small_image_by_hand() -> None:
    assert sharpness.gradient_macs(64) == 2 * 2 * 64
    assert sharpness.noise_macs(64) == 2 * 3 * 64
    # Four differences of two taps, a Gaussian of seven twice, two differences.
    assert sharpness.reblur_macs(64) == (4 * 2 + 2 * 7 + 2 * 2) * 64
    assert sharpness.dct_macs(64) == 2 * 8 * 64
