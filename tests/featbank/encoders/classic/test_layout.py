"""Colour layout against a plain transform, gradient layout against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import hog

from featbank.encoders import make_encoder
from featbank.encoders.classic import scene

ENCODER = make_encoder("classic:layout")
RNG = np.random.default_rng(9)


def smooth(shape: tuple[int, int]) -> np.ndarray:
    field = np.cumsum(np.cumsum(RNG.normal(size=shape), axis=0), axis=1)
    return (255 * (field - field.min()) / np.ptp(field)).astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 64), (128, 96), (32, 160)])
def test_gradient_layout_equals_scikit_image(shape: tuple[int, int]) -> None:
    luma = smooth(shape)
    # Their gradient vanishes on the border, ours sees a reflected neighbour: a flat border makes the two agree.
    luma[:2], luma[-2:], luma[:, :2], luma[:, -2:] = 0, 0, 0, 0
    expected = hog(
        luma,
        orientations=9,
        pixels_per_cell=(shape[0] // 4, shape[1] // 4),
        cells_per_block=(4, 4),
        block_norm="L2-Hys",
    )
    # A pixel whose angle lies on the border of two bins may fall into either: 1 of 1,000 pixels.
    np.testing.assert_allclose(scene.gradient_layout(luma).ravel(), expected, atol=2e-3)


def test_edges_of_one_direction_fill_one_bin() -> None:
    y, x = np.mgrid[0:64, 0:64]
    for turn in range(9):
        angle = np.deg2rad(20 * turn + 10)
        wave = 128 + 100 * np.sin(0.3 * (x * np.cos(angle) + y * np.sin(angle)))
        found = scene.gradient_layout(wave.astype(np.float32)).sum(axis=(0, 1))
        assert found.argmax() == turn
        assert found[turn] > 0.6 * found.sum()


def test_gradient_layout_does_not_see_contrast() -> None:
    luma = smooth((40, 56))
    np.testing.assert_allclose(scene.gradient_layout(luma), scene.gradient_layout(0.3 * luma), atol=1e-4)


def test_colour_layout_of_a_linear_plane_lies_on_its_axis() -> None:
    y, _ = np.mgrid[0:80, 0:64].astype(np.float32)
    found = scene.colour_layout(2 * y)
    assert found[0, 0] == pytest.approx(2 * 39.5 / 255)
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-9)
    assert found[1, 0] < 0
    # An odd profile has no even coefficients.
    np.testing.assert_allclose(found[2::2, 0], 0, atol=1e-9)


def test_colour_layout_keeps_the_energy_of_the_grid() -> None:
    plane = smooth((64, 128))
    means = plane.reshape(8, 8, 8, 16).mean(axis=(1, 3), dtype=np.float64)
    assert np.square(scene.colour_layout(plane)).sum() == pytest.approx(np.square(means / 255).mean())


def test_mirror_flips_the_odd_columns() -> None:
    plane = smooth((64, 64))
    found, mirrored = scene.colour_layout(plane), scene.colour_layout(np.ascontiguousarray(plane[:, ::-1]))
    np.testing.assert_allclose(mirrored, found * (-1.0) ** np.arange(8), atol=1e-6)


def test_grey_has_no_chroma_and_colours_have_their_sign() -> None:
    for colour, expected in (((90, 90, 90), (0, 0)), ((255, 0, 0), (-1, 1)), ((0, 0, 255), (1, -1))):
        crop = np.broadcast_to(np.array(colour, dtype=np.uint8), (16, 16, 3)).copy()
        found = ENCODER.describe(crop)
        assert np.sign(np.round([found["cb_00"], found["cr_00"]], 6)).tolist() == list(expected)


def test_zigzag_is_the_order_of_jpeg() -> None:
    first = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]
    order = scene._zigzag(8)
    assert order[:10] == first
    assert order[-1] == (7, 7)
    assert len(set(order)) == 64


def test_cost_by_hand() -> None:
    assert ENCODER.count_macs(10, 10) == 4 * 100 + 3 * 2 * 8 * 64
