"""Networks over large photos: every engine and precision against the plain loop that peers run.

The loop is that of thingsvision: Pillow in the dataset, one network after the other, batches in torch's own layout.
thingsvision itself is no row here. Its last release, 2.7.3, asks for numpy < 2, torchvision 0.15.2 and tensorflow
< 2.16, so that pip cannot install it beside this project, which needs numpy >= 2 and torchvision >= 0.21. Installed on
Python 3.11 without what it asks for, it ends at its own import of TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from experiments.benchmarks.views import ENCODERS
from featbank.allocation import keep_freed_memory
from featbank.encoders.engine import ENGINE_VARIABLE, installed_engines
from featbank.feature import Feature, compute_features, make_feature
from featbank.images import read_photo
from featbank.views import parse_view

if TYPE_CHECKING:
    import torch

NETWORKS: Final = (
    "timm:resnet50.a1_in1k?random=0",
    "open_clip:ViT-B-32-quickgelu/openai?random=0",
    "timm:mobilenetv3_large_100.ra_in1k?random=0",
    "checkpoint:uiqa-ava-swin-t?random=0",
)
"""The networks of `ENCODERS`, in its order; random weights take as long as trained ones."""

SETS: Final = {"ResNet-50 at 320 x 320": 1, "four encoders": len(NETWORKS)}
"""How many of them run, from the first."""

_PLAIN_BATCH: Final = 8


def bench_networks(paths: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure decoding, views and networks over photos, in one thread of this process.

    Parameters
    ----------
    paths : list of str
        Photos.
    repeats : int
        Runs of each side, in turn.

    Returns
    -------
    list of dict
        Rows as those of `bench_extraction`; none where torch is not installed.
    """
    engines = installed_engines()
    if "torch" not in engines:
        return []
    import torch

    keep_freed_memory()
    torch.set_num_threads(1)
    ways = [(engine, "fp32") for engine in engines] + [
        (engine, "bf16") for engine in engines if engine != "onnxruntime"
    ]
    rows = []
    for title, n in SETS.items():
        sides: dict[str, Callable[[list[str]], object]] = {"plain": _plain_loop(n)}
        for engine, precision in ways:
            sides[f"{engine} {precision}"] = _by_featbank(n, engine, precision)
        for work in sides.values():
            work(paths[:_PLAIN_BATCH])  # loads weights, exports graphs, warms up
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, work in sides.items():
                started = time.process_time()  # one thread: other programs do not count
                work(paths)
                times[name].append(time.process_time() - started)
        spent = {name: median(values) for name, values in times.items()}
        plain = "Pillow, torch, batches of 8: decode for each encoder"
        for engine, precision in ways:
            what = f"{title}, {len(paths)} photos, {engine} {precision}"
            seconds = spent[f"{engine} {precision}"]
            rows.append(
                {
                    "what": what,
                    "seconds": seconds,
                    "baseline": plain,
                    "baseline_seconds": spent["plain"],
                    "ratio": spent["plain"] / seconds,
                }
            )
    return rows


def _features(n: int, precision: str = "fp32", *, fast: bool = True) -> list[Feature]:
    return [
        make_feature(
            f"{network}&precision={precision}", f"{view}~fast" if fast and view.startswith("squash") else view
        )
        for network, views in zip(NETWORKS[:n], ENCODERS, strict=False)
        for view in views
    ]


@contextmanager
def _engine(name: str) -> Iterator[None]:
    import os

    before = os.environ.get(ENGINE_VARIABLE)
    os.environ[ENGINE_VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[ENGINE_VARIABLE]
        else:
            os.environ[ENGINE_VARIABLE] = before


def _by_featbank(n: int, engine: str, precision: str) -> Callable[[list[str]], object]:
    features = _features(n, precision)

    def work(paths: list[str]) -> None:
        with _engine(engine):
            for path in paths:
                found, _ = compute_features(features, read_photo(path))
                failed = [result for result in found if not isinstance(result, np.ndarray)]
                if failed:
                    raise RuntimeError(f"benchmark: {failed[0]}")

    return work


def _plain_loop(n: int) -> Callable[[list[str]], object]:
    """One encoder after the other: Pillow decodes and resizes, torch runs batches in its own memory layout."""
    import torch

    from featbank.encoders.networks.build import blueprint_of
    from featbank.encoders.networks.modules import freeze

    torch.manual_seed(0)
    networks = [freeze(blueprint_of(name.partition("?")[0]).build()) for name in NETWORKS[:n]]

    def work(paths: list[str]) -> None:
        for network, views in zip(networks, ENCODERS, strict=False):
            for start in range(0, len(paths), _PLAIN_BATCH):
                crops: list[list[torch.Tensor]] = [[] for _ in views]
                for path in paths[start : start + _PLAIN_BATCH]:
                    with Image.open(path) as file:
                        image = file.convert("RGB")
                    for kept, view in zip(crops, views, strict=True):
                        kept.append(_crop(image, view))
                with torch.inference_mode():
                    for batch in crops:
                        network(torch.stack(batch))

    return work


def _crop(image: Image.Image, view: str) -> torch.Tensor:
    import torch

    if view.startswith("squash"):
        width, height = map(int, view.removeprefix("squash_").split("x"))
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    else:
        pixels = parse_view(view).scales(np.asarray(image), 0)[0][0]
    return (torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255.0 - 0.45) / 0.225
