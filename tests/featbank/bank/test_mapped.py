"""Rows left in their mapped files: the same numbers as reading them, in any order, from any shards."""

from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank, FeatureFolder, rows
from featbank.bank.shard import parse_keys
from featbank.digest import digest_bytes
from featbank.errors import BankError, MissingFeaturesError
from featbank.table import MappedTable


def key(number: int) -> str:
    return digest_bytes(str(number).encode())


def fill(folder: FeatureFolder, n_rows: int, n_shards: int) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(n_rows, folder.n_features)).astype(folder.dtype)
    for part in np.array_split(np.arange(n_rows), n_shards):
        folder.append([key(row) for row in part], values[part])
    return values


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("n_shards", [1, 7])
@pytest.mark.parametrize("in_store", [False, True])
def test_mapped_rows_are_the_stored_rows(
    memory_url: str, tmp_path: Path, dtype: str, n_shards: int, in_store: bool
) -> None:
    root = memory_url if in_store else tmp_path
    folder = Bank(root).open({"n": n_shards}, 5, "x", dtype)
    values = fill(folder, 300, n_shards)
    order = np.random.default_rng(1).permutation(300)
    rows = folder.map(parse_keys([key(row) for row in order]))
    assert len(rows) == 300
    for asked in (np.arange(300), np.array([7, 7, 290, 0]), np.argsort(rows.place)[40:90]):
        out = np.empty((len(asked), 5))
        rows.read(asked, out)
        assert np.array_equal(out, values[order][asked].astype(float))


def test_mapped_rows_outlive_a_compaction(tmp_path: Path) -> None:
    folder = Bank(tmp_path).open({"n": 1}, 5, "x")
    values = fill(folder, 200, 4)
    rows = folder.map(parse_keys([key(row) for row in range(200)]))
    folder.compact()
    out = np.empty((200, 5))
    rows.read(np.arange(200), out)
    assert np.array_equal(out, values.astype(float))


def test_damage_is_found_when_rows_are_mapped(tmp_path: Path) -> None:
    folder = Bank(tmp_path).open({"n": 1}, 5, "x")
    fill(folder, 200, 1)
    [shard] = folder.path.glob("*.arrow")
    data = bytearray(shard.read_bytes())
    place = data.index(fill(Bank(tmp_path / "twin").open({"n": 1}, 5, "x"), 200, 1)[0].tobytes())
    data[place] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    with pytest.raises(BankError, match="damaged"):
        Bank(tmp_path).open({"n": 1}, 5, "x").map(parse_keys([key(199)]))


def test_missing_rows_and_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Bank(tmp_path).open({"n": 1}, 5, "x")
    fill(folder, 60, 6)
    with pytest.raises(MissingFeaturesError, match="2 are missing"):
        folder.map(parse_keys([key(1), key(1000), key(1001)]))
    monkeypatch.setattr(rows, "MAX_SHARDS", 5)
    with pytest.raises(BankError, match=r"at most 5 files, got 6.*featbank bank prune"):
        folder.map(parse_keys([key(row) for row in range(60)]))


def test_a_mapped_table_joins_bands_of_different_types(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    narrow, wide = bank.open({"b": 1}, 3, "a", "float16"), bank.open({"b": 2}, 4, "b")
    whole = np.hstack([fill(narrow, 50, 2), fill(wide, 50, 3)]).astype(float)
    keys = parse_keys([key(row) for row in range(50)])
    columns = [f"a:{k:04d}" for k in range(3)] + [f"b:{k:04d}" for k in range(4)]
    table = MappedTable([narrow.map(keys), wide.map(keys)], columns, range(50))
    rows = np.array([4, 30, 2])
    assert table.shape == (50, 7)
    assert np.array_equal(table.read(rows), whole[rows])
    assert np.array_equal(table.read(rows, np.array([6, 0, 3])), whole[np.ix_(rows, [6, 0, 3])])
    order = table.arrange(np.arange(50))
    assert np.array_equal(np.sort(order), np.arange(50))
