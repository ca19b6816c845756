"""The challenge report's own tables, its official split, and whether a run was judged on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd

from featbank.errors import RunError

if TYPE_CHECKING:
    from featbank.runs.folder import RunData

METRIC_COLUMNS: Final = ("mae", "rmse", "plcc", "srcc", "krcc")
"""Metrics of Tables 1 to 3, in the order of the printed columns."""

TITLES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "Official test split",
        2: "Official validation split",
        3: "Exclusive part of the test split",
        4: "Training specification",
        5: "CIPLAB with and without quality-aware pre-training",
        7: "EQCNet beside other methods, as its team reports",
    }
)

PARTS: Final[Mapping[int, str]] = MappingProxyType({1: "test", 2: "validation", 3: "test/exclusive"})
"""The part of a run's metrics that each table of scores stands for."""


class PublishedCost(NamedTuple):
    """One row of Table 4 that a recipe is the counterpart of, with our recount.

    GMACs and millions of parameters are as printed; ``counted_gmacs`` is a dispatcher-level count of the same network,
    nan where the report does not say enough; ``has_pseudo_labels`` tells systems that learned from pseudo-labelled
    validation images (report, sections 2.5 and 2.7); ``explanation`` says what reproduces the printed figure, and how
    the recipe's differs.
    """

    system: str
    gmacs: float
    params_m: float
    counted_gmacs: float
    has_pseudo_labels: bool
    explanation: str


class OfficialPart(NamedTuple):
    """One part of the official UHD-IQA split: images, digest of names and MOS, errors of the mean training MOS."""

    n: int
    rows_sha256: str
    constant_mae: float
    constant_rmse: float


def published_table(number: int) -> pd.DataFrame:
    """Return one of the report's tables with every figure as printed.

    Parameters
    ----------
    number : int in {1, 2, 3, 4, 5, 7}

    Returns
    -------
    DataFrame of str
        Tables 1 to 3: ``method, source, kind`` (``team``, ``organisers`` or ``retrained``) and
        `METRIC_COLUMNS`. Table 4: ``method, source, input, training_hours, extra_data, params_m, gmacs, gpu``.
        Tables 5 and 7: ``method`` and the metrics that they give.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    if number not in TITLES:
        raise ValueError(f"published_table: number must be one of {list(TITLES)}, got {number!r}.")
    return _read(f"table{number}").copy()


@cache
def published_costs() -> Mapping[str, PublishedCost]:
    """Return Table 4 with our recounts, by the method's printed name."""
    rows = _read("table4").merge(_read("recounts"), on="method", validate="one_to_one")
    return MappingProxyType(
        {
            row["method"]: PublishedCost(
                system=row["method"],
                gmacs=float(row["gmacs"]),
                params_m=float(row["params_m"]),
                counted_gmacs=float(row["counted_gmacs"] or "nan"),
                has_pseudo_labels=row["pseudo_labels"] == "yes",
                explanation=row["explanation"],
            )
            for row in rows.to_dict("records")
        }
    )


@cache
def cost_by_recipe() -> Mapping[str, PublishedCost]:
    """Return the same rows by the name of the recipe that is the system's counterpart."""
    costs = published_costs()
    recounts = _read("recounts")
    return MappingProxyType(
        {recipe: costs[method] for recipe, method in zip(recounts["recipe"], recounts["method"], strict=True)}
    )


@cache
def official_parts() -> Mapping[str, OfficialPart]:
    """Return size, digest and constant baseline of each part of the official split, by its key."""
    return MappingProxyType(
        {
            row["part"]: OfficialPart(
                int(row["n"]), row["rows_sha256"], float(row["constant_mae"]), float(row["constant_rmse"])
            )
            for row in _read("parts").to_dict("records")
        }
    )


@cache
def _read(name: str) -> pd.DataFrame:
    file = resources.files("featbank") / "leaderboard" / "published" / f"{name}.csv"
    with file.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, dtype=str, keep_default_na=False)


DATASET = "uhd-iqa"


def digest_rows(images: Iterable[str], mos: Iterable[float]) -> str:
    """Return the SHA-256 of names and MOS, in whatever order they come."""
    lines = sorted(f"{image}\t{value:.6f}" for image, value in zip(images, mos, strict=True))
    return sha256("\n".join(lines).encode()).hexdigest()


def rows_of(predictions: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the rows of one part such as ``test/exclusive``."""
    split, _, subset = part.partition("/")
    chosen = predictions["split"] == split
    return predictions[chosen & (predictions["subset"] == subset)] if subset else predictions[chosen]


def check_official(run: RunData) -> tuple[str, ...]:
    """Refuse a run that the tables have no place for.

    Returns
    -------
    tuple of str
        The parts that are official and complete, ``test`` always among them.

    Raises
    ------
    RunError
        If the run was made on rendered photos, on another dataset, or on other or fewer test images than the
        official ones; or if validation or test images may have taught it.
    """
    who = f"leaderboard: run {str(run.path)!r}"
    if run.is_simulation:
        raise RunError(
            f"{who} was made on the built-in photo set. Its photos are rendered and its raters simulated, so its "
            f"scores say nothing beside those of Tables 1 to 3. Fit on the UHD-IQA benchmark to take a place."
        )
    name = run.section("dataset").get("name")
    if name != DATASET:
        raise RunError(
            f"{who} was made on the dataset {name!r}; Tables 1 to 3 are scores on {DATASET!r}, whose photos and MOS "
            "differ. Fit the same recipe on the UHD-IQA benchmark."
        )
    complete = [part for part in official_parts() if part != "training" and _differs(run, part) is None]
    reason = _differs(run, "test")
    if reason:
        raise RunError(
            f"{who} was not judged on the official test split: {reason}. Scores on other rows cannot stand in Table 1. "
            "Use the release's metadata as they are, and have all its photos read."
        )
    n_training, official = len(rows_of(run.predictions, "training")), official_parts()["training"]
    if n_training > official.n or (n_training == official.n and _differs(run, "training")):
        raise RunError(
            f"{who} learned from other images than the official {official.n:,} training images: "
            f"{_differs(run, 'training')}. Only the official training split may teach."
        )
    return tuple(complete)


def _differs(run: RunData, part: str) -> str | None:
    rows, official = rows_of(run.predictions, part), official_parts()[part]
    if len(rows) != official.n:
        return f"it has {len(rows):,} {part} images where the official split has {official.n:,}"
    if digest_rows(rows["image"], rows["mos"]) != official.rows_sha256:
        return f"its {official.n:,} {part} images have other names or another MOS than the official ones"
    return None
