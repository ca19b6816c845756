"""Threads, tasks for other machines, and memory: what a computation may use. Sizes are in units of 1e9 bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
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


_NUMBER = 8
_COPIES = 6
"""Tables in float64 that a fit in memory holds at its peak: the frame, training rows, centred ones, parts of these."""

_ROW_BYTES = 1700
"""Names, MOS, folds and predictions of one image, in the run and in its report."""

_PROGRAM_GB = 0.4
"""The program itself with its libraries."""

_SHARE = 0.8

# Containers have less than the machine says; what they use counts cached files, so their limit alone is asked.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_limit_gb() -> float:
    """Return four fifths of the memory that is free here; infinity where that is not known."""
    free = [float("inf")]
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024.0 * int(line.split()[1]))
    except (OSError, ValueError):
        pass
    for limit in _LIMITS:
        try:
            free.append(float(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or the word "max"
            continue
    return _SHARE * min(free) / 1e9


def in_memory_gb(n_rows: int, n_columns: int) -> float:
    """Return what a fit takes of a table in memory with ``n_rows`` rows and ``n_columns`` columns."""
    return _PROGRAM_GB + (_ROW_BYTES + _NUMBER * _COPIES * n_columns) * n_rows / 1e9


def kernel_gb(n_rows: int) -> float:
    """Return what one kernel of ``n_rows`` training rows and its reduction take."""
    return _NUMBER * 2 * float(n_rows) ** 2 / 1e9


def out_of_core_gb(n_rows: int, n_columns: int, n_folds: int, n_candidates: int, n_workers: int) -> float:
    """Return what an out-of-core fit takes besides the mapped files, ``n_workers`` systems being solved at once."""
    # Products of the columns in each part and each fold, their joint ones, and those being solved.
    squares = (2 * n_folds + 2 + 4 * n_workers) * float(n_columns) ** 2
    coefficients = 2.0 * n_folds * n_columns * n_candidates
    return _PROGRAM_GB + (_NUMBER * (squares + coefficients) + _ROW_BYTES * n_rows) / 1e9


def choose_out_of_core(
    n_rows: int,
    n_training: int,
    n_columns: int,
    *,
    estimators: Sequence[str],
    needs_memory: str = "",
    n_folds: int = 5,
    n_candidates: int = 1,
    n_workers: int = 1,
    limit_gb: float | None = None,
) -> bool:
    """Choose between a table in memory and one that is read out of core; both give the same numbers.

    Parameters
    ----------
    n_rows, n_training, n_columns : int
        Of the table, and those of the rows that are fitted.
    estimators : sequence of str
        Kinds of estimator that are fitted.
    needs_memory : str
        What else can only be done in memory, for the message; empty if nothing.
    n_folds, n_candidates, n_workers : int
        As of `out_of_core_gb`.
    limit_gb : float or None
        Gigabytes that the fit may take; None is four fifths of the memory that is free.

    Raises
    ------
    ValueError
        If kernels, or the table, do not fit into the limit.
    """
    limit = default_limit_gb() if limit_gb is None else limit_gb
    kernels = [name for name in estimators if name.endswith("svr")]
    if kernels and kernel_gb(n_training) > limit:
        raise ValueError(
            f"{kernels[0]} on {n_training:,} training images needs kernels of {kernel_gb(n_training):,.3g} GB each, "
            f'the limit is {limit:.3g} GB. Use estimator = "ridge", or fewer images'
            + (", or a higher --memory-limit." if limit_gb is not None else ".")
        )
    needed = in_memory_gb(n_rows, n_columns)
    if needed <= limit:
        return False
    hindrance = (
        f"{(kernels[0] if kernels else needs_memory)} takes no other way" if kernels or needs_memory else ""
    )
    if not hindrance and n_training < 2 * n_columns:
        hindrance = f"reading it by blocks takes more images than {2 * n_columns:,}, twice its columns"
    if hindrance:
        if limit_gb is None:
            return False  # what is free may grow, and the system decides
        raise ValueError(
            f"{n_rows:,} images x {n_columns:,} columns in memory take {needed:.3g} GB, the limit is {limit:.3g} GB, "
            f"and {hindrance}. Raise --memory-limit, or leave it out."
        )
    least = out_of_core_gb(n_rows, n_columns, n_folds, n_candidates, n_workers)
    if least > limit and limit_gb is not None:
        raise ValueError(
            f"{n_rows:,} images x {n_columns:,} columns read by blocks take {least:.3g} GB besides the bank's files, "
            f"the limit is {limit:.3g} GB. Raise --memory-limit, or use fewer bands."
        )
    return True


def refuse_out_of_core(estimator: str, n_rows: int, *, reference: bool) -> None:
    """Refuse what cannot be fitted out of core, before anything is read: kernels, and plain scikit-learn."""
    if not estimator.endswith("ridge"):
        raise ValueError(
            f"a table that is read by blocks takes the estimators 'ridge' and 'banded-ridge', got {estimator!r}, whose "
            f"kernel of {n_rows:,} rows takes {kernel_gb(n_rows):,.3g} GB. Use a ridge, fewer rows, or a table in "
            "memory."
        )
    if reference:
        raise ValueError(
            "a table that is read by blocks cannot be searched by plain scikit-learn, which needs it in memory, got "
            "reference=True. Leave it out, or give a data frame."
        )
