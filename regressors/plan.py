"""Reading a grid search: whether the solvers can answer it, and what they need to know; otherwise why not."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVR

from regressors.bands import BandScaler, BlockTable, SelectBands, locate_bands
from regressors.checks import Estimator, FloatArray, IntArray, Scorer, Table
from regressors.solvers.answers import Candidate
from regressors.solvers.sums import FoldTable
from regressors.svr import UnitSVR

# The kinds of regressor that have a solver, and what a grid may vary of each; gamma comes last, because the kernels of
# one gamma are shared.
_FAMILIES: dict[type, tuple[str, tuple[str, ...]]] = {
    Ridge: ("ridge", ("alpha",)),
    SVR: ("svr", ("C", "epsilon", "gamma")),
    UnitSVR: ("unit-svr", ("C", "epsilon", "gamma")),
}

# scikit-learn has no public name for what make_scorer returns. Its kind says that a scorer asks an estimator for
# nothing but predictions; a function of its own may look at more.
_SCORER = type(make_scorer(r2_score))


@dataclass(frozen=True)
class SearchPlan:
    """What the solvers need to know of a search: table, grid, candidates."""

    table: FoldTable
    points: list[dict[str, Any]]
    candidates: list[Candidate]


class _NoPlanError(Exception):
    """Why scikit-learn must search."""


def _need(holds: object, otherwise: str) -> None:
    if not holds:
        raise _NoPlanError(otherwise)


def make_plan(
    search: GridSearchCV,
    X: Table,
    y: ArrayLike | None,
    weights: FloatArray | None,
    groups: ArrayLike | None,
    *,
    known: FoldTable | None = None,
) -> SearchPlan | str:
    """Prepare the search for the solvers, or say in words why scikit-learn must search.

    ``weights`` are those of the rows in every step that takes some, and in every score.
    ``known`` is the table of an earlier search on the same features, used again if target, folds and weights are the
    same.
    """
    try:
        return _make_plan(search, X, y, weights, groups, known)
    except _NoPlanError as reason:
        return str(reason)


def _make_plan(
    search: GridSearchCV,
    X: Table,
    y: ArrayLike | None,
    weights: FloatArray | None,
    groups: ArrayLike | None,
    known: FoldTable | None,
) -> SearchPlan:
    pipeline, points = search.estimator, list(ParameterGrid(search.param_grid))
    _check_pipeline(pipeline)
    _check_settings(search)
    _check_grid(pipeline, points)
    target = _numbers(y, "the target is not one column of finite numbers")
    values = known.features if known is not None else _matrix(X)
    _need(
        len(values) == len(target) and 0 not in values.shape,
        "the table is not a data frame or an array of finite numbers with one row per target",
    )
    select, scale, regress = (step for _, step in pipeline.steps)
    has_names = isinstance(X, (pd.DataFrame, BlockTable))
    _need(
        not (has_names and isinstance(scale, BandScaler)) or select.keep_names,
        "SelectBands drops the names that BandScaler needs",
    )
    labels = list(X.columns) if has_names else []
    try:
        bands = locate_bands(
            labels if any(isinstance(name, str) for name in labels) else None, values.shape[1]
        )
    except (TypeError, ValueError) as error:
        raise _NoPlanError(f"the table's columns are not admissible ({error})") from error
    defaults = pipeline.get_params()
    candidates = []
    for point in points:
        candidate = _read_point(pipeline, {**defaults, **point}, bands, has_names)
        if candidate is None:
            raise _NoPlanError(f"the solvers do not know the candidate {point!r:.200}")
        candidates.append(candidate)
    scaling = _scaling(scale)
    is_sum = scaling in ("deviation", "none")
    _need(weights is None or is_sum, f"the {type(scale).__name__} knows no weights, and the regressor does")
    if weights is not None:
        otherwise = "the sample weights are not one non-negative number per row"
        weights = _numbers(weights, otherwise)
        _need(len(weights) == len(target) and (weights >= 0).all(), otherwise)
    # Kernels here are centred for the regressor. In the order of the solver's steps a linear kernel that the scaler
    # does not centre is another one.
    _need(
        is_sum or not isinstance(regress, SVR) or all(c.kernel != "linear" for c in candidates),
        "the linear kernel of an SVR is not that of centred columns",
    )
    _need(
        not isinstance(X, BlockTable) or (isinstance(regress, Ridge) and is_sum),
        "a table that is read by blocks takes ridges on columns that are standardised or left as they are",
    )
    # Last of all, as it may use up an iterator.
    rows, splitter = np.arange(len(target)), check_cv(search.cv, y, classifier=False)
    # Masks and negative positions become positions.
    folds = [(rows[np.asarray(a)], rows[np.asarray(b)]) for a, b in splitter.split(X, y, groups)]
    table = FoldTable(values, target, bands, folds, weights, scaling=scaling)
    _need(
        folds and all(len(a) and len(b) and (weights is None or weights[a].sum() > 0) for a, b in folds),
        "a fold has no rows",
    )
    if known is not None and _is_same(known, table):
        table = known
    return SearchPlan(table, points, candidates)


def is_prediction_scorer(scorer: Scorer) -> bool:
    """Say whether a scorer, or the name of one, surely asks an estimator for nothing but predictions."""
    return isinstance(scorer, (str, _SCORER))


def _check_pipeline(pipeline: Estimator) -> None:
    """Require a pipeline that has a solver, whatever its grid."""
    _need(type(pipeline) is Pipeline, f"the estimator is a {type(pipeline).__name__}, not a Pipeline")
    steps = [step for _, step in pipeline.steps]
    _need(len(steps) == 3, f"the pipeline has {len(steps)} steps, not select, scale, regress")
    kinds = (SelectBands,), (StandardScaler, MinMaxScaler, RobustScaler, BandScaler), tuple(_FAMILIES)
    for place, step, allowed in zip(("first", "second", "last"), steps, kinds, strict=True):
        *others, last = (kind.__name__ for kind in allowed)
        names = f"{', '.join(others)} or {last}" if others else last
        _need(type(step) in allowed, f"the {place} step is a {type(step).__name__}, not {names}")
    _, scale, regress = steps
    is_plain = pipeline.memory is None and getattr(pipeline, "transform_input", None) is None
    _need(is_plain, "the pipeline has a memory or transforms its fit parameters")
    is_silent = not pipeline.verbose and not (type(regress) is SVR and regress.verbose)
    _need(is_silent, "the pipeline reports its steps")
    if type(scale) is StandardScaler:
        _need(scale.with_mean, "the StandardScaler does not centre")
    if type(scale) is RobustScaler:
        is_usual = (
            scale.with_scaling and tuple(scale.quantile_range) == (25.0, 75.0) and not scale.unit_variance
        )
        _need(is_usual, "the RobustScaler does not divide by the distance of the quartiles")
    if type(scale) is MinMaxScaler:
        is_unit = not scale.clip and tuple(scale.feature_range) == (0, 1)
        _need(is_unit, "the MinMaxScaler clips, or scales to another range than 0 to 1")
    if type(regress) is Ridge:
        is_usual = regress.fit_intercept and not regress.positive
        _need(is_usual, "the Ridge has no intercept, or positive coefficients only")
        is_direct = regress.solver in ("auto", "cholesky")
        _need(is_direct, f"the Ridge has the solver {regress.solver!r}, not 'auto' or 'cholesky'")


def _scaling(scaler: Estimator) -> str:
    """Return what a scaler divides columns by, in the terms of `FoldTable`."""
    if isinstance(scaler, MinMaxScaler | RobustScaler):
        return "range" if isinstance(scaler, MinMaxScaler) else "quartiles"
    return "none" if isinstance(scaler, StandardScaler) and not scaler.with_std else "deviation"


def _check_settings(search: GridSearchCV) -> None:
    _need(not search.return_train_score, "scores of the training rows are asked for")
    is_usual = get_config()["transform_output"] in ("default", "pandas")
    _need(is_usual, "transformers are set to another kind of output")
    _need(not callable(search.refit), "the refit is a rule of its own")
    is_plain = search.scoring is None or is_prediction_scorer(search.scoring)
    _need(
        is_plain, "the scoring is a function of its own, which may look at more than predictions, or several"
    )


def _check_grid(pipeline: Pipeline, points: Sequence[Mapping[str, Any]]) -> None:
    (select, _), (scale, scaler), (regress, regressor) = pipeline.steps
    family, own = _FAMILIES[type(regressor)]
    known = {f"{select}__bands", *(f"{regress}__{name}" for name in own)}
    known |= set() if family == "ridge" else {f"{regress}__kernel"}
    known |= {f"{scale}__band_weights", f"{scale}__unit_band"} if type(scaler) is BandScaler else set()
    strangers = sorted({name for point in points for name in point} - known)
    _need(not strangers, f"the grid has {(strangers or [''])[0]!r}, which the solvers do not know")


def _read_point(
    pipeline: Pipeline, settings: Mapping[str, Any], bands: Mapping[str, IntArray], has_names: bool
) -> Candidate | None:
    """Read one point of a grid with what it leaves as it is; None if it is not admissible or its meaning not plain."""
    (select, _), (scale, scaler), (regress, regressor) = pipeline.steps
    asked = settings[f"{select}__bands"]
    if asked is not None and (isinstance(asked, str) or not _all_in(asked, bands)):
        return None
    chosen = tuple(band for band in bands if asked is None or band in asked)
    if not chosen:
        return None
    weights, unit_band = (1.0,) * len(chosen), False
    if type(scaler) is BandScaler:
        by_band = dict(settings[f"{scale}__band_weights"] or {})
        unit_band = bool(settings[f"{scale}__unit_band"])
        if (by_band or unit_band) and not has_names and tuple(bands) != chosen[:1]:
            return None
        if not _all_in(by_band, chosen) or not all(_is_number(w, positive=True) for w in by_band.values()):
            return None
        weights = tuple(float(by_band.get(band, 1.0)) for band in chosen)
    family, names = _FAMILIES[type(regressor)]
    own = {name: settings[f"{regress}__{name}"] for name in names}
    kernel = "linear" if family == "ridge" else settings[f"{regress}__kernel"]
    if kernel not in ("linear", "rbf"):
        return None
    if kernel == "linear" and family == "svr" and own["gamma"] in ("scale", "auto"):
        own["gamma"] = 0.0
    # A penalty of zero, and epsilon alone, which may be zero, are left to the checks of the estimators.
    may_be_zero = {"epsilon", "gamma"} if kernel == "linear" else {"epsilon"}
    if not all(_is_number(value, positive=name not in may_be_zero) for name, value in own.items()):
        return None
    if kernel == "linear" and "gamma" in own:
        own["gamma"] = 0.0
    values = tuple(float(own[name]) for name in names)
    if family == "ridge":
        return Candidate(family, chosen, weights, unit_band, values)
    cache = "cache_size_mb" if family == "unit-svr" else "cache_size"
    solver = tuple(settings[f"{regress}__{name}"] for name in ("tol", "max_iter", cache))
    shrinking = True if family == "unit-svr" else settings[f"{regress}__shrinking"]
    if not all(_is_number(value) for value in solver):
        return None
    return Candidate(family, chosen, weights, unit_band, values, (*solver, bool(shrinking)), kernel)


def _all_in(names: Iterable[object], known: Container[str]) -> bool:
    try:
        return all(isinstance(name, str) and name in known for name in names)
    except TypeError:
        return False


def _is_number(value: object, *, positive: bool | None = None) -> bool:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return positive is None or bool(np.isfinite(value) and (value > 0 if positive else value >= 0))


def _numbers(y: ArrayLike | None, otherwise: str) -> FloatArray:
    target = np.asarray(y)
    _need(target.ndim == 1 and target.dtype.kind in "fiu" and len(target), otherwise)
    numbers = target.astype(np.float64)
    _need(np.isfinite(numbers).all(), otherwise)
    return numbers


def _matrix(X: Table) -> FloatArray | BlockTable:
    """Return the table in float64 and C order: data frames give columns, of which rows are gathered slowly."""
    if isinstance(X, BlockTable):
        return X
    values = X.to_numpy() if isinstance(X, pd.DataFrame) else X
    otherwise = "the table is not a data frame or an array of finite numbers with one row per target"
    _need(type(values) is np.ndarray and values.ndim == 2 and values.dtype.kind in "fiu", otherwise)
    values = np.ascontiguousarray(values, dtype=np.float64)
    _need(np.isfinite(values).all(), otherwise)
    return values


def _is_same(one: FoldTable, other: FoldTable) -> bool:
    def arrays(table: FoldTable) -> list[np.ndarray | None]:
        return [table.y, table.weight, *(rows for fold in table.folds for rows in fold)]

    def equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return a is b or (a is not None and b is not None and np.array_equal(a, b))

    pairs = list(zip(arrays(one), arrays(other), strict=False))
    shapes = [(table.scaling, list(table.bands), len(table.folds)) for table in (one, other)]
    return shapes[0] == shapes[1] and all(equal(a, b) for a, b in pairs)
