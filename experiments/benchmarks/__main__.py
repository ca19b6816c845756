"""``make bench``: run the benchmarks, print their tables, write them as CSV beside this file.

Absolute times belong to one machine on one day; the ratios are what to read. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import cpu_count

from experiments.benchmarks.extraction import bench_extraction, bench_views, cost_table
from experiments.benchmarks.fit import bench_fit
from experiments.benchmarks.networks import bench_networks
from experiments.benchmarks.trust import bench_trust
from featbank.atomic import write_file
from featbank.demo import write_demo


def describe_machine() -> str:
    """Return the processor's model, the usable cores, and the interpreter."""
    model, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.+)", info.read_text())):
        model = found[1]
    return f"{model}, {cpu_count()} usable cores, Python {platform.python_version()}, {platform.system()}"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--part",
        choices=("all", "features", "networks", "fit", "scale", "trust"),
        default="all",
        help="features: extraction, into results.csv; networks: views and engines, into networks.csv; fit: "
        "grid searches, into fit.csv; scale: only what a million photos cost at the recorded rates; "
        "trust: simulations of alarms and intervals, into trust.csv, no part of all (default: all)",
    )
    parser.add_argument(
        "--photos",
        type=int,
        default=20,
        help="rendered photos to extract from (default: 20, the least the demo renders)",
    )
    parser.add_argument(
        "--photos-from",
        type=Path,
        help="folder of JPEG photographs for the part 'networks', of which --photos are taken (default: rendered ones)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each side, in turn; the median counts"
    )
    parser.add_argument(
        "--runs", type=int, default=1000, help="data sets of each kind for the part 'trust' (default: 1000)"
    )
    options = parser.parse_args(argv)
    if options.part in ("all", "features"):
        with tempfile.TemporaryDirectory(prefix="featbank-bench-") as folder:
            photos = write_demo(Path(folder) / "photos", n_photos=options.photos, workers=cpu_count())
            rows = bench_extraction(photos, Path(folder), options.repeats)
        _record(rows, "results.csv")
    if options.part in ("all", "networks"):
        with tempfile.TemporaryDirectory(prefix="featbank-bench-") as folder:
            photos = options.photos_from or write_demo(
                Path(folder) / "photos", n_photos=options.photos, workers=cpu_count()
            )
            paths = sorted(map(str, photos.rglob("*.jpg")))[: options.photos]
            if not paths:
                parser.error(f"--photos-from {photos}: expected a folder with .jpg files, found none in it")
            rows = bench_networks(paths, options.repeats)
            # Without torch there is nothing to compare, and what was recorded stays.
            rows = bench_views(paths, options.repeats) + rows if rows else []
        if rows:
            _record(rows, "networks.csv")
    if options.part in ("all", "scale"):
        sys.stdout.write(cost_table().to_string(float_format=lambda value: f"{value:,.0f}") + "\n")
    if options.part in ("all", "fit"):
        _record(bench_fit(), "fit.csv")
    if options.part == "trust":
        _record(bench_trust(options.runs), "trust.csv")
    return 0


def _record(rows: list[dict[str, Any]], name: str) -> None:
    table = pd.DataFrame(rows)
    table["machine"] = describe_machine()
    target = Path(__file__).parent / name
    write_file(target, table.to_csv(index=False, float_format="%.4g"), "bench")
    shown = table.drop(columns="machine").to_string(index=False, float_format=lambda value: f"{value:.3g}")
    blas = os.environ.get("OPENBLAS_NUM_THREADS", "unset")
    sys.stdout.write(f"{shown}\n\n{describe_machine()}; OPENBLAS_NUM_THREADS={blas}\nwritten to {target}\n")


if __name__ == "__main__":
    sys.exit(main())
