"""Run folders for the report's tests, made once each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from featbank.runs.folder import RunData, read_run
from tests.support.run_folder import RunOptions, write_photos, write_run_folder

SMALL = RunOptions(
    counts={"training": 40, "validation": 20, "test": 30}, exclusive=8, n_bootstrap=5, n_bands=3, failures=2
)

VARIANTS: dict[str, RunOptions] = {
    "whole": SMALL,
    "simulation": replace(SMALL, simulation=True),
    "no validation": replace(SMALL, counts={"training": 40, "test": 30}),
    "training only": replace(SMALL, counts={"training": 40}),
    "no MOS scale": replace(SMALL, mos_range=None),
    "one band": replace(SMALL, n_bands=1),
    "one band, training only": replace(SMALL, n_bands=1, counts={"training": 40}),
    "two bands": replace(SMALL, n_bands=2),
    "imported": replace(SMALL, imported=True),
    "no exclusive": replace(SMALL, exclusive=0),
    "no metadata": replace(SMALL, metadata=False),
    "no budget": replace(SMALL, budget=None),
    "over budget": replace(SMALL, budget=0.1),
    "no failures": replace(SMALL, failures=0),
    "svr": replace(SMALL, svr=True),
    "hundred-point scale": replace(SMALL, mos_range=(0.0, 100.0)),
    "useless": replace(SMALL, noise=200.0, seed=3),
    "tiny": replace(SMALL, counts={"training": 5, "test": 2}, exclusive=0),
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunOptions], Path]:
    """Give the run folder of some options, made once; not to be written to."""
    made: dict[str, Path] = {}

    def folder(options: RunOptions) -> Path:
        key = repr(options)
        if key not in made:
            made[key] = write_run_folder(tmp_path_factory.mktemp("runs") / "run", options)
        return made[key]

    return folder


@pytest.fixture
def make_run(tmp_path: Path, folder_of: Callable[[RunOptions], Path]) -> Callable[..., Path]:
    """Give a run folder of one's own, from ``SMALL`` with changes."""

    def make(**changes: object) -> Path:
        return Path(shutil.copytree(folder_of(replace(SMALL, **changes)), tmp_path / "run"))

    return make


@pytest.fixture(scope="session")
def small_run(folder_of: Callable[[RunOptions], Path]) -> RunData:
    """A small run, read."""
    return read_run(folder_of(SMALL))


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory, small_run: RunData) -> dict[str, Path]:
    """A photo for each test image of ``small_run``."""
    frame = small_run.predictions
    images = frame.loc[frame["split"] == "test", "image"].tolist()
    return write_photos(tmp_path_factory.mktemp("photos"), images)


def expected_misses(frame: pd.DataFrame, split: str) -> list[str]:
    """Images by falling absolute error, written without the code under test."""
    rows = frame[frame["split"] == split]
    errors = [
        (-abs(p - m), image)
        for image, m, p in zip(rows["image"], rows["mos"], rows["predicted"], strict=True)
    ]
    return [image for _, image in sorted(errors)]
