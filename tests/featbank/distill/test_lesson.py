import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from featbank.bank import Bank
from featbank.datasets import read_dataset, read_photos
from featbank.distill.teacher import (
    FURTHER,
    SIMULATION,
    Lesson,
    compare_scores,
    join_photos,
    make_targets,
    read_out,
    split_lesson,
    write_card,
)


def _rows(n=60, *, split=("training", "training", "validation", "test"), seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "path": [f"{k}.png" for k in range(n)],
            "mos": rng.uniform(size=n),
            "split": [split[k // 3 % len(split)] for k in range(n)],
            "subset": ["exclusive" if k % 2 else "" for k in range(n)],
            "group": [f"uploader {k // 3}" for k in range(n)],
        }
    )


def _lesson(rows, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(len(rows), 5))
    features = hidden @ rng.normal(size=(5, 40)) * rng.gamma(1.0, size=40) + 3.0
    return Lesson(rows, features, 0.5 + 0.1 * hidden[:, 0], [], "teacher", False)


def test_a_given_split_is_kept():
    rows = _rows()
    learn, watch = split_lesson(rows, 0)
    assert set(rows["split"].iloc[learn]) == {"training"}
    assert set(rows["split"].iloc[watch]) == {"validation"}
    assert len(learn) == (rows["split"] == "training").sum()


@given(seed=st.integers(0, 1000), split=st.sampled_from([("",), ("training", "test"), ("training",)]))
def test_without_validation_whole_groups_of_what_may_be_learned_are_held_out(seed, split):
    rows = _rows(split=split)
    learn, watch = split_lesson(rows, seed)
    assert len(learn) > 0
    assert len(watch) > 0
    assert not set(rows["group"].iloc[learn]) & set(rows["group"].iloc[watch])
    allowed = rows["split"].isin(["", "training"]).to_numpy()
    assert sorted([*learn, *watch]) == np.flatnonzero(allowed).tolist()


@pytest.mark.parametrize("split", [("",), ("training", "validation", "test"), ("training", "test")])
def test_further_photographs_are_all_learned_from_and_change_nothing_else(split):
    rows = _rows(split=split)
    more = _rows(20, split=(FURTHER,)).assign(group=[f"image:{k}" for k in range(20)])
    learn, watch = split_lesson(rows, 0)
    both, same = split_lesson(pd.concat([rows, more]), 0)
    assert both.tolist() == [*learn, *range(60, 80)]
    assert same.tolist() == watch.tolist()


def test_further_photographs_join_without_mos_split_and_group(photographs, tmp_path):
    names = [path.name for path in photographs[:4]]
    table = tmp_path / "scores.csv"
    folder = photographs[0].parent
    table.write_text(
        "\n".join(["path,mos,split,group", *(f"{folder / name},3.5,test,me" for name in names)]) + "\n"
    )
    own, more, bank = read_dataset(table), read_photos([folder]), Bank(tmp_path / "bank")
    joined, added = join_photos(own, more, bank)
    # What the dataset has is passed over: it may be a test photograph there.
    assert joined.frame.iloc[:4].equals(own.frame)
    assert sorted(added) == sorted(f"further/{path.name}" for path in photographs[4:])
    rest = joined.frame.iloc[4:]
    assert rest["image_id"].tolist() == sorted(added)
    assert rest["mos"].isna().all()
    assert set(rest["split"]) | set(rest["group"]) == {""}
    assert join_photos(own, None, bank) == (own, frozenset())


def test_a_further_photograph_that_is_there_twice_joins_once(photographs, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(photographs[0].read_bytes())
    own, more = read_photos([photographs[1]]), read_photos([tmp_path / "photos"])
    joined, added = join_photos(own, more, Bank(tmp_path / "bank"))
    assert joined.n_images == 2
    assert added == {"further/a.png"}


def test_targets_follow_from_the_photographs_learned_from_alone():
    rows = _rows()
    lesson = _lesson(rows)
    learn, watch = split_lesson(rows, 0)
    targets = make_targets(lesson, learn, 4)
    lesson.features[watch] += 100.0
    lesson.scores[watch] -= 1.0
    again = make_targets(lesson, learn, 4)
    np.testing.assert_allclose(again.features[learn], targets.features[learn], atol=1e-5)
    assert np.array_equal(again.scores[learn], targets.scores[learn])


def test_targets_are_standard_and_keep_what_the_features_hold():
    rows = _rows(200, split=("training",))
    lesson = _lesson(rows)
    learn = np.arange(200)
    targets = make_targets(lesson, learn, 5)
    assert targets.explained == pytest.approx(1.0)
    assert targets.scores.std() == pytest.approx(1.0, rel=1e-5)
    assert np.abs(targets.features.mean(axis=0)).max() < 0.05
    assert targets.features.std(axis=0) == pytest.approx(np.ones(5), abs=0.05)
    back = lesson.scores.mean() + lesson.scores.std() * targets.scores
    np.testing.assert_allclose(back, lesson.scores, atol=1e-6)


def test_there_are_no_more_components_than_photographs_allow():
    rows = _rows(9, split=("training",))
    assert make_targets(_lesson(rows), np.arange(9), 32).features.shape == (9, 8)


def test_a_constant_teacher_gives_no_nan():
    rows = _rows(12, split=("training",))
    lesson = _lesson(rows)
    lesson.scores[:] = 0.7
    assert np.abs(make_targets(lesson, np.arange(12), 4).scores).max() < 1e-12


def test_agreement_is_told_by_split_subset_and_what_was_learned():
    rows = _rows(120, split=("training", "training", "test"))
    lesson = _lesson(rows)
    learn, watch = split_lesson(rows, 0)
    noise = np.random.default_rng(1).normal(size=len(rows))
    predicted = lesson.scores.copy()
    predicted[watch] = noise[watch]
    entries = {(e["rows"], e["learned"]): e for e in compare_scores(lesson, predicted, learn)}
    assert entries["training", True]["srcc_teacher"] == pytest.approx(1.0)
    assert entries["training", True]["n"] == len(learn)
    assert abs(entries["training", False]["srcc_teacher"]) < 0.5
    assert entries["training", False]["n"] == len(watch)
    assert entries["test", False]["interval"] == pytest.approx([1.0, 1.0])
    exclusive = (rows["split"] == "test") & (rows["subset"] == "exclusive")
    assert entries["test/exclusive", False]["n"] == exclusive.sum()
    assert ("test", True) not in entries
    others = np.setdiff1d(np.arange(len(rows)), learn)
    assert entries["together", False]["n"] == len(others)
    expected = spearmanr(lesson.scores[others], predicted[others]).statistic
    assert entries["together", False]["srcc_teacher"] == pytest.approx(expected)


def test_a_readout_follows_from_the_photographs_learned_from_alone():
    rows = _rows(120, split=("training", "training", "test"))
    lesson = _lesson(rows)
    vectors = lesson.features[:, :20] + 5.0
    learn, _ = split_lesson(rows, 0)
    found, alpha = read_out(vectors, lesson, learn)
    test = (rows["split"] == "test").to_numpy()
    # The scores are a linear function of the vectors.
    assert np.corrcoef(found[test], lesson.scores[test])[0, 1] > 0.99
    rest = np.setdiff1d(np.arange(120), learn)
    lesson.scores[rest] += 10.0
    lesson.rows["group"] = lesson.rows["group"].where(np.isin(np.arange(120), learn), "other")
    again, same = read_out(vectors, lesson, learn)
    assert np.array_equal(again, found)
    assert same == alpha


def test_photographs_without_mos_are_compared_with_the_teacher_alone():
    rows = _rows(40, split=("",)).assign(mos=np.nan)
    lesson = _lesson(rows)
    [first, *_] = compare_scores(lesson, lesson.scores, np.arange(30))
    assert first["rows"] == "all"
    assert "together" not in {entry["rows"] for entry in compare_scores(lesson, lesson.scores, np.arange(30))}
    assert first["srcc_mos"] is None
    assert first["srcc_teacher"] == pytest.approx(1.0)


@pytest.mark.parametrize("simulation", [False, True])
def test_the_card_tells_agreement_costs_and_simulation(simulation):
    rows = _rows(40, split=("training", "test"))
    lesson = _lesson(rows)
    result = {
        "encoder": "featbank:pupil",
        "teacher": "starter",
        "simulation": simulation,
        "plan": {
            "architecture": "mobilenetv3_small_075", "view": "tiles_5x5/center_224",
            "n_embedding": 128, "n_steps": 40, "settle_steps": 9, "statistics": True,
        },
        "n_learned": 21, "components": 5, "explained": 0.75, "train_s": 3.2, "alpha": 10.0,
        "agreement": compare_scores(lesson, lesson.scores, np.arange(21)),
        "gmacs": 1.25, "gmacs_teacher": 2.5, "params_m": 0.9,
        "seconds_decode": 0.05, "seconds_student": 0.1, "seconds_teacher": 1.5,
    }  # fmt: skip
    card = write_card(result)
    assert card.startswith("# featbank:pupil\n")
    assert "| test | no | " in card
    assert "| seconds per photo | 0.100 | 1.500 |" in card
    assert "The teacher takes 15.0 times as long, decoding included." in card
    assert (SIMULATION in card) == simulation
