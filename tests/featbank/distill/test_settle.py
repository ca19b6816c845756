import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")

from featbank.distill import training  # noqa: E402
from featbank.distill.distill import DistillPlan, Readout, Student, pool_photos, settle  # noqa: E402
from featbank.distill.network import Heads, StudentNetwork  # noqa: E402
from featbank.distill.teacher import Targets  # noqa: E402
from featbank.errors import ImageError, RunError  # noqa: E402
from featbank.images import read_photo  # noqa: E402
from featbank.keys import keys_of_files  # noqa: E402
from featbank.views import parse_view  # noqa: E402

VIEW = parse_view("tiles_2x2/center_64")
PLAN = DistillPlan(settle_steps=30, settle_photos=6, settle_rate=3e-3)
LEARN = np.arange(3, 40)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_student():
    torch.manual_seed(0)
    network = StudentNetwork("mobilenetv3_small_050", 16)
    return Student(network, Heads(16, {"features": 3, "score": 1}))


def make_lesson(n_pooled):
    """Forty photographs of four crops, whose targets are a function of their mean."""
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(40, 4, n_pooled)).astype(np.float32)
    hidden = (pooled.mean(axis=1) @ rng.normal(size=(n_pooled, 4)) / 10.0).astype(np.float32)
    return pooled, Targets(hidden[:, 1:], hidden[:, 0], 1.0)


def settled(path, plan=PLAN, log=None):
    student = make_student()
    pooled, targets = make_lesson(student.network.embed.in_features)
    losses = settle(student, pooled, targets, LEARN, plan, checkpoint=path, identity={}, log=log)
    return student, losses


def weights(student):
    return torch.cat([value.flatten().double() for value in student.state_dict().values()])


def test_the_loss_on_the_photographs_learned_from_falls(tmp_path):
    _, losses = settled(tmp_path / "s.pt")
    assert losses["after"] < 0.7 * losses["before"]


@pytest.mark.parametrize("rate", [1e-3, 30.0])
def test_it_never_rises(tmp_path, rate):
    student, losses = settled(
        tmp_path / "s.pt", DistillPlan(settle_steps=6, settle_photos=6, settle_rate=rate)
    )
    assert losses["after"] <= losses["before"]
    if rate > 1.0:  # far too fast: the student is given back as it was
        assert torch.equal(weights(student), weights(make_student()))


def test_the_trunk_stays_at_rest(tmp_path):
    student, _ = settled(tmp_path / "s.pt")
    before = make_student().network.state_dict()
    changed = {
        name for name, value in student.network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {
        *(f"embed.{name}" for name in ("weight", "bias")),
        *(f"pooled_norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }


def test_the_same_seed_gives_the_same_student_and_another_another(tmp_path):
    first, again, other = (
        weights(settled(tmp_path / f"{k}.pt", DistillPlan(settle_steps=8, settle_photos=6, seed=seed))[0])
        for k, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


KILLED = """
import os, signal, sys
from pathlib import Path
from featbank.distill import training
from tests.featbank.distill.test_settle import settled, torch
torch.set_num_threads(1)
training.time.monotonic = iter(range(0, 10**6, 1000)).__next__
saved = training._save
def save(path, digest, step, *rest):
    saved(path, digest, step, *rest)
    if step == 11:
        os.kill(os.getpid(), signal.SIGKILL)
training._save = save
settled(Path(sys.argv[1]))
"""


def test_a_killed_one_goes_on_to_the_same_student(tmp_path):
    path = tmp_path / "s.pt"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        cwd=Path(__file__).parents[3], env=os.environ, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert torch.load(path, weights_only=True)["step"] == 11
    steps = []
    student, losses = settled(path, log=lambda step, parts: steps.append(step))
    assert steps == list(range(11, 30))
    whole = settled(tmp_path / "whole.pt")
    assert torch.equal(weights(student), weights(whole[0]))
    assert losses == whole[1]


class _KilledError(Exception):
    pass


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training.time, "monotonic", iter(range(0, 10**6, 1000)).__next__
    )  # a checkpoint a step

    def kill(step, losses):
        if step == 12:
            raise _KilledError

    path = tmp_path / "s.pt"
    with pytest.raises(_KilledError):
        settled(path, log=kill)
    before = path.read_bytes()

    def save(state, file):
        Path(file).write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(training.torch, "save", save)
        with pytest.raises(RunError, match="previous one is intact; make room"):
            settled(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.pt"]
    student, _ = settled(path)
    assert torch.equal(weights(student), weights(settled(tmp_path / "whole.pt")[0]))


@pytest.fixture
def photos(photographs):
    paths = [str(path) for path in photographs[:3]]
    return list(zip(paths, keys_of_files(paths), strict=True))


def test_what_is_kept_gives_the_predictions_of_the_view(photos, tmp_path):
    student = make_student().eval()
    pooled = pool_photos(student.network, photos, VIEW, tmp_path)
    assert pooled.shape == (3, 4, student.network.embed.in_features)
    for (path, _), kept in zip(photos, pooled, strict=True):
        crops = torch.from_numpy(VIEW.scales(read_photo(path).pixels, 0)[0])
        with torch.inference_mode():
            expected = student(crops[None])
            found = Readout(student).eval()(torch.from_numpy(np.array(kept))[None])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_it_is_computed_once_for_a_trunk_and_again_for_another(photos, tmp_path):
    network = make_student().network
    first = np.array(pool_photos(network, photos, VIEW, tmp_path))
    stamp = (tmp_path / "pooled.npy").stat().st_mtime_ns
    with torch.no_grad():
        network.embed.weight += 1.0
    assert np.array_equal(pool_photos(network, photos, VIEW, tmp_path), first)
    assert (tmp_path / "pooled.npy").stat().st_mtime_ns == stamp
    with torch.no_grad():
        network.stem.weight *= 1.5
    assert not np.array_equal(pool_photos(network, photos, VIEW, tmp_path), first)


def test_of_many_crops_evenly_spread_ones_are_kept(photographs, tmp_path):
    paths = [str(photographs[0])]
    photos = list(zip(paths, keys_of_files(paths), strict=True))
    network = make_student().network
    # Of the 1980 tiles of a UHD photograph 32 would be kept; this one has fewer.
    pooled = pool_photos(network, photos, parse_view("tiles_64"), tmp_path)
    assert pooled.shape[:2] == (1, 32)
    n_tiles = len(parse_view("tiles_64").scales(read_photo(paths[0]).pixels, 0)[0])
    assert len(np.unique(pooled[0], axis=0)) == min(32, n_tiles)


def test_no_room_says_how_much_is_needed(photos, tmp_path):
    network = make_student().network
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .* GB of pooled .*File too large.*Make room"):
            pool_photos(network, photos, VIEW, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert pool_photos(network, photos, VIEW, tmp_path).shape[0] == 3


def test_a_photograph_that_cannot_be_read_is_named(photographs, tmp_path):
    with pytest.raises(ImageError, match=r"torn\.jpg"):
        pool_photos(make_student().network, [(str(photographs[-1]), "0" * 64)], VIEW, tmp_path)
