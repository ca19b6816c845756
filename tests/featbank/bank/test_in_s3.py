"""A bank in S3 keeps what a bank on a disk keeps: kills, rivals and racing compactions cost no row."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from featbank.bank import Bank, upkeep
from tests.support.bank_rows import contents, fill, image_keys, open_feature, rows_of
from tests.support.bank_worker import Worker, worker
from tests.support.s3_server import BUCKET, s3_server

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "flask")),
    reason="needs the optional packages s3fs and moto[server]",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process whose children work on an S3 server of this machine."""
    with (
        s3_server(tmp_path_factory.mktemp("s3")) as server,
        worker("tests.support.store_worker", server.environment) as running,
    ):
        yield running


def finish(store: Worker, *pids: int) -> None:
    assert [store.wait(pid) for pid in pids] == [0] * len(pids)


def copy(store: Worker, root: str, folder: Path) -> Path:
    finish(store, store.start("copy", root=root, folder=str(folder)))
    return folder


def test_kills_while_writing_leave_no_half_file_and_lose_nothing_acknowledged(
    store: Worker, tmp_path: Path
) -> None:
    root, acknowledged = f"s3://{BUCKET}/killed", tmp_path / "acknowledged"
    dice = random.Random(0)
    for n_kills in range(1, 3):
        before = len(acknowledged.read_text().split()) if n_kills > 1 else 0
        pid = store.start("append", root=root, acknowledged=str(acknowledged))
        deadline = time.monotonic() + 120
        while not acknowledged.exists() or len(acknowledged.read_text().split()) < before + 6:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert store.wait(pid) == -signal.SIGKILL
    bank = copy(store, root, tmp_path / "bank")
    assert Bank(bank).verify() == []
    keys = image_keys([int(number) for number in acknowledged.read_text().split()])
    feature = open_feature(bank)
    assert np.array_equal(feature.read(keys), rows_of(keys))
    assert {path.name for path in feature.path.iterdir()} == {"spec.json", *feature.shard_names()}


def test_rivals_and_racing_compactions_end_in_the_bank_of_one_writer(
    store: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"s3://{BUCKET}/rivals"
    shares = {True: list(range(40)), False: list(range(59, 19, -1))}  # one compacts all the time
    pids = [store.start("fill", root=root, numbers=n, batch=9, compact=c) for c, n in shares.items()]
    finish(store, *pids)
    finish(store, *(store.start("compact", root=root) for _ in range(2)))  # at once
    finish(store, store.start("compact", root=root))
    monkeypatch.setattr(upkeep, "SHARD_ROWS", 8)
    alone = open_feature(tmp_path / "alone")
    fill(alone, range(60))
    alone.compact()
    assert contents(copy(store, root, tmp_path / "bank")) == contents(tmp_path / "alone")
