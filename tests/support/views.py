"""Random views and images whose pixels tell where they come from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from featbank.views import View, parse_view
from featbank.views.steps import FILTERS

sides = st.integers(1, 70)
_small, _few = st.integers(1, 40), st.integers(1, 4)


def _spell(family: str, *numbers: st.SearchStrategy[int], resizes: bool = False) -> st.SearchStrategy[str]:
    suffix = st.sampled_from(["", *(f"~{name}" for name in (*FILTERS, "area"))]) if resizes else st.just("")
    return st.builds(lambda ns, f: f"{family}_{'x'.join(map(str, ns))}{f}", st.tuples(*numbers), suffix)


steps = st.one_of(
    st.sampled_from(["native", "square"]),
    _spell("short", _small, resizes=True),
    _spell("width", _small, resizes=True),
    _spell("long", _small, resizes=True),
    _spell("squash", _small, _small, resizes=True),
    _spell("down", _few, resizes=True),
    _spell("square", _small, resizes=True),
    _spell("center", _small),
    _spell("center", _small, _small),
    _spell("tiles", st.integers(8, 40)),
    _spell("tiles", _few, _few),
    _spell("mosaic", _few, _few),
    _spell("fragments", _few, st.integers(1, 9)),
    _spell("fragments", _few, st.integers(1, 9), _few),
    _spell("five", _small),
    _spell("five", _small, _small),
)
"""Spellings of single steps with small sizes."""


def _join(words: list[str], pair: str) -> str:
    grows = any(word.startswith("tiles_") and word.count("x") == 0 for word in words)
    return "/".join(words) + ("" if grows and pair == "+halfimage" else pair)


spellings = st.builds(
    _join, st.lists(steps, min_size=1, max_size=3), st.sampled_from(["", "+half", "+halfimage"])
)
"""Spellings of whole views."""

views: st.SearchStrategy[View] = spellings.map(parse_view)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An image without structure."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates_image(height: int, width: int) -> NDArray[np.uint8]:
    """An image of less than 4096 x 4096 pixels in which every pixel's colour is its place."""
    y, x = np.mgrid[0:height, 0:width]
    code = y * 4096 + x
    return np.stack([code >> 16, code >> 8 & 255, code & 255], axis=-1).astype(np.uint8)


def places(crop: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns that the pixels of a crop of `coordinates_image` come from."""
    code = crop.astype(np.int64) @ np.array([65536, 256, 1])
    return code // 4096, code % 4096


def is_native(crop: NDArray[np.uint8]) -> bool:
    """Whether a crop of `coordinates_image` is one unbroken piece of it at native sampling."""
    y, x = places(crop)
    rows, columns = np.mgrid[0 : crop.shape[0], 0 : crop.shape[1]]
    return bool(np.array_equal(y - y[0, 0], rows) and np.array_equal(x - x[0, 0], columns))
