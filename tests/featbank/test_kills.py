"""A thousand kills over the whole way from a dataset to the bank: nothing is lost, nothing is wrong, nothing is left.

The commands run in forked children of a process that has imported everything, see `tests.support.command_worker`;
`test_robustness` kills a hundred that are started as a user starts them.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.bank import Bank
from tests.featbank.test_robustness import contents
from tests.support.bank_worker import Worker, worker

RECIPE = """
recipe_version = 1
[[band]]
name = "quality"
encoder = "classic:nss"
view = "center_96"
[[band]]
name = "mobile"
encoder = "featbank:mobile"
view = "squash_224x224"
"""

N_PHOTOS = 40
KILLS_A_BANK = 20
"""After so many, the work is finished undisturbed, compared, and begun anew: a full bank has little to lose."""


@pytest.fixture(scope="module")
def commands() -> Iterator[Worker]:
    with worker("tests.support.command_worker") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with 40 photos, one of them broken, and a recipe with a network and a weight-free encoder."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(N_PHOTOS):
        coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((256, 240), Image.Resampling.BICUBIC)
        photo.save(tmp_path / "photos" / f"{number:02d}.jpg", quality=90)
    broken = tmp_path / "photos" / "00.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    for value in (1, 2):
        np.save(tmp_path / f"{value}.npy", np.full((N_PHOTOS, 3), value, dtype=np.float32))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def arguments(project: Path, bank: str, workers: int = 1) -> list[str]:
    command = ["features", str(project / "photos"), "--recipe", str(project / "recipe.toml")]
    return [*command, "--bank", str(project / bank), "--workers", str(workers)]


def import_arguments(project: Path, bank: str, value: int) -> list[str]:
    """Replace the features that were imported before by ones that are all of one value."""
    files = [str(project / "photos"), str(project / f"{value}.npy"), "--band", "mine", "--replace"]
    return ["bank", "import", *files, "--bank", str(project / bank)]


def stored(bank: Path) -> set[tuple[str, str]]:
    """Every row of a bank that was computed, as the feature's digest and the image's key."""
    features = Bank(bank, read_only=True).features() if bank.is_dir() else []
    computed = [feature for feature in features if feature.identity["kind"] == "computed"]
    return set().union(*({(feature.digest, key) for key in sorted(feature.keys())} for feature in computed))


def imported(bank: Path) -> set[float]:
    """The values of the imports that are there as a whole; fails where part of one is there."""
    values = set()
    for feature in Bank(bank, read_only=True).features() if bank.is_dir() else []:
        keys = sorted(feature.keys())
        if feature.identity["kind"] == "imported" and keys:
            assert len(keys) == N_PHOTOS
            [value] = set(feature.read(keys).ravel().tolist())
            values.add(value)
    return values


def kill_one(commands: Worker, project: Path, dice: random.Random, longest_s: float) -> None:
    kind = dice.random()
    before = imported(project / "killed")
    if kind < 0.15 and stored(project / "killed"):
        pid = commands.start(
            "command", arguments=["bank", "prune", "--bank", str(project / "killed"), "--yes"]
        )
        time.sleep(dice.uniform(0, 0.15))
    elif kind < 0.4:
        value = dice.choice((1, 2))
        pid = commands.start("command", arguments=import_arguments(project, "killed", value))
        time.sleep(dice.uniform(0, 0.3))
    elif kind < 0.45:
        pid = commands.start("command", arguments=arguments(project, "killed", workers=2))
        time.sleep(dice.uniform(0.5, 3))  # worker processes are new ones: they import everything
    else:
        pid = commands.start("command", arguments=arguments(project, "killed"))
        time.sleep(dice.uniform(0, longest_s))
    try:
        # Half of the time the worker processes with it; a child that has just been forked leads no group yet.
        os.killpg(pid, signal.SIGKILL) if dice.random() < 0.5 else os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
    assert commands.wait(pid) in {-signal.SIGKILL, 0}
    # The earlier import, the later one, or both: one that was there is never gone before another is whole.
    assert imported(project / "killed") or not before


def processes_of(group: int) -> list[int]:
    """Living processes of a process group, from what Linux tells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ProcessLookupError):
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(folder.name))
    return found


def check_kills(commands: Worker, project: Path, n_kills: int) -> None:
    started = time.monotonic()
    assert commands.wait(commands.start("command", arguments=arguments(project, "undisturbed"))) == 0
    longest_s = (time.monotonic() - started) * 2 / 3  # of a third, little would be left after the start
    last = import_arguments(project, "undisturbed", 1)
    assert commands.wait(commands.start("command", arguments=last)) == 0
    expected = contents(project / "undisturbed")
    dice = random.Random(n_kills)
    n_partial = n_done = 0
    for start in range(0, n_kills, KILLS_A_BANK):
        before: set[tuple[str, str]] = set()
        for _ in range(min(KILLS_A_BANK, n_kills - start)):
            kill_one(commands, project, dice, longest_s)
            after = stored(project / "killed")
            assert before <= after
            n_partial += before < after
            n_done += 1
            before = after
        assert not Bank(project / "killed", read_only=True).verify()
        for command in (arguments(project, "killed"), import_arguments(project, "killed", 1)):
            assert commands.wait(commands.start("command", arguments=command)) == 0
        assert imported(project / "killed") == {1.0}
        assert contents(project / "killed") == expected
        assert not [path for path in (project / "killed").rglob(".*") if path.is_file()]
        shutil.rmtree(project / "killed")
    sys.stdout.write(f"{n_done} kills, {n_partial} of them after something had been stored\n")
    assert n_partial > n_kills / 20


def test_a_few_kills_lose_nothing_and_leave_nothing(commands: Worker, project: Path) -> None:
    check_kills(commands, project, 12)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers through /proc")
def test_workers_do_not_outlive_a_killed_caller(commands: Worker, project: Path) -> None:
    pid = commands.start("command", arguments=arguments(project, "bank", workers=2))
    deadline = time.monotonic() + 60
    while not stored(project / "bank"):  # both workers have begun
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    commands.wait(pid)
    assert processes_of(pid)
    deadline = time.monotonic() + 20  # joblib's own limit is five minutes
    while processes_of(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_thousand_kills_lose_nothing_and_leave_nothing(commands: Worker, project: Path) -> None:
    check_kills(commands, project, int(os.environ.get("FEATBANK_TEST_KILLS", "1000")))
