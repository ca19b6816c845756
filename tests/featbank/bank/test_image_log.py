"""Of all records of an image the same one counts, whoever wrote them, when, and how often."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.bank import Bank, ImageLog, ImageRecord
from featbank.errors import BankError
from tests.support.bank_rows import contents, image_key, image_keys, names_in

OK = ImageRecord(
    image_key(0), "ok", "a.jpg", n_bytes=9, width=3, height=2, format="JPEG", mode="RGB", actions=("x", "y")
)
FAILED = ImageRecord(image_key(1), "failed", "b.jpg", "truncated", "b.jpg ends too early", epoch=1)
UNREADABLE = ImageRecord("", "failed", "c.jpg", "permission", "may not be read")

records = st.builds(
    lambda key, failed, path, reason, actions, epoch: ImageRecord(
        key,
        "failed" if failed or not key else "ok",
        path,
        reason if failed or not key else "",
        actions=actions,
        epoch=epoch,
    ),
    st.sampled_from(["", *image_keys(range(3))]),
    st.booleans(),
    st.sampled_from(["a", "b", "\udcff"]),
    st.sampled_from(["empty", "truncated"]),
    st.lists(st.sampled_from(["gray", "icc"]), max_size=2).map(tuple),
    st.integers(0, 2),
)


def log_in(folder: Path) -> ImageLog:
    return Bank(folder).images


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record([OK, FAILED, UNREADABLE])
    frame = log_in(tmp_path).frame().set_index("path")
    assert list(frame.loc["a.jpg", "actions"]) == ["x", "y"]
    assert frame.loc["a.jpg", ["width", "height", "n_bytes", "format"]].tolist() == [3, 2, 9, "JPEG"]
    assert frame.loc["b.jpg", ["key", "status", "reason"]].tolist() == [image_key(1), "failed", "truncated"]
    assert len(log.frame()) == 3


def test_no_record_is_no_shard(tmp_path: Path) -> None:
    assert log_in(tmp_path).record([]) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"key": "x", "status": "ok"},
        {"key": "", "status": "ok", "path": "a"},
        {"key": "", "status": "failed", "reason": "empty"},
        {"key": image_key(0), "status": "fine"},
        {"key": image_key(0), "status": "failed"},
        {"key": image_key(0), "status": "ok", "reason": "empty"},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ImageRecord: "):
        ImageRecord(**fields)


def test_failures_are_those_without_a_success(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert log.failures().empty
    assert {"key", "reason", "message"} <= set(log.failures().columns)
    log.record([OK, FAILED, UNREADABLE])
    assert log.failures()["path"].tolist() == ["c.jpg", "b.jpg"]
    log.record([ImageRecord(FAILED.key, "ok", epoch=1)])
    assert log.failures()["path"].tolist() == ["c.jpg"]
    log.record(
        [ImageRecord(FAILED.key, "failed", reason="empty", epoch=1)]
    )  # a success of the same rules stays
    assert log.failures()["path"].tolist() == ["c.jpg"]
    log.record([ImageRecord(FAILED.key, "failed", reason="empty", epoch=2)])  # newer rules see it otherwise
    assert log.failures()["reason"].tolist() == ["permission", "empty"]
    log.record([ImageRecord(image_key(7), "ok", "c.jpg")])  # the file can be read after all
    assert log.failures()["reason"].tolist() == ["empty"]


@given(
    st.lists(records, max_size=12), st.lists(st.integers(1, 4), max_size=8), st.randoms(use_true_random=False)
)
def test_the_order_of_writing_does_not_matter(rows: list[ImageRecord], sizes: list[int], random: Any) -> None:
    with tempfile.TemporaryDirectory() as root:
        a, b = log_in(Path(root) / "a"), log_in(Path(root) / "b")
        a.record(rows)
        shuffled = random.sample(rows, len(rows)) + rows[:2]
        for size in [*sizes, len(shuffled)]:
            b.record(shuffled[:size])
            del shuffled[:size]
        pd.testing.assert_frame_equal(a.frame(), b.frame())
        pd.testing.assert_frame_equal(a.failures(), b.failures())
        a.compact()
        b.compact()
        assert contents(a.path) == contents(b.path)
        pd.testing.assert_frame_equal(a.frame(), b.frame())
        assert a.verify() == []
        before = contents(a.path)
        assert a.compact() == 0
        assert contents(a.path) == before


@given(st.lists(records, max_size=12))
def test_the_record_that_counts_is_found_as_by_hand(rows: list[ImageRecord]) -> None:
    expected = {}
    for row in sorted(rows, key=lambda row: (row.epoch, row.status == "ok")):
        expected[row.key, "" if row.key else row.path] = (row.epoch, row.status)
    for key, path in list(expected):
        if not key and any(row.key and row.path == path for row in rows):
            del expected[key, path]
    with tempfile.TemporaryDirectory() as root:
        log = log_in(Path(root))
        log.record(rows)
        frame = log.frame()
    found = {
        (key, "" if key else path): (epoch, status)
        for key, path, epoch, status in zip(
            frame["key"], frame["path"], frame["epoch"], frame["status"], strict=True
        )
    }
    assert found == expected


def test_recording_the_same_again_changes_nothing(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record([OK, FAILED])
    before = contents(tmp_path)
    log.record([FAILED, OK, OK])
    assert contents(tmp_path) == before


def test_a_name_that_is_no_text_is_kept_readable(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record([ImageRecord("", "failed", "caf\udce9.jpg", "gone", "cannot open caf\udce9.jpg")])
    assert log.failures()["path"].tolist() == ["caf\\xe9.jpg"]


def test_damage_is_found_and_never_read(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    path = log.record([OK, FAILED])
    assert path is not None
    data = path.read_bytes()
    where = data.index(b"truncated")
    path.write_bytes(data.replace(b"truncated", b"Truncated"))
    assert path.read_bytes()[where] == ord("T")
    assert [problem.kind for problem in log.verify()] == ["checksum"]
    with pytest.raises(BankError, match="is damaged"):
        log_in(tmp_path).frame()


def test_a_newer_log_is_refused_when_the_bank_is_opened(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.record([OK])
    spec = log.path / "spec.json"
    assert names_in(log.path)[-1] == "spec.json"
    spec.write_text(json.dumps({"bank_format_version": 2, "kind": "image-log"}))
    with pytest.raises(BankError, match="Upgrade featbank"):
        Bank(tmp_path)
    assert [problem.kind for problem in log.verify()] == ["specification"]


def test_a_read_only_log_is_read(tmp_path: Path) -> None:
    log_in(tmp_path).record([OK, FAILED])
    log = Bank(tmp_path, read_only=True).images
    assert len(log.failures()) == 1
    for write in (lambda: log.record([OK]), log.compact):
        with pytest.raises(BankError, match="for reading only"):
            write()


def test_other_tools_read_the_log_without_this_package(tmp_path: Path) -> None:
    path = log_in(tmp_path).record([OK, FAILED])
    assert sorted(pd.read_feather(path)["status"]) == ["failed", "ok"]
