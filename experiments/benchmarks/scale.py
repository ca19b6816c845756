"""What a million and a billion photos cost, from the rates that the benchmarks recorded on one machine.

Nothing is measured here: the seconds a photo in ``results.csv`` and ``networks.csv`` are multiplied, and bytes follow
from the widths of the bands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pandas as pd

from featbank.extract import FLUSH_ROWS
from featbank.feature import make_feature
from featbank.recipes.reading import read_recipe

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
    rows = {
        f"core-hours: {what}": [seconds * n / 3600.0 for n in SIZES.values()]
        for what, seconds in seconds_per_photo().items()
    }
    width = sum(
        make_feature(band.encoder, band.view, band.aggregate).n_features
        for band in read_recipe("starter").bands
    )
    n_bands = len(read_recipe("starter").bands)
    rows[f"gigabytes of the bank of starter ({width} columns)"] = [
        width * _NUMBER * n / 1e9 for n in SIZES.values()
    ]
    rows["files of that bank before `featbank bank prune`, each one write"] = [
        n_bands * n / FLUSH_ROWS for n in SIZES.values()
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(SIZES))
