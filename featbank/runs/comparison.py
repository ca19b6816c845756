"""Several runs on the same rows: aligned by image, compared in pairs, with cost and the drop to the exclusive subset.

Runs are compared only where they were judged on the very same images with the same MOS; everything else would be
a comparison of test sets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from featbank.encoders import random_weights_note
from featbank.errors import RunError
from featbank.runs.evaluate import FEW_GROUPS
from featbank.runs.folder import RunData, Scores, as_float, read_run
from featbank.runs.trust import disagreements
from regressors.evaluation.comparison import (
    DEFAULT_METRICS,
    closest_shares,
    compare_paired,
    subset_drop,
)
from regressors.evaluation.intervals import MIN_GROUPS
from regressors.evaluation.metrics import ERRORS

PARTS: Final = ("test", "test/exclusive", "validation", "validation/exclusive")
"""Parts in the order they are shown; `TRAINING` takes their place where there is none."""

TRAINING: Final = "training_cv"

MIN_ROWS: Final = 8
"""A part with fewer images is not compared: its resamples would hardly differ."""


@dataclass(frozen=True)
class RunInComparison:
    """One run under the name it has in the comparison.

    Attributes
    ----------
    label : str
        Name of its folder, or its path where folders share a name.
    gmacs : float
        nan where the cost of a band is unknown.
    seconds_per_photo : float
        Measured work of one core for one photo: decoding, views and encoders; nan where it was not measured.
    fit_s : float
        Seconds of the fit; nan where it was not measured.
    """

    label: str
    data: RunData
    gmacs: float
    seconds_per_photo: float
    fit_s: float


@dataclass(frozen=True)
class Comparison:
    """What several runs have in common and where they differ.

    Attributes
    ----------
    runs : tuple of RunInComparison
        In the order given.
    parts : dict of str to int
        Compared parts with their number of images; the first one is the headline.
    groups : dict of str to int
        Number of groups of images in each, by which resamples are drawn.
    differences : DataFrame
        As `regressors.evaluation.comparison.compare_paired` gives it, with the column ``part`` before it.
    closest : dict of str to dict of str to float
        By part: the share of the images on which each run comes closest to the MOS.
    drops : DataFrame
        One row for each run and split with exclusive images: ``run, split, whole, subset, drop, low, high`` (SRCC).
    notes : tuple of str
        Where the runs differ in what they learned from, and what could not be compared.
    """

    runs: tuple[RunInComparison, ...]
    parts: dict[str, int]
    groups: dict[str, int]
    differences: pd.DataFrame
    closest: dict[str, dict[str, float]]
    drops: pd.DataFrame
    n_resamples: int
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        """The part that the verdict speaks of."""
        return next(iter(self.parts))

    @property
    def is_simulation(self) -> bool:
        """Whether the photos were rendered."""
        return any(run.data.is_simulation for run in self.runs)

    def scores(self, part: str) -> dict[str, Scores]:
        """Metrics of each run on one part, by label."""
        return {run.label: run.data.scores[part] for run in self.runs}

    def wins(self, part: str) -> dict[str, int]:
        """In how many of the five metrics each run is best on one part; equal ones all count."""
        wins = {run.label: 0 for run in self.runs}
        for metric in DEFAULT_METRICS:
            values = {label: scores.metrics[metric] for label, scores in self.scores(part).items()}
            known = [value for value in values.values() if math.isfinite(value)]
            if not known:
                continue
            best = min(known) if metric in ERRORS else max(known)
            for label, value in values.items():
                wins[label] += value == best
        return wins


def compare_runs(folders: Sequence[str | Path], *, n_resamples: int = 5000) -> Comparison:
    """Compare runs on the rows that all of them were judged on.

    Parameters
    ----------
    folders : sequence of path
        At least two run folders.
    n_resamples : int, default=5000
        Resamples of the paired bootstrap.

    Raises
    ------
    RunError
        If a folder is no run, is given twice, contradicts itself, or the runs were judged on different rows.
    """
    resolved = [Path(folder).resolve() for folder in folders]
    if len(set(resolved)) < max(2, len(resolved)):
        raise RunError(
            f"report: a comparison needs at least 2 different runs, got {[str(f) for f in folders]}."
        )
    runs = _named(folders)
    for run in runs:
        wrong = disagreements(run.data)
        if wrong:
            raise RunError(
                f"report: run {run.label!r} contradicts itself: {wrong[0]}. Its metrics.json does not follow from its "
                "predictions.csv, so one of them was changed afterwards. Fit it again."
            )
    notes: list[str] = []
    rows = {}
    for part in PARTS:
        held = [run for run in runs if part in run.data.scores]
        if len(held) == len(runs):
            rows[part] = _aligned(runs, part)
        elif held:
            lacking = ", ".join(run.label for run in runs if run not in held)
            notes.append(f"{part} is not compared: {lacking} has no such images.")
    if not any(not part.endswith("/exclusive") for part in rows):
        if not all(TRAINING in run.data.scores for run in runs):
            raise RunError(
                "report: the runs have no split in common, so there is nothing to compare them on."
            )
        rows = {TRAINING: _aligned(runs, TRAINING)}
    small = [part for part, frame in rows.items() if len(frame) < MIN_ROWS]
    notes += [f"{part} is not compared: {len(rows.pop(part))} images are too few." for part in small]
    if not rows:
        raise RunError(f"report: fewer than {MIN_ROWS} images in common are too few to compare runs on.")
    labels = [run.label for run in runs]
    groups = {part: _groups(runs, part, frame.index) for part, frame in rows.items()}
    n_groups = {part: len(set(names)) for part, names in groups.items()}
    notes += [
        f"{part}: no intervals and no p. {FEW_GROUPS.format(n=n)}"
        for part, n in n_groups.items()
        if n < MIN_GROUPS
    ]
    differences = [
        compare_paired(
            frame["mos"],
            {label: frame[label] for label in labels},
            groups=groups[part],
            n_resamples=n_resamples,
        ).assign(part=part)
        for part, frame in rows.items()
    ]
    joined = pd.concat(differences, ignore_index=True)
    return Comparison(
        runs=tuple(runs),
        parts={part: len(frame) for part, frame in rows.items()},
        groups=n_groups,
        differences=joined[["part", *(name for name in joined if name != "part")]],
        closest={
            part: closest_shares(frame["mos"], {label: frame[label] for label in labels})
            for part, frame in rows.items()
        },
        drops=_drops(rows, groups, labels, n_resamples),
        n_resamples=n_resamples,
        notes=(*notes, *_training_notes(runs)),
    )


def _named(folders: Sequence[str | Path]) -> list[RunInComparison]:
    names = Counter(Path(folder).resolve().name for folder in folders)
    runs = []
    for folder in folders:
        data = read_run(folder)
        name = Path(folder).resolve().name
        known = all(row.get("gmacs") is not None for row in data.rows("features"))
        seconds = [as_float(value) for value in data.section("seconds_per_photo").values()]
        runs.append(
            RunInComparison(
                label=name if names[name] == 1 else str(folder),
                data=data,
                gmacs=data.gmacs if known else math.nan,
                seconds_per_photo=sum(seconds) if seconds else math.nan,
                fit_s=as_float(data.section("durations").get("fit_s")),
            )
        )
    return runs


def _part_rows(run: RunData, part: str) -> pd.DataFrame:
    split, _, subset = part.partition("/")
    frame = run.scored("training" if part == TRAINING else split)
    if subset:
        frame = frame[frame["subset"] == subset]
    return frame.set_index("image")[["mos", "predicted", "group"]]


def _aligned(runs: Sequence[RunInComparison], part: str) -> pd.DataFrame:
    """Join the runs' predictions by image: columns ``mos`` and one for each run."""
    first = _part_rows(runs[0].data, part)
    joined = first[["mos"]].copy()
    joined[runs[0].label] = first["predicted"]
    for run in runs[1:]:
        rows = _part_rows(run.data, part)
        _check_same_rows(runs[0].label, first, run.label, rows, part)
        joined[run.label] = rows["predicted"].reindex(first.index)
    return joined


