"""A file is there whole or not at all, whatever the operating system does."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featbank.bank import files
from featbank.bank.files import (
    list_shards,
    put,
    remove_files,
    shard_name,
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("function", ["open", "fsync", "rename"])
def test_a_failing_step_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    put(tmp_path, "x.bin", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(getattr(os, function), number))
        with pytest.raises(BankError, match=errno.errorcode[number]) as caught:
            put(tmp_path, "y.bin", DATA)
    assert caught.value.errno == number
    assert "it goes on where it stopped" in str(caught.value) or number == errno.EIO
    assert names_in(tmp_path) == ["x.bin"]
    assert put(tmp_path, "y.bin", DATA).read_bytes() == DATA  # goes on when there is room


def test_a_file_taken_for_a_dead_process_s_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without common locks, or with a clock ahead, may sweep a living writer's file."""
    rename, n_taken = os.rename, 0

    def robbed(source: str, target: str) -> None:
        nonlocal n_taken
        if n_taken < limit:
            n_taken += 1
            Path(source).unlink()
        rename(source, target)

    monkeypatch.setattr(os, "rename", robbed)
    limit = 2
    assert put(tmp_path, "x.bin", DATA).read_bytes() == DATA
    n_taken, limit = 0, 100
    with pytest.raises(BankError, match=r"Another process removed it meanwhile.*Run the same command again"):
        put(tmp_path, "y.bin", DATA)
    assert names_in(tmp_path) == ["x.bin"]


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


def test_only_finished_shards_are_listed(tmp_path: Path) -> None:
    name = shard_name(DATA)
    put(tmp_path, name, DATA)
    for other in (
        f".featbank-{'0' * 32}.arrow",
        "spec.json",
        f"{'0' * 63}.arrow",
        name.upper(),
        f"copy {name}",
    ):
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
