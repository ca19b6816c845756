from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.demo.camera import CameraSettings
from featbank.demo.scenes import EXCLUSIVE, SCENES
from featbank.demo.write import (
    FAULTS,
    N_RATERS,
    N_SESSIONS,
    UPLOADERS,
    make_plan,
    make_raters,
    mean_opinion,
    quality,
    rate,
    split_sizes,
    uploader_camera,
    visibility,
)


@given(st.integers(20, 400))
def test_splits_share_all_photos(n_photos):
    sizes = split_sizes(n_photos)
    assert sum(sizes.values()) == n_photos
    assert 0 < sizes["validation"] < sizes["test"] < sizes["training"]


@given(st.integers(20, 90), st.integers(0, 2**40))
def test_exclusive_kinds_never_reach_training_and_fill_a_third_elsewhere(n_photos, seed):
    plans = make_plan(n_photos, 3840, seed)
    assert [p.number for p in plans] == list(range(1, n_photos + 1))
    for plan in plans:
        assert (SCENES[plan.kind] in EXCLUSIVE) == (plan.subset == "exclusive")
        assert not (plan.split == "training" and plan.subset)
        assert plan.width in {3840, 1920, 1280, 960, 640}
        assert plan.size == plan.width / 3840
        assert plan.original_width >= 3840
        assert set(plan.faults) <= set(UPLOADERS[plan.uploader_type][2])
        assert len(plan.faults) <= 2
    for split in ("validation", "test"):
        rows = [p for p in plans if p.split == split]
        assert sum(p.subset == "exclusive" for p in rows) == round(len(rows) / 3)


def test_the_default_set_resembles_the_release_with_strong_noise_and_small_photos():
    plans = make_plan(300, 3840, 0)
    assert plans == make_plan(300, 3840, 0)
    assert plans != make_plan(300, 3840, 1)
    assert Counter(p.split for p in plans) == {"training": 135, "validation": 45, "test": 120}
    trained = {p.uploader for p in plans if p.split == "training"}
    shared = np.mean([p.uploader in trained for p in plans if p.split == "test"])
    # The release shares 83 % of its test rows; 120 rows leave a standard error of 3.4 points.
    assert 0.72 <= shared <= 0.94
    assert sum(p.settings.is_grayscale for p in plans) == 9
    assert {fault for p in plans for fault in p.faults} == set(FAULTS)
    assert {p.uploader_type for p in plans} == set(UPLOADERS)
    for split in ("training", "test"):
        rows = [p for p in plans if p.split == split]
        kinds = Counter(p.kind for p in rows if not p.subset)
        assert max(kinds.values()) - min(kinds.values()) <= 1
        assert sum(p.settings.noise > 20 for p in rows) >= 3
        assert 0.03 < np.mean([p.size < 0.6 for p in rows]) < 0.2


def test_photos_of_one_uploader_share_a_camera():
    plans = [p for p in make_plan(300, 3840, 0) if not p.faults and not p.settings.is_grayscale]
    uploader = Counter(p.uploader for p in plans).most_common(1)[0][0]
    kind, own = uploader_camera(0, uploader)
    for plan in plans:
        if plan.uploader == uploader:
            assert plan.uploader_type == kind
            assert replace(plan.settings, exposure=0.0) == own


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((19, 320, 0), "n_photos"),
        ((20, 319, 0), "width"),
        ((20, 320, -1), "seed"),
        ((20.5, 320, 0), "n_photos"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, word):
    with pytest.raises(ValueError, match=f"{word} must be an integer of at least"):
        make_plan(*arguments)


def _photo(size=1.0, kind="fruit", **settings):
    return replace(make_plan(20, 320, 0)[0], kind=kind, size=size, settings=CameraSettings(**settings))


LADDERS = {
    **{
        name: [_photo(**FAULTS[name](t, np.random.default_rng(0))) for t in (0.0, 0.3, 0.6, 1.0)]
        for name in FAULTS
    },
    "small": [_photo(size) for size in (1 / 2, 1 / 3, 1 / 4, 1 / 6)],
    "small and noisy": [_photo(size, noise=10.0) for size in (1 / 2, 1 / 3, 1 / 4, 1 / 6)],
    "noisy and soft": [_photo(blur=4.0, noise=noise) for noise in (2.0, 10.0, 45.0)],
}


@pytest.mark.parametrize("name", LADDERS)
def test_quality_falls_with_every_fault_at_a_fixed_scene(name):
    seen = (1.0, 1.0)
    values = [quality(photo, seen) for photo in [_photo(), *LADDERS[name]]]
    assert all(a > b for a, b in pairwise(values)), values
    assert values[0] - values[-1] > 0.08
    assert values[-1] > 0.15


def test_detailed_scenes_show_blur_and_calm_ones_noise():
    calm = np.full((200, 300, 3), 120, np.uint8)
    busy = np.random.default_rng(0).integers(0, 256, calm.shape, dtype=np.uint8)
    assert quality(_photo(blur=3.0), visibility(busy)) < quality(_photo(blur=3.0), visibility(calm))
    assert quality(_photo(noise=15.0), visibility(busy)) > quality(_photo(noise=15.0), visibility(calm))


def test_ratings_follow_names_and_seed_and_average_to_mos_in_the_releases_steps():
    qualities, names = np.linspace(0.2, 0.9, 50), [f"{k + 1}.jpg" for k in range(50)]
    ratings = rate(qualities, names, 4)
    assert ratings.shape == (50, N_SESSIONS, N_RATERS)
    assert 0 <= ratings.min() < ratings.max() <= 100
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(rate(qualities[order], [names[k] for k in order], 4), ratings[order])
    assert (rate(qualities, names, 5) != ratings).any()
    mos = mean_opinion(ratings)
    np.testing.assert_allclose(mos, ratings.reshape(50, 20).mean(axis=1) / 100, atol=1e-9)
    np.testing.assert_allclose(mos / 0.0005, np.round(mos / 0.0005), atol=1e-6)


def test_raters_differ_in_bias_and_gain_and_agree_with_themselves_more_than_with_others():
    assert np.all(make_raters(0).std(axis=0) > (0.01, 0.03))
    qualities = np.random.default_rng(2).uniform(0.5, 0.8, 400)
    ratings = rate(qualities, [f"{k}.jpg" for k in range(400)], 1).astype(float)
    rest = ratings - ratings.mean(axis=(1, 2), keepdims=True)
    rest -= rest.mean(axis=0, keepdims=True)
    own = np.mean([np.corrcoef(rest[:, 0, k], rest[:, 1, k])[0, 1] for k in range(N_RATERS)])
    other = np.mean([np.corrcoef(rest[:, 0, k], rest[:, 1, k - 1])[0, 1] for k in range(N_RATERS)])
    assert own > other + 0.1
    halves = ratings[:, :, :5].mean(axis=(1, 2)), ratings[:, :, 5:].mean(axis=(1, 2))
    assert 0.85 < np.corrcoef(*halves)[0, 1] < 0.99
