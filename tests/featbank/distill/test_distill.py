"""Distilling a real run on a small demo set, from the command line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
pytest.importorskip("onnx", reason="needs the optional packages of students")

from featbank.cli import main  # noqa: E402 - torch may be missing
from featbank.encoders import make_encoder  # noqa: E402
from featbank.encoders.student import students_folder  # noqa: E402
from tests.support.small_demo import small_demo  # noqa: E402

pytestmark = pytest.mark.slow

TEACHER = """\
recipe_version = 1
title = "Two bands"

[[band]]
name = "quality"
encoder = "classic:nss"
view = "width_256"

[[band]]
name = "layout"
encoder = "classic:layout"
view = "square_320"

[regression]
members = "all"
estimator = "ridge"
alpha = [1.0, 10.0, 100.0]
cv = { kind = "grouped", n_splits = 3, shuffle = true, random_state = 0 }
"""
OPTIONS = [
    "--view",
    "tiles_2x2/center_64",
    "--steps",
    "25",
    "--settle-steps",
    "20",
    "--crops",
    "6",
    "--workers",
    "1",
    "--start",
    "none",
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    small_demo(folder / "demo", n_photos=40)
    small_demo(folder / "more", n_photos=20, seed=1)
    (folder / "two.toml").write_text(TEACHER)
    bank = ["--bank", str(folder / "bank")]
    assert main(["features", str(folder / "demo"), "--recipe", str(folder / "two.toml"), *bank]) == 0
    run = ["--out", str(folder / "run")]
    assert main(["fit", str(folder / "demo"), "--recipe", str(folder / "two.toml"), *bank, *run]) == 0
    return folder


def _arguments(folder, name, *more):
    return [
        "distill", str(folder / "demo"), "--teacher", str(folder / "run"), "--out", name,
        "--bank", str(folder / "bank"), *OPTIONS, *more,
    ]  # fmt: skip


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_student_is_an_encoder_like_any_other(taught, weights, capsys):
    # Of the further photographs those of the dataset itself, its test photographs too, are passed over.
    further = ["--further", str(taught / "more"), str(taught / "demo")]
    assert main([*_arguments(taught, "pupil", *further), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "held-out SRCC to the teacher" in captured.err
    folder = students_folder() / "pupil"
    assert sorted(path.name for path in folder.iterdir()) == [
        ".featbank.json", "README.md", "network.onnx", "receipt.json", "student.json", "weights.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in students_folder().iterdir()) == ["pupil"]
    encoder = make_encoder("featbank:pupil")
    vectors = encoder.encode(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8))
    assert vectors.shape == (2, 128)
    assert 4 * encoder.count_macs(64, 64) / 1e9 == pytest.approx(result["gmacs"])
    assert {(entry["rows"], entry["learned"]) for entry in result["agreement"]} >= {
        ("training", True), ("test", False), ("further", True),
    }  # fmt: skip
    assert result["n_learned"] == 18 + 20
    assert result["settled"]["after"] <= result["settled"]["before"]
    assert json.loads((folder / "receipt.json").read_text())["encoder"] == "featbank:pupil"
    assert "simulation" in (folder / "README.md").read_text()
    assert main(["list", "encoders"]) == 0
    assert "featbank:pupil" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_student_and_another_another(taught, weights):
    digests = set()
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        assert main(_arguments(taught, name, "--seed", str(seed))) == 0
        digests.add((students_folder() / name / "weights.safetensors").read_bytes())
    assert len(digests) == 2


def test_a_killed_call_goes_on_to_the_same_student(taught, weights, tmp_path):
    assert main(_arguments(taught, "whole")) == 0
    # Killed in the middle of the training, after a checkpoint.
    script = f"""
import os, signal, sys
from featbank.distill import training
training.time.monotonic = iter(range(0, 10**6, 1000)).__next__
saved = training._save
def save(path, digest, step, *rest):
    saved(path, digest, step, *rest)
    if step == 11:
        os.kill(os.getpid(), signal.SIGKILL)
training._save = save
from featbank.cli import main
main({_arguments(taught, "halted")!r})
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert not (students_folder() / "halted").exists()
    assert (students_folder() / ".halted.training" / "checkpoint.pt").is_file()
    assert main(_arguments(taught, "halted")) == 0
    whole, halted = (
        (students_folder() / name / "weights.safetensors").read_bytes() for name in ("whole", "halted")
    )
    assert whole == halted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--out", "../up"], "plain word"),
        (["--view", "short_512"], "one size at one scale"),
        (["--student", "resnet18"], "MobileNet V3 or V4"),
        (["--teacher", "nowhere"], "nowhere"),
        (["--steps", "0"], "start from a shipped student"),
        (["--further", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_distilled_is_said_in_a_sentence(taught, weights, capsys, changes, message):
    assert main([*_arguments(taught, "pupil"), *changes]) != 0
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
