"""The run folder as a whole: written beside its place and moved there in one step, never half there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featbank.errors import FeatbankError, RunError
from featbank.remote import read_regular

MAX_JSON_BYTES = 1 << 28

RECEIPT = "receipt.json"
METRICS = "metrics.json"
MODEL = "model.skops"
PREDICTIONS = "predictions.csv"
TRUST = "trust.json"


@contextmanager
def new_run_folder(target: Path) -> Iterator[Path]:
    """Give a private folder that takes the place of ``target`` when the block ends without an error.

    Parameters
    ----------
    target : Path
        Must not exist, be empty, or be an earlier run, which is then replaced.

    Yields
    ------
    Path
        The folder to write into, beside the target so that the move is one rename.

    Raises
    ------
    RunError
        If the target holds something else than a run.
    OSError
        If the folder cannot be written.
    """
    target = Path(target)
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield private
        # mkdtemp gives a folder to its owner alone; a run is as readable as any other folder the user makes.
        umask = os.umask(0)
        os.umask(umask)
        private.chmod(0o777 & ~umask)
        if target.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.replace(retired)
            private.replace(target)
            shutil.rmtree(retired)
        else:
            private.replace(target)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise


def check_target(target: Path) -> None:
    """Refuse to replace anything but an earlier run.

    Raises
    ------
    RunError
        If ``target`` is a file, or a folder that is neither empty nor a run.
    """
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / RECEIPT).exists()):
        raise RunError(
            f"fit: --out must be a new folder or an earlier run, got {str(target)!r}, which holds something else. "
            "Nothing was touched; choose another folder."
        )


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON-able value
    """Write indented JSON; NaN is refused because JSON has no form for it."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


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
