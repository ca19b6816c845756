from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featbank.report.figures import cv_curves
from featbank.report.summary import (
    MAX_FAILURES,
    MAX_MISSES,
    band_rows,
    cost_sentence,
    failure_rows,
    failure_summary,
    grid_end_members,
    licence_rows,
    member_rows,
    mos_rows,
    pass_rows,
    provenance,
    scale_sentence,
    share_sentence,
    spell_parameters,
    spell_value,
    split_counts,
    time_rows,
    worst_misses,
)
from featbank.runs.folder import RunData, read_run
from tests.featbank.conftest import expected_misses
from tests.support.run_folder import edit_json, write_json


def test_misses_are_the_greatest_errors_of_the_test_split(small_run: RunData) -> None:
    misses = worst_misses(small_run)
    assert [miss["image"] for miss in misses] == expected_misses(small_run.predictions, "test")[:MAX_MISSES]
    rows = small_run.predictions.set_index("image")
    for miss in misses:
        row = rows.loc[miss["image"]]
        error = row["predicted"] - row["mos"]
        assert float(miss["error"].replace("−", "-")) == pytest.approx(error, abs=1e-4)
        assert miss["direction"] == ("rated too high" if error > 0 else "rated too low")
        assert float(miss["mos"]) == pytest.approx(row["mos"], abs=1e-4)


def test_misses_do_not_depend_on_the_order_of_rows(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    run = read_run(folder)
    run.predictions.loc[:, "predicted"] = run.predictions["mos"] + 0.1  # all errors equal
    shuffled = run.predictions.sample(frac=1, random_state=1)
    names = [miss["image"] for miss in worst_misses(run)]
    run.predictions.loc[:] = shuffled.to_numpy()
    assert [miss["image"] for miss in worst_misses(run)] == names


def test_members_show_weight_choice_and_fold_score(small_run: RunData) -> None:
    rows = member_rows(small_run)
    assert [row["member"] for row in rows] == small_run.weights["member"].tolist()
    assert rows[-1] == dict.fromkeys(rows[0], "") | {"member": "intercept", "weight": "0.0123"}
    frame = small_run.cv_results
    for row, weight in list(zip(rows, small_run.weights["weight"], strict=True))[:-1]:
        assert float(row["weight"]) == pytest.approx(weight, abs=5e-4)
        best = frame[frame["member"] == row["member"]].sort_values("mean_test_score").iloc[-1]
        assert row["cv"] == f"{best['mean_test_score']:.3f} ± {best['std_test_score']:.3f}"
        assert row["params"] == "alpha = 100"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (3, "3"),
        (0.1 + 0.2, "0.3"),
        ("a", "a"),
        (["a", 1], "a, 1"),
        ([[1], {"b": None}], '[[1], {"b": null}]'),
    ],
)
def test_values_are_spelled_on_one_line(value: object, text: str) -> None:
    assert spell_value(value) == text


def test_parameters_are_spelled_without_their_steps() -> None:
    assert (
        spell_parameters({"regress__alpha": 1e-6, "regress__kernel": "rbf"}) == "alpha = 1e-06, kernel = rbf"
    )
    assert spell_parameters("alpha=3") == "alpha=3"
    assert spell_parameters(None) == ""


def test_grid_ends_are_told(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert grid_end_members(run, "alpha") == []
    rising = run.cv_results["member"] == "all"
    run.cv_results.loc[rising, "mean_test_score"] = np.linspace(0.1, 0.5, int(rising.sum()))
    assert [curve.member for curve in cv_curves(run, "alpha") if curve.best == 12] == ["all"]
    assert grid_end_members(run, "alpha") == ["all"]


def test_bands_and_licences_come_from_the_receipt(small_run: RunData) -> None:
    features = {row["band"]: row for row in small_run.rows("features")}
    rows = band_rows(small_run)
    assert {row["band"] for row in rows} == set(features)
    for row in rows:
        feature = features[row["band"]]
        assert (row["encoder"], row["encoder_small"]) == (feature["encoder"], feature["view"])
        assert row["columns"] == str(feature["n_features"])
        assert float(row["gmacs"]) == feature["gmacs"]
    assert {row["licence"] for row in licence_rows(small_run)} == {"Apache-2.0"}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (
            {"a": 0.7, "b": 0.3},
            "Share of the score that each band brings (product measure); the shares add up to the",
        ),
        (
            {"a": 0.1, "b": 0.06},
            "Share of MOS variance that each band brings (product measure); together 16 %, the rest",
        ),
        ({"a": 0.1, "b": -0.3}, "together −20 %, which is worse than a constant"),
    ],
)
def test_shares_are_said_to_be_of_what_they_are(
    make_run: Callable[..., Path], shares: dict[str, float], words: str
) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", band_share=shares, band_share_rows=None)
    assert words in share_sentence(read_run(folder)).replace("\u00a0", " ")
    edit_json(folder / "receipt.json", band_share_rows="evaluated")
    assert "(product measure, on the evaluated rows)" in share_sentence(read_run(folder))


