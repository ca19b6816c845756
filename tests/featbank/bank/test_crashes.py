"""A bank survives whatever ends a process: a kill at any moment, a full disk, a neighbour at work."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbank.bank import Bank, upkeep
from featbank.errors import BankError
from tests.support.bank_rows import contents, fill, image_key, image_keys, names_in, open_feature, rows_of
from tests.support.bank_worker import Worker, worker


class Killed(BaseException):
    """The process ends here: nothing after it reaches the disk, not even tidying up."""


class FallingProcess:
    """Counts the calls that change the disk and lets the process die before one of them."""

    FUNCTIONS = ("open", "write", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.n_calls = 0
        self.dies_at = -1
        self.opened: set[int] = set()
        for name in self.FUNCTIONS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        self.close = os.close
        patch.setattr(os, "close", self._closed)

    def _wrapped(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if 0 <= self.dies_at <= self.n_calls:
                raise Killed
            self.n_calls += 1
            result = function(*args, **kwargs)
            if name == "open":
                self.opened.add(result)
            return result

        return call

    def _closed(self, descriptor: int) -> None:
        self.opened.discard(descriptor)
        self.close(descriptor)

    def let_go(self) -> None:
        """Close what the process had open, and with it its locks, as the system does for the dead."""
        for descriptor in self.opened:
            with contextlib.suppress(OSError):  # closed by the process itself
                self.close(descriptor)


def deaths(work: Callable[[Path], None], folder: Path, prepared: Path) -> Iterator[Path]:
    """Do some work on a copy of a bank once for each call that changes the disk, dying before it."""
    moment = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        with pytest.MonkeyPatch.context() as patch:
            process = FallingProcess(patch)
            process.dies_at = moment
            try:
                work(folder)
            except Killed:
                process.let_go()
            else:
                break
        yield folder
        moment += 1
    assert moment > 3


def test_dying_before_any_call_of_an_append_leaves_all_or_nothing(tmp_path: Path) -> None:
    old, new = image_keys(range(8)), image_keys(range(8, 12))
    fill(open_feature(tmp_path / "prepared"), range(8))

    def work(folder: Path) -> None:
        feature = open_feature(folder)
        fill(feature, range(8, 12))
        open_feature(folder, name="second")

    for folder in deaths(work, tmp_path / "bank", tmp_path / "prepared"):
        bank = Bank(folder)
        assert bank.verify() == []
        feature = open_feature(folder)
        assert np.array_equal(feature.read(old), rows_of(old))
        assert len(feature.missing(new)) in {0, 4}
        fill(feature, range(8, 12))  # goes on where it stopped
        assert np.array_equal(feature.read(new), rows_of(new))


def test_dying_before_any_call_of_a_compaction_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SHARD_ROWS", 8)
    keys = fill(open_feature(tmp_path / "prepared"), range(20), batch=5)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(tmp_path / "prepared", undisturbed)
    open_feature(undisturbed).compact()

    def work(folder: Path) -> None:
        open_feature(folder).compact()

    for folder in deaths(work, tmp_path / "bank", tmp_path / "prepared"):
        assert Bank(folder).verify() == []
        feature = open_feature(folder)
        assert feature.keys() == set(keys)
        assert np.array_equal(feature.read(keys), rows_of(keys))
        feature.compact()
        assert contents(folder) == contents(undisturbed)


def test_dying_in_a_compaction_never_changes_which_of_two_rows_is_served(tmp_path: Path) -> None:
    prepared = open_feature(tmp_path / "prepared")
    key = image_keys([0])
    for value in range(7):
        # The second row keeps the merged shard from being one of these.
        prepared.append([*key, *image_keys([value + 1])], np.full((2, 5), value))
    served = prepared.read(key)

    def work(folder: Path) -> None:
        open_feature(folder).compact()

    for folder in deaths(work, tmp_path / "bank", tmp_path / "prepared"):
        assert np.array_equal(open_feature(folder).read(key), served)
        work(folder)
        assert np.array_equal(open_feature(folder).read(key), served)


def test_dying_before_any_call_of_a_removal_keeps_what_stays(tmp_path: Path) -> None:
    keys = fill(open_feature(tmp_path / "prepared"), range(12))
    fill(open_feature(tmp_path / "prepared", name="other"), range(4))
    stays = open_feature(tmp_path / "prepared").digest

    def prune(folder: Path) -> None:
        for feature in Bank(folder).features():
            if feature.digest != stays:
                Bank(folder).remove(feature.digest)
        Bank(folder).compact()

    for folder in deaths(prune, tmp_path / "bank", tmp_path / "prepared"):
        assert Bank(folder).verify() == []
        assert np.array_equal(open_feature(folder).read(keys), rows_of(keys))
        prune(folder)
        assert [feature.digest for feature in Bank(folder).features()] == [stays]
        assert open_feature(folder).keys() == set(keys)


@pytest.fixture(scope="module")
def writer() -> Iterator[Worker]:
    with worker() as running:
        yield running


def kill_again_and_again(writer: Worker, job: str, folder: Path, n_kills: int) -> None:
    dice = random.Random(n_kills)
    acknowledged, root = folder / "acknowledged", folder / "bank"
    root.mkdir()
    longest_s, before = 0.04, 0
    for _ in range(n_kills):
        done = acknowledged.read_text().split() if acknowledged.exists() else []
        pid = writer.start(job, root=str(root), start=len(done), acknowledged=str(acknowledged))
        if len(done) == before:  # a busy machine: most of the kills come before the work begins
            longest_s *= 1.3
        before = len(done)
        time.sleep(dice.uniform(0, longest_s))
        os.kill(pid, signal.SIGKILL)
        assert writer.wait(pid) == -signal.SIGKILL
    numbers = [int(number) for number in acknowledged.read_text().split()]
    assert len(numbers) > n_kills  # the killed processes did get something done
    bank = Bank(root)
    assert bank.verify() == []
    (feature,) = bank.features()
    keys = image_keys(numbers)
    assert np.array_equal(feature.read(keys), rows_of(keys))
    if job == "append":
        assert set(bank.images.frame()["key"]) >= set(keys)
    # Everything that is there compacts to what an undisturbed writer would have left.
    stored = feature.keys()
    present = [number for number in range(max(numbers) + 20) if image_key(number) in stored]
    undisturbed = open_feature(folder / "undisturbed")
    fill(undisturbed, present, batch=1000)
    undisturbed.compact()
    feature.compact()
    assert contents(feature.path) == contents(undisturbed.path)


@pytest.mark.parametrize("job", ["append", "churn"])
def test_kills_at_random_moments_lose_nothing_acknowledged(writer: Worker, tmp_path: Path, job: str) -> None:
    kill_again_and_again(writer, job, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["append", "churn"])
def test_hundreds_of_kills_lose_nothing_acknowledged(writer: Worker, tmp_path: Path, job: str) -> None:
    kill_again_and_again(writer, job, tmp_path, 300)


@pytest.mark.parametrize("compact", [False, True])
def test_processes_that_append_the_same_and_other_rows_at_once(
    writer: Worker, tmp_path: Path, compact: bool
) -> None:
    shares = [list(range(60)), list(range(30, 90)), list(range(89, -1, -1))]
    pids = [
        writer.start("fill", root=str(tmp_path / "bank"), numbers=share, batch=7, compact=compact)
        for share in shares
    ]
    assert [writer.wait(pid) for pid in pids] == [0, 0, 0]
    feature = open_feature(tmp_path / "bank")
    assert feature.verify() == []
    keys = image_keys(range(90))
    assert np.array_equal(feature.read(keys), rows_of(keys))
    feature.compact()
    alone = open_feature(tmp_path / "alone")
    fill(alone, range(90))
    alone.compact()
    assert contents(alone.path) == contents(feature.path)


def test_a_limit_on_file_size_stops_one_batch_and_no_other(writer: Worker, tmp_path: Path) -> None:
    report = tmp_path / "report"
    pid = writer.start("limited", root=str(tmp_path / "bank"), report=str(report))
    assert writer.wait(pid) == 0
    (message,) = json.loads(report.read_text())
    assert "(EFBIG)" in message
    feature = open_feature(tmp_path / "bank")
    assert feature.keys() == set(image_keys(range(20)))
    assert feature.verify() == []
    assert len(names_in(feature.path)) == 3  # specification and two shards, no temporary file


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk; a limit on file size stands in for it above")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_is_one_clear_message_and_goes_on_with_room(small_disk: Path) -> None:
    feature = open_feature(small_disk)
    stored: list[str] = []
    with pytest.raises(BankError, match=r"the disk is full \(ENOSPC\)"):  # noqa: PT012 (any of the appends)
        for start in range(0, 100_000, 200):
            stored += fill(feature, range(start, start + 200), batch=200)
    assert len(stored) > 400
    assert not list(small_disk.rglob(".featbank*"))
    assert feature.verify() == []
    assert np.array_equal(open_feature(small_disk).read(stored), rows_of(stored))
    with pytest.raises(BankError, match="the disk is full"):
        feature.compact()  # no room for a second copy
    assert np.array_equal(feature.read(stored), rows_of(stored))
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    more = fill(feature, range(len(stored), len(stored) + 200), batch=200)
    feature.compact()
    assert np.array_equal(feature.read(stored + more), rows_of(stored + more))
    assert feature.verify() == []


def test_a_bank_one_may_not_write_to_is_read_and_refused_clearly(writer: Worker) -> None:
    # Outside pytest's own folder, which other users may not even enter.
    root = Path(tempfile.mkdtemp())
    try:
        fill(open_feature(root), range(4))
        report = root / "report"
        report.touch()
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.getuid() != 0:
            report.chmod(0o644)
        pid = writer.start("unprivileged", root=str(root), report=str(report))
        assert writer.wait(pid) == 0
        seen = json.loads(report.read_text())
    finally:
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(root)
    assert seen.pop("right") is True
    assert seen.pop("verify") == []
    assert set(seen) == {
        "append",
        "record",
        "remove",
    }  # a single shard is canonical already, a new feature is empty
    for message in seen.values():
        assert "permission is denied (EACCES)" in message
        assert "open the bank for reading only" in message
