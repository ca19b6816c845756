"""What each single-crop step cuts, on images whose pixels tell where they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featbank.views import parse_view
from tests.support.views import coordinates_image, is_native, noise, places, sides

sizes = st.integers(1, 60)


@given(sides, sides, sizes)
def test_short_side_gets_the_size_and_the_long_one_torchvisions(height: int, width: int, size: int) -> None:
    ((_, new_height, new_width),) = parse_view(f"short_{size}").geometry(height, width)
    short, long = sorted((height, width))
    assert min(new_height, new_width) == size
    assert max(new_height, new_width) == int(size * long / short)
    assert (new_height <= new_width) if height <= width else (new_height >= new_width)


@given(sides, sides, sizes)
def test_width_is_exact_and_the_height_nearest(height: int, width: int, size: int) -> None:
    ((_, new_height, new_width),) = parse_view(f"width_{size}").geometry(height, width)
    assert new_width == size
    assert new_height == 1 or abs(new_height - height * size / width) <= 0.5


@given(sides, sides, sizes)
def test_long_side_is_reduced_to_the_size_and_nothing_is_enlarged(height: int, width: int, size: int) -> None:
    view = parse_view(f"long_{size}")
    ((_, new_height, new_width),) = view.geometry(height, width)
    assert max(new_height, new_width) == min(size, max(height, width))
    factor = max(new_height, new_width) / max(height, width)
    for new, old in ((new_height, height), (new_width, width)):
        assert 1 <= new <= old
        assert new == 1 or abs(new - old * factor) <= 0.5
    if factor == 1:
        pixels = noise(height, width)
        assert np.array_equal(view.scales(pixels, 0)[0][0], pixels)


@given(sides, sides, st.integers(1, 5))
def test_down_divides_both_sides(height: int, width: int, factor: int) -> None:
    ((_, new_height, new_width),) = parse_view(f"down_{factor}").geometry(height, width)
    assert (new_height, new_width) == (max(1, height // factor), max(1, width // factor))


def test_squash_takes_width_before_height() -> None:
    assert parse_view("squash_1907x1231").geometry(2160, 3840) == ((1, 1231, 1907),)


@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("name", ["short_20", "width_33", "long_20", "squash_9x40", "down_2", "square_25"])
def test_resizing_steps_are_pillows_resize(name: str, filter_name: str) -> None:
    pixels = noise(50, 50)
    (crops,) = parse_view(f"{name}~{filter_name}").scales(pixels, 0)
    size = (crops.shape[2], crops.shape[1])
    resample = Image.Resampling[filter_name.upper()]
    assert np.array_equal(crops[0], np.asarray(Image.fromarray(pixels).resize(size, resample)))


@given(sides, sides)
def test_square_is_the_largest_and_centred(height: int, width: int) -> None:
    (crops,) = parse_view("square").scales(coordinates_image(height, width), 0)
    assert crops.shape[1] == crops.shape[2] == min(height, width)
    assert is_native(crops[0])
    y, x = places(crops[0])
    for place, length in ((y, height), (x, width)):
        before, after = place.min(), length - 1 - place.max()
        assert abs(before - after) <= 1


@given(sides, sides, st.data())
def test_center_is_native_and_centred(height: int, width: int, data: st.DataObject) -> None:
    crop_height, crop_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    (crops,) = parse_view(f"center_{crop_width}x{crop_height}").scales(coordinates_image(height, width), 0)
    assert crops.shape[1:3] == (crop_height, crop_width)
    assert is_native(crops[0])
    y, x = places(crops[0])
    # torchvision.transforms.functional.center_crop
    assert y[0, 0] == round((height - crop_height) / 2.0)
    assert x[0, 0] == round((width - crop_width) / 2.0)


@pytest.mark.parametrize("name", ["center_8", "square", "tiles_8", "tiles_3x2", "five_8"])
def test_cutting_copies_nothing(name: str) -> None:
    pixels = noise(40, 50)
    (step,) = parse_view(name).steps
    for crop in step.cut(pixels, (0,)):
        assert np.shares_memory(crop, pixels)


@pytest.mark.parametrize("name", ["center_30", "five_30", "tiles_30", "fragments_3x10"])
@given(height=sides, width=sides)
def test_small_images_are_enlarged_by_bicubic_just_enough(name: str, height: int, width: int) -> None:
    view = parse_view(name)
    factor = max(30 / height, 30 / width)
    if factor <= 1 or height * width * factor**2 > 10**6:
        return
    pixels = noise(height, width)
    enlarged_size = (max(30, round(width * factor + 1e-9)), max(30, round(height * factor + 1e-9)))
    enlarged = np.asarray(Image.fromarray(pixels).resize(enlarged_size, Image.Resampling.BICUBIC))
    assert 30 in enlarged.shape[:2]
    assert np.array_equal(view.scales(pixels, 5)[0], view.scales(enlarged, 5)[0])
    assert view.notes(height, width) == ("upscaled",)
    assert view.notes(*enlarged.shape[:2]) == ()


@given(sides, sides, st.sampled_from(["short_20", "square", "square_9", "center_20", "five_20", "tiles_20"]))
def test_portrait_and_landscape_are_treated_alike(height: int, width: int, name: str) -> None:
    view = parse_view(name)
    ((n_crops, crop_height, crop_width),) = view.geometry(height, width)
    assert view.geometry(width, height) == ((n_crops, crop_width, crop_height),)
