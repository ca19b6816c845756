from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch", reason="needs the optional packages of network encoders")
pytest.importorskip("piq", reason="needs the optional packages of students")

from experiments.student.weak_set import (
    JUDGE,
    TRAINED_MEASURES,
    WeakSetPlan,
    make_weak_set,
    read_weak_set,
)
from featbank.errors import DatasetError

PLAN = WeakSetPlan(size=192, patches_per_mp=1.0, versions=8, seed=0)


@pytest.fixture(scope="module")
def photographs(photographs):
    """Six sharp scenes, and three that give no patch."""
    return [*photographs[4:10], *photographs[12:]]


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak") / "set"
    make_weak_set(photographs, folder, PLAN, workers=1)
    return folder


def test_every_textured_photograph_gives_a_patch_and_its_versions(folder, photographs):
    weak_set = read_weak_set(folder)
    ratings = weak_set.ratings
    assert sorted(ratings["photo"].unique()) == [path.name for path in photographs[:6]]
    assert (ratings.groupby(["photo", "patch"]).size() == 1 + PLAN.versions).all()
    assert weak_set.pictures.shape == (len(ratings), 192, 192, 3)
    assert weak_set.pictures.dtype == np.uint8
    assert ((ratings["kind"] == "none") == (ratings["level"] == 0)).all()
    assert ratings.loc[ratings["level"] > 0, "level"].between(1, 5).all()


def test_flawless_patches_have_the_best_rating_by_every_measure(folder):
    ratings = read_weak_set(folder).ratings
    for measure in (*TRAINED_MEASURES, JUDGE):
        best = ratings[ratings["level"] == 0].set_index(["photo", "patch"])[measure]
        worse = ratings[ratings["level"] > 0].set_index(["photo", "patch"])[measure]
        assert (worse <= best.reindex(worse.index) + 1e-4).all(), measure
        assert np.ptp(best) < 1e-3, measure


def test_measures_fall_with_the_level_on_the_whole(folder):
    ratings = read_weak_set(folder).ratings
    for measure in (*TRAINED_MEASURES, JUDGE):
        assert ratings["level"].corr(ratings[measure], method="spearman") < -0.3, measure


def test_kinds_and_levels_are_dealt_evenly(folder):
    ratings = read_weak_set(folder).ratings
    counts = ratings[ratings["level"] > 0].groupby("photo")["kind"].value_counts()
    assert counts.max() <= 2


def test_a_stopped_making_goes_on_with_what_is_there(folder, photographs, tmp_path):
    again = tmp_path / "set"
    make_weak_set(photographs[:3], again, PLAN, workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in again.glob("scene*.npz")}
    make_weak_set(photographs, again, PLAN, workers=1)
    assert {name: (again / name).stat().st_mtime_ns for name in before} == before
    for name in ("pictures.npy", "ratings.csv"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_another_plan_does_not_use_the_shards_of_this_one(photographs, folder, tmp_path):
    again = tmp_path / "set"
    make_weak_set(photographs[:2], again, PLAN, workers=1)
    make_weak_set(photographs[:2], again, replace(PLAN, versions=3), workers=1)
    assert len(read_weak_set(again).ratings) == 8


def test_whole_photographs_are_held_out_whatever_else_is_in_the_set(folder):
    weak_set = read_weak_set(folder)
    held = weak_set.held_out(0.5)
    by_photo = pd.Series(held).groupby(weak_set.ratings["photo"]).nunique()
    assert (by_photo == 1).all()
    assert 0 < held.sum() < len(held)
    half = replace(weak_set, ratings=weak_set.ratings.iloc[: len(held) // 2])
    assert np.array_equal(half.held_out(0.5), held[: len(held) // 2])


def test_no_usable_photograph_is_an_error(photographs, tmp_path):
    with pytest.raises(DatasetError, match="none of 3 photographs gave a patch of 192 pixels"):
        make_weak_set(photographs[6:], tmp_path / "set", PLAN, workers=1)


def test_a_folder_without_a_set_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="holds no finished set"):
        read_weak_set(tmp_path)
