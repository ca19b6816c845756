"""One interface for a folder on a disk and for a store; a bank is the same, byte for byte, in both."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featbank.bank import Bank, ImageRecord, shard, upkeep
from featbank.bank.place import SHARD_NAME, Store, shard_name, store_at
from featbank.errors import BankError, StoreError
from featbank.remote import RemotePath, StoreFile, as_place, open_store, plain_errors
from tests.support.bank_rows import contents, fill, image_keys, names_in, open_feature, rows_of
from tests.support.memory_store import stored

DATA = bytes(range(256)) * 64


class StoreContract:
    """What every kind of store does; a subclass has the fixture ``store``, of a place that is not there yet."""

    def test_what_is_put_is_there_and_nothing_else(self, store: Store) -> None:
        store.make()
        assert store.put("x.bin", DATA) == store.path / "x.bin"
        assert (store.path / "x.bin").read_bytes() == store.map("x.bin").to_pybytes() == DATA
        store.put("x.bin", memoryview(b"new"))
        assert (store.path / "x.bin").read_bytes() == b"new"
        assert store.names() == ["x.bin"]
        assert store.measure(["x.bin"]) == 3

    def test_what_is_not_there_holds_nothing(self, store: Store) -> None:
        assert store.names() == store.folders() == store.shards() == []
        store.check_writable("spec.json")  # whoever writes makes it
        store.sweep()
        store.remove(["a"])
        assert store.remove_folder()
        with pytest.raises(FileNotFoundError):
            store.measure(["a"])
        with pytest.raises(FileNotFoundError):
            store.map("a")

    def test_only_finished_shards_and_real_folders_are_listed(self, store: Store) -> None:
        name = shard_name(DATA)
        others = [f"{'0' * 63}.arrow", name.upper(), f"copy {name}", "spec.json"]
        for other in [name, *others]:
            store.put(other, DATA)
        store_at(store.path / "below").put("x", b"")
        assert store.shards() == store.settled_shards() == [name]
        assert store.names() == sorted([name, *others])
        assert store.folders() == ["below"]

    def test_a_listing_counts_only_when_it_is_seen_twice(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A neighbour replaces "old" by "new" in the middle of the first listing, which shows neither of them.
        seen = iter([["x"], ["new", "x"], ["new", "x"]])
        monkeypatch.setattr(type(store), "shards", lambda store: next(seen))
        assert store.settled_shards() == ["new", "x"]

    def test_a_folder_goes_when_it_is_empty(self, store: Store) -> None:
        store.put("a", DATA)
        store.put("b", b"")
        store.check_writable("a")
        assert not store.remove_folder()
        store.remove(["a", "b", "c"])  # what a neighbour removed is no error
        assert store.remove_folder()
        assert store.names() == []

    def test_a_file_where_a_folder_must_be_is_refused(self, store: Store) -> None:
        store.put("file", DATA)
        with pytest.raises(BankError, match="must be a folder, got a file"):
            store_at(store.path / "file").make()


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return store_at(tmp_path / "a" / "b")


class TestRemoteStore(StoreContract):
    @pytest.fixture
    def store(self, memory_url: str) -> Store:
        return store_at(as_place(f"{memory_url}/b"))


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


def test_trying_to_write_leaves_nothing_and_tells_what_would_be_refused(tmp_path: Path) -> None:
    Store(tmp_path).check_writable("x")
    assert names_in(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(BankError, match=r"cannot write to .*ENOTDIR"):
        Store(tmp_path / "file").check_writable("x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("function", ["open", "fsync", "rename"])
def test_a_failing_step_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int
) -> None:
    Store(tmp_path).put("x.bin", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(getattr(os, function), number))
        with pytest.raises(BankError, match=errno.errorcode[number]) as caught:
            Store(tmp_path).put("y.bin", DATA)
    assert caught.value.errno == number
    assert "it goes on where it stopped" in str(caught.value) or number == errno.EIO
    assert names_in(tmp_path) == ["x.bin"]
    assert Store(tmp_path).put("y.bin", DATA).read_bytes() == DATA  # goes on when there is room


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
    assert Store(tmp_path).put("x.bin", DATA).read_bytes() == DATA
    n_taken, limit = 0, 100
    with pytest.raises(BankError, match=r"Another process removed it meanwhile.*Run the same command again"):
        Store(tmp_path).put("y.bin", DATA)
    assert names_in(tmp_path) == ["x.bin"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from featbank.bank.place import Store
from featbank.errors import BankError
folder = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
Store(folder).put("small", b"x" * 40_000)
try:
    Store(folder).put("large", b"x" * 60_000)
except BankError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
Store(folder).put("later", b"x" * 60_000)
"""


