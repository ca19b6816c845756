"""What a stranger put into a folder, a recipe or a model is not run, and nothing of a command outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featbank.cli import main
from featbank.commands import say
from featbank.errors import RunError, redact
from tests.featbank.encoders.test_custom import CODE
from tests.support.datasets import write_csv, write_image

SHADOWED = """
argparse contextlib ctypes dataclasses inspect joblib json matplotlib numba numpy optuna pandas
pickle PIL pyarrow random re runpy sitecustomize sklearn scipy secrets signal socket string subprocess
tempfile threading torch tqdm typing usercustomize warnings weakref yaml
"""
"""Modules that some process of a command imports, and that lie in the folder it is called in.

Not `importlib`: `python -m` itself imports it, before any module of ours, where nothing else has done so at start.
"""

WITNESS = """
import os
open(os.environ["FEATBANK_TEST_WITNESS"], "a").write(__name__ + " " + open("/proc/self/cmdline").read() + "\\n")
raise SystemExit(3)
"""

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_64x64"
[[band]]
name = "gist"
encoder = "classic:gist"
view = "squash_64x64"
[regression]
estimator = "{estimator}"
alpha = [1.0, 100.0]
C = [1.0]
epsilon = [0.1]
gamma = [1.0]
cv = {{ kind = "grouped", n_splits = 3, shuffle = true, random_state = 0 }}
"""

COMMANDS = """
check scores.csv --workers 2
features scores.csv --workers 2
fit scores.csv --workers 2 --reference --out ../reference
fit scores.csv --workers 2 --out ../run
fit scores.csv --recipe svr.toml --workers 2 --out ../svr
score ../run/model.skops img --workers 2 --bank ../other
search scores.csv --workers 2 --out ../search
report ../run
evaluate ../run/predictions.csv
ladder ../run img --sizes 24 --workers 2
report ../run ../svr --out ../compared
protocol repeated scores.csv --splits 2 --workers 2 --out ../repeated
leaderboard
bank ls
bank verify
bank export ../features.parquet --data scores.csv
bank prune
budget ridge.toml
list encoders
list recipes
weights list
doctor
demo ../demo --photos 20 --width 320 --workers 2
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")


def arguments(line: str) -> list[str]:
    """Add what the commands need: the recipe and the bank."""
    words = line.split()
    kind = " ".join(words[:2]) if words[0] == "bank" else words[0]
    if kind in {"features", "fit", "search", "protocol", "bank export"} and "--recipe" not in words:
        words += ["--recipe", "ridge.toml"]
    takes_bank = kind in {"features", "fit", "search", "score", "protocol", "doctor"} or words[0] == "bank"
    return words + (["--bank", "../bank"] if takes_bank and "--bank" not in words else [])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A downloaded folder: forty photos, their scores, and modules under the names of others."""
    folder = tmp_path / "dataset"
    for n in range(40):
        write_image(folder / "img" / f"{n:02d}.png", seed=n)
    rows = [
        (f"img/{n:02d}.png", 1 + n * 7 % 13 / 3, "training" if n < 28 else "test", f"g{n % 14}")
        for n in range(40)
    ]
    write_csv(folder / "scores.csv", ["path", "mos", "split", "group"], rows)
    for kind, name in (("ridge", "ridge"), ("rbf-svr", "svr")):
        (folder / f"{name}.toml").write_text(RECIPE.format(estimator=kind))
    return folder


