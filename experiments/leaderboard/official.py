"""Tells whether a run was judged on the official UHD-IQA rows: the same images with the same MOS, all of them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import pandas as pd

from experiments.leaderboard.published import official_parts
from experiments.runs.data import RunData
from featbank.errors import RunError

DATASET = "uhd-iqa"


def digest_rows(images: Iterable[str], mos: Iterable[float]) -> str:
    """Return the SHA-256 of names and MOS, in whatever order they come.

    Parameters
    ----------
    images : iterable of str
        Names without folders.
    mos : iterable of float
        MOS of each, taken to six decimals.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    lines = sorted(f"{image}\t{value:.6f}" for image, value in zip(images, mos, strict=True))
    return sha256("\n".join(lines).encode()).hexdigest()


def rows_of(predictions: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the rows of one part such as ``test/exclusive``."""
    split, _, subset = part.partition("/")
    chosen = predictions["split"] == split
    return predictions[chosen & (predictions["subset"] == subset)] if subset else predictions[chosen]


def check_official(run: RunData) -> tuple[str, ...]:
    """Refuse a run that the tables have no place for.

    Parameters
    ----------
    run : RunData

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
