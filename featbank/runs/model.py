"""From a recipe's regression to a fitted ensemble, and to the model file and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.encoders.custom import code_agrees
from featbank.errors import RunError
from regressors.bands import BlockTable
from regressors.checks import Table
from regressors.ensemble import BandEnsemble
from regressors.evaluation.intervals import ConformalInterval
from regressors.folds import PLAIN_KINDS
from regressors.novelty import MIN_ROWS, BandNovelty
from regressors.persistence import load_model, save_model

if TYPE_CHECKING:  # what fits is imported where it is used: scoring needs none of it
    from featbank.datasets import ImageTable
    from featbank.recipes.reading import BandRequest, Recipe, RegressionRequest
    from featbank.table import Band
    from regressors.folds import Fold

MODEL = "model.skops"

LOW, HIGH = "predicted_low", "predicted_high"
"""Columns of ``predictions.csv`` and of scores."""

NOVELTY_ROWS = 1000
"""Training rows that tell what a photo unlike them is."""

MAX_KEPT_ROWS = 100_000
"""Training rows up to which a model file keeps folds and held-out predictions."""


MIN_FOLD_ROWS = 2
"""Fewer rows have no correlation."""


def folds_of(request: RegressionRequest, training: pd.DataFrame) -> list[Fold]:
    """Cut the training rows as the recipe asks.

    Parameters
    ----------
    training : DataFrame
        Columns ``mos`` and ``group``.

    Returns
    -------
    list of (int array, int array)
        Row positions to fit and to test.

    Raises
    ------
    RunError
        If there are too few images or groups for the folds.
    """
    from regressors.folds import make_folds

    cv = request.cv
    sizes = training["group"].value_counts()
    n_parts = 2 if cv.kind.endswith("holdout") else cv.n_splits
    cure = (
        "Leave the column `group` out if its images do not depend on each other, add photos of other groups, lower "
        'regression.cv.n_splits, or set regression.cv.kind = "kfold", which may split a group.'
    )
    if len(training) < MIN_FOLD_ROWS * n_parts:
        raise RunError(
            f"fit: {len(training)} training image(s) are too few for {n_parts} parts of at least {MIN_FOLD_ROWS}. Add "
            "photos with MOS, or lower regression.cv.n_splits in the recipe."
        )
    if cv.kind not in PLAIN_KINDS and len(sizes) < n_parts:
        raise RunError(
            f"fit: {n_parts} folds that split no group need as many groups, but the {len(training)} training images "
            f"are of {len(sizes)} (the largest, {sizes.index[0]!r}, holds {sizes.iloc[0]}). {cure}"
        )
    try:
        folds = make_folds(
            training["mos"].to_numpy(dtype=np.float64),
            training["group"].to_numpy(),
            kind=cv.kind,
            n_splits=cv.n_splits,
            shuffle=cv.shuffle,
            random_state=cv.random_state,
            test_size=cv.test_size,
        )
    except ValueError as error:
        raise RunError(f"fit: the training rows cannot be cut as the recipe's cv asks: {error}") from error
    if min(min(len(fit), len(test)) for fit, test in folds) < MIN_FOLD_ROWS:
        cause = describe_large_group(request, training) or "the groups of the training images are uneven."
        raise RunError(f"fit: {cause} Folds with fewer than {MIN_FOLD_ROWS} images are left. {cure}")
    return folds


def weights_of(
    request: RegressionRequest, table: ImageTable, rows: pd.DataFrame
) -> NDArray[np.float64] | None:
    """Return how much each row counts, shape (n_rows,), where the recipe asks for it; None where all count alike."""
    return table.weights(request.sample_weight, rows.index.tolist()) if request.sample_weight else None


def describe_large_group(request: RegressionRequest, training: pd.DataFrame) -> str:
    """Say which group is larger than the folds that are to hold groups as wholes; empty where none is."""
    cv = request.cv
    sizes = training["group"].value_counts()
    room = len(training) * (cv.test_size if cv.kind.endswith("holdout") else 1 / cv.n_splits)
    if cv.kind in PLAIN_KINDS or sizes.iloc[0] <= max(room, 1.0):
        return ""
    return (
        f"group {sizes.index[0]!r} holds {sizes.iloc[0]} of the {len(training)} training images, more than a fold "
        f"(about {room:.0f}), so the folds are uneven."
    )


def build_ensemble(
    request: RegressionRequest,
    folds: list[Fold],
    workers: int | None,
    members: list[list[str]] | None = None,
    n_crops: int = 1,
    reference: bool = False,
) -> BandEnsemble:
    """Build the unfitted ensemble of a recipe.

    Parameters
    ----------
    workers : int or None
        Processes for the grid search; None takes all processors.
    members : list of list of str or None
        Other members than the recipe's, for example a single band.
    """
    own = (
        request.members if isinstance(request.members, str) else [list(member) for member in request.members]
    )
    return BandEnsemble(
        members=own if members is None else members,
        estimator=request.estimator,
        alpha=list(request.alpha),
        C=list(request.C),
        epsilon=list(request.epsilon),
        gamma=list(request.gamma),
        band_weights=list(request.band_weights) or None,
        unit_band=request.unit_band,
        scale=request.scale,
        cv=folds,
        combine=request.combine,
        select_by=request.select_by,
        n_jobs=workers or -1,
        random_state=request.cv.random_state,
        reference=reference,
        n_crops=n_crops,
    )


def n_crops_of(bands: Sequence[Band | BandRequest]) -> int:
    """Return how many crops the bands of a recipe with ``rows = "crops"`` have.

    Raises
    ------
    RunError
        If they differ, or a band is not computed here.
    """
    from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX
    from featbank.views import parse_view

    counts = {
        band.name: _crops_in(band)
        or (
            parse_view(band.view).geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)[0][0]
            if band.aggregate == "concat"
            else 0
        )
        for band in bands
    }
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{name} {count or 'unknown'}" for name, count in counts.items())
        raise RunError(
            f'fit: regression.rows = "crops" needs the same number of crops in every band, got {listed}.'
        )
    return next(iter(counts.values()))


def _crops_in(band: Band | BandRequest) -> int:
    """Return how many crops an imported band holds side by side; 0 for another, or for one without."""
    folder = getattr(band, "folder", None)
    return 0 if folder is None else int(folder.identity.get("n_crops", 0))


def chosen_parameters(ensemble: BandEnsemble, n_rows: int) -> list[dict[str, Any]]:
    """Return the hyper-parameters of each member and the rows they were chosen on."""
    return [
        {"member": name, "params": params, "rows": f"{n_rows} training rows, {len(ensemble.folds_)} folds"}
        for name, params in zip(ensemble.member_names_, ensemble.member_params_, strict=True)
    ]


def members_frame(ensemble: BandEnsemble) -> pd.DataFrame:
    """Return one row for each member: ``member``, ``weight``, ``bands``; the intercept is the last row."""
    rows = [
        (name, weight, "+".join(bands))
        for name, weight, bands in zip(
            ensemble.member_names_, ensemble.weights_, ensemble.member_bands_, strict=True
        )
    ]
    return pd.DataFrame(
        [*rows, ("intercept", ensemble.intercept_, "")], columns=["member", "weight", "bands"]
    )


def save_run_model(
    path: Path,
    ensemble: BandEnsemble,
    recipe: Recipe,
    bands: list[Band],
    table: ImageTable,
    interval: ConformalInterval | None = None,
    novelty: BandNovelty | None = None,
) -> None:
    """Write the model with everything that scoring needs: the same features, its interval, what is unlike training.

    A model of more than `MAX_KEPT_ROWS` rows is written without its folds and held-out predictions; the latter are in
    the run's ``predictions.csv``.
    """
    manifest = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "dataset": table.name,
        "simulation": table.is_simulation,
        "mos_range": [float(bound) for bound in table.mos_range],
        "interval": None if interval is None else asdict(interval),
        "training_distance": None if novelty is None else novelty.as_json(),
        "bands": [
            {
                "name": band.name,
                "encoder": band.encoder,
                "view": band.view,
                "aggregate": band.aggregate,
                "digest": band.folder.digest,
                **_code_of(band),
            }
            for band in bands
        ],
    }
    save_model(path, _without_rows(ensemble) if ensemble.n_rows_ > MAX_KEPT_ROWS else ensemble, manifest)


def fit_novelty(X: Table, folds: list[Fold]) -> BandNovelty | None:
    """Learn what the training photos look like, and how far held-out ones are from the others.

    Parameters
    ----------
    X : DataFrame or BlockTable of shape (n_rows, n_features)
        Training rows; at most `NOVELTY_ROWS` of them are looked at.

    Returns
    -------
    BandNovelty or None
        None where too few rows are held out for a bound.
    """
    rows = np.arange(len(X))
    if len(X) > NOVELTY_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(X), NOVELTY_ROWS, replace=False))
    place = np.full(len(X), -1)
    place[rows] = np.arange(len(rows))
    cv = [tuple(place[part][place[part] >= 0] for part in fold) for fold in folds]
    cv = [(train, test) for train, test in cv if len(train) > 1 and len(test)]
    if sum(len(test) for _, test in cv) < MIN_ROWS:
        return None
    return BandNovelty(cv=cv).fit(X.frame(rows) if isinstance(X, BlockTable) else X.iloc[rows])


def load_novelty(manifest: Mapping[str, Any], ensemble: BandEnsemble) -> BandNovelty | None:
    """Return what tells photos unlike the training photos; None for a model that does not know.

    Raises
    ------
    RunError
        If the manifest holds something else.
    """
    stored = manifest.get("training_distance")
    if stored is None:
        return None
    try:
        return BandNovelty.from_json(stored, [str(name) for name in ensemble.feature_names_in_])
    except ValueError as error:
        raise RunError(f"score: the model file was edited: {error} Fit the recipe again.") from error


def _code_of(band: Band) -> dict[str, Any]:
    """Return the digests of an encoder's file and of those it reads, for an encoder in a file of the user's own."""
    if not band.encoder.startswith("file:"):
        return {}
    encoder = band.folder.identity["encoder"]
    return {"code": encoder["code"], "files": encoder.get("files", {})}


def _without_rows(ensemble: BandEnsemble) -> BandEnsemble:
    """Return a copy for a model file, without what grows with the rows: folds and held-out predictions."""
    lean = copy.copy(ensemble)
    lean.cv = len(ensemble.folds_)
    for name in ("folds_", "oof_predictions_", "_held_out"):
        lean.__dict__.pop(name, None)
    return lean


def load_run_model(path: Path) -> tuple[BandEnsemble, dict[str, Any]]:
    """Load a model file and its manifest.

    Raises
    ------
    RunError
        If there is no such file, or it is damaged, untrusted, or not a featbank model, or if it names an encoder in a
        file that is not as it was.
    """
    if not path.is_file():
        raise RunError(
            f"score: no model at {str(path)!r}. Give the model.skops of a run written by `featbank fit`."
        )
    try:
        model, manifest = load_model(path)
    except (ValueError, TypeError) as error:
        raise RunError(f"score: {error}") from error
    if not isinstance(model, BandEnsemble) or not _is_manifest(manifest):
        raise RunError(f"score: {str(path)!r} is not a model written by `featbank fit`.")
    for band in manifest["bands"]:
        if band["encoder"].startswith("file:") and not code_agrees(band["encoder"], band):
            raise RunError(
                f"score: band {band['name']!r} needs {band['encoder']!r} as it was when the model was fitted, but that "
                "file, or one that it reads, is another one here, and was not run. Restore it, or fit the recipe again."
            )
    return model, manifest


def _is_manifest(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest holds what `save_run_model` writes."""
    bands, scale, interval = (manifest.get(name) for name in ("bands", "mos_range", "interval"))
    names = ("name", "encoder", "view", "aggregate", "digest")
    parts = {field.name for field in fields(ConformalInterval)}
    return (
        isinstance(bands, list)
        and all(isinstance(band, dict) and all(isinstance(band.get(n), str) for n in names) for band in bands)
        and isinstance(manifest.get("recipe"), str)
        and isinstance(manifest.get("simulation"), bool)
        and isinstance(scale, list)
        and len(scale) == 2
        and all(isinstance(end, int | float) for end in scale)
        and (interval is None or (isinstance(interval, dict) and set(interval) == parts))
    )


def with_interval(frame: pd.DataFrame, interval: ConformalInterval | None) -> pd.DataFrame:
    """Put the ends of the interval after the column ``predicted``; nan without an interval.

    Parameters
    ----------
    frame : DataFrame
        With ``predicted``.
    """
    predicted = frame["predicted"].to_numpy(dtype=np.float64)
    low, high = (np.full(len(frame), np.nan),) * 2 if interval is None else interval.around(predicted)
    result = frame.copy()
    place = list(result.columns).index("predicted") + 1
    result.insert(place, LOW, low)
    result.insert(place + 1, HIGH, high)
    return result
