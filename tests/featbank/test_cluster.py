"""Extraction on a Dask cluster: the bank of a single process, whoever dies on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featbank.bank import Bank
from featbank.cli import main
from featbank.cluster import check_cluster
from featbank.errors import ClusterError
from tests.support.bank_rows import contents
from tests.support.dask_cluster import PROJECT, dask_cluster
from tests.support.datasets import write_csv, write_image

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="needs the optional package distributed"
)
N_PHOTOS, BROKEN, DEADLY = 40, 5, 11

CODE = """
import os, signal, time
from pathlib import Path
import numpy as np
from featbank.encoders import Encoder, EncoderSpec


class Slow(Encoder):
    def __init__(self):
        super().__init__(
            EncoderSpec(
                name="file:slow.py:Slow", role="quality", title="means", reference="own", licence="own",
                weights="none", n_features=3,
            )
        )

    def identity(self):
        return {"name": "slow", "epoch": 1}

    def pass_identity(self):
        return self.identity()

    def count_macs(self, height, width):
        return 0

    def _encode(self, crops):
        folder = Path(os.environ["FEATBANK_TEST_SEEN"])
        with (folder / str(os.getpid())).open("a") as log:
            log.write("x")
        time.sleep(0.1)
        if os.environ.get("FEATBANK_TEST_DEADLY") and (crops == 77).all():
            os.kill(os.getpid(), signal.SIGKILL)
        return crops.mean(axis=(1, 2)).astype(np.float32)
"""
RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[[band]]
name = "slow"
encoder = "file:{code}:Slow"
view = "native"
[regression]
alpha = [1.0]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of which one is broken, a slow encoder that leaves a mark for each photo, and a recipe."""
    from PIL import Image

    for n in range(N_PHOTOS):
        write_image(tmp_path / f"{n}.png", seed=n)
    Image.new("RGB", (24, 16), (77, 77, 77)).save(tmp_path / f"{DEADLY}.png")
    broken = tmp_path / f"{BROKEN}.png"
    broken.write_bytes(broken.read_bytes()[:60])
    write_csv(tmp_path / "scores.csv", ["path", "mos"], [(f"{n}.png", 1.0 + n / 10) for n in range(N_PHOTOS)])
    (tmp_path / "slow.py").write_text(CODE)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(code=tmp_path / "slow.py"))
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("FEATBANK_TEST_SEEN", str(tmp_path / "seen"))
    return tmp_path


def arguments(project: Path, bank: str, *more: str) -> list[str]:
    recipe = str(project / "recipe.toml")
    return [
        "features", str(project / "scores.csv"), "--recipe", recipe, "--bank", str(project / bank), "--json",
        "--allow-code", *more,
    ]  # fmt: skip


