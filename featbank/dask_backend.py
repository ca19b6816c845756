"""joblib's tasks on a Dask cluster, with an answer for every task.

joblib's own Dask backend never answers for a task that killed its workers too often, and its caller waits for ever; and
what it scatters is gone with the workers that hold it. Here large arguments are results of tasks of their own, which
the scheduler has done again when they are lost, and what cannot be done ends in an error that names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from joblib import parallel_config
from joblib.parallel import ParallelBackendBase
from threadpoolctl import threadpool_info

from featbank.cluster import ASK_S, BROKEN, DESERTED_S, count_threads, killed_workers
from featbank.errors import ClusterError, FeatbankError

LARGE_BYTES = 1_000_000
"""Size from which an argument that tasks share is sent once, and not with each of them."""

_GONE = "its scheduler or its last worker is gone. Start the cluster and run the same command again."


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
    items: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]
    data: list[Any]
    callback: Callable[[Any], None]
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
    check : callable
        Called on the worker before each task, without arguments; raises where the worker must not compute.

    Attributes
    ----------
    hosts, processors : Counter of str
        How many tasks each machine, and each kind of processor, has computed.
    """

    supports_retrieve_callback = True
    default_n_jobs = 1

    client: Any
    address: str
    check: Callable[[], None]
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
        return 1 if n_jobs in (None, 1) else max(2, count_threads(self.client))

    def submit(self, func: Any, callback: Callable[[Any], None]) -> object:  # noqa: ANN401 - joblib's batch of calls
        """Send a batch of calls to the cluster; ``callback`` is called once it has ended, however."""
        task = _Task(_name_of(func.items[0]), [], [], callback)
        for call, args, kwargs in func.items:
            places = tuple(self._place(task, value) for value in args)
            task.items.append((call, places, {name: self._place(task, v) for name, v in kwargs.items()}))
        self._start(task)
        return task

    def retrieve_result_callback(self, out: _Task) -> Any:  # noqa: ANN401 - what the calls return
        """Return the results of a finished batch, or raise its error."""
        if out.error is not None:
            raise out.error
        future = out.future
        if future.status == "error":
            raise self._describe(out, future.exception())
        if future.status != "finished":
            raise self._lost(out)
        try:
            answer: _Answer = future.result()
        except (Exception, asyncio.CancelledError) as error:
            if self.client.status != "running" or isinstance(error, BROKEN):
                raise self._lost(out) from error
            raise self._describe(out, error) from error
        if isinstance(answer.error, MemoryError):
            raise ClusterError(
                f"cluster: the worker on {answer.host} has too little memory for {out.name}. Give the workers of "
                f"{self.address} more, or fewer threads each."
            ) from answer.error
        if answer.error is not None:
            raise answer.error
        self.hosts[answer.host] += 1
        self.processors[answer.processor] += 1
        return answer.value

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Give up what is running; joblib calls this after an error or an interruption."""
        with self._lock:
            futures = [task.future for task in self._running.values()]
            self._running.clear()
            self._suspects.clear()
        # The cluster may be what was lost.
        with contextlib.suppress(Exception, asyncio.CancelledError):
            self.client.cancel(futures, force=True)

    def _place(self, task: _Task, value: Any) -> Any:  # noqa: ANN401
        """Put a large argument on the cluster, once for all tasks that share it."""
        if _size(value) < LARGE_BYTES:
            return value
        with self._lock:
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
        with self._lock:
            task.future = self.client.submit(run_task, self.check, task.items, *task.data, pure=False)
            self._running[task.future.key] = task
        task.future.add_done_callback(self._finish)

    def _finish(self, future: Any) -> None:  # noqa: ANN401
        """Tell joblib, unless the task must be tried alone first; runs in a thread of Dask's."""
        with self._lock:
            task = self._running.pop(future.key, None)
            if task is None:  # given up
                return
            is_suspect = not task.is_alone and killed_workers(future)
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
            deserted = 0.0 if not self._running or self._has_workers() else deserted + ASK_S
            if deserted >= DESERTED_S:
                with self._lock:
                    tasks = [*self._running.values(), *self._suspects]
                    self._running.clear()
                    self._suspects.clear()
                for task in tasks:
                    task.error = self._lost(task)
                    task.callback(task)

    def _has_workers(self) -> bool:
        with contextlib.suppress(Exception, asyncio.CancelledError):
            return count_threads(self.client) > 0
        return False

    def _lost(self, task: _Task) -> ClusterError:
        return ClusterError(f"cluster: {self.address} was lost before {task.name} was computed: {_GONE}")

    def _describe(self, task: _Task, error: BaseException) -> BaseException:
        """Turn an error that is not the task's own into a sentence."""
        if isinstance(error, FeatbankError | KeyboardInterrupt):
            return error
        if killed_workers(task.future):
            return ClusterError(
                f"cluster: {task.name} ended each worker of {self.address} that took it, also when nothing else ran "
                "there, most likely for lack of memory. Give the workers more, or fit without --cluster."
            )
        reason = str(error).partition("\n")[0]
        return ClusterError(
            f"cluster: a worker of {self.address} could not compute {task.name} ({type(error).__name__}: {reason}). "
            "Workers need the same featbank, with the same libraries, as this machine."
        )


def run_task(check: Callable[[], None], items: Sequence[Any], *data: Any) -> _Answer:  # noqa: ANN401
    """Make a batch of calls on a worker.

    Parameters
    ----------
    check : callable
        Raises where this worker must not compute.
    items : sequence of (callable, tuple, dict)
        Calls with places for data.
    *data : object
        What belongs there.

    Returns
    -------
    _Answer
        With an error that a call raised, so that any other is known to be the cluster's.
    """
    check()

    def fill(value: Any) -> Any:  # noqa: ANN401
        return data[value.index] if isinstance(value, _Place) else value

    host = socket.gethostname()
    try:
        with parallel_config(backend="threading", n_jobs=1):
            value = [
                call(*map(fill, args), **{name: fill(v) for name, v in kwargs.items()})
                for call, args, kwargs in items
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


@lru_cache(maxsize=1)
def processor_kind() -> str:
    """Name the processor kind that this process's BLAS was written for; other kinds give other last digits."""
    kinds = {
        str(library.get("architecture", "unknown"))
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    return "+".join(sorted(kinds)) or "unknown"


def _keep(value: Any) -> Any:  # noqa: ANN401
    return value


def _size(value: object) -> int:
    """Return the bytes of an array, a data frame, or anything else that states them."""
    usage = getattr(value, "memory_usage", None)
    if usage is not None and not hasattr(value, "nbytes"):
        return int(usage(deep=False).sum())
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _name_of(item: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> str:
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
