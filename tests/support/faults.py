"""Full disks and dying devices, one system call at a time: nothing may be lost whichever call of a command fails.

``faults.c`` is preloaded into a process that has imported the commands and forks a child for each run of one. In it the
n-th call that opens for writing, writes, flushes, links, renames, makes or removes something below a folder fails, for
n = 0, 1, 2, ... until the command needs no more calls. All libraries are reached: pandas, matplotlib, skops, pyarrow.

    with faulty_worker() as commands:
        n_calls = fail_each_call(commands, ["bank", "import", ...], folder, reset, check)

``reset()`` puts ``folder`` as it was before the command; ``check(outcome)`` looks at it after. `FAULTS` are the kinds.
Needs Linux and a C compiler; the test is skipped without them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bank_worker import Worker, worker

FAULTS = {"disk full": (errno.ENOSPC, True), "device error": (errno.EIO, False), "kill": (0, False)}
"""Error of the call (0 kills the process there), and whether all later calls that need room fail as well."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended whose call number ``call`` failed.

    ``code`` is its exit code, or minus the signal; ``was_reached`` is False if it made fewer calls.
    """

    call: int
    code: int
    was_reached: bool
    message: str


@contextlib.contextmanager
def faulty_worker() -> Iterator[Worker]:
    """Start the process that forks commands whose system calls may fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "faults.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        with worker("tests.support.command_worker", {**os.environ, "LD_PRELOAD": str(library)}) as running:
            yield running


def run_with_fault(
    commands: Worker, arguments: list[str], folder: Path, call: int, fault: str = "disk full"
) -> Outcome:
    """Run a command of which one call below ``folder`` fails."""
    number, goes_on = FAULTS[fault]
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said"
        details = {"folder": str(folder), "call": call, "number": number, "goes_on": goes_on}
        pid = commands.start("faulty", arguments=arguments, said=str(said), **details)
        code = commands.wait(pid)
        text = said.read_text(errors="replace")
    message, _, count = text.rpartition("\n")
    if code < 0:
        return Outcome(call, code, True, text)
    return Outcome(call, code, json.loads(count) > call, message)


def fail_each_call(
    commands: Worker,
    arguments: list[str],
    folder: Path,
    reset: Callable[[], object],
    check: Callable[[Outcome], object],
    *,
    fault: str = "disk full",
    step: int = 1,
) -> int:
    """Run a command again and again, another of its calls below ``folder`` failing each time.

    Returns how many calls it makes. ``step``: only every so many are tried, for a quick look.
    """
    call = 0
    while True:
        reset()
        outcome = run_with_fault(commands, arguments, folder, call, fault)
        assert "defect of featbank" not in outcome.message, outcome
        assert "Traceback" not in outcome.message, outcome
        if not outcome.was_reached:
            assert outcome.code == 0, outcome
            return call
        check(outcome)
        call += step
