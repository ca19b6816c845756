"""The fast filter: within a level of Pillow's bicubic, under a key of its own, refused by name without torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.digest import digest_json
from featbank.errors import ViewError
from featbank.images import read_photo
from featbank.views import parse_view
from featbank.views.steps import probe_filter, resize, resize_fast
from tests.support.resampling import references
from tests.support.views import noise

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs the optional package torch"
)
sides = st.integers(1, 80)


@needs_torch
@given(sides, sides, st.data())
def test_reductions_follow_the_definition_within_rounding(h: int, w: int, data: st.DataObject) -> None:
    """Against the exact filter, as Pillow is: on noise the order of the two passes alone moves a value by levels."""
    height, width = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    pixels = noise(h, w)
    fast = resize(pixels, height, width, "fast")
    assert fast.shape == (height, width, 3)
    assert fast.dtype == np.uint8
    assert fast.flags.c_contiguous
    differences = [np.abs(fast - exact) for exact in references(pixels, height, width, "bicubic")]
    assert min(difference.max() for difference in differences) < 2


@pytest.mark.parametrize(("height", "width"), [(41, 20), (20, 51), (80, 90)])
def test_enlargements_are_the_reference_itself(height: int, width: int) -> None:
    pixels = noise(40, 50)
    assert np.array_equal(resize(pixels, height, width, "fast"), resize(pixels, height, width, "bicubic"))


@needs_torch
@pytest.mark.dataset
@pytest.mark.parametrize(("height", "width"), [(224, 224), (480, 480), (720, 1280)])
def test_it_stays_within_a_level_on_photographs(height: int, width: int, real_data: Path) -> None:
    for path in sorted((real_data / "photos-4k").glob("*.jpg"))[:4]:
        pixels = read_photo(path).pixels
        difference = np.abs(
            resize_fast(pixels, height, width).astype(int) - resize(pixels, height, width, "bicubic")
        )
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.005


@needs_torch
@given(sides, sides)
def test_slices_and_read_only_images_give_the_same(height: int, width: int) -> None:
    whole = noise(60, 70)
    part = whole[5:45, 9:60]
    expected = resize_fast(part.copy(), height, width)
    whole.flags.writeable = False
    assert np.array_equal(resize_fast(part, height, width), expected)
    assert np.array_equal(resize_fast(whole[5:45, 9:60], height, width), expected)
    assert np.array_equal(whole, noise(60, 70))


@needs_torch
def test_the_number_of_threads_changes_nothing() -> None:
    import torch

    pixels, n_threads = noise(400, 600), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(resize_fast(pixels, 123, 45))
    finally:
        torch.set_num_threads(n_threads)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@needs_torch
def test_its_features_have_a_key_of_their_own() -> None:
    fast, slow = (parse_view(name).identity() for name in ("squash_32x32~fast", "squash_32x32"))
    assert digest_json(fast) != digest_json(slow)
    assert fast["resize"]["probes"]["fast"] == probe_filter("fast") != probe_filter("bicubic")
    assert "torch" in fast["resize"]["implementation"]
    assert slow["resize"]["implementation"] == "pillow-uint8"
    assert set(slow["resize"]["probes"]) == {"bicubic"}
    assert parse_view("short_512~fast/center_480").name == "short_512~fast/center_480"


def test_without_torch_the_message_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("featbank.views.steps.import_module", missing)
    with pytest.raises(ViewError, match=r"'torch'.*featbank\[encoders\].*Pillow's bicubic"):
        parse_view("squash_8x8~fast").scales(noise(20, 30), 0)


def test_no_other_filter_imports_torch() -> None:
    code = (
        "import sys; from featbank.views import parse_view; import numpy as np; "
        "view = parse_view('square_20~lanczos+half'); view.identity(); "
        "view.scales(np.zeros((40, 50, 3), np.uint8), 0); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
