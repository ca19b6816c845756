"""A search as an Optuna study, and what comes out of it."""

from __future__ import annotations

import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import pandas as pd
from filelock import FileLock

from featbank.digest import digest_json
from featbank.errors import RunError, redact
from featbank.recipes.reading import Recipe
from featbank.runs.evaluate import FLOAT_FORMAT
from featbank.runs.folder import none_if_nan
from featbank.search.space import (
    LEFT_OUT,
    MAX_EXHAUSTIVE,
    OPTIONS,
    Configuration,
    Evaluation,
    Evaluator,
    Space,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

BATCH = 16
"""Most configurations that are evaluated at once when all of them are evaluated anyway."""

_RESULT = "result"  # user attribute of a finished trial
_MAX_ATTEMPTS = 20
_MAX_MUTATIONS = 50

Report = Callable[[Sequence["Finished"], int], None]


@dataclass(frozen=True)
class Plan:
    """How a study proceeds.

    Attributes
    ----------
    objectives : {"srcc", "srcc,gmacs"}
    n_trials : int
        Most configurations that are sampled.
    everything : tuple of Configuration or None
        All configurations within the budget, if they are evaluated one and all; None if they are sampled.
    """

    objectives: str
    seed: int
    n_trials: int
    everything: tuple[Configuration, ...] | None

    @property
    def method(self) -> str:
        """``exhaustive``, ``tpe`` or ``nsga2``."""
        if self.everything is not None:
            return "exhaustive"
        return "tpe" if self.objectives == "srcc" else "nsga2"


@dataclass(frozen=True)
class Finished:
    """An evaluated configuration.

    Attributes
    ----------
    index : int
        Place in the study, from 0.
    """

    index: int
    configuration: Configuration
    evaluation: Evaluation

    @property
    def order(self) -> tuple[int, int]:
        """What decides between equal scores and costs: fewer bands, then the earlier one."""
        return len(self.configuration.variants), self.index


def make_plan(space: Space, objectives: str, seed: int, n_trials: int, method: str) -> Plan:
    """Decide whether all configurations are evaluated or some are sampled.

    Parameters
    ----------
    objectives : {"srcc", "srcc,gmacs"}
    method : {"auto", "exhaustive", "sampled"}
        ``auto`` evaluates all when there are at most `MAX_EXHAUSTIVE` of them.

    Raises
    ------
    RunError
        If all were asked for and there are too many.
    """
    everything = None if method == "sampled" else space.list_feasible()
    if method == "exhaustive" and everything is None:
        raise RunError(
            f"search: --method exhaustive takes at most {MAX_EXHAUSTIVE} configurations, and this recipe has more "
            f"within {space.budget_gmacs:g} GMACs. Open fewer choices, lower the budget, or use --method sampled."
        )
    return Plan(objectives, seed, n_trials, None if everything is None else tuple(everything))


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open the storage that the processes of a search share.

    Parameters
    ----------
    url : str or None
        Database URL such as ``sqlite:///search.db`` or ``postgresql://user@host/name``; None for a journal file.

    Raises
    ------
    RunError
        If the database's driver is missing or it cannot be reached.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = folder / "search.journal"
        # The system releases this lock when its holder dies; Optuna's own may outlive a killed process.
        lock = FileLock(folder / "search.lock")
        with lock:
            _cut_torn_line(path)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=cast("Any", lock)))
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        return _open_database(url)
    except (ArgumentError, ImportError) as error:
        raise RunError(
            f"search: --storage must be a database URL with an installed driver, such as sqlite:///search.db or "
            f"postgresql://user@host/name, got {url!r}: {error}. For PostgreSQL: "
            "pip install psycopg2-binary."
        ) from error
    except SQLAlchemyError as error:
        raise RunError(f"search: cannot use the storage {url!r}: {str(error).splitlines()[0]}.") from error


def _open_database(url: str) -> BaseStorage:
    import optuna
    from sqlalchemy.exc import DatabaseError, IntegrityError

    options = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempt in itertools.count():
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
        except DatabaseError as error:
            # Two processes that make the tables at the same moment: the next try finds them made.
            is_race = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not is_race or attempt == _MAX_ATTEMPTS:
                raise
            time.sleep(0.1)
    raise AssertionError("unreachable")


