"""One execution of a recipe: what it writes, what it may read, and what it refuses."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.bank import Bank
from featbank.cli import main
from featbank.commands.fit import render_metrics
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import DatasetError, MissingFeaturesError, RunError
from featbank.importing import import_features
from featbank.recipes.reading import parse_recipe
from featbank.report.page import photos_of, render_page, write_report
from featbank.runs.evaluate import score_baselines
from featbank.runs.fit import FitOptions, fit_run
from featbank.runs.folder import read_run
from featbank.runs.model import load_run_model
from featbank.runs.split import SealedRows, describe_rows, find_copies, prepare_rows, written_groups
from featbank.runs.trust import recomputed_scores
from featbank.table import FeatureTable
from regressors.ensemble import NoSkillWarning
from regressors.evaluation.intervals import bootstrap_ci
from regressors.evaluation.metrics import plcc, srcc
from tests.support.imported_run import RECIPE, prepare, write_scores

FILES = {
    "metrics.json",
    "predictions.csv",
    "cv_results.csv",
    "weights.csv",
    "model.skops",
    "recipe.toml",
    "receipt.json",
    "report.html",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    table, recipe, bank = prepare(folder)
    fit_run(
        table,
        recipe,
        bank,
        folder / "run",
        FitOptions(workers=1),
        write_report=lambda run: write_report(run, photos=photos_of(table), into=run),
    )
    return folder / "run"


def test_the_run_folder_holds_every_file_of_the_contract(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= FILES


def test_metrics_follow_from_the_written_predictions(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    rows = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    for part in ("validation", "validation/exclusive", "test", "test/exclusive"):
        split, _, subset = part.partition("/")
        chosen = rows[(rows["split"] == split) & ((rows["subset"] == subset) | (subset == ""))]
        assert metrics[part]["n"] == len(chosen)
        assert metrics[part]["srcc"] == pytest.approx(srcc(chosen["mos"], chosen["predicted"]), abs=1e-12)
        assert metrics[part]["plcc"] == pytest.approx(plcc(chosen["mos"], chosen["predicted"]), abs=1e-12)
        for name in ("n", "mae", "rmse", "plcc", "srcc", "krcc", "plcc_logistic", "ci95"):
            assert name in metrics[part]
    low, high = metrics["training_cv"]["ci95"]["srcc"]  # the other parts have images of eight uploaders alone
    assert low <= metrics["training_cv"]["srcc"] <= high


def test_evaluating_the_written_predictions_gives_the_same_metrics(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert main(["evaluate", str(run / "predictions.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left_out"] == 0
    for part, scores in found["metrics"].items():
        assert scores == metrics["training_cv" if part == "training" else part]
    assert set(found["metrics"]) == {
        "training",
        "validation",
        "validation/exclusive",
        "test",
        "test/exclusive",
    }


def test_images_without_mos_are_refused_before_features_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.csv").write_text("path,mos\n" + "".join(f"{i}.jpg,\n" for i in range(5)))
    command = [str(tmp_path / "scores.csv"), "--recipe", "starter", "--bank", str(tmp_path / "bank")]
    for name in (["fit"], ["search"], ["protocol", "repeated"]):
        assert main([*name, *command, "--out", str(tmp_path / "out")]) == 1
        assert "no image has a MOS" in capsys.readouterr().err


def test_networks_that_have_learned_these_mos_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_dataset(write_scores(tmp_path, with_split=False))
    bank, lines = Bank(tmp_path / "bank"), []
    features = np.random.default_rng(0).normal(size=(len(table.frame), 12))
    import_features(table, bank, "sharp", None, features, source_digest="x", gmacs=1.0)
    monkeypatch.setattr("featbank.runs.fit.fitted_on", lambda _: table.name)
    only = RECIPE[: RECIPE.index('[[band]]\nname = "noise"')]
    options = FitOptions(workers=1, permutations=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_run(table, parse_recipe(only, "sharp"), bank, tmp_path / "run", options, log=lines.append)
    assert any("have learned the MOS of this dataset's training split" in line for line in lines)
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert any("nothing should be chosen by them" in note for note in receipt["notes"])


def test_copies_of_photos_are_ties_in_the_metrics_as_in_the_file(tmp_path: Path) -> None:
    table = read_dataset(write_scores(tmp_path, with_split=False))
    rng = np.random.default_rng(0)
    mos = (
        table.frame["mos"].to_numpy() * 2 / 3 + table.frame["mos"].mean() / 3
    )  # more digits than are written
    photos = np.outer(mos[:80], rng.normal(size=12)) + 0.3 * rng.normal(size=(80, 12))
    table, bank = replace(table, frame=table.frame.assign(mos=mos, group="")), Bank(tmp_path / "bank")
    import_features(table, bank, "sharp", None, np.tile(photos, (2, 1)), source_digest="copies", gmacs=1.0)
    only = RECIPE[: RECIPE.index('[[band]]\nname = "noise"')] + '[regression]\nestimator = "rbf-svr"\n'
    fit_run(table, parse_recipe(only, "svr"), bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    for part, scores in recomputed_scores(read_run(tmp_path / "run").predictions).items():
        assert scores == {name: metrics[part][name] for name in scores}  # to the last digit
    findings = json.loads((tmp_path / "run/trust.json").read_text())["findings"]
    assert {f["level"] for f in findings if f["check"] == "metrics follow from predictions"} == {"ok"}


def test_a_member_sees_all_bands_and_one_each_leaves_one_out(run: Path) -> None:
    members = pd.read_csv(run / "weights.csv", keep_default_na=False)
    assert list(members["member"]) == ["all", "without:sharp", "without:noise", "without:dull", "intercept"]
    rows = pd.read_csv(run / "predictions.csv")
    weights = members.set_index("member")["weight"]
    test = rows[rows["split"] == "test"]
    combined = weights["intercept"] + sum(
        weights[name] * test[f"member:{name}"] for name in members["member"][:-1]
    )
    assert np.allclose(combined, test["predicted"], atol=1e-7)


def test_the_receipt_says_what_was_asked_and_on_which_rows(run: Path) -> None:
    receipt = json.loads((run / "receipt.json").read_text())
    assert receipt["recipe"]["title"] == "Three synthetic bands"
    assert parse_recipe((run / "recipe.toml").read_text(), "synthetic").digest == receipt["recipe"]["digest"]
    assert receipt["dataset"]["counts"] == {"training": 96, "validation": 32, "test": 32}
    assert receipt["fitted_on"] == {"split": "training", "n": 96}
    assert [feature["band"] for feature in receipt["features"]] == ["sharp", "noise", "dull"]
    assert all(len(feature["digest"]) == 64 for feature in receipt["features"])
    assert {"numpy", "scikit-learn", "python"} <= set(receipt["versions"])
    assert {chosen["member"] for chosen in receipt["chosen"]} == {
        "all",
        "without:sharp",
        "without:noise",
        "without:dull",
    }


def test_the_same_run_gives_the_same_numbers(run: Path, tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    fit_run(table, recipe, bank, tmp_path / "again", FitOptions(workers=1))
    assert (tmp_path / "again/metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert (tmp_path / "again/predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize("with_split", [True, False])
def test_the_order_of_the_csv_changes_nothing(tmp_path: Path, with_split: bool) -> None:
    table, recipe, bank = prepare(tmp_path, with_split=with_split)
    shuffled = replace(table, frame=table.frame.sample(frac=1, random_state=3).reset_index(drop=True))
    folders = [tmp_path / name for name in ("listed", "shuffled")]
    for rows, folder in zip((table, shuffled), folders, strict=True):
        fit_run(rows, recipe, bank, folder, FitOptions(workers=1, permutations=1))
    for name in ("predictions.csv", "metrics.json", "cv_results.csv", "weights.csv", "trust.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    coefficients = [load_run_model(folder / "model.skops")[0].members_[0][-1].coef_ for folder in folders]
    assert np.array_equal(*coefficients)


def test_informative_bands_beat_the_constant_and_the_dull_band(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["srcc"] > 0.7
    assert metrics["test"]["mae"] < metrics["baselines"]["constant"]["test"]["mae"]
    assert metrics["baselines"]["constant"]["test"]["srcc"] is None  # not defined, and never written as zero
    assert metrics["single_bands"]["dull"]["test"]["srcc"] < metrics["test"]["srcc"]
    assert "test/exclusive" in render_metrics(metrics)


def test_plain_scikit_learn_gives_the_same_numbers(run: Path, tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, reference=True, permutations=0))
    fast, plain = (pd.read_csv(folder / "predictions.csv") for folder in (run, tmp_path / "run"))
    assert np.allclose(fast["predicted"], plain["predicted"], rtol=0, atol=1e-8)
    for name in ("cv_results.csv", "weights.csv"):
        ours, theirs = (pd.read_csv(folder / name) for folder in (run, tmp_path / "run"))
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_mos_scores_near_zero(tmp_path: Path, seed: int) -> None:
    # 300 images, 60 of them evaluated: chance alone stays within 0.36 of zero in 99.5 % of shuffles.
    table, recipe, bank = prepare(tmp_path)
    shuffled = table.frame.assign(mos=np.random.default_rng(seed).permutation(table.frame["mos"]))
    metrics = fit_run(
        replace(table, frame=shuffled), recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0)
    )
    assert abs(metrics["training_cv"]["srcc"]) < 0.3
    assert abs(metrics["test"]["srcc"]) < 0.36


def test_predictions_do_not_depend_on_test_labels(run: Path, tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    frame = table.frame.copy()
    judged = frame["split"] != "training"
    frame.loc[judged, "mos"] = np.random.default_rng(5).permutation(frame.loc[judged, "mos"])
    fit_run(
        replace(table, frame=frame), recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0)
    )
    before, after = (pd.read_csv(folder / "predictions.csv") for folder in (run, tmp_path / "run"))
    assert np.array_equal(before["predicted"], after["predicted"])


def test_the_seal_opens_once_and_only_after_fitting() -> None:
    rows = pd.DataFrame({"split": ["training", "test"], "mos": [0.1, 0.2]}, index=["a", "b"])
    seal = SealedRows(pd.DataFrame({"f:0000": [1.0, 2.0]}, index=rows.index), rows)
    with pytest.raises(RunError, match="only after"):
        seal.open(is_fitted=False)
    X, judged = seal.open(is_fitted=True)
    assert list(X.index) == list(judged.index) == ["b"]
    with pytest.raises(RunError, match="once"):
        seal.open(is_fitted=True)


def test_a_dataset_without_a_split_gets_one_by_group(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path, with_split=False)
    table = replace(table, frame=table.frame.assign(mos=table.frame["mos"].where(table.frame.index >= 40)))
    lines: list[str] = []
    metrics = fit_run(
        table, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0), log=lines.append
    )
    assert 0.15 * 120 <= metrics["test"]["n"] <= 0.25 * 120
    assert any(
        line.startswith("120 of 160 rows have a MOS; 40 without one were left out: 0") for line in lines
    )
    rows = pd.read_csv(tmp_path / "run/predictions.csv").merge(
        table.frame[["image_id", "group"]], left_on="image", right_on="image_id", suffixes=("", "_listed")
    )
    sides = rows.groupby("group_listed")["split"].nunique()
    assert sides.max() == 1
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert any("has no split" in note for note in receipt["notes"])


def test_copies_stay_together_within_a_split_and_are_left_across_given_ones() -> None:
    names = [f"{number:02d}" for number in range(40)]
    values = np.tile(np.random.default_rng(0).normal(size=(20, 12)), (2, 1))
    rows = pd.DataFrame({"mos": np.arange(40.0), "split": "", "subset": "", "group": ""}, index=names)
    features = FeatureTable(pd.DataFrame(values, index=names), rows, pd.DataFrame(columns=["image"]))
    copies = find_copies(features)
    assert copies == {f"{number + 20:02d}": f"{number:02d}" for number in range(20)}
    made = prepare_rows(rows, 0.25, 0, copies)
    for column in ("group", "split"):
        assert (made.frame[column][:20].to_numpy() == made.frame[column][20:].to_numpy()).all()
    assert made.notes[0].startswith("20 images have the features of another one")
    assert set(written_groups(made.frame["group"], made.frame.index.to_series())[:20]) == {""}
    given = rows.assign(split=["training"] * 30 + ["test"] * 10)
    groups = prepare_rows(given, 0.25, 0, copies).frame["group"]
    assert groups["20"] == groups["00"]
    assert groups["30"] != groups["10"]
    few = replace(features, X=features.X.iloc[:, :5])
    assert find_copies(few) == {}  # a few numbers may agree by chance


def test_rows_without_mos_are_left_out_and_said_so() -> None:
    rows = pd.DataFrame(
        {"mos": [0.1, np.nan, 0.3], "split": "training", "subset": "", "group": ""}, index=list("abc")
    )
    prepared = prepare_rows(rows, 0.2, 0)
    assert list(prepared.frame.index) == ["a", "c"]
    left_out = pd.DataFrame(
        [("d", "missing", "no file"), ("e", "empty", "band x, no"), ("f", "missing", "no file")],
        columns=["image", "reason", "message"],
    )
    assert describe_rows(FeatureTable(rows, rows, left_out, [("c", "a")])) == [
        "2 of 3 rows have a MOS; 1 without one were left out: b.",
        "3 of 6 images (50.0%) have no features and were left out: 2 missing (d, f), 1 empty (e).",
        "left out e: band x, no",
        "1 images are copies of another one, byte for byte, and rows of their own: c of a.",
    ]
    assert prepared.frame["group"].nunique() == 2
    with pytest.raises(DatasetError, match="no image has a MOS"):
        prepare_rows(rows.assign(mos=np.nan), 0.2, 0)
    with pytest.raises(DatasetError, match="have no split"):
        prepare_rows(rows.assign(split=["training", "", ""]).fillna(0.5), 0.2, 0)


def test_the_folds_of_a_fit_keep_groups_together(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    # Each group scattered over the table: contiguous ones would often share a fold by luck.
    scattered = table.frame.assign(group=[f"uploader {number % 24}" for number in range(len(table.frame))])
    table = replace(table, frame=scattered)
    fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    model, _ = load_run_model(tmp_path / "run/model.skops")
    training = scattered.loc[scattered["split"] == "training", "group"].to_numpy()
    assert len(model.folds_) == 5
    for learned, held_out in model.folds_:
        assert not set(training[learned]) & set(training[held_out])


def test_intervals_are_drawn_by_group_and_not_from_a_few_groups(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    groups = table.frame["group"].where(table.frame["split"] == "training", "")
    judged = table.frame["split"] == "test"
    groups[judged] = [f"scene {number % 7}" for number in range(judged.sum())]
    table = replace(table, frame=table.frame.assign(group=groups))
    metrics = fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    rows = pd.read_csv(tmp_path / "run/predictions.csv", keep_default_na=False).set_index("image")
    listed = table.frame.set_index("image_id")["group"]
    assert (rows["group"] == listed[rows.index]).all()
    training = rows[rows["split"] == "training"]
    expected = bootstrap_ci(
        training["mos"], training["predicted"], groups=training["group"], n_resamples=1000
    )
    assert metrics["training_cv"]["ci95"]["srcc"] == pytest.approx(expected["srcc"])
    assert metrics["validation"]["ci95"]["srcc"][0] is not None  # 32 images, each of which stands alone
    assert metrics["test"]["ci95"] is None
    assert metrics["test"]["ci95_reason"].startswith("7 independent groups")
    lines = render_metrics(metrics).splitlines()
    assert any(line.startswith("no interval for test: 7 independent groups") for line in lines)
    [line] = [line for line in lines if line.startswith("  test  ")]
    assert line.split()[3] == "-"
    assert "No intervals for test: 7 independent groups" in render_page(read_run(tmp_path / "run"), {})


def test_the_constant_baseline_is_the_mean_of_the_training_rows(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    rows = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    mean = rows.loc[rows["split"] == "training", "mos"].mean()
    for split in ("validation", "test"):
        mos = rows.loc[rows["split"] == split, "mos"]
        said = metrics["baselines"]["constant"][split]
        assert said["mae"] == pytest.approx((mos - mean).abs().mean(), rel=1e-9)
        assert said["rmse"] == pytest.approx(((mos - mean) ** 2).mean() ** 0.5, rel=1e-9)


@pytest.mark.parametrize("has_scenes", [True, False])
def test_the_nearest_training_photo_tells_scenes_on_both_sides_of_the_split(
    has_scenes: bool, tmp_path: Path
) -> None:
    table = read_dataset(write_scores(tmp_path))
    mos, rng = table.frame["mos"].to_numpy(), np.random.default_rng(0)
    # Two photos of each scene, whose quality no direction of the features tells.
    order, scenes = np.argsort(mos), rng.normal(size=(len(mos) // 2, 12))
    features = rng.normal(size=(len(mos), 12))
    if has_scenes:
        features[order] = np.repeat(scenes, 2, axis=0) + 0.01 * features[order]
    frame = table.frame.assign(group="", split="training", subset="")
    frame.loc[frame.index[order[1::2]], "split"] = "test"
    table, bank = replace(table, frame=frame), Bank(tmp_path / "bank")
    import_features(table, bank, "sharp", None, features, source_digest="scenes", gmacs=1.0)
    only = RECIPE[: RECIPE.index('[[band]]\nname = "noise"')]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoSkillWarning)
        fit_run(table, parse_recipe(only, "scenes"), bank, tmp_path / "run", FitOptions(workers=1))
    nearest = json.loads((tmp_path / "run/metrics.json").read_text())["baselines"]["nearest_photo"]["test"]
    assert nearest["n"] == len(mos) // 2
    assert nearest["srcc"] > 0.99 if has_scenes else abs(nearest["srcc"]) < 0.35


def test_the_printed_table_names_its_columns_rightly(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    title, *lines = render_metrics(metrics).splitlines()
    names = title.replace("95 % interval", "interval").split()
    compared = {
        "constant prediction": metrics["baselines"]["constant"]["test"],
        "nearest photo's MOS": metrics["baselines"]["nearest_photo"]["test"],
        "band noise alone": metrics["single_bands"]["noise"]["test"],
    }
    parts = {name: metrics[name] for name in ("training_cv", "validation", "test", "test/exclusive")}
    for name, scores in (parts | compared).items():
        [line] = [line for line in lines if line.startswith(f"  {name} ")]
        shown = dict(zip(names, line.removeprefix(f"  {name}").replace(", ", ",").split(), strict=True))
        assert int(shown.pop("n")) == scores["n"]
        low, high = (scores["ci95"] or {}).get("srcc", (None, None))
        assert shown.pop("interval") == ("-" if low is None else f"[{low:.3f},{high:.3f}]")
        for metric, text in shown.items():
            value = scores[metric.lower()]
            assert text == "-" if value is None else float(text) == pytest.approx(value, rel=1e-3)


def test_single_bands_and_baselines_have_an_interval_of_srcc() -> None:
    rng = np.random.default_rng(0)
    mos = rng.normal(size=60)
    rows = pd.DataFrame(
        {"mos": mos, "split": "test", "subset": "", "group": [f"uploader {n // 3}" for n in range(60)]}
    )
    found = score_baselines(
        rows, {"band": mos + rng.normal(size=60), "constant": np.zeros(60), "metadata": None}
    )
    band, constant = found["band"]["test"], found["constant"]["test"]
    assert set(found) == {"band", "constant"}
    assert set(band["ci95"]) == {"srcc"}
    low, high = band["ci95"]["srcc"]
    assert low < band["srcc"] < high
    assert constant["ci95"]["srcc"] == [None, None]


def test_bands_of_one_pass_pay_once(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    twice = '[[band]]\nname = "again"\nencoder = "imported:sharp"\n[regression]'
    shared = parse_recipe(RECIPE.replace("[regression]", twice), "shared")
    costs = [
        fit_run(table, which, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))["gmacs"]
        for which in (recipe, shared)
    ]
    assert costs == [pytest.approx(3.0)] * 2


def test_over_budget_is_refused_unless_asked_for(tmp_path: Path) -> None:
    table, _, bank = prepare(tmp_path)
    recipe = parse_recipe(RECIPE + "budget_gmacs = 2.5\n", "dear")
    with pytest.raises(RunError, match="--over-budget"):
        fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    assert not (tmp_path / "run").exists()
    metrics = fit_run(
        table, recipe, bank, tmp_path / "run", FitOptions(workers=1, over_budget=True, permutations=0)
    )
    assert metrics["gmacs"] == pytest.approx(3.0)


def test_a_band_that_was_never_imported_is_named(tmp_path: Path) -> None:
    table, _, bank = prepare(tmp_path)
    recipe = parse_recipe(RECIPE.replace("imported:dull", "imported:absent"), "absent")
    with pytest.raises(MissingFeaturesError, match=r"absent.*bank import"):
        fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1))


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(tmp_path / "nowhere.csv")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("featbank: ")
    assert "Traceback" not in captured.err


def test_metadata_alone_is_a_floor(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    informative = table.frame["mos"] + np.random.default_rng(0).normal(0, 0.02, len(table.frame))
    with_metadata: ImageTable = replace(table, frame=table.frame.assign(**{"meta:log_views": informative}))
    metrics = fit_run(with_metadata, recipe, bank, tmp_path / "run", FitOptions(workers=1, permutations=0))
    assert metrics["baselines"]["metadata_ridge"]["test"]["srcc"] > 0.9


def test_training_images_count_by_the_column_that_the_recipe_names(tmp_path: Path) -> None:
    _, recipe, bank = prepare(tmp_path)
    clean = pd.read_csv(tmp_path / "scores.csv")
    wrong = (clean["split"] == "training") & (clean.index % 3 == 0)
    spoilt = clean.assign(mos=clean["mos"].where(~wrong, 0.01), n_ratings=np.where(wrong, 1e-9, 5))
    spoilt.to_csv(tmp_path / "scores.csv", index=False)
    weighted = replace(recipe, regression=replace(recipe.regression, sample_weight="n_ratings"))
    assert weighted.digest != recipe.digest
    kept = spoilt[~wrong]
    kept.to_csv(tmp_path / "kept.csv", index=False)
    predicted = {}
    for name, source, asked in (
        ("plain", "scores", recipe),
        ("weighted", "scores", weighted),
        ("kept", "kept", recipe),
    ):
        said: list[str] = []
        found = read_dataset(tmp_path / f"{source}.csv")
        fit_run(found, asked, bank, tmp_path / name, FitOptions(workers=1, permutations=1), log=said.append)
        rows = pd.read_csv(tmp_path / name / "predictions.csv").set_index("image")
        predicted[name] = rows.loc[rows["split"] == "test", "predicted"]
        assert any("Training images count by their n_ratings" in line for line in said) == (
            name == "weighted"
        )
    # The folds differ, and with them the chosen penalties; the rows that do not count leave no other trace.
    assert np.abs(predicted["weighted"] - predicted["kept"]).max() < 0.05
    assert np.abs(predicted["plain"] - predicted["kept"]).mean() > 0.1
    assert 'sample_weight = "n_ratings"' in (tmp_path / "weighted/recipe.toml").read_text()
    notes = json.loads((tmp_path / "weighted/receipt.json").read_text())["notes"]
    assert any("Training images count by their n_ratings" in note for note in notes)
