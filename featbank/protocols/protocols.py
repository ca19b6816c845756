"""How far a score holds: repeated or given splits, another dataset, fewer rated photos."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from featbank.datasets import GivenSplit
from featbank.errors import RunError
from featbank.protocols.preparation import (
    SCORES,
    SPLITS,
    Material,
    Outcome,
    fit_rows,
    json_rows,
    run_all,
    score_fit,
)
from featbank.runs.evaluate import as_written, judge
from featbank.runs.split import written_groups
from featbank.runs.trust import check_duplicates
from regressors.evaluation.comparison import compare_by_split, draw_splits, summarise_scores
from regressors.evaluation.metrics import EVALUATED
from regressors.folds import Fold


def run_repeated(
    material: Material,
    *,
    n_splits: int = 100,
    test_size: float = 0.2,
    grouped: bool = True,
    random_state: int = 0,
    workers: int | None = None,
) -> Outcome:
    """Fit and judge a recipe on many random splits.

    Parameters
    ----------
    test_size : float
        Share of the groups, or images, that test.
    grouped : bool
        Draw whole groups. False draws images and lets groups stand on both sides, as many published figures do.

    Returns
    -------
    Outcome
        ``scores``: one row for each split.

    Raises
    ------
    RunError
        If there are too few rows or groups.
    """
    splits = _draw(material, n_splits, test_size, grouped, random_state)
    if min(len(test) for _, test in splits) < 2:
        raise RunError(
            f"protocol: a split leaves fewer than 2 test images of {len(material.rows)}. Raise --test-fraction."
        )
    parts = [GivenSplit(str(i), train, train[:0], test) for i, (train, test) in enumerate(splits)]
    scores, summary, predictions, members = _run_splits(material, parts, workers)
    scores["split"] = range(len(scores))
    settings: dict[str, Any] = {
        "n_splits": n_splits,
        "test_size": test_size,
        "grouped": grouped,
        "rows": material.which,
        "random_state": random_state,
    }
    row = summary.set_index("metric").loc["srcc"]
    unit = "groups" if grouped else "images"
    sentence = (
        f"Over {n_splits:,} random splits of {material.which} ({test_size:.0%} of the {unit} held out) the recipe "
        f"reaches a median SRCC of {row['median']:.3f}, with a standard deviation of {row['std']:.3f} between splits; "
        f"95 % of the splits lie between {row['low']:.3f} and {row['high']:.3f}."
    )
    notes = []
    if not grouped and material.rows["group"].duplicated().any():
        notes.append("Images of one group may stand on both sides of these splits, which flatters the score.")
    notes += _undefined(summary)
    return Outcome(
        "repeated", "Repeated splits", sentence, settings, scores, summary, tuple(notes), predictions, members
    )


def _undefined(summary: pd.DataFrame) -> list[str]:
    n = int(summary.set_index("metric").loc["srcc", "undefined"])
    return [f"{n} splits have no SRCC, because their predictions are constant."] if n else []


def _run_splits(
    material: Material, splits: Sequence[GivenSplit], workers: int | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Fit and judge on each split; give scores by split, their summary, predictions, and who stands where.

    Positions are those of the rows of ``material``, in the order in which they are fitted.
    """
    jobs = [
        (
            material,
            np.concatenate([split.training, split.validation[~np.isin(split.validation, split.training)]]),
            split.test,
            split.validation,
        )
        for split in splits
    ]
    results = run_all(score_fit, jobs, len(jobs), workers, "splits")
    images = material.rows.index.to_numpy()
    predictions = pd.concat(
        [
            pd.DataFrame(
                {
                    "split": split.label,
                    "image": images[split.test],
                    "mos": as_written(material.y[split.test]),
                    "predicted": result.pop("predicted"),
                }
            )
            for split, result in zip(splits, results, strict=True)
        ],
        ignore_index=True,
    )
    columns = {"image": images}
    for split in splits:
        part = np.full(len(images), "", dtype=object)
        for name in ("training", "validation", "test"):
            part[getattr(split, name)] = name
        columns[split.label if "split" in split.label else f"split_{split.label}"] = part
    scores = pd.DataFrame(results)
    scores.insert(0, "split", [split.label for split in splits])
    return scores, summarise_scores(scores, list(EVALUATED)), predictions, pd.DataFrame(columns)


