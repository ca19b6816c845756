"""A small photo set for end-to-end tests: the real renderer at the smallest width it takes."""

from __future__ import annotations

from pathlib import Path

from featbank.demo import write_demo

SMALL_WIDTH = 320


def small_demo(folder: Path, *, n_photos: int = 40, width: int = SMALL_WIDTH, seed: int = 0) -> Path:
    """Write a demo set of small photos into ``folder`` in this process; takes a few seconds.

    Use it from a session-scoped fixture with a folder of ``tmp_path_factory``, so that a run of the tests
    renders it once.
    """
    return write_demo(folder, n_photos=n_photos, width=width, seed=seed, workers=1)
