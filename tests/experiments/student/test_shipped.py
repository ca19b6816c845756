from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, rankdata

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
pytest.importorskip("piq", reason="needs the optional packages of students")

from experiments.student.distortions import HELD_OUT_CHAINS  # noqa: E402 - torch may be missing
from experiments.student.judge import (  # noqa: E402  # noqa: E402
    CURVE,
    DIFFERENCES,
    SCORES,
    embed,
    fit_readout,
    judge,
    small_sample_curve,
    untrained,
    write_shipped_card,
)
from experiments.student.training import (  # noqa: E402
    ShippedPlan,
    _Batches,
    measure_targets,
    normal_scores,
    picture_statistics,
    train_shipped,
)
from experiments.student.weak_set import JUDGE, WeakSetPlan, make_weak_set, read_weak_set  # noqa: E402
from featbank.distill.network import StudentNetwork  # noqa: E402

SIZE = 192
PLAN = ShippedPlan(
    architecture="mobilenetv3_small_050",
    n_embedding=16,
    crop=64,
    patches=3,
    versions=6,
    n_steps=12,
    held_out=0.4,
)


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weak") / "set"
    make_weak_set(
        photographs[:12], folder, WeakSetPlan(size=SIZE, patches_per_mp=1.0, versions=10), workers=1
    )
    weak_set = read_weak_set(folder)
    return weak_set, picture_statistics(weak_set, folder, 1), folder


def test_normal_scores_of_the_reference_itself_are_those_of_its_ranks():
    values = np.random.default_rng(0).gamma(0.3, size=50)
    expected = norm.ppf(rankdata(values) / 51)
    np.testing.assert_allclose(normal_scores(values, values), expected, rtol=1e-12)
    assert np.all(np.diff(normal_scores(np.sort(values), values)) > 0)
    assert np.isfinite(normal_scores(np.array([-np.inf, np.inf]), values)).all()


def test_targets_rank_by_training_rows_alone(made):
    weak_set, _, _ = made
    is_training = ~weak_set.held_out(0.4)
    changed = weak_set.ratings.copy()
    changed.loc[~is_training, "mdsi"] = 1e6
    before, after = (measure_targets(ratings, is_training) for ratings in (weak_set.ratings, changed))
    assert np.array_equal(before[is_training], after[is_training])
    assert np.abs(before[is_training].mean(axis=0)).max() < 0.3


def test_statistics_are_computed_once_and_read_back(made):
    weak_set, statistics, folder = made
    assert statistics.shape[0] == len(weak_set.ratings)
    assert np.isfinite(statistics).all()
    assert np.array_equal(
        picture_statistics(replace(weak_set, pictures=weak_set.pictures[:0]), folder, 1), statistics
    )


def test_batches_depend_on_the_step_alone_and_show_nothing_held_out(made):
    weak_set, statistics, _ = made
    batches = _Batches(weak_set, statistics, PLAN)
    first, again = batches(3), _Batches(weak_set, statistics, PLAN)(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["crops"], batches(4)["crops"])
    held_out = weak_set.held_out(0.4)
    forbidden = held_out | weak_set.ratings["kind"].isin(HELD_OUT_CHAINS).to_numpy()
    assert forbidden.sum() > held_out.sum()
    seen = {row for rows in batches.rows for row in rows.tolist()}
    assert seen == set(np.flatnonzero(~forbidden).tolist())
    for step in range(20):
        assert first["crops"].shape[1:] == (64, 64, 3)
        owner = batches(step)["owner"].numpy()
        assert np.unique(owner).size == PLAN.patches
        assert np.bincount(owner).max() <= PLAN.versions


def test_a_stopped_training_ends_with_the_weights_of_an_undisturbed_one(made, tmp_path):
    weak_set, statistics, _ = made

    class Stopped(Exception):  # noqa: N818 - not an error
        pass

    def stop(step, losses):
        if step == 6:
            raise Stopped

    def weights(folder, **options):
        network = train_shipped(weak_set, statistics, PLAN, folder, **options)
        return torch.cat([value.flatten().double() for value in network.state_dict().values()])

    whole = weights(tmp_path / "whole")
    import featbank.distill.training as loop

    with pytest.MonkeyPatch.context() as patch:
        # A checkpoint after every step instead of every two minutes.
        patch.setattr(loop.time, "monotonic", iter(range(0, 10**6, 1000)).__next__)
        with pytest.raises(Stopped):
            weights(tmp_path / "stopped", log=stop)
    assert torch.equal(weights(tmp_path / "stopped"), whole)


