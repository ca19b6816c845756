"""One side of the comparison of networks, in a process of its own: settings of one cannot help or hinder another.

``python -m experiments.benchmarks.network_side WAY N_ENCODERS PHOTO...`` prints one JSON object: processor seconds of
one thread, and the most memory the process held.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg
import torch
from PIL import Image

from experiments.benchmarks.extraction import ENCODERS, take_by_pillow, with_fast_filter
from featbank.encoders.engine import ENGINE_VARIABLE
from featbank.encoders.networks.families import blueprint_of
from featbank.encoders.networks.modules import freeze
from featbank.feature import Feature, compute_features, make_feature
from featbank.images import read_photo
from featbank.workers import keep_freed_memory

NETWORKS: Final = (
    "timm:resnet50.a1_in1k?random=0",
    "open_clip:ViT-B-32-quickgelu/openai?random=0",
    "timm:mobilenetv3_large_100.ra_in1k?random=0",
    "checkpoint:uiqa-ava-swin-t?random=0",
)
"""The networks of `ENCODERS`, in its order; random weights take as long as trained ones."""

PLAIN_BATCH: Final = 8
LIMIT: Final = "limit"
PLAIN: Final = "plain"

_CONV: Final = (8, 256, 56, 3)
"""Crops, channels, side and kernel of the layer whose rate is taken for the peak."""
_CONV_RUNS: Final = 20


def features(n: int, precision: str = "fp32") -> list[Feature]:
    """Return the features of the first ``n`` networks; views that resize take the fast filter."""
    return [
        make_feature(f"{network}&precision={precision}", with_fast_filter(view))
        for network, views in zip(NETWORKS[:n], ENCODERS, strict=False)
        for view in views
    ]


def work_of(way: str, n: int) -> Callable[[list[str]], object]:
    """Return what one side does with photos.

    Parameters
    ----------
    way : str
        "plain", or an engine and a precision such as "openvino bf16".
    n : int
        How many of `NETWORKS`.

    Returns
    -------
    callable
        Takes paths.
    """
    torch.set_num_threads(1)
    if way == PLAIN:
        return _plain_loop(n)
    keep_freed_memory()
    engine, precision = way.split()
    os.environ[ENGINE_VARIABLE] = engine
    asked = features(n, precision)

    def work(paths: list[str]) -> None:
        for path in paths:
            found, _ = compute_features(asked, read_photo(path))
            failed = [result for result in found if not isinstance(result, np.ndarray)]
            if failed:
                raise RuntimeError(f"benchmark: {failed[0]}")

    return work


def _plain_loop(n: int) -> Callable[[list[str]], object]:
    """One encoder after the other: Pillow decodes and resizes, torch runs batches in its own memory layout."""
    torch.manual_seed(0)
    networks = [freeze(blueprint_of(name.partition("?")[0]).build()) for name in NETWORKS[:n]]

    def work(paths: list[str]) -> None:
        for network, views in zip(networks, ENCODERS, strict=False):
            for start in range(0, len(paths), PLAIN_BATCH):
                photos = [Image.open(path).convert("RGB") for path in paths[start : start + PLAIN_BATCH]]
                for view in views:
                    crops = torch.from_numpy(np.stack([take_by_pillow(photo, view) for photo in photos]))
                    with torch.inference_mode():
                        network((crops.permute(0, 3, 1, 2).float().contiguous() / 255.0 - 0.45) / 0.225)

    return work


def limit_seconds(n: int, paths: list[str]) -> dict[str, float]:
    """Measure the least that any loop needs here, by precision: decoding, and multiply-accumulates at the best rate."""
    torch.set_num_threads(1)
    keep_freed_memory()
    files = [Path(path).read_bytes() for path in paths]
    simplejpeg.decode_jpeg(files[0])
    started = time.process_time()
    for data in files:
        simplejpeg.decode_jpeg(data)
    decoding = time.process_time() - started
    sizes = [simplejpeg.decode_jpeg_header(data)[:2] for data in files]
    macs = sum(1e9 * feature.gmacs(height, width) for feature in features(n) for height, width in sizes)
    return {
        precision: decoding + 2 * macs / _convolution_rate(dtype)
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }


def _convolution_rate(dtype: torch.dtype) -> float:
    """Measure operations per second of a 3 x 3 convolution, which reaches nearly the peak of its instructions."""
    n, channels, side, kernel = _CONV
    layer = torch.nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    layer = layer.to(dtype).to(memory_format=torch.channels_last)
    crops = torch.rand(n, channels, side, side).to(dtype).to(memory_format=torch.channels_last)
    operations = 2.0 * n * channels**2 * side**2 * kernel**2
    best = float("inf")
    with torch.inference_mode():
        for _ in range(_CONV_RUNS):
            started = time.process_time()
            layer(crops)
            best = min(best, time.process_time() - started)
    return operations / best


def main(argv: list[str] | None = None) -> int:
    """Run one side and print what it took."""
    parser = argparse.ArgumentParser(prog="network_side", description=__doc__)
    parser.add_argument("way", help="plain, limit, or engine and precision")
    parser.add_argument("n_encoders", type=int)
    parser.add_argument("photos", nargs="+")
    options = parser.parse_args(argv)
    if options.way == LIMIT:
        sys.stdout.write(json.dumps(limit_seconds(options.n_encoders, options.photos)))
        return 0
    work = work_of(options.way, options.n_encoders)
    work(options.photos[:PLAIN_BATCH])  # loads weights, exports graphs, warms up
    started = time.process_time()  # one thread: other programs do not count
    work(options.photos)
    seconds = time.process_time() - started
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_gb": peak_gb}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
