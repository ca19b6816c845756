"""The study on disk or in a database: who evaluates which proposal, and what came out.

Every proposal has an index. A process claims an index by adding a running trial for it and looking whether an earlier
trial has the same one: storages number trials one after the other, so exactly one claim stands. Claims of dead
processes are given up by marking them failed, and the index is free again.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from experiments.search.evaluation import Evaluation
from experiments.search.locking import FileLock
from experiments.search.owners import Heart, Registry, describe_process
from experiments.search.proposals import Finished, Proposal, directions, objective_values
from experiments.search.space import Space
from featbank.errors import RunError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_MAX_ATTEMPTS = 20

_INDEX, _OWNER, _RESULT, _SPEC = "index", "owner", "result", "spec"


@dataclass(frozen=True)
class State:
    """The study as it stands.

    Attributes
    ----------
    finished : dict of int to Finished
        By index.
    claimed : dict of int to FrozenTrial
        Running claims that stand, by index.
    """

    finished: dict[int, Finished]
    claimed: dict[int, FrozenTrial]


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open the storage that the processes of a search share.

    Parameters
    ----------
    url : str or None
        Database URL such as ``sqlite:///search.db`` or ``postgresql://user@host/name``; None for a journal file.
    folder : Path
        Where the journal lies; it exists.

    Returns
    -------
    BaseStorage

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
        # Elsewhere Optuna's own lock is used, which a killed process can leave behind for half a minute.
        lock = FileLock(folder / "search.lock") if os.name == "posix" else None
        if lock is not None:
            with lock:
                _cut_torn_line(path)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=cast("Any", lock)))
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        return _open_database(url)
    except (ArgumentError, ModuleNotFoundError, ImportError) as error:
        raise RunError(
            f"search: --storage must be a database URL with an installed driver, such as sqlite:///search.db or "
            f"postgresql://user@host/name, got {hide_password(url)!r}: {error}. For PostgreSQL: "
            "pip install psycopg2-binary."
        ) from error
    except SQLAlchemyError as error:
        raise RunError(
            f"search: cannot use the storage {hide_password(url)!r}: {str(error).splitlines()[0]}."
        ) from error


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


def hide_password(url: str) -> str:
    """Return a database URL fit for messages and receipts."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _cut_torn_line(path: Path) -> None:
    """Take away a last line that a full disk or a crash left half written; its event never took place."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


class Ledger:
    """One study in a storage.

    Parameters
    ----------
    storage : BaseStorage
    name : str
        Name of the study; processes that give the same name share it.
    space : Space
    objectives : {"srcc", "srcc,gmacs"}
    spec : mapping of str to object
        What the study is about, JSON-able; kept with it for people.
    """

    def __init__(
        self, storage: BaseStorage, name: str, space: Space, objectives: str, spec: Mapping[str, Any]
    ) -> None:
        import optuna

        self._storage, self.name, self._space, self._objectives = storage, name, space, objectives
        optuna.create_study(
            storage=storage, study_name=name, directions=directions(objectives), load_if_exists=True
        )
        self._study_id = storage.get_study_id_from_name(name)
        storage.set_study_user_attr(self._study_id, _SPEC, dict(spec))
        self._me = describe_process()
        self._registry = Registry()
        self._known: dict[int, Finished] = {}

    @property
    def spec(self) -> dict[str, Any]:
        """What the study is about."""
        return dict(self._storage.get_study_user_attrs(self._study_id)[_SPEC])

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Show signs of life to the other processes while the block runs."""
        key = f"beats:{self._me['token']}"
        self._storage.set_study_user_attr(self._study_id, key, 0)
        with Heart(lambda count: self._storage.set_study_user_attr(self._study_id, key, count)):
            yield

    def read(self) -> State:
        """Read what is finished and what is claimed."""
        from optuna.trial import TrialState

        finished: dict[int, Finished] = {}
        claimed: dict[int, FrozenTrial] = {}
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            index = trial.user_attrs.get(_INDEX)
            if index is None or trial.state == TrialState.FAIL:
                continue
            if trial.state == TrialState.COMPLETE:
                finished[index] = self._finished(index, trial)
            elif index not in finished:
                claimed.setdefault(index, trial)
        return State(finished, {index: trial for index, trial in claimed.items() if index not in finished})

    def claim(self, proposals: Mapping[int, Proposal]) -> dict[int, int]:
        """Try to be the one who evaluates some proposals.

        Parameters
        ----------
        proposals : mapping of int to Proposal
            By index.

        Returns
        -------
        dict of int to int
            The trial to give to `finish`, by index; without those that another process claimed first.
        """
        from optuna.trial import TrialState

        claims = {index: self._add_trial(index, proposal) for index, proposal in proposals.items()}
        first: dict[int, int] = {}
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            index = trial.user_attrs.get(_INDEX)
            if index in claims and trial.state != TrialState.FAIL:
                first.setdefault(index, trial._trial_id)
        mine = {}
        for index, trial_id in claims.items():
            if first.get(index, trial_id) == trial_id:
                mine[index] = trial_id
            else:
                self.release(trial_id)
        return mine

    def _add_trial(self, index: int, proposal: Proposal) -> int:
        import optuna
        from optuna.trial import TrialState

        params = self._space.to_params(proposal.configuration)
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions={
                name: optuna.distributions.CategoricalDistribution(self._space.choices[name])
                for name in params
            },
            user_attrs={_INDEX: index, _OWNER: self._me},
            system_attrs=proposal.memory,
        )
        return int(self._storage.create_new_trial(self._study_id, template_trial=template))

    def finish(self, trial_id: int, evaluation: Evaluation) -> None:
        """Write down what a claimed proposal earned."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        result = {
            # JSON has no NaN.
            "splits": [score if score == score else None for score in evaluation.splits],
            "gmacs": evaluation.gmacs,
        }
        values = objective_values(self._objectives, evaluation)
        try:
            self._storage.set_trial_user_attr(trial_id, _RESULT, result)
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values)
        except UpdateFinishedTrialError:
            # Taken for dead by another machine (a laptop that slept): its evaluation counts, with the same result.
            return

    def give_up_dead(self, state: State) -> int:
        """Free the claims of processes that are gone.

        Parameters
        ----------
        state : State
            As read before.

        Returns
        -------
        int
            Number of claims freed by this call.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        attributes = self._storage.get_study_user_attrs(self._study_id)
        n_freed = 0
        for trial in state.claimed.values():
            owner = trial.user_attrs[_OWNER]
            if owner["token"] == self._me["token"]:
                continue
            if not self._registry.is_dead(owner, attributes.get(f"beats:{owner['token']}", 0)):
                continue
            try:
                self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                n_freed += 1
            except UpdateFinishedTrialError:
                continue  # another process was quicker
        return n_freed

    def release(self, trial_id: int) -> None:
        """Free a claim of this process that it will not finish."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return

    def _finished(self, index: int, trial: FrozenTrial) -> Finished:
        if index not in self._known:
            result = trial.user_attrs[_RESULT]
            splits = tuple(float("nan") if score is None else float(score) for score in result["splits"])
            self._known[index] = Finished(
                index,
                Proposal(self._space.from_params(trial.params), dict(trial.system_attrs)),
                Evaluation(splits, float(result["gmacs"])),
            )
        return self._known[index]
