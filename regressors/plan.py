"""Reading a grid search: whether the solvers can answer it, and what they need to know of it; otherwise why not."""

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
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVR
from sklearn.utils.metadata_routing import process_routing

from regressors.bands import BandScaler, SelectBands, locate_bands
from regressors.blocks import BlockTable
from regressors.checks import Estimator, FloatArray, IntArray, Scorer, Table
from regressors.solvers.in_memory import Candidate
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
_TILE = (64, 256)


@dataclass(frozen=True)
class SearchPlan:
    """What the solvers need to know of a search.

    Attributes
    ----------
    table : FoldTable
        Features, target, weights and folds.
    points : list of dict
        The grid in its order.
    candidates : list of Candidate
        The same in the terms of the solvers.
    fit_params, score_params : dict of str to object
        What the pipeline's `fit` takes besides table and MOS, and the scorers besides predictions and MOS.
    """

    table: FoldTable
    points: list[dict[str, Any]]
    candidates: list[Candidate]
    fit_params: Mapping[str, Any]
    score_params: Mapping[str, Any]


def make_plan(
    search: GridSearchCV,
    X: Table,
    y: ArrayLike | None,
    params: Mapping[str, Any],
    *,
    known: FoldTable | None = None,
) -> SearchPlan | str:
    """Prepare the search for the solvers, or say in words why scikit-learn must search.

    Parameters
    ----------
    search : GridSearchCV
        The search.
    X : data frame, BlockTable, or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,), or None
        MOS.
    params : mapping of str to object
        Metadata given to `fit`.
    known : FoldTable, optional
        Of an earlier search on the same table, used again if target, folds and weights are the same.
    """
    pipeline, points = search.estimator, list(ParameterGrid(search.param_grid))
    reason = _why_not(pipeline) or _odd_settings(search) or _stranger(pipeline, points)
    if reason:
        return reason
    target = _numbers(y)
    if target is None:
        return "the target is not one column of finite numbers"
    values = known.features if known is not None else _matrix(X)
    if values is None or len(values) != len(target) or 0 in values.shape:
        return "the table is not a data frame or an array of finite numbers with one row per target"
    select, scale, regress = (step for _, step in pipeline.steps)
    has_names = isinstance(X, (pd.DataFrame, BlockTable))
    if has_names and isinstance(scale, BandScaler) and not select.keep_names:
        return "SelectBands drops the names that BandScaler needs"
    labels = list(X.columns) if has_names else []
    try:
        bands = locate_bands(
            labels if any(isinstance(name, str) for name in labels) else None, values.shape[1]
        )
    except (TypeError, ValueError) as error:
        return f"the table's columns are not admissible ({error})"
    defaults = pipeline.get_params()
    read = [_read_point(pipeline, {**defaults, **point}, bands, has_names) for point in points]
    candidates = [candidate for candidate in read if candidate is not None]
    if len(candidates) < len(points):
        return f"the solvers do not know the candidate {points[read.index(None)]!r:.200}"
    routed = _route(search, params)
    if isinstance(routed, str):
        return routed
    fit_params, split_params, score_params = routed
    weights = _step_weights(pipeline, fit_params, len(target))
    if isinstance(weights, str):
        return weights
    is_range = isinstance(scale, MinMaxScaler)
    other_centre = weights[0] is not weights[1] or is_range
    if isinstance(regress, SVR) and other_centre and any(c.kernel == "linear" for c in candidates):
        # Kernels here are centred for the regressor. In the order of the solver's steps a linear kernel that the scaler
        # centres elsewhere, or not at all, is another one.
        return "the linear kernel of an SVR is not that of centred columns"
    if isinstance(X, BlockTable) and (other_centre or not isinstance(regress, Ridge)):
        return "a table that is read by blocks takes ridges on standardised columns with one array of weights"
    # Last of all, as it may use up an iterator.
    rows, splitter = np.arange(len(target)), check_cv(search.cv, y, classifier=False)
    # Masks and negative positions become positions.
    folds = [(rows[np.asarray(a)], rows[np.asarray(b)]) for a, b in splitter.split(X, y, **split_params)]
    table = FoldTable(values, target, bands, folds, *weights, scaling="range" if is_range else "deviation")
    if not _has_rows(table):
        return "a fold has no rows"
    if known is not None and _is_same(known, table):
        table = known
    return SearchPlan(table, points, candidates, fit_params, score_params)


