"""Run folders that were damaged or written by a stranger: every command that reads them says so in one sentence."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featbank.cli import main
from featbank.errors import RunError
from featbank.runs.folder import read_run
from tests.support.run_folder import RunOptions, write_run_folder

FILES = ("metrics.json", "receipt.json", "predictions.csv", "cv_results.csv", "weights.csv", "recipe.toml")
VALUES = (None, True, -1, 1e308, 10**400, "word", "", [], [[]], {}, [None, {}], {"n": "many", "srcc": []})
JSON = ("metrics.json", "receipt.json")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"training": 30, "validation": 0, "test": 24}
    return write_run_folder(tmp_path_factory.mktemp("runs") / "intact", RunOptions(counts=small, n_bands=2))


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value that another value can take, the first entry of each list."""
    if way:
        yield way
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*way, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*way, 0))


def changed(run: Path, name: str, way: tuple[Any, ...], value: Any) -> None:
    content = json.loads((run / name).read_text())
    place = content
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    (run / name).write_text(json.dumps(content))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "binary", "folder", "list", "nested"])
def test_a_damaged_file_is_one_sentence(
    intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    run = Path(shutil.copytree(intact, tmp_path / "run"))
    data = (run / name).read_bytes()
    (run / name).unlink()
    if how == "folder":
        (run / name).mkdir()
    elif how != "missing":
        made = {"empty": b"", "cut": data[: len(data) // 2], "binary": bytes(range(256)) * 8}
        made |= {"list": b"[]", "nested": b"[" * 100_000}
        (run / name).write_bytes(made[how])
    codes = [main(["leaderboard", str(run)])]
    # One whole report takes seconds; what reads is tried in full, what draws only on files that were read.
    try:
        read_run(run)
    except RunError:
        codes += [main(["report", str(run)]), main(["report", str(run), str(intact), "--resamples", "50"])]
        assert codes == [1, 1, 1]
    text = capsys.readouterr().err
    assert set(codes) <= {0, 1}
    assert "defect" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", JSON)
def test_a_value_of_another_kind_is_one_sentence(
    intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "run"
    for number, way in enumerate(list(places(json.loads((intact / name).read_text())))[::4]):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(intact, run)
        changed(run, name, way, VALUES[number % len(VALUES)])
        assert main(["leaderboard", str(run)]) == 1
        text = capsys.readouterr().err
        assert "defect" not in text, way
        assert text.count("\n") == 1, way


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("shift", range(len(VALUES)))
def test_reports_of_other_values_are_written_or_refused(
    intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, shift: int
) -> None:
    run = tmp_path / "run"
    for number, way in enumerate(places(json.loads((intact / name).read_text()))):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(intact, run)
        changed(run, name, way, VALUES[(number + shift) % len(VALUES)])
        for command in (["report", str(run)], ["report", str(run), str(intact), "--resamples", "50"]):
            assert main([*command, *(["--out", str(tmp_path / "c")] if len(command) > 2 else [])]) in {0, 1}
            text = capsys.readouterr().err
            assert "defect" not in text, way
            assert "Traceback" not in text, way