def start(project: Path, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "featbank", *arguments(project, "spread", "--cluster", address)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def n_seen(project: Path, pid: int) -> int:
    mark = project / "seen" / str(pid)
    return mark.stat().st_size if mark.exists() else 0


def rows(bank: Path) -> dict[str, bytes]:
    """Every byte of a compacted bank but its logs of times and its caches."""
    assert Bank(bank).verify() == []
    Bank(bank).compact()
    return {name: data for name, data in contents(bank).items() if "/" in name}


@needs_dask
@pytest.mark.slow
def test_one_of_two_workers_is_killed_midway(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dask_cluster(project) as cluster:
        running = start(project, cluster.address)
        victim, survivor = cluster.workers
        deadline = time.monotonic() + 90
        while min(n_seen(project, worker.pid) for worker in cluster.workers) < 3:
            assert time.monotonic() < deadline, (project / "cluster.log").read_text()
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.02)
        victim.kill()
        output, errors = running.communicate(timeout=120)
        n_victim, n_survivor = (n_seen(project, worker.pid) for worker in (victim, survivor))
    assert running.returncode == 0, errors
    assert "Traceback" not in errors
    summary = json.loads(output)
    assert (summary["computed"], len(summary["failures"])) == (N_PHOTOS - 1, 1)
    assert 3 <= n_victim < N_PHOTOS - 1 <= n_victim + n_survivor
    assert main(arguments(project, "single", "--workers", "1")) == 0
    capsys.readouterr()
    assert rows(project / "spread") == rows(project / "single")


CHOSEN = """
import sys
import joblib
from distributed import Client
from featbank.cli import main
with Client(sys.argv[1].replace("dask:", "tcp:")) as client, joblib.parallel_config(backend="dask", client=client):
    sys.exit(main(sys.argv[2:]))
"""


@needs_dask
@pytest.mark.slow
def test_an_engine_that_the_caller_has_chosen_for_joblib_extracts_as_well(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with dask_cluster(project) as cluster:
        command = [
            sys.executable,
            "-c",
            CHOSEN,
            cluster.address,
            *arguments(project, "spread", "--workers", "2"),
        ]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False)
        seen = [n_seen(project, worker.pid) for worker in cluster.workers]
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["computed"] == sum(seen) == N_PHOTOS - 1
    assert main(arguments(project, "single", "--workers", "1")) == 0
    capsys.readouterr()
    assert rows(project / "spread") == rows(project / "single")


@needs_dask
@pytest.mark.slow
def test_a_photo_that_kills_every_worker_is_recorded_and_the_others_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATBANK_TEST_DEADLY", "1")
    with dask_cluster(project, nanny=True) as cluster:
        running = start(project, cluster.address)
        output, errors = running.communicate(timeout=180)
    assert running.returncode == 0, errors
    summary = json.loads(output)
    reasons = {failure["image"]: failure["reason"] for failure in summary["failures"]}
    assert summary["computed"] == N_PHOTOS - 2
    assert reasons.pop(f"{DEADLY}.png") == "memory"
    assert list(reasons) == [f"{BROKEN}.png"]
    # A lack of memory does not lie in the photo: it is tried again.
    monkeypatch.delenv("FEATBANK_TEST_DEADLY")
    assert main(arguments(project, "spread", "--workers", "1")) == 0
    assert len(Bank(project / "spread").images.failures()) == 1


@needs_dask
@pytest.mark.slow
def test_a_cluster_that_is_gone_ends_the_run_in_a_sentence(project: Path) -> None:
    with dask_cluster(project) as cluster:
        running = start(project, cluster.address)
        deadline = time.monotonic() + 90
        while sum(n_seen(project, worker.pid) for worker in cluster.workers) < 5:
            assert time.monotonic() < deadline, (project / "cluster.log").read_text()
            time.sleep(0.02)
        for process in cluster.processes:
            os.kill(process.pid, signal.SIGKILL)
        _, errors = running.communicate(timeout=180)
    assert running.returncode == 1
    assert "was lost" in errors
    assert "Traceback" not in errors, errors
    bank = Bank(project / "spread")
    assert bank.verify() == []
    assert sum(len(folder.keys()) for folder in bank.features()) > 0  # what was finished is kept


@needs_dask
def test_where_nobody_listens_the_message_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("featbank.cluster.CONNECT_S", 1.0)
    assert main(arguments(project, "bank", "--cluster", "dask://127.0.0.1:9")) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:8786", "tcp://a:1", "dask://", "dask://host", "dask://host:port", "dask://a:1/b"],
)
def test_other_spellings_are_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="dask://HOST:PORT"):
        check_cluster(address)


@pytest.mark.parametrize(
    ("address", "spelled"),
    [("dask://10.0.0.5:8786", "tcp://10.0.0.5:8786"), ("dask://[::1]:80", "tcp://[::1]:80")],
)
def test_addresses_are_handed_on(address: str, spelled: str) -> None:
    assert check_cluster(address) == spelled


def test_a_device_of_this_machine_is_none_of_the_cluster(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(project, "bank", "--cluster", "dask://a:1", "--device", "cpu")) == 1
    assert "FEATBANK_DEVICE=cpu" in capsys.readouterr().err
