"""Deciding whether the shared computation can stand in for a grid search, and preparing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.metadata_routing import process_routing

from regressors.bands import BandScaler
from regressors.checks import FloatArray, Folds, Scorer, Table
from regressors.folds import Fold
from regressors.shared.candidates import Candidate, read_candidate, table_bands, unknown_parameter, why_not
from regressors.shared.fits import Answers
from regressors.shared.fold_table import FoldTable

# What make_scorer returns. Its kind says that a scorer asks an estimator for nothing but predictions.
_SCORER = type(make_scorer(r2_score))
_TILE = (64, 256)


@dataclass(frozen=True)
class SearchPlan:
    """What the shared computation needs to know of a search.

    Attributes
    ----------
    pipeline : Pipeline
        The estimator of the search.
    table : FoldTable
        Features, target, weights and folds.
    has_names : bool
        Whether the table's columns have names.
    defaults : dict of str to object
        What the grid leaves as it is.
    candidates : list of Candidate or None
        The grid in its order; None where scikit-learn must fit.
    fit_params : dict of str to object
        What the pipeline's `fit` takes besides the table and MOS.
    score_params : dict of str to object
        What the scorers take besides predictions and MOS.
    """

    pipeline: Pipeline
    table: FoldTable
    has_names: bool
    defaults: Mapping[str, Any]
    candidates: list[Candidate | None]
    fit_params: Mapping[str, Any]
    score_params: Mapping[str, Any]

    @property
    def folds(self) -> list[Fold]:
        """The folds: list of (train, test)."""
        return list(self.table.folds)

    def read(self, parameters: Mapping[str, Any]) -> Candidate | None:
        """Read one point of the grid; None where scikit-learn must fit."""
        return read_candidate(
            self.pipeline, parameters, self.table.bands, has_names=self.has_names, defaults=self.defaults
        )

    def describe(self, answers: Answers) -> str:
        """Say what was shared, in words."""
        known = [c for c in self.candidates if c is not None]
        complete = sum(all(p is not None for p in answers.predictions[c]) for c in known)
        subsets = len({c.bands for c in known})
        text = f"shared: {complete} candidates over {subsets} subsets of bands in {len(self.folds)} folds"
        rest = len(self.candidates) - complete
        return f"{text}; scikit-learn fitted {rest} others" if rest else text


def make_plan(
    search: GridSearchCV,
    X: Table,
    y: ArrayLike | None,
    params: Mapping[str, Any],
    *,
    known: SearchPlan | None = None,
) -> SearchPlan | str:
    """Prepare the shared computation of a search, or say why there is none.

    Parameters
    ----------
    search : GridSearchCV
        The search.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,), or None
        MOS.
    params : mapping of str to object
        Metadata given to `fit`.
    known : SearchPlan, optional
        Plan of another search on the same table, whose prepared table is used again if folds and weights are the same.

    Returns
    -------
    SearchPlan, or str
        The reason in words.
    """
    reason = why_not(search.estimator) or _odd_settings(search)
    if reason:
        return reason
    pipeline: Pipeline = search.estimator
    points = list(ParameterGrid(search.param_grid))
    stranger = unknown_parameter(pipeline, {name for point in points for name in point})
    if stranger:
        return f"the grid has {stranger!r}, which the shared computation does not know"
    target = _numbers(y)
    if target is None:
        return "the target is not one column of finite numbers"
    values = known.table.features if known is not None else _matrix(X)
    if values is None or len(values) != len(target) or 0 in values.shape:
        return "the table is not a data frame or an array of finite numbers with one row per target"
    select, scale, _ = (step for _, step in pipeline.steps)
    if isinstance(X, pd.DataFrame) and isinstance(scale, BandScaler) and not select.keep_names:
        return "SelectBands drops the names that BandScaler needs"
    try:
        bands = table_bands(pipeline, X, values.shape[1])
    except (TypeError, ValueError) as error:
        return f"the table's columns are not admissible ({error})"
    has_names = isinstance(X, pd.DataFrame)
    defaults = pipeline.get_params()
    candidates = [
        read_candidate(pipeline, point, bands, has_names=has_names, defaults=defaults) for point in points
    ]
    routed = _route(search, params)
    if isinstance(routed, str):
        return routed
    fit_params, split_params, score_params = routed
    weights = _step_weights(pipeline, fit_params, len(target))
    if isinstance(weights, str):
        return weights
    if weights[0] is not weights[1] or isinstance(scale, MinMaxScaler):
        # Kernels here are centred for the regressor. Without an intercept, or in the order of the solver's steps, a
        # linear kernel that the scaler centres elsewhere, or not at all, is another one.
        candidates = [None if c is None or _needs_origin(c) else c for c in candidates]
    if not any(candidates):
        return "no candidate is one that the shared computation knows"
    # Last of all, as it may use up an iterator.
    folds = _folds(search.cv, X, y, split_params, len(target))
    scaling = "range" if isinstance(scale, MinMaxScaler) else "deviation"
    table = FoldTable(values, target, bands, folds, *weights, scaling=scaling)
    if known is not None and _is_same(known.table, table):
        table = known.table
    if not _has_rows(table):
        candidates = [None] * len(candidates)
    return SearchPlan(pipeline, table, has_names, defaults, candidates, fit_params, score_params)


def _needs_origin(candidate: Candidate) -> bool:
    return candidate.kernel == "linear" and candidate.family in ("svr", "kernel-ridge")


def _odd_settings(search: GridSearchCV) -> str | None:
    if search.return_train_score:
        return "scores of the training rows are asked for"
    if get_config()["transform_output"] not in ("default", "pandas"):
        return "transformers are set to another kind of output"
    scoring = search.scoring
    if scoring is None or is_prediction_scorer(scoring):
        return None
    several = scoring.values() if isinstance(scoring, Mapping) else scoring
    if isinstance(scoring, (Mapping, list, tuple, set)) and all(
        is_prediction_scorer(scorer) for scorer in several
    ):
        return None
    return "the scoring is a function of its own, which may look at more than predictions"


def is_prediction_scorer(scorer: Scorer) -> bool:
    """Say whether a scorer surely asks an estimator for nothing but predictions.

    Parameters
    ----------
    scorer : str or scorer
        A name, or what `sklearn.metrics.make_scorer` returns; a function of its own may look at more.

    Returns
    -------
    bool
    """
    return isinstance(scorer, (str, _SCORER))


def _numbers(y: ArrayLike | None) -> FloatArray | None:
    target = np.asarray(y)
    if target.ndim != 1 or target.dtype.kind not in "fiu" or not len(target):
        return None
    numbers = target.astype(np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _matrix(X: Table) -> FloatArray | None:
    if isinstance(X, pd.DataFrame):
        X = X.to_numpy()
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype.kind not in "fiu":
        return None
    values = _by_rows(X)
    return values if np.isfinite(values).all() else None


def _by_rows(X: np.ndarray) -> FloatArray:
    """Return the table in float64 and C order: data frames give columns, of which rows are gathered slowly."""
    if X.flags.c_contiguous:
        return np.asarray(X, dtype=np.float64)
    values = np.empty(X.shape)
    # In tiles, so that what is read by columns stays in the cache until it is used up.
    for row in range(0, X.shape[0], _TILE[0]):
        for column in range(0, X.shape[1], _TILE[1]):
            tile = slice(row, row + _TILE[0]), slice(column, column + _TILE[1])
            values[tile] = X[tile]
    return values


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
    (_, _), (scale, _), (regress, _) = pipeline.steps
    by_step: dict[str, dict[str, Any]] = {}
    if get_config()["enable_metadata_routing"]:
        routed = process_routing(pipeline, "fit", **fit_params)
        for name, _ in pipeline.steps:
            by_step[name] = {**routed[name].get("fit", {}), **routed[name].get("fit_transform", {})}
    else:
        for name, value in fit_params.items():
            step, _, parameter = name.partition("__")
            by_step.setdefault(step, {})[parameter] = value
    weights: dict[str, FloatArray | None] = {scale: None, regress: None}
    checked: dict[int, FloatArray] = {}
    for step, given in by_step.items():
        for name, value in given.items():
            if value is None:
                continue
            if name != "sample_weight" or step not in weights:
                return f"the step {step!r} gets {name!r}, which the shared computation does not know"
            usable = checked.get(id(value), _numbers(value))
            if usable is None or len(usable) != n_rows or (usable < 0).any():
                return "the sample weights are not one non-negative number per row"
            # The same weights stay one object, by which later steps see that they need no second centring.
            checked[id(value)] = usable
            weights[step] = usable
    return weights[scale], weights[regress]


def _folds(
    cv: Folds, X: Table, y: ArrayLike | None, split_params: Mapping[str, Any], n_rows: int
) -> Sequence[Fold]:
    splitter = check_cv(cv, y, classifier=False)
    rows = np.arange(n_rows)
    # Masks and negative positions become positions.
    return [
        (rows[np.asarray(train)], rows[np.asarray(test)])
        for train, test in splitter.split(X, y, **split_params)
    ]


def _has_rows(table: FoldTable) -> bool:
    for train, test in table.folds:
        if not len(train) or not len(test):
            return False
        for weights in (table.scale_weight, table.fit_weight):
            if weights is not None and not weights[train].sum() > 0:
                return False
    return bool(table.folds)


def _is_same(one: FoldTable, other: FoldTable) -> bool:
    def equal(a: FloatArray | None, b: FloatArray | None) -> bool:
        return (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))

    return (
        one.scaling == other.scaling
        and np.array_equal(one.y, other.y)
        and list(one.bands) == list(other.bands)
        and equal(one.scale_weight, other.scale_weight)
        and equal(one.fit_weight, other.fit_weight)
        and len(one.folds) == len(other.folds)
        and all(
            np.array_equal(a, b)
            for pair, twin in zip(one.folds, other.folds, strict=True)
            for a, b in zip(pair, twin, strict=True)
        )
    )
