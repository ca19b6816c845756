"""The run folder as a whole: the names of its files, and how folders of each kind are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from featbank.atomic import FolderKind
from featbank.errors import FeatbankError, RunError, redact
from featbank.remote import read_regular

MAX_JSON_BYTES = 1 << 28

RECEIPT = "receipt.json"
METRICS = "metrics.json"
MODEL = "model.skops"
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
