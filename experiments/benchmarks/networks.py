"""Networks over large photos: every engine and precision against the plain loop that peers run, and the limit.

The loop is that of thingsvision: Pillow in the dataset, one network after the other, batches in torch's own layout.
thingsvision itself is no row here. Its last release, 2.7.3, asks for numpy < 2, torchvision 0.15.2 and tensorflow
< 2.16, so that pip cannot install it beside this project, which needs numpy >= 2 and torchvision >= 0.21. Installed on
Python 3.11 without what it asks for, it ends at its own import of TensorFlow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any, Final

from experiments.benchmarks.extraction import row
from featbank.encoders.engine import installed_engines

SETS: Final = {"ResNet-50 at 320 x 320": 1, "four encoders": 4}
"""How many of the networks of `experiments.benchmarks.network_side` run, from the first."""


def bench_networks(paths: list[str], repeats: int) -> list[dict[str, Any]]:
    """Measure decoding, views and networks over photos, each side in one thread of a process of its own.

    Returns
    -------
    list of dict
        Rows as those of `bench_extraction`, and ``limit_seconds`` (decoding alone, and all multiply-accumulates at the
        rate of a 3 x 3 convolution, measured in the same run), ``share`` (of the limit) and ``peak_gb``; none where
        torch is not installed.
    """
    engines = installed_engines()
    if "torch" not in engines:
        return []
    ways = [f"{engine} fp32" for engine in engines]
    ways += [f"{engine} bf16" for engine in engines if engine != "onnxruntime"]
    rows = []
    for title, n in SETS.items():
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ("limit", "plain", *ways)}
        for _ in range(repeats):
            for way, found in runs.items():
                found.append(_run(way, n, paths))
        spent = {
            way: median(run["seconds"] for run in found) for way, found in runs.items() if way != "limit"
        }
        for way in ways:
            limit = min(run[way.split()[1]] for run in runs["limit"])
            rows.append(
                row(
                    f"{title}, {len(paths)} photos, {way}",
                    spent[way],
                    "Pillow, torch, batches of 8: decode for each encoder",
                    spent["plain"],
                    limit_seconds=limit,
                    share=limit / spent[way],
                    peak_gb=max(run["peak_gb"] for run in runs[way]),
                )
            )
    return rows


def _run(way: str, n: int, paths: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "experiments.benchmarks.network_side", way, str(n), *paths]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own command
    found: dict[str, float] = json.loads(done.stdout)
    return found
