"""Decoding and views of four encoders against the loop that decodes for each, and a re-run with nothing to do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from featbank.images import read_photo
from featbank.views import SharedBeginnings, parse_view
from featbank.workers import keep_freed_memory

ENCODERS = (
    ("squash_320x320",),
    ("squash_224x224",),
    ("squash_1280x720",),
    ("squash_480x480", "center_480", "fragments_15x32"),
)
"""Views of the four encoders: a ResNet-50, CLIP ViT-B/32, MobileNetV3 at 720p, and a Swin with three branches."""

N_FILES = 6000
_RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[regression]
alpha = [1.0]
"""


def bench_views(paths: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure decoding and six views of each photo, in one thread of this process.

    Parameters
    ----------
    paths : list of str
    repeats : int
        Runs of each side, in turn.

    Returns
    -------
    list of dict
        Rows as those of `bench_extraction`.
    """
    keep_freed_memory()
    fast = tuple(tuple(_with_fast_filter(name) for name in views) for views in ENCODERS)
    sides: dict[str, Callable[[str], None]] = {
        "loop": _take_for_each_encoder,
        "once": lambda path: _take_once(path, ENCODERS),
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
        sides["fast"] = lambda path: _take_once(path, fast)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            started = time.process_time()  # one thread: other programs do not count
            for path in paths:
                work(path)
            times[name].append(time.process_time() - started)
    middle = {name: median(values) for name, values in times.items()}
    words = {"once": "bicubic", "fast": "filter 'fast'"}
    return [
        {
            "what": f"decode and 6 views, {len(paths)} photos, {words[name]}",
            "seconds": middle[name],
            "baseline": "Pillow, decode for each of 4 encoders",
            "baseline_seconds": middle["loop"],
            "ratio": middle["loop"] / middle[name],
        }
        for name in sides
        if name != "loop"
    ]


def _with_fast_filter(view: str) -> str:
    return f"{view}~fast" if view.startswith("squash") else view


def _take_once(path: str, encoders: tuple[tuple[str, ...], ...]) -> None:
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
            if name.startswith("squash"):
                width, height = map(int, name.removeprefix("squash_").split("x"))
                np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
            else:
                parse_view(name).scales(np.asarray(image), 0)


def bench_rerun(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure ``featbank features`` over 6,000 small files that are all in the bank, start of Python included.

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
    photos = folder / "many"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(N_FILES):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.bmp")
    rows = "".join(f"{number}.bmp,1.0\n" for number in range(N_FILES))
    (photos / "scores.csv").write_text("path,mos\n" + rows)
    recipe = photos / "recipe.toml"
    recipe.write_text(_RECIPE)
    command = [
        sys.executable, "-m", "featbank", "features", str(photos / "scores.csv"), "--recipe", str(recipe),
        "--bank", str(folder / "many-bank"),
    ]  # fmt: skip
    times: dict[str, list[float]] = {"again": [], "rehash": []}
    for _ in range(2):  # computes, then remembers the files, which are too new at first
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command
        time.sleep(3)
    for _ in range(repeats):
        for name, more in (("again", []), ("rehash", ["--rehash"])):
            started = time.perf_counter()
            subprocess.run([*command, *more], check=True, capture_output=True)  # noqa: S603
            times[name].append(time.perf_counter() - started)
    middle = {name: median(values) for name, values in times.items()}
    return [
        {
            "what": f"featbank features, {N_FILES} files, nothing to do",
            "seconds": middle["again"],
            "baseline": "the same with --rehash, files of 1 kB",
            "baseline_seconds": middle["rehash"],
            "ratio": middle["rehash"] / middle["again"],
        }
    ]
