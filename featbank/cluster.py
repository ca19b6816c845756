"""Runs jobs on a Dask cluster: workers may come, go and die, each job gives one outcome all the same.

joblib's own Dask backend is left aside for one reason: it never answers for a job that killed its workers too
often, and the whole run would wait for ever. Here such a photo is recorded and the others go on. Only names, paths
and vectors travel; workers read the photos themselves, so paths must mean the same file everywhere.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from featbank.bank import ImageRecord
from featbank.errors import ClusterError, FeatbankError
from featbank.jobs import DECODE_EPOCH, Job, Outcome, compute_in_worker

CONNECT_S = 10.0
"""How long to wait for the scheduler, in seconds."""

WORKERS_S = 30.0
"""How long to wait for its first worker, in seconds."""

ASK_S = 5.0
"""How often the cluster is asked for the number of its threads, in seconds."""

BROKEN = (OSError, asyncio.CancelledError, concurrent.futures.CancelledError)
"""How a connection that closed may show itself."""

DESERTED_S = 120.0
"""How long a cluster may be without any worker before the run ends, in seconds."""

JOBS_PER_THREAD = 2
"""Jobs sent ahead for each thread of the cluster: enough to keep it busy, little to lose with a worker."""


def check_cluster(address: str) -> str:
    """Return the scheduler's address in Dask's own spelling.

    Parameters
    ----------
    address : str
        Such as ``dask://10.0.0.5:8786``.

    Raises
    ------
    ClusterError
        If it is spelt otherwise.
    """
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "dask" or not parts.hostname or port is None or parts.path.strip("/"):
        raise ClusterError(
            f"--cluster must be spelt dask://HOST:PORT, the address of a Dask scheduler, got {address!r}. Start one "
            "with `dask scheduler` and its workers with `dask worker HOST:PORT`."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"tcp://{host}:{port}"


def run_on_cluster(jobs: Sequence[Job], address: str) -> Iterator[Outcome]:
    """Compute jobs on a cluster and yield their outcomes as they come, in any order.

    Parameters
    ----------
    jobs : sequence of Job
    address : str
        As for `check_cluster`.

    Raises
    ------
    ClusterError
        If Dask is not installed, there is no such scheduler, no worker comes, or the connection is lost.
    EncoderSetupError
        If a worker cannot run an encoder, or would compute other numbers than belong under the key.
    """
    with _connected(address) as client:
        suspects = []
        for future, job in _finish(client, jobs, address):
            if killed_workers(future):
                suspects.append(job)  # or was only on the same worker as another that did
            else:
                yield _outcome(future, job, address)
        for future, job in _finish(client, suspects, address, alone=True):
            yield _killer(job) if killed_workers(future) else _outcome(future, job, address)


def _finish(
    client: Any,  # noqa: ANN401 - of an optional package
    jobs: Sequence[Job],
    address: str,
    *,
    alone: bool = False,
) -> Iterator[tuple[Any, Job]]:
    """Submit jobs, a few for each thread or one at a time, and yield their futures as they finish."""
    waiting = iter(jobs)
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    running: dict[str, tuple[Any, Job]] = {}
    room, counted = 1, -ASK_S
    while True:
        if not alone and time.monotonic() - counted > ASK_S:
            # Workers come and go; asking at every photo would cost as much as a small photo.
            room, counted = JOBS_PER_THREAD * max(1, count_threads(client)), time.monotonic()
        while len(running) < room and (job := next(waiting, None)) is not None:
            future = client.submit(compute_in_worker, job, pure=False)
            running[future.key] = future, job
            future.add_done_callback(finished.put)
        if not running:
            return
        yield running.pop(_next_finished(finished, client, address).key)


def killed_workers(future: Any) -> bool:  # noqa: ANN401
    """Say whether a finished future was given up because the workers that took it died, too often."""
    return future.status == "error" and type(future.exception()).__name__ == "KilledWorker"


def count_threads(client: Any) -> int:  # noqa: ANN401 - of an optional package
    """Return the number of threads of all workers, 0 where there is no connection."""
    return sum(client.ncores().values()) if client.status == "running" else 0


def _next_finished(finished: queue.SimpleQueue[Any], client: Any, address: str) -> Any:  # noqa: ANN401
    """Wait for a job; give up when there has been nobody to do it for a while."""
    deserted = 0.0
    while True:
        try:
            return finished.get(timeout=ASK_S)
        except queue.Empty:
            deserted = 0.0 if count_threads(client) else deserted + ASK_S
            if deserted >= DESERTED_S:
                raise _lost(address) from None


def _lost(address: str) -> ClusterError:
    return ClusterError(
        f"cluster: {address} was lost: its scheduler or its last worker is gone. What was finished is in the bank; "
        "start the cluster and run the same command again."
    )


def _outcome(future: Any, job: Job, address: str) -> Outcome:  # noqa: ANN401 - of an optional package
    """Turn a finished future into the outcome of its job."""
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    if future.status != "error":  # cancelled or lost: there is no scheduler any more
        raise _lost(address)
    error = future.exception()
    if isinstance(error, FeatbankError | KeyboardInterrupt):
        raise error
    raise ClusterError(
        f"cluster: a worker of {address} could not do its work ({type(error).__name__}: {error}). Workers need the "
        "same featbank, with the same optional packages, as this machine."
    ) from error


def _killer(job: Job) -> Outcome:
    """Record a photo under which workers died also when nothing else ran."""
    message = (
        f"read_photo: {job.path} ended the worker that read it, each time, most likely for lack of memory; give the "
        "workers more, or scale the photo down"
    )
    record = ImageRecord(key=job.key, status="failed", reason="memory", message=message, epoch=DECODE_EPOCH)
    return Outcome(job, record=record)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler that has workers, for the time of a context.

    Parameters
    ----------
    address : str
        As for `check_cluster`.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterError
        If Dask is not installed, there is no such scheduler, or no worker comes.
    """
    spelled = check_cluster(address)
    try:
        dask, distributed = import_module("dask"), import_module("distributed")
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"cluster: {address} needs the package 'distributed', which is not installed. Install it with "
            "pip install 'featbank[cluster]'."
        ) from error
    # Its logs repeat with tracebacks what our own messages say in a sentence; each has a level of its own.
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client = None
    try:
        try:
            client = distributed.Client(spelled, timeout=CONNECT_S, set_as_default=False)
            client.wait_for_workers(1, timeout=WORKERS_S)
        except OSError as error:  # TimeoutError is one
            problem = (
                f"has no worker after {WORKERS_S:g} s"
                if client is not None
                else f"does not answer after {CONNECT_S:g} s"
            )
            raise ClusterError(
                f"cluster: {address} {problem}. Is the address the scheduler's, and are workers connected to it "
                "(`dask worker HOST:PORT`)?"
            ) from error
        # A table is sent as it is, once.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            yield client
    finally:
        if client is not None:
            client.close(timeout=5)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    with connect(address) as client:
        try:
            yield client
        except FeatbankError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            # However a closed connection shows itself: as a broken stream, a cancelled task, a refused message.
            if isinstance(error, BROKEN) or client.status != "running":
                raise _lost(address) from error
            raise
