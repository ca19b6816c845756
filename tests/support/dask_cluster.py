"""A Dask cluster of plain processes on this machine; each worker can be killed by its id."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
START_S = 60.0


@dataclass
class DaskCluster:
    """A scheduler and its workers, one thread each, not replaced when they die unless a nanny is asked for."""

    folder: Path
    preload: Path | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": str(PROJECT),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
        }
        with (self.folder / "cluster.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def start_scheduler(self) -> None:
        found = self.folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(found))
        deadline = time.monotonic() + START_S
        while not found.exists() or not found.read_text().endswith("}"):
            assert time.monotonic() < deadline, (self.folder / "cluster.log").read_text()
            time.sleep(0.05)
        self.address = json.loads(found.read_text())["address"].replace("tcp:", "dask:")

    def start_worker(self, *, nanny: bool = False) -> subprocess.Popen[bytes]:
        address = self.address.removeprefix("dask://")
        options = ["--nthreads", "1", "--host", "127.0.0.1", "--nanny" if nanny else "--no-nanny"]
        options += ["--preload", str(self.preload)] if self.preload else []
        self.workers.append(self._start("worker", address, *options))
        return self.workers[-1]


@contextlib.contextmanager
def dask_cluster(
    folder: Path, n_workers: int = 2, *, nanny: bool = False, preload: Path | None = None
) -> Iterator[DaskCluster]:
    """Run a cluster for as long as the context; workers run ``preload`` first."""
    cluster = DaskCluster(folder, preload)
    try:
        cluster.start_scheduler()
        for _ in range(n_workers):
            cluster.start_worker(nanny=nanny)
        yield cluster
    finally:
        for process in reversed(cluster.processes):
            process.terminate()
        for process in cluster.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
