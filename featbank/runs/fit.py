"""One execution of a recipe: from a dataset and a bank to a run folder.

Five steps: resolve the bands and their cost; load the rows and seal those that judge; fit on the training rows; break
the seal once and judge; write.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from featbank.datasets.scenes import compare_files
from featbank.encoders import has_random_weights
from featbank.encoders.networks.catalogue import fitted_on
from featbank.errors import RunError
from featbank.recipes.reading import BandRequest, Recipe, RegressionRequest
from featbank.runs import evaluate, model, split, trust
from featbank.runs.evaluate import CONFIDENCE, as_written
from featbank.runs.folder import (
    METRICS,
    PREDICTIONS,
    RECEIPT,
    RUN,
    build_receipt,
    none_if_nan,
    write_json,
)
from featbank.runs.split import SealedRows
from featbank.runs.trust import Finding, Training
from featbank.table import Band, FeatureTable, MappedTable, build_table, resolve_band
from regressors.bands import BlockTable, some_rows, take_rows
from regressors.checks import BudgetError, Table, check_budget, sum_gmacs
from regressors.ensemble import BandEnsemble
from regressors.evaluation.comparison import band_shares
from regressors.evaluation.controls import PermutationControl, find_nearest_rows
from regressors.evaluation.intervals import ConformalInterval
from regressors.folds import Fold
from regressors.novelty import BandNovelty
from regressors.solvers.resources import choose_out_of_core

if TYPE_CHECKING:
    from featbank.cluster import ClusterUse

Log = Callable[[str], object]

OWN_DATASET: Final = "csv:"
"""How the names of datasets begin that a user's CSV describes; all others are published, with their own splits."""

MIN_SHARE_ROWS: Final = 10
"""With fewer evaluated rows, the bands' shares are computed on the training rows."""

