"""One execution of a recipe: from a dataset and a bank to a run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.atomic import FolderKind, check_folder, replacing_folder
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.encoders import has_random_weights
from featbank.errors import RunError
from featbank.recipes.reading import Recipe, RegressionRequest
from featbank.runs.evaluate import (
    CONFIDENCE,
    FLOAT_FORMAT,
    INTERVAL_ROWS,
    MANY_ROWS,
    TRAINING,
    as_written,
    calibrate_run,
    check_calibration,
    describe_coverage,
    judge,
    predict_constant,
    predict_from_metadata,
    score_baselines,
    score_parts,
    with_interval,
)
from featbank.runs.folder import (
    METRICS,
    MODEL,
    PREDICTIONS,
    RECEIPT,
    RUN,
    build_receipt,
    none_if_nan,
    write_json,
)
from featbank.runs.model import (
    build_ensemble,
    chosen_parameters,
    describe_large_group,
    fit_novelty,
    folds_of,
    members_frame,
    n_crops_of,
    save_run_model,
)
from featbank.runs.split import SealedRows, describe_rows, find_copies, prepare_rows, written_groups
from featbank.runs.trust import (
    CONTROL_SEED,
    DUPLICATE_ROWS,
    Training,
    alarming,
    choose_permutations,
    examine,
    run_control,
    write_trust,
)
from featbank.table import Band, FeatureTable, MappedFeatures, build_table, map_table, resolve_band
from regressors.blocks import BlockTable, some_rows
from regressors.budget import BudgetError, check_budget, sum_gmacs
from regressors.checks import Table
from regressors.evaluation.importance import band_shares
from regressors.fitting import take_rows
from regressors.solvers.memory import choose_out_of_core

if TYPE_CHECKING:
    from featbank.on_cluster import ClusterUse

SHARE_ROWS: Final = 10_000
"""Rows behind the shares of the bands, of a table that is read by blocks."""


def choose_blocks(
    who: str,
    table: ImageTable,
    bands: Sequence[Band],
    regression: RegressionRequest,
    *,
    limit_gb: float | None = None,
    test_fraction: float = 0.2,
    estimators: Iterable[str] = (),
    reference: bool = False,
    workers: int | None = None,
) -> bool:
    """Choose between a table in memory and one that is read by blocks, before anything is read.

    Both give the same numbers. Blocks are for ridges on many more images than columns.

    Parameters
    ----------
    who : str
        The command, for the message.
    table : ImageTable
    bands : sequence of Band
    regression : RegressionRequest
    limit_gb : float or None
        Gigabytes (1e9 bytes) that the fit may take; None is four fifths of the memory that is free.
    test_fraction : float
        Share held out where the dataset has no split.
    estimators : iterable of str
        Further estimators that a search may try.
    reference : bool
        Whether plain scikit-learn searches, which needs the table in memory.
    workers : int or None

    Returns
    -------
    bool
        True for blocks.

    Raises
    ------
    RunError
        If kernels, or the table, have no room within the limit.
    """
    split = table.frame["split"]
    n_images = table.n_images
    try:
        return choose_out_of_core(
            n_images,
            int((split == "training").sum()) or round(n_images * (1 - test_fraction)),
            sum(band.folder.n_features for band in bands),
            estimators=(regression.estimator, *estimators),
            needs_memory="--reference"
            if reference
            else 'rows = "crops"'
            if regression.rows != "images"
            else "",
            n_folds=regression.cv.n_splits,
            n_candidates=max(1, len(regression.alpha))
            * max(1, len(regression.band_weights))
            * (len(bands) + 1),
            n_workers=workers or os.cpu_count() or 1,
            limit_gb=limit_gb,
        )
    except ValueError as error:
        raise RunError(f"{who}: {error}") from error


def open_table(features: FeatureTable | MappedFeatures) -> Table:
    """Return the features as what the regressors read: a data frame, or a table of blocks."""
    return BlockTable(features.X) if isinstance(features, MappedFeatures) else features.X


def drawn_rows(X: Table, y: NDArray[np.float64]) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Draw the rows behind the shares of the bands; all of a table in memory."""
    if not isinstance(X, BlockTable):
        return X, y
    rows = some_rows(X, SHARE_ROWS)
    return X.frame(rows), y[rows]