def test_a_real_limit_on_file_size_is_survived(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "the file would be larger than the process or the file system allows (EFBIG)" in done.stdout
    assert names_in(tmp_path) == ["later", "small"]


def test_a_file_where_a_folder_must_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("not a folder")
    with pytest.raises(BankError, match="cannot write"):
        Store(tmp_path / "bank").put("x.bin", DATA)
    with pytest.raises(BankError, match="cannot list"):
        Store(tmp_path / "bank").shards()


def grow(root: str | Path) -> Bank:
    """Two features, an image log and a log of failures, written in several batches."""
    bank = Bank(root)
    for name in ("one", "two"):
        fill(open_feature(root, name=name), range(30), batch=7)
    for number, key in enumerate(image_keys(range(6))):
        bank.images.record([ImageRecord(key, "ok", width=number)])
    bank.failures_of(bank.features()[0].digest).record(
        [ImageRecord(image_keys([40])[0], "failed", reason="odd")]
    )
    return bank


def test_a_bank_is_the_same_in_a_store_and_on_a_disk(
    memory_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SHARD_ROWS", 8)
    far, near = grow(memory_url), grow(tmp_path / "bank")

    def same() -> None:
        assert stored(RemotePath.parse(memory_url)) == contents(tmp_path / "bank")
        assert far.verify() == near.verify() == []
        for here, there in zip(near.features(), far.features(), strict=True):
            assert (here.n_shards(), here.n_bytes(), here.keys()) == (
                there.n_shards(),
                there.n_bytes(),
                there.keys(),
            )
            keys = sorted(here.keys())
            assert np.array_equal(here.read(keys), there.read(keys))
        assert far.images.frame().equals(near.images.frame())

    same()
    assert far.compact() == near.compact() > 0
    same()
    for bank in (far, near):
        bank.remove(bank.features()[0].digest)
    same()


def test_damage_in_a_store_is_found_and_never_served(memory_url: str) -> None:
    bank = Bank(memory_url)
    feature = open_feature(memory_url)
    keys = fill(feature, range(4))
    path = feature.path / feature.shard_names()[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    (feature.path / "renamed.arrow").write_bytes(b"")
    assert sorted(problem.kind for problem in bank.verify()) == ["checksum", "stray"]
    with pytest.raises(BankError, match="is damaged"):
        feature.compact()
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(BankError, match="is damaged"):
        open_feature(memory_url).read(keys)
    path.write_bytes(b"")
    with pytest.raises(BankError, match="is damaged"):
        open_feature(memory_url).read(keys)


def test_the_keys_of_a_large_shard_are_fetched_alone(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "WHOLE_BYTES", 1000)
    keys = fill(open_feature(memory_url, n_features=200), range(50), batch=50)
    feature = open_feature(memory_url, n_features=200)
    n_read: list[int] = []
    read = StoreFile.read

    def counted(file: StoreFile, size: int = -1) -> bytes:
        data = read(file, size)
        n_read.append(len(data))
        return data

    monkeypatch.setattr(StoreFile, "read", counted)
    assert feature.keys() == set(keys)
    assert 50 * 32 < sum(n_read) < 5000
    assert sum(n_read) < feature.n_bytes() / 5
    assert np.array_equal(feature.read(keys), rows_of(keys, 200))

    def lost(file: StoreFile, size: int = -1) -> bytes:
        with plain_errors("memory://x"):
            raise ConnectionResetError

    monkeypatch.setattr(StoreFile, "read", lost)
    with pytest.raises(BankError, match=r"cannot read .*does not answer"):
        open_feature(memory_url, n_features=200).keys()
    monkeypatch.undo()
    monkeypatch.setattr(shard, "WHOLE_BYTES", 1000)
    path = feature.path / feature.shard_names()[0]
    whole = path.read_bytes()
    first = whole.index(bytes.fromhex(min(keys)))
    for damage in (
        whole[:first] + b"\0" + whole[first + 1 :],
        whole[:-3],
        whole[: len(whole) // 2],
        b"x" * 2000,
    ):
        path.write_bytes(damage)
        with pytest.raises(BankError, match="is damaged"):
            open_feature(memory_url, n_features=200).keys()


def test_a_writer_brings_back_the_specification_that_a_prune_takes_meanwhile(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = open_feature(memory_url)
    fill(feature, range(4))
    write = RemotePath.write_bytes

    def pruned_just_before(place: RemotePath, data: bytes) -> None:
        if SHARD_NAME.fullmatch(place.name):
            monkeypatch.undo()
            open_feature(memory_url).remove()
        write(place, data)

    monkeypatch.setattr(RemotePath, "write_bytes", pruned_just_before)
    keys = fill(feature, range(4, 8))
    assert open_feature(memory_url).keys() == set(keys)
    assert Bank(memory_url).verify() == []


def test_removal_stops_before_a_feature_that_somebody_appends_to(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature, other = open_feature(memory_url), open_feature(memory_url)
    fill(feature, range(4))
    unlink = RemotePath.unlink

    def appended_just_before(place: RemotePath) -> None:
        if place.name == "spec.json":
            monkeypatch.undo()
            fill(other, range(4, 8))
        unlink(place)

    monkeypatch.setattr(RemotePath, "unlink", appended_just_before)
    feature.remove()
    assert Bank(memory_url).features()[0].keys() == set(image_keys(range(4, 8)))


def test_a_store_that_refuses_is_known_before_any_work(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = open_feature(memory_url)
    feature.check_writable()
    before = stored(RemotePath.parse(memory_url))

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("Forbidden")

    monkeypatch.setattr(type(open_store(memory_url)), "pipe_file", refuse)
    with pytest.raises(BankError, match=r"cannot write to .*refused access .*intact.*credentials"):
        feature.check_writable()
    with pytest.raises(BankError, match=r"cannot write .*refused access"):
        fill(feature, range(4))
    assert stored(RemotePath.parse(memory_url)) == before


def test_a_bank_is_made_where_there_is_room_for_one(memory_url: str) -> None:
    with pytest.raises(BankError, match=f"there is no bank at {memory_url}"):
        Bank(memory_url, create=False)
    assert Bank(memory_url).features() == []
    place = RemotePath.parse(memory_url)
    (place / "x").write_bytes(b"")
    with pytest.raises(BankError, match="must be a folder, got a file"):
        Bank(f"{memory_url}/x")
    empty = Bank(memory_url, read_only=True).open({"a": 1}, 2, "a")
    with pytest.raises(BankError, match="reading only"):
        fill(empty, [0])


@pytest.mark.parametrize("where", ["sftp://host/bank", "ftp://host/bank", "https://host/bank"])
def test_stores_that_could_keep_half_a_file_are_refused(where: str) -> None:
    with pytest.raises(StoreError, match=r"half a file.*s3://"):
        Bank(where)


def test_a_file_url_is_a_bank_on_the_disk(tmp_path: Path) -> None:
    assert Bank(f"file://{tmp_path}/bank").root == tmp_path / "bank"
    assert (tmp_path / "bank").is_dir()