def _groups(runs: Sequence[RunInComparison], part: str, images: pd.Index) -> list[str]:
    """Group of each image by the run that knows the largest groups; runs of old have none."""
    known = [_part_rows(run.data, part)["group"].reindex(images).tolist() for run in runs]
    return min(known, key=lambda labels: len(set(labels)))


def _check_same_rows(label: str, first: pd.DataFrame, other: str, rows: pd.DataFrame, part: str) -> None:
    name = "training, out of fold" if part == TRAINING else part
    only_first, only_other = first.index.difference(rows.index), rows.index.difference(first.index)
    if len(only_first) or len(only_other):
        example = (only_first if len(only_first) else only_other)[0]
        raise RunError(
            f"report: runs {label!r} and {other!r} were judged on different {name} images: {len(first):,} and "
            f"{len(rows):,}, of which {len(only_first):,} and {len(only_other):,} are not in the other (first: "
            f"{example!r}). Scores on different images cannot be compared; fit both on the same dataset and split."
        )
    moved = np.flatnonzero(np.abs(first["mos"] - rows["mos"].reindex(first.index)) > 1e-9)
    if len(moved):
        image = first.index[moved[0]]
        raise RunError(
            f"report: runs {label!r} and {other!r} were judged by different MOS on {len(moved):,} {name} images "
            f"(first: {image!r}, {first.loc[image, 'mos']:g} and {rows.loc[image, 'mos']:g}). Give both one MOS."
        )


def _drops(
    rows: dict[str, pd.DataFrame], groups: dict[str, list[str]], labels: Sequence[str], n_resamples: int
) -> pd.DataFrame:
    found = []
    for split in ("test", "validation"):
        if split not in rows or f"{split}/exclusive" not in rows:
            continue
        frame = rows[split]
        inside = frame.index.isin(rows[f"{split}/exclusive"].index)
        found += [
            {"run": label, "split": split}
            | subset_drop(frame["mos"], frame[label], inside, groups=groups[split], n_resamples=n_resamples)
            for label in labels
        ]
    return pd.DataFrame(found, columns=["run", "split", "whole", "subset", "drop", "low", "high"])


def _training_notes(runs: Sequence[RunInComparison]) -> list[str]:
    """Say where runs learned from different rows or have random weights: allowed, but a reader has to know."""
    first = set(runs[0].data.scored("training")["image"])
    notes = []
    for run in runs[1:]:
        other = set(run.data.scored("training")["image"])
        if other != first:
            notes.append(
                f"{runs[0].label} and {run.label} did not learn from the same images: {len(first):,} and "
                f"{len(other):,}, {len(first & other):,} in common."
            )
    for run in runs:
        if run.data.random_bands:
            notes.append(f"{run.label}: {random_weights_note(run.data.random_bands)}")
    return notes
