"""What is appended is read, in the order asked; what must not enter does not."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank
from featbank.errors import BankError, MissingFeaturesError
from tests.support.bank_rows import fill, image_key, image_keys, names_in, open_feature, rows_of


def test_rows_come_back_in_the_order_asked(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = fill(feature, range(20))
    asked = [keys[i] for i in (19, 0, 7, 7, 3)]
    found = feature.read(asked)
    assert found.dtype == np.float32
    assert np.array_equal(found, rows_of(asked))
    assert feature.keys() == set(keys)
    assert feature.read([]).shape == (0, 5)


def test_missing_keys_come_once_in_the_order_asked(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(4))
    asked = image_keys([9, 1, 8, 9, 2])
    assert feature.missing(asked) == image_keys([9, 8])
    assert feature.missing([]) == []


def test_reading_what_is_missing_names_it_and_the_command(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(4))
    with pytest.raises(MissingFeaturesError, match=r"2 are missing.*featbank features") as caught:
        feature.read(image_keys([0, 8, 1, 9]))
    assert image_key(8) in str(caught.value)


def test_the_order_of_an_append_does_not_change_the_file(tmp_path: Path) -> None:
    keys = image_keys(range(10))
    a = open_feature(tmp_path / "a").append(keys, rows_of(keys))
    b = open_feature(tmp_path / "b").append(keys[::-1], rows_of(keys[::-1]))
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()


def test_appending_twice_is_appending_once(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = image_keys(range(3))
    assert feature.append(keys, rows_of(keys)) == feature.append(keys, rows_of(keys))
    assert feature.n_shards() == 1


def test_a_key_may_repeat_in_a_batch_with_equal_numbers_only(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = image_keys([1, 2, 1, 1])
    vectors = rows_of(keys)
    feature.append(keys, vectors)
    assert len(feature.keys()) == 2
    vectors[3, 0] += 1
    with pytest.raises(BankError, match="two different vectors") as caught:
        feature.append(keys, vectors)
    assert image_key(1) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_image(tmp_path: Path, value: float) -> None:
    feature = open_feature(tmp_path)
    keys = image_keys(range(6))
    vectors = rows_of(keys)
    vectors[[2, 4], 1] = value
    with pytest.raises(BankError, match=r"2 of 6 rows .* NaN or infinities") as caught:
        feature.append(keys, vectors)
    assert keys[2] in str(caught.value)
    assert keys[4] in str(caught.value)
    assert keys[0] not in str(caught.value)
    assert feature.keys() == set()


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 65504.0), ("float32", float(np.finfo("f4").max))])
def test_a_number_too_large_for_the_stored_type_is_refused(tmp_path: Path, dtype: str, limit: float) -> None:
    feature = open_feature(tmp_path, 1, dtype)
    key = image_keys([0])
    feature.append(key, np.array([[-limit]]))
    assert feature.read(key)[0, 0] == -limit
    with pytest.raises(BankError, match=f"the largest {dtype}"):
        feature.append(image_keys([1]), np.array([[limit * 1.01]]))


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    feature = open_feature(tmp_path, dtype="float16")
    keys = image_keys(range(50))
    vectors = np.random.default_rng(0).normal(size=(50, 5))
    feature.append(keys, vectors)
    assert np.array_equal(feature.read(keys), vectors.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (2, 5), (15,), (3, 5, 1), (0, 5)])
def test_a_wrong_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BankError, match=r"shape \(3, 5\)"):
        open_feature(tmp_path).append(image_keys(range(3)), np.zeros(shape))


@pytest.mark.parametrize("kind", ["object", "complex128", "U4"])
def test_what_is_not_a_number_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BankError, match="takes numbers"):
        open_feature(tmp_path).append(image_keys(range(3)), np.zeros((3, 5)).astype(kind))


def test_an_empty_batch_and_a_malformed_key_are_slips_of_the_caller(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    with pytest.raises(ValueError, match="at least one row"):
        feature.append([], np.zeros((0, 5)))
    for use in (
        lambda: feature.append(["x"], np.zeros((1, 5))),
        lambda: feature.read(["x"]),
        lambda: feature.missing(["x"]),
    ):
        with pytest.raises(ValueError, match="64 lower-case"):
            use()


def test_the_given_array_is_not_changed(tmp_path: Path) -> None:
    keys = image_keys(range(5))
    vectors = rows_of(keys).astype(np.float64)
    vectors.setflags(write=False)
    before = vectors.copy()
    open_feature(tmp_path).append(keys, vectors)
    assert np.array_equal(vectors, before)


def test_of_two_rows_of_one_image_the_one_in_the_smallest_shard_name_is_served(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    key = image_keys([0])
    shards = {feature.append(key, np.full((1, 5), value)).name: value for value in range(8)}
    assert feature.read(key)[0, 0] == shards[min(shards)]
    assert open_feature(tmp_path).read(key)[0, 0] == shards[min(shards)]


def test_another_handle_sees_new_rows_and_a_pickled_one_works(tmp_path: Path) -> None:
    first, second = open_feature(tmp_path), open_feature(tmp_path)
    keys = fill(first, range(8))
    assert np.array_equal(second.read(keys), rows_of(keys))
    copy = pickle.loads(pickle.dumps(second))
    assert len(pickle.dumps(second)) < 2000  # the remembered keys stay at home
    more = fill(second, range(8, 12))
    assert np.array_equal(copy.read(keys + more), rows_of(keys + more))


def test_a_damaged_shard_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = image_keys(range(4))
    path = feature.append(keys, rows_of(keys))
    data = path.read_bytes()
    where = data.index(np.sort(rows_of(keys), axis=None)[-1].tobytes())
    path.write_bytes(data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :])
    with pytest.raises(BankError, match="Delete this one file") as caught:
        open_feature(tmp_path).read(keys)
    assert str(path) in str(caught.value)


def test_a_feature_removed_under_a_writer_comes_back_whole(tmp_path: Path) -> None:
    writer = open_feature(tmp_path)
    fill(writer, range(4))
    open_feature(tmp_path).remove()
    assert not writer.path.exists()
    assert writer.keys() == set()
    keys = fill(writer, range(4, 8))
    (again,) = Bank(tmp_path).features()
    assert np.array_equal(again.read(keys), rows_of(keys))
    assert again.identity == writer.identity


def test_removing_spares_files_that_are_not_ours(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    fill(feature, range(4))
    (feature.path / "notes.txt").write_text("mine")
    feature.remove()
    assert names_in(feature.path) == ["notes.txt", "spec.json"]
    assert Bank(tmp_path).features()[0].keys() == set()


def test_keys_are_found_without_reading_the_vectors(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = image_keys(range(4))
    path = feature.append(keys, rows_of(keys))
    data = path.read_bytes()
    where = data.index(rows_of(sorted(keys)).tobytes())
    path.write_bytes(data[:where] + bytes(80) + data[where + 80 :])
    fresh = open_feature(tmp_path)
    assert fresh.keys() == set(keys)
    assert fresh.missing(keys) == []
    with pytest.raises(BankError, match="checksum"):
        fresh.read(keys[:1])
