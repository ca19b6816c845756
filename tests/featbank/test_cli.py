"""The command line: exit codes, one JSON document, sentences instead of tracebacks, a quick start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featbank.cli import COMMANDS, main
from tests.support.datasets import write_image
from tests.support.imported_run import RECIPE, prepare, write_scores


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert "--json" in text
    assert f"featbank {name}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fitt"],
        ["fit"],
        ["fit", "x", "--recip", "y"],
        ["features", "x", "--workers", "0"],
        ["list", "nothing"],
        ["bank"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fit", "bank"])
def test_help_with_a_command_is_that_commands_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", name]) == 0
    asked = capsys.readouterr().out
    assert main([name, "--help"]) == 0
    assert asked == capsys.readouterr().out
    assert main(["help", "fitt"]) == 2
    assert "`featbank fit`" in capsys.readouterr().err


def test_a_recipe_over_its_budget_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.toml"
    band = '[[band]]\nname = "a"\nencoder = "classic:layout"\nview = "squash_64x64"\n'
    for limit, code in ((50.0, 0), (1e-9, 1)):
        recipe.write_text(f"recipe_version = 1\n{band}[regression]\nbudget_gmacs = {limit}\n")
        assert main(["budget", str(recipe)]) == code
    assert "OVER the budget" in capsys.readouterr().out


def test_features_of_unreadable_photos_alone_end_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["features", str(tmp_path / "photos"), "--recipe", "weight-free", "--workers", "1"]
    command += ["--bank", str(tmp_path / "bank")]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"\xff\xd8 cut short")
    for _ in range(2):  # computed, and remembered
        assert main(command) == 1
        assert "1 failed" in capsys.readouterr().out
    write_image(tmp_path / "photos" / "b.png")
    assert main(command) == 0


def test_a_reader_that_goes_away_sees_no_traceback() -> None:
    for arguments in (["list", "encoders"], ["--help"], ["help", "fit"], ["list", "recipes", "--json"]):
        receiver, sender = os.pipe()
        os.close(receiver)
        command = [sys.executable, "-m", "featbank", *arguments]
        done = subprocess.run(command, stdout=sender, stderr=subprocess.PIPE, check=False, text=True)
        os.close(sender)
        assert done.returncode in {0, 141}  # argparse passes over it
        assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is a Linux thing")
def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "featbank", "list", "views"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("featbank: the result cannot be written")
    assert done.stderr.count("\n") == 1


def test_a_typo_in_a_command_names_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fitt"])
    assert "`featbank fit`" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["encoders", "views", "recipes", "datasets"])
def test_lists_are_one_json_document(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)[what]
    assert len(rows) >= 1


def test_budget_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "starter", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gmacs"] == pytest.approx(sum(band["gmacs"] for band in document["bands"]))
    assert document["within_budget"] is True


def test_errors_are_json_too_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere"), "--json"]) == 1
    captured = capsys.readouterr()
    assert "nowhere" in json.loads(captured.out)["error"]
    assert "Traceback" not in captured.err


def test_check_reads_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write_scores(tmp_path)), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n_images"] == 160


def test_cuda_is_refused_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png")
    code = main(["features", str(tmp_path), "--device", "cuda", "--bank", str(tmp_path / "bank")])
    if code == 0:
        pytest.skip("this machine has a CUDA device")
    assert "--device cuda" in capsys.readouterr().err


def test_bank_commands_on_imported_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path)
    (tmp_path / "r.toml").write_text(RECIPE)
    bank = ["--bank", str(tmp_path / "bank")]
    assert main(["bank", "ls", *bank, "--json"]) == 0
    features = json.loads(capsys.readouterr().out)["features"]
    labels = {f"imported:{name} (csv:scores in {tmp_path})" for name in ("sharp", "noise", "dull")}
    assert {row["feature"] for row in features} == labels
    assert main(["bank", "verify", *bank]) == 0
    target = tmp_path / "out.csv"
    export = [
        "bank",
        "export",
        str(target),
        "--data",
        str(tmp_path / "scores.csv"),
        "--recipe",
        str(tmp_path / "r.toml"),
    ]
    assert main([*export, *bank]) == 0
    assert len(target.read_text().splitlines()) == 161
    # Imported features cannot be computed again: pruning for another recipe leaves them.
    assert main(["bank", "prune", "--recipe", "starter", "--yes", *bank]) == 0
    capsys.readouterr()
    assert main(["bank", "ls", *bank, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["features"]) >= 3


def test_verify_finds_a_flipped_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path)
    shard = next((tmp_path / "bank").rglob("*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    assert main(["bank", "verify", "--bank", str(tmp_path / "bank")]) == 1
    assert shard.name in capsys.readouterr().out


def test_an_interruption_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featbank.datasets.read_dataset", interrupted)
    assert main(["check", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_interruption_that_an_import_made_an_error_of_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("Importing the C-extensions failed.") from error

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("featbank.datasets.read_dataset", interrupted)
    assert main(["check", str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_a_killed_worker_is_one_sentence_and_the_rest_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "featbank", "demo", str(tmp_path / "demo"), "--photos", "30"]
    command += ["--width", "640", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60.0
    while not list((tmp_path / "demo").rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, message = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert "Traceback" not in message
    assert "fewer --workers" in message
    assert subprocess.run(command, check=False).returncode == 0


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "featbank", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("featbank ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_can_complete_commands_and_their_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(
        word in script for word in ("leaderboard", "--recipe" if shell != "tcsh" else "recipe", "verify")
    )


def test_completion_of_an_unknown_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "fish"]) == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err


def test_quiet_keeps_errors_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "demo"), "--photos", "20", "--width", "320", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", str(tmp_path / "nowhere"), "-q"]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_verbose_shows_the_traceback_of_a_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("featbank.datasets.list_datasets", fail)
    assert main(["list", "datasets", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