def run_given(
    material: Material, splits: Sequence[GivenSplit], *, notes: Sequence[str] = (), workers: int | None = None
) -> Outcome:
    """Fit and judge a recipe on splits that somebody published.

    A split's validation images choose the hyper-parameters, in the place of the recipe's folds, and teach with the
    others thereafter. Images are fitted in the order of the list.

    Parameters
    ----------
    splits : sequence of GivenSplit
        Positions in the rows of ``material.table``, as `featbank.datasets.read_splits` gives them.
    notes : sequence of str
        What reading the splits said.

    Returns
    -------
    Outcome
        ``scores``: one row for each split; ``predictions`` and ``splits``.

    Raises
    ------
    RunError
        If a split leaves too few images.
    """
    places = material.rows.index.get_indexer(material.table.frame["image_id"])
    own = []
    n_gone = 0
    for split in splits:
        parts = [places[rows] for rows in (split.training, split.validation, split.test)]
        n_gone = max(n_gone, sum(int((part < 0).sum()) for part in parts))
        kept = GivenSplit(split.label, *(part[part >= 0] for part in parts))
        if min(len(kept.training), len(kept.test)) < 2:
            raise RunError(
                f"protocol: split {split.label} leaves {len(kept.training)} training and {len(kept.test)} test images "
                "with features and a MOS, expected at least 2 each."
            )
        own.append(kept)
    scores, summary, predictions, members = _run_splits(material, own, workers)
    row = summary.set_index("metric").loc["srcc"]
    sentence = (
        f"Over {len(own):,} given splits of {material.which} the recipe reaches a median SRCC of {row['median']:.3f}, "
        f"with a standard deviation of {row['std']:.3f} between splits."
    )
    groups = material.rows["group"].to_numpy()
    n_shared = sum(bool(np.isin(groups[split.test], groups[split.training]).any()) for split in own)
    said = [*notes]
    if n_gone:
        said.append(f"Up to {n_gone:,} images of a split have no features or no MOS, and take no part.")
    if n_shared:
        said.append(
            f"In {n_shared:,} of {len(own):,} splits a group stands on both sides, which flatters the score."
        )
    if any(len(split.validation) for split in own):
        said.append(
            "Validation images of a split chose the hyper-parameters, and taught with the others thereafter."
        )
    settings: dict[str, Any] = {"n_splits": len(own), "rows": material.which}
    return Outcome(
        "given",
        "Given splits",
        sentence,
        settings,
        scores,
        summary,
        (*said, *_undefined(summary)),
        predictions,
        members,
    )


