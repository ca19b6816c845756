"""Extraction against the loop that most feature toolkits run, and against decoding alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from joblib import cpu_count
from PIL import Image

from featbank.bank import Bank
from featbank.datasets import read_dataset
from featbank.extract import FeatureRequest, extract
from featbank.feature import Feature, make_feature
from featbank.images import read_photo
from featbank.recipes.reading import read_recipe


def bench_extraction(data: Path, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure recipe ``starter`` on a dataset.

    Parameters
    ----------
    data : Path
        Dataset folder.
    folder : Path
        Where banks may be written.
    repeats : int
        Runs of each side, in turn.

    Returns
    -------
    list of dict
        One row for each comparison: ``what``, ``seconds`` (median), ``baseline``, ``baseline_seconds``,
        ``ratio`` (baseline / ours; above 1 is faster).
    """
    table = read_dataset(data)
    images = list(zip(table.frame["image_id"], table.frame["path"], strict=True))
    requests = [
        FeatureRequest(band.encoder, band.view, band.aggregate) for band in read_recipe("starter").bands
    ]
    features = [make_feature(request.encoder, request.view, request.aggregate) for request in requests]
    paths = [path for _, path in images]
    count = iter(range(10**6))

    def ours(workers: int) -> Callable[[], object]:
        return lambda: extract(images, requests, Bank(folder / f"bank-{next(count)}"), workers=workers)

    full = folder / "bank-full"
    extract(images, requests, Bank(full), workers=cpu_count())
    times = _in_turn(
        {
            "plain": lambda: _plain_loop(paths, features),
            "one": ours(1),
            "all": ours(cpu_count()),
            "again": lambda: extract(images, requests, Bank(full), workers=1),
            "pillow": lambda: _decode_each(lambda path: np.asarray(Image.open(path).convert("RGB")), paths),
            "decode": lambda: _decode_each(read_photo, paths),
        },
        repeats,
    )
    n = len(paths)
    plain = "decode for each encoder with Pillow, one process"
    return [
        _row(f"extract starter, {n} photos, 1 process", times["one"], plain, times["plain"]),
        _row(f"extract starter, {n} photos, {cpu_count()} processes", times["all"], plain, times["plain"]),
        _row("extract again, nothing to do", times["again"], "extract, 1 process", times["one"]),
        _row(
            f"decode {n} photos, digest and checks included",
            times["decode"],
            "decode with Pillow",
            times["pillow"],
        ),
        _row("extract, 1 process", times["one"], "limit: decoding alone", times["decode"]),
    ]


def _decode_each(decode: Callable[[str], object], paths: list[str]) -> None:
    """Decode and drop, as extraction does: photos kept side by side would measure the memory's first touch."""
    for path in paths:
        decode(path)


def _plain_loop(paths: list[str], features: list[Feature]) -> None:
    """One encoder after the other over all files, as toolkits for single models do."""
    for feature in features:
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            feature.vector(feature.view.scales(pixels, 0))


def _in_turn(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall seconds of each side; the sides take turns, so that a slow minute hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in times.items()}


def _row(what: str, seconds: float, baseline: str, baseline_seconds: float) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": seconds,
        "baseline": baseline,
        "baseline_seconds": baseline_seconds,
        "ratio": baseline_seconds / seconds,
    }
