"""The exact grid search against scikit-learn's own, against himalaya, and against the machine's limit.

Both sides have the same cores: plain `GridSearchCV` one process per core with one BLAS thread each, its faster
arrangement here, after its processes have started; ours one thread per core, with numba's code compiled, where it is
short the median of six runs, three before the plain search and three after it, as the machine's speed changes
meanwhile. Both include the refit. Where the plain search would take more than a few minutes it runs on some of its
fits, and its time is that times the number of fits; the column ``measured`` says so.
"""

from __future__ import annotations

import importlib.util
import resource
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import comb, prod
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from joblib import cpu_count
from scipy.linalg import LinAlgWarning
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from experiments.benchmarks.extraction import row
from regressors.checks import FloatArray
from regressors.ensemble import BandEnsemble
from regressors.evaluation.metrics import SCORERS, srcc
from regressors.folds import Fold, make_folds
from regressors.pipelines import DEFAULT_GRID, make_pipeline
from regressors.search import BandGridSearchCV
from regressors.solvers.systems import compiled_solver
from regressors.subset_scores import SubsetScorer

N_FOLDS = 5
_REPEATS, _SHORT_S = 3, 10.0
SVR_GRID = {f"regress__{name}": list(DEFAULT_GRID[name]) for name in ("C", "epsilon", "gamma")}


def bench_fit() -> list[dict[str, Any]]:
    """Measure grid searches, subset search and support vectors.

    Returns
    -------
    list of dict
        One row per comparison: ``what``, ``seconds``, ``baseline``, ``baseline_seconds``, ``ratio``, ``measured``
        (how much of the baseline ran), ``limit_seconds`` (the same matrix products and reductions at the rate of
        matrix products measured in this run; nan where that is no bound), ``peak_gb`` (the most memory this
        process has held so far, tables included), ``score_difference`` (largest difference of scores, relative
        to the largest score).
    """
    rate = gemm_rate()
    # Processes start, libraries load, and what numba compiles once per installation is compiled.
    compiled_solver()
    for run in (_run_plain, _run_ours):
        run(*_table(60, 8, 2), [["b0"]], {"regress__alpha": [1.0]}, "ridge")
    rows = [
        _ridge_row(1000, 8192, 4, rate),
        _ridge_row(4269, 1500, 4, rate),
        _subsets_row(4269, 1500, 8, rate),
        _svr_row(1000, 1500),
        _svr_row(4269, 1500, n_measured=1),
        _ridge_row(4269, 8192, 4, rate, n_measured=1),
    ]
    return [*rows, *_himalaya_rows(1000, 1500)]


def gemm_rate() -> float:
    """Measure the rate of matrix products on all cores, one BLAS thread each, in operations per second."""
    from concurrent.futures import ThreadPoolExecutor

    n = 2000
    matrix = np.random.default_rng(0).normal(size=(n, n))
    best = np.inf
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(cpu_count()) as pool:
        for _ in range(3):
            started = time.perf_counter()
            list(pool.map(lambda _: matrix @ matrix, range(cpu_count())))
            best = min(best, time.perf_counter() - started)
    return cpu_count() * 2 * n**3 / best


def _table(n_rows: int, n_columns: int, n_bands: int) -> tuple[pd.DataFrame, FloatArray]:
    """Return a float32 table with the spectrum of deep features, and a target that shares their causes."""
    rng = np.random.default_rng(0)
    rank = min(n_rows, n_columns)
    # Singular values that fall like those of deep features, without a floor of noise.
    latent = rng.standard_normal((n_rows, rank)) * np.arange(1, rank + 1) ** -1.5
    mixed = latent @ rng.standard_normal((rank, n_columns))
    widths = np.diff(np.linspace(0, n_columns, n_bands + 1).astype(int))
    names = [f"b{band}:{k:04d}" for band, width in enumerate(widths) for k in range(width)]
    y = 50 + 8 * latent[:, :20] @ np.arange(1, min(20, rank) + 1) ** 0.8 + 2 * rng.normal(size=n_rows)
    return pd.DataFrame(mixed.astype(np.float32), columns=names), y


def _bands(n_bands: int) -> list[str]:
    return [f"b{band}" for band in range(n_bands)]


def _folds(y: FloatArray) -> list[Fold]:
    return make_folds(y, kind="kfold", n_splits=N_FOLDS)


def _search(
    kind: type[Any],
    y: FloatArray,
    subsets: Sequence[Sequence[str]],
    grid: Mapping[str, Sequence[float]],
    estimator: str,
    folds: Sequence[Fold] | None = None,
    *,
    refit: bool = True,
) -> Any:  # noqa: ANN401 - of this kind
    """Set up the search of a kind, scikit-learn's or ours."""
    return kind(
        make_pipeline(estimator),
        {"select__bands": [list(subset) for subset in subsets], **grid},
        scoring=SCORERS["srcc"],
        cv=_folds(y) if folds is None else folds,
        n_jobs=cpu_count(),
        refit=refit,
        error_score="raise",
    )