SHARE_ROWS: Final = 10_000
"""Rows behind the shares of the bands, of a table that is read by blocks."""


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes
    ----------
    workers : int or None
        Processes for the grid search; None takes all processors.
    cluster : ClusterUse or None
        The cluster that computes the folds, inside whose context the fit is called; for the receipt.
    test_fraction : float
        Share held out by group where the dataset has no split.
    over_budget : bool
        Go on although the summed GMACs exceed the recipe's budget.
    reference : bool
        Search with plain scikit-learn instead of the shared kernels, which give the same numbers faster.
    permutations : int or None
        Shuffles of the permutation control, 0 for none; None chooses by the size of the problem.
    confidence : float in (0, 1)
        Nominal coverage of the prediction intervals.
    calibrate_on : {"training", "validation"}
        Held-out predictions behind the intervals.
    memory_limit_gb : float or None
        Gigabytes (1e9 bytes) that the fit may take; a larger table is read by blocks. None is four fifths of the
        memory that is free.
    features_command : str
        The command that computes missing features, for the message.
    """

    workers: int | None = None
    cluster: ClusterUse | None = None
    test_fraction: float = 0.2
    over_budget: bool = False
    reference: bool = False
    permutations: int | None = None
    confidence: float = CONFIDENCE
    calibrate_on: str = "training"
    memory_limit_gb: float | None = None
    features_command: str = "featbank features DATA --recipe R"


DEFAULTS: Final = FitOptions()


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


@dataclass(frozen=True)
class Loaded:
    """The features of a dataset and the rows that take part.

    Attributes
    ----------
    rows : DataFrame
        As `featbank.runs.split.prepare_rows` gives them.
    left_out, split : list of str
        Which images take no part, and how the split was made, in sentences.
    """

    bands: list[Band]
    features: FeatureTable
    rows: pd.DataFrame
    left_out: list[str]
    split: list[str]

    def table(self, rows: pd.DataFrame) -> Table:
        """Return the features of some of the rows: a data frame, or a table of blocks."""
        features = self.features
        X: Table = BlockTable(features.X) if isinstance(features.X, MappedTable) else features.X
        return take_rows(X, features.rows.index.get_indexer(rows.index))


def resolve_bands(bank: Bank, table: ImageTable, requests: Iterable[BandRequest]) -> list[Band]:
    """Find the bands of a recipe in the bank; images without any MOS are refused first."""
    split.check_has_mos(table.frame)
    return [resolve_band(bank, table, r.name, r.encoder, r.view, r.aggregate) for r in requests]


def load_rows(
    table: ImageTable,
    bands: list[Band],
    bank: Bank,
    regression: RegressionRequest,
    options: FitOptions = DEFAULTS,
    *,
    by_blocks: bool = False,
) -> Loaded:
    """Read features, and prepare the rows that have a MOS.

    Raises
    ------
    MissingFeaturesError, DatasetError
        If features, MOS or rows are missing.
    """
    features = build_table(table, bands, bank, options.features_command, by_blocks=by_blocks)
    scenes = split.find_scenes(features.rows, options.workers) if regression.group_scenes else None
    prepared = split.prepare_rows(
        features.rows, options.test_fraction, regression.cv.random_state, split.find_copies(features), scenes
    )
    return Loaded(bands, features, prepared.frame, split.describe_rows(features), list(prepared.notes))


def choose_blocks(
    who: str,
    table: ImageTable,
    bands: Sequence[Band],
    regression: RegressionRequest,
    options: FitOptions = DEFAULTS,
    estimators: Iterable[str] = (),
) -> bool:
    """Choose between a table in memory and one that is read by blocks, before anything is read.

    Both give the same numbers. Blocks are for ridges on many more images than columns.

    Returns
    -------
    bool
        True for blocks.

    Raises
    ------
    RunError
        If kernels, or the table, have no room within the limit.
    """
    needs_memory = 'rows = "crops"' if regression.rows != "images" else ""
    n_training = int((table.frame["split"] == "training").sum())
    try:
        return choose_out_of_core(
            table.n_images,
            n_training or round(table.n_images * (1 - options.test_fraction)),
            sum(band.folder.n_features for band in bands),
            estimators=(regression.estimator, *estimators),
            needs_memory="--reference" if options.reference else needs_memory,
            n_folds=regression.cv.n_splits,
            n_candidates=max(1, len(regression.alpha))
            * max(1, len(regression.band_weights))
            * (len(bands) + 1),
            n_workers=options.workers or os.cpu_count() or 1,
            limit_gb=options.memory_limit_gb,
        )
    except ValueError as error:
        raise RunError(f"{who}: {error}") from error


@dataclass(frozen=True)
class _Run:
    """What was asked for, and the rows: those of training in the open, the others under their seal."""

    table: ImageTable
    recipe: Recipe
    options: FitOptions
    gmacs: float
    loaded: Loaded
    seal: SealedRows
    X: Table
    training: pd.DataFrame
    y: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    folds: list[Fold]
    n_crops: int
    notes: list[str]

    def ensemble(self, members: list[list[str]] | None = None) -> BandEnsemble:
        """Fit the recipe, or other members, on the training rows."""
        ensemble = model.build_ensemble(
            self.recipe.regression,
            self.folds,
            self.options.workers,
            members,
            self.n_crops,
            self.options.reference,
        )
        return ensemble.fit(self.X, self.y, sample_weight=self.weights)


@dataclass(frozen=True)
class _Fitted:
    """What the training rows gave."""

    ensemble: BandEnsemble
    singles: dict[str, BandEnsemble]
    taught: Training
    control: PermutationControl | None


@dataclass(frozen=True)
class _Judged:
    """What the sealed rows gave."""

    metrics: dict[str, Any]
    findings: list[Finding]
    predictions: pd.DataFrame
    interval: ConformalInterval | None
    novelty: BandNovelty | None
    receipt: dict[str, Any]


def fit_run(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    out: Path,
    options: FitOptions = DEFAULTS,
    *,
    write_report: Callable[[Path], object] | None = None,
    origin: Origin | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Fit, evaluate, and write the run folder.

    Parameters
    ----------
    bank : Bank
        Must hold the features of every readable image.
    out : Path
        Run folder; an earlier run there is replaced as a whole.
    write_report : callable or None
        Draws the HTML report into the run folder before it takes its place; it can be drawn later as well.
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
    durations: dict[str, float] = {}
    kind = RUN if origin is None else origin.kind
    check_folder(out, kind, "fit --out")
    with _timed(durations, "table_s"):
        bands, gmacs = _resolve(table, recipe, bank, options)
        run = _load(table, recipe, bank, options, bands, gmacs, log, is_first=origin is None)
    fitted = _fit(run, durations, log)
    with _timed(durations, "evaluate_s"):
        judged = _judge(run, fitted)
    receipt = build_receipt(
        recipe,
        table,
        run.loaded.rows,
        bands,
        bank.root,
        judged.receipt | {"durations": durations, "started": started.isoformat(timespec="seconds")},
    )
    if origin is not None:
        receipt |= {**origin.receipt, "notes": [*origin.notes, *receipt["notes"]]}
    with replacing_folder(out, kind, "fit --out") as folder:
        if origin is not None:
            origin.write(folder)
        _write(folder, run, fitted, judged, receipt, log)
        if write_report is not None:
            write_report(folder)
    return judged.metrics


@contextmanager
def _timed(durations: dict[str, float], name: str) -> Iterator[None]:
    clock = time.perf_counter()
    yield
    durations[name] = time.perf_counter() - clock


def _resolve(table: ImageTable, recipe: Recipe, bank: Bank, options: FitOptions) -> tuple[list[Band], float]:
    """Find the bands and sum their GMACs; refuse what is over the budget."""
    bands = resolve_bands(bank, table, recipe.bands)
    # An imported band whose cost was not stated adds nothing to the sum; the receipt shows it as unknown.
    passes = {b.pass_id: (f"{b.encoder}@{b.view}", b.gmacs) for b in bands if b.gmacs == b.gmacs}
    if not options.over_budget:
        try:
            check_budget(passes.values(), recipe.regression.budget_gmacs)
        except BudgetError as error:
            raise RunError(f"fit: {error} To fit all the same, give --over-budget.") from error
    return bands, sum_gmacs(passes.values())


def _load(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    options: FitOptions,
    bands: list[Band],
    gmacs: float,
    log: Log,
    *,
    is_first: bool,
) -> _Run:
    """Read the rows, cut the folds, and seal what judges."""
    request = recipe.regression
    by_blocks = choose_blocks("fit", table, bands, request, options)
    loaded = load_rows(table, bands, bank, request, options, by_blocks=by_blocks)
    notes = [*table.notes, *loaded.left_out, *loaded.split]
    fitted = [band.name for band in bands if fitted_on(band.encoder) == table.name]
    if fitted:
        notes.append(
            f"The networks behind {', '.join(fitted)} have learned the MOS of this dataset's training split: "
            "cross-validated scores are too good, and nothing should be chosen by them."
        )
    for note in notes if is_first else ():
        log(note)
    rows = loaded.rows
    if not 0 < options.confidence < 1:
        raise RunError(
            f"fit: --confidence must lie between 0 and 1, got {options.confidence:g}. Use 0.9 for 90 %."
        )
    if options.calibrate_on == "validation" and not (rows["split"] == "validation").any():
        raise RunError(
            "fit: --calibrate validation needs validation images with a MOS, the dataset has none. Use training."
        )
    training = rows[rows["split"] == "training"]
    X = loaded.table(rows)
    log(
        f"{len(rows)} images ({len(training)} training), {X.shape[1]} columns in {len(bands)} bands, {gmacs:.3f} GMACs"
    )
    folds = model.folds_of(request, training)
    large = model.describe_large_group(request, training)
    if large:
        notes.append(large)
        log(f"note: {large}")
    weights = model.weights_of(request, table, training)
    if weights is not None:
        notes.append(
            f"Training images count by their {request.sample_weight}, from {weights.min():.3g} to {weights.max():.3g} "
            "with mean 1, in every fit and choice; metrics count all images alike."
        )
        log(f"note: {notes[-1]}")
    return _Run(
        table,
        recipe,
        options,
        gmacs,
        loaded,
        SealedRows(X, rows),
        loaded.table(training),
        training,
        training["mos"].to_numpy(dtype=np.float64),
        weights,
        folds,
        model.n_crops_of(bands) if request.rows == "crops" else 1,
        notes,
    )


def _fit(run: _Run, durations: dict[str, float], log: Log) -> _Fitted:
    """Fit the recipe, every band alone, and the recipe on shuffled MOS, on training rows."""
    bands, options = run.loaded.bands, run.options
    with _timed(durations, "fit_s"):
        try:
            ensemble = run.ensemble()
        except ValueError as error:  # too few or too equal rows for these folds; the message says which
            raise RunError(f"fit: the {len(run.y)} training rows cannot be fitted: {error}") from error
    log(f"{len(ensemble.member_names_)} members fitted in {durations['fit_s']:.1f} s")
    with _timed(durations, "single_bands_s"):
        singles = {band.name: run.ensemble([[band.name]]) for band in bands if len(bands) > 1}
    with _timed(durations, "control_s"):
        taught = Training(
            run.X, run.training, run.y, as_written(ensemble.oof_predictions_), run.folds, run.weights
        )
        request, n_permutations = run.recipe.regression, options.permutations
        if n_permutations is None:
            n_permutations = trust.choose_permutations(request, *run.X.shape)
        control = trust.run_control(
            request, taught, n_permutations, workers=options.workers, n_crops=run.n_crops
        )
    return _Fitted(ensemble, singles, taught, control)


def _judge(run: _Run, fitted: _Fitted) -> _Judged:
    """Break the seal, and judge everything together."""
    ensemble, held_out, options = fitted.ensemble, fitted.taught.held_out, run.options
    X, rows = run.seal.open(is_fitted=True)
    rows = rows.assign(mos=as_written(rows["mos"]))
    predicted = as_written(ensemble.predict(X) if len(rows) else [])
    # No choice of the model depends on it.
    source = as_written(run.y), held_out
    if options.calibrate_on == "validation":
        source = tuple(
            values[(rows["split"] == "validation").to_numpy()]
            for values in (rows["mos"].to_numpy(), predicted)
        )
    interval = evaluate.calibrate(*source, options.confidence)
    tested = ~np.isnan(held_out)  # a single hold-out fold tests some rows only
    own = evaluate.judge(
        run.y[tested], held_out[tested], groups=run.training["group"].to_numpy()[tested], with_intervals=True
    )
    bands = run.loaded.bands
    metrics: dict[str, Any] = {
        "training_cv": own,
        **evaluate.score_parts(rows, predicted, with_intervals=True),
        "gmacs": run.gmacs,
        # Encoders that several bands share count once.
        "params_m": sum({band.encoder: none_if_nan(band.params_m) or 0.0 for band in bands}.values()),
        "budget_gmacs": run.recipe.regression.budget_gmacs,
        "simulation": run.table.is_simulation,
        "intervals": evaluate.describe_coverage(interval, rows, predicted, options.calibrate_on),
        "random_weights": [band.name for band in bands if has_random_weights(band.encoder)],
    }
    if len(rows):
        floors = {
            "constant": np.full(len(rows), run.training["mos"].mean()),
            "metadata_ridge": evaluate.predict_from_metadata(run.training, rows),
            # What looking up gives, most where scenes are on both sides of the split. Too much for a table of blocks.
            "nearest_photo": None if isinstance(X, BlockTable) else run.y[find_nearest_rows(X, run.X)],
        }
        metrics["baselines"] = evaluate.score_baselines(rows, floors)
        alone = {name: single.predict(X) for name, single in fitted.singles.items()}
        metrics["single_bands"] = evaluate.score_baselines(rows, alone)
    # Descriptive only: nothing is chosen by it. On rows the model has not seen, where a share means something.
    is_evaluated = len(rows) >= MIN_SHARE_ROWS
    sharing = (X, rows["mos"].to_numpy()) if is_evaluated else (run.X, run.y)
    subsamples, drawn_notes = _subsamples(sharing[0], metrics)
    findings = trust.examine(
        fitted.taught,
        X,
        rows,
        predicted,
        metrics,
        fitted.control,
        is_official_split=not run.table.name.startswith(OWN_DATASET),
        scenes=_same_scenes(run, rows),
        predict=ensemble.predict,
    )
    parts = [
        _prediction_rows(run.training, held_out, ensemble.oof_members_),
        _prediction_rows(rows, predicted, ensemble.predict_members(X) if len(rows) else None),
    ]
    receipt = {
        "seeds": {
            "folds": run.recipe.regression.cv.random_state,
            "bootstrap": 0,
            "control": trust.CONTROL_SEED,
        },
        "chosen": model.chosen_parameters(ensemble, len(run.y)),
        "fitted_on": {"split": "training", "n": len(run.y)},
        "band_share": band_shares(ensemble, *_drawn(*sharing)),
        "band_share_rows": "evaluated" if is_evaluated else "training",
        "subsamples": subsamples,
        "failures": run.loaded.features.left_out.to_dict("records"),
        **({} if options.cluster is None else {"cluster": options.cluster.describe()}),
        "notes": [*run.notes, *drawn_notes],
    }
    novelty = model.fit_novelty(run.X, run.folds)
    return _Judged(
        metrics, findings, model.with_interval(pd.concat(parts), interval), interval, novelty, receipt
    )


def _write(
    folder: Path, run: _Run, fitted: _Fitted, judged: _Judged, receipt: dict[str, Any], log: Log
) -> None:
    """Write the files of a run, and check that what they say agrees."""
    write_json(folder / METRICS, judged.metrics)
    write_json(folder / RECEIPT, receipt)
    judged.predictions.to_csv(folder / PREDICTIONS, index=False, float_format=evaluate.FLOAT_FORMAT)
    fitted.ensemble.cv_results_.to_csv(folder / "cv_results.csv", index=False)
    model.members_frame(fitted.ensemble).to_csv(folder / "weights.csv", index=False)
    (folder / "recipe.toml").write_text(run.recipe.to_toml(), encoding="utf-8")
    model.save_run_model(
        folder / model.MODEL,
        fitted.ensemble,
        run.recipe,
        run.loaded.bands,
        run.table,
        judged.interval,
        judged.novelty,
    )
    for sentence in trust.alarming(trust.write_trust(folder, judged.findings)):
        log(f"ALARM {sentence}")


def _same_scenes(run: _Run, rows: pd.DataFrame) -> NDArray[np.intp] | str:
    """Find training images of the same scene by their pictures; a simulation renders each scene once."""
    if run.table.is_simulation:
        return "every scene was rendered once"
    return compare_files(rows["path"].tolist(), run.training["path"].tolist(), workers=run.options.workers)


def _drawn(X: Table, y: NDArray[np.float64]) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Draw the rows behind the shares of the bands; all of a table in memory."""
    if not isinstance(X, BlockTable):
        return X, y
    rows = some_rows(X, SHARE_ROWS)
    return X.frame(rows), y[rows]


