"""Thousands of damaged files through the real command: no crash, no hang, bounded memory, an outcome for each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featbank.bank import Bank
from featbank.digest import digest_bytes
from featbank.images import REASONS, Photo, read_photo
from tests.support.mutants import mutants, valid_files

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_64x64"
[[band]]
name = "keypoint"
encoder = "classic:keypoint"
view = "center_32"
"""

GROWTH_MB = 600
"""A WebP canvas among these files claims a hundred million pixels, below the limit, and libwebp makes room for it, four
bytes a pixel, before it looks at the data. Memory is bounded by the pixels that are allowed, not by the files."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells the peak memory of one process"
)


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def check_outcomes(tmp_path: Path, n_files: int, seed: int, *, growth_mb: float) -> None:
    files = dict(mutants(n_files, seed))
    write(tmp_path / "valid", {f"{n}.{suffix}": data for n, (suffix, data) in enumerate(valid_files())})
    write(tmp_path / "hostile", files)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    paths = [str(tmp_path / name) for name in ("valid", "hostile", "bank", "recipe.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile_extraction", *paths],
        capture_output=True,
        check=False,
        timeout=n_files / 4,  # a hundred times what it takes; a hang takes for ever
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == 0
    assert found["growth_mb"] < growth_mb, found

    bank = Bank(tmp_path / "bank", read_only=True)
    assert bank.verify() == []
    refused = set(bank.images.failures()["key"])
    assert set(bank.images.failures()["reason"]) <= set(REASONS)
    features = bank.features()
    assert len(features) == 2
    computed = [feature.keys() for feature in features]
    reasoned = [set(bank.failures_of(feature.digest).failures()["key"]) for feature in features]
    n_read = 0
    for name, data in files.items():
        key = digest_bytes(data)
        for has_row, has_reason in zip(computed, reasoned, strict=True):
            assert (key in has_row) + (key in refused or key in has_reason) == 1, name
        n_read += key in computed[0]
    # A generator that only makes files which are refused at the first byte would prove nothing.
    assert n_files / 10 < n_read < n_files / 2
    assert len(set(bank.images.failures()["reason"])) >= 5


def test_hundreds_of_damaged_files_each_have_an_outcome(tmp_path: Path) -> None:
    check_outcomes(tmp_path, 400, seed=1, growth_mb=100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_damaged_files_each_have_an_outcome(tmp_path: Path, seed: int) -> None:
    check_outcomes(tmp_path, 4000, seed=100 + seed, growth_mb=GROWTH_MB)


def test_the_same_seed_gives_the_same_files() -> None:
    assert list(mutants(60, 5)) == list(mutants(60, 5))
    assert dict(mutants(60, 5)).values() != dict(mutants(60, 6)).values()


def test_the_files_they_are_made_of_are_valid() -> None:
    assert all(isinstance(read_photo(data), Photo) for _, data in valid_files())
