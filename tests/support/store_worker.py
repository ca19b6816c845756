"""A process that works on a bank in an object store and can be killed at any moment; started as `bank_worker` is.

The parent imports and never connects; each child opens a connection of its own, which ends with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from featbank.bank import Bank, upkeep
from featbank.remote import RemotePath
from tests.support.bank_rows import fill, open_feature
from tests.support.bank_worker import serve


def _append(root: str, acknowledged: str) -> None:
    """Append three rows at a time, for ever; write down the number of each row after it is stored."""
    feature = open_feature(root)
    log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    start = 0 if not Path(acknowledged).exists() else len(Path(acknowledged).read_text().split())
    while True:
        numbers = range(start, start + 3)
        fill(feature, numbers)
        os.write(log, "".join(f"{number}\n" for number in numbers).encode())
        start += 3


def _fill(root: str, numbers: list[int], batch: int, compact: bool) -> None:
    """Append given rows and end; with compact, also compact after every batch, into shards of few rows."""
    upkeep.SHARD_ROWS = 8
    feature = open_feature(root)
    for start in range(0, len(numbers), batch):
        fill(feature, numbers[start : start + batch], batch)
        if compact:
            feature.compact()


def _compact(root: str) -> None:
    upkeep.SHARD_ROWS = 8
    Bank(root).compact()


def _copy(root: str, folder: str) -> None:
    """Copy everything that lies in the store below a place into a folder on the disk."""

    def walk(place: RemotePath, target: Path) -> None:
        target.mkdir(parents=True)
        for entry in place.scan():
            if entry.is_dir():
                walk(entry.place, target / entry.name)
            else:
                (target / entry.name).write_bytes(entry.place.read_bytes())

    walk(RemotePath.parse(root), Path(folder))


JOBS = {"append": _append, "fill": _fill, "compact": _compact, "copy": _copy}

if __name__ == "__main__":
    import s3fs  # noqa: F401 - so that no child spends its life on it

    serve(JOBS)
