"""Fits and searches whose folds a Dask cluster computes: the run of one machine, whoever dies on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest

from featbank.bank import Bank
from featbank.cli import main
from regressors.persistence import load_model
from tests.support import imported_run, search_study
from tests.support.dask_cluster import PROJECT, DaskCluster, dask_cluster

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="needs the optional package distributed"
)
FAULTS = PROJECT / "tests/support/worker_faults.py"
N_FOLDS = 5

SHARING = "import featbank.cluster as backend; backend.LARGE_BYTES = 1000"
"""Makes these small tables travel as large ones do: once, as the result of a task of their own."""

OWN = {"receipt.json", "report.html", "model.skops"}
"""Files with durations, or with addresses of objects; the last is compared by what it holds."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset with imported bands, a recipe, and a folder for the workers' marks."""
    imported_run.prepare(tmp_path)
    (tmp_path / "recipe.toml").write_text(imported_run.RECIPE)
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("FEATBANK_TEST_SEEN", str(tmp_path / "seen"))
    return tmp_path


def arguments(project: Path, command: str, out: str, *more: str) -> list[str]:
    return [
        command, str(project / "scores.csv"), "--recipe", str(project / "recipe.toml"), "--bank", str(project / "bank"),
        "--out", str(project / out), "--json", *more,
    ]  # fmt: skip


def start(project: Path, command: str, out: str, *more: str, before: str = SHARING) -> subprocess.Popen[str]:
    """Run a command in a process of its own, so that no client of a cluster lives in this one."""
    code = f"import sys; {before}\nfrom featbank.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments(project, command, out, *more)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(running: subprocess.Popen[str], *, status: int = 0) -> dict[str, object]:
    output, errors = running.communicate(timeout=240)
    assert running.returncode == status, errors
    assert "Traceback" not in errors, errors
    document: dict[str, object] = json.loads(output)
    return document


def n_seen(project: Path, pid: int) -> int:
    mark = project / "seen" / str(pid)
    return mark.stat().st_size if mark.exists() else 0


def wait_until_all_work(project: Path, cluster: DaskCluster, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while min(n_seen(project, worker.pid) for worker in cluster.workers) < 2:
        assert time.monotonic() < deadline, (project / "cluster.log").read_text()
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.02)


def receipt(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "receipt.json").read_text())
    return document


def assert_same_run(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in set(names) - OWN - {"search.journal"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert joblib.hash(load_model(one / "model.skops")) == joblib.hash(load_model(other / "model.skops"))
    differing = {"cluster", "durations", "started"}
    kept = [{k: v for k, v in receipt(run).items() if k not in differing} for run in (one, other)]
    assert kept[0] == kept[1]
    assert receipt(one)["durations"].keys() == receipt(other)["durations"].keys()


def test_the_run_of_two_workers_is_that_of_one_machine(project: Path) -> None:
    with dask_cluster(project) as cluster:
        running = start(project, "fit", "spread", "--permutations", "0", "--cluster", cluster.address)
        finish(running)
        address = cluster.address
    assert main(arguments(project, "fit", "single", "--permutations", "0")) == 0
    assert_same_run(project / "single", project / "spread")
    used = receipt(project / "spread")["cluster"]
    assert used["address"] == address
    assert sum(used["tasks_by_host"].values()) >= N_FOLDS
    assert "cluster" not in receipt(project / "single")


@pytest.mark.slow
def test_one_of_two_workers_is_killed_midway(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATBANK_TEST_PAUSE", "0.3")
    with dask_cluster(project, preload=FAULTS) as cluster:
        running = start(project, "fit", "spread", "--cluster", cluster.address)
        wait_until_all_work(project, cluster, running)
        victim, survivor = cluster.workers
        victim.kill()
        finish(running)
        n_victim, n_survivor = (n_seen(project, worker.pid) for worker in (victim, survivor))
    n_tasks = sum(receipt(project / "spread")["cluster"]["tasks_by_host"].values())
    assert 2 <= n_victim < n_tasks <= n_victim + n_survivor
    assert main(arguments(project, "fit", "single")) == 0
    assert_same_run(project / "single", project / "spread")


@pytest.mark.slow
def test_a_fold_that_ends_every_worker_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATBANK_TEST_DEADLY", "fold 2 of 5")
    with dask_cluster(project, nanny=True, preload=FAULTS) as cluster:
        running = start(project, "fit", "spread", "--cluster", cluster.address)
        message = str(finish(running, status=1)["error"])
    assert "fold 2 of 5 for 16 candidates (ridge on sharp+noise+dull" in message
    assert "ended each worker" in message
    assert not (project / "spread").exists()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["all", "workers"])
def test_a_cluster_that_is_gone_ends_the_fit_in_a_sentence(
    who: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATBANK_TEST_PAUSE", "0.3")
    soon = "import featbank.cluster as backend; backend.DESERTED_S = backend.ASK_S = 1.0"
    with dask_cluster(project, preload=FAULTS) as cluster:
        running = start(project, "fit", "spread", "--cluster", cluster.address, before=soon)
        wait_until_all_work(project, cluster, running)
        for process in cluster.processes if who == "all" else cluster.workers:
            os.kill(process.pid, signal.SIGKILL)
        message = str(finish(running, status=1)["error"])
    assert "was lost before fold" in message
    assert not (project / "spread").exists()


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATBANK_TEST_VERSION", "0.0.1")
    with dask_cluster(project, 1, preload=FAULTS) as cluster:
        message = str(
            finish(start(project, "fit", "spread", "--cluster", cluster.address), status=1)["error"]
        )
    assert "has featbank 0.0.1 instead of" in message


@pytest.mark.slow
def test_fits_of_plain_scikit_learn_go_there_one_by_one(project: Path) -> None:
    with dask_cluster(project) as cluster:
        running = start(
            project, "fit", "spread", "--cluster", cluster.address, "--reference", "--permutations", "0"
        )
        finish(running)
    assert main(arguments(project, "fit", "single", "--reference", "--permutations", "0")) == 0
    assert_same_run(project / "single", project / "spread")
    n_members, n_singles, n_candidates = 4, 3, 4
    used = receipt(project / "spread")["cluster"]
    assert sum(used["tasks_by_host"].values()) == (n_members + n_singles) * n_candidates * N_FOLDS


@pytest.mark.slow
def test_the_search_of_two_workers_is_that_of_one_machine(tmp_path: Path) -> None:
    search_study.prepare_study(tmp_path, ["a", "b", "c", "d"], search=search_study.SEARCH)
    with dask_cluster(tmp_path) as cluster:
        finish(start(tmp_path, "search", "spread", "--outer-folds", "2", "--cluster", cluster.address))
    assert main(arguments(tmp_path, "search", "single", "--outer-folds", "2")) == 0
    assert_same_run(tmp_path / "single", tmp_path / "spread")
    assert sum(receipt(tmp_path / "spread")["cluster"]["tasks_by_host"].values()) > 0


@pytest.mark.parametrize("command", ["fit", "search"])
def test_where_nobody_listens_the_message_says_so(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("featbank.cluster.CONNECT_S", 1.0)
    assert main(arguments(project, command, "spread", "--cluster", "dask://127.0.0.1:9")) == 1
    assert "does not answer" in capsys.readouterr().err
    assert not (project / "spread").exists()


def test_processes_of_this_machine_are_none_of_the_cluster(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(project, "fit", "spread", "--cluster", "dask://a:1", "--workers", "2")) == 1
    assert "--workers 2 means this machine" in capsys.readouterr().err
    assert Bank(project / "bank").verify() == []
