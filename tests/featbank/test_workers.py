"""Freed memory is kept: the second photo faults no page that the first one had. Workers follow a change of folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import joblib
import pytest

from featbank.workers import starting_workers

CODE = """
import resource, sys
import numpy as np
from featbank.workers import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("other library")
    raise SystemExit
for round in range(12):
    if round == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (36, 48, 60):
        np.ones(megabytes << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "other library":
        pytest.skip("the C library is not glibc")
    return int(done.stdout)


def test_large_blocks_are_not_faulted_in_again() -> None:
    kept = faults("keep")
    assert kept < faults("leave") / 20


def test_workers_kept_for_the_next_call_follow_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with starting_workers():
            folders = joblib.Parallel(n_jobs=2)(joblib.delayed(Path.cwd)() for _ in range(4))
        assert set(folders) == {tmp_path / name}
