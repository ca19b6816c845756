"""The lattice of windows stays inside, on the 8-pixel grid, and below its ceiling."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featbank.encoders.classic import filters

SIDES = st.integers(64, 6000)


@given(height=SIDES, width=SIDES)
def test_windows_lie_inside_on_the_grid_of_the_file(height: int, width: int) -> None:
    side_y, side_x = filters.window_shape(height, width)
    corners = filters.window_corners(height, width)
    assert 1 <= len(corners) <= filters.MAX_WINDOWS
    assert len(set(corners)) == len(corners)
    for row, column in corners:
        assert row % 8 == column % 8 == 0
        assert 0 <= row <= height - side_y
        assert 0 <= column <= width - side_x


@given(height=SIDES, width=SIDES)
def test_windows_are_whole_multiples_of_64(height: int, width: int) -> None:
    for side, length in zip(filters.window_shape(height, width), (height, width), strict=True):
        assert side % 64 == 0
        assert 64 <= side <= min(filters.WINDOW_PX, length)


@given(height=SIDES, width=SIDES)
def test_windows_reach_the_borders(height: int, width: int) -> None:
    corners = np.array(filters.window_corners(height, width))
    side = filters.window_shape(height, width)
    for axis, length in enumerate((height, width)):
        starts = np.unique(corners[:, axis])
        if starts.size > 1:
            assert starts[0] == 0
            assert length - 8 < starts[-1] + side[axis] <= length
        else:
            # A single row or column of windows stands in the middle, up to the grid.
            assert abs(2 * starts[0] + side[axis] - length) <= 16


def test_small_crop_is_covered_and_a_photo_is_sampled() -> None:
    assert filters.window_corners(256, 512) == [(0, 0), (0, 256)]
    assert len(filters.window_corners(2160, 3840)) == 35
    assert len(filters.window_corners(3840, 2160)) <= 36


def test_strip_of_any_length_keeps_the_ceiling() -> None:
    assert len(filters.window_corners(64, 100_000)) == 36
    assert len(filters.window_corners(100_000, 64)) == 36


def test_padding_continues_by_reflection() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (10, 70, 3), dtype=np.uint8)
    padded = filters.pad_crop(crop)
    assert padded.shape == (64, 70, 3)
    np.testing.assert_array_equal(padded[10:20], crop[::-1])
    large = np.zeros((64, 64, 3), dtype=np.uint8)
    assert filters.pad_crop(large) is large
