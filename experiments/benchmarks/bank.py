"""The bank against plain numpy files, which know neither keys nor checksums nor other writers."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from featbank.bank import Bank
from featbank.digest import digest_bytes

N_ROWS, N_FEATURES, ROWS_PER_SHARD = 6144, 2048, 256


def bench_bank(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure writing and reading 6,144 rows of 2,048 columns in shards of 256 rows.

    Parameters
    ----------
    folder : Path
        Where files may be written.
    repeats : int
        Runs of each side, in turn.

    Returns
    -------
    list of dict
        Rows as those of `bench_extraction`.
    """
    matrix = np.random.default_rng(0).normal(size=(N_ROWS, N_FEATURES)).astype(np.float32)
    keys = [digest_bytes(str(number).encode()) for number in range(N_ROWS)]
    asked = [keys[position] for position in np.random.default_rng(1).permutation(N_ROWS)]
    times: dict[str, list[float]] = {name: [] for name in ("write", "read", "plain write", "plain read")}

    def timed(name: str, started: float) -> None:
        times[name].append(time.perf_counter() - started)

    for repeat in range(repeats):
        plain = folder / f"plain-{repeat}"
        plain.mkdir()
        started = time.perf_counter()
        for first in range(0, N_ROWS, ROWS_PER_SHARD):
            np.save(plain / f"{first}.npy", matrix[first : first + ROWS_PER_SHARD])
        timed("plain write", started)
        store = Bank(folder / f"rows-{repeat}").open({"bench": repeat}, N_FEATURES, "bench")
        started = time.perf_counter()
        for first in range(0, N_ROWS, ROWS_PER_SHARD):
            part = slice(first, first + ROWS_PER_SHARD)
            store.append(keys[part], matrix[part])
        timed("write", started)
        started = time.perf_counter()
        np.concatenate([np.load(plain / f"{first}.npy") for first in range(0, N_ROWS, ROWS_PER_SHARD)])
        timed("plain read", started)
        reopened = Bank(folder / f"rows-{repeat}").open({"bench": repeat}, N_FEATURES, "bench")
        started = time.perf_counter()
        reopened.read(asked)
        timed("read", started)
    middle = {name: median(values) for name, values in times.items()}
    size = f"{N_ROWS} x {N_FEATURES} float32 in shards of {ROWS_PER_SHARD}"
    return [
        {
            "what": f"bank {action} {size}",
            "seconds": middle[action],
            "baseline": f"numpy files, {action} without keys, checksum or fsync",
            "baseline_seconds": middle[f"plain {action}"],
            "ratio": middle[f"plain {action}"] / middle[action],
        }
        for action in ("write", "read")
    ]
