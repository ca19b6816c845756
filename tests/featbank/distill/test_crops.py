import resource

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from featbank.distill.training import crop_size, keep_crops
from featbank.errors import ImageError, RunError
from featbank.images import read_photo
from featbank.keys import keys_of_files
from featbank.views import parse_view

VIEW = parse_view("tiles_2x2/center_64")


@pytest.fixture
def photos(photographs):
    paths = [str(path) for path in photographs[:4]]
    return list(zip(paths, keys_of_files(paths), strict=True))


def _find(pixels, crop):
    """Return how many places of the picture show exactly this crop."""
    windows = sliding_window_view(pixels[:, :, 0], crop.shape[:2])
    places = np.argwhere(windows[:, :, 0, 0] == crop[0, 0, 0])
    return sum(np.array_equal(pixels[y : y + 64, x : x + 64], crop) for y, x in places)


def test_every_crop_is_a_piece_of_its_photograph_untouched(photos, tmp_path):
    kept = keep_crops(photos, VIEW, tmp_path, n_crops=4)
    assert kept.shape == (4, 4, 64, 64, 3)
    for (path, _), crops in zip(photos, kept, strict=True):
        pixels = read_photo(path).pixels
        assert all(_find(pixels, crop) for crop in crops)


def test_the_first_half_are_crops_of_the_view_itself(photos, tmp_path):
    kept = keep_crops(photos, VIEW, tmp_path, n_crops=4)
    for (path, _), crops in zip(photos, kept, strict=True):
        whole = VIEW.scales(read_photo(path).pixels, 0)[0]
        assert all(any(np.array_equal(crop, own) for own in whole) for crop in crops[:2])
        assert not all(any(np.array_equal(crop, own) for own in whole) for crop in crops[2:])


def test_the_file_is_made_once_and_again_for_another_request(photos, tmp_path):
    first = np.array(keep_crops(photos, VIEW, tmp_path, n_crops=4))
    stamp = (tmp_path / "crops.npy").stat().st_mtime_ns
    assert np.array_equal(keep_crops(photos, VIEW, tmp_path, n_crops=4), first)
    assert (tmp_path / "crops.npy").stat().st_mtime_ns == stamp
    assert not np.array_equal(keep_crops(photos, VIEW, tmp_path, n_crops=4, seed=1), first)
    assert np.array_equal(keep_crops(photos, VIEW, tmp_path, n_crops=4), first)


@pytest.mark.slow  # each worker process imports torch
def test_two_workers_cut_the_crops_of_one(photos, tmp_path):
    first = np.array(keep_crops(photos, VIEW, tmp_path, n_crops=4))
    keep_crops(photos, VIEW, tmp_path, n_crops=4, seed=1)
    assert np.array_equal(keep_crops(photos, VIEW, tmp_path, n_crops=4, workers=2), first)


def test_a_file_that_was_not_finished_is_made_anew(photos, tmp_path):
    first = np.array(keep_crops(photos, VIEW, tmp_path, n_crops=4))
    (tmp_path / "crops.json").unlink()
    (tmp_path / "crops.npy").write_bytes(b"half")
    assert np.array_equal(keep_crops(photos, VIEW, tmp_path, n_crops=4), first)


def test_no_room_for_the_file_says_how_much_is_needed(photos, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write 0\.0 GB of crops .*File too large.*--crops"):
            keep_crops(photos, VIEW, tmp_path, n_crops=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert keep_crops(photos, VIEW, tmp_path, n_crops=4).shape[0] == 4


def test_a_photograph_that_cannot_be_read_is_named(photographs, tmp_path):
    with pytest.raises(ImageError, match=r"torn\.jpg"):
        keep_crops([(str(photographs[-1]), "0" * 64)], VIEW, tmp_path, n_crops=4)


@pytest.mark.parametrize("view", ["short_512", "native", "center_320+half", "width_960"])
def test_views_whose_crops_vary_are_refused(view):
    with pytest.raises(RunError, match="one size at one scale"):
        crop_size(parse_view(view))


def test_the_size_of_the_crops():
    assert crop_size(parse_view("tiles_5x5/center_224")) == (224, 224)