def run_hostile(dataset: Path, lines: list[str], program: list[str], **variables: str) -> None:
    for name in SHADOWED.split():
        (dataset / f"{name}.py").write_text(WITNESS)
    (dataset / ".numba_config.yaml").write_text("cache_dir: compiled\n")
    witness = dataset.parent / "witness"
    for line in lines:
        done = subprocess.run(
            [*program, *arguments(line)],
            cwd=dataset, env=os.environ | {"FEATBANK_TEST_WITNESS": str(witness)} | variables,
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert not witness.exists(), f"{line}: {witness.read_text()}"
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert not (dataset / "compiled").exists()


@linux_only
def test_what_lies_in_the_current_folder_is_not_imported(dataset: Path) -> None:
    lines = COMMANDS.strip().splitlines()
    run_hostile(dataset, lines[:1], [sys.executable, "-m", "featbank"])
    run_hostile(dataset, lines[1:2], [str(Path(sys.executable).with_name("featbank"))])


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("program", ["script", "module"])
def test_no_command_imports_from_the_current_folder(program: str, dataset: Path) -> None:
    script = [str(Path(sys.executable).with_name("featbank"))]
    run_hostile(
        dataset,
        COMMANDS.strip().splitlines(),
        script if program == "script" else [sys.executable, "-m", "featbank"],
    )


OTHERS_RECIPE = """
recipe_version = 1
[[band]]
name = "mean"
encoder = "file:mine.py:Brightness"
view = "squash_8x8"
[regression]
alpha = [1.0]
cv = { kind = "grouped", n_splits = 3, shuffle = true, random_state = 0 }
"""


@pytest.fixture
def others(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset with a recipe whose encoder, in a file, leaves a mark when it is run."""
    mark = f"import pathlib; pathlib.Path({str(dataset / 'ran')!r}).touch()\n"
    (dataset / "mine.py").write_text(mark + CODE.replace("FACTOR", "255"))
    (dataset / "others.toml").write_text(OTHERS_RECIPE)
    monkeypatch.chdir(dataset)
    monkeypatch.delenv("FEATBANK_ALLOW_CODE", raising=False)
    return dataset


def others_arguments(line: str) -> list[str]:
    words = arguments(line.replace("scores.csv", "scores.csv --recipe others.toml"))
    return [word.replace("ridge.toml", "others.toml") for word in words]


RUNNING = """
budget ridge.toml
features scores.csv --workers 2
fit scores.csv --workers 1 --out ../run
search scores.csv --workers 1 --outer-folds 0 --out ../search
protocol repeated scores.csv --splits 2 --workers 1 --out ../repeated
score ../run/model.skops img/00.png --workers 1
"""
"""Commands that need what an encoder computes, or what it costs, in an order in which they work."""


def test_a_recipe_runs_code_only_where_the_user_says_so(
    others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = others / "ran"
    for line in RUNNING.strip().splitlines():
        assert main(others_arguments(line)) == 1, line
        assert "mine.py (SHA-256" in capsys.readouterr().err
        assert not mark.exists(), line
        assert main([*others_arguments(line), "--allow-code"]) == 0, f"{line}: {capsys.readouterr().err}"
        assert mark.exists(), line
        mark.unlink()

    # What is stored is found, kept and shown by the file's digest.
    for line in (
        "bank export ../features.csv --data scores.csv",
        "bank prune --recipe others.toml --yes",
        "bank export ../again.csv --data scores.csv",
        "report ../run",
        "bank verify",
    ):
        assert main(others_arguments(line)) == 0, f"{line}: {capsys.readouterr().err}"
    exported = (others.parent / "features.csv").read_text()
    assert len(exported.splitlines()) == 41
    assert (others.parent / "again.csv").read_text() == exported
    assert not mark.exists()

    # An allowed file is not any file: the model names the one it was fitted with.
    code = others / "mine.py"
    code.write_text(code.read_text().replace("/ 255", "/ 25"))
    assert main([*others_arguments(RUNNING.strip().splitlines()[-1]), "--allow-code"]) == 1
    assert "is another one here, and was not run" in capsys.readouterr().err
    assert not mark.exists()
    assert main(others_arguments("bank prune --recipe others.toml --yes")) == 0
    assert "(40 rows) removed" in capsys.readouterr().out


def test_new_weights_beside_unchanged_code_are_new_features(others: Path) -> None:
    code = others / "mine.py"
    text = code.read_text().replace("(Encoder):\n", "(Encoder):\n    files = ('factor.txt',)\n\n")
    code.write_text(text.replace("/ 255", "/ float(np.loadtxt('factor.txt'))"))
    exports = []
    for factor in ("100", "50"):
        (others / "factor.txt").write_text(factor)
        assert main(others_arguments("bank export ../e.csv --data scores.csv")) == 1
        assert main([*others_arguments("features scores.csv --workers 1"), "--allow-code"]) == 0
        assert main(others_arguments("bank export ../e.csv --data scores.csv")) == 0
        exports.append(np.loadtxt(others.parent / "e.csv", delimiter=",", skiprows=1, usecols=(1, 2, 3)))
    np.testing.assert_allclose(exports[1], 2 * exports[0], rtol=1e-6)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:S3CRET@host/db", "s3://AKIA:S3CR/S3CRET@bucket/a", "s3://S3CRET@bucket", "x://h/a?n=1&Token=S3CRET#f",
        "https://h/a?X-Amz-Signature=S3CRET&X-Amz-Credential=S3CRET", "bad 'db://me:S3CRET@h/x' and \"s3://S3CRET@b\"",
    ],
)  # fmt: skip
def test_no_credential_stays_in_a_text(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "S3CR" not in redact(url)
    assert "S3CR" not in str(RunError(f"search: cannot use {url}."))
    assert (
        redact("s3:/me:S3CR@host/x C:/me/a@b.jpg") == "s3:/***@host/x C:/me/a@b.jpg"
    )  # as a path object writes it
    say(url)
    assert "S3CR" not in capsys.readouterr().err
    assert redact("s3://bucket/a b@c.jpg?n=1 x@y.org") == "s3://bucket/a b@c.jpg?n=1 x@y.org"


@pytest.mark.parametrize(
    "line",
    [
        "bank ls --bank nosuch://me:S3CRET@bucket/bank",
        "features nosuch://me:S3CRET@bucket/photos --workers 1",
        "check nosuch://bucket/photos?token=S3CRET",
    ],
)
def test_no_credential_reaches_a_message_or_a_file(
    line: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(dataset)
    assert main([*arguments(line), "--json"]) == 1
    said = capsys.readouterr()
    assert "nosuch" in said.err
    assert "S3CRET" not in said.err + said.out
    assert not [p for p in dataset.parent.rglob("*") if p.is_file() and b"S3CRET" in p.read_bytes()]
