"""File systems that are read-only for everybody, the superuser too."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder onto itself without the right to write; skips the test where mounting is not permitted.

    Permissions alone would not do: the superuser, as whom tests often run in a container, may write anywhere.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("needs the right to mount a folder read-only")
    _mount(["--bind", str(folder), str(folder)])
    try:
        _mount(["-o", "remount,bind,ro", str(folder)])
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(arguments: list[str]) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        # Only root may mount, and containers often may not: a disk that is really read-only cannot be had there.
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