def is_prediction_scorer(scorer: Scorer) -> bool:
    """Say whether a scorer, or the name of one, surely asks an estimator for nothing but predictions."""
    return isinstance(scorer, (str, _SCORER))


def _why_not(pipeline: Estimator) -> str | None:
    """Say why a pipeline has no solver, whatever its grid."""
    if type(pipeline) is not Pipeline:
        return f"the estimator is a {type(pipeline).__name__}, not a Pipeline"
    if len(pipeline.steps) != 3:
        return f"the pipeline has {len(pipeline.steps)} steps, not select, scale, regress"
    select, scale, regress = (step for _, step in pipeline.steps)
    if type(select) is not SelectBands:
        return f"the first step is a {type(select).__name__}, not SelectBands"
    if type(scale) not in (StandardScaler, MinMaxScaler, BandScaler):
        return f"the second step is a {type(scale).__name__}, not StandardScaler, MinMaxScaler or BandScaler"
    if type(regress) not in _FAMILIES:
        return f"the last step is a {type(regress).__name__}, not Ridge, SVR or UnitSVR"
    if pipeline.memory is not None or getattr(pipeline, "transform_input", None) is not None:
        return "the pipeline has a memory or transforms its fit parameters"
    if pipeline.verbose or (type(regress) is SVR and regress.verbose):
        return "the pipeline reports its steps"
    if type(scale) is StandardScaler and not (scale.with_mean and scale.with_std):
        return "the StandardScaler does not standardise"
    if type(scale) is MinMaxScaler and (scale.clip or tuple(scale.feature_range) != (0, 1)):
        return "the MinMaxScaler clips, or scales to another range than 0 to 1"
    if type(regress) is Ridge and not (regress.fit_intercept and not regress.positive):
        return "the Ridge has no intercept, or positive coefficients only"
    if type(regress) is Ridge and regress.solver not in ("auto", "cholesky"):
        return f"the Ridge has the solver {regress.solver!r}, not 'auto' or 'cholesky'"
    return None


def _odd_settings(search: GridSearchCV) -> str | None:
    if search.return_train_score:
        return "scores of the training rows are asked for"
    if get_config()["transform_output"] not in ("default", "pandas"):
        return "transformers are set to another kind of output"
    scoring, refit = search.scoring, search.refit
    if scoring is None or is_prediction_scorer(scoring):
        return None
    several = (
        list(scoring.values() if isinstance(scoring, Mapping) else scoring) if not callable(scoring) else []
    )
    if not several or not all(is_prediction_scorer(scorer) for scorer in several):
        return "the scoring is a function of its own, which may look at more than predictions"
    if refit and not callable(refit) and refit not in scoring:
        return "the refit names none of the scorers"
    return None


def _stranger(pipeline: Pipeline, points: Sequence[Mapping[str, Any]]) -> str | None:
    """Name a parameter of the grid that the solvers do not know."""
    (select, _), (scale, scaler), (regress, regressor) = pipeline.steps
    family, own = _FAMILIES[type(regressor)]
    known = {f"{select}__bands", *(f"{regress}__{name}" for name in own)}
    known |= set() if family == "ridge" else {f"{regress}__kernel"}
    known |= {f"{scale}__band_weights", f"{scale}__unit_band"} if type(scaler) is BandScaler else set()
    strangers = sorted({name for point in points for name in point} - known)
    return f"the grid has {strangers[0]!r}, which the solvers do not know" if strangers else None


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


