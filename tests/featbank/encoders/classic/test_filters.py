"""Filters against plain definitions and scipy; costs against hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from featbank.encoders import make_encoder
from featbank.encoders.classic import filters

RNG = np.random.default_rng(3)
IMAGE = RNG.uniform(0, 255, (21, 34)).astype(np.float32)


def reflect(image: np.ndarray, margin: int) -> np.ndarray:
    return np.pad(image, margin, mode="symmetric")


def test_gaussian_is_normalised_symmetric_and_of_its_width() -> None:
    taps = filters.gaussian_taps(2.0, 12)
    offsets = np.arange(-12, 13)
    assert taps.sum() == pytest.approx(1)
    np.testing.assert_array_equal(taps, taps[::-1])
    assert np.sqrt((taps * offsets**2).sum()) == pytest.approx(2.0, rel=1e-3)


def test_separable_is_the_plain_sum_over_neighbours() -> None:
    taps = np.array([1.0, 2.0, 4.0, 3.0, 0.5])
    padded = reflect(IMAGE.astype(np.float64), 2)
    expected = np.zeros(IMAGE.shape)
    for y in range(5):
        for x in range(5):
            expected += taps[y] * taps[x] * padded[y : y + 21, x : x + 34]
    found = filters.separable(IMAGE, taps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradient_of_a_plane_is_its_slope() -> None:
    y, x = np.mgrid[0:9, 0:13].astype(np.float32)
    along_x, along_y = filters.gradient(2 * x - 3 * y)
    np.testing.assert_allclose(along_x[:, 1:-1], 2)
    np.testing.assert_allclose(along_y[1:-1], -3)


def test_gradient_equals_scipy() -> None:
    along_x, along_y = filters.gradient(IMAGE)
    for found, axis in ((along_x, 1), (along_y, 0)):
        expected = ndimage.correlate1d(IMAGE.astype(np.float64), [-0.5, 0, 0.5], axis=axis, mode="reflect")
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_halving_takes_means_and_halves_white_noise() -> None:
    np.testing.assert_allclose(
        filters.halve(np.arange(16, dtype=np.float32).reshape(4, 4)), [[2.5, 4.5], [10.5, 12.5]]
    )
    noise = RNG.normal(0, 8, (512, 512)).astype(np.float32)
    # 65,536 means: the deviation's own deviation is 0.3 %, so that 1.5 % is five of them.
    assert filters.halve(noise).std() == pytest.approx(4, rel=0.015)


def test_halving_drops_an_odd_last_row_and_column() -> None:
    np.testing.assert_array_equal(filters.halve(IMAGE[:21, :33]), filters.halve(IMAGE[:20, :32]))


def test_block_means_average_to_the_mean() -> None:
    image = IMAGE[:20, :32]
    blocks = filters.block_mean(image, 4)
    assert blocks.shape == (5, 8)
    assert blocks[1, 2] == pytest.approx(image[4:8, 8:12].mean(), rel=1e-6)
    assert blocks.mean() == pytest.approx(image.mean(), rel=1e-6)


@given(length=st.integers(4, 1000), n_cells=st.integers(1, 4))
def test_grid_covers_the_length_in_nearly_equal_cells(length: int, n_cells: int) -> None:
    edges = filters.grid_edges(length, n_cells)
    assert edges[0] == 0
    assert edges[-1] == length
    sides = np.diff(edges)
    assert sides.min() >= 1
    assert np.ptp(sides) <= 1


def test_cell_means_are_the_means_of_slices() -> None:
    rows, columns = filters.grid_edges(21, 4), filters.grid_edges(34, 3)
    found = filters.cell_means(IMAGE, rows, columns)
    expected = [
        [IMAGE[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].mean(dtype=np.float64) for j in range(3)]
        for i in range(4)
    ]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 2), (21, 34)])
def test_peaks_are_those_of_scipy_and_equal_neighbours_are_both(shape: tuple[int, int]) -> None:
    image = IMAGE[: shape[0], : shape[1]].copy()
    expected = image == ndimage.maximum_filter(image, 3, mode="reflect")
    np.testing.assert_array_equal(filters.is_peak(image), expected)
    row, column = np.unravel_index(image.argmax(), shape)
    beside = row, column - 1 if column else min(1, shape[1] - 1)
    image[beside] = image[row, column] * (1 + 1e-6)
    assert filters.is_peak(image)[[row, beside[0]], [column, beside[1]]].all()
    assert not filters.is_peak(np.zeros(shape, dtype=np.float32)).any()


def exact(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    down = ndimage.correlate1d(image.astype(np.float64), taps, axis=0, mode="reflect")
    return ndimage.correlate1d(down, taps, axis=1, mode="reflect").astype(np.float32)


@pytest.mark.parametrize("side", [1, 2, 5, 12])
def test_filters_wider_than_the_image_see_its_reflections(side: int) -> None:
    taps = filters.gaussian_taps(2.0, 6)
    found = filters.separable(IMAGE[:side], taps)
    np.testing.assert_allclose(found, exact(IMAGE[:side], taps), rtol=1e-5)


@pytest.mark.parametrize("name", ["classic:nss", "classic:keypoint"])
def test_last_digits_of_a_filter_move_no_feature(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = np.mgrid[0:400, 0:600]
    picture = np.where(x < 300, 250.0, 180.0) - 40.0 * ((x // 60 + y // 50) % 7 == 0)
    picture[250:] = 90 + y[250:] / 10 + 20 * np.sin(x[250:] / 9) * (x[250:] > 200)
    crop = np.repeat(np.rint(picture).astype(np.uint8)[..., None], 3, axis=2)
    encoder = make_encoder(name)
    found = encoder.describe(crop)
    monkeypatch.setattr(filters, "separable", exact)
    expected = encoder.describe(crop)
    assert {
        key: abs(found[key] - expected[key]) for key in found if abs(found[key] - expected[key]) > 0.02
    } == {}


def test_costs_are_taps_times_pixels() -> None:
    assert filters.separable_macs(100, 7) == 1400
    assert filters.gradient_macs(100) == 400
    # 16 points: 8 butterflies in each of 4 stages, 4 products each.
    assert filters.fft_macs(4, 4) == 8 * 4 * 4