def test_embeddings_are_judged_by_photographs_that_no_readout_saw(made):
    weak_set, _, _ = made
    y = weak_set.ratings[JUDGE].to_numpy()
    rng = np.random.default_rng(0)
    good = np.column_stack([y, rng.normal(size=(len(y), 4))]).astype(np.float32)
    # Knows every photograph, and nothing of quality.
    codes = np.unique(weak_set.ratings["photo"], return_inverse=True)[1]
    blind = np.eye(codes.max() + 1, dtype=np.float32)[codes]
    table, differences = judge(weak_set, {"good": good, "blind": blind})
    scores = table.set_index(["features", "readout"])["srcc"]
    assert scores["good", "ridge"] > 0.95
    assert not scores["blind", "ridge"] > 0.3
    assert (differences["low"] > 0).all()
    assert set(differences["readout"]) == {"ridge", "rbf-svr"}
    assert "nss+student" not in scores.index.get_level_values(0)
    noise = rng.normal(size=good.shape).astype(np.float32)
    curve = small_sample_curve(weak_set, {"good": good, "noise": noise}, sizes=(3, 6), n_draws=8)
    means = curve.set_index(["features", "n"])["mean"]
    assert means["good", 6] > 0.5 > 0.3 > abs(means["noise", 6])


def test_the_untrained_network_has_the_statistics_of_the_pictures(made):
    weak_set, _, _ = made
    torch.manual_seed(0)
    from featbank.distill.network import StudentNetwork

    network = StudentNetwork("mobilenetv3_small_050", 8)
    fresh = untrained(network, weak_set.pictures[:32])
    fixed = untrained(network, weak_set.pictures[:32])
    assert not fresh.training
    found = embed(fresh, weak_set.pictures[:32])
    assert found.shape == (32, 8)
    assert np.array_equal(found, embed(fixed, weak_set.pictures[:32]))
    with torch.inference_mode():
        normed = fresh.pooled_norm(
            fresh.pooled(torch.from_numpy(weak_set.pictures[:32].copy()).permute(0, 3, 1, 2).float() / 255.0)
        )
    assert normed.mean(dim=0).abs().median() < 0.5
    assert 0.3 < normed.std(dim=0).median() < 3.0


def test_the_ridge_readout_chooses_its_penalty_on_grouped_folds():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 40)).astype(np.float32)
    groups = np.repeat(np.arange(20), 10).astype(str)
    search = fit_readout("ridge", X, rng.normal(size=200), groups)
    assert search.best_params_["regress__alpha"] >= 100


def test_the_card_is_made_of_what_the_judge_found(made):
    weak_set, _, folder = made
    y = weak_set.ratings[JUDGE].to_numpy()
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(size=(len(y), 5)).astype(np.float32) for name in ("untrained", "nss")}
    student = np.column_stack([y, y**2]).astype(np.float32)
    blocks = {"student": student, **noise}
    scores, differences = judge(weak_set, blocks)
    curve = small_sample_curve(weak_set, blocks, sizes=(3,), n_draws=2)
    for table, file in ((scores, SCORES), (differences, DIFFERENCES), (curve, CURVE)):
        table.to_csv(folder.parent / file, index=False)
    network = StudentNetwork(PLAN.architecture, n_embedding=16, statistics=True, n_mixed=8, n_read=5)
    card = write_shipped_card("featbank:pupil", "tiles_2x2/center_64", network, PLAN, folder.parent)
    assert card.startswith("# featbank:pupil\n")
    assert "made with 12 photographs" in card
    assert f"{network.n_features} features" in card
    assert "a hidden layer of 8 units" in card
    assert "the last 5 are what it learned to tell" in card
    best = scores.set_index(["features", "readout"]).loc[("student", "ridge"), "srcc"]
    assert f"| student | ridge | {best:.3f} |" in card
    [gain] = differences[
        (differences["first"] == "nss")
        & (differences["second"] == "nss+student")
        & (differences["readout"] == "ridge")
    ]["difference"]
    assert gain < 0
    assert f"- ridge: +{-gain:.3f} [+" in card
