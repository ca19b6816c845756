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
from featbank.recipes.reading import Recipe, list_variants
from featbank.runs.evaluate import as_written
from featbank.runs.fit import (
    DEFAULTS,
    FitOptions,
    Log,
    Origin,
    choose_blocks,
    fit_run,
    load_rows,
    resolve_bands,
)
from featbank.runs.folder import METRICS, RECEIPT, SEARCH, read_json
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
from regressors.bands import take_rows
from regressors.checks import Table
from regressors.evaluation.metrics import srcc
from regressors.folds import PLAIN_KINDS, Fold, make_folds

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


FINISH_LOCK: Final = "finish.lock"


def finished_metrics(out: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of the run in ``out`` if it is the one that this search would write."""
    if not (out / RECEIPT).exists() or read_json(out, RECEIPT).get("search") != document:
        return None
    return read_json(out, METRICS)


def check_study(out: Path, name: str) -> None:
    """Refuse the folder of another search."""
    if (out / RECEIPT).exists() and (found := read_json(out, RECEIPT)["search"]["study"]) != name:
        raise _other_search(out, found, name)


def check_journal(storage: BaseStorage, out: Path, name: str) -> None:
    """Refuse a folder whose journal is another search's."""
    studies = [study.study_name for study in storage.get_all_studies()]
    if studies and name not in studies:
        raise _other_search(out, studies[0], name)


def _other_search(out: Path, found: str, name: str) -> RunError:
    return RunError(
        f"search: {str(out)!r} belongs to the search {found!r}, and this would be {name!r}: the dataset, the features, "
        "the recipe, the budget, the objectives, the method or the seed differ. Choose another --out."
    )


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
    """

    budget_gmacs: float | None = None
    objectives: str = "srcc"
    n_trials: int = 200
    seed: int = 0
    method: str = "auto"
    n_outer_folds: int = 5
    storage: str | None = None


def search_run(
    table: ImageTable,
    recipe: Recipe,
    bank: Bank,
    out: Path,
    options: SearchOptions,
    fit: FitOptions = DEFAULTS,
    *,
    show_progress: bool = False,
    write_report: Callable[[Path], object] | None = None,
    draw_study: Callable[[Path, Sequence[Finished], pd.DataFrame, float], object] | None = None,
    log: Log = lambda line: None,
) -> dict[str, Any]:
    """Search, then fit and evaluate the winner.

    Any number of processes may run the same search at the same time; each gets the whole result. A process that was
    killed is replaced by calling this again. More trials than before continue the same study.

    Parameters
    ----------
    recipe : Recipe
        Its bands, and what its ``[search]`` opens.
    bank : Bank
        Must hold the features of every variant of every band.
    out : Path
        Run folder: new, empty, or of the same search.
    fit : FitOptions
        How members, and the winner, are fitted.
    show_progress : bool
        Draw progress bars with the best so far, if standard error is a terminal.
    write_report : callable or None
        As in `featbank.runs.fit.fit_run`.
    draw_study : callable or None
        Draws what was evaluated into a folder: takes the folder, the configurations, their importance, the budget.
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
    if recipe.regression.sample_weight:
        raise RunError(
            f"search: regression.sample_weight = {recipe.regression.sample_weight!r} is for fit and protocol; a search "
            "counts all images alike. Leave it out, and fit the winner's recipe with it."
        )
    variants = [variant.request for row in list_variants(recipe).values() for variant in row]
    bands = resolve_bands(bank, table, variants)
    budget = recipe.regression.budget_gmacs if options.budget_gmacs is None else options.budget_gmacs
    space = Space(recipe, {band.name: (band.pass_id, band.gmacs) for band in bands}, budget)
    plan = make_plan(space, options.objectives, options.seed, options.n_trials, options.method)
    estimators = () if recipe.search is None else recipe.search.estimator
    by_blocks = choose_blocks("search", table, bands, recipe.regression, fit, estimators)
    loaded = load_rows(table, bands, bank, recipe.regression, fit, by_blocks=by_blocks)
    for note in (*table.notes, *loaded.left_out, *loaded.split):
        log(note)
    training = loaded.rows[loaded.rows["split"] == "training"]
    X = loaded.table(training)
    digests = {band.name: band.folder.digest for band in bands}
    spec = spec_of_study(space, plan, training, digests, reference=fit.reference)
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

    def search(study: str, some: Table, rows: pd.DataFrame) -> tuple[Evaluator, list[Finished]]:
        evaluator = Evaluator(space, some, rows, fit.workers, reference=fit.reference)
        title = study.partition("/")[2] or "search"
        return evaluator, _search(storage, study, space, plan, evaluator, title, show_progress)

    def nest(study: str, fold: Fold) -> Nested:
        """Repeat the whole search on the training rows of an outer fold; judge its winner on the test rows."""
        learn, test = fold
        evaluator, found = search(study, take_rows(X, learn), training.iloc[learn])
        chosen = pick_winner(found).configuration
        predicted = evaluator.fit_predict(chosen, take_rows(X, test))
        return Nested(srcc(as_written(training["mos"].iloc[test]), as_written(predicted)), chosen)

    _, finished = search(name, X, training)
    winner = pick_winner(finished)
    log(
        f"best of {len(finished)}: SRCC {winner.evaluation.value:.4f}, {winner.evaluation.gmacs:.3f} GMACs, "
        + ", ".join(winner.configuration.variants)
    )
    folds = _outer_folds(recipe, training, options.n_outer_folds)
    nested = [nest(f"{name}/outer-{k}-of-{len(folds)}", fold) for k, fold in enumerate(folds, 1)]
    document = document_study(space, plan, name, recipe, finished, nested, storage=options.storage)
    with FileLock(out / FINISH_LOCK):
        metrics = finished_metrics(out, document)
        if metrics is None:
            title = f"{recipe.title}: best of {len(finished)} configurations within {budget:g} GMACs"
            origin = Origin(
                {"search": document, "failures": loaded.features.left_out.to_dict("records")},
                (*loaded.left_out, *loaded.split, document["statement"]),
                lambda folder: write_study(folder, space, options.objectives, finished, draw_study),
                SEARCH,
            )
            metrics = fit_run(
                _with_split(table, loaded.rows),
                space.recipe_of(winner.configuration, title),
                bank,
                out,
                fit,
                origin=origin,
                write_report=write_report,
                log=log,
            )
    return {"search": document, "metrics": metrics}


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
    kind = "kfold" if recipe.regression.cv.kind in PLAIN_KINDS else "grouped"
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


def _with_split(table: ImageTable, rows: pd.DataFrame) -> ImageTable:
    """Fix the rows and the split of the search, so that the winner is tested on no row that chose it."""
    frame = table.frame[table.frame["image_id"].isin(rows.index)].copy()
    for column in ("split", "group"):
        frame[column] = rows.loc[frame["image_id"], column].to_numpy()
    return replace(table, frame=frame.reset_index(drop=True))
