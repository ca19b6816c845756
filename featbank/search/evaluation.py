"""What a configuration earns: rank correlation of held-out predictions inside the rows it is given."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.errors import RunError
from featbank.recipes.reading import RegressionRequest
from featbank.runs.model import build_ensemble, folds_of
from featbank.search.space import Configuration, Space, cut_members
from regressors.blocks import take_columns
from regressors.checks import Table
from regressors.combine import cross_combine
from regressors.ensemble import NoSkillWarning
from regressors.evaluation.metrics import srcc
from regressors.members import list_members
from regressors.search import PrecisionWarning
from regressors.subset_scores import SubsetScorer

NO_SKILL = -1.0
"""Value of a configuration whose held-out predictions are constant in a fold: the worst there is."""

_DIGITS = 9  # of the range of MOS


@dataclass(frozen=True)
class Evaluation:
    """Result of one configuration.

    Attributes
    ----------
    splits : tuple of float
        SRCC of the held-out rows of each fold; nan where the predictions are constant.
    gmacs : float
        Cost for one image.
    """

    splits: tuple[float, ...]
    gmacs: float

    @property
    def srcc(self) -> float:
        """Mean SRCC over folds, nan if one of them has none."""
        return float(np.mean(self.splits))

    @property
    def value(self) -> float:
        """What the search maximises: ``srcc``, or `NO_SKILL` where there is none."""
        return self.srcc if np.isfinite(self.srcc) else NO_SKILL


class Evaluator:
    """Evaluates configurations on given training rows; members that configurations share are searched once.

    A value depends on the configuration and the rows alone, not on what was evaluated before.

    Parameters
    ----------
    space : Space
    table : DataFrame or BlockTable of shape (n_images, n_features)
        Columns ``variant:0000`` of every variant, training rows only.
    rows : DataFrame
        Same index, with ``mos`` and ``group``.
    workers : int or None
        Folds at once; None takes all processors.
    reference : bool, default=False
        Search members with plain scikit-learn: the same numbers, slower.

    Raises
    ------
    RunError
        If the rows cannot be cut into folds as the recipe asks, or it learns from crops.
    """

    def __init__(
        self,
        space: Space,
        table: Table,
        rows: pd.DataFrame,
        workers: int | None,
        *,
        reference: bool = False,
    ) -> None:
        regression = space.recipe.regression
        if regression.rows != "images":
            raise RunError(
                'search: a recipe with regression.rows = "crops" cannot be searched. Give a copy of it with '
                'rows = "images" and aggregate = "mean".'
            )
        self.space, self.table, self.rows = space, table, rows
        self.y: NDArray[np.float64] = rows["mos"].to_numpy(dtype=np.float64)
        self.folds = folds_of(regression, rows)
        self._workers, self._reference = workers, reference
        self._scorers: dict[tuple[str, bool], SubsetScorer] = {}

    def evaluate(self, configurations: Sequence[Configuration]) -> list[Evaluation]:
        """Evaluate configurations, sharing the work among them.

        Parameters
        ----------
        configurations : sequence of Configuration
            All within the budget.

        Returns
        -------
        list of Evaluation

        Raises
        ------
        RunError
            If a configuration is over the budget, or the rows cannot be fitted.
        """
        members = {}
        for configuration in configurations:
            if not self.space.is_feasible(configuration):
                raise RunError(f"search: {configuration} is over the budget and must not be evaluated.")
            members[configuration] = self._members(configuration)
        try:
            with warnings.catch_warnings():
                # The winner's own fit says both again.
                warnings.simplefilter("ignore", NoSkillWarning)
                warnings.simplefilter("ignore", PrecisionWarning)
                for kind in dict.fromkeys((c.estimator, c.unit_band) for c in configurations):
                    wanted = [m for c, m in members.items() if (c.estimator, c.unit_band) == kind]
                    self._scorer(*kind).score(dict.fromkeys(bands for row in wanted for bands in row))
                return [self._judge(c, members[c]) for c in configurations]
        except ValueError as error:
            raise RunError(f"search: the {len(self.y)} training rows cannot be fitted: {error}") from error

    def held_out(self, configuration: Configuration) -> NDArray[np.float64]:
        """Return the held-out predictions of a configuration, nan in rows that no fold tests.

        Parameters
        ----------
        configuration : Configuration

        Returns
        -------
        float64 array of shape (n_images,)
        """
        return self._held_out(configuration, self._members(configuration))

    def fit_predict(self, configuration: Configuration, table: Table) -> NDArray[np.float64]:
        """Fit a configuration on all rows, by the way of a run, and predict others.

        Parameters
        ----------
        configuration : Configuration
        table : DataFrame or BlockTable of shape (n_others, n_features)
            Columns as in the training table.

        Returns
        -------
        float64 array of shape (n_others,)
        """
        request = self.space.recipe_of(configuration, "").regression
        model = build_ensemble(request, self.folds, self._workers, reference=self._reference)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoSkillWarning)
            warnings.simplefilter("ignore", PrecisionWarning)
            model.fit(self._cut(self.table, configuration), self.y)
        return model.predict(self._cut(table, configuration))

    def _cut(self, table: Table, configuration: Configuration) -> Table:
        """Take the columns of a configuration under the names that its recipe gives them."""
        owner = {name: self.space.band_of(name) for name in configuration.variants}
        taken = [column for column in table.columns if column.rpartition(":")[0] in owner]
        names = {c: f"{owner[c.rpartition(':')[0]]}:{c.rpartition(':')[2]}" for c in taken}
        return take_columns(table, taken, names=names)

    def _judge(self, configuration: Configuration, members: list[tuple[str, ...]]) -> Evaluation:
        predicted = self._held_out(configuration, members)
        # Equal photos have equal predictions up to rounding errors, which must not decide about their ranks.
        predicted = np.round(predicted / (np.ptp(self.y) or 1.0), _DIGITS)
        splits = [srcc(self.y[test], predicted[test]) for _, test in self.folds]
        return Evaluation(tuple(map(float, splits)), self.space.gmacs(configuration))

    def _held_out(self, configuration: Configuration, members: list[tuple[str, ...]]) -> NDArray[np.float64]:
        scores = self._scorer(configuration.estimator, configuration.unit_band).score(members)
        columns = np.column_stack([score.oof_predictions for score in scores])
        combined, _ = cross_combine(configuration.combine, self.y, columns, self.folds)
        return combined

    def _members(self, configuration: Configuration) -> list[tuple[str, ...]]:
        if isinstance(configuration.members, str):
            return list_members(configuration.members, configuration.variants)[1]
        by_variant = {name: self.space.band_of(name) for name in configuration.variants}
        cut = cut_members(configuration.members, list(by_variant.values()))
        return [tuple(name for name, band in by_variant.items() if band in member) for member in cut]

    def _scorer(self, estimator: str, unit_band: bool) -> SubsetScorer:
        kind = (estimator, unit_band)
        if kind not in self._scorers:
            request = replace(
                self.space.recipe.regression,
                estimator=estimator,
                unit_band=unit_band,
                members="all",
                combine="uniform",
                band_weights=self._variant_weights(self.space.recipe.regression),
            )
            model = build_ensemble(request, self.folds, self._workers, reference=self._reference)
            self._scorers[kind] = SubsetScorer(self.table, self.y, model=model)
        return self._scorers[kind]

    def _variant_weights(self, regression: RegressionRequest) -> tuple[dict[str, float], ...]:
        return tuple(
            {variant.name: weight for band, weight in row.items() for variant in self.space.variants[band]}
            for row in regression.band_weights
        )
