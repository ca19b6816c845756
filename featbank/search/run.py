"""From a dataset, a bank and a recipe to a run folder: search, nested search, the winner's run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from featbank.atomic import check_folder
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.digest import digest_json
from featbank.errors import RunError
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import as_written
from featbank.runs.fit import Origin, choose_blocks, fit_run, open_table
from featbank.runs.folder import METRICS, RECEIPT, SEARCH, read_json
from featbank.runs.split import describe_rows, find_copies, prepare_rows
from featbank.search.space import Evaluator, Space
from featbank.search.study import (
    Finished,
    Nested,
    Plan,
    document_study,
    make_plan,
    open_storage,
    pick_winner,
    run_study,
    say_scope,
    spec_of_study,
    write_study,
)
from featbank.table import build_table, map_table, resolve_band
from regressors.checks import Table
from regressors.evaluation.metrics import srcc
from regressors.fitting import take_rows
from regressors.folds import Fold, make_folds

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from featbank.on_cluster import ClusterUse

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


Log = Callable[[str], None]


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes
    ----------
    budget_gmacs : float or None
        Hard limit for one image; None takes the recipe's.
    objectives : {"srcc", "srcc,gmacs"}
    n_trials : int
        Configurations to sample where there are too many to evaluate all.
    seed : int
        Of the sampler.
    method : {"auto", "exhaustive", "sampled"}
    n_outer_folds : int
        Outer folds of the nested search, each of which costs one more search; 0 leaves it out.
    storage : str or None
        Database URL; None for a journal in the run folder.
    reference : bool
        Search members with plain scikit-learn, and the winner's as well: the same numbers, slower.
    """

    budget_gmacs: float | None = None
    objectives: str = "srcc"
    n_trials: int = 200
    seed: int = 0
    method: str = "auto"
    n_outer_folds: int = 5
    storage: str | None = None
    reference: bool = False


