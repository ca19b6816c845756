"""Digests depend on content alone: not on order, process or place."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.digest import canonical_json, digest_bytes, digest_file, digest_json, seed_from
from featbank.errors import FeatbankError, ImageError, unknown_name
from featbank.keys import key_of_name, keys_of_files

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reverse_order(value: object) -> object:
    if isinstance(value, dict):
        return {key: reverse_order(value[key]) for key in reversed(value)}
    return [reverse_order(item) for item in value] if isinstance(value, list) else value


@given(json_values)
def test_dictionary_order_does_not_count_and_content_survives(value: object) -> None:
    assert digest_json(reverse_order(value)) == digest_json(value)
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 5), min_size=1), st.data())
def test_any_changed_field_changes_the_digest(value: dict[str, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    assert digest_json({**value, key: value[key] + 1}) != digest_json(value)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"JSON compliant"):
        digest_json({"a": float("nan")})
    with pytest.raises(TypeError):
        digest_json({"a": object()})


def test_files_and_bytes_agree_with_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"photo")
    assert digest_file(tmp_path / "file") == digest_bytes(b"photo") == hashlib.sha256(b"photo").hexdigest()


def test_seeds_are_the_same_in_another_process() -> None:
    code = "from featbank.digest import seed_from; print(seed_from('a', 'b'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == seed_from("a", "b") != seed_from("ab")


def test_keys_of_files_follow_bytes_and_gaps_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"same")
    (tmp_path / "b.jpg").write_bytes(b"same")
    keys = keys_of_files([tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "gone.jpg", tmp_path])
    assert keys == [digest_bytes(b"same"), digest_bytes(b"same"), None, None]


def test_keys_of_names_tell_datasets_apart() -> None:
    assert key_of_name("a", "1.jpg") != key_of_name("b", "1.jpg")
    assert len(key_of_name("a", "1.jpg")) == 64


def test_unknown_names_bring_near_ones() -> None:
    message = str(unknown_name("view", "grid3", ["grid3_518", "full_512"], "featbank list views"))
    assert "'grid3_518'" in message
    assert "featbank list views" in message


def test_an_image_error_crosses_processes_whole() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("truncated", "cut short")))
    assert (error.reason, str(error)) == ("truncated", "cut short")
    assert isinstance(error, FeatbankError)
