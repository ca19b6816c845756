"""The memory limit: what is promised is an upper bound, limits change the way and not the numbers."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from regressors.folds import make_folds
from regressors.pipelines import make_pipeline
from regressors.search import BandGridSearchCV
from regressors.solvers import in_memory
from regressors.solvers.in_memory import Candidate, MemoryAnswers
from regressors.solvers.memory import MemoryPlan, plan_memory
from regressors.solvers.sums import FoldTable
from tests.support.cnn_tables import cnn_table

BANDS = ("a", "b", "c")


def job(n_rows: int, n_columns: int, family: str = "ridge") -> tuple[FoldTable, list[Candidate]]:
    rng = np.random.default_rng(0)
    parts = np.array_split(np.arange(n_columns), len(BANDS))
    y = rng.normal(size=n_rows)
    folds = make_folds(y, kind="kfold", n_splits=4)
    table = FoldTable(rng.normal(size=(n_rows, n_columns)), y, dict(zip(BANDS, parts, strict=True)), folds)
    subsets = [BANDS, *(tuple(band for band in BANDS if band != out) for out in BANDS)]
    if family == "ridge":
        points: list[dict[str, Any]] = [{"values": (alpha,)} for alpha in np.logspace(-2, 3, 8)]
    else:
        points = [
            {"values": (1.0, 0.1, gamma), "solver": (1e-3, -1, 200, True), "kernel": "rbf"}
            for gamma in (0.1, 1.0)
        ]
    return table, [
        Candidate(family, bands, (1.0,) * len(bands), False, **point) for bands in subsets for point in points
    ]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[MemoryPlan]:
    made: list[MemoryPlan] = []

    def recorded(**arguments: Any) -> MemoryPlan:
        made.append(plan_memory(**arguments))
        return made[-1]

    monkeypatch.setattr(in_memory, "plan_memory", recorded)
    return made


def held(table: FoldTable, candidates: list[Candidate], **settings: Any) -> tuple[MemoryAnswers, float]:
    table.cache.clear()
    tracemalloc.start()
    try:
        answers = MemoryAnswers(table, candidates, **settings)
        return answers, tracemalloc.get_traced_memory()[1] / 1e9
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("n_rows", "n_columns", "family"),
    [(300, 600, "ridge"), (500, 240, "ridge"), (300, 300, "unit-svr"), (240, 200, "ridge")],
)
def test_the_plan_is_an_upper_bound(
    n_rows: int, n_columns: int, family: str, n_jobs: int, plans: list[MemoryPlan]
) -> None:
    table, candidates = job(n_rows, n_columns, family)
    MemoryAnswers(table, candidates, n_jobs=n_jobs)  # what is imported or made once is no matter here
    _, peak = held(table, candidates, n_jobs=n_jobs)
    assert peak < plans[-1].gigabytes < 4 * peak + 0.002


@pytest.mark.parametrize("size", [(300, 600), (500, 240)], ids=["dual", "primal"])
def test_a_limit_is_kept_and_changes_no_number(size: tuple[int, int], plans: list[MemoryPlan]) -> None:
    table, candidates = job(*size)
    free = MemoryAnswers(table, candidates, n_jobs=2)
    limit = 0.75 * plans[-1].gigabytes
    bound, peak = held(table, candidates, n_jobs=2, memory_limit_gb=limit)
    assert peak < limit
    assert plans[-1].gigabytes <= limit
    assert plans[-1][:3] != plans[0][:3]
    for fold in range(len(table.folds)):
        for one, other in zip(next(free.predictions(fold)), next(bound.predictions(fold)), strict=True):
            np.testing.assert_allclose(one[1], other[1], rtol=1e-10, atol=1e-12)


def test_the_fastest_way_within_the_limit_is_taken() -> None:
    arguments = {
        "n_tests": [75] * 4,
        "n_trains": [225] * 4,
        "widths": dict.fromkeys(BANDS, 200),
        "groups": [(BANDS, 8, [False] * 4)] * 4,
        "n_gram_columns": 0,
        "n_parts": 4,
        "n_workers": 4,
    }
    free = plan_memory(**arguments, limit_gb=None)
    assert free[:3] == (4, False, True)
    waits = plan_memory(**arguments, limit_gb=0.97 * free.gigabytes)
    assert waits.n_workers == 4
    assert waits.folds_wait
    fewer = plan_memory(**arguments, limit_gb=0.9 * waits.gigabytes)
    assert fewer.n_workers < 4


@pytest.mark.parametrize(("limit", "words"), [(1e-6, "must be at least"), (0.0, "must be positive")])
def test_an_impossible_limit_is_refused_with_the_least_possible(limit: float, words: str) -> None:
    X, y = cnn_table(60, {"a": 20, "b": 30})
    search = BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [1.0]}, cv=3, memory_limit_gb=limit)
    with pytest.raises(ValueError, match=words):
        search.fit(X, y)
    assert search.set_params(memory_limit_gb=0.1).fit(X, y).fast_path_.startswith("shared: ")
