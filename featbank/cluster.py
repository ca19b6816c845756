"""joblib's tasks on a Dask cluster: the one road to other machines, with an answer for every task.

joblib's own Dask backend never answers for a task that killed its workers too often, and its caller waits for ever; and
what it scatters is gone with the workers that hold it. Here large arguments are results of tasks of their own, which
the scheduler has done again when they are lost, and what cannot be done ends in an error that names it, or in what
``give_up`` makes of it. Other engines are reached by joblib's own `joblib.parallel_config`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import pickle
import socket
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblib import parallel_config
from joblib.parallel import ParallelBackendBase
from threadpoolctl import threadpool_info

from featbank import __version__
from featbank.errors import ClusterError, FeatbankError

CONNECT_S, WORKERS_S = 10.0, 30.0
"""How long to wait for the scheduler, and for its first worker, in seconds."""

ASK_S, DESERTED_S = 5.0, 120.0
"""How often the cluster is asked for its workers, and how long it may be without any, in seconds."""

LARGE_BYTES = 1_000_000
"""Size from which an argument that tasks share is sent once, and not with each of them."""

LIBRARIES = ("numpy", "scipy", "scikit-learn")
"""Beside featbank: what the numbers of a fold depend on."""

BROKEN = (OSError, asyncio.CancelledError, concurrent.futures.CancelledError)
"""How a connection that closed may show itself."""

Stamp = tuple[tuple[str, str], ...]
"""Names with versions or digests."""

_Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A function with its arguments."""


@dataclass(frozen=True)
class ClusterUse:
    """A cluster that computes for this process."""

    address: str  # as the user wrote it
    # hosts, processors: How many tasks each machine, and each kind of processor, has computed so far
    hosts: Counter[str]
    processors: Counter[str]

    def describe(self) -> dict[str, Any]:
        """Return what a receipt says of it: where how many tasks were computed."""
        kinds = sorted(set(self.processors) - {processor_kind()})
        found: dict[str, Any] = {"address": self.address, "tasks_by_host": dict(sorted(self.hosts.items()))}
        if kinds:
            found["note"] = (
                f"Computed on processors of another kind ({', '.join(kinds)}) than this machine's ({processor_kind()}) "
                "as well: the last digits may differ from those of one machine."
            )
        return found


def check_cluster(address: str) -> str:
    """Return a scheduler's address, such as ``dask://10.0.0.5:8786``, in Dask's own spelling.

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


@contextmanager
def on_cluster(
    address: str | None,
    packages: Sequence[str] | None = (),
    give_up: Callable[..., Any] | None = None,
) -> Iterator[ClusterUse | None]:
    """Let the workers of a Dask cluster do joblib's tasks for the time of a context.

    Parameters
    ----------
    address : str or None
        As for `check_cluster`; None leaves all as it is.
    packages : sequence of str or None
        Packages whose source must be the same on the workers, as must be the versions of the libraries that compute;
        None compares nothing.
    give_up : callable, optional
        Takes the arguments of a call that ended each worker that took it, and returns what stands for its result; by
        default that is an error.

    Yields
    ------
    ClusterUse or None

    Raises
    ------
    ClusterError
        If the address is misspelt, Dask is not installed, no scheduler or no worker answers there, or a worker has
        other versions. Inside the context, if the cluster is lost, or a task ends each worker that takes it.
    """
    if address is None:
        yield None
        return
    check = None if packages is None else partial(check_worker, make_stamp(tuple(packages)), tuple(packages))
    with _connect(address) as client:
        backend = DaskBackend(client, address, check, give_up)
        try:
            with parallel_config(backend=backend):
                yield ClusterUse(address, backend.hosts, backend.processors)
        finally:
            backend.close()


@contextmanager
def _connect(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler that has workers, for the time of a context; yields the client."""
    spelled = check_cluster(address)
    try:
        dask, distributed = import_module("dask"), import_module("distributed")
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"cluster: {address} needs the package 'distributed', which is not installed. Install it with "
            "pip install 'featbank[cluster]'."
        ) from error
    # Its logs repeat with tracebacks what our own messages say in a sentence; each has a level of its own.
    names = ["asyncio", *(name for name in logging.root.manager.loggerDict if name.startswith("distributed"))]
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
                f"does not answer after {CONNECT_S:g} s"
                if client is None
                else f"has no worker after {WORKERS_S:g} s"
            )
            raise ClusterError(
                f"cluster: {address} {problem}. Is the address the scheduler's, and are workers connected to it "
                "(`dask worker HOST:PORT`)?"
            ) from error
        # A table is sent as it is, once.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            yield client
    except ClusterError:
        # It tells of what was lost once more when the process ends and collects its tasks.
        del levels["asyncio"]
        raise
    finally:
        if client is not None:
            client.close(timeout=5)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class _Place:
    """Where in a task's data an argument lies."""

    index: int


