"""What protocols share: features and rows of a recipe on a dataset, one fit, the folder of an outcome."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from featbank.atomic import replacing_folder
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.errors import RunError
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import FLOAT_FORMAT, as_written
from featbank.runs.fit import FitOptions, load_rows, resolve_bands
from featbank.runs.folder import PROTOCOL, RECEIPT, build_receipt, write_json
from featbank.runs.model import build_ensemble, folds_of, n_crops_of, weights_of
from featbank.table import Band
from featbank.workers import starting_workers
from regressors.ensemble import BandEnsemble, NoSkillWarning
from regressors.evaluation.metrics import EVALUATED, evaluate
from regressors.folds import Fold

if TYPE_CHECKING:
    from featbank.bank import Bank

ROWS: Final = ("training", "all", "test")


@dataclass(frozen=True)
class Material:
    """Features and rows of a recipe on one dataset.

    Attributes
    ----------
    X : DataFrame of shape (n_images, n_features)
    rows : DataFrame
        Same index; ``mos, split, subset, group``, every row with a MOS and a group.
    n_crops : int
        Of each image, for recipes that learn from crops.
    which : str
        The rows taken, in words.
    notes : tuple of str
        The dataset's notes, and which of its images take no part.
    """

    table: ImageTable
    recipe: Recipe
    bands: list[Band]
    X: pd.DataFrame
    rows: pd.DataFrame
    n_crops: int
    which: str
    notes: tuple[str, ...]

    @property
    def y(self) -> NDArray[np.float64]:
        """MOS."""
        return self.rows["mos"].to_numpy(dtype=np.float64)


def prepare(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    *,
    which: str | None = None,
    features_command: str = "featbank features",
) -> Material:
    """Read features and choose rows.

    Parameters
    ----------
    which : {"training", "all", "test"} or None
        Rows that take part. None takes the training rows of a dataset with an official split, so that its test rows
        stay unread, and all rows of one without.

    Raises
    ------
    RunError
        If no such row exists.
    MissingFeaturesError, DatasetError
        If features or MOS are missing.
    """
    bands = resolve_bands(bank, table, recipe.bands)
    options = FitOptions(test_fraction=0.0, features_command=features_command)
    loaded = load_rows(table, bands, bank, recipe.regression, options)
    has_split = bool((loaded.features.rows["split"] != "").all())
    rows = loaded.rows
    chosen = which or ("training" if has_split else "all")
    if chosen != "all":
        if not has_split:
            raise RunError(f"protocol: the dataset has no split, so it has no {chosen} rows. Use all rows.")
        rows = rows[rows["split"] == chosen]
    if len(rows) < 2:
        raise RunError(f"protocol: needs at least 2 {chosen} images with a MOS, got {len(rows)}.")
    words = f"{len(rows):,} images" if chosen == "all" else f"{len(rows):,} {chosen} images"
    n_crops = n_crops_of(bands) if recipe.regression.rows == "crops" else 1
    notes = (*table.notes, *loaded.left_out)
    return Material(table, recipe, bands, loaded.table(rows), rows, n_crops, words, notes)


def fit_rows(
    material: Material, positions: NDArray[np.intp], *, folds: list[Fold] | None = None, workers: int = 1
) -> BandEnsemble:
    """Fit the recipe on some of the rows, its folds and search anew.

    Parameters
    ----------
    folds : list of (int array, int array), optional
        Instead of those of the recipe; they count ``positions``.

    Raises
    ------
    RunError
        If the rows are too few for the recipe's folds.
    """
    rows = material.rows.iloc[positions]
    request = material.recipe.regression
    try:
        ensemble = build_ensemble(
            request, folds or folds_of(request, rows), workers, n_crops=material.n_crops
        )
        with warnings.catch_warnings():
            # A split without skill shows in its score; a warning for each of a thousand helps nobody.
            warnings.simplefilter("ignore", NoSkillWarning)
            weights = weights_of(request, material.table, rows)
            return ensemble.fit(material.X.iloc[positions], material.y[positions], sample_weight=weights)
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"protocol: {len(rows)} rows cannot be fitted: {error}") from error


def score_fit(
    material: Material,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    validation: NDArray[np.intp] | None = None,
) -> dict[str, Any]:
    """Fit on some rows and judge on others.

    Parameters
    ----------
    validation : int array, optional
        Those of the rows ``train`` that are held out while hyper-parameters are chosen, instead of the recipe's folds.

    Returns
    -------
    dict
        ``n_training, n_test``, every metric, and ``predicted``, float array of shape (n_test,), as written.
    """
    folds = None
    if validation is not None and len(validation):
        is_held_out = np.isin(train, validation)
        places = {position: place for place, position in enumerate(train.tolist())}
        folds = [(np.flatnonzero(~is_held_out), np.array([places[row] for row in validation.tolist()]))]
    ensemble = fit_rows(material, train, folds=folds)
    predicted = as_written(ensemble.predict(material.X.iloc[test]))
    scores = evaluate(as_written(material.y[test]), predicted)
    own = {name: scores[name] for name in EVALUATED}
    return {"n_training": len(train), "n_test": len(test), **own, "predicted": predicted}


def run_all(
    work: Callable[..., dict[str, Any]],
    jobs: Iterable[tuple[Any, ...]],
    n_jobs: int,
    workers: int | None,
    label: str,
) -> list[dict[str, Any]]:
    """Run many independent fits over processes, with a progress bar when somebody watches.

    Parameters
    ----------
    workers : int or None
        Processes; None takes all processors.

    Returns
    -------
    list of dict
        In the order of the jobs.
    """
    with starting_workers():
        results = Parallel(n_jobs=workers or -1, return_as="generator")(delayed(work)(*job) for job in jobs)
    return list(tqdm(results, total=n_jobs, desc=label, unit="fit", disable=None))


OUTCOME = "protocol.json"
SCORES = "scores.csv"
SPLITS = "splits.csv"


@dataclass(frozen=True)
class Outcome:
    """The result of one protocol.

    Attributes
    ----------
    kind : str
        ``repeated``, ``given``, ``cross`` or ``curve``.
    title, sentence : str
        For people.
    settings : dict
        What was asked, JSON-able.
    scores : DataFrame
        Every fit, or every predictor.
    summary : DataFrame or None
        As `regressors.evaluation.comparison.summarise_scores` gives it.
    notes : tuple of str
        What a reader has to know.
    predictions : DataFrame or None
        By image, or by split and image.
    splits : DataFrame or None
        By image: one column for each split, with the part that the image has in it.
    """

    kind: str
    title: str
    sentence: str
    settings: dict[str, Any]
    scores: pd.DataFrame
    summary: pd.DataFrame | None
    notes: tuple[str, ...]
    predictions: pd.DataFrame | None = None
    splits: pd.DataFrame | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what ``protocol.json`` holds."""
        frame = self.scores if self.summary is None else self.summary
        return {
            "protocol": self.kind,
            "sentence": self.sentence,
            "settings": self.settings,
            "summary": json_rows(frame),
            "notes": list(self.notes),
        }


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a frame into JSON-able rows, undefined numbers into null."""
    return [
        {
            key: None if pd.isna(value) else value.item() if hasattr(value, "item") else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def write_outcome(
    outcome: Outcome,
    materials: list[Material],
    bank: Bank,
    out: Path,
    *,
    write_page: Callable[[Outcome, Path, str, bool], object],
    durations: dict[str, float],
    started: datetime,
) -> Path:
    """Write the folder of a protocol; an earlier one there is replaced as a whole.

    Parameters
    ----------
    materials : list of Material
        Datasets behind it; the receipt describes the first, and the others under ``also``.
    durations : dict of str to float
        Seconds.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If ``out`` cannot be written.
    """
    first = materials[0]
    receipts = [
        build_receipt(
            material.recipe,
            material.table,
            material.rows,
            material.bands,
            bank.root,
            {
                "protocol": outcome.settings,
                "durations": durations,
                "started": started.astimezone(UTC).isoformat(timespec="seconds"),
                "notes": [*material.notes, *outcome.notes],
            },
        )
        for material in materials
    ]
    with replacing_folder(out, PROTOCOL, "protocol --out") as folder:
        write_json(folder / OUTCOME, outcome.as_json())
        write_json(folder / RECEIPT, receipts[0] | {"also": [receipt["dataset"] for receipt in receipts[1:]]})
        outcome.scores.to_csv(folder / SCORES, index=False, float_format=FLOAT_FORMAT)
        if outcome.summary is not None:
            outcome.summary.to_csv(folder / "summary.csv", index=False, float_format=FLOAT_FORMAT)
        if outcome.predictions is not None:
            outcome.predictions.to_csv(folder / "predictions.csv", index=False, float_format=FLOAT_FORMAT)
        if outcome.splits is not None:
            outcome.splits.to_csv(folder / SPLITS, index=False)
        (folder / "recipe.toml").write_text(first.recipe.to_toml(), encoding="utf-8")
        write_page(outcome, folder, first.recipe.title, any(m.table.is_simulation for m in materials))
    return out / "protocol.html"
