"""Tiles, regions, five points, mosaics and fragments, on images whose pixels tell where they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.views import parse_view
from tests.support.views import coordinates_image, is_native, noise, places

few = st.integers(1, 5)
seeds = st.integers(0, 2**32)


@given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 5))
def test_tiles_are_the_floor_grid_from_the_top_left(height: int, width: int, size: int) -> None:
    (crops,) = parse_view(f"tiles_{size}").scales(coordinates_image(height, width), 0)
    assert len(crops) == (height // size) * (width // size)
    expected = [(y, x) for y in range(0, height - size + 1, size) for x in range(0, width - size + 1, size)]
    found = [tuple(int(place[0, 0]) for place in places(crop)) for crop in crops]
    assert found == expected
    assert all(is_native(crop) for crop in crops)


@given(st.integers(5, 60), st.integers(5, 60), few, few)
def test_regions_are_equal_and_lose_less_than_a_row_of_cells(
    height: int, width: int, columns: int, rows: int
) -> None:
    (crops,) = parse_view(f"tiles_{columns}x{rows}").scales(coordinates_image(height, width), 0)
    assert len(crops) == columns * rows
    seen = np.zeros((height, width), int)
    for crop in crops:
        assert is_native(crop)
        seen[places(crop)] += 1
    kept_height, kept_width = height - height % rows, width - width % columns
    assert (seen[:kept_height, :kept_width] == 1).all()
    assert seen.sum() == kept_height * kept_width
    assert [int(places(crop)[0][0, 0]) for crop in crops] == sorted(
        int(places(crop)[0][0, 0]) for crop in crops
    )


@given(st.integers(8, 60), st.integers(8, 60))
def test_five_points_are_centre_then_corners(height: int, width: int) -> None:
    (crops,) = parse_view("five_8x6").scales(coordinates_image(height, width), 0)
    assert crops.shape == (5, 6, 8, 3)
    assert all(is_native(crop) for crop in crops)
    starts = [tuple(int(place[0, 0]) for place in places(crop)) for crop in crops]
    bottom, right = height - 6, width - 8
    # ARNIQA's centre: h // 2 - size // 2.
    middle = (height // 2 - 3, width // 2 - 4)
    assert starts == [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]


@given(st.integers(5, 60), st.integers(5, 60), few, few, seeds)
def test_mosaics_hold_each_region_once(height: int, width: int, columns: int, rows: int, seed: int) -> None:
    pixels = coordinates_image(height, width)
    (mosaic,) = parse_view(f"mosaic_{columns}x{rows}").scales(pixels, seed)
    (regions,) = parse_view(f"tiles_{columns}x{rows}").scales(pixels, seed)
    (cells,) = parse_view(f"tiles_{columns}x{rows}").scales(mosaic[0], seed)
    assert sorted(cell.tobytes() for cell in cells) == sorted(region.tobytes() for region in regions)


@given(few, st.integers(1, 6), st.integers(1, 3), st.integers(0, 30), st.integers(0, 30), seeds)
def test_fragments_are_native_windows_inside_their_cells(
    grid: int, window: int, draws: int, more_height: int, more_width: int, seed: int
) -> None:
    height, width = grid * window + more_height, grid * window + more_width
    name = f"fragments_{grid}x{window}" + (f"x{draws}" if draws > 1 else "")
    (crops,) = parse_view(name).scales(coordinates_image(height, width), seed)
    assert crops.shape == (draws, grid * window, grid * window, 3)
    cell_height, cell_width = height // grid, width // grid
    for crop in crops:
        (windows,) = parse_view(f"tiles_{window}").scales(crop, 0)
        for i, piece in enumerate(windows):
            assert is_native(piece)
            y, x = places(piece)
            row, column = divmod(i, grid)
            assert row * cell_height <= y.min()
            assert y.max() < (row + 1) * cell_height
            assert column * cell_width <= x.min()
            assert x.max() < (column + 1) * cell_width


def test_every_window_of_a_cell_has_the_same_chance() -> None:
    """Offsets 0 to 6 in two directions, 4900 cells: each within five standard deviations of 700."""
    (crops,) = parse_view("fragments_7x4x100").scales(coordinates_image(70, 70), 3)
    found_y, found_x = [], []
    for crop in crops:
        y, x = places(crop)
        found_y += (y[::4, ::4] % 10).ravel().tolist()
        found_x += (x[::4, ::4] % 10).ravel().tolist()
    deviation = np.sqrt(4900 * (1 / 7) * (6 / 7))
    for found in (found_y, found_x):
        counts = np.bincount(found, minlength=7)
        assert len(counts) == 7
        assert np.abs(counts - 700).max() < 5 * deviation
    assert abs(np.corrcoef(found_y, found_x)[0, 1]) < 5 / np.sqrt(4900)


def test_every_order_of_a_mosaic_has_the_same_chance() -> None:
    """Six orders of three regions over 1200 seeds: each within five standard deviations of 200."""
    pixels = coordinates_image(2, 3)
    view = parse_view("mosaic_3x1")
    orders = [tuple(places(view.scales(pixels, seed)[0][0])[1][0].tolist()) for seed in range(1200)]
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts.values()) < 5 * np.sqrt(1200 * (1 / 6) * (5 / 6))


def test_crops_of_one_image_are_shuffled_each_in_its_own_way() -> None:
    tile = noise(12, 12)
    (crops,) = parse_view("tiles_2x2/mosaic_3x3").scales(np.block([[[tile], [tile]], [[tile], [tile]]]), 0)
    assert len({crop.tobytes() for crop in crops}) == 4


def test_draws_differ_from_each_other() -> None:
    (crops,) = parse_view("fragments_3x4x5").scales(noise(60, 60), 0)
    assert len({crop.tobytes() for crop in crops}) == 5


def test_random_numbers_are_the_same_for_ever() -> None:
    """Remembered on purpose: another stream would silently belong to another feature of the same key."""
    pixels = coordinates_image(30, 40)
    (mosaic,) = parse_view("mosaic_4x3").scales(pixels, 12345678901234567890)
    y, x = places(mosaic[0])
    order = (y[::10, ::10] // 10 * 4 + x[::10, ::10] // 10).ravel().tolist()
    (fragments,) = parse_view("fragments_2x4").scales(pixels, 12345678901234567890)
    starts = [place[::4, ::4].ravel().tolist() for place in places(fragments[0])]
    assert (order, starts) == REMEMBERED


REMEMBERED: tuple[list[int], list[list[int]]] = (
    [0, 5, 9, 8, 4, 11, 2, 7, 6, 1, 10, 3],
    [[0, 7, 22, 26], [9, 20, 10, 30]],
)


@pytest.mark.parametrize(
    ("name", "n_crops"),
    [("width_3840/tiles_224", 17 * 9), ("width_960/tiles_224", 4 * 2), ("tiles_3x3/squash_224x224", 9)],
)
def test_counts_at_uhd_are_those_of_the_report(name: str, n_crops: int) -> None:
    ((found, height, width),) = parse_view(name).geometry(2160, 3840)
    assert (found, height, width) == (n_crops, 224, 224)
