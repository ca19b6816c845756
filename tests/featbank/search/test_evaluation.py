"""A configuration's value is what its ensemble earns on held-out rows, whatever was evaluated before."""

from dataclasses import replace

import numpy as np
import pytest

from featbank.errors import RunError
from featbank.runs.model import build_ensemble
from featbank.search.space import NO_SKILL, Configuration, Evaluation, Evaluator
from regressors.evaluation.metrics import srcc
from tests.support.search_study import SEARCH, study_parts


@pytest.mark.parametrize("members", ["all", "each", "all+leave-one-out"])
@pytest.mark.parametrize("combine", ["uniform", "nnls", "simplex"])
@pytest.mark.parametrize(("estimator", "unit_band"), [("ridge", False), ("ridge", True), ("rbf-svr", True)])
def test_the_value_is_that_of_the_ensemble_fitted_by_a_run(
    members: str, combine: str, estimator: str, unit_band: bool
) -> None:
    space, X, rows = study_parts(["a", "c", "g"], search=SEARCH)
    evaluator = Evaluator(space, X, rows, 1)
    configuration = Configuration(("a", "g"), estimator, unit_band, members, combine)
    [found] = evaluator.evaluate([configuration])
    request = space.recipe_of(configuration, "").regression
    columns = [column for column in X.columns if column[0] in "ag"]
    model = build_ensemble(request, evaluator.folds, 1).fit(X[columns], evaluator.y)
    expected = [srcc(evaluator.y[test], model.oof_predictions_[test]) for _, test in evaluator.folds]
    assert found.splits == pytest.approx(expected, abs=1e-9)
    assert found.gmacs == pytest.approx(32.0)
    assert np.allclose(evaluator.held_out(configuration), model.oof_predictions_, atol=1e-8)


def test_values_do_not_depend_on_what_was_evaluated_before() -> None:
    space, X, rows = study_parts(search=SEARCH)
    listed = (space.list_feasible() or [])[::97]
    together = Evaluator(space, X, rows, 1).evaluate(listed)
    one_by_one = Evaluator(space, X, rows, 1)
    assert [one_by_one.evaluate([c])[0] for c in reversed(listed)] == together[::-1]


def test_a_configuration_over_the_budget_is_never_evaluated() -> None:
    space, X, rows = study_parts(budget=25.0)
    with pytest.raises(RunError, match="over the budget"):
        Evaluator(space, X, rows, 1).evaluate([space.own])


def test_crops_as_rows_are_refused() -> None:
    space, X, rows = study_parts(["a"])
    space.recipe = replace(space.recipe, regression=replace(space.recipe.regression, rows="crops"))
    with pytest.raises(RunError, match="crops"):
        Evaluator(space, X, rows, 1)


def test_without_skill_the_value_is_the_worst() -> None:
    assert Evaluation((0.5, float("nan")), 1.0).value == NO_SKILL
    assert Evaluation((0.5, 0.7), 1.0).value == pytest.approx(0.6)


def test_predictions_of_other_rows_are_those_of_the_runs_model() -> None:
    space, X, rows = study_parts(["a", "c", "g"])
    evaluator = Evaluator(space, X.iloc[:60], rows.iloc[:60], 1)
    chosen = Configuration(("a", "c"), "ridge", False, "each", "nnls")
    predicted = evaluator.fit_predict(chosen, X.iloc[60:])
    request = space.recipe_of(chosen, "").regression
    columns = [column for column in X.columns if column[0] in "ac"]
    model = build_ensemble(request, evaluator.folds, 1).fit(X[columns].iloc[:60], evaluator.y)
    assert np.allclose(predicted, model.predict(X[columns].iloc[60:]), atol=1e-10)
