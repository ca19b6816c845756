from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.demo.plan import DEFECTS, make_plan, split_sizes, uploader_camera
from featbank.demo.scenes import SCENES


@given(st.integers(20, 400))
def test_splits_share_all_photos(n_photos):
    sizes = split_sizes(n_photos)
    assert sum(sizes.values()) == n_photos
    assert 0 < sizes["validation"] < sizes["test"] < sizes["training"]


@given(st.integers(20, 120), st.integers(0, 2**40))
def test_exclusive_kinds_never_reach_training_and_fill_a_third_elsewhere(n_photos, seed):
    plans = make_plan(n_photos, 320, seed)
    assert [p.number for p in plans] == list(range(1, n_photos + 1))
    for plan in plans:
        assert SCENES[plan.kind].is_exclusive == (plan.subset == "exclusive")
        assert not (plan.split == "training" and plan.subset)
        assert plan.width == 320
        assert plan.height in {214, 212, 180, 240}
        assert plan.original_width >= 3840
        assert set(plan.defects) <= set(DEFECTS)
        assert len(plan.defects) <= 2
    for split in ("validation", "test"):
        rows = [p for p in plans if p.split == split]
        assert sum(p.subset == "exclusive" for p in rows) == round(len(rows) / 3)


def test_plans_follow_the_seed_alone():
    assert make_plan(30, 320, 5) == make_plan(30, 320, 5)
    assert make_plan(30, 320, 5) != make_plan(30, 320, 6)


def test_the_default_set_resembles_the_release():
    plans = make_plan(300, 3840, 0)
    assert Counter(p.split for p in plans) == {"training": 135, "validation": 45, "test": 120}
    trained = {p.uploader for p in plans if p.split == "training"}
    shared = np.mean([p.uploader in trained for p in plans if p.split == "test"])
    # The release shares 83 % of its test rows; 120 rows leave a standard error of 3.4 points.
    assert 0.72 <= shared <= 0.94
    assert sum(p.settings.is_grayscale for p in plans) == 9
    assert {p.height for p in plans} == {2160, 2560, 2880}
    n_defects = Counter(len(p.defects) for p in plans)
    assert set(n_defects) == {0, 1, 2}
    assert min(n_defects.values()) >= 10
    used = Counter(d for p in plans for d in p.defects)
    assert set(used) == set(DEFECTS)
    for split in ("training", "test"):
        kinds = Counter(p.kind for p in plans if p.split == split and not p.subset)
        assert max(kinds.values()) - min(kinds.values()) <= 1


def test_photos_of_one_uploader_share_a_camera():
    plans = [p for p in make_plan(300, 3840, 0) if not p.defects and not p.settings.is_grayscale]
    by_uploader = Counter(p.uploader for p in plans)
    uploader = by_uploader.most_common(1)[0][0]
    camera, carelessness = uploader_camera(0, uploader)
    assert 0.0 <= carelessness <= 1.0
    own = asdict(camera)
    for plan in plans:
        if plan.uploader == uploader:
            found = asdict(plan.settings)
            assert {k for k in own if found[k] != own[k]} <= {"warmth", "exposure_ev", "is_grayscale"}


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


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_grow_with_their_strength(name):
    make, n_cards = DEFECTS[name]
    weak, strong = (make(t, np.random.default_rng(0)) for t in (0.0, 1.0))
    assert n_cards > 0
    assert weak.keys() == strong.keys()
    assert weak != strong
