"""The folder a search writes into: whether it may be used, and whether its work is done already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from featbank.errors import RunError
from featbank.runs.folder import METRICS, RECEIPT, read_json

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FINISH_LOCK: Final = "finish.lock"


def finished_metrics(out: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of the run in ``out`` if it is the one that this search would write."""
    if not (out / RECEIPT).exists() or read_json(out, RECEIPT).get("search") != document:
        return None
    return read_json(out, METRICS)


def check_study(out: Path, name: str) -> None:
    """Refuse the folder of another search.

    Raises
    ------
    RunError
        If its receipt names another one.
    """
    if (out / RECEIPT).exists() and (found := read_json(out, RECEIPT)["search"]["study"]) != name:
        raise _other_search(out, found, name)


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
