"""What every protocol starts from: the features of a recipe on a dataset, the rows that take part, one fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.errors import RunError
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import as_written
from featbank.runs.model import build_ensemble, folds_of, n_crops_of
from featbank.runs.split import describe_rows, find_copies, prepare_rows
from featbank.table import Band, build_table, resolve_band
from featbank.workers import starting_workers
from regressors.ensemble import BandEnsemble, NoSkillWarning
from regressors.evaluation.metrics import METRICS, evaluate

ROWS: Final = ("training", "all", "test")


@dataclass(frozen=True)
class Material:
    """Features and rows of a recipe on one dataset.

    Attributes
    ----------
    table : ImageTable
    recipe : Recipe
    bands : list of Band
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
    table : ImageTable
    recipe : Recipe
    bank : Bank
    which : {"training", "all", "test"} or None
        Rows that take part. None takes the training rows of a dataset with an official split, so that its test rows
        stay unread, and all rows of one without.
    features_command : str
        Computes missing features, for the message.

    Returns
    -------
    Material

    Raises
    ------
    RunError
        If no such row exists.
    MissingFeaturesError, DatasetError
        If features or MOS are missing.
    """
    bands = [
        resolve_band(bank, table, band.name, band.encoder, band.view, band.aggregate) for band in recipe.bands
    ]
    features = build_table(table, bands, bank, features_command)
    has_split = bool((features.rows["split"] != "").all())
    rows = prepare_rows(features.rows, 0.0, 0, find_copies(features)).frame
    chosen = which or ("training" if has_split else "all")
    if chosen != "all":
        if not has_split:
            raise RunError(f"protocol: the dataset has no split, so it has no {chosen} rows. Use all rows.")
        rows = rows[rows["split"] == chosen]
    if len(rows) < 2:
        raise RunError(f"protocol: needs at least 2 {chosen} images with a MOS, got {len(rows)}.")
    words = f"{len(rows):,} images" if chosen == "all" else f"{len(rows):,} {chosen} images"
    n_crops = n_crops_of(bands) if recipe.regression.rows == "crops" else 1
    notes = (*table.notes, *describe_rows(features))
    return Material(table, recipe, bands, features.X.loc[rows.index], rows, n_crops, words, notes)


def fit_rows(material: Material, positions: NDArray[np.intp], *, workers: int = 1) -> BandEnsemble:
    """Fit the recipe on some of the rows, its folds and search anew.

    Parameters
    ----------
    material : Material
    positions : int array
        Rows to learn from.
    workers : int
        Processes of the search.

    Raises
    ------
    RunError
        If the rows are too few for the recipe's folds.
    """
    rows = material.rows.iloc[positions]
    request = material.recipe.regression
    try:
        ensemble = build_ensemble(request, folds_of(request, rows), workers, n_crops=material.n_crops)
        with warnings.catch_warnings():
            # A split without skill shows in its score; a warning for each of a thousand helps nobody.
            warnings.simplefilter("ignore", NoSkillWarning)
            return ensemble.fit(material.X.iloc[positions], material.y[positions])
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"protocol: {len(rows)} rows cannot be fitted: {error}") from error


def score_fit(material: Material, train: NDArray[np.intp], test: NDArray[np.intp]) -> dict[str, float]:
    """Fit on some rows and judge on others.

    Returns
    -------
    dict
        ``n_training, n_test`` and every metric.
    """
    ensemble = fit_rows(material, train)
    predicted = ensemble.predict(material.X.iloc[test])
    scores = evaluate(as_written(material.y[test]), as_written(predicted))
    return {"n_training": len(train), "n_test": len(test)} | {name: scores[name] for name in METRICS}


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
    work : callable
    jobs : iterable of tuple
        Arguments of each call.
    n_jobs : int
        How many there are, for the bar.
    workers : int or None
        Processes; None takes all processors.
    label : str
        Of the bar.

    Returns
    -------
    list of dict
        In the order of the jobs.
    """
    with starting_workers():
        results = Parallel(n_jobs=workers or -1, return_as="generator")(delayed(work)(*job) for job in jobs)
    return list(tqdm(results, total=n_jobs, desc=label, unit="fit", disable=None))
