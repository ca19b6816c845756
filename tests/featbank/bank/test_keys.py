"""Keys are found as a dictionary would find them, whatever bytes they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.bank.rows import KeyIndex
from featbank.bank.shard import format_keys, parse_keys
from tests.support.bank_rows import image_keys

# Few distinct bytes, many zeros: keys that share prefixes and end in zero bytes, which numpy's text drops.
raw_keys = st.lists(st.sampled_from([0, 0, 1, 128, 255]), min_size=32, max_size=32).map(bytes)


@given(st.lists(raw_keys, max_size=20))
def test_keys_survive_the_way_to_bytes_and_back(raw: list[bytes]) -> None:
    keys = [key.hex() for key in raw]
    assert format_keys(parse_keys(keys)) == keys
    assert parse_keys(keys).tobytes() == b"".join(raw)


@pytest.mark.parametrize(
    "bad", ["", "ab", "A" * 64, "g" * 64, " " * 64, "0" * 63 + " ", "0" * 62, "0" * 66, "é" * 64]
)
def test_a_malformed_key_is_refused_by_name(bad: str) -> None:
    good = image_keys(range(3))
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits") as caught:
        parse_keys([*good, bad, "0" * 64])
    assert repr(bad) in str(caught.value)


def test_two_malformed_keys_do_not_make_up_for_each_other() -> None:
    with pytest.raises(ValueError, match="64 lower-case"):
        parse_keys(["0" * 62, "0" * 66])


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.lists(raw_keys, unique=True, max_size=12), max_size=5
    ),
    st.lists(raw_keys, max_size=12),
)
def test_the_index_finds_what_a_dictionary_finds(shards: dict[str, list[bytes]], asked: list[bytes]) -> None:
    model: dict[bytes, tuple[str, int]] = {}
    for name in sorted(shards, reverse=True):  # the smallest name has the last word
        model.update({key: (name, row) for row, key in enumerate(shards[name])})
    columns = {name: np.frombuffer(b"".join(keys), dtype="S32") for name, keys in shards.items()}
    index = KeyIndex.build(columns)
    assert format_keys(index.keys) == [key.hex() for key in sorted(model)]
    wanted = [*asked, *model]
    positions = index.locate(np.frombuffer(b"".join(wanted), dtype="S32"))
    for key, position in zip(wanted, positions.tolist(), strict=True):
        if key in model:
            assert (index.names[index.shard[position]], int(index.row[position])) == model[key]
        else:
            assert position == -1
