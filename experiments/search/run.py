"""From a dataset, a bank and a recipe to a run folder: search, nested search, the winner's run.

The search sees training rows alone. The validation and test rows are read by the winner's run, once, like in any fit.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from experiments.fit import Origin, fit_run
from experiments.recipes.reading import Recipe
from experiments.runs.folder import METRICS, RECEIPT, read_json
from experiments.runs.receipt import none_if_nan
from experiments.runs.room import choose_blocks, open_table
from experiments.runs.split import prepare_rows
from experiments.search.evaluation import Evaluator
from experiments.search.figures import importance_figure, pareto_figure
from experiments.search.ledger import Ledger, hide_password, open_storage
from experiments.search.locking import FileLock
from experiments.search.outcome import importance_frame, pareto_front, pick_winner, trials_frame
from experiments.search.proposals import Finished
from experiments.search.space import Configuration, Space
from experiments.search.worker import Plan, make_plan, run_study
from featbank.bank import Bank
from featbank.datasets import ImageTable
from featbank.digest import digest_json
from featbank.errors import RunError
from featbank.table import build_table, map_table, resolve_band
from regressors.checks import Table
from regressors.evaluation.metrics import srcc
from regressors.fitting import take_rows
from regressors.folds import Fold, make_folds

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from featbank.on_cluster import ClusterUse

TRIALS = "trials.csv"
IMPORTANCE = "importance.csv"

OWN_FILES = ("search.journal", "search.lock", "finish.lock")
"""What the processes of a search share in its folder; the winner's run is written beside them."""

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


