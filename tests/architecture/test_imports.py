"""The direction of imports, and what a light start must leave out."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "open_clip")


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


SAVE_AND_LOAD = """
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from regressors.persistence import load_model, save_model

table = pd.DataFrame(np.eye(4), columns=list("abcd"))
with tempfile.TemporaryDirectory() as folder:
    load_model(save_model(Path(folder) / "model.skops", Ridge().fit(table, table["a"]), {}))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import regressors, regressors.ensemble, regressors.evaluation.metrics, regressors.persistence",
        "import featbank.table, featbank.datasets, featbank.bank, featbank.extract",
        "import featbank.runs.fit, featbank.runs.score",
        SAVE_AND_LOAD,  # skops looks through all of scikit-learn, which adapts other libraries where they are installed
    ],
)
def test_no_deep_learning_library_is_imported(statement: str) -> None:
    assert not modules_after(statement) & {*HEAVY, "dask"}


def test_regressors_know_nothing_of_images_and_features() -> None:
    loaded = modules_after(
        "import regressors.ensemble, regressors.persistence, regressors.evaluation.comparison"
    )
    assert not {"featbank", "experiments", "PIL", "simplejpeg"} & loaded


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("from featbank.cli import main\nmain(['--help'])")
    assert not {"numpy", "pandas", "sklearn", "PIL", "pyarrow", *HEAVY} & loaded


def test_import_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
