"""What the processes of one command owe each other: a clean module path, an end with their parent, memory that is kept.

A command starts worker processes through joblib. They must not import what happens to lie in the current folder, and
must not live on when the command is killed. Files that a library in C takes apart are read in a process of their own:
one changed byte can end such a process, or make it ask for all memory there is.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from featbank import errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
KEPT_BYTES = 64 << 20
"""Blocks up to this size are taken from the heap, and as much freed memory is kept at its end, in bytes.

Enough for a 4K photo and most activations. With 1 GiB, holes between larger blocks raised the peak of the heaviest
recipe from 3.1 to 4.9 GiB.
"""

_READY = b"ready\n"

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
    """
    from joblib import parallel_config
    from joblib.parallel import LokyBackend, get_active_backend

    if type(get_active_backend()[0]) is LokyBackend:
        guarded = parallel_config(backend="loky", initializer=end_with_parent, initargs=(os.getpid(),))
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


@cache
def end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it has ended; joblib would keep it for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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


def call_apart(
    function: str, request: object, *, seconds: float, n_bytes: int, data: bytes = b""
) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Call a function in a process of its own, which may die of what it reads or be stopped; nothing is unpickled.

    Parameters
    ----------
    function : str
        Such as ``featbank.bank.imported:read_here``; takes ``request`` and ``data``, and returns a dict for JSON and an
        array or None.
    request : object
        Can be written as JSON.
    seconds : float
        How long it may take.
    n_bytes : int
        How much memory it may take beyond what its imports took.
    data : bytes
        Sent to it as they are.

    Raises
    ------
    FeatbankError
        What the function raised.
    ChildProcessError, TimeoutError
        If the process ended before it answered, or was stopped.
    """
    here = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.append({here!r}); from featbank.workers import serve; serve()"
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    arguments = json.dumps([function, request, n_bytes, len(data)])
    # Its standard input stays open: the end of it tells the child that this process has ended.
    with subprocess.Popen(  # noqa: S603 (this very interpreter)
        [sys.executable, "-P", "-c", program, arguments],  # -P: nothing is imported from the current folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | one_thread | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
    ) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            assert child.stdin is not None
            is_ready = child.stdout.readline() == _READY
            if not is_ready and timer.is_alive():
                raise errors.FeatbankError(f"{sys.executable} cannot be started; see `featbank doctor`.")
            with suppress(BrokenPipeError):
                child.stdin.write(data)
                child.stdin.flush()
            found = _receive(child.stdout) if is_ready else None
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
            child.kill()
    if found is not None:
        return found
    raise (
        TimeoutError(f"took more than {seconds:.0f} s to read")
        if is_late
        else ChildProcessError("ended the process that read it")
    )


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], NDArray[Any] | None] | None:
    """Take what `serve` sends; None where it ended before."""
    import numpy as np

    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    if "error" in answer:
        raise getattr(errors, answer["kind"], errors.FeatbankError)(answer["error"])
    if "dtype" not in answer:
        return answer, None
    array = np.empty(answer.pop("shape"), dtype=answer.pop("dtype"))
    rest = array.data.cast("B") if array.size else memoryview(b"")
    while rest:
        n_bytes = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not n_bytes:
            return None
        rest = rest[n_bytes:]
    return answer, array


def serve() -> None:
    """Call the function named by the argument and send what it returns to standard output; the child's work."""
    function, request, n_bytes, n_sent = json.loads(sys.argv[1])
    module, _, name = function.partition(":")
    call = getattr(import_module(module), name)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes nowhere
    out.write(_READY)
    out.flush()
    data = sys.stdin.buffer.read(n_sent)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _limit_memory(n_bytes)
    content: memoryview | bytes = b""
    try:
        answer, array = call(request, data)
        if array is not None:
            answer = {**answer, "shape": array.shape, "dtype": array.dtype.str}
            content = array.data.cast("B") if array.size else b""
    except errors.FeatbankError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    out.write(json.dumps(answer).encode() + b"\n")
    out.write(content)
    out.flush()
    os._exit(0)


def _end_with_input() -> None:
    """Wait for the end of standard input, which comes when the parent dies, however it dies."""
    sys.stdin.buffer.read()
    os._exit(1)


def _limit_memory(n_bytes: int) -> None:
    """Allow this process so many bytes more than it has, where the system tells how many it has."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        import resource

        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + n_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
