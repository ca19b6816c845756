"""The folder a search writes into: whether it may be used, and whether its work is done already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.runs.folder import METRICS, RECEIPT, read_json
from featbank.errors import RunError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FINISH_LOCK: Final = "finish.lock"
OWN_FILES: Final = ("search.journal", "search.lock", FINISH_LOCK)
"""What the processes of a search share in its folder; the winner's run is written beside them."""


def finished_metrics(out: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of the run in ``out`` if it is the one that this search would write."""
    if not (out / RECEIPT).exists() or read_json(out, RECEIPT).get("search") != document:
        return None
    return read_json(out, METRICS)


def check_out(out: Path, name: str) -> None:
    """Refuse a folder that holds anything but this search.

    Raises
    ------
    RunError
        If it is a file, or holds other files or another search.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RunError(f"search: --out must be a folder, got the file {str(out)!r}.")
    others = [path.name for path in out.iterdir() if path.name not in OWN_FILES]
    if not others:
        return
    found = read_json(out, RECEIPT).get("search") if (out / RECEIPT).exists() else None
    if found is None:
        raise RunError(
            f"search: --out must be a new folder or one of the same search, got {str(out)!r}, which holds something "
            "else. Nothing was touched; choose another folder."
        )
    if found["study"] != name:
        raise _other_search(out, found["study"], name)


def check_journal(storage: BaseStorage, out: Path, name: str) -> None:
    """Refuse a folder whose journal is another search's.

    Raises
    ------
    RunError
        If it holds studies, and none of this name.
    """
    studies = [study.study_name for study in storage.get_all_studies()]
    if studies and name not in studies:
        raise _other_search(out, studies[0], name)


def _other_search(out: Path, found: str, name: str) -> RunError:
    return RunError(
        f"search: {str(out)!r} belongs to the search {found!r}, and this would be {name!r}: the dataset, the features, "
        "the recipe, the budget, the objectives, the method or the seed differ. Choose another --out."
    )
