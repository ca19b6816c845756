"""Compaction is a function of the rows alone and loses none, whoever else is at work."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.bank import upkeep
from featbank.bank.place import Store
from featbank.bank.upkeep import SHARD_ROWS, cut_points
from featbank.errors import BankError
from tests.support.bank_rows import (
    contents,
    fill,
    image_keys,
    names_in,
    open_feature,
    rows_of,
)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SHARD_ROWS", 8)


@pytest.mark.parametrize(
    ("n_rows", "n_ranges"),
    [
        (0, 1),
        (1, 1),
        (SHARD_ROWS, 1),
        (SHARD_ROWS + 1, 2),
        (2 * SHARD_ROWS, 2),
        (2 * SHARD_ROWS + 1, 4),
        (1_000_000, 64),
    ],
)
def test_the_key_space_is_cut_into_equal_parts_by_the_number_of_rows(n_rows: int, n_ranges: int) -> None:
    starts = [int.from_bytes(start.ljust(32, b"\0"), "big") for start in cut_points(n_rows).tolist()]
    assert starts == [number * 2**256 // n_ranges for number in range(n_ranges)]


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=6), st.randoms())
def test_two_banks_with_the_same_rows_become_equal_byte_for_byte(
    batches: list[list[int]], random: object
) -> None:
    numbers = sorted({number for batch in batches for number in batch})
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setattr(upkeep, "SHARD_ROWS", 8)
        a, b = open_feature(Path(root) / "a"), open_feature(Path(root) / "b")
        for batch in batches:
            fill(a, batch, batch=50)
        fill(b, numbers[::-1], batch=7)
        b.compact()
        fill(b, numbers[::2], batch=1)  # rows that are there already
        a.compact()
        b.compact()
        assert contents(a.path) == contents(b.path)
        assert np.array_equal(a.read(image_keys(numbers)), rows_of(image_keys(numbers)))
        assert a.verify() == []


@pytest.mark.usefixtures("small_shards")
def test_canonical_shards_hold_one_range_each_and_stay_as_they_are(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = fill(feature, range(100), batch=9)
    done = feature.compact()
    assert done == 12
    assert feature.n_shards() == 16  # 100 rows / 16 ranges = 6.25, between 4 and 8
    before = {path.name: path.stat().st_mtime_ns for path in feature.path.iterdir()}
    assert feature.compact() == 0
    assert {
        path.name: path.stat().st_mtime_ns for path in feature.path.iterdir()
    } == before  # nothing was written
    assert np.array_equal(feature.read(keys), rows_of(keys))


def test_an_empty_feature_compacts_to_nothing(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    assert feature.compact() == 0
    assert names_in(feature.path) == ["spec.json"]


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    feature = open_feature(tmp_path, dtype="float16")
    keys = fill(feature, range(20))
    before = feature.read(keys)
    feature.compact()
    assert np.array_equal(feature.read(keys), before)
    assert feature.verify() == []


def test_of_disagreeing_rows_the_one_that_was_served_stays(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    key = image_keys([0])
    for value in range(9):
        feature.append(key, np.full((1, 5), value))
    served = feature.read(key)
    feature.compact()
    assert np.array_equal(feature.read(key), served)


def test_a_damaged_shard_stops_compaction_before_anything_changes(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(20))
    path = feature.path / feature.shard_names()[2]
    data = path.read_bytes()
    path.write_bytes(data[:-30] + bytes([data[-30] ^ 4]) + data[-29:])
    before = contents(feature.path)
    with pytest.raises(BankError, match="SHA-256 of its name") as caught:
        feature.compact()
    assert str(path) in str(caught.value)
    assert contents(feature.path) == before


def test_a_disk_without_room_for_the_copy_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = open_feature(tmp_path)
    keys = fill(feature, range(20))
    before = contents(feature.path)
    usage = namedtuple("usage", ["total", "used", "free"])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 20 * (32 + 20) - 1))
        with pytest.raises(BankError, match="the disk is full"):
            feature.compact()
    assert contents(feature.path) == before
    feature.compact()
    assert np.array_equal(feature.read(keys), rows_of(keys))


def test_a_shard_that_vanishes_while_compacting_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature, neighbour = open_feature(tmp_path), open_feature(tmp_path)
    keys = fill(feature, range(20))
    listing = Store.settled_shards
    calls = []

    def listing_before_the_neighbour(store: Store) -> list[str]:
        names = listing(store)
        if not calls:
            calls.append(1)
            with monkeypatch.context() as patch:
                patch.setattr(Store, "settled_shards", listing)
                neighbour.compact()
        return names

    monkeypatch.setattr(Store, "settled_shards", listing_before_the_neighbour)
    assert feature.compact() == 0  # the neighbour had done it all
    assert np.array_equal(feature.read(keys), rows_of(keys))


@pytest.mark.usefixtures("small_shards")
def test_readers_and_appenders_do_not_notice_a_compaction(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    old = fill(feature, range(60))
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: object) -> None:
        try:
            while not stop.is_set():
                work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 (is raised again in the main thread)
            errors.append(error)

    reader, compactor, other = open_feature(tmp_path), open_feature(tmp_path), open_feature(tmp_path)

    def read() -> None:
        assert np.array_equal(reader.read(old), rows_of(old))
        assert reader.missing(old) == []

    threads = [
        threading.Thread(target=guarded, args=(work,)) for work in (read, compactor.compact, other.compact)
    ]
    for thread in threads:
        thread.start()
    new = fill(feature, range(60, 140), batch=3)
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert np.array_equal(feature.read(old + new), rows_of(old + new))
    feature.compact()
    alone = open_feature(tmp_path / "alone")
    fill(alone, range(140))
    alone.compact()
    assert contents(alone.path) == contents(feature.path)
