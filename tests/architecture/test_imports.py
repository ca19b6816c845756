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


@pytest.mark.parametrize(
    "statement",
    [
        "import regressors, regressors.ensemble, regressors.evaluation.metrics, regressors.persistence",
        "import featbank.table, featbank.datasets, featbank.bank, featbank.extract",
        "import featbank.runs.fit, featbank.runs.score",
    ],
)
def test_no_deep_learning_library_is_needed(statement: str) -> None:
    # Barred instead of looked for: where torch is installed, skops lets scikit-learn import it for itself.
    bar = (
        "import sys\n"
        "class Bar:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {HEAVY!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is barred', name=name)\n"
        "sys.meta_path.insert(0, Bar())"
    )
    assert not modules_after(f"{bar}\n{statement}") & set(HEAVY)


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
