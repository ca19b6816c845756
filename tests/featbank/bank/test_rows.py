"""A reader looks again when shards vanish, but not for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featbank.bank import rows
from featbank.bank.rows import RELIST_LIMIT, relisting
from featbank.errors import BankError
from tests.support.bank_rows import fill, open_feature, rows_of


def test_reading_is_tried_again_when_a_file_is_gone(tmp_path: Path) -> None:
    attempts = []

    def read() -> str:
        attempts.append(1)
        if len(attempts) < 4:
            raise FileNotFoundError
        return "done"

    assert relisting(tmp_path, read) == "done"
    assert len(attempts) == 4


def test_a_folder_that_is_never_still_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(rows.time, "sleep", pauses.append)

    def read() -> None:
        raise FileNotFoundError

    with pytest.raises(BankError, match=f"vanished {RELIST_LIMIT} times") as caught:
        relisting(tmp_path, read)
    assert str(tmp_path) in str(caught.value)
    assert len(pauses) == RELIST_LIMIT
    assert sum(pauses) < 5


def test_a_shard_that_vanishes_between_listing_and_reading_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, neighbour = open_feature(tmp_path), open_feature(tmp_path)
    keys = fill(neighbour, range(20))
    reader.keys()  # knows the small shards
    gather = rows.RowReader.gather

    def late(self: object, index: object, positions: object, out: object) -> None:
        monkeypatch.setattr(rows.RowReader, "gather", gather)
        neighbour.compact()
        gather(self, index, positions, out)  # type: ignore[arg-type]

    monkeypatch.setattr(rows.RowReader, "gather", late)
    assert np.array_equal(reader.read(keys), rows_of(keys))
    assert reader.n_shards() == 1