def sizes_of_parts(X: Table, metrics: Mapping[str, Any]) -> dict[str, int]:
    """Say which checks of a run look at a part of the rows, and at how many.

    Parameters
    ----------
    X : DataFrame or BlockTable
        The rows behind the shares of the bands.
    metrics : mapping
        Of the parts that were judged, as in ``metrics.json``.
    """
    sizes: dict[str, int] = {}
    if isinstance(X, BlockTable):
        sizes |= {"band_share": min(SHARE_ROWS, len(X)), "duplicates": min(DUPLICATE_ROWS, len(X))}
    if any(isinstance(part, dict) and part.get("n", 0) > MANY_ROWS for part in metrics.values()):
        sizes["intervals"] = INTERVAL_ROWS
    return sizes


def describe_parts(sizes: Mapping[str, int]) -> list[str]:
    """Say the same in sentences, for the receipt and the report."""
    notes = []
    if "band_share" in sizes:
        notes.append(
            "The table was read by blocks from the bank's files. All scores are of all images, but two checks look at "
            f"drawn ones: the shares of the bands at {sizes['band_share']:,}, the search for duplicates at "
            f"{sizes['duplicates']:,}."
        )
    if "intervals" in sizes:
        notes.append(
            f"The intervals of parts with more than {MANY_ROWS:,} images are those of {sizes['intervals']:,} drawn "
            "ones, narrowed by the root of the ratio."
        )
    return notes


Log = Callable[[str], None]

OWN_DATASET = "csv:"
"""How the names of datasets begin that a user's CSV describes; all others are published, with their own splits."""

MIN_SHARE_ROWS = 10
"""With fewer evaluated rows, the bands' shares are computed on the training rows."""


@dataclass(frozen=True)
class Origin:
    """What a run owes to the work before it, such as a search.

    Attributes
    ----------
    receipt : mapping of str to object
        Entries that the receipt takes over.
    notes : tuple of str
        Sentences that stand before the run's own.
    write : callable
        Writes further files into the run folder.
    kind : FolderKind
        Of the folder.
    """

    receipt: Mapping[str, Any]
    notes: tuple[str, ...]
    write: Callable[[Path], None]
    kind: FolderKind


