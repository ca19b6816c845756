"""Runs in the published tables: where they land, what they are marked with, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.cli import main
from featbank.errors import RunError
from featbank.leaderboard import board as leaderboard
from featbank.leaderboard import published
from featbank.leaderboard.board import build_board, read_entry
from featbank.leaderboard.published import (
    OfficialPart,
    digest_rows,
    official_parts,
    published_costs,
    rows_of,
)
from tests.support.plain_run import write_plain_run

PARTS = ("training", "validation", "validation/exclusive", "test", "test/exclusive")


@pytest.fixture
def rows() -> pd.DataFrame:
    """A split of 120 images on the scale of UHD-IQA."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"image": [f"{i}.jpg" for i in range(120)], "mos": rng.beta(9, 3, 120).round(4)})
    frame["split"] = ["training"] * 60 + ["validation"] * 30 + ["test"] * 30
    frame["subset"] = np.where((frame["split"] != "training") & (frame.index % 3 == 0), "exclusive", "")
    frame["predicted"] = frame["mos"] + rng.normal(0, 0.02, 120)
    return frame


@pytest.fixture(autouse=True)
def _small_split(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the 120 images stand for the official split."""
    mean = rows.loc[rows["split"] == "training", "mos"].mean()
    parts = {}
    for part in PARTS:
        chosen = rows_of(rows, part)
        error = chosen["mos"] - mean
        parts[part] = OfficialPart(
            len(chosen),
            digest_rows(chosen["image"], chosen["mos"]),
            float(error.abs().mean()),
            float((error**2).mean() ** 0.5),
        )
    for module in (published, leaderboard):
        monkeypatch.setattr(module, "official_parts", lambda: parts)


def test_without_runs_the_tables_are_as_published() -> None:
    board = build_board(1)
    assert [row.name for row in board.rows[:3]] == ["SJTU", "GS-PIQA", "CIPLAB"]
    assert [row.place for row in board.rows if row.place] == list(range(1, 9))
    assert {row.kind for row in board.rows if row.place is None} == {"organisers", "retrained"}
    assert [row.scores["plcc"] for row in board.rows if row.name == "HyperIQA"] == ["0.103"]


def test_the_first_three_of_each_metric_have_medals(rows: pd.DataFrame, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        board = build_board(number)
        for name in published.METRIC_COLUMNS:
            printed = sorted(
                (float(row.scores[name]) for row in board.rows), reverse=name not in ("mae", "rmse")
            )
            for row in board.rows:
                place = printed.index(float(row.scores[name]))
                assert row.medals.get(name) == dict(enumerate(("gold", "silver", "bronze"))).get(place)
    medals = {row.name: row.medals for row in build_board(1).rows}
    assert medals["CIPLAB"] == {"plcc": "gold", "srcc": "silver", "krcc": "silver"}
    assert medals["EQCNet"] == {"mae": "bronze", "rmse": "bronze"}
    run = write_plain_run(tmp_path / "mine", rows.assign(predicted=rows["mos"] + 1e-4 * rows.index))
    board = build_board(1, [read_entry(run)])
    assert set(board.rows[0].medals.values()) == {"gold"}
    assert next(row for row in board.rows if row.name == "CIPLAB").medals["plcc"] == "silver"
    assert leaderboard.board_rows(board)[1]["SRCC"] == "0.8463 silver"


def test_a_run_better_in_everything_comes_first_and_moves_the_others(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    entry = read_entry(
        write_plain_run(tmp_path / "mine", rows.assign(predicted=rows["mos"] + 1e-4 * rows.index))
    )
    board = build_board(1, [entry])
    assert board.rows[0].name == str(tmp_path / "mine")
    assert board.rows[0].main_score == 1.0
    assert board.rows[1].name == "SJTU"
    assert board.rows[1].main_score == 2.4  # each of its ranks is one worse
    assert board.rows[0].marks == ()


def test_a_run_is_compared_at_the_printed_decimals(rows: pd.DataFrame, tmp_path: Path) -> None:
    entry = read_entry(write_plain_run(tmp_path / "mine", rows))
    assert all(value == round(value, 4) for part in entry.scores.values() for value in part.values())
    assert set(entry.scores) == {"validation", "validation/exclusive", "test", "test/exclusive"}


def test_marks_on_published_entries() -> None:
    # These need the real constants, which the fixture replaces in the module that uses them.
    letters = {}
    for row in build_board(1).rows:
        letters[row.name] = "".join(mark.letter for mark in row.marks if mark.letter != "C")
    assert letters["SJTU"] == letters["GS-PIQA"] == "M"
    assert letters["EQCNet"] == letters["NF-RegNets"] == "P"
    assert letters["CIPLAB"] == letters["MobileNet-IQA"] == letters["ICL"] == letters["CLIP-IQA*"] == ""
    assert published_costs()["SJTU"].counted_gmacs == 69.45


def test_icl_is_below_the_constant_in_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "official_parts", official_parts)
    for number in (1, 2, 3):
        [icl] = [row for row in build_board(number).rows if row.name == "ICL"]
        assert [mark.letter for mark in icl.marks] == ["C"]
        sjtu = next(row for row in build_board(number).rows if row.name == "SJTU")
        assert "C" not in {mark.letter for mark in sjtu.marks}
    [icl] = [row for row in build_board(1).rows if row.name == "ICL"]
    assert "MAE 0.1147 against 0.0722" in icl.marks[0].sentence


def test_marks_on_runs(rows: pd.DataFrame, tmp_path: Path) -> None:
    costly = read_entry(write_plain_run(tmp_path / "costly", rows, gmacs=60.0))
    assert [mark.letter for mark in costly.marks] == ["M"]
    unknown = read_entry(write_plain_run(tmp_path / "unknown", rows, gmacs=None))
    assert "unknown" in unknown.marks[0].sentence
    poor = rows.assign(predicted=rows["mos"] - 0.4)
    [row] = [
        r
        for r in build_board(1, [read_entry(write_plain_run(tmp_path / "poor", poor))]).rows
        if r.kind == "run"
    ]
    assert [mark.letter for mark in row.marks] == ["C"]
    fewer = rows[rows.index >= 5]
    assert [mark.letter for mark in read_entry(write_plain_run(tmp_path / "fewer", fewer)).marks] == ["T"]


def test_runs_that_have_no_place_are_refused(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="built-in photo set"):
        read_entry(write_plain_run(tmp_path / "demo", rows, simulation=True, dataset="demo"))
    with pytest.raises(RunError, match="dataset 'koniq-10k'"):
        read_entry(write_plain_run(tmp_path / "other", rows, dataset="koniq-10k"))
    with pytest.raises(RunError, match="29 test images where the official split has 30"):
        read_entry(write_plain_run(tmp_path / "short", rows.iloc[:-1]))
    renamed = rows.assign(image=rows["image"].replace("119.jpg", "x.jpg"))
    with pytest.raises(RunError, match="other names or another MOS"):
        read_entry(write_plain_run(tmp_path / "renamed", renamed))
    with pytest.raises(RunError, match="other names or another MOS"):
        read_entry(write_plain_run(tmp_path / "rescaled", rows.assign(mos=rows["mos"] / 2)))
    taught_by_validation = rows.assign(split=rows["split"].replace("validation", "training"), subset="")
    taught_by_validation.loc[rows["split"] == "test", "subset"] = rows["subset"]
    with pytest.raises(RunError, match="official 60 training images"):
        read_entry(write_plain_run(tmp_path / "cheat", taught_by_validation))


def test_metrics_that_do_not_follow_from_the_predictions_are_refused(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    run = write_plain_run(tmp_path / "run", rows)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["srcc"] += 0.001
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match="SRCC of test is said to be"):
        read_entry(run)


def test_a_run_without_validation_is_placed_in_tables_1_and_3_only(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    entry = read_entry(write_plain_run(tmp_path / "run", rows[rows["split"] != "validation"]))
    assert build_board(2, [entry]).absent == (str(tmp_path / "run"),)
    assert build_board(1, [entry]).absent == build_board(3, [entry]).absent == ()


def test_the_command_writes_and_prints(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_plain_run(tmp_path / "run", rows)
    files = [str(tmp_path / name) for name in ("board.csv", "board.md")]
    assert main(["leaderboard", str(run), "--csv", files[0], "--markdown", files[1], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [table["table"] for table in document["tables"]] == [1, 2, 3]
    written = pd.read_csv(files[0])
    assert written.groupby("table").size().tolist() == [16, 16, 9]
    assert written.loc[written["kind"] == "run", "place"].notna().all()
    assert f"| &gt; {run} |" in Path(files[1]).read_text().replace("\\_", "_")
    assert main(["leaderboard"]) == 0
    text = capsys.readouterr().out
    assert all(f"Table {number}." in text for number in (1, 2, 3, 4, 5, 7))
    assert main(["leaderboard", "--table", "4"]) == 0
    assert "69.45" in capsys.readouterr().out
    assert main(["leaderboard", "--table", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table_7"][-1]["srcc"] == "0.8403"
    assert main(["leaderboard", str(tmp_path / "nowhere")]) == 1


@pytest.mark.dataset
def test_the_official_facts_follow_from_the_released_metadata(real_data: Path) -> None:
    frame = pd.read_csv(real_data / "uhd-iqa/uhd-iqa-metadata.csv", keep_default_na=False)
    frame = frame.rename(columns={"image_name": "image", "quality_mos": "mos", "set": "split"})
    mean = frame.loc[frame["split"] == "training", "mos"].mean()
    for part, facts in official_parts().items():
        chosen = rows_of(frame, part)
        error = chosen["mos"] - mean
        assert facts.n == len(chosen)
        assert facts.rows_sha256 == digest_rows(chosen["image"], chosen["mos"])
        assert facts.constant_mae == pytest.approx(error.abs().mean(), abs=1e-6)
        assert facts.constant_rmse == pytest.approx((error**2).mean() ** 0.5, abs=1e-6)


def test_random_weights_are_marked() -> None:
    [mark] = leaderboard.run_marks(1.0, leaderboard.official_parts()["training"].n, ["scene"])
    assert mark.letter == "R"
    assert "scene" in mark.sentence
