"""Damaged inputs of every reader: each is read, or refused with a sentence, within a gigabyte and ten seconds."""

import sys

import pytest

from tests.support.fuzz import FINE, READERS, run_batch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of one process")
QUICK = {"recipe": 60, "student": 40, "photo": 60}


@pytest.mark.parametrize(
    ("reader", "n_inputs"),
    [
        *QUICK.items(),
        *(pytest.param(name, 200, marks=pytest.mark.slow) for name in READERS if name not in QUICK),
    ],
)
def test_damaged_inputs_are_read_or_refused(reader: str, n_inputs: int) -> None:
    found = list(run_batch(reader, 7, range(n_inputs)))
    assert len(found) == n_inputs
    assert [entry for entry in found if entry[2] not in FINE] == []
    # A generator whose files are all refused at the first byte would prove nothing.
    assert len({entry[2] for entry in found}) == 2
