"""The receipt of a run: what was asked, by which code, on which rows, with which features, at what cost."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from featbank import __version__
from featbank.datasets import ImageTable
from featbank.extraction_log import measured_seconds
from featbank.recipes.reading import Recipe
from featbank.remote import Place
from featbank.table import Band

RECEIPT_VERSION = 1

LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "mapie",
    "pillow",
    "simplejpeg",
    "pyarrow",
    "skops",
    "joblib",
    "torch",
)


def describe_code() -> dict[str, Any]:
    """Return the package version and, in a checkout, the commit and whether the tree was clean."""
    folder = Path(__file__).resolve().parents[2]
    commit = _git(folder, "rev-parse", "HEAD") if (folder / ".git").exists() else None
    clean = None if commit is None else _git(folder, "status", "--porcelain", "--untracked-files=no") == ""
    return {"version": __version__, "commit": commit, "clean": clean}


def describe_libraries() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that can change a number."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_dataset(table: ImageTable, rows: pd.DataFrame) -> dict[str, Any]:
    """Return name, place, scale and counts of the rows that took part."""
    counts = rows["split"].value_counts()
    exclusive = rows.loc[rows["subset"] == "exclusive", "split"].value_counts()
    return {
        "name": table.name,
        "path": str(table.root),
        "n_listed": len(table.frame),
        "counts": {str(split): int(n) for split, n in counts.items()},
        "exclusive": {str(split): int(n) for split, n in exclusive.items()},
        "n_groups": int(rows["group"].nunique()),
        "mos_range": [none_if_nan(bound) for bound in table.mos_range],
        "simulation": table.is_simulation,
        "notes": list(table.notes),
    }


def describe_features(bands: list[Band]) -> list[dict[str, Any]]:
    """Return one entry for each band: what it is, its digest in the bank, what it costs."""
    return [
        {
            "band": band.name,
            "encoder": band.encoder,
            "view": band.view,
            "aggregate": band.aggregate,
            "digest": band.folder.digest,
            "n_features": band.folder.n_features,
            "gmacs": none_if_nan(band.gmacs),
            "params_m": none_if_nan(band.params_m),
            "pass": band.pass_id,
            "role": band.role,
            "licence": band.licence,
            "weights": band.weights,
        }
        for band in bands
    ]


def describe_passes(bands: list[Band]) -> list[dict[str, Any]]:
    """Return one entry for each distinct forward computation, with the bands that share it."""
    passes: dict[str, dict[str, Any]] = {}
    for band in bands:
        entry = passes.setdefault(
            band.pass_id,
            {
                "pass": f"{band.encoder}@{band.view}",
                "bands": [],
                "gmacs": none_if_nan(band.gmacs),
                "params_m": none_if_nan(band.params_m),
            },
        )
        entry["bands"].append(band.name)
    return list(passes.values())


def build_receipt(
    recipe: Recipe,
    table: ImageTable,
    rows: pd.DataFrame,
    bands: list[Band],
    bank_root: Place,
    details: dict[str, Any],
) -> dict[str, Any]:
    """Assemble the receipt.

    Parameters
    ----------
    recipe : Recipe
    table : ImageTable
        As read, before rows were left out.
    rows : DataFrame
        The rows that took part, with ``split``, ``subset`` and ``group``.
    bands : list of Band
    bank_root : Path or RemotePath
        Where measured extraction times are logged.
    details : dict
        What only the run knows: chosen hyper-parameters, durations, failures, notes and the like.

    Returns
    -------
    dict
        JSON-able.
    """
    measured = measured_seconds(bank_root)
    labels = {band.folder.label for band in bands} | {"decode", "views"}
    return {
        "receipt_version": RECEIPT_VERSION,
        "recipe": {
            "name": recipe.name,
            "title": recipe.title,
            "digest": recipe.digest,
            "text": recipe.to_toml(),
        },
        "code": describe_code(),
        "versions": describe_libraries(),
        "machine": {"platform": platform.platform(), "processor": platform.machine()},
        "dataset": describe_dataset(table, rows),
        "features": describe_features(bands),
        "passes": describe_passes(bands),
        "seconds_per_photo": {name: round(value, 4) for name, value in measured.items() if name in labels},
        **details,
    }


def none_if_nan(value: float) -> float | None:
    """Return None in place of NaN, for which JSON has no form."""
    return None if value != value else float(value)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git is looked up as the user's shell would
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
