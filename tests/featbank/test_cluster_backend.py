"""Addresses of clusters, workers of other versions, and the names and sizes that the Dask backend goes by."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from featbank import __version__
from featbank.cluster import (
    ClusterUse,
    _name_of,
    _Place,
    _size,
    check_worker,
    make_stamp,
    on_cluster,
    processor_kind,
    run_task,
)
from featbank.errors import ClusterError


def test_without_an_address_nothing_is_asked() -> None:
    with on_cluster(None) as used:
        assert used is None


def test_dask_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("featbank.cluster.import_module", missing)
    with pytest.raises(ClusterError, match=r"featbank\[cluster\]"), on_cluster("dask://a:1"):
        pass


def test_a_stamp_tells_versions_and_sources_apart() -> None:
    stamp = make_stamp(("regressors",))
    names = dict(stamp)
    assert names["featbank"] == __version__
    assert {"numpy", "scipy", "scikit-learn", "the code of regressors"} <= names.keys()
    check_worker(pickle.loads(pickle.dumps(stamp)), ("regressors",))
    other = tuple((name, "2.0" if name == "numpy" else value) for name, value in stamp)
    with pytest.raises(ClusterError, match=rf"has numpy {np.__version__} instead of 2\.0") as caught:
        check_worker(other, ("regressors",))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_receipt_says_where_and_on_what_kinds_of_processors() -> None:
    same = ClusterUse("dask://a:1", Counter(b=2, a=3), Counter({processor_kind(): 5}))
    assert same.describe() == {"address": "dask://a:1", "tasks_by_host": {"a": 3, "b": 2}}
    mixed = ClusterUse("dask://a:1", Counter(a=2), Counter({processor_kind(): 1, "Katmai": 1}))
    assert "Katmai" in mixed.describe()["note"]


def test_fits_of_scikit_learn_are_named_by_fold_and_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Listening:
        def __init__(self, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __call__(self, calls):
            seen.extend(calls)
            raise InterruptedError

    monkeypatch.setattr("sklearn.model_selection._search.Parallel", Listening)
    search = GridSearchCV(Ridge(), {"alpha": [1.0, 3.0]}, cv=3)
    with pytest.raises(InterruptedError):
        search.fit(np.eye(9), np.arange(9.0))
    assert _name_of(seen[4]) == "fold 2 of 3, candidate 2 of 2 (alpha=3.0)"
    assert _name_of((len, (), {"task_name": "fold 1 of 2"})) == "fold 1 of 2"
    assert _name_of((len, (), {})) == "len"


def test_sizes_are_those_of_arrays_and_frames() -> None:
    matrix = np.zeros((100, 10))
    assert _size(matrix) == _size(matrix[0:100]) == 8000
    assert _size(pd.DataFrame(matrix)) >= 8000
    assert _size(pd.Series(matrix[:, 0])) == 800
    assert _size("text") == _size(None) == _size([matrix]) == 0


def test_a_worker_gives_values_or_the_errors_of_the_calls() -> None:
    class LocalError(Exception):
        """Of a class that another process cannot find."""

    def fail() -> None:
        raise LocalError("it broke")

    data = np.arange(3.0)
    answer = run_task(None, [(np.sum, (_Place(0),), {}), (max, (1, 2), {})], data)
    assert answer.value == [3.0, 2]
    answer = run_task(lambda: None, [(int, ("x",), {})])
    assert isinstance(answer.error, ValueError)
    assert answer.error.__traceback__ is None
    answer = run_task(lambda: None, [(fail, (), {})])
    assert str(pickle.loads(pickle.dumps(answer.error))) == "LocalError: it broke"
