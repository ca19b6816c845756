"""The built wheel and sdist work from clean environments, outside the checkout, beside a user's own `experiments/`.

Run by `make dist`, which names the folder of both by FEATBANK_DIST.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

DIST = os.environ.get("FEATBANK_DIST", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DIST, reason="FEATBANK_DIST names no built distribution"),
]

# FEATBANK_PYTHONS may name folders of interpreters, as PATH does; by default PATH is looked through.
NAMES = [f"python3.{minor}" for minor in range(11, 15)]
FOUND = [shutil.which(name, path=os.environ.get("FEATBANK_PYTHONS")) for name in NAMES]
PYTHONS = [path for path in FOUND if path] or [sys.executable]


def built(ending: str) -> Path:
    (path,) = (Path(DIST).resolve()).glob(f"featbank-*{ending}")
    return path


def run(*command: object, cwd: Path) -> str:
    # Nothing of the checkout may help: no PYTHONPATH, another working directory.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FEATBANK"))
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_both_packages_and_their_data_and_nothing_else() -> None:
    names = zipfile.ZipFile(built(".whl")).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"featbank", "regressors"}
    for needed in ("featbank/py.typed", "featbank/recipes/starter.toml", "featbank/report/style.css"):
        assert needed in names
    assert any(name.startswith("featbank/encoders/students/mobile/") for name in names)


def test_the_sdist_holds_what_the_wheel_is_built_from() -> None:
    with tarfile.open(built(".tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "featbank/recipes/starter.toml"} <= names


@pytest.mark.parametrize("ending", [".whl", ".tar.gz"])
@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: Path(path).name)
def test_the_chain_runs_in_a_clean_environment(python: str, ending: str, tmp_path: Path) -> None:
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "pip", "install", "--quiet", built(ending), cwd=tmp_path)
    work = tmp_path / "work"
    (work / "experiments").mkdir(parents=True)
    (work / "experiments" / "__init__.py").write_text("raise RuntimeError('a folder of the user')")
    featbank = bin_ / "featbank"
    version = run(featbank, "--version", cwd=work).split()[1]
    assert built(ending).name.startswith(f"featbank-{version}")
    run(featbank, "demo", "demo", "--photos", "40", "--width", "640", cwd=work)
    run(featbank, "features", "demo", "--recipe", "starter", cwd=work)
    run(featbank, "fit", "demo", "--recipe", "starter", "--permutations", "0", cwd=work)
    run(featbank, "report", "runs/starter", cwd=work)
    assert (work / "runs/starter/report.html").stat().st_size > 10_000
    photo = next((work / "demo/test").glob("*.jpg"))
    assert photo.name in run(featbank, "score", "runs/starter", photo, cwd=work)
    names = run(bin_ / "python", "-c", "import featbank; print(*dir(featbank))", cwd=work)
    assert "read_dataset" in names.split()
