"""A file is there whole or not at all, whatever the operating system does."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from featbank.bank import files
from featbank.bank.files import (
    TEMPORARY_MAX_AGE_S,
    list_shards,
    put,
    remove_files,
    replacing,
    shard_name,
    sweep_temporaries,
    try_writing,
)
from featbank.errors import BankError
from tests.support.bank_rows import names_in

DATA = bytes(range(256)) * 64


def failing(function: Any, number: int, *, after: int = 0) -> Any:
    """Wrap an os function so that it fails with an error number after some successful calls."""
    calls = 0

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        return function(*args, **kwargs)

    return wrapper


def test_what_is_put_is_there_and_nothing_else(tmp_path: Path) -> None:
    target = put(tmp_path / "a" / "b", "x.bin", DATA)
    assert target.read_bytes() == DATA
    assert names_in(target.parent) == ["x.bin"]
    put(target.parent, "x.bin", memoryview(b"new"))
    assert target.read_bytes() == b"new"


def test_trying_to_write_leaves_nothing_and_tells_what_would_be_refused(tmp_path: Path) -> None:
    try_writing(tmp_path)
    try_writing(tmp_path / "gone")  # whoever writes makes it
    assert names_in(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(BankError, match=r"cannot write to .*ENOTDIR"):
        try_writing(tmp_path / "file")


def test_a_short_write_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:1000]))
    assert put(tmp_path, "x.bin", DATA).read_bytes() == DATA


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("function", ["open", "write", "fsync", "replace"])
def test_a_failing_step_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    put(tmp_path, "x.bin", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(getattr(os, function), number))
        with pytest.raises(BankError, match=errno.errorcode[number]) as caught:
            put(tmp_path, "x.bin", DATA)
    assert caught.value.errno == number
    assert names_in(tmp_path) == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"before"
    assert put(tmp_path, "x.bin", DATA).read_bytes() == DATA  # goes on when there is room


def test_a_disk_that_fills_after_a_short_write_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    part = failing(lambda descriptor, data: write(descriptor, bytes(data)[:1000]), errno.ENOSPC, after=2)
    monkeypatch.setattr(os, "write", part)
    with pytest.raises(BankError, match="the disk is full") as caught:
        put(tmp_path, "x.bin", DATA)
    assert "it goes on where it stopped" in str(caught.value)
    assert names_in(tmp_path) == []


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def spy_replace(source: Any, target: Any) -> None:
        events.append(("replace", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    put(tmp_path, "x.bin", DATA)
    (first, temporary), (second, renamed), (third, folder) = events
    assert (first, second, third) == ("fsync", "replace", "fsync")
    assert temporary == renamed != str(tmp_path / "x.bin")
    assert folder == str(tmp_path.resolve())


def test_a_file_system_that_cannot_flush_folders_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.EINVAL, after=1))
    assert put(tmp_path, "x.bin", DATA).read_bytes() == DATA


def test_an_error_of_the_writer_itself_passes_unchanged_and_cleans_up(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "x.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyError("not ours")

    with pytest.raises(KeyError):
        write()
    assert names_in(tmp_path) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from featbank.bank.files import put
from featbank.errors import BankError
folder = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
put(folder, "small", b"x" * 40_000)
try:
    put(folder, "large", b"x" * 60_000)
except BankError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
put(folder, "later", b"x" * 60_000)
"""


def test_a_real_limit_on_file_size_is_survived(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "the file would be larger than the process or the file system allows (EFBIG)" in done.stdout
    assert names_in(tmp_path) == ["later", "small"]


def test_only_old_temporary_files_are_swept(tmp_path: Path) -> None:
    put(tmp_path, "keep.bin", DATA)
    for name, age in (
        (f".{'0' * 32}.tmp", 2 * TEMPORARY_MAX_AGE_S),
        (f".{'1' * 32}.tmp", 0),
        (".mine.tmp", 1e6),
    ):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert sweep_temporaries(tmp_path) == 1
    assert names_in(tmp_path) == [f".{'1' * 32}.tmp", ".mine.tmp", "keep.bin"]
    assert sweep_temporaries(tmp_path / "absent") == 0


def test_only_finished_shards_are_listed(tmp_path: Path) -> None:
    name = shard_name(DATA)
    put(tmp_path, name, DATA)
    for other in (f".{'0' * 32}.tmp", "spec.json", f"{'0' * 63}.arrow", name.upper(), f"copy {name}"):
        (tmp_path / other).write_bytes(DATA)
    assert list_shards(tmp_path) == [name]
    assert list_shards(tmp_path / "absent") == []


def test_a_listing_counts_only_when_it_is_seen_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A neighbour replaces "old" by "new" in the middle of the first listing, which shows neither of them.
    seen = iter([["x"], ["new", "x"], ["new", "x"]])
    monkeypatch.setattr(files, "list_shards", lambda folder: next(seen))
    assert files.list_shards_settled(tmp_path) == ["new", "x"]


def test_removing_what_a_neighbour_removed_is_no_error(tmp_path: Path) -> None:
    put(tmp_path, "a", DATA)
    assert remove_files(tmp_path, ["a", "b"]) == 1
    assert names_in(tmp_path) == []


def test_a_file_where_a_folder_must_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("not a folder")
    with pytest.raises(BankError, match="cannot write"):
        put(tmp_path / "bank", "x.bin", DATA)
    with pytest.raises(BankError, match="cannot list"):
        list_shards(tmp_path / "bank")
