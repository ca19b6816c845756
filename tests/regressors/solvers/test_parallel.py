"""Folds as tasks of a joblib backend: the same bytes as without one, and nothing else goes there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.parallel import LokyBackend
from threadpoolctl import threadpool_info

from regressors.ensemble import BandEnsemble
from regressors.solvers.resources import is_remote, keep_local, local_jobs, one_blas_thread, pieces_per_fold
from regressors.subset_scores import SubsetScorer
from tests.support.band_tables import band_table

NARROW, WIDE = {"quality": 6, "content": 4, "scene": 3}, {"quality": 90, "content": 70, "scene": 5}
SVR = {"C": [1.0, 10.0], "epsilon": [0.1, 0.2], "gamma": [0.1, 1.0]}
CASES = {
    "ridge by Gram matrices": (NARROW, {"estimator": "ridge"}, False),
    "ridge by kernels": (WIDE, {"estimator": "ridge"}, False),
    "weighted rows": (NARROW, {"estimator": "ridge", "unit_band": True}, True),
    "banded ridge": (NARROW, {"estimator": "banded-ridge", "alpha": [0.1, 1.0, 10.0]}, False),
    "support vectors": (NARROW, {"estimator": "rbf-svr", **SVR}, True),
}


class Distant(LokyBackend):
    """Other processes, of a kind that is none of joblib's own: all that a task takes and gives is pickled."""

    n_calls = 0

    def submit(self, func: object, callback: object = None) -> object:
        type(self).n_calls += 1
        return super().submit(func, callback)


@pytest.fixture
def distant() -> Iterator[type[Distant]]:
    Distant.n_calls = 0
    with parallel_config(backend=Distant(), n_jobs=2):
        yield Distant


@pytest.mark.parametrize("case", CASES)
def test_an_ensemble_is_the_same_to_the_last_byte(case: str, distant: type[Distant]) -> None:
    widths, options, is_weighted = CASES[case]
    X, y = band_table(80, widths)
    weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float) if is_weighted else None
    model = BandEnsemble(cv=4, n_jobs=2, **options)
    with keep_local():
        assert not is_remote()
        expected = BandEnsemble(cv=4, n_jobs=2, **options).fit(X, y, sample_weight=weights)
    assert distant.n_calls == 0
    model.fit(X, y, sample_weight=weights)
    assert distant.n_calls == 4 * 1  # four folds, and no more threads there than folds
    assert model.predict(X).tobytes() == expected.predict(X).tobytes()
    assert model.oof_predictions_.tobytes() == expected.oof_predictions_.tobytes()
    assert model.weights_.tobytes() == expected.weights_.tobytes()
    assert model.cv_results_.equals(expected.cv_results_)


def test_subsets_are_scored_the_same_in_as_many_tasks_as_there_are_threads(distant: type[Distant]) -> None:
    X, y = band_table(80)
    subsets = [["quality"], ["content"], ["quality", "content"], ["quality", "scene"]]
    model = BandEnsemble("all", cv=[(np.arange(20, 80), np.arange(20))], n_jobs=2)
    with keep_local():
        expected = SubsetScorer(X, y, model).score(subsets)
    found = SubsetScorer(X, y, model).score(subsets)
    assert distant.n_calls == 2  # one fold, cut in two for two threads
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()


def test_without_a_backend_from_elsewhere_nothing_changes() -> None:
    assert not is_remote()
    for backend in ("loky", "threading", "sequential"):
        with parallel_config(backend=backend), keep_local():
            assert not is_remote()
    assert local_jobs(None) == 1
    assert local_jobs(3) == 3


def test_threads_of_this_machine_are_counted_whoever_computes(distant: type[Distant]) -> None:
    assert is_remote()
    assert (local_jobs(1), local_jobs(None), local_jobs(-1)) == (1, 1, cpu_count())
    assert Parallel(n_jobs=2)(delayed(abs)(n) for n in (-1, -2)) == [1, 2]
    assert distant.n_calls > 0


@pytest.mark.parametrize(("n_folds", "n_groups", "pieces"), [(1, 1, 1), (1, 5, 2), (2, 5, 1), (5, 3, 1)])
def test_a_fold_is_cut_only_for_threads_without_work(
    n_folds: int, n_groups: int, pieces: int, distant: type[Distant]
) -> None:
    assert pieces_per_fold(n_folds, n_groups) == pieces


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_keeps_one_thread_until_the_last_task_of_a_process_has_ended() -> None:
    before, inside, go_on = blas_threads(), threading.Event(), threading.Event()

    def first() -> None:
        with one_blas_thread():
            inside.set()
            go_on.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with one_blas_thread():
        go_on.set()
        thread.join()
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
