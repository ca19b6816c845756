"""Laws that hold for every view on every image."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from featbank.digest import digest_json
from featbank.errors import ViewError
from featbank.views import View, list_views, parse_view
from featbank.views.steps import Center, halve
from tests.support.views import noise, sides, views

seeds = st.integers(0, 2**64 - 1)


def scales_or_skip(view: View, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Crops of a noise image; views that refuse its size are another test's concern."""
    try:
        view.geometry(height, width)
    except ViewError:
        assume(False)
    return view.scales(noise(height, width), seed)


@given(views, sides, sides, seeds)
def test_geometry_is_what_scales_yields(view: View, height: int, width: int, seed: int) -> None:
    scales = scales_or_skip(view, height, width, seed)
    geometry = view.geometry(height, width)
    assert [(*crops.shape[:3],) for crops in scales] == [tuple(shape) for shape in geometry]
    assert len(scales) == (2 if view.pair else 1)
    assert len({shape[0] for shape in geometry}) == 1
    for crops in scales:
        assert crops.dtype == np.uint8
        assert crops.shape[3] == 3
        assert crops.flags.c_contiguous


@given(views, sides, sides)
def test_geometry_and_scales_refuse_the_same_images(view: View, height: int, width: int) -> None:
    try:
        view.geometry(height, width)
    except ViewError:
        with pytest.raises(ViewError):
            view.scales(noise(height, width), 0)
    else:
        view.scales(noise(height, width), 0)


@given(views, sides, sides, seeds)
def test_equal_seeds_give_equal_crops_and_the_image_is_left_alone(
    view: View, height: int, width: int, seed: int
) -> None:
    pixels = noise(height, width)
    scales_or_skip(view, height, width)
    before = pixels.copy()
    first, second = view.scales(pixels, seed), view.scales(pixels, seed)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(pixels, before)


@given(views, sides, sides, seeds, seeds)
def test_only_mosaics_and_fragments_use_the_seed(
    view: View, height: int, width: int, one: int, two: int
) -> None:
    assume(not any(word in view.name for word in ("mosaic", "fragments")))
    first, second = scales_or_skip(view, height, width, one), scales_or_skip(view, height, width, two)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@given(views, sides, sides)
def test_memory_layout_of_the_image_does_not_matter(view: View, height: int, width: int) -> None:
    scales = scales_or_skip(view, height, width)
    inside = np.zeros((height + 4, width + 6, 3), np.uint8)
    inside[2:-2, 3:-3] = noise(height, width)
    others = [view.scales(inside[2:-2, 3:-3], 0), view.scales(np.asfortranarray(noise(height, width)), 0)]
    read_only = noise(height, width)
    read_only.flags.writeable = False
    for other in [*others, view.scales(read_only, 0)]:
        assert all(np.array_equal(a, b) for a, b in zip(scales, other, strict=True))


@given(views, sides, sides)
def test_half_is_the_bicubic_half_of_each_crop(view: View, height: int, width: int) -> None:
    assume(view.pair == "half")
    crops, halves = scales_or_skip(view, height, width)
    for crop, half in zip(crops, halves, strict=True):
        size = (max(1, crop.shape[1] // 2), max(1, crop.shape[0] // 2))
        assert np.array_equal(half, np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC)))


@given(views, sides, sides, seeds)
def test_halfimage_is_the_same_view_of_the_halved_image(
    view: View, height: int, width: int, seed: int
) -> None:
    assume(view.pair == "halfimage")
    scales = scales_or_skip(view, height, width, seed)
    single = View(view.steps)
    (first,), (second,) = (
        single.scales(noise(height, width), seed),
        single.scales(halve(noise(height, width)), seed),
    )
    assert np.array_equal(scales[0], first)
    assert np.array_equal(scales[1], second)


@given(views, sides, sides, seeds)
def test_a_view_is_its_steps_one_after_the_other(view: View, height: int, width: int, seed: int) -> None:
    """Checked with chance left out: random steps have numbers of their own at each place."""
    assume(view.steps and not view.pair)
    assume(not any(word in view.name for word in ("mosaic", "fragments")))
    (crops,) = scales_or_skip(view, height, width, seed)
    expected = [noise(height, width)]
    for step in view.steps:
        expected = [part for crop in expected for part in View((step,)).scales(crop, seed)[0]]
    assert np.array_equal(crops, np.stack(expected))


@given(views, sides, sides)
def test_upscaled_is_noted_when_a_single_step_makes_up_pixels(view: View, height: int, width: int) -> None:
    scales_or_skip(view, height, width)
    notes = view.notes(height, width)
    assert notes in {(), ("upscaled",)}
    if len(view.steps) == 1 and not view.pair:
        (_, crop_height, crop_width), step = view.geometry(height, width)[0], view.steps[0]
        if crop_height > height or crop_width > width:
            assert notes
        if isinstance(step, Center):
            assert bool(notes) == (step.height > height or step.width > width)
    # Nothing is made up in an image far larger than all numbers of the random views, unless a crop of a crop is.
    if len(view.steps) <= 1:
        assert view.notes(500, 500) == ()


