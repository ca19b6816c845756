"""Contrast-normalised coefficients and neighbour products against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from featbank.encoders.classic import filters, scene_statistics
from featbank.encoders.classic.scene_statistics import fit_ggd

RNG = np.random.default_rng(8)


def plain_normalise(image: np.ndarray) -> np.ndarray:
    """Equations 1 to 3 of the BRISQUE paper, pixel by pixel."""
    height, width = image.shape
    padded = np.pad(image.astype(np.float64), 3, mode="symmetric")
    result = np.empty((height, width))
    weights = {
        (k, m): np.exp(-(k**2 + m**2) / (2 * (7 / 6) ** 2)) for k in range(-3, 4) for m in range(-3, 4)
    }
    total = sum(weights.values())
    for y in range(height):
        for x in range(width):
            mean = sum(w * padded[y + 3 + k, x + 3 + m] for (k, m), w in weights.items()) / total
            square = sum(w * (padded[y + 3 + k, x + 3 + m] - mean) ** 2 for (k, m), w in weights.items())
            result[y, x] = (image[y, x] - mean) / (np.sqrt(square / total) + 1)
    return result


def test_coefficients_equal_a_plain_loop() -> None:
    image = RNG.uniform(0, 255, (13, 17)).astype(np.float32)
    coefficients, variance = scene_statistics.normalise_contrast(image)
    np.testing.assert_allclose(coefficients, plain_normalise(image), atol=2e-5)
    assert (variance >= 0).all()


def test_offset_and_constant_images_do_not_matter() -> None:
    image = RNG.integers(0, 100, (20, 20)).astype(np.float32)
    one, _ = scene_statistics.normalise_contrast(image)
    other, _ = scene_statistics.normalise_contrast(image + 150)
    np.testing.assert_allclose(one, other, atol=1e-4)
    flat, variance = scene_statistics.normalise_contrast(np.full((9, 9), 200.2, dtype=np.float32))
    np.testing.assert_allclose(flat, 0, atol=1e-5)
    np.testing.assert_allclose(variance, 0, atol=1e-8)


def test_variance_is_the_weighted_variance_of_noise() -> None:
    _, variance = scene_statistics.normalise_contrast(RNG.normal(0, 10, (256, 256)).astype(np.float32))
    # The weighted mean takes its own share of the variance away.
    weight = np.sum(np.outer(scene_statistics.LOCAL_TAPS, scene_statistics.LOCAL_TAPS) ** 2)
    assert variance.mean() == pytest.approx(100 * (1 - weight), rel=0.02)


def test_products_pair_each_pixel_with_its_neighbour() -> None:
    n = RNG.normal(size=(6, 7)).astype(np.float32)
    products = scene_statistics.neighbour_products(n)
    shifts = {"axis": ((0, 1), (1, 0)), "diagonal": ((1, 1), (1, -1))}
    for kind, (first, second) in shifts.items():
        for (down, right), found in zip((first, second), products[kind], strict=True):
            for y in range(5):
                for x in range(1, 6):
                    assert found[y, x] == n[y, x] * n[y + down, x + right]
            assert found.shape == n.shape
            assert np.isfinite(found).all()


def test_moments_are_means_over_blocks_of_what_is_defined() -> None:
    image = RNG.uniform(0, 255, (32, 64)).astype(np.float32)
    columns = scene_statistics.collect_moments(image, 16)
    coefficients, variance = scene_statistics.normalise_contrast(image)
    block = np.s_[16:32, 32:48]
    assert columns["square"].shape == (2, 4)
    assert columns["variance"][1, 2] == pytest.approx(variance[block].mean(), rel=1e-5)
    assert columns["abs"][1, 2] == pytest.approx(np.abs(coefficients[block]).mean(), rel=1e-5)
    right, down = (p[block] for p in scene_statistics.neighbour_products(coefficients)["axis"])
    both = np.concatenate([right.ravel(), down.ravel()])
    assert columns["axis_left"][1, 2] == pytest.approx((both < -(2.0**-12)).mean(), rel=1e-5)
    assert columns["axis_right"][1, 2] == pytest.approx((both > 2.0**-12).mean(), rel=1e-5)
    assert columns["axis_left2"][1, 2] == pytest.approx((both**2 * (both < 0)).mean(), rel=1e-5)
    assert columns["axis_right2"][1, 2] == pytest.approx((both**2 * (both > 0)).mean(), rel=1e-5)
    assert columns["axis_abs"][1, 2] == pytest.approx(np.abs(both).mean(), rel=1e-5)


def test_white_noise_has_gaussian_coefficients_and_symmetric_products() -> None:
    image = RNG.normal(128, 20, (512, 512)).astype(np.float32)
    columns = {name: float(c.mean()) for name, c in scene_statistics.collect_moments(image, 32).items()}
    fit = fit_ggd(columns["abs"], columns["square"])
    # Division by the local deviation of 49 weighted pixels makes the tails a little lighter than Gaussian.
    assert 2.0 < fit.shape < 3.2
    assert scene_statistics.fit_shape(columns) == pytest.approx(np.log(fit.shape))
    # The local mean makes neighbours repel each other a little: products are negative on average, never by much.
    assert -0.2 < scene_statistics.fit_products(columns)["axis_mean"] < 0


def test_blur_makes_neighbours_alike() -> None:
    noise = RNG.normal(128, 40, (256, 256)).astype(np.float32)
    means = []
    for sigma in (0.3, 0.6, 1.2):
        image = filters.separable(noise, filters.gaussian_taps(sigma, 6))
        columns = {name: float(c.mean()) for name, c in scene_statistics.collect_moments(image, 32).items()}
        means.append(scene_statistics.fit_products(columns)["axis_mean"])
    assert means[0] < means[1] < means[2]


def test_cost_of_a_small_image_by_hand() -> None:
    # Two Gaussians of seven taps along two axes on 100 pixels.
    assert scene_statistics.macs(100) == 2 * 2 * 7 * 100
