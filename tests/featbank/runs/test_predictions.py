"""Anybody's predictions are judged as a run's own: parts, intervals, checks, and sentences for what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.cli import main
from featbank.errors import DatasetError
from featbank.runs.predictions import evaluate_file
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import evaluate


def predictions(folder: Path, name: str = "theirs.csv", **columns: object) -> Path:
    """Write 120 predictions with other people's column names; ``columns`` change or add some."""
    rng = np.random.default_rng(0)
    mos = np.round(rng.uniform(1, 5, 120), 3)
    frame = pd.DataFrame(
        {
            "file": [f"p{i:03d}.jpg" for i in range(120)],
            "MOS": mos,
            "score": np.round(mos + rng.normal(0, 0.5, 120), 3),
            "reference": [f"r{i // 6}" for i in range(120)],
        }
    ).assign(**columns)
    frame.to_csv(folder / name, index=False)
    return folder / name


NAMES = {"image": "file", "mos": "MOS", "predicted": "score", "group": "reference"}


def levels(result: dict) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in result["findings"]}


def test_metrics_and_intervals_are_those_of_the_library(tmp_path: Path) -> None:
    path = predictions(tmp_path)
    frame = pd.read_csv(path)
    found = evaluate_file(path, NAMES)["metrics"]["all"]
    expected = evaluate(frame["MOS"], frame["score"])
    assert {name: found[name] for name in expected} == expected
    interval = bootstrap_ci(frame["MOS"], frame["score"], groups=frame["reference"])
    assert found["ci95"] == interval


def test_few_groups_have_no_interval_and_the_reason_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predictions(tmp_path, reference=["a", "b"] * 60)
    columns = "image=file,mos=MOS,predicted=score,group=reference"
    assert main(["evaluate", str(path), "--columns", columns]) == 0
    assert "no interval for all: 2 independent groups" in capsys.readouterr().out
    assert main(["evaluate", str(path), "--columns", columns, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["all"]["ci95"] is None


def test_splits_are_judged_apart_and_shared_groups_are_told(tmp_path: Path) -> None:
    split = ["train"] * 60 + ["val"] * 30 + ["TEST"] * 30
    subset = [""] * 90 + ["exclusive"] * 10 + [""] * 20
    path = predictions(tmp_path, set=split, subset=subset, reference=[f"r{i % 15}" for i in range(120)])
    result = evaluate_file(path, NAMES | {"split": "set"})
    assert {part: scores["n"] for part, scores in result["metrics"].items()} == {
        "training": 60,
        "validation": 30,
        "test": 30,
        "test/exclusive": 10,
    }
    assert levels(result)["groups across splits"] == "caution"
    assert levels(result)["worse than a constant"] == "ok"


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        (lambda mos: mos, "agreement with the MOS", "alarm"),
        (lambda mos: -mos + np.tile([0.0, 0.4], 60), "agreement with the MOS", "alarm"),
        (lambda mos: 3 + 0.01 * (mos + np.tile([0.0, 0.9, 0.2], 40)), "compressed range", "caution"),
        (lambda mos: 100 * (mos + np.tile([0.0, 0.9, 0.2], 40)), "predictions off the scale", "caution"),
    ],
)
def test_what_fools_a_reader_is_told(tmp_path: Path, change: object, check: str, level: str) -> None:
    mos = pd.read_csv(predictions(tmp_path))["MOS"].to_numpy()
    result = evaluate_file(predictions(tmp_path, score=change(mos)), NAMES)
    assert levels(result)[check] == level


def test_rows_without_a_value_are_counted(tmp_path: Path) -> None:
    path = predictions(tmp_path)
    frame = pd.read_csv(path)
    frame.loc[:4, "score"] = np.nan
    frame.loc[3:9, "MOS"] = np.nan
    frame.to_csv(path, index=False)
    result = evaluate_file(path, NAMES)
    assert (result["n"], result["left_out"]) == (110, 10)
    assert any("10 of 120 rows" in note for note in result["notes"])


def test_a_dmos_is_turned_and_rows_without_names_are_images(tmp_path: Path) -> None:
    path = predictions(tmp_path)
    frame = pd.read_csv(path)
    pd.DataFrame({"dmos": 5 - frame["MOS"], "predicted": frame["score"]}).to_csv(path, index=False)
    result = evaluate_file(path)
    assert result["metrics"]["all"]["srcc"] == pytest.approx(
        evaluate(frame["MOS"], frame["score"])["srcc"], abs=1e-3
    )
    assert any("negative of the column 'dmos'" in note for note in result["notes"])
    assert any("each row is an image of its own" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "--columns mos=NAME,predicted=NAME"),
        ({"mos": "MOS", "predicted": "nothing"}, "nothing"),
        ({"mos": "MOS", "predicted": "file"}, "finite numbers"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        evaluate_file(predictions(tmp_path), columns)


def test_one_image_in_two_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="name every image once"):
        evaluate_file(predictions(tmp_path, file=["a.jpg"] * 120), NAMES)
