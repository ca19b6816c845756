"""Files made to cost time or memory: each is refused, or read, before that costs more than a photo does."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.errors import ImageError
from featbank.images import read_photo
from tests.featbank.images.test_memory import grow
from tests.support.bombs import bombs, jpeg_scans
from tests.support.odd_cases import Case, picture

LONGEST_S = 3.0
"""Without their limits the worst of these files take from ten seconds to a minute."""


def outcome(data: bytes) -> str | None:
    try:
        read_photo(data)
    except ImageError as error:
        return error.reason
    return None


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(bombs())


def test_what_repeats_is_refused_or_read_in_no_time(cases: list[Case]) -> None:
    for case in cases:
        took = []
        while not took or (
            took[-1] >= LONGEST_S and len(took) < 3
        ):  # busy neighbours make a processor slower
            # Of this thread alone: threads that other tests of the process left behind count in the process's time.
            started = time.thread_time()
            assert outcome(case.data) == case.reason, case.name
            took.append(time.thread_time() - started)
        assert took[-1] < LONGEST_S, case.name


def test_what_repeats_takes_no_more_memory_than_a_photo(cases: list[Case], tmp_path: Path) -> None:
    paths = []
    for case in cases:
        paths.append(tmp_path / case.name)
        paths[-1].write_bytes(case.data)
    found = grow(paths)
    assert len(found) == len(paths)
    assert max(mb for _, mb in found.values()) < 120, found


def test_as_many_scans_as_are_allowed_are_read() -> None:
    assert outcome(jpeg_scans(99)) is None  # with the one of the means, a hundred
    assert outcome(jpeg_scans(100)) == "too-large"


def test_a_film_behind_a_progressive_photo_is_not_counted_as_scans() -> None:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG", progressive=True, quality=90)
    plain = file.getvalue()
    assert np.array_equal(read_photo(plain + b"\xff\xda\0\2" * 999).pixels, read_photo(plain).pixels)
