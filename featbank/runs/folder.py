"""The run folder on disk: names of files, kinds of folders, JSON, and the receipt."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pandas as pd

from featbank import __version__
from featbank.atomic import FolderKind
from featbank.datasets import ImageTable
from featbank.errors import FeatbankError, RunError, redact
from featbank.extraction_log import measured_seconds
from featbank.recipes.reading import Recipe
from featbank.remote import Place, read_regular
from featbank.table import Band

MAX_JSON_BYTES = 1 << 28

RECEIPT = "receipt.json"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
TRUST = "trust.json"

STUDY_FILES: Final = frozenset({"search.journal", "search.lock", "finish.lock"})
"""What the processes of a search share in its folder; the winner's run is written beside them."""

_BEFORE_MARKERS: Final = frozenset(
    f"{name}.{ending}"
    for ending, names in {
        "csv": "cv_results importance predictions scores summary tables trials weights",
        "html": "protocol report",
        "json": "metrics protocol receipt trust",
        "md": "table",
        "png": "band_share comparison cost cv_curve importance mos_density pareto predicted_test predicted_training "
        "predicted_validation protocol",
        "skops": "model",
        "toml": "recipe",
    }.items()
    for name in names.split()
)
"""Every name that versions before the marker wrote into a folder with a receipt; no new one is added."""


def _kind_name(folder: Path) -> str | None:
    """Tell from its receipt what a folder is; None without a receipt of ours."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (isinstance(receipt, dict) and {"recipe", "dataset", "passes"} <= receipt.keys()):
        return None
    return "protocol" if "protocol" in receipt else "search" if "search" in receipt else "run"


def _kind(name: str, shared: frozenset[str] = frozenset()) -> FolderKind:
    return FolderKind(name, lambda folder: _BEFORE_MARKERS if _kind_name(folder) == name else (), shared)


RUN: Final = _kind("run")
PROTOCOL: Final = _kind("protocol")
SEARCH: Final = _kind("search", STUDY_FILES)


def kind_of(folder: Path) -> FolderKind:
    """Return the kind of a folder that holds a run, by itself or as the outcome of a search."""
    return SEARCH if _kind_name(folder) == SEARCH.name else RUN


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8; lone surrogates, from names of files that never were UTF-8, become ``?``."""
    path.write_bytes(text.encode("utf-8", errors="replace"))
    return path


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON-able value
    """Write indented JSON without credentials of URLs; NaN is refused because JSON has no form for it."""
    path.write_text(redact(json.dumps(value, indent=2, allow_nan=False)) + "\n", encoding="utf-8")


def read_json(run: Path, name: str) -> dict[str, Any]:
    """Read one of the run's JSON files.

    Raises
    ------
    RunError
        If ``run`` is not a run folder, or the file is damaged or holds no JSON object.
    """
    path = Path(run) / name
    try:
        value = json.loads(read_regular(path, MAX_JSON_BYTES, RunError).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{str(run)!r} is not a run folder: it has no {name}. Runs are written by `featbank fit ... --out RUN`."
        ) from error
    except RunError:
        raise
    except (ValueError, RecursionError) as error:
        raise RunError(f"run {str(run)!r}: {name} is damaged ({error}). Run `featbank fit` again.") from error
    if not isinstance(value, dict):
        raise RunError(
            f"run {str(run)!r}: {name} must hold a JSON object, got {type(value).__name__}. Run `featbank fit` again."
        )
    return value


@contextmanager
def telling_damage(run: str | Path) -> Iterator[None]:
    """Call a run folder damaged where its files hold values of another kind than ``fit`` writes.

    Raises
    ------
    RunError
        In place of the errors that such values cause.
    """
    try:
        yield
    except (FeatbankError, BrokenPipeError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise RunError(
            f"run {str(run)!r} is damaged: a file holds other values than `featbank fit` writes "
            f"({type(error).__name__}: {str(error)[:200]}). Run `featbank fit` again."
        ) from error


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
    rows : DataFrame
        The rows that took part, with ``split``, ``subset`` and ``group``.

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
