"""Fitting of searches and pipelines with sample weights, and predictions of held-out rows.

One rule for weights: a row of weight w counts as w rows, in means and deviations, in the regressor, and in
the score of the held-out rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgWarning
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from regressors.blocks import BlockTable
from regressors.checks import Estimator, FloatArray, IntArray, Table
from regressors.folds import Fold


def fit_search(
    search: Estimator, X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Estimator:
    """Fit a search, with sample weights in every fit and in every score.

    Parameters
    ----------
    search : GridSearchCV
        From `make_search`; fitted in place. Any other search must take ``sample_weight`` in its own `fit`.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    GridSearchCV
        ``search``.

    Warns
    -----
    Nothing about ill-conditioned candidates during the search: they earn their score on held-out rows like
    any other, and `predict_held_out` warns again if such a candidate is chosen.

    Raises
    ------
    ValueError
        If weights are given and the scorer cannot take them.

    Notes
    -----
    The mean score over folds is not weighted, as in scikit-learn; so rows of weight w equal w copies exactly
    when the copies share a fold.
    """
    if not isinstance(search, GridSearchCV):
        return search.fit(X, y, sample_weight=sample_weight)
    with search_context(search, sample_weight) as params:
        return search.fit(X, y, **params)


@contextmanager
def search_context(search: GridSearchCV, sample_weight: ArrayLike | None) -> Iterator[dict[str, Any]]:
    """Prepare a search for `fit` with sample weights, and leave no trace of it.

    Parameters
    ----------
    search : GridSearchCV
        From `regressors.pipelines.make_search`.
    sample_weight : float array of shape (n_rows,), or None
        How many rows each row counts for.

    Yields
    ------
    dict of str to object
        What `fit` takes besides table and MOS. Warnings about ill-conditioned candidates are off.

    Raises
    ------
    ValueError
        If weights are given and the scorer cannot take them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=LinAlgWarning)
        if sample_weight is None:
            yield {}
            return
        with config_context(enable_metadata_routing=True), _requests(search):
            yield {"sample_weight": np.asarray(sample_weight, dtype=np.float64)}
    if hasattr(search, "best_estimator_"):
        _forget_requests(search.best_estimator_)


def fit_pipeline(
    pipeline: Pipeline, X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Pipeline:
    """Fit one pipeline, with sample weights in each step that takes them.

    Parameters
    ----------
    pipeline : Pipeline
        From `make_pipeline`; fitted in place.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    Pipeline
        ``pipeline``.
    """
    parameters = {}
    if sample_weight is not None:
        parameters = {
            f"{name}__sample_weight": sample_weight for name, step in pipeline.steps if _takes_weights(step)
        }
    with config_context(enable_metadata_routing=False):
        return pipeline.fit(X, y, **parameters)


def predict_held_out(
    estimator: Pipeline, X: Table, y: ArrayLike, folds: Sequence[Fold], sample_weight: ArrayLike | None = None
) -> FloatArray:
    """Predict each row from the folds in which it is held out.

    Parameters
    ----------
    estimator : Pipeline
        Pipeline with its hyper-parameters set; a clone of it is fitted per fold.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    folds : sequence of (train, test)
        Row positions.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    float64 array of shape (n_rows,)
        Mean over the folds that test a row; nan for a row that no fold tests.
    """
    mos = np.asarray(y, dtype=np.float64)
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    total, n_tested = np.zeros(len(mos)), np.zeros(len(mos))
    for train, test in folds:
        fitted = fit_pipeline(
            clone(estimator), take_rows(X, train), mos[train], None if weights is None else weights[train]
        )
        total[test] += fitted.predict(take_rows(X, test))
        n_tested[test] += 1
    return np.divide(total, n_tested, out=np.full(len(mos), np.nan), where=n_tested > 0)


def take_rows(X: Table, rows: IntArray) -> Table:
    """Return the ``rows`` of a data frame, BlockTable or array ``X`` by position, as a table of the same kind."""
    if isinstance(X, BlockTable):
        return X.take(rows)
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def _takes_weights(step: Estimator) -> bool:
    return bool(has_fit_parameter(step, "sample_weight"))


@contextmanager
def _requests(search: GridSearchCV) -> Iterator[None]:
    """Ask for sample weights in each step and in the scorer, for the time of one fit."""
    if not hasattr(search.scoring, "set_score_request"):
        raise ValueError(
            f"fit_search: with sample_weight the scorer must take weights, got {search.scoring!r}. "
            "Use one of SCORERS, or a scorer made by sklearn.metrics.make_scorer."
        )
    for _, step in search.estimator.steps:
        if _takes_weights(step):
            step.set_fit_request(sample_weight=True)
    search.scoring.set_score_request(sample_weight=True)
    try:
        yield
    finally:
        _forget_requests(search.estimator)


def _forget_requests(pipeline: Pipeline) -> None:
    # A request is an instance attribute that refers back to its owner's class; model files cannot hold it, and
    # a fitted member has no more use for it.
    for _, step in pipeline.steps:
        vars(step).pop("_metadata_request", None)
