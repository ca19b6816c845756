"""A full disk, a failing device, a kill at each system call of a command: what was there before is whole."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featbank.atomic import MARKER, sweep
from featbank.bank import Bank
from featbank.cli import main
from tests.featbank.test_kills import N_PHOTOS, imported, processes_of
from tests.support.bank_worker import Worker, worker
from tests.support.datasets import write_image
from tests.support.faults import FAULTS, Outcome, fail_each_call, faulty_worker
from tests.support.imported_run import RECIPE, prepare, write_scores
from tests.support.search_study import prepare_study

SCORED = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[regression]
alpha = [{alpha}]
cv = {{ kind = "kfold", n_splits = 3 }}
"""
STUDY = frozenset({"search.journal", "search.lock", "finish.lock"})


@pytest.fixture(scope="module")
def commands() -> Iterator[Worker]:
    with faulty_worker() as running:
        yield running


@dataclass(frozen=True)
class Case:
    """A command that writes into ``folder``, where an earlier output of it lies."""

    arguments: list[str]
    folder: Path

    def contents(self) -> dict[str, bytes]:
        """What the user sees there, without what the processes of a search share."""
        files = (
            path for path in self.folder.rglob("*") if path.is_file() and path.name not in {MARKER, *STUDY}
        )
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if not any(part.startswith(".featbank-") for part in path.relative_to(self.folder).parts)
        }


def a_fit(folder: Path) -> Case:
    prepare(folder, n_images=80)
    for name, alpha in (("old", "10.0"), ("new", "0.1, 10.0")):
        (folder / f"{name}.toml").write_text(RECIPE.replace("0.1, 1.0, 10.0, 100.0", alpha))
    options = ["--bank", str(folder / "bank"), "--workers", "1", "--permutations", "0"]
    fit = ["fit", str(folder / "scores.csv"), *options, "--out", str(folder / "out/run"), "--recipe"]
    assert main([*fit, str(folder / "old.toml")]) == 0
    return Case([*fit, str(folder / "new.toml")], folder / "out")


def a_report(folder: Path) -> Case:
    case = a_fit(folder)
    (folder / "out/run/report.html").write_text("the page of an earlier version")
    return Case(["report", str(folder / "out/run")], case.folder)


def an_export(folder: Path) -> Case:
    prepare(folder, n_images=80)
    (folder / "one.toml").write_text(
        RECIPE.replace('[[band]]\nname = "dull"\nencoder = "imported:dull"\n', "")
    )
    (folder / "all.toml").write_text(RECIPE)
    (folder / "out").mkdir()
    export = ["bank", "export", str(folder / "out/x.parquet"), "--data", str(folder / "scores.csv")]
    export += ["--bank", str(folder / "bank"), "--recipe"]
    assert main([*export, str(folder / "one.toml")]) == 0
    return Case([*export, str(folder / "all.toml")], folder / "out")


def scores(folder: Path) -> Case:
    for number in range(24):
        write_image(folder / "photos" / f"{number:02d}.png", seed=number)
    rows = "".join(f"photos/{n:02d}.png,{n % 7},{'training' if n < 18 else 'test'}\n" for n in range(24))
    (folder / "rated.csv").write_text("path,mos,split\n" + rows)
    (folder / "out").mkdir()
    for name, alpha in (("old", 1.0), ("new", 100.0)):
        (folder / f"{name}.toml").write_text(SCORED.format(alpha=alpha))
        common = ["--recipe", str(folder / f"{name}.toml"), "--bank", str(folder / "bank"), "--workers", "1"]
        assert main(["features", str(folder / "rated.csv"), *common]) == 0
        run = ["--out", str(folder / name), "--permutations", "0"]
        assert main(["fit", str(folder / "rated.csv"), *common, *run]) == 0
    score = ["--csv", str(folder / "out/s.csv"), "--bank", str(folder / "bank"), "--workers", "1"]
    assert main(["score", str(folder / "old"), str(folder / "photos"), *score]) == 0
    return Case(["score", str(folder / "new"), str(folder / "photos"), *score], folder / "out")


def a_search(folder: Path) -> Case:
    prepare_study(folder, ["a", "c", "d"])
    search = ["search", str(folder / "scores.csv"), "--recipe", str(folder / "recipe.toml"), "--workers", "1"]
    search += ["--bank", str(folder / "bank"), "--outer-folds", "0", "--method", "sampled"]
    search += ["--out", str(folder / "out/run"), "--trials"]
    assert main([*search, "2"]) == 0
    return Case([*search, "3"], folder / "out")


def check_each_call(commands: Worker, case: Case, fault: str, step: int) -> None:
    kept = case.folder.with_name("kept")
    shutil.copytree(case.folder, kept, symlinks=True)
    old = case.contents()
    assert main(case.arguments) == 0
    new = case.contents()
    assert new != old
    is_in_place = case.arguments[0] == "report"

    def reset() -> None:
        shutil.rmtree(case.folder)
        shutil.copytree(kept, case.folder, symlinks=True)

    def is_whole(found: dict[str, bytes]) -> bool:
        # Receipts, and the pages of new runs, hold times: a new run is known by its names and by what its
        # predictions are, its page by its end.
        sure = [name for name in new if name.endswith(("predictions.csv", "x.parquet", "s.csv"))]
        pages = [name for name in new if name.endswith("report.html")]
        return (
            found.keys() == new.keys()
            and all(found[name] == new[name] for name in sure)
            and all(found[name].rstrip().endswith(b"</html>") for name in pages)
        )

    def check(outcome: Outcome) -> None:
        found = case.contents()
        if outcome.code == 1:
            assert found == old, outcome
            assert "What was there before is intact" in outcome.message or case.arguments[0] == "search", (
                outcome
            )
        elif outcome.code == 0:  # what cannot be removed waits for the next run
            assert is_whole(found), outcome
        elif is_in_place:  # each file is whole
            assert all(data in (old.get(name), new.get(name)) for name, data in found.items()), outcome
        else:
            assert found == old or is_whole(found), outcome
        for place in (case.folder, *(path for path in case.folder.iterdir() if path.is_dir())):
            sweep(place)
        assert not list(case.folder.rglob(".featbank-*")), outcome

    started = time.monotonic()
    n_calls = fail_each_call(commands, case.arguments, case.folder, reset, check, fault=fault, step=step)
    print(f"{case.arguments[0]}, {fault}: {n_calls} calls, {time.monotonic() - started:.0f} s")  # noqa: T201


