"""Nothing that happens on the way costs finished work: kills, rivals, full disks, broken files.

The commands run as processes, as a user runs them, where a process is what may be harmed.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.bank import Bank
from featbank.bank.bank import STAT_CACHE_NAME
from featbank.cli import main
from tests.support.odd_files import write_odd_files

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_64x64"
[[band]]
name = "keypoint"
encoder = "classic:keypoint"
view = "center_96"
"""

COMMAND = [sys.executable, "-m", "featbank"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 small photos, a recipe, and the bank that an undisturbed command makes; not to be changed."""
    folder = tmp_path_factory.mktemp("robustness")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(40):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(
            folder / "photos" / f"{number:02d}.jpg", quality=90
        )
    (folder / "recipe.toml").write_text(RECIPE)
    assert main(command(folder, "undisturbed", "--workers", "1")[len(COMMAND) :]) == 0
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """The same in a folder of one's own."""
    return Path(shutil.copytree(made, tmp_path / "project"))


def command(project: Path, bank: str, *options: str) -> list[str]:
    recipe = str(project / "recipe.toml")
    return [
        *COMMAND,
        "features",
        str(project / "photos"),
        "--recipe",
        recipe,
        "--bank",
        str(project / bank),
        *options,
    ]


def features(project: Path, bank: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, bank, *options), capture_output=True, text=True, check=False, timeout=300
    )


def contents(bank: Path) -> dict[str, bytes]:
    """Bytes of every file of a bank after compaction.

    Left out are the log of seconds and what one machine remembers. What kills left is swept by opening the bank.
    """
    opened = Bank(bank)
    assert not opened.verify()
    opened.compact()
    return {
        str(path.relative_to(bank)): path.read_bytes()
        for path in sorted(bank.rglob("*"))
        if path.is_file() and path.name not in ("extractions.jsonl", STAT_CACHE_NAME)
    }


def kill_in_a_row(project: Path, n_kills: int, longest_s: float) -> None:
    rng = random.Random(0)
    for _ in range(n_kills):
        process = subprocess.Popen(
            command(project, "killed", "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0.05, longest_s))
        if rng.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)  # the workers with it
        else:
            process.kill()  # the caller alone: the workers are orphaned
        process.wait()


def check_kills(project: Path, n_kills: int) -> None:
    started = time.monotonic()
    assert features(project, "timed", "--workers", "2").returncode == 0
    kill_in_a_row(project, n_kills, longest_s=1.2 * (time.monotonic() - started))
    assert not Bank(project / "killed").verify()
    finished = features(project, "killed")
    assert finished.returncode == 0, finished.stderr
    expected = contents(project / "undisturbed")
    assert contents(project / "timed") == expected
    assert contents(project / "killed") == expected


def test_a_few_kills_leave_the_bank_as_an_undisturbed_one(project: Path) -> None:
    check_kills(project, 3)


@pytest.mark.slow
def test_a_hundred_kills_leave_the_bank_as_an_undisturbed_one(project: Path) -> None:
    check_kills(project, 100)


def test_two_processes_at_once_give_the_bank_of_one(project: Path) -> None:
    rivals = [subprocess.Popen(command(project, "shared", "--workers", "1")) for _ in range(2)]
    assert [rival.wait(timeout=300) for rival in rivals] == [0, 0]
    assert contents(project / "shared") == contents(project / "undisturbed")


def test_a_renamed_file_is_not_computed_again_and_a_changed_one_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(bank: str) -> str:
        assert main(command(project, bank, "--workers", "1")[len(COMMAND) :]) == 0
        return capsys.readouterr().out

    assert "40 computed, 0 already in the bank" in said("bank")
    assert "0 computed, 40 already in the bank" in said("bank")
    photos = project / "photos"
    (photos / "00.jpg").rename(photos / "renamed.jpg")
    assert "0 computed" in said("bank")
    Image.new("RGB", (64, 64), "red").save(photos / "01.jpg")
    assert "1 computed" in said("bank")


def test_a_full_disk_is_one_message_and_work_goes_on_when_there_is_room(project: Path) -> None:
    def small_files() -> None:
        # A limit on the size of files fails writes as a full disk does, on every file system.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    arguments = command(project, "bank", "--workers", "1")
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=False, preexec_fn=small_files, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.startswith("featbank: ")
    assert "Traceback" not in done.stderr
    assert not Bank(project / "bank").verify()
    assert main(arguments[len(COMMAND) :]) == 0
    assert contents(project / "bank") == contents(project / "undisturbed")


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="needs the right to mount a small tmpfs"
)
def test_a_full_file_system_is_one_message_and_work_goes_on(project: Path) -> None:
    bank = project / "bank"
    bank.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(bank)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        # Only root may mount, and containers often may not: a disk that is really full cannot be had there.
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        done = features(project, "bank")
        assert done.returncode == 1
        assert "Make room" in done.stderr
        assert "Traceback" not in done.stderr
        assert not Bank(bank).verify()
        subprocess.run(["mount", "-o", "remount,size=16m", str(bank)], check=True)
        assert features(project, "bank").returncode == 0
        assert contents(bank) == contents(project / "undisturbed")
    finally:
        subprocess.run(["umount", str(bank)], check=True)


def test_odd_files_each_have_their_outcome_and_none_stops_the_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = write_odd_files(project / "photos")
    assert len(odd) >= 40
    done = features(project, "bank", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    failures = Bank(project / "bank").images.failures()
    expected = [file for file in odd if file.reason is not None]
    assert expected
    assert set(failures["reason"]) <= {file.reason for file in expected}
    # Every photo that was there before still has its features.
    capsys.readouterr()
    assert main(["bank", "ls", "--bank", str(project / "bank")]) == 0
    assert "classic:layout" in capsys.readouterr().out
