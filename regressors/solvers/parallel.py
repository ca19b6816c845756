"""Threads of this machine, and tasks for others by the active joblib backend.

A caller makes a backend that reaches beyond this machine the active one by `joblib.parallel_config`; which cluster is
behind it, and what happens when a worker of it dies, is the backend's business.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

from joblib import Parallel, effective_n_jobs, parallel_config
from joblib.parallel import (
    LokyBackend,
    MultiprocessingBackend,
    SequentialBackend,
    ThreadingBackend,
    get_active_backend,
)
from threadpoolctl import ThreadpoolController

# Compared as they are: backends of clusters may be built upon one of them.
_LOCAL = (LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend)


def is_remote() -> bool:
    """Say whether the active joblib backend sends its tasks beyond this machine."""
    return type(get_active_backend()[0]) not in _LOCAL


def keep_local() -> AbstractContextManager[object]:
    """Keep joblib's tasks on this machine for the time of a context."""
    return parallel_config(backend="threading", n_jobs=1) if is_remote() else nullcontext()


def local_jobs(n_jobs: int | None) -> int:
    """Return how many threads of this machine joblib's ``n_jobs`` stands for, whatever backend is active."""
    with parallel_config(backend="loky", n_jobs=1) if is_remote() else nullcontext():
        return max(1, effective_n_jobs(n_jobs))


def pieces_per_fold(n_folds: int, n_groups: int) -> int:
    """Return into how many tasks the ``n_groups`` parts of a fold are cut, so that each thread of a cluster has one."""
    return max(1, min(n_groups, -(-effective_n_jobs(-1) // n_folds)))


def run_remote(tasks: Iterable[Any]) -> list[Any]:
    """Run tasks made by `joblib.delayed`, all sent before any is waited for; return their results in their order."""
    # Tasks made later would be made in a thread of the backend, whose errors nobody would see.
    return list(Parallel(n_jobs=-1, batch_size=1, pre_dispatch="all")(tasks))


@cache
def _blas() -> ThreadpoolController:
    # Looking for the libraries takes longer than solving a small system.
    return ThreadpoolController()


def blas_threads(n_threads: int) -> AbstractContextManager[object]:
    """Compute with so many BLAS threads for the time of a context; for one thread of a process at a time."""
    limits: AbstractContextManager[object] = _blas().limit(limits=n_threads, user_api="blas")
    return limits


_lock = threading.Lock()
_users: list[AbstractContextManager[object]] = []


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute with one BLAS thread for the time of a context; several threads of a process may do so at once."""
    # A worker may have several tasks in work. Were each to set the limit and to restore what it found, the first to end
    # would free the threads of the others. So the first sets it, and the last restores.
    with _lock:
        limits = _users[0] if _users else blas_threads(1)
        _users.append(limits)
    try:
        yield
    finally:
        with _lock:
            _users.pop()
            if not _users:
                limits.__exit__(None, None, None)
