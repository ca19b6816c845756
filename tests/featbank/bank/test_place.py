"""A bank in a store holds the files of a bank on a disk, byte for byte, and answers every question alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank, ImageRecord, compaction, shard
from featbank.bank.files import SHARD_NAME
from featbank.errors import BankError, StoreError
from featbank.remote import RemotePath
from featbank.store_access import StoreFile, open_store, plain_errors
from tests.support.bank_rows import contents, fill, image_keys, open_feature, rows_of
from tests.support.memory_store import stored


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
    monkeypatch.setattr(compaction, "SHARD_ROWS", 8)
    far, near = grow(memory_url), grow(tmp_path / "bank")

    def same() -> None:
        assert stored(RemotePath.parse(memory_url)) == contents(tmp_path / "bank")
        assert far.verify() == near.verify() == []
        for here, there in zip(near.features(), far.features(), strict=True):
            assert (here.size(), here.n_bytes(), here.keys()) == (there.size(), there.n_bytes(), there.keys())
            keys = sorted(here.keys())
            assert np.array_equal(here.read(keys), there.read(keys))
        assert far.images.frame().equals(near.images.frame())

    same()
    assert far.compact() == near.compact() > 0
    same()
    kept = {"keep_features": [near.features()[0].digest], "keep_keys": image_keys(range(10))}
    assert far.prune(**kept) == near.prune(**kept)
    assert far.prune(**kept, dry_run=False) == near.prune(**kept, dry_run=False)
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
