"""Where commands write: nothing that featbank did not write is touched, and places are tried before the work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from featbank.atomic import MARKER
from featbank.bank import Bank
from featbank.cli import main
from featbank.datasets import read_dataset
from featbank.extract import FeatureRequest, extract
from featbank.recipes.reading import parse_recipe, read_recipe
from featbank.runs.fit import FitOptions, fit_run
from featbank.search.run import SearchOptions, search_run
from tests.support.datasets import write_image
from tests.support.imported_run import RECIPE, prepare
from tests.support.mounts import read_only
from tests.support.search_study import prepare_study

SCORED = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[regression]
alpha = [1.0, 100.0]
cv = { kind = "kfold", n_splits = 3 }
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets with banks and recipes, and one output of each kind made from them."""
    folder = tmp_path_factory.mktemp("outputs")
    table, recipe, bank = prepare(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    for name in ("fit", "other"):
        fit_run(table, recipe, bank, folder / name, FitOptions(workers=1, permutations=0))
    prepare_study(folder / "study", ["a", "c"])
    for number in range(24):
        write_image(folder / "photos" / f"{number:02d}.png", seed=number)
    rows = "".join(f"photos/{n:02d}.png,{n % 7},{'training' if n < 18 else 'test'}\n" for n in range(24))
    (folder / "rated.csv").write_text("path,mos,split\n" + rows)
    (folder / "scored.toml").write_text(SCORED)
    photos = read_dataset(folder / "rated.csv")
    scored = parse_recipe(SCORED, "scored")
    (band,) = scored.bands
    images = list(zip(photos.frame["image_id"], photos.frame["path"], strict=True))
    bank = Bank(folder / "photo-bank")
    extract(images, [FeatureRequest(band.encoder, band.view, band.aggregate)], bank, workers=1)
    fit_run(photos, scored, bank, folder / "model", FitOptions(workers=1, permutations=0))
    return folder


def write(kind: str, made: Path, out: Path) -> int:
    """Carry a command out; where its report takes longer than the rest, without it."""
    if kind == "fit":
        table, recipe = read_dataset(made / "scores.csv"), parse_recipe(RECIPE, "recipe")
        fit_run(table, recipe, Bank(made / "bank"), out, FitOptions(workers=1, permutations=0))
    elif kind == "search":
        table, recipe = read_dataset(made / "study/scores.csv"), read_recipe(str(made / "study/recipe.toml"))
        bank = Bank(made / "study/bank")
        search_run(table, recipe, bank, out, SearchOptions(n_outer_folds=0), FitOptions(workers=1))
    else:
        return main(command(kind, made, out))
    return 0


def command(kind: str, made: Path, out: Path) -> list[str]:
    """The arguments of a command that writes to ``out``."""
    data = [str(made / "scores.csv"), "--recipe", str(made / "recipe.toml"), "--bank", str(made / "bank")]
    quick = ["--workers", "1", "--out", str(out)]
    study = ["--recipe", str(made / "study/recipe.toml"), "--bank", str(made / "study/bank")]
    bank = ["--bank", str(made / "photo-bank")]
    return {
        "fit": ["fit", *data, *quick, "--permutations", "0"],
        "search": ["search", str(made / "study/scores.csv"), *study, *quick, "--outer-folds", "0"],
        "protocol": ["protocol", "repeated", *data, *quick, "--splits", "2"],
        "report": ["report", str(made / "model"), "--out", str(out)],
        "comparison": [
            "report",
            str(made / "fit"),
            str(made / "other"),
            "--out",
            str(out),
            "--resamples",
            "9",
        ],
        "score": [
            "score",
            str(made / "model"),
            str(made / "photos"),
            "--csv",
            str(out),
            "--workers",
            "1",
            *bank,
        ],
    }[kind]


FOLDERS = ("fit", "search", "protocol", "report", "comparison")


def a_thesis(target: Path, made: Path) -> None:
    (target / "notes").mkdir(parents=True)
    (target / "notes/chapter.txt").write_text("years of work")


def a_stranger_s_receipt(target: Path, made: Path) -> None:
    a_thesis(target, made)
    (target / "receipt.json").write_text("{}")


def a_repository(target: Path, made: Path) -> None:
    (target / ".git").mkdir(parents=True)
    (target / ".git/HEAD").write_text("ref: refs/heads/main\n")


def a_bank_and_a_dataset(target: Path, made: Path) -> None:
    shutil.copytree(made / "bank", target / "bank")
    shutil.copy(made / "scores.csv", target)


def a_run_with_notes(target: Path, made: Path) -> None:
    shutil.copytree(made / "fit", target)
    (target / "notes.txt").write_text("what I saw")


def an_old_run_with_notes(target: Path, made: Path) -> None:
    a_run_with_notes(target, made)
    (target / MARKER).unlink()


def a_run_with_a_linked_file(target: Path, made: Path) -> None:
    shutil.copytree(made / "fit", target)
    (target / "trust.json").unlink()
    (target / "trust.json").symlink_to(made / "scores.csv")


def a_file(target: Path, made: Path) -> None:
    target.write_text("mine")


@pytest.mark.parametrize("through_a_link", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "put",
    [
        a_thesis,
        a_stranger_s_receipt,
        a_repository,
        a_bank_and_a_dataset,
        a_run_with_notes,
        an_old_run_with_notes,
        a_run_with_a_linked_file,
        a_file,
    ],
)
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_holds_anything_else_is_left_alone(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    put: Callable[[Path, Path], None],
    through_a_link: bool,
) -> None:
    put(tmp_path / "real", made)
    before = contents(tmp_path)
    target = tmp_path / "link" if through_a_link else tmp_path / "real"
    if through_a_link:
        target.symlink_to(tmp_path / "real")
        before = contents(tmp_path)
    assert main(command(kind, made, target)) == 1
    message = capsys.readouterr().err
    assert "--out" in message
    assert "holds" in message or "got the file" in message
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", FOLDERS)
def test_an_earlier_output_is_replaced_and_another_kind_of_it_is_not(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for target in (tmp_path / "real", tmp_path / "link"):
        assert write(kind, made, target) == 0
    marker = tmp_path / "real" / MARKER
    names = {path.name for path in (tmp_path / "real").iterdir()} - {MARKER}
    assert set(json.loads(marker.read_text())["files"]) == {
        name for name in names if name not in {"search.journal", "search.lock", "finish.lock"}
    }
    assert {path.name for path in tmp_path.iterdir()} == {"link", "real"}
    capsys.readouterr()
    other = "protocol" if kind == "fit" else "fit"
    before = contents(tmp_path)
    assert main(command(other, made, tmp_path / "real")) == 1
    assert f"{other} --out" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_current_folder_may_be_the_target(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        assert write(kind, made, Path()) == 0
    assert (tmp_path / "here" / MARKER).is_file()
    assert not list(tmp_path.rglob(".featbank-*"))


@pytest.mark.parametrize("kind", [*FOLDERS, "score"])
def test_places_that_cannot_be_written_are_found_before_the_work(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        ("featbank.runs.fit", "resolve_band"),
        ("featbank.runs.score", "score_batches"),
        ("featbank.runs.comparison", "compare_runs"),
        ("featbank.report.page", "read_run"),
    ):
        monkeypatch.setattr(f"{module}.{name}", None)  # no work is reached
    (tmp_path / "file").write_text("mine")
    (tmp_path / "disk").mkdir()
    targets = ["/proc/x", tmp_path / "file/x", "/dev/null"]
    if kind == "score":
        targets += [tmp_path / "nodir/x.csv", tmp_path / "disk", tmp_path / "file", made / "rated.csv"]
    for target in targets:
        assert main(command(kind, made, Path(target))) == 1
        message = capsys.readouterr().err
        assert "--out" in message or "--csv" in message
        assert "defect" not in message
    with read_only(tmp_path / "disk"):
        assert main(command(kind, made, tmp_path / "disk/x")) == 1
        assert "read-only" in capsys.readouterr().err
    assert contents(tmp_path) == {"file": b"mine"}


def test_scores_replace_scores_and_nothing_else(made: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "s.csv")
    for target in ("s.csv", "s.csv", "link.csv"):
        assert main(command("score", made, tmp_path / target)) == 0
    assert (tmp_path / "s.csv").read_text().count("\n") == 25
    assert (tmp_path / "link.csv").is_symlink()
    assert len(contents(tmp_path)) == 2


def test_report_writes_where_it_is_told(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(made / "model")
    assert main(command("report", made, tmp_path / "out")) == 0
    assert (tmp_path / "out/report.html").is_file()
    assert contents(made / "model") == before
    shutil.copytree(made / "model", tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("what I saw")
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["verdict"]["sentence"] in (tmp_path / "run/report.html").read_text()
    now = contents(tmp_path / "run")
    assert now.pop(MARKER) != before.pop(MARKER)
    assert now | before == now
    assert now.pop("notes.txt") == b"what I saw"
    assert now.keys() - before.keys() == contents(tmp_path / "out").keys() - {MARKER}
