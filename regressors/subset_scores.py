"""Scores of band subsets by cross-validation: what each subset's ensemble would earn, at shared cost.

The members of one subset's ensemble are subsets themselves. So the search of every distinct subset is done once,
from the same kernels or Gram matrices, and an ensemble costs no more than its weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from regressors.bands import BlockTable, check_labels, locate_bands, take_columns, unknown_bands
from regressors.checks import Estimator, FloatArray, IntArray, check_vector, check_weights
from regressors.ensemble import (
    BandEnsemble,
    NoSkillWarning,
    cross_combine,
    list_members,
    member_search,
    restrict_weights,
)
from regressors.folds import resolve_folds
from regressors.pipelines import readable_params
from regressors.search import ECHO, PrecisionWarning, fit_searches, predict_held_out
from regressors.solvers.resources import refuse_out_of_core

Subset = tuple[str, ...]
"""Bands in the order of the table."""

# Held-out predictions of all candidates are in memory together; more subsets than fit are searched in turns.
_MAX_BYTES = 500_000_000


class SubsetScore(NamedTuple):
    """What a subset earns.

    Attributes
    ----------
    bands : tuple of str
        The subset, in the order of the table.
    splits : float64 array of shape (n_folds,)
        Score of the held-out rows of each fold, greater is better.
    params : dict of str to float
        Chosen hyper-parameters under short names where the subset is one member, otherwise empty.
    oof_predictions : float64 array of shape (n_rows,)
        Held-out predictions as `regressors.ensemble.BandEnsemble` gives them; nan where no fold tests.
    """

    bands: Subset
    splits: FloatArray
    params: dict[str, float]
    oof_predictions: FloatArray


class _Member(NamedTuple):
    held_out: FloatArray
    params: dict[str, float]


class SubsetScorer:
    """Cross-validated scores of band subsets of one table, each searched once.

    Every subset gets the score that ``clone(model).fit(table[subset], y)`` has on the held-out rows of its
    folds. Results are kept, so that asking again, or for an ensemble whose members are known, costs nothing.

    Parameters
    ----------
    table : data frame or BlockTable of shape (n_rows, n_features)
        Feature table with string columns "band:0000"; one of blocks for ridges alone.
    y : float array of shape (n_rows,)
        MOS.
    model : BandEnsemble, optional
        Members, estimator, grids, folds and the rule of selection; not fitted. None is ``BandEnsemble("all")``.
        Members given as a list are cut to each subset.
    groups : array of shape (n_rows,), optional
        Rows of one group never meet across a fold.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for: in every fit, every score, and the weights of the members.

    Raises
    ------
    TypeError
        If the model is no BandEnsemble.
    ValueError
        If table, target, weights or folds are not admissible.
    """

    def __init__(
        self,
        table: pd.DataFrame | BlockTable,
        y: ArrayLike,
        *,
        model: BandEnsemble | None = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        who = "SubsetScorer"
        if not isinstance(table, (pd.DataFrame, BlockTable)):
            raise TypeError(
                f"{who}: table must be a data frame with columns 'band:0000', got {type(table).__name__}. "
                "The subsets are found by the names of the columns."
            )
        self.model = BandEnsemble("all") if model is None else model
        if type(self.model) is not BandEnsemble:
            raise TypeError(
                f"{who}: model must be a BandEnsemble, got a {type(self.model).__name__}. Average crops first, "
                "or fit the subsets one by one."
            )
        if isinstance(table, BlockTable):
            refuse_out_of_core(self.model.estimator, len(table), reference=self.model.reference)
        check_labels(who, table)
        if isinstance(table, pd.DataFrame):
            n_bad = int(np.count_nonzero(~np.isfinite(table.to_numpy(dtype=np.float64))))
            if n_bad:
                raise ValueError(
                    f"{who}: the table must be finite, got {n_bad} NaN or infinite of {table.size} values. "
                    "Drop the images or bands without features first."
                )
        self.table, self.y = table, check_vector(who, "y", y, min_rows=2)
        if len(table) != len(self.y):
            raise ValueError(f"{who}: table and y must have one length, got {len(table)} and {len(self.y)}.")
        self.weights = None if sample_weight is None else check_weights(who, sample_weight, len(self.y))
        self._located = locate_bands(list(table.columns), table.shape[1])
        self.bands: Subset = tuple(self._located)
        self.folds = resolve_folds(who, self.model.cv, table, self.y, groups, self.model.random_state)
        self._scorer = member_search(self.model, self.bands, self.bands, self.folds).scoring
        self._shared: dict[str, Any] = {}
        self._members: dict[Subset, _Member] = {}
        self._scores: dict[Subset, SubsetScore] = {}

    def order(self, bands: Iterable[str]) -> Subset:
        """Bring bands into the order of the table; a ValueError if a name is unknown, or there is none."""
        asked = [bands] if isinstance(bands, str) else list(bands)
        if error := unknown_bands("SubsetScorer", asked, self.bands):
            raise error
        if not asked:
            raise ValueError("SubsetScorer: a subset must name at least one band, got an empty one.")
        return tuple(band for band in self.bands if band in asked)

    def score(self, subsets: Iterable[Iterable[str]]) -> list[SubsetScore]:
        """Score subsets, given by their bands in any order, sharing the work among all that are new.

        A ValueError if a band is unknown, a subset is empty, or a value of the table is not finite.
        """
        asked = [self.order(subset) for subset in subsets]
        new = [subset for subset in dict.fromkeys(asked) if subset not in self._scores]
        members = [member for subset in new for member in self._member_bands(subset)]
        self._search([member for member in dict.fromkeys(members) if member not in self._members])
        for subset in new:
            self._scores[subset] = self._combine(subset)
        return [self._scores[subset] for subset in asked]

    def _member_bands(self, subset: Subset) -> list[Subset]:
        rule = self.model.members
        if isinstance(rule, str):
            return list_members(rule, subset)[1]
        cut = [tuple(band for band in subset if band in member) for member in rule]
        return [member for member in dict.fromkeys(cut) if member] or [subset]

    def columns(self, bands: Iterable[str]) -> IntArray:
        """Return the positions of a subset's columns in the table, in its order."""
        return np.sort(np.concatenate([self._located[band] for band in self.order(bands)]))

    def ensemble(self, bands: Iterable[str]) -> BandEnsemble:
        """Make the ensemble of a subset, not fitted: the model with these folds, cut to the subset."""
        subset = self.order(bands)
        params: dict[str, Any] = {"cv": self.folds}
        if not isinstance(self.model.members, str):
            params["members"] = self._member_bands(subset)
        if self.model.band_weights is not None:
            params["band_weights"] = restrict_weights(self.model.band_weights, subset, self.bands)
        return clone(self.model).set_params(**params)

    def fit(self, bands: Iterable[str]) -> BandEnsemble:
        """Fit the ensemble of a subset; that it has no skill is for its score to say."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=NoSkillWarning)
            cut = take_columns(self.table, list(self.table.columns[self.columns(bands)]))
            return self.ensemble(bands).fit(cut, self.y, sample_weight=self.weights)

    def judge(self, predicted: FloatArray, rows: IntArray) -> float:
        """Score predictions of some rows by the model's rule, greater is better."""
        weights = {} if self.weights is None else {"sample_weight": self.weights[rows]}
        return float(self._scorer(ECHO, predicted, self.y[rows], **weights))

    def _combine(self, subset: Subset) -> SubsetScore:
        """Combine the members of a subset as the ensemble does: each fold by weights learned on the others."""
        members = [self._members[bands] for bands in self._member_bands(subset)]
        if len(members) == 1:
            only = members[0]
            return SubsetScore(subset, self._splits(only.held_out), only.params, only.held_out)
        held_out = np.column_stack([member.held_out for member in members])
        predicted, _ = cross_combine(
            self.model.combine, self.y, held_out, self.folds, sample_weight=self.weights
        )
        return SubsetScore(subset, self._splits(predicted), {}, predicted)

    def _search(self, members: Sequence[Subset]) -> None:
        """Choose the hyper-parameters of members, as many at a time as fit into memory."""
        at_once = len(members)
        if members and not isinstance(self.table, BlockTable):
            n_points = len(ParameterGrid(self._grid(members[0]).param_grid))
            at_once = max(1, _MAX_BYTES // (8 * n_points * sum(len(test) for _, test in self.folds)))
        for start in range(0, len(members), at_once or 1):
            chunk = members[start : start + at_once]
            searches = [self._grid(bands).set_params(refit=False) for bands in chunk]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=PrecisionWarning)
                fit_searches(searches, self.table, self.y, self.weights, shared=self._shared)
            for bands, search in zip(chunk, searches, strict=True):
                held_out = getattr(search, "oof_predictions_", None)
                if held_out is None:
                    best = clone(search.estimator).set_params(**search.best_params_)
                    held_out = predict_held_out(best, self.table, self.y, self.folds, self.weights)
                self._members[bands] = _Member(held_out, readable_params(search.best_params_))

    def _grid(self, bands: Subset) -> Estimator:
        return member_search(self.model, bands, self.bands, self.folds)

    def _splits(self, predicted: FloatArray) -> FloatArray:
        return np.array([self.judge(predicted[test], test) for _, test in self.folds])
