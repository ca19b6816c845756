"""Intervals of a run: in the predictions, the metrics, the model file and the scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.errors import RunError
from featbank.report.page import render_page
from featbank.runs.evaluate import calibrate, describe_coverage
from featbank.runs.fit import FitOptions, fit_run
from featbank.runs.folder import read_run
from featbank.runs.model import load_run_model, with_interval
from regressors.evaluation.intervals import ConformalInterval
from tests.support.imported_run import prepare


@pytest.mark.parametrize("calibrate_on", ["training", "validation"])
def test_ends_and_coverage_follow_from_the_predictions(calibrate_on: str, tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    metrics = fit_run(
        table,
        recipe,
        bank,
        tmp_path / "run",
        FitOptions(workers=1, permutations=0, confidence=0.8, calibrate_on=calibrate_on),
    )
    interval = metrics["intervals"]
    rows = pd.read_csv(tmp_path / "run/predictions.csv", keep_default_na=False)
    half = interval["half_width"]
    assert np.allclose(rows["predicted_low"], rows["predicted"] - half)
    assert np.allclose(rows["predicted_high"], rows["predicted"] + half)
    # The corrected quantile of the calibration rows, by hand.
    calibration = rows[rows["split"] == calibrate_on]
    n = len(calibration)
    errors = np.sort(np.abs(calibration["mos"] - calibration["predicted"]))
    assert half == pytest.approx(errors[int(np.ceil(0.8 * (n + 1))) - 1])
    assert interval["n_calibration"] == n
    expected = {"training": {"validation", "validation/exclusive"}, "validation": set()}[calibrate_on]
    assert set(interval["coverage"]) == expected | {"test", "test/exclusive"}
    test = rows[rows["split"] == "test"]
    inside = (test["mos"] >= test["predicted_low"]) & (test["mos"] <= test["predicted_high"])
    assert interval["coverage"]["test"]["share"] == pytest.approx(inside.mean())
    _, manifest = load_run_model(tmp_path / "run/model.skops")
    assert ConformalInterval(**manifest["interval"]).half_width == half


def test_what_cannot_be_calibrated_is_refused_before_the_fit(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path, with_split=False)
    lines: list[str] = []
    for options, message in (
        ({"confidence": 1.5}, "--confidence"),
        ({"calibrate_on": "validation"}, "--calibrate"),
    ):
        with pytest.raises(RunError, match=message):
            fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, **options), log=lines.append)
    assert not any("members fitted" in line for line in lines)


def test_too_few_rows_have_no_interval(tmp_path: Path) -> None:
    assert calibrate(np.arange(10.0), np.zeros(10)) is None
    held_out = np.where(np.arange(40) < 10, 0.0, np.nan)  # a hold-out fold tests some rows only
    assert calibrate(np.arange(40.0), held_out) is None
    assert describe_coverage(None, pd.DataFrame(), np.empty(0)) == {}
    frame = with_interval(pd.DataFrame({"image": ["a"], "predicted": [0.5], "spread": [0.1]}), None)
    assert list(frame) == ["image", "predicted", "predicted_low", "predicted_high", "spread"]
    assert frame[["predicted_low", "predicted_high"]].isna().all(axis=None)


def test_the_page_shows_the_coverage(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    page = render_page(read_run(tmp_path / "run"), {})
    assert "Prediction intervals" in page
    assert "Can this be trusted?" in page
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert f"{metrics['intervals']['n_calibration']} out-of-fold predictions" in page
