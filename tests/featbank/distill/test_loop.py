import errno
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")

from featbank.distill import training  # noqa: E402 - torch may be missing
from featbank.distill.training import Schedule, train  # noqa: E402
from featbank.errors import RunError  # noqa: E402

SCHEDULE = Schedule(n_steps=30, learning_rate=0.05)


def _module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
    )


def _batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator)
    return {"x": x, "y": x.sum(dim=1, keepdim=True)}


def _losses(module, batch):
    return {"mse": torch.nn.functional.mse_loss(module(batch["x"]), batch["y"])}


def _train(path, log=None, **options):
    return train(
        _module(), _batch, _losses, SCHEDULE, checkpoint=path, identity={"data": 1}, log=log, **options
    )


def _weights(module):
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


class _KilledError(Exception):
    pass


def _kill_at(last):
    def log(step, losses):
        if step == last:
            raise _KilledError

    return log


def test_the_loss_falls(tmp_path):
    losses = []
    module = _train(tmp_path / "c.pt", lambda step, parts: losses.append(parts["mse"]))
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not module.training


@pytest.mark.parametrize("kills", [(0,), (7,), (29,), (3, 4, 20)])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path, kills):
    expected = _weights(_train(tmp_path / "undisturbed.pt"))
    for step in kills:
        with pytest.raises(_KilledError):
            _train(tmp_path / "c.pt", _kill_at(step), every_s=0.0)
    assert torch.equal(_weights(_train(tmp_path / "c.pt", every_s=0.0)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_a_gpu_the_loss_falls_and_a_kill_changes_next_to_nothing(tmp_path):
    losses = []
    expected = _train(tmp_path / "u.pt", lambda step, parts: losses.append(parts["mse"]), device="cuda")
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    with pytest.raises(_KilledError):
        _train(tmp_path / "c.pt", _kill_at(12), every_s=0.0, device="cuda")
    resumed = _weights(_train(tmp_path / "c.pt", every_s=0.0, device="cuda"))
    # Sums on a GPU may be added in another order.
    assert torch.allclose(resumed, _weights(expected), rtol=1e-2, atol=1e-3)


def test_a_finished_training_is_not_repeated(tmp_path):
    first = _train(tmp_path / "c.pt")
    steps = []
    again = _train(tmp_path / "c.pt", lambda step, parts: steps.append(step))
    assert steps == []
    assert torch.equal(_weights(again), _weights(first))


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    with pytest.raises(_KilledError):
        _train(path, _kill_at(12), every_s=0.0)
    before = path.read_bytes()
    real, calls = torch.save, []

    def save(state, file):
        calls.append(state)
        Path(file).write_bytes(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.torch, "save", save)
    with pytest.raises(RunError, match="previous one is intact; make room"):
        _train(path, every_s=0.0)
    assert len(calls) == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
    monkeypatch.setattr(training.torch, "save", real)
    assert torch.equal(_weights(_train(path, every_s=0.0)), _weights(_train(tmp_path / "u.pt")))


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    _train(tmp_path / "c.pt")
    with pytest.raises(RunError, match="belongs to another training"):
        _train(tmp_path / "c.pt", seed=1)


def test_a_damaged_checkpoint_is_refused_with_the_cure(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"cannot be read .* Delete it"):
        _train(tmp_path / "c.pt")


def test_a_loss_that_is_not_finite_stops_at_once(tmp_path):
    def losses(module, batch):
        return {"mse": module(batch["x"]).sum() * math.inf}

    with pytest.raises(RunError, match="loss of step 0 is not finite"):
        train(_module(), _batch, losses, SCHEDULE, checkpoint=tmp_path / "c.pt", identity={})


def test_the_rate_rises_then_falls_to_nothing():
    rates = [Schedule(100, 1.0, warmup=0.1).rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.01
