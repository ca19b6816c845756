from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featbank.errors import RunError
from featbank.runs.folder import METRIC_NAMES, mos_groups, read_run
from tests.support.run_folder import edit_json


def test_what_is_read_is_what_was_written(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    run = read_run(folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert list(run.scores) == ["training_cv", "validation", "validation/exclusive", "test", "test/exclusive"]
    for key, scores in run.scores.items():
        assert scores.n == metrics[key]["n"]
        assert scores.metrics == {name: metrics[key][name] for name in METRIC_NAMES}
        assert scores.ci95 == {name: tuple(metrics[key]["ci95"][name]) for name in METRIC_NAMES}
    assert run.gmacs == metrics["gmacs"]
    assert math.isnan(run.baselines["constant"]["test"].metrics["srcc"])
    assert set(run.single_bands) == set(metrics["single_bands"])
    assert run.grid_parameters() == ["alpha"]
    assert run.select_by == "srcc"
    assert run.mos_range == (0.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "headline", "split"),
    [
        ({"training": 20, "validation": 10, "test": 10}, "test", "test"),
        ({"training": 20, "validation": 10}, "validation", "validation"),
        ({"training": 20}, "training_cv", "training"),
    ],
)
def test_the_verdict_speaks_of_the_last_split_there_is(
    make_run: Callable[..., Path], counts: dict[str, int], headline: str, split: str
) -> None:
    run = read_run(make_run(counts=counts))
    assert (run.headline, run.headline_split) == (headline, split)


def test_odd_image_names_stay_text(make_run: Callable[..., Path]) -> None:
    names = ("NA", "007", "1e5", "null", 'a,b\n"c"', "é.jpg")
    run = read_run(make_run(names=names))
    assert run.predictions["image"].tolist()[: -len(names) - 1 : -1] == list(names)


def test_rows_without_mos_or_prediction_are_not_scored(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    frame = read_run(folder).predictions
    frame.loc[frame["split"] == "test", "mos"] = np.nan
    frame.loc[frame.index[frame["split"] == "validation"][:3], "predicted"] = np.nan
    frame.to_csv(folder / "predictions.csv", index=False)
    run = read_run(folder)
    assert run.scored("test").empty
    assert len(run.scored("validation")) == 17
    assert "test" not in {split for split, _, _ in mos_groups(run.predictions)}


@pytest.mark.parametrize("name", ["metrics.json", "receipt.json", "predictions.csv"])
def test_a_missing_file_is_named_with_the_cure(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name}.*featbank fit"):
        read_run(folder)


@pytest.mark.parametrize("name", ["cv_results.csv", "weights.csv"])
def test_optional_files_may_be_absent_or_empty(make_run: Callable[..., Path], name: str) -> None:
    folder = make_run()
    (folder / name).write_text("")
    read_run(folder)
    (folder / name).unlink()
    assert read_run(folder).recipe_text


def test_no_folder_and_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder, found none"):
        read_run(tmp_path / "absent")
    with pytest.raises(RunError, match=r"no metrics\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "is damaged"),
        ("metrics.json", "[]", "must hold a JSON object, got list"),
        ("metrics.json", '{"gmacs": 1}', "metrics of at least one split"),
        ("predictions.csv", "image,mos\n1.jpg,0.5\n", "lacks .*'split'"),
        ("predictions.csv", "image,split,subset,mos,predicted\n1.jpg,test,,good,0.5\n", "must hold numbers"),
        ("weights.csv", "member,weight\nall,heavy\n", "must hold numbers"),
    ],
)
def test_damaged_files_are_refused_by_name(
    make_run: Callable[..., Path], name: str, content: str, message: str
) -> None:
    folder = make_run()
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        read_run(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("bounds", [None, [None, None], [0], "0..1"])
def test_an_unknown_scale_is_none(make_run: Callable[..., Path], bounds: object) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", dataset={"name": "own", "mos_range": bounds})
    assert read_run(folder).mos_range is None


@pytest.mark.parametrize("text", ["select_by = ", "regression = 3", "[regression]\nalpha = 1"])
def test_a_recipe_that_does_not_say_how_it_selects(make_run: Callable[..., Path], text: str) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", recipe={"title": "t", "text": text})
    assert read_run(folder).select_by == "score"


def test_simulation_is_taken_from_either_file(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert not read_run(folder).is_simulation
    edit_json(folder / "receipt.json", dataset={"simulation": True})
    assert read_run(folder).is_simulation
