"""What a feature is follows from its identity alone, and is compared in full."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.bank.shard import FeatureSpec, read_spec
from featbank.digest import digest_json
from featbank.errors import BankError

IDENTITY = {"encoder": {"name": "classic:test", "epoch": 1}, "view": ["center", 480], "pool": "mean"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
identities = st.dictionaries(st.text(max_size=3), json_values, max_size=4)


def spec_of(identity: dict[str, Any] | None = None, **other: Any) -> FeatureSpec:
    values = {"n_features": 4, "dtype": "float32", "label": "a test"} | other
    return FeatureSpec(IDENTITY if identity is None else identity, **values)


@given(identities)
def test_a_specification_survives_the_disk(identity: dict[str, Any]) -> None:
    spec = spec_of(identity)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / spec.digest
        spec.write(folder)
        assert read_spec(folder) == spec
        assert read_spec(folder).digest == folder.name == digest_json(identity)
        first = (folder / "spec.json").read_bytes()
        read_spec(folder).write(folder)
        assert (folder / "spec.json").read_bytes() == first


@given(identities, identities)
def test_features_share_a_folder_only_when_their_identities_are_equal(a: Any, b: Any) -> None:
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (spec_of(a).digest == spec_of(b).digest) == same


def test_the_order_of_a_dictionary_does_not_matter() -> None:
    assert spec_of(dict(reversed(IDENTITY.items()))).digest == spec_of().digest


def test_tuples_are_lists_as_they_are_on_disk() -> None:
    assert spec_of({"view": (1, 2)}) == spec_of({"view": [1, 2]})


@pytest.mark.parametrize("identity", [{1: "a", 10: "b", 2: "c"}, {"a": float("nan")}, {"a": object()}, [1]])
def test_an_identity_without_one_spelling_is_refused(identity: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        spec_of(identity)


@pytest.mark.parametrize(
    "other",
    [{"n_features": 0}, {"n_features": 2.0}, {"n_features": True}, {"dtype": "float64"}, {"label": None}],
)
def test_malformed_fields_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="bank: "):
        spec_of(**other)


@pytest.mark.parametrize("other", [{"n_features": 5}, {"dtype": "float16"}])
def test_a_difference_is_an_error_that_names_it(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(BankError, match=next(iter(other))):
        spec_of(**other).check_agrees(spec_of(), tmp_path)


def test_another_label_is_no_difference(tmp_path: Path) -> None:
    spec_of(label="renamed").check_agrees(spec_of(), tmp_path)


def edited(folder: Path, **change: Any) -> Path:
    content = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(content | change))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec_of().write(tmp_path / spec_of().digest)
    return tmp_path / spec_of().digest


def test_a_newer_version_is_refused_with_the_cure(folder: Path) -> None:
    with pytest.raises(BankError, match=r"version 2.*reads version 1.*Upgrade featbank"):
        read_spec(edited(folder, bank_format_version=2))


def test_an_older_version_is_refused_with_the_cure(folder: Path) -> None:
    with pytest.raises(BankError, match=r"version 0.*reads version 1.*an older featbank.*`--bank DIR`"):
        read_spec(edited(folder, bank_format_version=0))


@pytest.mark.parametrize("version", [-1, "1", None, 1.5])
def test_an_unknown_version_is_refused(folder: Path, version: Any) -> None:
    with pytest.raises(BankError, match="format version"):
        read_spec(edited(folder, bank_format_version=version))


def test_an_identity_that_does_not_fit_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(BankError, match="its folder is named"):
        read_spec(edited(folder, identity=IDENTITY | {"pool": "max"}))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"bank_format_version": 1}', "\xff"])
def test_a_damaged_file_is_refused_with_the_cure(folder: Path, text: str) -> None:
    (folder / "spec.json").write_text(text, encoding="latin-1")
    with pytest.raises(BankError, match=r"Delete\s+this file"):
        read_spec(folder)


def test_a_folder_without_specification_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_spec(tmp_path)