CASES = (a_fit, a_report, an_export, scores, a_search)


@pytest.mark.parametrize("make", [an_export, pytest.param(scores, marks=pytest.mark.slow)])
def test_a_failing_call_leaves_the_earlier_output(
    commands: Worker, tmp_path: Path, make: Callable[[Path], Case]
) -> None:
    check_each_call(commands, make(tmp_path), "disk full", step=4)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("make", CASES)
def test_no_call_of_any_command_can_cost_the_earlier_output(
    commands: Worker, tmp_path: Path, make: Callable[[Path], Case], fault: str
) -> None:
    check_each_call(commands, make(tmp_path), fault, step=1)


def check_kills(make: Callable[[Path], Case], folder: Path, n_kills: int, workers: int) -> None:
    """Kill a command at random moments: the run is always whole, and no process and no hidden folder stays."""
    case = make(folder)
    arguments = [*case.arguments, "--workers", str(workers)]
    is_search = arguments[0] == "search"
    dice = random.Random(n_kills + workers)
    n_survived = n_left = n_replaced = 0
    with worker("tests.support.command_worker") as commands:
        started = time.monotonic()
        assert commands.wait(commands.start("command", arguments=arguments)) == 0
        longest_s = time.monotonic() - started
        before = case.contents()
        for _ in range(n_kills):
            # A search that has all it was asked for writes nothing: ask for another number of trials.
            more = ["--trials", str(dice.randrange(2, 9))] if is_search else []
            pid = commands.start("command", arguments=[*arguments, *more])
            time.sleep(dice.uniform(0, longest_s))
            os.kill(pid, signal.SIGKILL)
            n_survived += commands.wait(pid) == 0
            deadline = time.monotonic() + 5
            while processes_of(pid):
                assert time.monotonic() < deadline, "a process outlived its command by 5 s"
                time.sleep(0.05)
            after = case.contents()
            assert after.keys() == before.keys()
            if after != before:
                n_replaced += 1
                names = ["predictions.csv", "metrics.json", "model.skops", "receipt.json", "trust.json"]
                changed = {name for name in after if after[name] != before[name]}
                assert "run/receipt.json" in changed
                assert all(after[f"run/{name}"] for name in names)
            n_left += len(list(case.folder.rglob(".featbank-*")))
            before = after
        assert commands.wait(commands.start("command", arguments=arguments)) == 0
        assert not list(case.folder.rglob(".featbank-*"))
    print(  # noqa: T201
        f"{arguments[0]}, {workers} workers: {n_kills} kills, {n_survived} too late, {n_replaced} after the new run "
        f"was in place, {n_left} times hidden files were seen before the next run"
    )


@pytest.mark.parametrize("make", [a_fit, pytest.param(a_search, marks=pytest.mark.slow)])
def test_a_few_kills_lose_no_run_and_leave_nothing(tmp_path: Path, make: Callable[[Path], Case]) -> None:
    check_kills(make, tmp_path, 3, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("make", [a_fit, a_search])
def test_kills_of_fits_and_searches_lose_no_run_and_leave_nothing(
    tmp_path: Path, make: Callable[[Path], Case], workers: int
) -> None:
    """The number of kills for each of the four is 40, or that in FEATBANK_TEST_KILLS."""
    check_kills(make, tmp_path, int(os.environ.get("FEATBANK_TEST_KILLS", "40")), workers)


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        pytest.param(fault, step, marks=pytest.mark.slow)
        for fault, step in (("kill", 5), *((fault, 1) for fault in FAULTS))
    ],
)
def test_no_call_of_a_replacing_import_can_cost_the_earlier_one(
    commands: Worker, tmp_path: Path, fault: str, step: int
) -> None:
    """After each, the earlier rows are whole or the new ones are; the same command cures what is left of a kill."""
    data, bank, kept = write_scores(tmp_path, N_PHOTOS), tmp_path / "bank", tmp_path / "kept"
    command = {}
    for value in (1, 2):
        np.save(tmp_path / f"{value}.npy", np.full((N_PHOTOS, 3), value, dtype=np.float32))
        command[value] = ["bank", "import", str(data), str(tmp_path / f"{value}.npy"), "--band", "mine"]
        command[value] += ["--replace", "--bank", str(bank)]
    assert main(command[1]) == 0
    shutil.copytree(bank, kept)

    def reset() -> None:
        shutil.rmtree(bank)
        shutil.copytree(kept, bank)

    def check(outcome: Outcome) -> None:
        found = imported(bank)
        assert found in ({1.0}, {2.0}, {1.0, 2.0}), outcome
        assert outcome.code < 0 or found == ({1.0} if outcome.code else {2.0}) or "remove" in outcome.message
        assert not Bank(bank).verify()
        assert main(command[2]) == 0
        assert imported(bank) == {2.0}
        assert not [path for path in bank.rglob(".*") if path.is_file()]
        assert len([path for path in bank.iterdir() if path.is_dir()]) == 1

    assert fail_each_call(commands, command[2], bank, reset, check, fault=fault, step=step) > 8
