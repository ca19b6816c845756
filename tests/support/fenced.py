"""Runs one command in a process of its own and says what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Fenced:
    """What became of a command: its exit code (negative for a signal), its output, its peak memory and its work."""

    code: int
    text: str
    peak_bytes: int
    cpu_s: float


def run_fenced(arguments: list[str], *, timeout_s: float = 120.0) -> Fenced:
    """Run ``featbank`` with these arguments; its workers' memory and time count too, the largest and the sum."""
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "featbank", *arguments]
        process = subprocess.Popen(
            ["timeout", "-k", "1", str(timeout_s), *command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return Fenced(process.returncode, text, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)
