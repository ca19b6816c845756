"""scikit-learn's common checks on every public estimator, found by discovery."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

import regressors
from regressors.bands import BandScaler, SelectBands
from regressors.ensemble import BandEnsemble
from regressors.novelty import BandNovelty
from regressors.pipelines import make_pipeline
from regressors.search import BandGridSearchCV
from regressors.svr import UnitSVR

# Shipped classes with small grids and few folds; to add an estimator, add a line here.
INSTANCES: dict[type, list[Any]] = {
    SelectBands: [SelectBands()],
    BandScaler: [BandScaler(), BandScaler(unit_band=True)],
    BandGridSearchCV: [
        BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [0.1, 10.0]}, cv=2, error_score="raise"),
        BandGridSearchCV(make_pipeline("rbf-svr"), {"regress__C": [1.0, 10.0]}, cv=2, error_score="raise"),
    ],
    UnitSVR: [UnitSVR(tol=1e-8), UnitSVR("linear", C=0.1, tol=1e-8)],
    BandEnsemble: [
        BandEnsemble(alpha=[0.1, 10.0], cv=3),
        BandEnsemble(
            "each", estimator="banded-ridge", alpha=[1.0], cv=2, combine="simplex", select_by="rmse"
        ),
        BandEnsemble("all", estimator="rbf-svr", C=[10.0], epsilon=[0.1], gamma=[0.3, 1.0], cv=2),
    ],
    BandNovelty: [BandNovelty(), BandNovelty(share=0.1, cv=2)],
}

EXPECTED_FAILURES: dict[type, dict[str, str]] = {}


def public_estimators() -> set[type]:
    found = set()
    for module in pkgutil.iter_modules(regressors.__path__):
        for name, thing in inspect.getmembers(
            importlib.import_module(f"regressors.{module.name}"), inspect.isclass
        ):
            if (
                issubclass(thing, BaseEstimator)
                and not name.startswith("_")
                and thing.__module__.startswith("regressors.")
            ):
                found.add(thing)
    return found


def test_every_public_estimator_is_checked() -> None:
    assert public_estimators() == set(INSTANCES)


_MARK = parametrize_with_checks(
    [instance for instances in INSTANCES.values() for instance in instances],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator), {}),
)


# scikit-learn before 1.8 hands pytest a generator, which pytest 9 warns about.
@pytest.mark.parametrize(_MARK.args[0], list(_MARK.args[1]), **_MARK.kwargs)
def test_scikit_learn_common_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", [i for instances in INSTANCES.values() for i in instances], ids=repr)
def test_repr_names_what_was_changed(estimator: Any) -> None:
    defaults = {k: p.default for k, p in inspect.signature(type(estimator)).parameters.items()}
    changed = {k for k, v in estimator.get_params(deep=False).items() if v != defaults[k]}
    assert all(name in repr(estimator) for name in changed)