def _run_plain(
    X: pd.DataFrame,
    y: FloatArray,
    *request: Any,  # noqa: ANN401 - those of `_search`
    refit: bool = True,
) -> tuple[float, GridSearchCV]:
    """Time scikit-learn's search; the request is that of `_search`."""
    search = _search(GridSearchCV, y, *request, refit=refit)
    with threadpool_limits(limits=1, user_api="blas"):
        return _timed(lambda: search.fit(X, y)), search


def _run_ours(X: pd.DataFrame, y: FloatArray, *request: Any) -> tuple[list[float], BandGridSearchCV]:  # noqa: ANN401
    search = _search(BandGridSearchCV, y, *request)
    return _repeated(lambda: search.fit(X, y)), search


def _repeated(work: Callable[[], object]) -> list[float]:
    """Time work, several times where it is short."""
    seconds = [_timed(work)]
    while len(seconds) < _REPEATS and seconds[0] < _SHORT_S:
        seconds.append(_timed(work))
    return seconds


def _settle(before: list[float], work: Callable[[], object]) -> float:
    """Return the median of the runs before the plain search and, where they are short, of as many after it."""
    return median(before + _repeated(work) if before[0] < _SHORT_S else before)


def _timed(work: Callable[[], object]) -> float:
    with warnings.catch_warnings():
        # Small penalties are ill-conditioned on both sides, which is no matter here.
        warnings.simplefilter("ignore", category=LinAlgWarning)
        started = time.perf_counter()
        work()
        return time.perf_counter() - started


def _compare(
    what: str,
    X: pd.DataFrame,
    y: FloatArray,
    subsets: Sequence[Sequence[str]],
    grid: Mapping[str, Sequence[float]],
    estimator: str,
    n_measured: int,
    limit: float = float("nan"),
) -> dict[str, Any]:
    """Search a grid by both sides, by the plain one on so many of the folds."""
    ours, search = _run_ours(X, y, subsets, grid, estimator)
    is_whole = n_measured == N_FOLDS
    folds = _folds(y)[:n_measured]
    plain, reference = _run_plain(X, y, subsets, grid, estimator, folds, refit=is_whole)
    if not is_whole:
        again = make_pipeline(estimator).set_params(**search.best_params_)
        plain = N_FOLDS / n_measured * plain + _timed(lambda: again.fit(X, y))
    return _row(
        f"{what} x {N_FOLDS} folds",
        _settle(ours, lambda: search.fit(X, y)),
        plain,
        "whole" if is_whole else f"{n_measured} of {N_FOLDS} folds, and the refit",
        limit=limit,
        difference=_difference(reference, search, n_folds=n_measured),
    )


def _ridge_row(
    n_rows: int, n_columns: int, n_bands: int, rate: float, *, n_measured: int = N_FOLDS
) -> dict[str, Any]:
    """All bands and each left out, 13 penalties, 5 folds."""
    X, y = _table(n_rows, n_columns, n_bands)
    bands, alphas = _bands(n_bands), list(DEFAULT_GRID["alpha"])
    subsets = [bands, *([band for band in bands if band != out] for out in bands)]
    widths = [sum(X.columns.str.startswith(f"{band}:").sum() for band in subset) for subset in subsets]
    flops = _shared_flops(n_rows, n_columns) + sum(_ridge_flops(n_rows, width) for width in widths)
    what = f"ridge {n_rows} x {n_columns} float32: {len(subsets)} subsets x {len(alphas)} alphas"
    grid = {"regress__alpha": alphas}
    return _compare(what, X, y, subsets, grid, "ridge", n_measured, float(flops / rate))


def _subsets_row(n_rows: int, n_columns: int, n_bands: int, rate: float) -> dict[str, Any]:
    """All 255 subsets of 8 bands; the plain side takes one subset of each size."""
    X, y = _table(n_rows, n_columns, n_bands)
    bands, alphas = _bands(n_bands), np.array(DEFAULT_GRID["alpha"])
    subsets = [list(chosen) for size in range(1, n_bands + 1) for chosen in combinations(bands, size)]
    model = BandEnsemble("all", cv=_folds(y), n_jobs=cpu_count())
    scorer = SubsetScorer(X, y, model)
    ours = _timed(lambda: scorer.score(subsets))
    plain, differences = 0.0, []
    for size in range(1, n_bands + 1):
        one = bands[:size]
        seconds, reference = _run_plain(X, y, [one], {"regress__alpha": list(alphas)}, "ridge", refit=False)
        plain += comb(n_bands, size) * seconds
        [held_out] = scorer.score([one])
        own = np.mean([srcc(y[test], held_out[test]) for _, test in scorer.folds])
        differences.append(abs(reference.cv_results_["mean_test_score"].max() - own))
    width = n_columns / n_bands
    flops = _shared_flops(n_rows, n_columns) + sum(_ridge_flops(n_rows, len(s) * width) for s in subsets)
    return _row(
        f"ridge {n_rows} x {n_columns} float32: {len(subsets)} subsets of {n_bands} bands x {len(alphas)} alphas",
        ours,
        plain,
        f"{n_bands} of {len(subsets)} subsets, one of each size",
        limit=float(flops / rate),
        difference=max(differences),
    )


