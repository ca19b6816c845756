"""Resizing against the definition of the filters, and the size an image is enlarged to."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.errors import ViewError
from featbank.views.steps import FILTERS, check_output, half_size, halve, probe_filter, resize, size_to_hold
from tests.support.resampling import references
from tests.support.views import noise

sides = st.integers(1, 60)


@pytest.mark.parametrize("name", list(FILTERS))
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_resize_follows_the_definition_within_rounding(
    name: str, h: int, w: int, new_h: int, new_w: int
) -> None:
    pixels = noise(h, w)
    found = resize(pixels, new_h, new_w, name)
    assert found.shape == (new_h, new_w, 3)
    differences = [np.abs(found - exact) for exact in references(pixels, new_h, new_w, name)]
    # Half a level of rounding; a tie of the first pass may go the other way, and the second pass may amplify it.
    assert min(difference.max() for difference in differences) < 2


@pytest.mark.parametrize("name", list(FILTERS))
def test_nothing_outside_a_slice_has_any_influence(name: str) -> None:
    pixels = noise(60, 60)
    around = pixels.copy()
    around[:20], around[40:], around[:, :20], around[:, 40:] = 255, 255, 0, 0
    one, two = (resize(image[20:40, 20:40], 7, 9, name) for image in (pixels, around))
    assert np.array_equal(one, two)


def test_resize_to_the_same_size_is_the_image_itself() -> None:
    pixels = noise(5, 6)
    assert resize(pixels, 5, 6, "lanczos") is pixels


@pytest.mark.parametrize("name", [*FILTERS, "area"])
@given(sides, sides, st.integers(0, 255))
def test_flat_images_stay_flat(name: str, height: int, width: int, level: int) -> None:
    flat = np.full((13, 17, 3), level, np.uint8)
    assert (resize(flat, height, width, name) == level).all()


def test_reduction_is_antialiased() -> None:
    """A checkerboard becomes gray; a filter that does not widen would return black or white."""
    board = np.repeat((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    for name in (*FILTERS, "area"):
        inner = resize(board, 9, 9, name)[1:-1, 1:-1]
        assert np.abs(inner.astype(int) - 127).max() < 20


@given(sides, sides)
def test_halves_are_rounded_down_but_never_empty(height: int, width: int) -> None:
    assert half_size(height, width) == (height // 2 or 1, width // 2 or 1)
    assert halve(noise(height, width)).shape[:2] == half_size(height, width)


@given(*[st.integers(1, 5000)] * 4)
def test_enlarging_is_just_enough_and_keeps_the_aspect(
    height: int, width: int, min_h: int, min_w: int
) -> None:
    new_h, new_w = size_to_hold(height, width, min_h, min_w)
    if height >= min_h and width >= min_w:
        assert (new_h, new_w) == (height, width)
        return
    factor = max(Fraction(min_h, height), Fraction(min_w, width))
    assert new_h >= min_h
    assert new_w >= min_w
    assert (new_h, new_w) == (min_h, new_w) or (new_h, new_w) == (new_h, min_w)
    assert abs(new_h - height * factor) <= Fraction(1, 2)
    assert abs(new_w - width * factor) <= Fraction(1, 2)
    # Holding once is holding for good.
    assert size_to_hold(new_h, new_w, min_h, min_w) == (new_h, new_w)


def test_output_limit_names_step_and_sizes() -> None:
    check_output("short_512", 1, 1, 15_000, 20_000)
    with pytest.raises(ViewError, match=r"'short_512'.*65535 x 1.*33553920 x 512"):
        check_output("short_512", 1, 65_535, 512, 33_553_920)


def test_area_takes_means_and_never_enlarges() -> None:
    pixels = noise(60, 90)
    means = pixels.reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(resize(pixels, 20, 30, "area") - means).max() <= 0.5 + 1e-4
    for size in ((61, 90), (20, 91)):
        assert np.array_equal(resize(pixels, *size, "area"), resize(pixels, *size, "bicubic"))


def test_probes_tell_filters_apart_and_are_stable_within_a_process() -> None:
    names = [*FILTERS, "area"]
    probes = {name: probe_filter(name) for name in names}
    assert len(set(probes.values())) == len(names)
    assert probes == {name: probe_filter.__wrapped__(name) for name in names}