@dataclass(frozen=True)
class _Nested:
    """Result of one outer fold."""

    score: float
    configuration: Configuration


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
    with_report: bool = True,
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
    with_report : bool
        Also draw the HTML report.
    memory_limit_gb : float or None
        As in `experiments.fit.fit_run`.
    log : callable
        Receives one line for each step.

    Returns
    -------
    dict
        ``search`` (as in the receipt) and ``metrics`` (as in ``metrics.json``).

    Raises
    ------
    RunError
        If nothing fits the budget, ``out`` holds something else, or the rows cannot be fitted.
    MissingFeaturesError, DatasetError
        If features, MOS or rows are missing.
    """
    passes, bands = {}, []
    for row in _variants(recipe):
        band = resolve_band(bank, table.name, row.name, row.encoder, row.view, row.aggregate)
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
    prepared = prepare_rows(features.rows, test_fraction, recipe.regression.cv.random_state)
    training = prepared.frame[prepared.frame["split"] == "training"]
    X = take_rows(open_table(features), features.rows.index.get_indexer(training.index))
    spec = _spec(space, plan, training, {band.name: band.folder.digest for band in bands}, options)
    name = f"{recipe.name}-{digest_json(spec)[:12]}"
    _check_out(out, name)
    out.mkdir(parents=True, exist_ok=True)
    storage = open_storage(options.storage, out)
    if options.storage is None:
        _check_journal(storage, out, name)
    log(
        f"{len(training)} training images, {len(bands)} variants of {len(recipe.bands)} bands; "
        + _scope(space, plan)
    )

    def evaluator(some: Table, rows: pd.DataFrame) -> Evaluator:
        return Evaluator(space, some, rows, workers, reference=options.reference)

    finished = _search(storage, name, space, plan, evaluator(X, training), "search", show_progress)
    winner = pick_winner(finished)
    log(
        f"best of {len(finished)}: SRCC {winner.evaluation.value:.4f}, {winner.evaluation.gmacs:.3f} GMACs, "
        + ", ".join(winner.proposal.configuration.variants)
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
    document = _document(space, plan, options, name, recipe, finished, nested)
    with FileLock(out / "finish.lock"):
        metrics = _finished_metrics(out, document)
        if metrics is None:
            title = f"{recipe.title}: best of {len(finished)} configurations within {budget:g} GMACs"
            chosen = space.recipe_of(winner.proposal.configuration, title)
            origin = Origin(
                {"search": document, "failures": features.left_out.to_dict("records")},
                (*prepared.notes, document["statement"]),
                lambda folder: _write_study(folder, space, options.objectives, finished),
            )
            metrics = _fit_winner(
                _with_split(table, prepared.frame),
                chosen,
                bank,
                out,
                workers=workers,
                cluster=cluster,
                features_command=features_command,
                origin=origin,
                with_report=with_report,
                memory_limit_gb=memory_limit_gb,
                reference=options.reference,
                log=log,
            )
    return {"search": document, "metrics": metrics}


def _variants(recipe: Recipe) -> list[Any]:
    from experiments.recipes.variants import list_variants

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
    ledger = Ledger(storage, name, space, plan.objectives, {"title": title, "method": plan.method})
    with tqdm(desc=title, unit="trial", disable=None if show_progress else True) as bar:

        def report(done: Sequence[Finished], total: int | None) -> None:
            bar.total = total
            bar.n = len(done)
            if done:
                best = pick_winner(done)
                bar.set_postfix_str(
                    f"best {best.evaluation.value:.4f} with {len(best.proposal.configuration.variants)} bands, "
                    f"{best.evaluation.gmacs:.2f} GMACs",
                    refresh=False,
                )
            bar.refresh()

        return run_study(ledger, space, evaluator, plan, report)


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
) -> _Nested:
    """Repeat the whole search on the training rows of an outer fold; judge its winner on the test rows."""
    fit, test = fold
    evaluator = make_evaluator(take_rows(X, fit), training.iloc[fit])
    finished = _search(storage, name, space, plan, evaluator, name.rpartition("/")[2], show_progress)
    chosen = pick_winner(finished).proposal.configuration
    predicted = evaluator.fit_predict(chosen, take_rows(X, test))
    return _Nested(srcc(training["mos"].to_numpy()[test], predicted), chosen)


def _spec(
    space: Space, plan: Plan, training: pd.DataFrame, digests: dict[str, str], options: SearchOptions
) -> dict[str, Any]:
    """Everything that decides what the trials are; processes share a study when theirs is equal."""
    return {
        # A study is computed in one way throughout, so that two can be compared.
        **({"reference": True} if options.reference else {}),
        "recipe": space.recipe.digest,
        "budget_gmacs": space.budget_gmacs,
        "objectives": plan.objectives,
        "seed": None if plan.everything is not None else plan.seed,
        "method": plan.method,
        "features": digests,
        "rows": digest_json(
            [
                [str(image), float(mos), str(group)]
                for image, mos, group in zip(training.index, training["mos"], training["group"], strict=True)
            ]
        ),
    }


def _scope(space: Space, plan: Plan) -> str:
    if plan.everything is not None:
        return f"all {len(plan.everything)} configurations within {space.budget_gmacs:g} GMACs"
    return (
        f"{plan.n_trials} trials among up to {space.size} configurations within {space.budget_gmacs:g} GMACs"
    )


def _document(
    space: Space,
    plan: Plan,
    options: SearchOptions,
    name: str,
    recipe: Recipe,
    finished: Sequence[Finished],
    nested: Sequence[_Nested],
) -> dict[str, Any]:
    winner = pick_winner(finished)
    everything = plan.everything if plan.everything is not None else space.list_feasible()
    is_certified = everything is not None and len(finished) == len(everything)
    scores = [item.score for item in nested]
    nested_srcc = sum(scores) / len(scores) if scores else math.nan
    if is_certified:
        statement = (
            f"Certified optimum of the search: all {len(finished)} configurations within {space.budget_gmacs:g} GMACs "
            "were evaluated, and none has a higher SRCC on the same folds."
        )
    else:
        statement = (
            f"Best of {len(finished)} sampled configurations; not certified, the space holds up to {space.size} within "
            f"and over {space.budget_gmacs:g} GMACs."
        )
    return {
        "study": name,
        "storage": "search.journal" if options.storage is None else hide_password(options.storage),
        "recipe": {"name": recipe.name, "digest": recipe.digest, "text": recipe.to_toml()},
        "method": plan.method,
        "objectives": plan.objectives.split(","),
        "seed": plan.seed,
        "budget_gmacs": space.budget_gmacs,
        "space_size": space.size,
        "n_feasible": None if everything is None else len(everything),
        "n_evaluated": len(finished),
        "is_certified": is_certified,
        "statement": statement,
        "winner": _entry(winner),
        "selected_srcc": none_if_nan(winner.evaluation.srcc),
        "nested_srcc": none_if_nan(nested_srcc),
        "nested_folds": [{"srcc": none_if_nan(item.score), **_plain(item.configuration)} for item in nested],
        "pareto": [_entry(item) for item in pareto_front(finished)],
        "optuna": metadata.version("optuna"),
    }


def _entry(item: Finished) -> dict[str, Any]:
    return {
        "trial": item.index,
        "srcc": none_if_nan(item.evaluation.srcc),
        "split_srcc": [none_if_nan(score) for score in item.evaluation.splits],
        "gmacs": item.evaluation.gmacs,
        **_plain(item.proposal.configuration),
    }


def _plain(configuration: Configuration) -> dict[str, Any]:
    values = asdict(configuration)
    return {"bands": list(values.pop("variants")), **values}


def _write_study(folder: Path, space: Space, objectives: str, finished: Sequence[Finished]) -> None:
    trials_frame(space, finished).to_csv(folder / TRIALS, index=False, float_format="%.10g")
    importance = importance_frame(space, objectives, finished)
    importance.to_csv(folder / IMPORTANCE, index=False, float_format="%.6g")
    pareto_figure(finished, space.budget_gmacs).write_png(folder)
    importance_figure(importance).write_png(folder)


def _with_split(table: ImageTable, rows: pd.DataFrame) -> ImageTable:
    """Fix the rows and the split of the search, so that the winner is tested on no row that chose it."""
    frame = table.frame[table.frame["image_id"].isin(rows.index)].copy()
    for column in ("split", "group"):
        frame[column] = rows.loc[frame["image_id"], column].to_numpy()
    return replace(table, frame=frame.reset_index(drop=True))


def _fit_winner(table: ImageTable, recipe: Recipe, bank: Bank, out: Path, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - passed on
    """Run the winner in a private folder, then move its files beside the study's; the receipt comes last."""
    private = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        metrics = fit_run(table, recipe, bank, private / out.name, **options)
        files = sorted((private / out.name).iterdir(), key=lambda path: path.name == RECEIPT)
        for path in files:
            path.replace(out / path.name)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return metrics


