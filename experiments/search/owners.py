"""Who evaluates a configuration, and whether that process still lives: so that a killed one blocks nobody."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

BEAT_S = 20.0
"""Seconds between two signs of life."""

STALE_S = 120.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""


def describe_process() -> dict[str, Any]:
    """Describe this process so that others, here or elsewhere, can tell whether it lives.

    Returns
    -------
    dict
        ``token`` (unique), ``place`` (machine, its boot, and process namespace), ``pid``, ``born``.
    """
    pid = os.getpid()
    return {"token": uuid.uuid4().hex, "place": _place(), "pid": pid, "born": _born(pid)}


class Registry:
    """Decides which owners are dead.

    A process that has ended at the same place is found by asking the system, at once. Any other one shows by its beats
    that it is at work; they are counted, not timed, because clocks differ.

    Parameters
    ----------
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._place = _place()
        self._seen: dict[str, tuple[int, float]] = {}

    def is_dead(self, owner: dict[str, Any], beats: int) -> bool:
        """Say whether an owner is gone.

        Parameters
        ----------
        owner : dict
            From `describe_process`.
        beats : int
            Its signs of life so far.

        Returns
        -------
        bool
            For a process that may live never True at the first look: it takes `STALE_S` without a beat.
        """
        if owner["place"] == self._place:
            born = _born(int(owner["pid"]))
            if born is None or (owner["born"] is not None and born != owner["born"]):
                return True
        now = self._clock()
        last, since = self._seen.get(owner["token"], (-1, now))
        if beats != last:
            self._seen[owner["token"]] = (beats, now)
            return False
        return now - since > STALE_S


class Heart:
    """Beats in a thread of its own for as long as the block runs.

    Parameters
    ----------
    beat : callable
        Takes the number of the beat, from 1.
    interval_s : float
        Seconds between beats.
    """

    def __init__(self, beat: Callable[[int], None], interval_s: float = BEAT_S) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="featbank search: beat", daemon=True)

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(self._interval_s):
            count += 1
            self._beat(count)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _place() -> str:
    parts = [socket.gethostname(), platform.system()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            # Containers on one machine have process numbers of their own, told apart by the link's target.
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())  # noqa: PTH115
        except OSError:
            continue
    return "|".join(parts)


def _born(pid: int) -> str | None:
    """Return when a process of this machine was started, in its kernel's own count; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except OSError:
        return None
    else:
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "unknown"
    return "unknown"
