"""Held-out predictions of band subsets, each searched once from kernels or Gram matrices that all of them share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from regressors.bands import BlockTable, locate_bands, unknown_bands
from regressors.checks import Estimator, FloatArray
from regressors.ensemble import BandEnsemble, member_search
from regressors.folds import resolve_folds
from regressors.search import PrecisionWarning, fit_searches, predict_held_out
from regressors.solvers.resources import refuse_out_of_core

# Held-out predictions of all candidates are in memory together; more subsets than fit are searched in turns.
_MAX_BYTES = 500_000_000


class SubsetScorer:
    """Held-out predictions by one searched regressor on each of many subsets of bands; what is known is kept.

    Parameters
    ----------
    table : data frame or BlockTable of shape (n_rows, n_features)
        Feature table with string columns "band:0000"; one of blocks for ridges alone.
    y : float64 array of shape (n_rows,)
        MOS.
    model : BandEnsemble
        Estimator, grids, folds and the rule of selection; not fitted, its members and their combination do not count.
    """

    def __init__(self, table: pd.DataFrame | BlockTable, y: FloatArray, model: BandEnsemble) -> None:
        if isinstance(table, BlockTable):
            refuse_out_of_core(model.estimator, len(table), reference=model.reference)
        self.table, self.y, self.model = table, y, model
        self.bands = tuple(locate_bands(list(table.columns), table.shape[1]))
        self.folds = resolve_folds("SubsetScorer", model.cv, table, y, None, model.random_state)
        self._shared: dict[str, Any] = {}
        self._known: dict[tuple[str, ...], FloatArray] = {}

    def score(self, subsets: Iterable[Iterable[str]]) -> list[FloatArray]:
        """Predict held-out rows by subsets, given in any order: of each shape (n_rows,), nan where no fold tests.

        A ValueError is raised if a band is unknown, a subset empty, or the rows cannot be fitted.
        """
        asked = []
        for subset in map(list, subsets):
            if error := unknown_bands("SubsetScorer", subset, self.bands):
                raise error
            if not subset:
                raise ValueError("SubsetScorer: a subset must name at least one band, got an empty one.")
            asked.append(tuple(band for band in self.bands if band in subset))
        new = [bands for bands in dict.fromkeys(asked) if bands not in self._known]
        at_once = len(new)
        if new and not isinstance(self.table, BlockTable):
            n_points = len(ParameterGrid(self._search(new[0]).param_grid))
            at_once = max(1, _MAX_BYTES // (8 * n_points * sum(len(test) for _, test in self.folds)))
        for start in range(0, len(new), at_once or 1):
            chunk = new[start : start + at_once]
            searches = [self._search(bands).set_params(refit=False) for bands in chunk]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=PrecisionWarning)
                fit_searches(searches, self.table, self.y, shared=self._shared)
            for bands, search in zip(chunk, searches, strict=True):
                held_out = getattr(search, "oof_predictions_", None)
                if held_out is None:
                    best = clone(search.estimator).set_params(**search.best_params_)
                    held_out = predict_held_out(best, self.table, self.y, self.folds)
                self._known[bands] = held_out
        return [self._known[bands] for bands in asked]

    def _search(self, bands: tuple[str, ...]) -> Estimator:
        return member_search(self.model, bands, self.bands, self.folds)