def _cut_torn_line(path: Path) -> None:
    """Remove a last line that a full disk or a crash left half written."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def run_study(
    storage: BaseStorage,
    name: str,
    space: Space,
    evaluator: Evaluator,
    plan: Plan,
    report: Report = lambda done, total: None,
) -> list[Finished]:
    """Work on a study until it is complete, together with any other process that does.

    One objective is sampled by the tree-structured Parzen estimator [1]_, two by NSGA-II [2]_, beginning with the
    recipe as it stands. A draw over the budget is repaired; one that was evaluated before is varied until it is new.

    Returns
    -------
    list of Finished
        All different; in the plan's order where everything is evaluated, else in the order of the trials.

    References
    ----------
    .. [1] J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, "Algorithms for hyper-parameter optimization", NIPS 2011.
    .. [2] K. Deb, A. Pratap, S. Agarwal, T. Meyarivan, "A fast and elitist multiobjective genetic algorithm:
       NSGA-II", IEEE Transactions on Evolutionary Computation 6, 2002.
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=_directions(plan.objectives), load_if_exists=True
        )
        if plan.everything is not None:
            return _evaluate_all(study, space, evaluator, plan, plan.everything, report)
        return _sample(study, space, evaluator, plan, report)


def _evaluate_all(
    study: optuna.Study,
    space: Space,
    evaluator: Evaluator,
    plan: Plan,
    everything: Sequence[Configuration],
    report: Report,
) -> list[Finished]:
    rng = np.random.default_rng()  # spreads processes over what is left; no result depends on it
    while True:
        known = _read(study, space)
        missing = [configuration for configuration in everything if configuration not in known]
        report(_number(known, everything), len(everything))
        if not missing:
            return _number(known, everything)
        # Towards the end the batches shrink, so that processes that choose the same one repeat little.
        size = min(BATCH, max(1, len(missing) // 4))
        start = size * int(rng.integers(-(-len(missing) // size)))
        batch = missing[start : start + size]
        for configuration, evaluation in zip(batch, evaluator.evaluate(batch), strict=True):
            study.add_trial(_finished_trial(space, plan.objectives, configuration, evaluation))


def _sample(
    study: optuna.Study, space: Space, evaluator: Evaluator, plan: Plan, report: Report
) -> list[Finished]:
    import optuna

    # A process that joins or continues must not repeat the draws of the ones before it.
    n_before = len(study.get_trials(deepcopy=False))
    seed = int(np.random.SeedSequence((plan.seed, n_before)).generate_state(1)[0])
    rng = np.random.default_rng((plan.seed, n_before, 1))
    study.sampler = (
        optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=16)
        if plan.objectives == "srcc"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    )
    if n_before == 0:
        study.enqueue_trial(space.to_params(space.repair(space.own, rng)))
    while True:
        known = _read(study, space)
        report(_number(known), plan.n_trials)
        drawn = None if len(known) >= plan.n_trials else _draw(study, space, known, rng)
        if drawn is None:
            return _number(known)[: plan.n_trials]
        trial, configuration = drawn
        try:
            [evaluation] = evaluator.evaluate([configuration])
        except BaseException:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        trial.set_user_attr(_RESULT, _to_json(evaluation))
        study.tell(trial, _values(plan.objectives, evaluation))


def _draw(
    study: optuna.Study, space: Space, known: Mapping[Configuration, Evaluation], rng: np.random.Generator
) -> tuple[optuna.Trial, Configuration] | None:
    """Draw a new configuration within the budget; None if every one is known."""
    import optuna

    while True:
        trial = study.ask(fixed_distributions=_distributions(space))
        drawn = space.from_params(trial.params)
        wanted = _vary(space, space.repair(drawn, rng), known, rng)
        if wanted == drawn:
            return trial, drawn
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if wanted is None:
            return None
        study.enqueue_trial(space.to_params(wanted))  # the next trial that is asked for, by whomever


def _vary(
    space: Space, drawn: Configuration, known: Mapping[Configuration, Evaluation], rng: np.random.Generator
) -> Configuration | None:
    """Walk away from a known configuration by random changes; None if every configuration is known."""
    candidate = drawn
    for _ in range(_MAX_MUTATIONS):
        if candidate not in known:
            return candidate
        candidate = space.mutate(candidate, rng)
    return next((other for other in space.iterate_feasible() if other not in known), None)


def rebuild_study(space: Space, objectives: str, finished: Sequence[Finished]) -> optuna.Study:
    """Put evaluated configurations into a study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=_directions(objectives))
    study.add_trials(
        [_finished_trial(space, objectives, item.configuration, item.evaluation) for item in finished]
    )
    return study


def _finished_trial(
    space: Space, objectives: str, configuration: Configuration, evaluation: Evaluation
) -> optuna.trial.FrozenTrial:
    import optuna

    return optuna.trial.create_trial(
        params=dict(space.to_params(configuration)),
        distributions=_distributions(space),
        values=_values(objectives, evaluation),
        user_attrs={_RESULT: _to_json(evaluation)},
    )


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    import optuna

    return {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in space.choices.items()
    }


def _directions(objectives: str) -> list[Literal["maximize", "minimize"]]:
    return ["maximize"] if objectives == "srcc" else ["maximize", "minimize"]


def _values(objectives: str, evaluation: Evaluation) -> list[float]:
    """Return what the sampler optimises, in the order of the directions."""
    return [evaluation.value] if objectives == "srcc" else [evaluation.value, evaluation.gmacs]


def _to_json(evaluation: Evaluation) -> dict[str, Any]:
    # JSON has no NaN.
    splits = [score if score == score else None for score in evaluation.splits]
    return {"splits": splits, "gmacs": evaluation.gmacs}


def _read(study: optuna.Study, space: Space) -> dict[Configuration, Evaluation]:
    """Read what is finished, in the order of the trials; of two equal ones the first."""
    import optuna

    known: dict[Configuration, Evaluation] = {}
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        result = trial.user_attrs[_RESULT]
        splits = tuple(float("nan") if score is None else float(score) for score in result["splits"])
        known.setdefault(space.from_params(trial.params), Evaluation(splits, float(result["gmacs"])))
    return known


def _number(
    known: Mapping[Configuration, Evaluation], order: Sequence[Configuration] | None = None
) -> list[Finished]:
    """Give each finished configuration its place in an order; None for the order of the trials."""
    wanted = enumerate(known if order is None else order)
    return [Finished(index, item, known[item]) for index, item in wanted if item in known]


TRIALS: Final = "trials.csv"
IMPORTANCE: Final = "importance.csv"


_IMPORTANCE_SEED = 0


def pick_winner(finished: Sequence[Finished]) -> Finished:
    """Return the best evaluated configuration: by SRCC, then GMACs, then number of bands, then order."""
    return min(finished, key=lambda item: (-item.evaluation.value, item.evaluation.gmacs, *item.order))


def pareto_front(finished: Sequence[Finished]) -> list[Finished]:
    """Return the configurations that no other one equals at less cost or beats at the same cost, cheapest first.

    Returns
    -------
    list of Finished
        SRCC and GMACs both grow along it; of equals the one with the fewest bands, then the first.
    """
    front: list[Finished] = []
    for item in sorted(finished, key=lambda i: (i.evaluation.gmacs, -i.evaluation.value, *i.order)):
        if not front or item.evaluation.value > front[-1].evaluation.value:
            front.append(item)
    return front


def trials_frame(space: Space, finished: Sequence[Finished]) -> pd.DataFrame:
    """Put a study into a table, in the order of its trials."""
    front = {item.index for item in pareto_front(finished)}
    winner = pick_winner(finished).index
    rows = []
    for item in finished:
        configuration, evaluation = item.configuration, item.evaluation
        chosen = {space.band_of(name): name for name in configuration.variants}
        row: dict[str, object] = {
            "trial": item.index,
            "srcc": evaluation.srcc,
            "std": float(np.std(evaluation.splits)),
            "gmacs": evaluation.gmacs,
            "n_bands": len(configuration.variants),
            "pareto": item.index in front,
            "winner": item.index == winner,
        }
        row |= {f"band:{band}": chosen.get(band, LEFT_OUT) for band in space.variants}
        for name in OPTIONS:
            value = getattr(configuration, name)
            row[name] = json.dumps(value) if isinstance(value, tuple) else value
        row |= {f"split{k}_srcc": score for k, score in enumerate(evaluation.splits)}
        rows.append(row)
    return pd.DataFrame(rows)


def importance_frame(space: Space, objectives: str, finished: Sequence[Finished]) -> pd.DataFrame:
    """Say how much each choice mattered for SRCC."""
    shares = _shares(space, objectives, finished)
    frame = trials_frame(space, finished)
    rows = []
    for choice in space.choices:
        row: dict[str, object] = {"choice": choice, "importance": shares.get(choice, np.nan)}
        if choice.startswith("band:"):
            has_it = frame[choice] != LEFT_OUT
            row["n_with"] = int(has_it.sum())
            row["mean_with"] = frame.loc[has_it, "srcc"].mean()
            row["mean_without"] = frame.loc[~has_it, "srcc"].mean()
        rows.append(row)
    ordered = pd.DataFrame(rows).sort_values("importance", ascending=False, kind="stable")
    return ordered.reset_index(drop=True)


def _shares(space: Space, objectives: str, finished: Sequence[Finished]) -> dict[str, float]:
    import optuna

    values = {item.evaluation.value for item in finished}
    if len(finished) < 2 or len(values) < 2:
        return {}
    study = rebuild_study(space, objectives, finished)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=_IMPORTANCE_SEED),
            target=lambda trial: trial.values[0],  # noqa: PD011 - of an Optuna trial
        )
    return {name: float(share) for name, share in found.items()}


@dataclass(frozen=True)
class Nested:
    """An outer fold: its winner, and the SRCC of that on rows that its search did not see, nan where undefined."""

    score: float
    configuration: Configuration


def spec_of_study(
    space: Space, plan: Plan, training: pd.DataFrame, digests: dict[str, str], *, reference: bool
) -> dict[str, Any]:
    """Return everything that decides what the trials are; processes share a study when theirs is equal.

    Parameters
    ----------
    training : DataFrame
        Rows that the search sees, by image, with ``mos`` and ``group``.
    """
    return {
        # A study is computed in one way throughout, so that two can be compared.
        **({"reference": True} if reference else {}),
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


def say_scope(space: Space, plan: Plan) -> str:
    """Say how many configurations are tried, and within what."""
    if plan.everything is not None:
        return f"all {len(plan.everything)} configurations within {space.budget_gmacs:g} GMACs"
    return (
        f"{plan.n_trials} trials among up to {space.size} configurations within {space.budget_gmacs:g} GMACs"
    )


def document_study(
    space: Space,
    plan: Plan,
    name: str,
    recipe: Recipe,
    finished: Sequence[Finished],
    nested: Sequence[Nested],
    *,
    storage: str | None,
) -> dict[str, Any]:
    """Return what the receipt says of a search.

    Parameters
    ----------
    storage : str or None
        Database URL, None for the journal; its password is left out.
    """
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
        "storage": "search.journal" if storage is None else redact(storage),
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
        **_plain(item.configuration),
    }


def _plain(configuration: Configuration) -> dict[str, Any]:
    values = asdict(configuration)
    return {"bands": list(values.pop("variants")), **values}


def write_study(
    folder: Path,
    space: Space,
    objectives: str,
    finished: Sequence[Finished],
    draw: Callable[[Path, Sequence[Finished], pd.DataFrame, float], object] | None = None,
) -> None:
    """Write the trials, the importance of what was open, and their figures into a run folder."""
    trials_frame(space, finished).to_csv(folder / TRIALS, index=False, float_format=FLOAT_FORMAT)
    importance = importance_frame(space, objectives, finished)
    importance.to_csv(folder / IMPORTANCE, index=False, float_format="%.6g")
    if draw is not None:
        draw(folder, finished, importance, space.budget_gmacs)
