"""What the processes of one command owe each other: a clean module path, an end with their parent, memory that is kept.

A command starts worker processes through joblib. They must not import what happens to lie in the current folder, and
must not live on when the command is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
KEPT_BYTES = 64 << 20
"""Blocks up to this size are taken from the heap, and as much freed memory is kept at its end, in bytes.

Enough for a 4K photo and most activations. With 1 GiB, holes between larger blocks raised the peak of the heaviest
recipe from 3.1 to 4.9 GiB.
"""


ORPHAN_S = 0.5
"""How often a worker process looks whether the process that started it still lives, in seconds."""


@contextmanager
def without_current_folder() -> Iterator[None]:
    """Keep the current folder off the module path of this process, and of those it starts, for the time of a context.

    A stranger's dataset may hold a ``random.py``, which Python would import in place of its own. Folders that the user
    named in ``PYTHONPATH`` stay, and so does the one that holds this package. numba would also take a folder of
    compiled code, pickled, from a file in the current folder; it is told not to.
    """
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path, before = sys.path[:], dict(os.environ)
    with suppress(OSError):  # the current folder was removed meanwhile
        here = Path.cwd()
        if here not in {Path(__file__).parents[1], *(here / entry for entry in named)}:
            sys.path[:] = [entry for entry in path if entry not in {"", str(here)}]
    os.environ.update(PYTHONSAFEPATH="1", NUMBA_CACHE_DIR=before.get("NUMBA_CACHE_DIR", ""))
    if "PYTHONPATH" in before:  # an empty entry, as in PYTHONPATH=:/somewhere, would mean the current folder
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in ("PYTHONSAFEPATH", "NUMBA_CACHE_DIR", "PYTHONPATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


@contextmanager
def own_workers() -> Iterator[None]:
    """Let joblib's worker processes import nothing from the current folder, and end with this process, however it ends.

    Holds for those that libraries start as well. Another backend that a caller has chosen, such as a cluster, is left.
    joblib keeps its processes for the next call: after a change of the current folder, in which relative paths start,
    it starts new ones, since their arguments differ.
    """
    from joblib import parallel_config
    from joblib.parallel import LokyBackend, get_active_backend

    if type(get_active_backend()[0]) is LokyBackend:
        guarded = parallel_config(
            backend="loky", initializer=_begin, initargs=(os.getpid(), _current_folder())
        )
    else:
        guarded = nullcontext()
    with without_current_folder(), guarded:
        yield


@contextmanager
def starting_workers() -> Iterator[None]:
    """As `own_workers`, around the call that starts the processes alone: they leave an interruption to this process.

    A terminal sends it to all of them; what they are importing at that moment would end in a traceback each. A process
    hands its mask of signals on to those it starts.
    """
    with own_workers():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _current_folder() -> str:
    """Return the current folder, empty when it was removed meanwhile."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def _begin(parent: int, folder: str) -> None:
    """Begin a worker process that ``parent`` started in ``folder``."""
    end_with_parent(parent)


@cache
def end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it has ended; joblib would keep it for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV compute in one thread for the time of a context: photos are spread over processes."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the next request; once for each process.

    glibc returns every block above 32 MiB to the system when it is freed, and asks for it again, page by page and
    zeroed, for the next photo or activation: 55,000 page faults a photo for two small networks, a tenth of the time.
    For processes that only extract. A notebook or a server of somebody else is left as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Some releases limit the threshold to 32 MiB; there blocks outside the heap are forbidden altogether.
    is_set = mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(_M_MMAP_MAX, 0)
    return bool(is_set and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
