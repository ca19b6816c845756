"""What views have in common is made once, and the crops are those of each view alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.errors import ViewError
from featbank.views import SharedBeginnings, parse_view, spec, steps
from featbank.views.spec import View
from tests.support.views import noise, views


def taken_together(names: list[View], pixels: np.ndarray) -> list[tuple[np.ndarray, ...] | str]:
    shared = SharedBeginnings([view.beginnings() for view in names])
    found: list[tuple[np.ndarray, ...] | str] = []
    for view in names:
        try:
            found.append(view.scales(pixels, 3, shared))
        except ViewError as error:
            found.append(str(error))
    return found


@given(st.lists(views, min_size=1, max_size=4), st.data())
def test_crops_are_those_of_each_view_alone(some: list[View], data: st.DataObject) -> None:
    # Views of one family share nothing by chance: beginnings are repeated with other endings.
    some = [*some, *(View(view.steps[: data.draw(st.integers(0, len(view.steps)))]) for view in some)]
    pixels = noise(50, 70)
    before = pixels.copy()
    for view, together in zip(some, taken_together(some, pixels), strict=True):
        alone = taken_together([view], pixels)[0]
        if isinstance(alone, str):
            assert together == alone
        else:
            assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("names", "n_resizes", "n_halvings"),
    [
        (["squash_32x24", "squash_32x24/center_16", "squash_32x24/tiles_2x2"], 1, 0),
        (["short_30~lanczos/center_16", "short_30/center_16"], 2, 0),
        (["square_30", "square_30+half", "square/center_8"], 1, 1),
        (["five_16+halfimage", "center_16+halfimage"], 0, 1),
        (["down_2/center_10+halfimage", "down_2+halfimage"], 2, 1),  # of the image, and of its half
        (["center_16/squash_8x8", "center_16/squash_8x8/center_4"], 2, 0),  # crops are not shared
    ],
)
def test_one_resize_serves_all_views_that_begin_with_it(
    names: list[str], n_resizes: int, n_halvings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resized, halved = [], []
    resize, halve = steps.resize, spec.halve

    def counted(pixels: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
        if pixels.shape[:2] != (height, width):
            resized.append((height, width))
        return resize(pixels, height, width, name)

    monkeypatch.setattr(steps, "resize", counted)
    monkeypatch.setattr(spec, "halve", lambda pixels: halved.append(pixels.shape) or halve(pixels))
    taken_together([parse_view(name) for name in names], noise(60, 90))
    # Each halving resizes once as well, whatever the picture's size.
    assert (len(resized) - len(halved), len(halved)) == (n_resizes, n_halvings)


def test_what_one_view_alone_makes_is_not_kept() -> None:
    shared = SharedBeginnings([parse_view("down_2").beginnings(), parse_view("down_3").beginnings()])
    for name in ("down_2", "down_3"):
        parse_view(name).scales(noise(60, 90), 0, shared)
    assert shared._made == {}
