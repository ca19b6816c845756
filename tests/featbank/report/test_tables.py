from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from featbank.report.page import render_page
from featbank.report.summary import SIMULATION_NOTE, table_markdown
from featbank.report.tables import column_decimals, comparison_rows, predictors, split_rows, tables_csv
from featbank.runs.folder import METRIC_NAMES, RunData, read_run
from tests.support.run_folder import edit_json


def test_csv_holds_every_number_with_all_its_digits(small_run: RunData) -> None:
    metrics = json.loads((small_run.path / "metrics.json").read_text(encoding="utf-8"))
    sources = {"this run": metrics}
    sources |= {f"{band} alone": sets for band, sets in metrics["single_bands"].items()}
    sources["constant prediction"] = metrics["baselines"]["constant"]
    sources["ridge on the metadata alone"] = metrics["baselines"]["metadata_ridge"]
    rows = list(csv.DictReader(io.StringIO(tables_csv(small_run))))
    assert len(rows) == 5 * len(sources)
    for row in rows:
        key = row["split"] + (f"/{row['subset']}" if row["subset"] else "")
        entry = sources[row["predictor"]][key]
        assert int(row["n"]) == entry["n"]
        for name in METRIC_NAMES:
            value = entry[name]
            assert row[name] == ("" if value is None else repr(value))
            low, high = entry.get("ci95", {}).get(name, ("", ""))
            assert (row[f"{name}_low"], row[f"{name}_high"]) == (str(low), str(high))


def test_rows_spell_value_and_interval(small_run: RunData) -> None:
    rows = split_rows(small_run)
    assert [row.kind for row in rows] == ["split", "split", "subset", "headline", "subset"]
    scores = small_run.scores["test"]
    assert rows[3].n == "30"
    assert rows[3].cells[0][0] == f"{scores.metrics['srcc']:.3f}"
    low, high = scores.ci95["srcc"]
    assert rows[3].cells[0][1].replace("−", "-") == f"[{low:.3f}, {high:.3f}]"


def test_errors_share_their_decimals_and_correlations_have_three(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(mos_range=(0.0, 100.0)))
    decimals = column_decimals(run.scores.values())
    assert {decimals[name] for name in ("srcc", "plcc", "plcc_logistic", "krcc")} == {3}
    assert decimals["mae"] == decimals["rmse"] == 2


def test_bands_are_sorted_and_baselines_come_last(small_run: RunData) -> None:
    rows = predictors(small_run, "test")
    assert [kind for _, kind, _ in rows] == ["model", *["band"] * 3, *["baseline"] * 2]
    values = [scores.metrics["srcc"] for _, kind, scores in rows if kind == "band"]
    assert values == sorted(values, reverse=True)
    assert math.isnan(rows[-1][2].metrics["srcc"])
    spelled = comparison_rows(small_run, ("srcc", "mae"))[-1]
    assert spelled.name == "constant prediction"
    assert spelled.cells[0] == ("–", "")
    assert float(spelled.cells[1][0]) == pytest.approx(rows[-1][2].metrics["mae"], rel=5e-3)


def test_an_undefined_band_comes_after_the_others(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    bands = metrics["single_bands"]
    first = next(iter(bands))
    bands[first]["test"]["srcc"] = None
    edit_json(folder / "metrics.json", single_bands=bands)
    names = [name for name, kind, _ in predictors(read_run(folder), "test") if kind == "band"]
    assert names[-1] == f"{first} alone"


def test_markdown_is_one_table_by_split_and_one_of_comparisons(small_run: RunData) -> None:
    lines = table_markdown(small_run).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 5 + 2 + 6
    assert {line.count("|") for line in rows} == {10}
    assert SIMULATION_NOTE not in table_markdown(small_run)


def test_markdown_of_a_simulation_says_so(make_run: Callable[..., Path]) -> None:
    assert SIMULATION_NOTE in table_markdown(read_run(make_run(simulation=True)))


@pytest.mark.parametrize("name", ["a|b", "<script>x</script>", "[x](y)", "`x`", "a\nb", "*x*_y_"])
def test_names_cannot_break_the_markdown_table(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    bands = metrics["single_bands"]
    edit_json(folder / "metrics.json", single_bands={name: next(iter(bands.values()))} | bands)
    rows = [line for line in table_markdown(read_run(folder)).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {10}
    assert "<script" not in table_markdown(read_run(folder))


def test_random_weights_are_said_first_of_all(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert "RANDOM" not in table_markdown(read_run(folder))
    receipt = json.loads((folder / "receipt.json").read_text())
    receipt["features"][0]["weights"] = "RANDOM, seed 0: features mean nothing"
    (folder / "receipt.json").write_text(json.dumps(receipt))
    said = f"RANDOM WEIGHTS in {receipt['features'][0]['band']}"
    assert said in table_markdown(read_run(folder))
    assert said in render_page(read_run(folder), {})
