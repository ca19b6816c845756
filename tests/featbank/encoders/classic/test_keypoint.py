"""Corners, blobs and edges against scikit-image, drawn figures and known widths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import erf
from skimage.feature import structure_tensor_eigenvalues

from featbank.encoders import make_encoder
from featbank.encoders.classic import filters, keypoint

ENCODER = make_encoder("classic:keypoint")
RNG = np.random.default_rng(12)


def describe(luma: np.ndarray) -> dict[str, float]:
    return ENCODER.describe(np.repeat(np.rint(luma).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def test_corners_are_told_by_the_eigenvalues_of_the_tensor() -> None:
    along_x, along_y = RNG.normal(size=(2, 30, 40)).astype(np.float32)
    tensor = [
        ndimage.gaussian_filter(p, 2) for p in (along_x * along_x, along_y * along_y, along_x * along_y)
    ]
    small, large = keypoint.tensor_eigenvalues(*tensor)
    expected = structure_tensor_eigenvalues([tensor[1], tensor[2], tensor[0]])
    np.testing.assert_allclose(large, expected[0], rtol=1e-4)
    np.testing.assert_allclose(small, expected[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 4.0])
def test_edge_width_of_a_blurred_step_is_its_blur(sigma: float) -> None:
    x = np.arange(-40, 41)
    # An ideal step blurred by sigma, and by sigma and one pixel; gradients in closed form at the edge.
    gradients = [100 / (np.sqrt(2 * np.pi) * np.hypot(sigma, extra)) for extra in (0, 1)]
    found = keypoint.edge_width(*(np.array([g], dtype=np.float32) for g in gradients))
    assert found[0] == pytest.approx(sigma, rel=1e-4)
    step = np.broadcast_to(50 * (1 + erf(x / (sigma * np.sqrt(2)))), (81, 81)).astype(np.float32)
    sampled = [
        filters.gradient(plane)[0][40:41, 40]
        for plane in (step, filters.separable(step, filters.gaussian_taps(1, 3)))
    ]
    # The central difference itself blurs by about half a pixel.
    assert keypoint.edge_width(*sampled)[0] == pytest.approx(np.hypot(sigma, 0.55), rel=0.12)


def test_edge_width_is_bounded() -> None:
    wide = keypoint.edge_width(np.array([1.0, 0.0], dtype=np.float32), np.array([1.0, 0.0], dtype=np.float32))
    np.testing.assert_allclose(wide, 10, rtol=1e-5)
    assert keypoint.edge_width(np.array([1.0], dtype=np.float32), np.zeros(1, dtype=np.float32))[
        0
    ] == pytest.approx(0.1)


def test_blur_widens_edges_and_weakens_corners() -> None:
    y, x = np.mgrid[0:160, 0:160]
    scene = 128 + 80 * np.sign(np.sin(x / 9) * np.sin(y / 11))
    widths, corners = [], []
    for sigma in (0.6, 1.2, 2.4):
        found = describe(ndimage.gaussian_filter(scene, sigma))
        widths.append(found["level0_edge_width_p50"])
        corners.append(found["level0_corner_strength_p90"])
    assert widths == sorted(widths)
    assert corners == sorted(corners, reverse=True)


def test_corners_of_a_drawn_board_are_counted() -> None:
    y, x = np.mgrid[0:256, 0:256]
    board = np.where(((x + 16) // 32 + (y + 16) // 32) % 2 == 0, 60.0, 190.0)
    # A seam midway between pixels would give each crossing several equal peaks: shift it a little.
    found = describe(ndimage.shift(board, (0.3, 0.2), order=1, mode="nearest"))
    # Seams at 16, 48, .., 240: eight times eight crossings and nothing else is a strong corner.
    assert found["level0_corner_density9"] == pytest.approx(math.log2(64 / 256**2 + 2.0**-12), abs=0.02)
    assert found["level0_corner_evenness"] == pytest.approx(1, abs=1e-3)
    assert found["level0_corner_centre"] == pytest.approx(0.25, abs=1e-3)


def test_stripes_have_edges_of_one_direction_and_no_corners() -> None:
    x = np.broadcast_to(np.arange(128), (128, 128))
    found = describe(128 + 60 * np.sign(np.sin(x / 5)))
    assert found["level0_corner_density1"] == -12
    assert found["level0_coherence"] > 0.99
    assert found["level0_edge_density6"] > -5


def test_blobs_are_counted_by_sign() -> None:
    luma = np.full((128, 128), 128.0)
    y, x = np.mgrid[0:128, 0:128]
    for row, column in ((20, 20), (20, 100), (64, 64), (100, 30)):
        luma += 60 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 2.0**2))
    bright, dark = describe(luma), describe(256 - luma)
    expected = math.log2(4 / 128**2 + 2.0**-12)
    assert bright["level0_blob_bright_density9"] == pytest.approx(expected)
    assert dark["level0_blob_dark_density9"] == pytest.approx(expected)
    assert bright["level0_blob_dark_density9"] == -12


def test_strengths_follow_contrast() -> None:
    pattern = np.sign(ndimage.gaussian_filter(RNG.normal(size=(128, 128)), 3))
    weak, strong = describe(128 + 20 * pattern), describe(128 + 40 * pattern)
    # Twice the contrast is one octave, less the floor's share.
    assert strong["level0_corner_strength_p99"] - weak["level0_corner_strength_p99"] == pytest.approx(
        1, abs=0.15
    )


def test_corners_in_one_quarter_are_uneven() -> None:
    luma = np.full((128, 128), 128.0)
    luma[:32, :32] += 50 * np.sign(ndimage.gaussian_filter(RNG.normal(size=(32, 32)), 2))
    found = describe(luma)
    assert found["level0_corner_evenness"] < 0.3
    assert found["level0_corner_centre"] < 0.1


def test_cost_by_hand() -> None:
    # Per pixel: one Gaussian of 7 taps, three of 13, two of 11, each twice, and two gradients of four products.
    per_pixel = 2 * (7 + 3 * 13 + 2 * 11) + 2 * 4
    assert ENCODER.count_macs(64, 64) == per_pixel * (64**2 + 32**2 + 16**2 + 8**2)
    # A crop too small to be halved is described again at its own size.
    assert ENCODER.count_macs(8, 8) == per_pixel * 4 * 8**2
