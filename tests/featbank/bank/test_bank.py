"""A bank keeps features apart, survives being moved, and prunes only what it is told to."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank, ImageRecord
from featbank.errors import BankError
from tests.support.bank_rows import contents, fill, image_key, image_keys, names_in, open_feature, rows_of


def filled(root: Path) -> Bank:
    """A bank of three features on eight images."""
    for name in ("a", "b", "c"):
        fill(open_feature(root, name=name), range(8))
    bank = Bank(root)
    bank.images.record(ImageRecord(key, "ok") for key in image_keys(range(8)))
    return bank


def test_features_are_listed_by_label(tmp_path: Path) -> None:
    assert [feature.label for feature in filled(tmp_path).features()] == ["a", "b", "c"]
    assert [f.label for f in Bank(tmp_path / "new").features()] == []


def test_each_identity_has_its_own_folder_named_by_its_digest(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    one, two = bank.open({"epoch": 1}, 3, "same label"), bank.open({"epoch": 2}, 3, "same label")
    assert one.path != two.path
    assert one.path.name == one.digest
    fill(one, range(3))
    assert two.keys() == set()


def test_opening_again_compares_width_and_type(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    bank.open({"epoch": 1}, 3, "first label")
    assert bank.open({"epoch": 1}, 3, "second label").label == "first label"
    for width, dtype, field in ((4, "float32", "n_features"), (3, "float16", "dtype")):
        with pytest.raises(BankError, match=f"whose {field} is"):
            bank.open({"epoch": 1}, width, "x", dtype)


def test_a_damaged_specification_stops_the_opening(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    (feature.path / "spec.json").write_text("{}")
    with pytest.raises(BankError, match="Delete this file"):
        open_feature(tmp_path)
    with pytest.raises(BankError, match="Delete this file"):
        Bank(tmp_path).features()


def test_a_deleted_specification_is_written_anew_on_opening(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    keys = fill(feature, range(4))
    before = contents(tmp_path)
    (feature.path / "spec.json").unlink()
    with pytest.raises(BankError, match=r"holds shards but no spec\.json"):
        Bank(tmp_path).features()
    assert np.array_equal(open_feature(tmp_path).read(keys), rows_of(keys))
    assert contents(tmp_path) == before


def test_a_newer_feature_is_refused_clearly(tmp_path: Path) -> None:
    feature = open_feature(tmp_path)
    path = feature.path / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bank_format_version": 2}))
    for use in (lambda: open_feature(tmp_path), lambda: Bank(tmp_path).features()):
        with pytest.raises(BankError, match=r"written by a newer featbank.*Upgrade featbank"):
            use()
    (problem,) = Bank(tmp_path).verify()
    assert "Upgrade featbank" in problem.message


def test_a_moved_or_copied_bank_works(tmp_path: Path) -> None:
    filled(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    shutil.move(tmp_path / "here", tmp_path / "there")
    keys = image_keys(range(8))
    for place in ("copy", "there"):
        assert np.array_equal(open_feature(tmp_path / place, name="a").read(keys), rows_of(keys))
        assert Bank(tmp_path / place).verify() == []


def test_a_missing_bank_is_made_or_refused(tmp_path: Path) -> None:
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(BankError, match=r"there is no bank at .*`featbank features"):
            Bank(tmp_path / "absent", **options)
    assert not (tmp_path / "absent").exists()
    Bank(tmp_path / "deep" / "new")
    assert (tmp_path / "deep" / "new").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(BankError, match="must be a folder, got a file"):
        Bank(tmp_path / "file")
    with pytest.raises(BankError, match="cannot create"):
        Bank(tmp_path / "file" / "below")


def test_a_bank_that_a_neighbour_makes_at_the_same_moment_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir = Path.is_dir

    def neighbour_was_faster(path: Path) -> bool:
        found = is_dir(path)
        path.mkdir(exist_ok=True)
        monkeypatch.setattr(Path, "is_dir", is_dir)
        return found

    monkeypatch.setattr(Path, "is_dir", neighbour_was_faster)
    assert Bank(tmp_path / "new").features() == []


def test_a_read_only_bank_is_read_and_never_written_to(tmp_path: Path) -> None:
    filled(tmp_path)
    before = contents(tmp_path)
    bank = Bank(tmp_path, read_only=True)
    feature = bank.features()[0]
    keys = image_keys(range(8))
    assert np.array_equal(feature.read(keys), rows_of(keys))
    absent = bank.open({"epoch": 1}, 3, "not there")
    assert absent.missing(keys) == keys
    for write in (
        lambda: feature.append(keys, rows_of(keys)),
        feature.compact,
        feature.remove,
        lambda: absent.append(keys, rows_of(keys, 3)),
        bank.compact,
        lambda: bank.remove(feature.digest),
    ):
        with pytest.raises(BankError, match="for reading only"):
            write()
    assert bank.verify() == []
    assert contents(tmp_path) == before


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    bank = filled(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "more").mkdir()
    assert len(bank.features()) == 3
    bank.remove(bank.features()[0].digest)
    bank.compact()
    assert {"notes.txt", "more"} <= set(names_in(tmp_path))


def test_opening_sweeps_what_killed_processes_left_in_features_that_nobody_asks_for(tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")
    kept = open_feature(bank.root)
    fill(kept, range(3))
    begun, failures = bank.root / ("ab" * 32), bank.root / "failures" / kept.digest
    for folder in (begun, failures):
        folder.mkdir(parents=True)
    left = [
        folder / f".featbank-{number:032x}.json" for number, folder in enumerate((begun, failures, kept.path))
    ]
    living = begun / f".featbank-{9:032x}.json"
    for path in (*left, living):
        path.write_text("{}")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        again = Bank(bank.root)
        assert [path.exists() for path in (*left, living)] == [False, False, False, True]
    Bank(bank.root, read_only=True)
    assert living.exists()
    Bank(bank.root)
    assert not begun.exists()
    assert [feature.digest for feature in again.features()] == [kept.digest]
    assert len(kept.keys()) == 3


def test_compacting_counts_the_shards_it_merged(tmp_path: Path) -> None:
    bank = filled(tmp_path)
    bank.images.record([ImageRecord(image_key(99), "ok")])
    assert bank.compact() == 3 * 2 + 2
    assert bank.compact() == 0
    assert [feature.n_shards() for feature in bank.features()] == [1, 1, 1]


def test_removing_a_feature_leaves_the_others(tmp_path: Path) -> None:
    bank = filled(tmp_path)
    a, b, c = bank.features()
    bank.remove(b.digest)
    assert [feature.digest for feature in bank.features()] == [a.digest, c.digest]
    assert not b.path.exists()
    with pytest.raises(BankError, match="nothing was removed"):
        bank.remove(b.digest)


def test_failures_of_a_feature_are_kept_checked_and_go_with_it(tmp_path: Path) -> None:
    bank = filled(tmp_path)
    a, b, _ = bank.features()
    for feature, keys in ((a, image_keys([8])), (b, image_keys([8, 9]))):
        bank.failures_of(feature.digest).record(
            ImageRecord(key, "failed", reason="encoder", message="not finite") for key in keys
        )
        bank.failures_of(feature.digest).record([ImageRecord(keys[0], "failed", reason="memory")])
    assert bank.images.failures().empty
    assert Bank(tmp_path).failures_of(b.digest).frame().shape[0] == 2
    assert bank.verify() == []
    assert bank.compact() > 0
    assert len(names_in(bank.failures_of(b.digest).path)) == 2  # one shard and its specification

    (shard,) = bank.failures_of(a.digest).path.glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert [problem.where for problem in bank.verify()] == [f"failures of {a.digest[:12]}"]

    bank.remove(a.digest)
    assert not bank.failures_of(a.digest).path.exists()
    bank.failures_of(a.digest).remove()  # nothing there, nothing happens