def _svr_row(n_rows: int, n_columns: int, *, n_measured: int = N_FOLDS) -> dict[str, Any]:
    X, y = _table(n_rows, n_columns, 4)
    what = f"rbf SVR {n_rows} x {n_columns} float32: {prod(map(len, SVR_GRID.values()))} points"
    return _compare(what, X, y, [_bands(4)], SVR_GRID, "rbf-svr", n_measured)


def _difference(plain: GridSearchCV, ours: GridSearchCV, *, n_folds: int = N_FOLDS) -> float:
    """Return the largest difference of the split scores of what both have tried, relative to the best."""
    place = {str(params): k for k, params in enumerate(ours.cv_results_["params"])}
    rows = [place[str(params)] for params in plain.cv_results_["params"]]
    names = [name for name in plain.cv_results_ if name.startswith("split")][:n_folds]
    pairs = [(ours.cv_results_[name][rows], plain.cv_results_[name]) for name in names]
    return max(float(np.abs(own - other).max() / np.abs(other).max()) for own, other in pairs)


def _ridge_flops(n_rows: int, n_columns: float) -> float:
    """Operations of one subset's reductions in all folds."""
    return N_FOLDS * 4 / 3 * min(n_columns, n_rows * (1 - 1 / N_FOLDS)) ** 3


def _shared_flops(n_rows: int, n_columns: int) -> float:
    """Operations of the Gram matrices, or of the kernels of every fold; symmetric products count half."""
    n_train = n_rows * (1 - 1 / N_FOLDS)
    if n_columns <= n_train:
        return n_rows * n_columns**2
    return N_FOLDS * n_train * (n_train + 2 * (n_rows - n_train)) * n_columns


def _himalaya_rows(n_rows: int, n_columns: int, n_candidates: int = 6) -> list[dict[str, Any]]:
    """Band weights of banded ridge, the same list for both; himalaya standardises once, ours in each fold."""
    if importlib.util.find_spec("himalaya") is None:
        return []
    from himalaya.kernel_ridge import MultipleKernelRidgeCV
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import r2_score

    X, y = _table(n_rows, n_columns, 4)
    bands, alphas = _bands(4), np.array(DEFAULT_GRID["alpha"])
    shares = np.random.default_rng(0).dirichlet(np.ones(4), size=n_candidates)
    weights = [dict(zip(bands, np.sqrt(row), strict=True)) for row in shares]
    search = BandGridSearchCV(
        make_pipeline("banded-ridge"),
        {"scale__band_weights": weights, "regress__alpha": list(alphas)},
        scoring="r2",
        cv=_folds(y),
        n_jobs=cpu_count(),
    )
    ours = _timed(lambda: search.fit(X, y))
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    parts = [Z[:, X.columns.str.startswith(f"{band}:")] for band in bands]
    settings = {"n_iter": shares, "alphas": alphas, "score_func": r2_score, "progress_bar": False}
    grouped = GroupRidgeCV(
        "input", cv=_folds(y), fit_intercept=True, solver_params=settings | {"warn": False}
    )
    kernels = MultipleKernelRidgeCV(
        "precomputed", cv=_folds(y), solver="random_search", solver_params=settings
    )
    centred = (y - y.mean())[:, None]
    fits = {
        grouped: lambda: grouped.fit(parts, y[:, None]),
        kernels: lambda: kernels.fit(np.stack([part @ part.T for part in parts]), centred),
    }
    what = f"banded ridge {n_rows} x {n_columns}: {n_candidates} band weights x {len(alphas)} alphas x {N_FOLDS} folds"
    rows = []
    # Its decompositions use BLAS threads.
    with threadpool_limits(limits=cpu_count(), user_api="blas"):
        for model, fit in fits.items():
            baseline = f"himalaya {type(model).__name__}, random search over the same list"
            seconds = _timed(fit)
            difference = abs(float(model.cv_scores_.max()) / search.best_score_ - 1)
            rows.append(_row(what, ours, seconds, "whole", baseline=baseline, difference=difference))
    return rows


def _row(
    what: str,
    seconds: float,
    baseline_seconds: float,
    measured: str,
    *,
    baseline: str = f"GridSearchCV(n_jobs={cpu_count()})",
    limit: float = float("nan"),
    difference: float = float("nan"),
) -> dict[str, Any]:
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return row(
        what, seconds, baseline, baseline_seconds,
        measured=measured, limit_seconds=limit, peak_gb=peak_gb, score_difference=difference,
    )  # fmt: skip
