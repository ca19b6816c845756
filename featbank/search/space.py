"""What a search may choose, within the budget."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.errors import RunError
from featbank.recipes.reading import Recipe, SearchRequest, list_variants
from featbank.runs.model import build_ensemble, folds_of
from regressors.bands import take_columns
from regressors.checks import Table, is_within, sum_gmacs
from regressors.ensemble import NoSkillWarning, cross_combine, list_members
from regressors.evaluation.metrics import srcc
from regressors.search import PrecisionWarning
from regressors.subset_scores import SubsetScorer

LEFT_OUT = "no"
"""Choice of a band that a configuration does not use."""

OPTIONS = ("estimator", "unit_band", "members", "combine")
"""Keys of ``[regression]`` that a recipe can open to the search."""

MAX_EXHAUSTIVE = 4096
"""Most configurations that are evaluated one and all."""

_AVERAGES = ("uniform", "simplex")

Listed = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Configuration:
    """One point of the space.

    Attributes
    ----------
    variants : tuple of str
        Names of the chosen variants, in the recipe's order of bands; at most one of each band.
    members : str or tuple of tuple of str
        As in `RegressionRequest`.
    """

    variants: tuple[str, ...]
    estimator: str
    unit_band: bool
    members: str | Listed
    combine: str


class Space:
    """The configurations of a recipe that cost no more than the budget.

    Parameters
    ----------
    passes : mapping of str to (str, float)
        For each variant the name of its forward pass and its GMACs for one image.

    Raises
    ------
    RunError
        If nothing fits the budget, or a cost is unknown.
    """

    def __init__(self, recipe: Recipe, passes: Mapping[str, tuple[str, float]], budget_gmacs: float) -> None:
        self.recipe = recipe
        self.variants = list_variants(recipe)
        self.passes = dict(passes)
        self.budget_gmacs = budget_gmacs
        self._by_name = {variant.name: variant for row in self.variants.values() for variant in row}
        unknown = [name for name, (_, gmacs) in self.passes.items() if not math.isfinite(gmacs)]
        if unknown:
            raise RunError(
                f"search: the budget cannot be kept, because the cost of {', '.join(unknown)} is not known. Import the "
                "features again with --gmacs, 0 if their cost is not to count."
            )
        if not any(self._fits((name,)) for name in self._by_name):
            name, (_, gmacs) = min(self.passes.items(), key=lambda item: item[1][1])
            raise RunError(
                f"search: the budget of {budget_gmacs:g} GMACs admits no band; the cheapest is {name!r} with "
                f"{gmacs:.4g}. Raise --budget, or open smaller views by [search.view]."
            )

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Choices of each parameter as text: ``band:<name>`` for each band, then the open options."""
        choices = {
            f"band:{band}": (LEFT_OUT, *(variant.name for variant in row))
            for band, row in self.variants.items()
        }
        choices |= {name: tuple(values) for name, values in self._options.items() if len(values) > 1}
        return choices

    @cached_property
    def size(self) -> int:
        """Number of configurations, the budget aside."""
        n_options = math.prod(map(len, self._options.values()))
        return (math.prod(1 + len(row) for row in self.variants.values()) - 1) * n_options

    @cached_property
    def own(self) -> Configuration:
        """The recipe as it stands, the budget aside."""
        own = {name: getattr(self.recipe.regression, name) for name in OPTIONS}
        return Configuration(tuple(band.name for band in self.recipe.bands), **own)

    def band_of(self, variant: str) -> str:
        """Return the band of the recipe that a variant computes."""
        return self._by_name[variant].band

    def gmacs(self, configuration: Configuration) -> float:
        """Sum the GMACs of a configuration; each distinct pass pays once."""
        return sum_gmacs(self.passes[name] for name in configuration.variants)

    def is_feasible(self, configuration: Configuration) -> bool:
        """Whether a configuration has a band and keeps the budget."""
        return bool(configuration.variants) and self._fits(configuration.variants)

    def canonical(self, configuration: Configuration) -> Configuration:
        """Return the one spelling of configurations that are the same model.

        With one band every rule of members gives one member, and one member is itself under ``uniform`` and
        ``simplex``: the first such choice of the recipe stands for all.
        """
        members, combine = configuration.members, configuration.combine
        if isinstance(members, str) and len(configuration.variants) == 1:
            members = next(rule for rule in self._options["members"].values() if isinstance(rule, str))
        is_single = members == "all" or (isinstance(members, str) and len(configuration.variants) == 1)
        if is_single and combine in _AVERAGES:
            combine = next(rule for rule in self._options["combine"] if rule in _AVERAGES)
        return replace(configuration, members=members, combine=combine)

    def list_feasible(self, limit: int = MAX_EXHAUSTIVE) -> list[Configuration] | None:
        """List every distinct configuration within the budget, in a fixed order.

        Returns
        -------
        list of Configuration, or None
            None if there are more than ``limit``.
        """
        found = list(itertools.islice(self.iterate_feasible(), limit + 1))
        return None if len(found) > limit else found

    def iterate_feasible(self) -> Iterator[Configuration]:
        """Go through the distinct configurations within the budget, few bands first within each branch."""
        options = list(itertools.product(*(values.values() for values in self._options.values())))
        for names in self._subsets():
            seen: set[Configuration] = set()
            for values in options:
                configuration = self.canonical(Configuration(names, *values))
                if configuration not in seen:
                    seen.add(configuration)
                    yield configuration

    def to_params(self, configuration: Configuration) -> dict[str, str]:
        """Write a configuration as one choice for each parameter of ``choices``."""
        chosen = {self._by_name[name].band: name for name in configuration.variants}
        params = {f"band:{band}": chosen.get(band, LEFT_OUT) for band in self.variants}
        for name in OPTIONS:
            if name in self.choices:
                params[name] = _text(getattr(configuration, name))
        return params

    def from_params(self, params: Mapping[str, str]) -> Configuration:
        """Read a configuration, in its canonical spelling."""
        names = tuple(params[f"band:{band}"] for band in self.variants if params[f"band:{band}"] != LEFT_OUT)
        values = {name: known[params.get(name, next(iter(known)))] for name, known in self._options.items()}
        return self.canonical(Configuration(names, **values))

    def repair(self, configuration: Configuration, rng: np.random.Generator) -> Configuration:
        """Bring a configuration within the budget: drop bands in random order, or add one that fits."""
        names = list(configuration.variants)
        while names and not self._fits(names):
            names.pop(int(rng.integers(len(names))))
        if not names:
            fitting = [name for name in self._by_name if self._fits((name,))]
            names = [fitting[int(rng.integers(len(fitting)))]]
        return self.canonical(replace(configuration, variants=tuple(names)))

    def mutate(self, configuration: Configuration, rng: np.random.Generator) -> Configuration:
        """Change one randomly chosen parameter, then repair."""
        params = self.to_params(configuration)
        open_names = [name for name, values in self.choices.items() if len(values) > 1]
        name = open_names[int(rng.integers(len(open_names)))]
        others = [value for value in self.choices[name] if value != params[name]]
        params[name] = others[int(rng.integers(len(others)))]
        return self.repair(self.from_params(params), rng)

    def recipe_of(self, configuration: Configuration, title: str) -> Recipe:
        """Write a configuration as a recipe of its own, with nothing left to search."""
        by_variant = {name: self._by_name[name] for name in configuration.variants}
        bands = tuple(replace(variant.request, name=variant.band) for variant in by_variant.values())
        kept = [band.name for band in bands]
        old = self.recipe.regression
        weights = restrict_candidates(old.band_weights, kept)
        members = configuration.members
        if not isinstance(members, str):
            members = cut_members(members, kept)
        regression = replace(
            old,
            estimator=configuration.estimator,
            unit_band=configuration.unit_band,
            members=members,
            combine=configuration.combine,
            band_weights=weights,
            budget_gmacs=self.budget_gmacs,
        )
        return Recipe(
            bands=bands,
            regression=regression,
            name=self.recipe.name,
            title=title,
            source=self.recipe.source,
        )

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        """Values of each option by their text, the recipe's own first."""
        search = self.recipe.search or SearchRequest()
        return {
            name: {
                _text(value): value
                for value in [getattr(self.recipe.regression, name), *getattr(search, name)]
            }
            for name in OPTIONS
        }

    def _fits(self, names: Sequence[str]) -> bool:
        return is_within(sum_gmacs(self.passes[name] for name in names), self.budget_gmacs)

    def _subsets(self, start: int = 0, chosen: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        # Costs only grow with a subset, so a branch over the budget holds nothing within it.
        for place, row in enumerate(list(self.variants.values())[start:], start):
            for variant in row:
                names = (*chosen, variant.name)
                if self._fits(names):
                    yield names
                    yield from self._subsets(place + 1, names)


def restrict_candidates(
    candidates: Sequence[Mapping[str, float]], kept: Sequence[str]
) -> tuple[dict[str, float], ...]:
    """Cut candidates of band weights to the bands that are kept, each distinct one once."""
    cut = [{band: weight for band, weight in row.items() if band in kept} for row in candidates]
    return tuple(row for place, row in enumerate(cut) if row not in cut[:place])


def cut_members(members: Listed, kept: Sequence[str]) -> Listed:
    """Cut listed members to the bands that are kept; one member on all of them if nothing else is left."""
    cut = dict.fromkeys(tuple(band for band in kept if band in member) for member in members)
    return tuple(member for member in cut if member) or (tuple(kept),)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else "listed"


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
    table : DataFrame or BlockTable of shape (n_images, n_features)
        Columns ``variant:0000`` of every variant, training rows only.
    rows : DataFrame
        Same index, with ``mos`` and ``group``.
    workers : int or None
        Folds at once; None takes all processors.

    Raises
    ------
    RunError
        If the rows cannot be cut into folds as the recipe asks, or it learns from crops.
    """

    def __init__(
        self, space: Space, table: Table, rows: pd.DataFrame, workers: int | None, *, reference: bool = False
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

        Raises
        ------
        RunError
            If a configuration is over the budget, or the rows cannot be fitted.
        """
        for configuration in configurations:
            if not self.space.is_feasible(configuration):
                raise RunError(f"search: {configuration} is over the budget and must not be evaluated.")
        try:
            with warnings.catch_warnings():
                # The winner's own fit says both again.
                warnings.simplefilter("ignore", NoSkillWarning)
                warnings.simplefilter("ignore", PrecisionWarning)
                for kind in dict.fromkeys((c.estimator, c.unit_band) for c in configurations):
                    wanted = [c for c in configurations if (c.estimator, c.unit_band) == kind]
                    self._scorer(*kind).score(member for c in wanted for member in self._members(c))
                return [self._judge(configuration) for configuration in configurations]
        except ValueError as error:
            raise RunError(f"search: the {len(self.y)} training rows cannot be fitted: {error}") from error

    def fit_predict(self, configuration: Configuration, table: Table) -> NDArray[np.float64]:
        """Fit a configuration on all rows, by the way of a run, and predict others.

        Parameters
        ----------
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

    def _judge(self, configuration: Configuration) -> Evaluation:
        # Equal photos have equal predictions up to rounding errors, which must not decide about their ranks.
        predicted = np.round(self.held_out(configuration) / (np.ptp(self.y) or 1.0), _DIGITS)
        splits = [srcc(self.y[test], predicted[test]) for _, test in self.folds]
        return Evaluation(tuple(map(float, splits)), self.space.gmacs(configuration))

    def held_out(self, configuration: Configuration) -> NDArray[np.float64]:
        """Return the held-out predictions of a configuration, shape (n_images,), nan in rows that no fold tests."""
        scorer = self._scorer(configuration.estimator, configuration.unit_band)
        columns = np.column_stack(scorer.score(self._members(configuration)))
        return cross_combine(configuration.combine, self.y, columns, self.folds)[0]

    def _members(self, configuration: Configuration) -> list[tuple[str, ...]]:
        if isinstance(configuration.members, str):
            return list_members(configuration.members, configuration.variants)[1]
        by_variant = {name: self.space.band_of(name) for name in configuration.variants}
        cut = cut_members(configuration.members, list(by_variant.values()))
        return [tuple(name for name, band in by_variant.items() if band in member) for member in cut]

    def _scorer(self, estimator: str, unit_band: bool) -> SubsetScorer:
        kind = (estimator, unit_band)
        if kind not in self._scorers:
            regression = self.space.recipe.regression
            weights = tuple(
                {
                    variant.name: weight
                    for band, weight in row.items()
                    for variant in self.space.variants[band]
                }
                for row in regression.band_weights
            )
            request = replace(regression, estimator=estimator, unit_band=unit_band, band_weights=weights)
            model = build_ensemble(request, self.folds, self._workers, reference=self._reference)
            self._scorers[kind] = SubsetScorer(self.table, self.y, model)
        return self._scorers[kind]