@dataclass(frozen=True)
class _Answer:
    """What a worker gives back: a value or the error of the task itself, and where it was computed."""

    host: str
    processor: str
    value: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class _Task:
    """Calls with places for their data, and whom to tell when they are done."""

    name: str
    callback: Callable[[Any], None]
    calls: Sequence[_Call] = ()
    data: list[Any] = field(default_factory=list)
    is_alone: bool = False
    future: Any = None
    error: ClusterError | None = None


@dataclass(eq=False)
class DaskBackend(ParallelBackendBase):
    """A joblib backend of one Dask cluster, for `joblib.parallel_config`.

    ``n_jobs=1`` stays in the calling process, as everywhere in joblib; any other number means the cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected, and kept open by the caller.
    address : str
        As the user wrote it, for messages.
    check : callable or None
        Called on the worker before each task, without arguments; raises where the worker must not compute.
    give_up : callable or None
        As for `on_cluster`.

    Attributes
    ----------
    hosts, processors : Counter of str
        How many tasks each machine, and each kind of processor, has computed.
    """

    supports_retrieve_callback = True  # and with it generators
    default_n_jobs = 1

    client: Any
    address: str
    check: Callable[[], None] | None = None
    give_up: Callable[..., Any] | None = None
    hosts: Counter[str] = field(default_factory=Counter)
    processors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()
        self._running: dict[str, _Task] = {}
        self._suspects: deque[_Task] = deque()
        self._sent: dict[int, tuple[weakref.ref[Any], weakref.ref[Any]]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="featbank-cluster-watch", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End the thread that watches the cluster."""
        self._closed.set()
        self._watcher.join(timeout=ASK_S)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return 1 for 1, else the number of the cluster's threads, at least 2: one job joblib would do here."""
        return 1 if n_jobs in (None, 1) else max(2, self._count_threads())

    def submit(self, func: Any, callback: Callable[[Any], None]) -> object:  # noqa: ANN401 - joblib's batch of calls
        """Send a batch of calls to the cluster; ``callback`` is called once it has ended, however."""
        task = _Task(_name_of(func.items[0]), callback, func.items)
        self._start(task)
        return task

    def retrieve_result_callback(self, out: _Task) -> Any:  # noqa: ANN401 - what the calls return
        """Return the results of a finished batch, or raise its error."""
        if out.error is not None:
            raise out.error
        if _killed_workers(out.future):
            if self.give_up is not None:
                return [self.give_up(*args, **kwargs) for _, args, kwargs in out.calls]
            raise ClusterError(
                f"cluster: {out.name} ended each worker of {self.address} that took it, also when nothing else ran "
                "there, most likely for lack of memory. Give the workers more, or fit without --cluster."
            )
        if out.future.status not in {"finished", "error"}:  # there is no scheduler any more
            raise self._lost(out)
        try:
            answer = self._receive(out.future)
        except (FeatbankError, KeyboardInterrupt):
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self.client.status != "running" or isinstance(error, BROKEN):
                raise self._lost(out) from error
            raise self._misfit(out, error) from error
        if isinstance(answer.error, MemoryError):
            raise ClusterError(
                f"cluster: the worker on {answer.host} has too little memory for {out.name}. Give the workers of "
                f"{self.address} more, or fewer threads each."
            ) from answer.error
        if isinstance(answer.error, ImportError):
            raise self._misfit(out, answer.error) from answer.error
        if answer.error is not None:
            raise answer.error
        self.hosts[answer.host] += 1
        self.processors[answer.processor] += 1
        return answer.value

    def _receive(self, future: Any) -> _Answer:  # noqa: ANN401
        """Return the answer of a finished task; if it went with its worker it is computed again, were there another."""
        pause, deserted = ASK_S, 0.0
        while True:
            try:
                return future.result(timeout=pause)
            except TimeoutError:
                deserted = 0.0 if self._count_threads() else deserted + pause
                if deserted >= DESERTED_S:
                    raise
                pause *= 2  # it may be large, and the way slow

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Give up what is running; joblib calls this after an error or an interruption."""
        futures = [task.future for task in self._forget()]
        # The cluster may be what was lost.
        with suppress(Exception, asyncio.CancelledError):
            self.client.cancel([future for future in futures if future is not None], force=True)

    def _forget(self) -> list[_Task]:
        """Take all tasks off the books."""
        with self._lock:
            tasks = [*self._running.values(), *self._suspects]
            self._running.clear()
            self._suspects.clear()
        return tasks

    def _place(self, task: _Task, value: Any) -> Any:  # noqa: ANN401
        """Put a large argument on the cluster, once for all tasks that share it."""
        if _size(value) < LARGE_BYTES:
            return value
        known, future = self._sent.get(id(value), (None, None))
        sent = future() if known is not None and future is not None and known() is value else None
        if sent is None:
            # As the result of a task the scheduler can make it again; what was scattered dies with its workers.
            sent = self.client.submit(_keep, value, pure=False)
            self._sent = {key: pair for key, pair in self._sent.items() if pair[0]() is not None}
            self._sent[id(value)] = weakref.ref(value), weakref.ref(sent)
        if sent not in task.data:
            task.data.append(sent)
        return _Place(task.data.index(sent))

    def _start(self, task: _Task) -> None:
        """Submit a task; one that cannot be submitted ends like any other, as joblib would wait for it for ever."""
        try:
            with self._lock:
                # A task that is sent again has its places already, which are small.
                task.calls = [
                    (
                        call,
                        tuple(self._place(task, value) for value in args),
                        {name: self._place(task, value) for name, value in kwargs.items()},
                    )
                    for call, args, kwargs in task.calls
                ]
                task.future = self.client.submit(run_task, self.check, task.calls, *task.data, pure=False)
                self._running[task.future.key] = task
            task.future.add_done_callback(self._finish)
        except Exception as error:  # noqa: BLE001 - told in words
            is_lost = self.client.status != "running" or isinstance(error, BROKEN)
            task.error = self._lost(task) if is_lost else self._misfit(task, error)
            threading.Thread(target=task.callback, args=(task,), daemon=True).start()

    def _finish(self, future: Any) -> None:  # noqa: ANN401
        """Tell joblib, unless the task must be tried alone first; runs in a thread of Dask's."""
        with self._lock:
            task = self._running.pop(future.key, None)
            if task is None:  # given up
                return
            is_suspect = not task.is_alone and _killed_workers(future)
            if is_suspect:
                self._suspects.append(task)  # or was only on the same worker as another that did
        if not is_suspect:
            task.callback(task)  # which may send further tasks
        with self._lock:
            if self._running or not self._suspects:
                return
            suspect = self._suspects.popleft()
            suspect.is_alone = True
        self._start(suspect)

    def _watch(self) -> None:
        """Answer for every task when there has been nobody to do them for a while."""
        deserted = 0.0
        while not self._closed.wait(ASK_S):
            deserted = 0.0 if not self._running or self._count_threads() else deserted + ASK_S
            if deserted >= DESERTED_S:
                for task in self._forget():
                    task.error = self._lost(task)
                    task.callback(task)

    def _count_threads(self) -> int:
        """Return the number of threads of all workers, 0 where there is no connection."""
        with suppress(Exception, asyncio.CancelledError):
            return sum(self.client.ncores().values()) if self.client.status == "running" else 0
        return 0

    def _lost(self, task: _Task) -> ClusterError:
        return ClusterError(
            f"cluster: {self.address} was lost before {task.name} was computed: its scheduler or its last worker is "
            "gone. Start the cluster and run the same command again."
        )

    def _misfit(self, task: _Task, error: BaseException) -> ClusterError:
        reason = str(error).partition("\n")[0]
        return ClusterError(
            f"cluster: a worker of {self.address} could not compute {task.name} ({type(error).__name__}: {reason}). "
            "Workers need the same featbank, with the same libraries, as this machine."
        )


def _killed_workers(future: Any) -> bool:  # noqa: ANN401 - of an optional package
    """Say whether a future was given up because the workers that took it died, too often."""
    return future.status == "error" and type(future.exception()).__name__ == "KilledWorker"


def run_task(check: Callable[[], None] | None, calls: Sequence[_Call], *data: Any) -> _Answer:  # noqa: ANN401
    """Make a batch of calls on a worker, with their data in its places.

    An error that a call raised comes back in the answer, so that any other is known to be the cluster's.
    """
    if check is not None:
        check()

    def fill(value: Any) -> Any:  # noqa: ANN401
        return data[value.index] if isinstance(value, _Place) else value

    host = socket.gethostname()
    try:
        with parallel_config(backend="threading", n_jobs=1):
            value = [
                call(*map(fill, args), **{name: fill(v) for name, v in kwargs.items()})
                for call, args, kwargs in calls
            ]
    except Exception as error:  # noqa: BLE001 - raised again where the task came from
        return _Answer(host, processor_kind(), error=_portable(error))
    return _Answer(host, processor_kind(), value=value)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: without its frames, and without what cannot be pickled."""
    bare = error.with_traceback(None)
    bare.__cause__ = bare.__context__ = None
    try:
        pickle.loads(pickle.dumps(bare))  # noqa: S301 - of this process's own making
    except Exception:  # noqa: BLE001 - an error of some library may refuse in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return bare


def _keep(value: Any) -> Any:  # noqa: ANN401
    return value


def _size(value: object) -> int:
    """Return the bytes of an array, a data frame, or anything else that states them."""
    usage = getattr(value, "memory_usage", None)
    if usage is not None and not hasattr(value, "nbytes"):
        return int(usage(deep=False).sum())
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _name_of(item: _Call) -> str:
    """Name a call: by the name that it was given, or by what scikit-learn's search says of its fits."""
    call, _, kwargs = item
    if "task_name" in kwargs:
        return str(kwargs["task_name"])
    if kwargs.get("split_progress") and kwargs.get("candidate_progress"):
        (fold, n_folds), (candidate, n_candidates) = kwargs["split_progress"], kwargs["candidate_progress"]
        text = ", ".join(
            f"{name.rpartition('__')[2]}={value}" for name, value in kwargs["parameters"].items()
        )
        return f"fold {fold + 1} of {n_folds}, candidate {candidate + 1} of {n_candidates} ({text})"
    return str(getattr(call, "__name__", "a task"))


@lru_cache(maxsize=1)
def processor_kind() -> str:
    """Name the processor kind that this process's BLAS was written for; other kinds give other last digits."""
    kinds = {
        str(library.get("architecture", "unknown"))
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    return "+".join(sorted(kinds)) or "unknown"


@lru_cache(maxsize=8)
def make_stamp(packages: tuple[str, ...]) -> Stamp:
    """List what decides the numbers that this process would compute: versions, and digests of packages' source."""
    versions = [("featbank", __version__)]
    for name in LIBRARIES:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            versions.append((name, "none"))
    return (*versions, *((f"the code of {name}", _digest_source(name)) for name in packages))


def check_worker(expected: Stamp, packages: tuple[str, ...]) -> None:
    """Refuse, by a ClusterError that says what and where, to compute with other versions than the caller's."""
    found = dict(make_stamp(packages))
    other = [
        f"{name} {found.get(name)} instead of {want}" for name, want in expected if found.get(name) != want
    ]
    if other:
        raise ClusterError(
            f"cluster: the worker on {socket.gethostname()} has {', '.join(other)}, so that its numbers could differ. "
            "Install the same versions on all machines and start the workers again."
        )


def _digest_source(package: str) -> str:
    spec = util.find_spec(package)
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
