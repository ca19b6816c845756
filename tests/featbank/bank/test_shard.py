"""A shard gives back its rows bit for bit, or says that it cannot."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featbank.bank.place import shard_name, store_at
from featbank.bank.shard import (
    BLOCK_ROWS,
    DamagedShardError,
    FeatureSpec,
    encode_shard,
    open_shard,
    parse_keys,
)
from featbank.errors import BankError
from tests.support.bank_rows import image_keys, rows_of

SPEC = FeatureSpec({"encoder": "classic:test"}, 3, "float32", "test")


def written(folder: Path, n_rows: int, spec: FeatureSpec = SPEC) -> tuple[Path, Any, Any]:
    keys = parse_keys(sorted(image_keys(range(n_rows))))
    vectors = rows_of(image_keys(range(n_rows)), spec.n_features).astype(spec.dtype)
    data = encode_shard(spec, keys, vectors)
    return store_at(folder).put(shard_name(data), data), keys, vectors


def rewritten(folder: Path, path: Path, change: Any) -> Path:
    """A shard with other schema metadata, as another version or a slip could have written it."""
    table = pa.ipc.open_file(path).read_all()
    record = {**json.loads(table.schema.metadata[b"featbank"]), **change}
    text = json.dumps(record).encode()
    sink = io.BytesIO()
    schema = table.schema.with_metadata({b"featbank": text})
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.cast(schema))
    return store_at(folder).put(shard_name(sink.getvalue()), sink.getvalue())


any_vectors = st.tuples(st.integers(1, 2 * BLOCK_ROWS + 1), st.sampled_from(["float32", "float16"])).flatmap(
    lambda drawn: hnp.arrays(
        drawn[1], (drawn[0], 3), elements=st.floats(width=16, allow_nan=False, allow_infinity=False)
    )
)


@given(any_vectors, st.randoms(use_true_random=False))
def test_rows_come_back_bit_for_bit(vectors: Any, random: Any) -> None:
    spec = FeatureSpec({"encoder": "x"}, 3, str(vectors.dtype), "x")
    keys = parse_keys(sorted(image_keys(range(len(vectors)))))
    data = encode_shard(spec, keys, vectors)
    with tempfile.TemporaryDirectory() as folder:
        shard = open_shard(store_at(Path(folder)).put(shard_name(data), data), spec)
        assert shard.keys.tobytes() == keys.tobytes()
        rows = np.array([random.randrange(len(vectors)) for _ in range(7)])
        assert shard.take(rows).tobytes() == vectors[rows].tobytes()
    assert encode_shard(spec, keys, vectors) == data


def test_other_tools_read_a_shard_without_this_package(tmp_path: Path) -> None:
    path, keys, vectors = written(tmp_path, 70)
    frame = pd.read_feather(path)
    assert list(frame.columns) == ["key", "vector"]
    assert b"".join(frame["key"]) == keys.tobytes()
    assert np.stack(frame["vector"].to_list()).tobytes() == vectors.tobytes()
    table = pa.feather.read_table(path)
    assert table.schema.field("key").type == pa.binary(32)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)


@pytest.mark.parametrize("n_rows", [1, 5])
def test_a_cut_shard_is_refused_at_every_length(tmp_path: Path, n_rows: int) -> None:
    path, _, _ = written(tmp_path, n_rows)
    data = path.read_bytes()
    for length in range(0, len(data), 13):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedShardError, match="is damaged"):
            open_shard(path, SPEC)


def flip_and_read(path: Path, data: bytes, bit: int, rows: Any, expected: Any) -> None:
    """One flipped bit must give the right numbers (it hit padding) or a clear error."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    with contextlib.suppress(BankError):
        shard = open_shard(path, SPEC)
        assert shard.keys.tobytes() == expected[0]
        assert shard.take(rows).tobytes() == expected[1]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_no_flipped_bit_gives_a_wrong_number(tmp_path: Path, part: int) -> None:
    path, keys, vectors = written(tmp_path, 3)
    data = path.read_bytes()
    expected = (keys.tobytes(), vectors.tobytes())
    for bit in range(part, 8 * len(data), 61):  # 61 is prime to 8: all bit positions are met
        flip_and_read(path, data, bit, np.arange(3), expected)


@pytest.mark.slow
def test_not_one_flipped_bit_gives_a_wrong_number(tmp_path: Path) -> None:
    path, keys, vectors = written(tmp_path, 5)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flip_and_read(path, data, bit, np.arange(5), (keys.tobytes(), vectors.tobytes()))


def test_damage_in_one_block_leaves_the_others_readable(tmp_path: Path) -> None:
    path, _, vectors = written(tmp_path, 3 * BLOCK_ROWS)
    data = path.read_bytes()
    where = data.index(vectors[BLOCK_ROWS + 3].tobytes())
    path.write_bytes(data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :])
    shard = open_shard(path, SPEC)
    sound = np.r_[0:BLOCK_ROWS, 2 * BLOCK_ROWS : 3 * BLOCK_ROWS]
    assert shard.take(sound).tobytes() == vectors[sound].tobytes()
    with pytest.raises(DamagedShardError, match="rows 64 and following"):
        shard.take(np.array([BLOCK_ROWS]))


def test_a_shard_of_another_feature_is_refused(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, 3)
    for other in (
        FeatureSpec({"encoder": "other"}, 3, "float32", "test"),
        FeatureSpec(SPEC.identity, 4, "float32", "test"),
        FeatureSpec(SPEC.identity, 3, "float16", "test"),
    ):
        with pytest.raises(DamagedShardError):
            open_shard(path, other)


def test_a_shard_of_a_newer_version_is_refused_with_the_cure(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, 3)
    assert open_shard(rewritten(tmp_path, path, {}), SPEC).take(np.arange(3)).shape == (3, 3)
    newer = rewritten(tmp_path, path, {"format": 2})
    with pytest.raises(BankError, match="Upgrade featbank") as caught:
        open_shard(newer, SPEC)
    assert not isinstance(caught.value, DamagedShardError)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": "1"},
        {"n_rows": 4},
        {"block_rows": 32},
        {"vector_crc32": ""},
        {"key_crc32": 5},
    ],
)
def test_a_strange_record_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path, _, _ = written(tmp_path, 3)
    with pytest.raises(DamagedShardError):
        open_shard(rewritten(tmp_path, path, change), SPEC)


def test_files_that_are_no_shards_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.arrow"
    pd.DataFrame({"key": ["a"], "vector": [1.0]}).to_feather(plain, compression="uncompressed")
    with pytest.raises(DamagedShardError, match="no featbank record"):
        open_shard(plain, SPEC)
    (tmp_path / "text.arrow").write_text("not Arrow at all, but long enough to have a footer")
    with pytest.raises(DamagedShardError, match="Arrow cannot read it"):
        open_shard(tmp_path / "text.arrow", SPEC)
    with pytest.raises(FileNotFoundError):
        open_shard(tmp_path / "absent.arrow", SPEC)
