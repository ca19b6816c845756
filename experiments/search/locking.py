"""A lock between processes that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

if os.name == "posix":
    import fcntl


class FileLock:
    """Exclusive lock on a small file beside what it guards; it may lie on any file system with POSIX locks.

    It has the interface that Optuna's journal asks of a lock, and is a context manager.

    Parameters
    ----------
    path : Path
        Created empty if it does not exist, and left there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Wait until no other process holds the lock, then hold it."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        if os.name == "posix":
            fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        return True

    def release(self) -> None:
        """Let the next one in."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)  # closing releases

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
