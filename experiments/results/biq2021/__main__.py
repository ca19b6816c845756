"""``python -m experiments.results.biq2021 PHOTOS RUN...``: judge runs on BIQ2021's official test split.

Beside the whole split stand its three subsets, and the test photographs whose scene no training photograph of the run
shows: none of these has a cosine above `SAME_SCENE` with it in the last layer of EfficientNet-Lite0, the end of the
band ``content`` of the recipe ``pretrained``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from featbank.atomic import write_file
from featbank.bank import Bank
from featbank.datasets import ImageTable, read_dataset
from featbank.recipes.reading import read_recipe
from featbank.runs.evaluate import judge
from featbank.runs.fit import resolve_bands
from featbank.runs.folder import RunData, read_run
from featbank.table import build_table

SAME_SCENE: Final = 0.8
LAST_LAYER: Final = slice(-1280, None)
HERE: Final = Path(__file__).parent


def last_layers(table: ImageTable, bank: Bank) -> pd.DataFrame:
    """Return the last layer of EfficientNet-Lite0 of every photograph, divided by its norm."""
    [request] = [band for band in read_recipe("pretrained").bands if band.name == "content"]
    X = build_table(table, resolve_bands(bank, table, [request]), bank, "featbank features").X
    assert isinstance(X, pd.DataFrame)  # read into memory
    last = X.iloc[:, LAST_LAYER]
    return last.div(np.linalg.norm(last, axis=1), axis=0)


def judged_parts(run: RunData, last: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Judge a run's test rows by part."""
    rows, taught = (run.predictions[run.predictions["split"] == part] for part in ("test", "training"))
    rows = rows.set_index("image")
    nearest = (last.loc[rows.index].to_numpy() @ last.loc[taught["image"]].to_numpy().T).max(axis=1)
    subset, is_new = rows.index.str[:4], nearest <= SAME_SCENE
    parts = {"test": np.full(len(rows), True), "test, scene not in training": is_new}
    for name in ("ss01", "ss02", "ss03"):
        parts |= {name: subset == name, f"{name}, scene not in training": (subset == name) & is_new}
    mos, predicted = rows["mos"].to_numpy(), rows["predicted"].to_numpy()
    return {
        name: judge(mos[mask], predicted[mask], with_intervals=True)
        for name, mask in parts.items()
        if mask.sum() > 1
    }


def result_rows(name: str, run: RunData, last: pd.DataFrame) -> list[dict[str, object]]:
    """Lay out one line for each part, single band and baseline."""
    found = [(part, scores, scores["ci95"]) for part, scores in judged_parts(run, last).items()]
    others = {f"band {band} alone": sets for band, sets in run.single_bands.items()} | run.baselines
    found += [
        (other, {"n": sets["test"].n} | sets["test"].metrics, sets["test"].ci95)
        for other, sets in others.items()
    ]
    return [
        {
            "run": name,
            "n_training": run.receipt["fitted_on"]["n"],
            "gmacs_uhd": round(run.gmacs, 3),
            "part": part,
            "n": scores["n"],
            "srcc": scores["srcc"],
            "srcc_low": (ends or {}).get("srcc", (None, None))[0],
            "srcc_high": (ends or {}).get("srcc", (None, None))[1],
            "plcc": scores["plcc"],
            "rmse": scores["rmse"],
        }
        for part, scores, ends in found
    ]


def main(argv: list[str] | None = None) -> int:
    """Write ``results.csv`` and the receipts beside this file, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results.biq2021", description=__doc__)
    parser.add_argument("photos", help="BIQ2021 as released; the runs must have been fitted on it")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, by whose names the lines are called")
    parser.add_argument(
        "--bank", default="bank", help="bank with the features of `pretrained` (default: bank)"
    )
    options = parser.parse_args(argv)
    last = last_layers(read_dataset(options.photos), Bank(options.bank))
    lines = []
    for folder in options.runs:
        run = read_run(folder)
        lines += result_rows(folder.name, run, last)
        place = f"{Path(run.receipt['dataset']['path']).parent}/"  # of no use to others
        receipt = json.dumps(run.receipt, indent=1).replace(place, "")
        write_file(HERE / f"{folder.name}.receipt.json", receipt + "\n", "results")
    frame = pd.DataFrame(lines)
    write_file(HERE / "results.csv", frame.to_csv(index=False, float_format="%.4f"), "results")
    published = pd.read_csv(HERE / "published.csv")
    out = [frame.to_string(index=False, float_format="%.3f")]
    for _, row in frame[frame["part"] == "test"].iterrows():
        above = int((published["srcc"] > row["srcc"]).sum())
        out.append(f"{row['run']}: {above} of {len(published)} published rows are above {row['srcc']:.3f}")
    sys.stdout.write("\n".join(out) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