def search_run(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    out: Path,
    options: SearchOptions,
    *,
    workers: int | None = None,
    cluster: ClusterUse | None = None,
    test_fraction: float = 0.2,
    features_command: str = "featbank features DATA --recipe R",
    show_progress: bool = False,
    write_report: Callable[[Path], object] | None = None,
    draw_study: Callable[[Path, Sequence[Finished], pd.DataFrame, float], object] | None = None,
    memory_limit_gb: float | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Search, then fit and evaluate the winner.

    Any number of processes may run the same search at the same time; each gets the whole result. A process that was
    killed is replaced by calling this again. More trials than before continue the same study.

    Parameters
    ----------
    table : ImageTable
    recipe : Recipe
        Its bands, and what its ``[search]`` opens.
    bank : Bank
        Must hold the features of every variant of every band.
    out : Path
        Run folder: new, empty, or of the same search.
    options : SearchOptions
    workers : int or None
        Folds at once; None takes all processors.
    cluster : ClusterUse or None
        The cluster that computes the folds, inside whose context this is called; for the receipt.
    test_fraction : float
        Share held out by group where the dataset has no split.
    features_command : str
        The command that computes missing features, for the message.
    show_progress : bool
        Draw progress bars with the best so far, if standard error is a terminal.
    write_report : callable or None
        As in `featbank.runs.fit.fit_run`.
    draw_study : callable or None
        Draws what was evaluated into a folder: takes the folder, the configurations, their importance, the budget.
    memory_limit_gb : float or None
        As in `featbank.runs.fit.fit_run`.
    log : callable
        Receives one line for each step.

    Returns
    -------
    dict
        ``search`` (as in the receipt) and ``metrics`` (as in ``metrics.json``).

    Raises
    ------
    RunError
        If nothing fits the budget, ``out`` holds another search, or the rows cannot be fitted.
    OutputError
        If ``out`` holds anything else than a search, or cannot be written.
    MissingFeaturesError, DatasetError
        If features, MOS or rows are missing.
    """
    check_folder(out, SEARCH, "search --out")
    passes, bands = {}, []
    for row in _variants(recipe):
        band = resolve_band(bank, table, row.name, row.encoder, row.view, row.aggregate)
        passes[row.name] = (band.pass_id, band.gmacs)
        bands.append(band)
    budget = recipe.regression.budget_gmacs if options.budget_gmacs is None else options.budget_gmacs
    space = Space(recipe, passes, budget)
    plan = make_plan(space, options.objectives, options.seed, options.n_trials, options.method)
    by_blocks = choose_blocks(
        "search",
        table,
        bands,
        recipe.regression,
        limit_gb=memory_limit_gb,
        test_fraction=test_fraction,
        estimators=() if recipe.search is None else recipe.search.estimator,
        reference=options.reference,
        workers=workers,
    )
    features = (map_table if by_blocks else build_table)(table, bands, bank, features_command)
    prepared = prepare_rows(
        features.rows, test_fraction, recipe.regression.cv.random_state, find_copies(features)
    )
    left_out_notes = describe_rows(features)
    for note in (*table.notes, *left_out_notes, *prepared.notes):
        log(note)
    training = prepared.frame[prepared.frame["split"] == "training"]
    X = take_rows(open_table(features), features.rows.index.get_indexer(training.index))
    spec = spec_of_study(
        space,
        plan,
        training,
        {band.name: band.folder.digest for band in bands},
        reference=options.reference,
    )
    name = f"{recipe.name}-{digest_json(spec)[:12]}"
    check_study(out, name)
    out.mkdir(parents=True, exist_ok=True)
    storage = open_storage(options.storage, out)
    if options.storage is None:
        check_journal(storage, out, name)
    log(
        f"{len(training)} training images, {len(bands)} variants of {len(recipe.bands)} bands; "
        + say_scope(space, plan)
    )

    def evaluator(some: Table, rows: pd.DataFrame) -> Evaluator:
        return Evaluator(space, some, rows, workers, reference=options.reference)

    finished = _search(storage, name, space, plan, evaluator(X, training), "search", show_progress)
    winner = pick_winner(finished)
    log(
        f"best of {len(finished)}: SRCC {winner.evaluation.value:.4f}, {winner.evaluation.gmacs:.3f} GMACs, "
        + ", ".join(winner.configuration.variants)
    )
    folds = _outer_folds(recipe, training, options.n_outer_folds)
    nested = [
        _nest(
            storage,
            f"{name}/outer-{k}-of-{len(folds)}",
            space,
            plan,
            X,
            training,
            fold,
            evaluator,
            show_progress,
        )
        for k, fold in enumerate(folds, 1)
    ]
    document = document_study(space, plan, name, recipe, finished, nested, storage=options.storage)
    with FileLock(out / FINISH_LOCK):
        metrics = finished_metrics(out, document)
        if metrics is None:
            title = f"{recipe.title}: best of {len(finished)} configurations within {budget:g} GMACs"
            chosen = space.recipe_of(winner.configuration, title)
            origin = Origin(
                {"search": document, "failures": features.left_out.to_dict("records")},
                (*left_out_notes, *prepared.notes, document["statement"]),
                lambda folder: write_study(folder, space, options.objectives, finished, draw_study),
                SEARCH,
            )
            metrics = fit_run(
                _with_split(table, prepared.frame),
                chosen,
                bank,
                out,
                workers=workers,
                cluster=cluster,
                features_command=features_command,
                origin=origin,
                write_report=write_report,
                memory_limit_gb=memory_limit_gb,
                reference=options.reference,
                log=log,
            )
    return {"search": document, "metrics": metrics}


def _variants(recipe: Recipe) -> list[Any]:
    from featbank.recipes.reading import list_variants

    return [variant.request for row in list_variants(recipe).values() for variant in row]


def _search(
    storage: BaseStorage,
    name: str,
    space: Space,
    plan: Plan,
    evaluator: Evaluator,
    title: str,
    show_progress: bool,
) -> list[Finished]:
    with tqdm(desc=title, unit="trial", disable=None if show_progress else True) as bar:

        def report(done: Sequence[Finished], total: int) -> None:
            bar.total = total
            bar.n = len(done)
            if done:
                best = pick_winner(done)
                bar.set_postfix_str(
                    f"best {best.evaluation.value:.4f} with {len(best.configuration.variants)} bands, "
                    f"{best.evaluation.gmacs:.2f} GMACs",
                    refresh=False,
                )
            bar.refresh()

        return run_study(storage, name, space, evaluator, plan, report)


def _outer_folds(recipe: Recipe, training: pd.DataFrame, n_folds: int) -> list[Fold]:
    if n_folds == 0:
        return []
    kind = "kfold" if recipe.regression.cv.kind == "kfold" else "grouped"
    try:
        return make_folds(
            training["mos"].to_numpy(),
            training["group"].to_numpy(),
            kind=kind,
            n_splits=n_folds,
            random_state=recipe.regression.cv.random_state,
        )
    except ValueError as error:
        raise RunError(
            f"search: the training rows cannot be cut into {n_folds} outer folds: {error} Give --outer-folds 0 to "
            "leave the nested score out."
        ) from error


def _nest(
    storage: BaseStorage,
    name: str,
    space: Space,
    plan: Plan,
    X: Table,
    training: pd.DataFrame,
    fold: Fold,
    make_evaluator: Callable[[Table, pd.DataFrame], Evaluator],
    show_progress: bool,
) -> Nested:
    """Repeat the whole search on the training rows of an outer fold; judge its winner on the test rows."""
    fit, test = fold
    evaluator = make_evaluator(take_rows(X, fit), training.iloc[fit])
    finished = _search(storage, name, space, plan, evaluator, name.rpartition("/")[2], show_progress)
    chosen = pick_winner(finished).configuration
    predicted = evaluator.fit_predict(chosen, take_rows(X, test))
    return Nested(srcc(as_written(training["mos"].iloc[test]), as_written(predicted)), chosen)


def _with_split(table: ImageTable, rows: pd.DataFrame) -> ImageTable:
    """Fix the rows and the split of the search, so that the winner is tested on no row that chose it."""
    frame = table.frame[table.frame["image_id"].isin(rows.index)].copy()
    for column in ("split", "group"):
        frame[column] = rows.loc[frame["image_id"], column].to_numpy()
    return replace(table, frame=frame.reset_index(drop=True))