def _finished_metrics(out: Path, document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metrics of the run in ``out`` if it is the one that this search would write."""
    if not (out / RECEIPT).exists() or read_json(out, RECEIPT).get("search") != document:
        return None
    return read_json(out, METRICS)


def _check_out(out: Path, name: str) -> None:
    """Refuse a folder that holds anything but this search.

    Raises
    ------
    RunError
        If it is a file, or holds other files or another search.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RunError(f"search: --out must be a folder, got the file {str(out)!r}.")
    others = [path.name for path in out.iterdir() if path.name not in OWN_FILES]
    if not others:
        return
    found = read_json(out, RECEIPT).get("search") if (out / RECEIPT).exists() else None
    if found is None:
        raise RunError(
            f"search: --out must be a new folder or one of the same search, got {str(out)!r}, which holds something "
            "else. Nothing was touched; choose another folder."
        )
    if found["study"] != name:
        raise _other_search(out, found["study"], name)


def _check_journal(storage: BaseStorage, out: Path, name: str) -> None:
    studies = [study.study_name for study in storage.get_all_studies()]
    if studies and name not in studies:
        raise _other_search(out, studies[0], name)


def _other_search(out: Path, found: str, name: str) -> RunError:
    return RunError(
        f"search: {str(out)!r} belongs to the search {found!r}, and this would be {name!r}: the dataset, the features, "
        "the recipe, the budget, the objectives, the method or the seed differ. Choose another --out."
    )