def compare_outcomes(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Compare protocols on the same splits with the first of them, split by split.

    Parameters
    ----------
    folders : sequence of str or Path
        At least two, written by ``featbank protocol given`` or ``repeated``.

    Returns
    -------
    list of dict
        ``run``, ``against``, and a row of `regressors.evaluation.comparison.compare_by_split`, for each metric.

    Raises
    ------
    RunError
        If a folder is no such protocol, or the splits differ.
    """
    read = []
    for folder in map(Path, folders):
        try:
            read.append(tuple(pd.read_csv(folder / name, dtype={"split": str}) for name in (SCORES, SPLITS)))
        except (OSError, ValueError) as error:
            raise RunError(
                f"protocol paired: {folder} must hold {SCORES} and {SPLITS}, which `featbank protocol given` and "
                f"`repeated` write: {error}."
            ) from error
    first_scores, first_splits = read[0]
    rows = []
    for other, (scores, splits) in zip(folders[1:], read[1:], strict=True):
        if not splits.equals(first_splits):
            raise RunError(
                f"protocol paired: {other} has other splits than {folders[0]}, or other images in them. Run both "
                "recipes with the same --splits-file, or the same seed, on the same images."
            )
        found = compare_by_split(scores, first_scores, list(EVALUATED))
        rows += [{"run": str(other), "against": str(folders[0]), **row} for row in json_rows(found)]
    return rows


def _draw(
    material: Material, n_splits: int, test_size: float, grouped: bool, random_state: int
) -> list[Fold]:
    """Draw random splits into rows that teach and rows that test."""
    groups = material.rows["group"].to_numpy() if grouped else None
    try:
        return draw_splits(
            len(material.rows), groups, n_splits=n_splits, test_size=test_size, random_state=random_state
        )
    except ValueError as error:
        raise RunError(f"protocol: {error}") from error


SMALLEST = 30
"""Rated photos at which a curve starts by itself."""

N_SIZES = 6


def default_sizes(n_available: int) -> list[int]:
    """Choose sizes from `SMALLEST` to all rows, each about the same multiple of the one before."""
    if n_available <= SMALLEST:
        return [n_available]
    return sorted({round(float(size)) for size in np.geomspace(SMALLEST, n_available, N_SIZES)})


def run_curve(
    material: Material,
    *,
    sizes: Sequence[int] | None = None,
    n_repeats: int = 10,
    test_size: float = 0.2,
    grouped: bool = True,
    random_state: int = 0,
    workers: int | None = None,
) -> Outcome:
    """Fit a recipe on growing parts of the rows and judge each on the same held-out rows.

    Parameters
    ----------
    sizes : sequence of int or None
        Numbers of training images; None chooses six, up to all.
    n_repeats : int
        Random splits, and random orders in which images are rated, behind each point. The smaller parts of one repeat
        are contained in the larger ones.
    test_size : float
        Share of the groups, or images, that judge.
    grouped : bool
        Keep groups off both sides.

    Returns
    -------
    Outcome
        ``scores``: one row for each repeat and size.

    Raises
    ------
    RunError
        If a size is larger than what is left for training, or too small for the recipe's folds.
    """
    splits = _draw(material, n_repeats, test_size, grouped, random_state)
    available = min(len(train) for train, _ in splits)
    chosen = default_sizes(available) if sizes is None else sorted(set(sizes))
    if chosen[0] < 2 or chosen[-1] > available:
        raise RunError(
            f"protocol: sizes must lie between 2 and {available}, the images left for training in every repeat, got "
            f"{', '.join(map(str, chosen))}."
        )
    rng = np.random.default_rng(random_state)
    jobs, labels = [], []
    for repeat, (train, test) in enumerate(splits):
        order = rng.permutation(train)
        for size in chosen:
            jobs.append((material, np.sort(order[:size]), test))
            labels.append({"repeat": repeat, "size": size})
    results = run_all(score_fit, jobs, len(jobs), workers, "fits")
    scores = pd.DataFrame([label | result for label, result in zip(labels, results, strict=True)])
    scores = scores.drop(columns="predicted")
    summary = summarise_scores(scores, list(EVALUATED), by="size")
    srcc = summary[summary["metric"] == "srcc"].set_index("size")
    settings: dict[str, Any] = {
        "sizes": chosen,
        "n_repeats": n_repeats,
        "test_size": test_size,
        "grouped": grouped,
        "rows": material.which,
        "random_state": random_state,
    }
    first, last = srcc.iloc[0], srcc.iloc[-1]
    sentence = (
        f"With {chosen[0]:,} rated photos the recipe reaches a median SRCC of {first['median']:.3f} over {n_repeats} "
        f"repeats, with {chosen[-1]:,} of {last['median']:.3f}"
    )
    if len(chosen) > 1:
        gain = last["median"] - srcc.iloc[-2]["median"]
        sentence += f"; the last step, from {chosen[-2]:,}, brought {gain:+.3f}"
    return Outcome("curve", "Learning curve", f"{sentence}.", settings, scores, summary, ())


NOMINAL: Final = "nominal"
IDENTITY: Final = "none"
_EXPLICIT = re.compile(r"^([-+.\deE]+),([-+.\deE]+):([-+.\deE]+),([-+.\deE]+)$")


@dataclass(frozen=True)
class ScaleMap:
    """A straight line from one MOS scale onto another, declared before any score is seen.

    Attributes
    ----------
    source, target : (float, float)
        Worst and best of each scale.
    """

    source: tuple[float, float]
    target: tuple[float, float]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Bring values of the source scale onto the target scale."""
        (a, b), (c, d) = self.source, self.target
        return c + (np.asarray(values, dtype=np.float64) - a) * (d - c) / (b - a)

    def __str__(self) -> str:
        (a, b), (c, d) = self.source, self.target
        return f"{a:g} to {b:g} onto {c:g} to {d:g}"


def declare_map(text: str, source: tuple[float, float], target: tuple[float, float]) -> ScaleMap:
    """Read the declaration of a map.

    Parameters
    ----------
    text : str
        ``nominal`` (the nominal ends of one scale onto those of the other), ``none`` (the scales are the same), or four
        numbers ``a,b:c,d`` that say that a and b of the first scale are c and d of the second.

    Raises
    ------
    RunError
        If the text is none of these, a scale is unknown, or the map does not increase.
    """
    if text == IDENTITY:
        return ScaleMap((0.0, 1.0), (0.0, 1.0))
    if text == NOMINAL:
        ends = (source, target)
        if not all(math.isfinite(value) for scale in ends for value in scale):
            raise RunError(
                "protocol: --map nominal needs datasets that state the ends of their scale; give four numbers instead, "
                "such as --map 0,100:1,5."
            )
    else:
        match = _EXPLICIT.match(text)
        try:
            a, b, c, d = (float(part) for part in match.groups()) if match else (0.0,) * 4
        except ValueError as error:
            raise RunError(f"protocol: --map {text!r} holds something that is no number.") from error
        ends = ((a, b), (c, d))
    (a, b), (c, d) = ends
    if not (a < b and c < d):
        raise RunError(
            f"protocol: --map must be nominal, none, or four numbers a,b:c,d with a < b and c < d, got {text!r}. "
            "A DMOS, where lower is better, is turned round when the dataset is read."
        )
    return ScaleMap((a, b), (c, d))


def run_cross(source: Material, target: Material, scale: ScaleMap, *, workers: int | None = None) -> Outcome:
    """Fit on one dataset and judge on another.

    Parameters
    ----------
    source, target : Material
        Of the same recipe.
    scale : ScaleMap
        From the first MOS scale onto the second.

    Returns
    -------
    Outcome
        ``scores``: one row each for the model, its own out-of-fold predictions, and constants; ``predictions``.

    Raises
    ------
    RunError
        If the features of the datasets differ in shape.
    """
    if list(source.X.columns) != list(target.X.columns):
        raise RunError(
            f"protocol: the recipe has {source.X.shape[1]} columns on {source.table.name!r} and {target.X.shape[1]} on "
            f"{target.table.name!r}. Imported bands must be computed in the same way on both."
        )
    positions = np.arange(len(source.rows))
    ensemble = fit_rows(source, positions, workers=workers or -1)
    predicted = as_written(scale(ensemble.predict(target.X)))
    held_out = ensemble.oof_predictions_
    tested = np.isfinite(held_out)
    names = source.table.name, target.table.name
    judged = {
        f"{names[0]} to {names[1]}": judge(
            target.y, predicted, groups=target.rows["group"], with_intervals=True
        ),
        f"within {names[0]}, out of fold": judge(
            source.y[tested], held_out[tested], groups=source.rows["group"][tested], with_intervals=True
        ),
        f"constant: mean of {names[0]}": judge(
            target.y, np.full(len(target.y), scale(np.array([source.y.mean()]))[0]), with_intervals=False
        ),
        f"constant: mean of {names[1]}": judge(
            target.y, np.full(len(target.y), target.y.mean()), with_intervals=False
        ),
    }
    scores = pd.DataFrame(
        [
            {"predictor": name, "n": entry["n"]}
            | {metric: entry[metric] for metric in EVALUATED}
            | {
                f"srcc_{end}": bounds[i]
                for bounds in [(entry.get("ci95") or {}).get("srcc", (None, None))]
                for i, end in enumerate(("low", "high"))
            }
            for name, entry in judged.items()
        ]
    )
    first, within = scores.iloc[0], scores.iloc[1]
    value = "none, because its predictions are constant" if pd.isna(first["srcc"]) else f"{first['srcc']:.3f}"
    sentence = (
        f"Fitted on {source.which} of {names[0]}, the recipe reaches on {target.which} of {names[1]} "
        f"an SRCC of {value}"
    )
    if pd.notna(first["srcc_low"]):
        sentence += f" (95 % interval {first['srcc_low']:.3f} to {first['srcc_high']:.3f})"
    if pd.notna(within["srcc"]):
        sentence += f"; within its own dataset it has {within['srcc']:.3f} out of fold"
    copies = check_duplicates(target.X, source.X)
    predictions = target.rows[["split", "subset", "group", "mos"]].copy()
    predictions["group"] = written_groups(target.rows["group"], target.rows.index.to_series())
    predictions.insert(0, "image", predictions.index)
    predictions["predicted"] = predicted
    settings: dict[str, Any] = {
        "source": {"dataset": names[0], "rows": source.which},
        "target": {"dataset": names[1], "rows": target.which},
        "map": {"source": list(scale.source), "target": list(scale.target)},
    }
    notes = (
        f"MOS were rescaled by a line fixed beforehand, {scale}; only MAE and RMSE depend on it.",
        copies.sentence,
        *(f"{name}: {entry['ci95_reason']}" for name, entry in judged.items() if "ci95_reason" in entry),
    )
    return Outcome(
        "cross", "Cross-dataset evaluation", f"{sentence}.", settings, scores, None, notes, predictions
    )
