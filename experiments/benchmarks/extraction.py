"""Extraction against the loop that most feature toolkits run, and against decoding alone."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import pandas as pd
from joblib import cpu_count
from numpy.typing import NDArray
from PIL import Image

from featbank.bank import Bank
from featbank.datasets import read_dataset
from featbank.extract import FLUSH_ROWS, FeatureRequest, extract
from featbank.feature import Feature, make_feature
from featbank.images import read_photo
from featbank.recipes.reading import read_recipe
from featbank.views import SharedBeginnings, parse_view
from featbank.workers import keep_freed_memory


def bench_extraction(data: Path, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure recipe ``starter`` on a dataset folder; each side ``repeats`` times, in turn.

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
    times = in_turn(
        {
            "plain": lambda: _plain_loop(paths, features),
            "one": ours(1),
            "all": ours(cpu_count()),
            "again": lambda: extract(images, requests, Bank(full), workers=1),
            "pillow": lambda: each(lambda path: np.asarray(Image.open(path).convert("RGB")), paths),
            "decode": lambda: each(read_photo, paths),
        },
        repeats,
    )
    n = len(paths)
    plain = "decode for each encoder with Pillow, one process"
    return [
        row(f"extract starter, {n} photos, 1 process", times["one"], plain, times["plain"]),
        row(f"extract starter, {n} photos, {cpu_count()} processes", times["all"], plain, times["plain"]),
        row("extract again, nothing to do", times["again"], "extract, 1 process", times["one"]),
        row(
            f"decode {n} photos, digest and checks included",
            times["decode"],
            "decode with Pillow",
            times["pillow"],
        ),
        row("extract, 1 process", times["one"], "limit: decoding alone", times["decode"]),
    ]


def _plain_loop(paths: list[str], features: list[Feature]) -> None:
    """One encoder after the other over all files, as toolkits for single models do."""
    for feature in features:
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            feature.vector(feature.view.scales(pixels, 0))


def each(work: Callable[[str], object], paths: list[str]) -> None:
    """Do work and drop what it gives: photos kept side by side would measure the memory's first touch."""
    for path in paths:
        work(path)


def in_turn(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each side; the sides take turns, so that a slow minute hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            started = clock()
            work()
            times[name].append(clock() - started)
    return {name: median(values) for name, values in times.items()}


def row(what: str, seconds: float, baseline: str, baseline_seconds: float, **more: object) -> dict[str, Any]:
    """One comparison; a ratio above 1 is faster."""
    return {
        "what": what,
        "seconds": seconds,
        "baseline": baseline,
        "baseline_seconds": baseline_seconds,
        "ratio": baseline_seconds / seconds,
        **more,
    }


ENCODERS = (
    ("squash_320x320",),
    ("squash_224x224",),
    ("squash_1280x720",),
    ("squash_480x480", "center_480", "fragments_15x32"),
)
"""Views of the four encoders: a ResNet-50, CLIP ViT-B/32, MobileNetV3 at 720p, and a Swin with three branches."""


def bench_views(paths: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure decoding and six views of each photo, in one thread of this process; rows as of `bench_extraction`."""
    keep_freed_memory()
    sides: dict[str, Callable[[str], object]] = {
        "loop": _take_for_each_encoder,
        "bicubic": partial(_take_once, ENCODERS),
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
        fast = tuple(tuple(map(with_fast_filter, views)) for views in ENCODERS)
        sides["filter 'fast'"] = partial(_take_once, fast)
    works = {name: partial(each, work, paths) for name, work in sides.items()}
    seconds = in_turn(works, repeats, time.process_time)  # one thread: other programs do not count
    loop = "Pillow, decode for each of 4 encoders", seconds.pop("loop")
    return [
        row(f"decode and 6 views, {len(paths)} photos, {name}", spent, *loop)
        for name, spent in seconds.items()
    ]


def with_fast_filter(view: str) -> str:
    """Let a view that resizes take the fast filter."""
    return f"{view}~fast" if view.startswith("squash") else view


def _take_once(encoders: tuple[tuple[str, ...], ...], path: str) -> None:
    photo = read_photo(path)
    views = [parse_view(name) for names in encoders for name in names]
    shared = SharedBeginnings([view.beginnings() for view in views])
    for view in views:
        view.scales(photo.pixels, 0, shared)


def _take_for_each_encoder(path: str) -> None:
    """As a loader for one encoder does it: open, convert, resize inside Pillow."""
    for names in ENCODERS:
        with Image.open(path) as file:
            image = file.convert("RGB")
        for name in names:
            take_by_pillow(image, name)


def take_by_pillow(image: Image.Image, view: str) -> NDArray[np.uint8]:
    """Take the first crop of a view, resized by Pillow where it is resized."""
    if not view.startswith("squash"):
        return parse_view(view).scales(np.asarray(image), 0)[0][0]
    width, height = map(int, view.removeprefix("squash_").split("x"))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


SIZES: Final = {"a million photos": 10**6, "a billion photos": 10**9}
_HERE: Final = Path(__file__).parent
_NUMBER: Final = 4  # bytes of a stored float32


def seconds_per_photo() -> dict[str, float]:
    """Return the recorded seconds of one process for one photo, by what is done.

    Returns
    -------
    dict of str to float
        Empty where nothing is recorded.
    """
    found: dict[str, float] = {}
    for name in ("results.csv", "networks.csv"):
        path = _HERE / name
        if not path.is_file():
            continue
        table = pd.read_csv(path).drop_duplicates("what")
        for what, seconds in zip(table["what"], table["seconds"], strict=True):
            match = re.search(r"(\d+) photos", what)
            is_rate = re.match(r"decode \d|extract starter, \d+ photos, 1 process|ResNet|four encoders", what)
            if match and is_rate:
                found[re.sub(r",? ?\d+ photos", "", what).replace("  ", " ")] = seconds / int(match[1])
    return found


def cost_table() -> pd.DataFrame:
    """Return core-hours of work for every recorded way, and terabytes and files of the bank of ``starter``.

    Returns
    -------
    DataFrame
        One row for each way, one column for each of `SIZES`.
    """
    hours = {f"core-hours: {what}": seconds / 3600.0 for what, seconds in seconds_per_photo().items()}
    bands = read_recipe("starter").bands
    width = sum(make_feature(band.encoder, band.view, band.aggregate).n_features for band in bands)
    rates = hours | {
        f"gigabytes of the bank of starter ({width} columns)": width * _NUMBER / 1e9,
        "files of that bank before `featbank bank prune`, each one write": len(bands) / FLUSH_ROWS,
    }
    return pd.DataFrame(
        {title: {what: rate * n for what, rate in rates.items()} for title, n in SIZES.items()}
    )
