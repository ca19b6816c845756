"""A process that writes to a bank and can be killed at any moment; started many times a second.

``python -m tests.support.bank_worker`` imports everything once, then forks a child for each job it reads
from standard input: starting Python anew for each kill would take a hundred times longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from featbank.bank import Bank, ImageRecord, upkeep
from featbank.errors import BankError
from tests.support.bank_rows import fill, image_key, open_feature, rows_of

PROJECT = Path(__file__).parents[2]


class Worker:
    """The parent's end: starts children and learns how they ended."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, job: str, **arguments: Any) -> int:
        """Start a job in a child; returns its process id."""
        return self._ask(job=job, arguments=arguments)

    def wait(self, pid: int) -> int:
        """Wait for a child; returns its exit status, or minus the signal that ended it."""
        return self._ask(wait=pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def worker(
    module: str = "tests.support.bank_worker", environment: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    running = Worker(module, environment)
    try:
        yield running
    finally:
        running.close()


def _without_flush() -> None:
    """Skip the flush to the disk: a killed process cannot show its lack, and most kills would hit it."""
    os.fsync = lambda descriptor: None


def _append(root: str, start: int, acknowledged: str) -> None:
    """Append three rows at a time, for ever; write down the number of each row after it is stored."""
    _without_flush()
    feature = open_feature(Path(root))
    log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        numbers = range(start, start + 3)
        fill(feature, numbers)
        Bank(root).images.record(ImageRecord(image_key(number), "ok") for number in numbers)
        os.write(log, "".join(f"{number}\n" for number in numbers).encode())
        start += 3


def _churn(root: str, start: int, acknowledged: str) -> None:
    """As append, compacting in between, into shards small enough that there are several."""
    _without_flush()
    upkeep.SHARD_ROWS = 8
    bank, feature = Bank(root), open_feature(Path(root))
    log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    dice = random.Random(start)
    while True:
        n_rows = dice.randrange(1, 9)
        numbers = range(start, start + n_rows)
        fill(feature, numbers, batch=3)
        os.write(log, "".join(f"{number}\n" for number in numbers).encode())
        start += n_rows
        bank.compact()


def _fill(root: str, numbers: list[int], batch: int, compact: bool) -> None:
    """Append given rows and end; with compact, also compact after every batch."""
    feature = open_feature(Path(root))
    for start in range(0, len(numbers), batch):
        fill(feature, numbers[start : start + batch], batch)
        if compact:
            feature.compact()


def _limited(root: str, report: str) -> None:
    """Append under a limit on file size that large batches break; write down the messages."""
    feature = open_feature(Path(root))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    messages = []
    for start, n_rows in ((0, 10), (100, 1000), (10, 10)):
        try:
            fill(feature, range(start, start + n_rows), batch=n_rows)
        except BankError as error:
            messages.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    Path(report).write_text(json.dumps(messages))


def _unprivileged(root: str, report: str) -> None:
    """Read and try to write as a user who may not; write down what happened."""
    os.chdir(root)
    descriptor = os.open(report, os.O_WRONLY)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    keys = [image_key(number) for number in range(4)]
    feature = open_feature(Path())
    seen: dict[str, Any] = {"right": bool((feature.read(keys) == rows_of(keys)).all())}
    attempts = {
        "append": lambda: fill(feature, [9]),
        "compact": feature.compact,
        "open": lambda: open_feature(Path(), name="other"),
        "record": lambda: Bank(".").images.record([ImageRecord(keys[0], "ok")]),
        "remove": feature.remove,
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except BankError as error:
            seen[name] = str(error)
    seen["verify"] = [problem.message for problem in Bank(".").verify()]
    os.write(descriptor, json.dumps(seen).encode())


JOBS = {
    "append": _append,
    "churn": _churn,
    "fill": _fill,
    "limited": _limited,
    "unprivileged": _unprivileged,
}


def _warm_up() -> None:
    """Import what is imported at first use, so that no child spends its life on it."""
    with tempfile.TemporaryDirectory() as root:
        fill(open_feature(Path(root)), range(9))
        bank = Bank(root)
        bank.images.record([ImageRecord(image_key(0), "ok")])
        bank.compact()
        assert bank.verify() == []


def serve(jobs: Mapping[str, Callable[..., None]]) -> None:
    """Fork a child for each job read from standard input, for ever; answer with its process id or its end."""
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                jobs[question["job"]](**question["arguments"])
                os._exit(0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _warm_up()
    serve(JOBS)
