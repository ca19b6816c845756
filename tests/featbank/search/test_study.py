"""A study finds the same whoever works on it: left alone, killed anywhere and taken up, or shared by processes."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from featbank.errors import RunError
from featbank.runs.model import build_ensemble
from featbank.search.space import Configuration, Evaluation, Evaluator, Space
from featbank.search.study import (
    Finished,
    Plan,
    make_plan,
    open_storage,
    pareto_front,
    pick_winner,
    run_study,
    trials_frame,
)
from regressors.evaluation.metrics import srcc
from tests.support.bank_worker import Worker, worker
from tests.support.search_study import SEARCH, study_parts
from tests.support.search_worker import KINDS, N_TRIALS, study_of, work

SAMPLED = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "exhaustive"]


@pytest.fixture(scope="module")
def processes() -> Iterator[Worker]:
    with worker("tests.support.search_worker") as running:
        yield running


def start(
    processes: Worker, folder: Path, kind: str, url: str = "", *, die_in_call: int = -1, pause_s: float = 0.0
) -> int:
    """Start a process that works on the study; gives its id."""
    return processes.start(
        "study", folder=str(folder), kind=kind, url=url, die_in_call=die_in_call, pause_s=pause_s
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finished]]:
    return {kind: work(tmp_path_factory.mktemp(kind), kind, None, study_of(kind)[1]) for kind in KINDS}


class Made(Evaluator):
    """Scores grow with the band ``a`` and fall with the others, without any fit."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def evaluate(self, configurations: Sequence[Configuration]) -> list[Evaluation]:
        assert all(map(self.space.is_feasible, configurations))
        return [
            Evaluation((0.5 * ("a" in c.variants) - 0.02 * len(c.variants),), self.space.gmacs(c))
            for c in configurations
        ]


def sample(
    folder: Path, objectives: str, seed: int, n_trials: int, bands: list[str] | None = None
) -> list[Finished]:
    space, _, _ = study_parts(bands, search=SEARCH)
    folder.mkdir(exist_ok=True)
    plan = Plan(objectives, seed, n_trials, None)
    return run_study(open_storage(None, folder), f"study {seed}", space, Made(space), plan)


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_holds_each_configuration_once(kind: str, undisturbed: dict[str, list[Finished]]) -> None:
    finished = undisturbed[kind]
    configurations = [item.configuration for item in finished]
    assert len(set(configurations)) == len(configurations)
    assert [item.index for item in finished] == list(range(len(finished)))
    if kind == "exhaustive":
        assert configurations == study_of(kind)[0].list_feasible()
    else:
        assert len(finished) == N_TRIALS


def test_an_exhaustive_study_killed_twice_and_resumed_equals_the_undisturbed_one(
    processes: Worker, undisturbed: dict[str, list[Finished]], tmp_path: Path
) -> None:
    for die_in_call in (1, 0):  # the second one dies before it has finished anything
        pid = start(processes, tmp_path, "exhaustive", die_in_call=die_in_call)
        assert processes.wait(pid) == -signal.SIGKILL
    evaluator = study_of("exhaustive")[1]
    assert work(tmp_path, "exhaustive", None, evaluator) == undisturbed["exhaustive"]
    assert len(evaluator.counted) < len(undisturbed["exhaustive"])  # the first one's batch was kept


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_sampled_study_killed_twice_goes_on_where_it_stopped(
    kind: str, processes: Worker, tmp_path: Path
) -> None:
    for die_in_call in (5, 0):
        pid = start(processes, tmp_path, kind, die_in_call=die_in_call)
        assert processes.wait(pid) == -signal.SIGKILL
    evaluator = study_of(kind)[1]
    finished = work(tmp_path, kind, None, evaluator)
    assert len({item.configuration for item in finished}) == len(finished) == N_TRIALS
    assert len(evaluator.counted) == N_TRIALS - 5


