import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
pytest.importorskip("piq", reason="needs the optional packages of students")

from experiments.student.distortions import HELD_OUT_CHAINS  # noqa: E402 - torch may be missing
from experiments.student.judge import embed  # noqa: E402
from experiments.student.training import (  # noqa: E402
    MixPlan,
    kinds_of,
    learn_statistics,
    mix,
    pool_pictures,
    widen,
    within_kinds,
)
from experiments.student.weak_set import TRAINED_MEASURES, WeakSetPlan, make_weak_set, read_weak_set  # noqa: E402
from featbank.distill.export import load_stored, write_student  # noqa: E402
from featbank.distill.network import StudentNetwork  # noqa: E402
from featbank.encoders.student import students_folder  # noqa: E402
from featbank.errors import EncoderError  # noqa: E402

PLAN = MixPlan(n_mixed=8, n_steps=150, pictures=32, held_out=0.4)


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak") / "set"
    make_weak_set(photographs[:6], folder, WeakSetPlan(size=128, patches_per_mp=1.0, versions=12), workers=1)
    return read_weak_set(folder)


@pytest.fixture
def trunk():
    torch.manual_seed(2)
    return StudentNetwork("mobilenetv3_small_050", 16).eval()


def _mixed(trunk, weak_set, folder):
    rows = np.flatnonzero(weak_set.is_training(PLAN.held_out))
    network = widen(trunk, PLAN, len(kinds_of(weak_set, rows)))
    pooled = pool_pictures(network, weak_set, rows, folder)
    learn_statistics(network, pooled)
    losses = []
    mix(
        network, pooled, weak_set, rows, PLAN, folder, log=lambda _, parts: losses.append(sum(parts.values()))
    )
    return network.eval(), losses


def test_a_mixer_learns_and_leaves_all_else_as_it_was(made, trunk, tmp_path):
    network, losses = _mixed(trunk, made, tmp_path)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    kept = trunk.state_dict()
    for name, value in network.state_dict().items():
        if name in kept:
            assert torch.equal(value[: len(kept[name])] if value.ndim else value, kept[name]), name
    again, _ = _mixed(trunk, made, tmp_path / "again")
    assert torch.equal(again.mixer.first.weight, network.mixer.first.weight)


def test_statistics_are_standardised_by_training_pictures_alone(made, trunk, tmp_path):
    rows = np.flatnonzero(made.is_training(PLAN.held_out))
    network = widen(trunk, PLAN, 3)
    pooled = pool_pictures(network, made, rows, tmp_path)
    learn_statistics(network, pooled)
    # What is kept of the pictures is what the network itself sees.
    statistics = embed(network, made.pictures)[rows, : network.statistics.count()]
    with torch.inference_mode():
        seen = network.seen(torch.tensor(pooled))
    np.testing.assert_allclose(seen[:, trunk.n_embedding :], statistics, rtol=1e-4, atol=1e-4)
    assert np.abs(np.median(statistics, axis=0)).max() < 1.5
    assert 0.5 < np.median(statistics.std(axis=0)) < 1.2
    assert not made.held_out(PLAN.held_out)[rows].any()
    assert not made.ratings["kind"].iloc[rows].isin(HELD_OUT_CHAINS).any()


def test_scores_within_kinds_are_centred_in_each(made):
    rows = np.arange(len(made.ratings))
    found = within_kinds(made.ratings, rows)
    kinds = made.ratings["kind"].to_numpy()
    assert np.array_equal(found[kinds == "none"], np.zeros_like(found[kinds == "none"]))
    for kind in np.unique(kinds[kinds != "none"]):
        assert np.abs(found[kinds == kind].mean(axis=0)).max() < 0.2


@pytest.mark.slow
def test_a_mixed_student_is_written_and_starts_students_without_a_mixer(made, trunk, tmp_path, monkeypatch):
    from featbank.encoders import make_encoder

    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    network, _ = _mixed(trunk, made, tmp_path / "work")
    facts = {
        "name": "mixed",
        "title": "A student",
        "reference": "",
        "licence": "",
        "view": "tiles_3x3/center_64",
    }
    made_of = write_student(students_folder() / "mixed", network, facts, "", half=False)
    n_kinds = len(kinds_of(made, np.flatnonzero(made.is_training(PLAN.held_out))))
    assert made_of.n_features == network.n_features == 16 + 212 + 2 * len(TRAINED_MEASURES) + n_kinds
    assert made_of.n_params == sum(p.numel() for p in network.parameters())
    pictures = np.ascontiguousarray(made.pictures[:6])
    expected = embed(network, pictures)
    found = make_encoder("featbank:mixed").encode(pictures)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    for statistics in (False, True):
        fresh = StudentNetwork("mobilenetv3_small_050", 16, statistics).eval()
        assert load_stored(students_folder() / "mixed" / "weights.safetensors", fresh)
        np.testing.assert_allclose(embed(fresh, pictures), embed(trunk, pictures), rtol=1e-4, atol=1e-4)
    assert load_stored(students_folder() / "mixed" / "weights.safetensors", network.like())


def test_a_mixer_needs_statistics():
    with pytest.raises(EncoderError, match="statistics"):
        StudentNetwork("mobilenetv3_small_050", n_mixed=4)
