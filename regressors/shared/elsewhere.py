"""Tasks for another machine: what a joblib backend that reaches beyond this one is given to do.

A caller makes such a backend the active one by `joblib.parallel_config`; which cluster is behind it, and what happens
when a worker of it dies, is the backend's business. Where none is active nothing here changes anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from joblib import Parallel, effective_n_jobs, parallel_config
from joblib.parallel import (
    LokyBackend,
    MultiprocessingBackend,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
)
from threadpoolctl import threadpool_limits

# Compared as they are: backends of clusters may be built upon one of them.
_LOCAL = (LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend)


def is_elsewhere() -> bool:
    """Say whether the active joblib backend sends its tasks beyond this machine.

    Returns
    -------
    bool

    Examples
    --------
    >>> from regressors.shared.elsewhere import is_elsewhere
    >>> is_elsewhere()
    False
    """
    return type(get_active_backend()[0]) not in _LOCAL


def here() -> AbstractContextManager[object]:
    """Keep joblib's tasks on this machine for the time of a context; without effect where they are here anyway."""
    return parallel_config(backend="threading", n_jobs=1) if is_elsewhere() else nullcontext()


def local_jobs(n_jobs: int | None) -> int:
    """Return how many threads of this machine a number of jobs stands for, whatever backend is active.

    Parameters
    ----------
    n_jobs : int or None
        As in joblib.

    Returns
    -------
    int
        At least 1.
    """
    with parallel_config(backend="loky", n_jobs=1) if is_elsewhere() else nullcontext():
        return max(1, effective_n_jobs(n_jobs))


def pieces_per_fold(n_folds: int, n_groups: int) -> int:
    """Return into how many tasks the work of a fold is cut, so that the cluster has a task for each thread.

    Parameters
    ----------
    n_folds : int
        Number of folds.
    n_groups : int
        Parts of a fold that can be computed apart from each other.

    Returns
    -------
    int
        From 1 to ``n_groups``.
    """
    return max(1, min(n_groups, -(-effective_n_jobs(-1) // n_folds)))


def run_elsewhere(tasks: Iterable[Any]) -> list[Any]:
    """Run tasks by the active backend.

    Parameters
    ----------
    tasks : iterable
        From `joblib.delayed`; taken one by one, as the cluster has room for them.

    Returns
    -------
    list
        Their results, in their order.
    """
    return list(Parallel(n_jobs=-1, batch_size=1)(tasks))


class _BlasThreads:
    """Holds BLAS at one thread while anyone in this process asks for it.

    A worker may have several tasks in work. Were each to set the limit and to restore what it found, the first to
    end would free the threads of the others, and the last would leave the limit of the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._limits: threadpool_limits | None = None

    def take(self) -> None:
        with self._lock:
            if self._n_users == 0:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._n_users += 1

    def give_back(self) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0 and self._limits is not None:
                self._limits.restore_original_limits()


_BLAS_THREADS = _BlasThreads()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute with one BLAS thread for the time of a context; several threads of a process may do so at once."""
    _BLAS_THREADS.take()
    try:
        yield
    finally:
        _BLAS_THREADS.give_back()
