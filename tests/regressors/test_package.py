"""The package as a whole: light to import, documented, its examples true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import regressors

MODULES = sorted(
    module.name.removeprefix("regressors.")
    for module in pkgutil.walk_packages(regressors.__path__, "regressors.")
    if not module.ispkg
)


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import regressors") & {"numpy", "pandas", "scipy", "sklearn", "skops"}


@pytest.mark.parametrize("name", sorted(regressors.__all__))
def test_public_names_are_there_and_documented(name: str) -> None:
    thing = getattr(regressors, name)
    assert thing is not None
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert inspect.getdoc(thing)
        assert thing.__module__.startswith("regressors.")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'srocc'"):
        regressors.srocc  # noqa: B018 - the access is what is tested
    assert set(regressors.__all__) <= set(dir(regressors))


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"regressors.{module}")).failed == 0


@pytest.mark.parametrize("name", sorted(regressors.__all__))
def test_public_functions_document_every_parameter(name: str) -> None:
    thing = getattr(regressors, name)
    if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, (Exception, Warning))):
        documented = inspect.getdoc(thing) or ""
        for parameter in inspect.signature(thing).parameters:
            assert parameter in documented, f"{name} does not document {parameter}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_readable(module: str) -> None:
    path = Path(regressors.__path__[0]) / f"{module.replace('.', '/')}.py"
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 600
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} guards users by assert"
