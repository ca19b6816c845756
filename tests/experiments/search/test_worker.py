"""A study is the same whoever works on it: left alone, killed anywhere and taken up, or shared by processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.runs.model import build_ensemble
from experiments.search import worker
from experiments.search.evaluation import Evaluation, Evaluator
from experiments.search.ledger import Ledger, hide_password, open_storage
from experiments.search.outcome import pick_winner, trials_frame
from experiments.search.proposals import Finished
from experiments.search.space import Configuration
from experiments.search.worker import Plan, make_plan, run_study
from featbank.errors import RunError
from regressors.subsets import search_subsets
from tests.support.search_study import BANDS, study_parts
from tests.support.search_worker import KINDS, N_TRIALS, study_of, work

ROOT = Path(__file__).parents[3]

# Every process loads scikit-learn and Optuna first, which takes its time.
SOME_KINDS = [kind if kind == "tpe" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def start(
    folder: Path, kind: str, url: str = "", *, die_in_call: int = -1, pause_s: float = 0.0
) -> subprocess.Popen[str]:
    """Start a process that works on the study."""
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "tests.support.search_worker"),
            *(str(folder), kind, url, str(die_in_call), str(pause_s)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finished]]:
    return {kind: work(tmp_path_factory.mktemp(kind), kind, None, study_of(kind)[1]) for kind in KINDS}


def n_states(folder: Path, url: str | None = None) -> dict[str, int]:
    storage = open_storage(url, folder)
    trials = storage.get_all_trials(storage.get_study_id_from_name("study"))
    names = [trial.state.name for trial in trials]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_holds_each_configuration_once(kind: str, undisturbed: dict[str, list[Finished]]) -> None:
    finished = undisturbed[kind]
    configurations = [item.proposal.configuration for item in finished]
    assert len(set(configurations)) == len(configurations)
    assert [item.index for item in finished] == list(range(len(finished)))
    if kind == "exhaustive":
        assert configurations == study_of(kind)[0].list_feasible()
    else:
        assert len(finished) == N_TRIALS


@pytest.mark.parametrize("kind", SOME_KINDS)
def test_a_study_killed_twice_and_resumed_equals_the_undisturbed_one(
    kind: str, undisturbed: dict[str, list[Finished]], tmp_path: Path
) -> None:
    for die_in_call in (2, 0):  # the second one dies before it has finished anything
        process = start(tmp_path, kind, die_in_call=die_in_call)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
    found = work(tmp_path, kind, None, study_of(kind)[1])
    assert found == undisturbed[kind]
    assert pick_winner(found) == pick_winner(undisturbed[kind])
    states = n_states(tmp_path)
    assert states["COMPLETE"] == len(found)
    assert states["FAIL"] >= 2
    assert set(states) == {"COMPLETE", "FAIL"}


@pytest.mark.parametrize("database", [None, pytest.param("sqlite", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", SOME_KINDS)
def test_processes_share_a_study_without_duplicates(
    kind: str, database: str | None, undisturbed: dict[str, list[Finished]], tmp_path: Path
) -> None:
    url = "" if database is None else f"sqlite:///{tmp_path}/study.db"
    # The pause makes sure that neither is done before the other has begun.
    processes = [start(tmp_path, kind, url, pause_s=0.1) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
    expected = trials_frame(study_of(kind)[0], undisturbed[kind]).to_csv()
    assert [result["trials"] for result in results] == [expected, expected]
    # Together they evaluated every configuration, and none of them twice.
    counted = [configuration for result in results for configuration in result["counted"]]
    assert len(counted) == len(set(counted)) == len(undisturbed[kind])
    assert all(result["counted"] for result in results)
    assert n_states(tmp_path, url or None)["COMPLETE"] == len(undisturbed[kind])


def test_eight_bands_have_the_same_optimum_as_exhaustion(tmp_path: Path) -> None:
    space, X, rows = study_parts()
    assert len(space.variants) == 8
    evaluator = Evaluator(space, X, rows, 1)
    reference = search_subsets(
        X,
        rows["mos"],
        gmacs={name: cost for name, (_, cost) in BANDS.items()},
        budget=50.0,
        model=build_ensemble(space.recipe.regression, evaluator.folds, 1),
        n_outer_splits=None,
    )
    for method in ("exhaustive", "sampled"):
        plan = make_plan(space, "srcc", 0, 80, method)
        ledger = Ledger(open_storage(None, tmp_path), method, space, "srcc", {})
        finished = run_study(ledger, space, evaluator, plan)
        best = pick_winner(finished)
        assert best.proposal.configuration.variants == reference.best_bands
        assert best.evaluation.srcc == pytest.approx(reference.best_score, abs=1e-9)
        if method == "exhaustive":
            assert len(finished) == len(reference.frame)
            scores = {
                "+".join(item.proposal.configuration.variants): item.evaluation.srcc for item in finished
            }
            expected = dict(zip(reference.frame["subset"], reference.frame["score"], strict=True))
            assert scores == pytest.approx(expected, abs=1e-9)


def test_more_trials_continue_the_study(tmp_path: Path) -> None:
    space, evaluator, _ = study_of("tpe")
    storage = open_storage(None, tmp_path)

    def run(n_trials: int) -> list[Finished]:
        ledger = Ledger(storage, "study", space, "srcc", {})
        return run_study(ledger, space, evaluator, Plan("srcc", 7, n_trials, None))

    short, long = run(11), run(29)
    assert long[:11] == short
    assert len(long) == 29
    assert run(11) == short


def test_a_failing_evaluation_frees_its_claim(
    tmp_path: Path, undisturbed: dict[str, list[Finished]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Evaluator, configurations: Sequence[Configuration]) -> list[Evaluation]:
        raise ZeroDivisionError

    evaluator = study_of("exhaustive")[1]
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", fail)
        with pytest.raises(ZeroDivisionError):
            work(tmp_path, "exhaustive", None, evaluator)
    assert set(n_states(tmp_path)) == {"FAIL"}
    assert work(tmp_path, "exhaustive", None, study_of("exhaustive")[1]) == undisturbed["exhaustive"]


def test_a_study_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, evaluator, plan = study_of("tpe")
    ledger = Ledger(open_storage(None, tmp_path), "study", space, "srcc", {})
    run_study(ledger, space, evaluator, Plan("srcc", 7, 5, None))
    propose = worker.propose
    monkeypatch.setattr(worker, "propose", lambda *arguments: propose(*arguments)[::-1])
    with pytest.raises(RunError, match="another version"):
        run_study(ledger, space, evaluator, plan)


def test_a_torn_last_line_is_an_event_that_never_took_place(
    tmp_path: Path, undisturbed: dict[str, list[Finished]]
) -> None:
    journal = tmp_path / "search.journal"
    process = start(tmp_path, "tpe", die_in_call=5)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    with journal.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"')
    assert work(tmp_path, "tpe", None, study_of("tpe")[1]) == undisturbed["tpe"]


def test_passwords_stay_out_of_messages(tmp_path: Path) -> None:
    url = "nosuchdatabase://me:secret@host/name"
    assert "secret" not in hide_password(url)
    with pytest.raises(RunError) as raised:
        open_storage(url, tmp_path)
    assert "secret" not in str(raised.value)
    with pytest.raises(RunError, match="database URL"):
        open_storage("no url at all", tmp_path)