def test_encoders_of_unknown_licence_are_named_as_such(make_run: Callable[..., Path]) -> None:
    [row] = {str(row) for row in (r["licence"] for r in licence_rows(read_run(make_run(imported=True))))}
    assert row == "not stated"


def test_passes_add_up_and_time_is_told_by_photo_and_run(small_run: RunData) -> None:
    rows = pass_rows(small_run)
    assert sum(float(row["gmacs"]) for row in rows) == pytest.approx(small_run.gmacs)
    values = [float(row["gmacs"]) for row in rows]
    assert values == sorted(values, reverse=True)
    times = {row["stage"]: row for row in time_rows(small_run)}
    assert times["decode"]["photo"] == "61 ms"
    total = sum(small_run.section("seconds_per_photo").values())
    assert float(times["extraction in all"]["photo"].split()[0]) == pytest.approx(1000 * total, rel=5e-3)
    assert times["single bands"] == {"stage": "single bands", "photo": "", "run": "3 min 35 s"}


def test_the_cost_is_put_in_words(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run()
    assert "0.241 GMACs" in cost_sentence(read_run(folder))
    assert "within the budget of 50 GMACs (0.48\u00a0% of it)" in cost_sentence(read_run(folder))
    edit_json(folder / "metrics.json", budget_gmacs=0.1)
    assert "above the budget of 0.100 GMACs" in cost_sentence(read_run(folder))
    edit_json(folder / "metrics.json", budget_gmacs=None)
    assert "sets no budget" in cost_sentence(read_run(folder))
    passes = read_run(folder).rows("passes")
    passes[0]["gmacs"] = None
    edit_json(folder / "receipt.json", passes=passes)
    assert "The sum is too low: 1 pass came" in cost_sentence(read_run(folder))
    edit_json(folder / "metrics.json", gmacs=0.0)
    edit_json(folder / "receipt.json", passes=[{"pass": "p", "gmacs": None}])
    assert "states no GMACs" in cost_sentence(read_run(folder))


def test_failures_are_counted_and_cut(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(failures=250))
    assert len(failure_rows(run)) == MAX_FAILURES
    assert failure_summary(run) == "truncated 84, empty 83, not-an-image 83"


def test_mos_statistics_are_those_of_the_predictions(small_run: RunData) -> None:
    frame = small_run.predictions
    rows = {row["group"]: row for row in mos_rows(small_run)}
    mos = frame.loc[(frame["split"] == "test") & (frame["subset"] == "exclusive"), "mos"]
    row = rows["test, exclusive"]
    assert int(row["n"]) == len(mos)
    assert float(row["mean"]) == pytest.approx(mos.mean(), abs=1e-4)
    assert float(row["std"]) == pytest.approx(mos.std(ddof=0), abs=1e-4)
    assert float(row["max"]) == pytest.approx(mos.max(), abs=1e-4)


def test_the_scale_is_named_where_it_is_known(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(mos_range=(1.0, 5.0)))
    mos = run.scored("test")["mos"]
    sentence = scale_sentence(run)
    assert "on a scale from 1 to 5" in sentence
    assert f"from {mos.min():.2f} to {mos.max():.2f}" in sentence
    run.receipt["dataset"].pop("mos_range")
    assert "on the dataset's own scale" in scale_sentence(run)


def test_counts_of_splits(small_run: RunData) -> None:
    assert split_counts(small_run) == "40 training, 20 validation (8 exclusive), 30 test (8 exclusive)"


def test_provenance_shows_all_the_receipt_holds_and_nothing_twice(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    receipt = {
        "recipe": {"digest": "d" * 64, "text": "hidden"},
        "code": {"version": "1", "clean": True},
        "novel": {"deep": {"er": 3}},
        "notes": ["shown with the metrics"],
        "started": "then",
        "seeds": {},
        "features": [{"band": "hidden"}],
    }
    write_json(folder / "receipt.json", receipt)
    assert provenance(read_run(folder)) == [
        ("run", [("recipe digest", "d" * 64), ("started", "then")]),
        ("code", [("version", "1"), ("clean", "yes")]),
        ("novel", [("deep.er", "3")]),
    ]