@pytest.mark.parametrize("database", [None, pytest.param("sqlite", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["exhaustive", *SAMPLED])
def test_processes_share_a_study(
    kind: str, database: str | None, processes: Worker, undisturbed: dict[str, list[Finished]], tmp_path: Path
) -> None:
    url = "" if database is None else f"sqlite:///{tmp_path}/study.db"
    # The pause lets the other one begin before this one is done.
    pids = [start(processes, tmp_path, kind, url, pause_s=0.1) for _ in range(2)]
    assert [processes.wait(pid) for pid in pids] == [0, 0]
    results = [json.loads((tmp_path / f"{pid}.json").read_text()) for pid in pids]
    if kind == "exhaustive":
        expected = trials_frame(study_of(kind)[0], undisturbed[kind]).to_csv()
        assert [result["trials"] for result in results] == [expected, expected]
    # Two that choose the same batch at the same moment both evaluate it; they do not both evaluate everything.
    assert sum(len(result["counted"]) for result in results) < 2 * len(undisturbed[kind])


def test_five_bands_have_the_optimum_of_a_plain_loop(tmp_path: Path) -> None:
    space, X, rows = study_parts(["a", "b", "c", "d", "g"])
    evaluator = Evaluator(space, X, rows, 1)
    expected = {}
    for configuration in space.list_feasible() or []:
        request = space.recipe_of(configuration, "").regression
        columns = [column for column in X.columns if column.partition(":")[0] in configuration.variants]
        model = build_ensemble(request, evaluator.folds, 1).fit(X[columns], evaluator.y)
        splits = [srcc(evaluator.y[test], model.oof_predictions_[test]) for _, test in evaluator.folds]
        expected[configuration] = float(np.mean(splits))
    for method in ("exhaustive", "sampled"):
        plan = make_plan(space, "srcc", 0, 80, method)
        finished = run_study(open_storage(None, tmp_path), method, space, evaluator, plan)
        scores = {item.configuration: item.evaluation.srcc for item in finished}
        assert scores == pytest.approx(expected, abs=1e-9)
        assert pick_winner(finished).evaluation.srcc == max(scores.values())


def test_more_trials_continue_the_study(tmp_path: Path) -> None:
    space, evaluator, _ = study_of("tpe")
    storage = open_storage(None, tmp_path)

    def run(n_trials: int) -> list[Finished]:
        return run_study(storage, "study", space, evaluator, Plan("srcc", 7, n_trials, None))

    short, long = run(11), run(29)
    assert long[:11] == short
    assert len(long) == 29
    assert run(11) == short


@pytest.mark.parametrize("objectives", ["srcc", "srcc,gmacs"])
def test_samples_are_new_and_repeatable(objectives: str, tmp_path: Path) -> None:
    # More than are drawn before the sampler learns.
    finished = sample(tmp_path / "one", objectives, 5, 26)
    assert len({item.configuration for item in finished}) == 26
    assert sample(tmp_path / "two", objectives, 5, 26) == finished
    assert sample(tmp_path / "three", objectives, 6, 26) != finished


def test_the_first_sample_is_the_recipe_if_it_fits(tmp_path: Path) -> None:
    [first, *_] = sample(tmp_path, "srcc", 0, 3, ["c", "d", "e"])
    assert first.configuration.variants == ("c", "d", "e")


@pytest.mark.parametrize("objectives", ["srcc", "srcc,gmacs"])
def test_an_exhausted_space_ends_the_sampling(objectives: str, tmp_path: Path) -> None:
    space, _, _ = study_parts(["a", "b", "c"])
    plan = Plan(objectives, 0, 200, None)
    finished = run_study(open_storage(None, tmp_path), "study", space, Made(space), plan)
    assert {item.configuration for item in finished} == set(space.list_feasible() or [])


def test_later_samples_follow_the_good_band(tmp_path: Path) -> None:
    space, _, _ = study_parts(search=SEARCH)
    rng = np.random.default_rng(0)

    def share(configurations: list[Configuration]) -> float:
        return float(np.mean(["a" in configuration.variants for configuration in configurations]))

    drawn = [
        space.repair(
            space.from_params({name: str(rng.choice(values)) for name, values in space.choices.items()}), rng
        )
        for _ in range(400)
    ]
    last = [item.configuration for item in sample(tmp_path, "srcc", 0, 80)[-40:]]
    # 40 draws: by chance their share leaves the random one by 0.08 (one standard deviation).
    assert share(last) > share(drawn) + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_failing_evaluation_leaves_a_study_that_goes_on(
    kind: str, tmp_path: Path, undisturbed: dict[str, list[Finished]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Evaluator, configurations: Sequence[Configuration]) -> list[Evaluation]:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", fail)
        with pytest.raises(ZeroDivisionError):
            work(tmp_path, kind, None, study_of(kind)[1])
    finished = work(tmp_path, kind, None, study_of(kind)[1])
    assert len(finished) == len(undisturbed[kind])
    if kind == "exhaustive":
        assert finished == undisturbed[kind]


def test_a_torn_last_line_is_an_event_that_never_took_place(
    processes: Worker, tmp_path: Path, undisturbed: dict[str, list[Finished]]
) -> None:
    assert processes.wait(start(processes, tmp_path, "exhaustive", die_in_call=1)) == -signal.SIGKILL
    with (tmp_path / "search.journal").open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"')
    assert work(tmp_path, "exhaustive", None, study_of("exhaustive")[1]) == undisturbed["exhaustive"]


def test_passwords_stay_out_of_messages(tmp_path: Path) -> None:
    url = "nosuchdatabase://me:secret@host/name"
    with pytest.raises(RunError) as raised:
        open_storage(url, tmp_path)
    assert "secret" not in str(raised.value)
    with pytest.raises(RunError, match="database URL"):
        open_storage("no url at all", tmp_path)


def test_winner_and_front_of_a_known_study() -> None:
    space, _, _ = study_parts(["a", "c", "d"])
    values = [(0.5, 20.0), (0.7, 24.0), (0.7, 26.0), (0.3, 4.0), (0.2, 6.0), (0.3, 2.0), (float("nan"), 1.0)]
    configurations = space.list_feasible() or []
    finished = [
        Finished(place, configuration, Evaluation((score,), cost))
        for place, (configuration, (score, cost)) in enumerate(zip(configurations, values, strict=True))
    ]
    assert pick_winner(finished).index == 1
    assert [item.index for item in pareto_front(finished) if item.evaluation.value > 0] == [5, 0, 1]