@pytest.mark.parametrize(
    ("name", "height", "width", "is_upscaled"),
    [
        ("short_100", 100, 150, False),
        ("short_100", 99, 150, True),
        ("width_100", 300, 100, False),
        ("width_100", 300, 99, True),
        ("long_100", 30, 40, False),
        ("squash_100x50", 50, 100, False),
        ("squash_100x50", 49, 400, True),
        ("square_100", 100, 100, False),
        ("square_100", 99, 300, True),
        ("down_3", 1, 1, False),
        ("tiles_50", 50, 49, True),
        ("fragments_3x10", 30, 29, True),
        ("mosaic_3x2", 2, 3, False),
        ("mosaic_3x2", 3, 2, True),
        ("tiles_3x3/center_40", 120, 120, False),
        ("tiles_3x3/center_40", 119, 120, True),
        ("short_30/center_40", 500, 500, True),
        ("five_50+half", 50, 50, False),
        ("five_50+halfimage", 99, 120, True),
        ("five_50+halfimage", 100, 120, False),
    ],
)
def test_upscaled_is_noted_exactly_when_pixels_are_made_up(
    name: str, height: int, width: int, is_upscaled: bool
) -> None:
    assert parse_view(name).notes(height, width) == (("upscaled",) if is_upscaled else ())


def test_neighbouring_views_have_identities_of_their_own() -> None:
    names = [
        "native",
        "native+half",
        "native+halfimage",
        "tiles_30",
        "tiles_30x30",
        "mosaic_30x30",
        "center_30",
    ]
    names += [
        "five_30",
        "square_30",
        "squash_30x30",
        "squash_30x31",
        "squash_31x30",
        "short_30",
        "width_30",
        "long_30",
        "down_30",
    ]
    names += [
        "fragments_30x2",
        "fragments_30x2x2",
        "center_30x31",
        "center_31x30",
        "short_30~bilinear",
        "square",
    ]
    names += ["short_30/center_30", "center_30/short_30", "mosaic_2x3", "mosaic_3x2"]
    assert len({digest_json(parse_view(name).identity()) for name in names}) == len(names)


@given(views, views)
def test_identity_is_json_and_tells_views_apart(one: View, two: View) -> None:
    assert json.loads(json.dumps(one.identity())) == one.identity()
    assert (digest_json(one.identity()) == digest_json(two.identity())) == (one == two)
    assert (one.name == two.name) == (one == two)


@given(views)
def test_views_survive_being_sent_to_another_process(view: View) -> None:
    again = pickle.loads(pickle.dumps(view))
    assert again == view
    assert hash(again) == hash(view)
    assert again.name == view.name


def test_filter_is_part_of_the_identity_and_of_the_pixels() -> None:
    pixels = noise(60, 90)
    spelled = [parse_view(f"short_20~{name}") for name in ("bicubic", "bilinear", "lanczos")]
    assert len({digest_json(view.identity()) for view in spelled}) == 3
    results = [view.scales(pixels, 0)[0] for view in spelled]
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_resize_probes_are_those_of_the_filters_used() -> None:
    identity = parse_view("short_20~lanczos/center_10").identity()
    resize = identity["resize"]
    assert isinstance(resize, dict)
    # Bicubic is always there: it enlarges images that are too small.
    assert set(resize["probes"]) == {"lanczos", "bicubic"}
    assert len(set(resize["probes"].values())) == 2


def test_native_gives_the_image_without_copying_it() -> None:
    pixels = noise(30, 40)
    (crops,) = parse_view("native").scales(pixels, 0)
    assert np.shares_memory(crops, pixels)
    assert np.array_equal(crops[0], pixels)


@pytest.mark.parametrize("name", [example.name for example in list_views()])
@pytest.mark.parametrize(("height", "width"), [(2160, 3840), (3840, 2160), (50, 50), (1, 1), (7, 400)])
def test_each_listed_view_is_defined_for_wide_tall_and_tiny_images(
    name: str, height: int, width: int
) -> None:
    for n_crops, crop_height, crop_width in parse_view(name).geometry(height, width):
        assert min(n_crops, crop_height, crop_width) >= 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "ndarray of float32"),
        (np.zeros((4, 4), np.uint8), r"got \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ([[0, 0, 0]], "got list"),
    ],
)
def test_other_pixels_are_refused(pixels: object, message: str) -> None:
    with pytest.raises(ViewError, match=message):
        parse_view("native").scales(pixels, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, None, True, "7"])
def test_other_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ViewError, match="seed must be an integer"):
        parse_view("mosaic_2x2").scales(noise(8, 8), seed)  # type: ignore[arg-type]


def test_large_and_numpy_seeds_are_taken() -> None:
    view = parse_view("mosaic_4x4")
    assert not np.array_equal(*(view.scales(noise(16, 16), seed)[0] for seed in (2**64 - 1, 2**64 - 2)))
    assert np.array_equal(*(view.scales(noise(16, 16), seed)[0] for seed in (7, np.int64(7))))


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("short_512", 1, 65_535),
        ("center_320", 1, 3000),
        ("center_100000", 500, 500),
        ("tiles_1", 2160, 3840),
        ("fragments_15x32x1000/squash_2000x2000", 500, 500),
    ],
)
def test_views_beyond_any_memory_are_refused_before_they_are_taken(
    name: str, height: int, width: int
) -> None:
    view = parse_view(name)
    with pytest.raises(ViewError, match="at most"):
        view.geometry(height, width)
    with pytest.raises(ViewError, match="at most"):
        view.scales(np.zeros((height, width, 3), np.uint8), 0)


def test_images_without_pixels_have_no_geometry() -> None:
    with pytest.raises(ViewError, match="at least 1 pixel"):
        parse_view("native").geometry(0, 5)


def test_pairs_that_cannot_be_matched_are_refused() -> None:
    with pytest.raises(ViewError, match="fixed number of crops"):
        parse_view("width_960/tiles_224+halfimage")
    with pytest.raises(ViewError, match="pair must be one of"):
        View((), "quarter")