def _numbers(y: ArrayLike | None) -> FloatArray | None:
    target = np.asarray(y)
    if target.ndim != 1 or target.dtype.kind not in "fiu" or not len(target):
        return None
    numbers = target.astype(np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _matrix(X: Table) -> FloatArray | BlockTable | None:
    """Return the table in float64 and C order: data frames give columns, of which rows are gathered slowly."""
    if isinstance(X, BlockTable):
        return X
    if isinstance(X, pd.DataFrame):
        X = X.to_numpy()
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype.kind not in "fiu":
        return None
    values = X
    if X.flags.c_contiguous:
        values = np.asarray(X, dtype=np.float64)
    else:
        values = np.empty(X.shape)
        # In tiles, so that what is read by columns stays in the cache until it is used up.
        for row in range(0, X.shape[0], _TILE[0]):
            for column in range(0, X.shape[1], _TILE[1]):
                tile = slice(row, row + _TILE[0]), slice(column, column + _TILE[1])
                values[tile] = X[tile]
    return values if np.isfinite(values).all() else None


def _route(
    search: GridSearchCV, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]] | str:
    """Distribute metadata to the pipeline, the splitter and the scorers, as the search itself does."""
    if not get_config()["enable_metadata_routing"]:
        rest = dict(params)
        groups = rest.pop("groups", None)
        return rest, {} if groups is None else {"groups": groups}, {}
    routed = process_routing(search, "fit", **params)
    to_score = dict(routed["scorer"]["score"])
    if any(params.get(name) is not value for name, value in to_score.items()):
        return "a scorer takes metadata under another name"
    return dict(routed["estimator"]["fit"]), dict(routed["splitter"]["split"]), to_score


def _step_weights(
    pipeline: Pipeline, fit_params: Mapping[str, Any], n_rows: int
) -> tuple[FloatArray | None, FloatArray | None] | str:
    """Return the weights that the scaler and the regressor get."""
    by_step: dict[str, dict[str, Any]] = {}
    if get_config()["enable_metadata_routing"]:
        routed = process_routing(pipeline, "fit", **fit_params)
        for name, _ in pipeline.steps:
            by_step[name] = {**routed[name].get("fit", {}), **routed[name].get("fit_transform", {})}
    else:
        for name, value in fit_params.items():
            step, _, parameter = name.partition("__")
            by_step.setdefault(step, {})[parameter] = value
    (_, _), (scale, _), (regress, _) = pipeline.steps
    weights: dict[str, FloatArray | None] = {scale: None, regress: None}
    checked: dict[int, FloatArray] = {}
    for step, given in by_step.items():
        for name, value in given.items():
            if value is None:
                continue
            if name != "sample_weight" or step not in weights:
                return f"the step {step!r} gets {name!r}, which the solvers do not know"
            usable = checked.get(id(value), _numbers(value))
            if usable is None or len(usable) != n_rows or (usable < 0).any():
                return "the sample weights are not one non-negative number per row"
            # The same weights stay one object, by which later steps see that they need no second sums.
            checked[id(value)] = usable
            weights[step] = usable
    return weights[scale], weights[regress]


def _has_rows(table: FoldTable) -> bool:
    weights = [weights for weights in (table.scale_weight, table.fit_weight) if weights is not None]
    return bool(table.folds) and all(
        len(train) and len(test) and all(own[train].sum() > 0 for own in weights)
        for train, test in table.folds
    )


def _is_same(one: FoldTable, other: FoldTable) -> bool:
    def equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return a is b or (a is not None and b is not None and np.array_equal(a, b))

    return (
        one.scaling == other.scaling
        and equal(one.y, other.y)
        and list(one.bands) == list(other.bands)
        and equal(one.scale_weight, other.scale_weight)
        and equal(one.fit_weight, other.fit_weight)
        and len(one.folds) == len(other.folds)
        and all(
            equal(a, b)
            for own, twin in zip(one.folds, other.folds, strict=True)
            for a, b in zip(own, twin, strict=True)
        )
    )
