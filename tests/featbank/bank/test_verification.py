"""Verify finds every damage there can be, and nothing where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.bank import Bank, FeatureFolder
from featbank.bank.place import shard_name, store_at
from featbank.bank.shard import encode_shard, parse_keys
from tests.support.bank_rows import fill, image_key, image_keys, open_feature, rows_of


def kinds(feature: FeatureFolder) -> list[str]:
    return sorted(problem.kind for problem in feature.verify())


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureFolder, Path, bytes]:
    feature = open_feature(tmp_path_factory.mktemp("verify"))
    fill(feature, range(12))
    path = feature.path / feature.shard_names()[1]
    return feature, path, path.read_bytes()


def test_a_sound_feature_has_no_problem(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    assert kinds(feature) == []
    fill(feature, range(200), batch=70)
    assert kinds(feature) == []


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(shard: tuple[FeatureFolder, Path, bytes], place: float, bit: int) -> None:
    feature, path, data = shard
    changed = bytearray(data)
    changed[int(place * len(data))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        (problem,) = feature.verify()
        assert (problem.kind, problem.path) == ("checksum", path)
    finally:
        path.write_bytes(data)


@given(length=st.floats(0, 1, exclude_max=True))
def test_any_cut_is_found(shard: tuple[FeatureFolder, Path, bytes], length: float) -> None:
    feature, path, data = shard
    path.write_bytes(data[: int(length * len(data))])
    try:
        assert [problem.path for problem in feature.verify()] == [path]
    finally:
        path.write_bytes(data)


def test_a_shard_of_another_feature_is_found(tmp_path: Path) -> None:
    mine, other = open_feature(tmp_path), open_feature(tmp_path, name="other")
    fill(other, range(4))
    name = other.shard_names()[0]
    store_at(mine.path).put(name, (other.path / name).read_bytes())
    assert kinds(mine) == ["unreadable"]


def test_a_renamed_shard_is_found(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(8))
    first, second = (feature.path / name for name in feature.shard_names())
    first.rename(feature.path / "first.arrow")
    second.rename(feature.path / f"{'0' * 64}.arrow")
    assert kinds(feature) == ["checksum", "stray"]


def foreign(feature: FeatureFolder, keys: list[str], vectors: np.ndarray) -> None:
    """Write a shard past the checks of append."""
    data = encode_shard(feature.spec, parse_keys(keys), vectors.astype(feature.dtype))
    store_at(feature.path).put(shard_name(data), data)


def test_numbers_that_are_not_finite_are_found_with_their_image(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = sorted(image_keys(range(3)))
    foreign(feature, keys, np.array([[1, 2, 3, 4, 5], [1, np.nan, 3, 4, 5], [1, 2, 3, 4, -np.inf]]))
    (problem,) = feature.verify()
    assert problem.kind == "not-finite"
    assert keys[1] in problem.message
    assert keys[2] in problem.message


def test_keys_out_of_order_are_found(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = sorted(image_keys(range(3)), reverse=True)
    foreign(feature, keys, rows_of(keys))
    assert kinds(feature) == ["order"]


@pytest.mark.parametrize(("dtype", "factor", "expected"), [
    ("float32", 1 + 1e-5, []), ("float32", 1 + 1e-2, ["disagreement"]),
    ("float16", 1 + 1e-3, []), ("float16", 1 + 1e-2, ["disagreement"]),
])  # fmt: skip
def test_rows_that_disagree_beyond_rounding_are_found(
    tmp_path: Path, dtype: str, factor: float, expected: list[str]
) -> None:
    feature = open_feature(tmp_path, dtype=dtype)
    keys = fill(feature, range(8), batch=8)
    feature.append(keys[2:5], rows_of(keys[2:5]) * factor)
    assert kinds(feature) == expected
    if expected:
        text = " ".join(problem.message for problem in feature.verify())
        assert sum(key in text for key in keys[2:5]) == 3


def test_each_pair_of_shards_that_disagree_is_found(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    key = [image_key(0)]
    names = sorted(feature.append(key, np.full((1, 5), value)).name for value in (1, 2, 3))
    messages = [problem.message for problem in feature.verify()]
    assert len(messages) == 2
    assert all(f"{names[0]} (served)" in message for message in messages)


def test_a_damaged_or_missing_specification_is_found(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(4))
    path = feature.path / "spec.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"n_features": 6}))
    assert kinds(feature) == ["specification"]
    path.write_text(text[:20])
    assert kinds(feature) == ["specification"]
    path.unlink()
    assert kinds(feature) == ["specification"]


def test_a_bank_checks_all_features_even_those_without_specification(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fill(open_feature(tmp_path, name=name), range(4))
    assert Bank(tmp_path).verify() == []
    a, b, _ = Bank(tmp_path).features()
    (a.path / "spec.json").write_text("{")
    for feature in (a, b):
        path = feature.path / feature.shard_names()[0]
        path.write_bytes(path.read_bytes()[:-1])
    problems = Bank(tmp_path).verify()
    assert sorted((p.path.parent.name, p.kind) for p in problems) == sorted(
        [(a.digest, "specification"), (a.digest, "checksum"), (b.digest, "checksum")]
    )


def test_leftovers_of_a_killed_writer_are_no_problem(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(4))
    (feature.path / f".featbank-{'a' * 32}.arrow").write_bytes(b"half")
    (tmp_path / ("e" * 64)).mkdir()
    assert Bank(tmp_path).verify() == []
    assert len(Bank(tmp_path).features()) == 1