def fit_run(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    out: Path,
    *,
    workers: int | None = None,
    cluster: ClusterUse | None = None,
    test_fraction: float = 0.2,
    over_budget: bool = False,
    reference: bool = False,
    permutations: int | None = None,
    confidence: float = CONFIDENCE,
    calibrate_on: str = TRAINING,
    write_report: Callable[[Path], object] | None = None,
    memory_limit_gb: float | None = None,
    features_command: str = "featbank features DATA --recipe R",
    origin: Origin | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Fit, evaluate, and write the run folder.

    Parameters
    ----------
    table : ImageTable
    recipe : Recipe
    bank : Bank
        Must hold the features of every readable image.
    out : Path
        Run folder; an earlier run there is replaced as a whole.
    workers : int or None
        Processes for the grid search; None takes all processors.
    cluster : ClusterUse or None
        The cluster that computes the folds, inside whose context this is called; for the receipt.
    test_fraction : float
        Share held out by group where the dataset has no split.
    over_budget : bool
        Go on although the summed GMACs exceed the recipe's budget.
    reference : bool
        Search with plain scikit-learn instead of the shared kernels, which give the same numbers faster.
    permutations : int or None
        Shuffles of the permutation control, 0 for none; None chooses by the size of the problem.
    confidence : float
        Nominal coverage of the prediction intervals.
    calibrate_on : {"training", "validation"}
        Held-out predictions behind the intervals.
    write_report : callable or None
        Draws the HTML report into the run folder before it takes its place; it can be drawn later as well.
    memory_limit_gb : float or None
        Gigabytes (1e9 bytes) that the fit may take; a larger table is read by blocks, see
        `featbank.runs.room.choose_blocks`. None is four fifths of the memory that is free.
    features_command : str
        The command that computes missing features, for the message.
    origin : Origin or None
        The search that chose the recipe, if one did.
    log : callable
        Receives one line for each step.

    Returns
    -------
    dict
        The content of ``metrics.json``.

    Raises
    ------
    RunError
        If the recipe is over its budget and ``over_budget`` is False, the training rows cannot be cut into
        folds, or ``confidence`` lies outside (0, 1).
    OutputError
        If ``out`` holds anything else than an earlier run, or cannot be written.
    MissingFeaturesError, DatasetError
        If features, MOS or rows are missing.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    kind = RUN if origin is None else origin.kind
    check_folder(out, kind, "fit --out")
    bands = [
        resolve_band(bank, table, band.name, band.encoder, band.view, band.aggregate) for band in recipe.bands
    ]
    # An imported band whose cost was not stated adds nothing to the sum; the receipt shows it as unknown.
    passes = [
        (f"{band.encoder}@{band.view}", band.gmacs) for band in _distinct(bands) if band.gmacs == band.gmacs
    ]
    gmacs = sum_gmacs(passes)
    if not over_budget:
        try:
            check_budget(passes, recipe.regression.budget_gmacs)
        except BudgetError as error:
            raise RunError(f"fit: {error} To fit all the same, give --over-budget.") from error
    by_blocks = choose_blocks(
        "fit",
        table,
        bands,
        recipe.regression,
        limit_gb=memory_limit_gb,
        test_fraction=test_fraction,
        reference=reference,
        workers=workers,
    )
    features = (map_table if by_blocks else build_table)(table, bands, bank, features_command)
    prepared = prepare_rows(
        features.rows, test_fraction, recipe.regression.cv.random_state, find_copies(features)
    )
    notes = [*table.notes, *describe_rows(features), *prepared.notes]
    for note in notes if origin is None else ():
        log(note)
    rows = prepared.frame
    check_calibration(confidence, calibrate_on, rows)
    X = take_rows(open_table(features), features.rows.index.get_indexer(rows.index))
    is_training = (rows["split"] == "training").to_numpy()
    seal = SealedRows(X, rows)
    X_train, training = take_rows(X, np.flatnonzero(is_training)), rows[is_training]
    loaded_s = time.perf_counter() - clock
    log(
        f"{len(rows)} images ({is_training.sum()} training), {X.shape[1]} columns in {len(bands)} bands, "
        f"{gmacs:.3f} GMACs"
    )

    clock = time.perf_counter()
    y_train = training["mos"].to_numpy(dtype=np.float64)
    folds = folds_of(recipe.regression, training)
    large = describe_large_group(recipe.regression, training)
    if large:
        notes.append(large)
        log(f"note: {large}")
    n_crops = n_crops_of(bands) if recipe.regression.rows == "crops" else 1
    try:
        ensemble = build_ensemble(recipe.regression, folds, workers, n_crops=n_crops, reference=reference)
        ensemble.fit(X_train, y_train)
    except ValueError as error:  # too few or too equal rows for these folds; the message says which
        raise RunError(f"fit: the {len(training)} training rows cannot be fitted: {error}") from error
    fit_s = time.perf_counter() - clock
    log(f"{len(ensemble.member_names_)} members fitted in {fit_s:.1f} s")
    clock = time.perf_counter()
    singles = {
        band.name: build_ensemble(recipe.regression, folds, workers, [[band.name]], n_crops, reference).fit(
            X_train, y_train
        )
        for band in bands
        if len(bands) > 1
    }
    singles_s = time.perf_counter() - clock

    clock = time.perf_counter()
    held_out = as_written(ensemble.oof_predictions_)
    taught = Training(X_train, training, y_train, held_out, folds)
    if permutations is None:
        permutations = choose_permutations(recipe.regression, *X_train.shape)
    control = run_control(recipe.regression, taught, permutations, workers=workers, n_crops=n_crops)
    control_s = time.perf_counter() - clock

    clock = time.perf_counter()
    X_sealed, judged = seal.open(is_fitted=True)
    judged = judged.assign(mos=as_written(judged["mos"]))
    predicted = as_written(ensemble.predict(X_sealed) if len(judged) else [])
    interval = calibrate_run(as_written(y_train), held_out, judged, predicted, confidence, calibrate_on)
    novelty = fit_novelty(X_train, folds)
    tested = ~np.isnan(held_out)  # a single hold-out fold tests some rows only
    metrics: dict[str, Any] = {
        "training_cv": judge(
            y_train[tested],
            held_out[tested],
            groups=training["group"].to_numpy()[tested],
            with_intervals=True,
        )
    }
    metrics |= score_parts(judged, predicted, with_intervals=True)
    metrics |= {
        "gmacs": gmacs,
        "params_m": _params(bands),
        "budget_gmacs": recipe.regression.budget_gmacs,
        "simulation": table.is_simulation,
        "intervals": describe_coverage(interval, judged, predicted, calibrate_on),
        "random_weights": [band.name for band in bands if has_random_weights(band.encoder)],
    }
    if len(judged):
        metrics["baselines"] = score_baselines(
            judged,
            {
                "constant": predict_constant(training, judged),
                "metadata_ridge": predict_from_metadata(training, judged),
            },
        )
        metrics["single_bands"] = score_baselines(
            judged, {name: single.predict(X_sealed) for name, single in singles.items()}
        )
    # Descriptive only: nothing is chosen by it. On rows the model has not seen, where a share means something.
    share_rows = "evaluated" if len(judged) >= MIN_SHARE_ROWS else "training"
    sharing = (X_sealed, judged["mos"].to_numpy()) if share_rows == "evaluated" else (X_train, y_train)
    subsamples = sizes_of_parts(sharing[0], metrics)
    shares = band_shares(ensemble, *drawn_rows(*sharing))
    findings = examine(
        taught,
        X_sealed,
        judged,
        predicted,
        metrics,
        control,
        is_official_split=not table.name.startswith(OWN_DATASET),
        predict=ensemble.predict,
    )
    predictions = with_interval(
        pd.concat(
            [
                _prediction_rows(training, held_out, ensemble.oof_members_),
                _prediction_rows(
                    judged, predicted, ensemble.predict_members(X_sealed) if len(judged) else None
                ),
            ]
        ),
        interval,
    )
    receipt = build_receipt(
        recipe,
        table,
        rows,
        bands,
        bank.root,
        {
            "seeds": {"folds": recipe.regression.cv.random_state, "bootstrap": 0, "control": CONTROL_SEED},
            "chosen": chosen_parameters(ensemble, len(training)),
            "fitted_on": {"split": "training", "n": int(is_training.sum())},
            "band_share": shares,
            "band_share_rows": share_rows,
            "subsamples": subsamples,
            "failures": features.left_out.to_dict("records"),
            **({} if cluster is None else {"cluster": cluster.describe()}),
            "durations": {
                "table_s": loaded_s,
                "fit_s": fit_s,
                "single_bands_s": singles_s,
                "control_s": control_s,
                "evaluate_s": time.perf_counter() - clock,
            },
            "started": started.isoformat(timespec="seconds"),
            "notes": [*notes, *describe_parts(subsamples)],
        },
    )
    if origin is not None:
        receipt |= {**origin.receipt, "notes": [*origin.notes, *receipt["notes"]]}
    with replacing_folder(out, kind, "fit --out") as folder:
        if origin is not None:
            origin.write(folder)
        write_json(folder / METRICS, metrics)
        write_json(folder / RECEIPT, receipt)
        predictions.to_csv(folder / PREDICTIONS, index=False, float_format=FLOAT_FORMAT)
        ensemble.cv_results_.to_csv(folder / "cv_results.csv", index=False)
        members_frame(ensemble).to_csv(folder / "weights.csv", index=False)
        (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
        save_run_model(folder / MODEL, ensemble, recipe, bands, table, interval, novelty)
        for sentence in alarming(write_trust(folder, findings)):
            log(f"ALARM {sentence}")
        if write_report is not None:
            write_report(folder)
    return metrics


def _distinct(bands: list[Band]) -> list[Band]:
    return list({band.pass_id: band for band in bands}.values())


def _params(bands: list[Band]) -> float:
    """Sum the parameters in millions; encoders that several bands share count once."""
    known = {band.encoder: none_if_nan(band.params_m) or 0.0 for band in bands}
    return sum(known.values())


def _prediction_rows(rows: pd.DataFrame, predicted: np.ndarray, members: pd.DataFrame | None) -> pd.DataFrame:
    frame = rows[["split", "subset", "group", "mos"]].copy()
    frame["group"] = written_groups(rows["group"], rows.index.to_series())
    frame.insert(0, "image", rows.index)
    frame["predicted"] = predicted
    if members is not None:
        for name in members.columns:
            frame[f"member:{name}"] = members[name].to_numpy()
    return frame
