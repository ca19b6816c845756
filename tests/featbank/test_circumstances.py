"""What surrounds the work may change: clocks, places, permissions, versions, the will of a scheduler.

Each has one outcome: the work goes on, or one sentence says why not and what to do.
"""

import json
import os
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
from featbank.cli import main
from tests.featbank.test_robustness import contents
from tests.support.bank_rows import contents as every_byte
from tests.support.mounts import read_only

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
[regression]
estimator = "ridge"
cv = { kind = "kfold", n_splits = 3, shuffle = true, random_state = 0 }
"""

N_PHOTOS = 36
DECADE_S = 10 * 365 * 86_400


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A dataset of small photos with a MOS each, and a recipe."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    rows = ["path,mos,split"]
    for number in range(N_PHOTOS):
        mos = rng.uniform(1, 5)
        coarse = (rng.integers(0, 100, (6, 8, 3)) + 30 * mos).astype(np.uint8)  # light can be learned
        photo = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
        photo.save(tmp_path / "photos" / f"{number:02d}.jpg", quality=90)
        split = ("training", "training", "validation", "test")[number % 4]
        rows.append(f"photos/{number:02d}.jpg,{mos:.3f},{split}")
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def arguments(command: str, project: Path, *more: str) -> list[str]:
    data, recipe = str(project / "photos.csv"), str(project / "recipe.toml")
    return [command, data, "--recipe", recipe, "--bank", str(project / "bank"), *more]


def features(project: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    """Run the command in this process; returns its JSON document and the exit status."""
    capsys.readouterr()
    status = main(arguments("features", project, "--workers", "1", "--json", *more))
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return {**json.loads(shown.out), "status": status}


def change_one(photo: Path) -> None:
    """Give a photo other bytes, of the same number, under its old times."""
    status = photo.stat()
    data = bytearray(photo.read_bytes())
    # Behind the end mark, which decoders do not read, nothing may be changed either: it is another file.
    data[-1:] = b"\xd8" if data[-1] == 0xD9 else b"\xd9"
    photo.write_bytes(data)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("shift_s", [-DECADE_S, DECADE_S, -6 * DECADE_S])
def test_clocks_that_were_set_decide_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], shift_s: float
) -> None:
    """As after a clock was set: photos or the bank are from the future, from the past, or from before 1970."""
    when = time.time() + shift_s
    for photo in (project / "photos").iterdir():
        os.utime(photo, (when, when))
    assert features(project, capsys)["computed"] == N_PHOTOS
    for path in (project / "bank").rglob("*"):
        os.utime(path, (when, when))
    assert features(project, capsys)["computed"] == 0
    for path in (project / "bank").rglob("*"):
        os.utime(path, (time.time() - shift_s,) * 2)
    change_one(project / "photos" / "05.jpg")
    again = features(project, capsys)
    assert len(again["failures"]) == 1  # its end mark is gone: noticed, though size and time are as before
    assert not Bank(project / "bank").verify()
    before = contents(project / "bank")
    assert features(project, capsys)["computed"] == 0
    assert contents(project / "bank") == before


def test_a_moved_bank_and_moved_photos_are_where_they_are(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert features(project, capsys)["computed"] == N_PHOTOS
    moved = project / "elsewhere" / "deeper"
    shutil.copytree(project, moved, ignore=shutil.ignore_patterns("elsewhere"))
    for name in ("photos", "bank"):
        shutil.rmtree(project / name)
    found = features(moved, capsys)
    assert (found["computed"], found["cached"]) == (0, N_PHOTOS)
    assert not Bank(moved / "bank").verify()
    assert not (project / "bank").exists()


def test_a_read_only_bank_is_read_and_refused_before_any_work(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = project / "bank"
    assert features(project, capsys)["computed"] == N_PHOTOS
    before = every_byte(bank)
    with read_only(bank):
        found = features(project, capsys)
        assert (found["status"], found["computed"], found["cached"]) == (0, 0, N_PHOTOS)
        for action in ("ls", "verify"):
            assert main(["bank", action, "--bank", str(bank)]) == 0
        Image.new("RGB", (64, 64), "red").save(project / "photos" / "03.jpg")
        refused = features(project, capsys)
        assert refused["status"] == 1
        # Not "cannot write <shard>", which would come when the work is done.
        for part in (
            "lacks features of photos (classic:layout@squash_64x64.mean of 1, classic:keypoint@center_96.mean of 1)",
            "cannot write to",
            "read-only (EROFS)",
            "--bank DIR",
            "What was stored before is intact",
        ):
            assert part in str(refused["error"])
        (project / "recipe.toml").write_text(RECIPE.replace("center_96", "center_64"))
        refused = str(features(project, capsys)["error"])
        assert "keypoint@center_64.mean of 36" in refused
        assert "read-only (EROFS)" in refused
        assert main(arguments("fit", project, "--workers", "1", "--out", str(project / "run"))) == 1
        assert "lacks features of 36 of 36 images (bands layout, keypoint" in capsys.readouterr().err
        (project / "recipe.toml").write_text(RECIPE)
    assert every_byte(bank) == before
    assert features(project, capsys)["computed"] == 1


@pytest.mark.slow
def test_a_read_only_bank_is_fitted_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features(project, capsys)
    before = every_byte(project / "bank")
    with read_only(project / "bank"):
        assert main(arguments("fit", project, "--workers", "1", "--out", str(project / "run"))) == 0
    assert (project / "run" / "metrics.json").is_file()
    assert every_byte(project / "bank") == before


@pytest.mark.parametrize(("version", "fact"), [(0, "older"), (2, "newer")])
def test_a_bank_of_another_format_is_left_alone_and_said_so(
    project: Path, capsys: pytest.CaptureFixture[str], version: int, fact: str
) -> None:
    features(project, capsys)
    bank = project / "bank"
    for spec in bank.rglob("spec.json"):
        content = json.loads(spec.read_text())
        spec.write_text(json.dumps(content | {"bank_format_version": version}))
    before = every_byte(bank)
    run = ["--out", str(project / "run")]
    for command in (
        arguments("features", project),
        arguments("fit", project, *run),
        ["bank", "ls", "--bank", str(bank)],
        ["bank", "prune", "--bank", str(bank), "--yes"],
    ):
        capsys.readouterr()
        assert main(command) == 1
        shown = capsys.readouterr().err
        for part in (
            f"format version {version}",
            "reads version 1",
            f"{fact} featbank",
            "another bank folder",
        ):
            assert part in shown
        assert "Traceback" not in shown
    assert every_byte(bank) == before


def descendants(pid: int) -> list[int]:
    """Process ids of all children of a process and theirs, from what Linux tells."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def cpu_s(pids: list[int]) -> float:
    """Seconds of work that processes have done."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(part[11]) + int(part[12]) for part in fields) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers through /proc")
@pytest.mark.parametrize(
    ("who", "stopped_s"),
    # The last is longer than the five minutes after which a worker without work ends by itself.
    [("all", 3), ("workers", 3), ("caller", 3), ("caller", 330)],
)
def test_a_stopped_extraction_goes_on_when_it_is_continued(project: Path, who: str, stopped_s: float) -> None:
    n_photos = 250
    rng = np.random.default_rng(1)
    for number in range(n_photos):
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((3200, 2400)).save(project / "photos" / f"{number:02d}.jpg")
    command = arguments("features", project, "--workers", "2")
    command[1] = str(project / "photos")
    process = subprocess.Popen(
        [sys.executable, "-m", "featbank", *command, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Two workers and joblib's tracker; starting costs two workers four seconds of work at most, the photos more.
    while len(children := descendants(process.pid)) < 3 or cpu_s(children) < 5:
        assert process.poll() is None, "it was over before it could be stopped"
        time.sleep(0.02)
    targets = {"all": [process.pid, *children], "workers": children, "caller": [process.pid]}[who]
    for pid in targets:
        os.kill(pid, signal.SIGSTOP)
    assert process.poll() is None
    time.sleep(stopped_s)
    for pid in targets:
        os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert (document["computed"], document["failures"]) == (n_photos, [])
    assert not Bank(project / "bank").verify()
    undisturbed = [*command, "--json"]
    undisturbed[undisturbed.index("--bank") + 1] = str(project / "undisturbed")
    assert main(undisturbed) == 0
    assert contents(project / "bank") == contents(project / "undisturbed")