def _subsamples(X: Table, metrics: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Say which checks look at a part of the rows, and at how many; ``X`` are the rows behind the bands' shares."""
    sizes: dict[str, int] = {}
    notes = []
    if isinstance(X, BlockTable):
        sizes |= {"band_share": min(SHARE_ROWS, len(X)), "duplicates": min(trust.DUPLICATE_ROWS, len(X))}
        notes.append(
            "The table was read by blocks from the bank's files. All scores are of all images, but two checks look at "
            f"drawn ones: the shares of the bands at {sizes['band_share']:,}, the search for duplicates at "
            f"{sizes['duplicates']:,}."
        )
    if any(isinstance(part, dict) and part.get("n", 0) > evaluate.MANY_ROWS for part in metrics.values()):
        sizes["intervals"] = evaluate.INTERVAL_ROWS
        notes.append(
            f"The intervals of parts with more than {evaluate.MANY_ROWS:,} images are those of {sizes['intervals']:,} "
            "drawn ones, narrowed by the root of the ratio."
        )
    return sizes, notes


def _prediction_rows(rows: pd.DataFrame, predicted: np.ndarray, members: pd.DataFrame | None) -> pd.DataFrame:
    frame = rows[["split", "subset", "group", "mos"]].copy()
    frame["group"] = split.written_groups(rows["group"], rows.index.to_series())
    frame.insert(0, "image", rows.index)
    frame["predicted"] = predicted
    if members is not None:
        for name in members.columns:
            frame[f"member:{name}"] = members[name].to_numpy()
    return frame
