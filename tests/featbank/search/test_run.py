"""`featbank search` from the command to the run folder: what it writes, what it may read, what it refuses."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.bank import Bank
from featbank.cli import main
from featbank.datasets import read_dataset
from featbank.errors import RunError
from featbank.recipes.reading import parse_recipe, read_recipe
from featbank.runs.fit import FitOptions, fit_run
from featbank.search.run import SearchOptions, search_run
from featbank.search.space import LEFT_OUT
from tests.support.search_study import BANDS, SEARCH, prepare_study, recipe_text

SMALL = ["a", "c", "d", "g"]


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("trials.csv", "predictions.csv", "metrics.json")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    prepare_study(folder, SMALL)
    assert main(command(folder, folder / "run")) == 0
    return folder


def command(folder: Path, run: Path, *more: str) -> list[str]:
    return [
        *("search", str(folder / "scores.csv"), "--recipe", str(folder / "recipe.toml")),
        *("--bank", str(folder / "bank"), "--out", str(run), "--budget", "37", "--workers", "1"),
        *("--outer-folds", "2", *more),
    ]


def test_the_run_folder_is_that_of_a_fit_and_holds_the_study(folder: Path) -> None:
    names = {path.name for path in (folder / "run").iterdir()}
    assert names >= {
        *("metrics.json", "predictions.csv", "cv_results.csv", "weights.csv", "model.skops", "recipe.toml"),
        *("receipt.json", "report.html", "trials.csv", "importance.csv", "pareto.png", "importance.png"),
        "search.journal",
    }
    receipt = json.loads((folder / "run/receipt.json").read_text())
    search = receipt["search"]
    trials = pd.read_csv(folder / "run/trials.csv")
    assert search["is_certified"] is True
    assert search["method"] == "exhaustive"
    assert search["n_evaluated"] == len(trials) == 14  # all subsets of four bands but {a, c, d, g}
    assert trials["gmacs"].max() <= 37
    best = trials.sort_values("srcc", ascending=False, kind="stable").iloc[0]
    assert search["selected_srcc"] == pytest.approx(best["srcc"], abs=1e-9)
    assert best["winner"]
    assert search["statement"] in receipt["notes"]
    assert len(search["nested_folds"]) == 2
    assert search["nested_srcc"] == pytest.approx(np.mean([fold["srcc"] for fold in search["nested_folds"]]))


def test_plain_scikit_learn_gives_the_same_search(folder: Path) -> None:
    table, recipe = read_dataset(folder / "scores.csv"), read_recipe(str(folder / "recipe.toml"))
    plain = FitOptions(workers=1, permutations=0, reference=True)
    options = SearchOptions(37.0, n_outer_folds=2)
    search_run(table, recipe, Bank(folder / "bank"), folder / "plain", options, plain)
    ours, theirs = (pd.read_csv(folder / run / "trials.csv") for run in ("run", "plain"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-8, atol=1e-8)
    ours, theirs = (pd.read_csv(folder / run / "predictions.csv") for run in ("run", "plain"))
    assert np.allclose(ours["predicted"], theirs["predicted"], rtol=0, atol=1e-8)
    ours, theirs = (
        json.loads((folder / run / "receipt.json").read_text())["search"] for run in ("run", "plain")
    )
    assert ours["study"] != theirs["study"]
    assert ours["nested_srcc"] == pytest.approx(theirs["nested_srcc"], abs=1e-8)


def test_the_winners_run_is_the_fit_of_its_recipe(folder: Path, tmp_path: Path) -> None:
    recipe = parse_recipe((folder / "run/recipe.toml").read_text(), "winner")
    trials = pd.read_csv(folder / "run/trials.csv")
    winner = trials[trials["winner"]].iloc[0]
    assert [band.name for band in recipe.bands] == [
        name for name in SMALL if winner[f"band:{name}"] != LEFT_OUT
    ]
    table, _, bank = prepare_study(tmp_path, SMALL)
    fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1))
    own, refitted = (pd.read_csv(run / "predictions.csv") for run in (folder / "run", tmp_path / "run"))
    pd.testing.assert_frame_equal(own, refitted)


def test_the_same_command_again_changes_nothing_and_says_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(folder / "run")
    written = (folder / "run/receipt.json").stat().st_mtime_ns
    assert main(command(folder, folder / "run", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["search"] == json.loads((folder / "run/receipt.json").read_text())["search"]
    assert document["metrics"] == json.loads((folder / "run/metrics.json").read_text())
    assert files(folder / "run") == before
    assert (folder / "run/receipt.json").stat().st_mtime_ns == written


def test_selection_does_not_see_the_other_splits(folder: Path, tmp_path: Path) -> None:
    table, recipe, bank = prepare_study(tmp_path, SMALL)
    frame = table.frame.copy()
    judged = frame["split"] != "training"
    frame.loc[judged, "mos"] = np.random.default_rng(5).permutation(frame.loc[judged, "mos"])
    search_run(
        replace(table, frame=frame),
        recipe,
        bank,
        tmp_path / "run",
        SearchOptions(37.0, n_outer_folds=2),
        FitOptions(workers=1),
    )
    assert (tmp_path / "run/trials.csv").read_bytes() == (folder / "run/trials.csv").read_bytes()
    own, other = (pd.read_csv(run / "predictions.csv") for run in (folder / "run", tmp_path / "run"))
    assert np.array_equal(own["predicted"], other["predicted"])


def test_without_a_split_the_winner_is_tested_on_rows_that_did_not_choose_it(tmp_path: Path) -> None:
    table, recipe, bank = prepare_study(tmp_path, SMALL, with_split=False)
    result = search_run(
        table, recipe, bank, tmp_path / "run", SearchOptions(n_outer_folds=0), FitOptions(workers=1)
    )
    plain = fit_run(table, recipe, bank, tmp_path / "plain", FitOptions(workers=1))
    own, other = (pd.read_csv(tmp_path / run / "predictions.csv") for run in ("run", "plain"))
    assert list(own["image"]) == list(other["image"])
    assert list(own["split"]) == list(other["split"])
    assert result["metrics"]["test"]["n"] == plain["test"]["n"]
    assert result["search"]["nested_srcc"] is None
    notes = json.loads((tmp_path / "run/receipt.json").read_text())["notes"]
    assert any("has no split" in note for note in notes)


@pytest.mark.slow
def test_on_noise_the_nested_score_is_not_the_maximum_of_noise(tmp_path: Path) -> None:
    selected, nested = [], []
    for seed in range(6):
        table, recipe, bank = prepare_study(tmp_path / str(seed), list(BANDS))
        shuffled = table.frame.assign(mos=np.random.default_rng(seed).permutation(table.frame["mos"]))
        result = search_run(
            replace(table, frame=shuffled),
            recipe,
            bank,
            tmp_path / f"run{seed}",
            SearchOptions(40.0, n_outer_folds=3),
            FitOptions(workers=1),
        )
        selected.append(result["search"]["selected_srcc"])
        nested.append(result["search"]["nested_srcc"] or 0.0)
    # The best of about a hundred on 96 rows of noise is well above zero; six nested scores of 96 rows each have a
    # mean whose standard deviation is about 0.04.
    assert np.mean(selected) > 0.15
    assert abs(np.mean(nested)) < 0.15
    assert np.mean(selected) > np.mean(nested) + 0.1


def test_sampled_searches_say_so_and_two_objectives_give_a_front(tmp_path: Path) -> None:
    table, recipe, bank = prepare_study(tmp_path, search=SEARCH)
    options = SearchOptions(50.0, "srcc,gmacs", 20, 3, "sampled", 0)
    quick = FitOptions(workers=1, permutations=0)
    result = search_run(table, recipe, bank, tmp_path / "run", options, quick)
    search = result["search"]
    assert (search["method"], search["is_certified"], search["n_evaluated"]) == ("nsga2", False, 20)
    assert "not certified" in search["statement"]
    front = search["pareto"]
    assert all(low["gmacs"] < high["gmacs"] for low, high in pairwise(front))
    assert all(low["srcc"] < high["srcc"] for low, high in pairwise(front))
    more = replace(options, n_trials=28)
    longer = search_run(table, recipe, bank, tmp_path / "run", more, quick)
    assert longer["search"]["n_evaluated"] == 28
    assert longer["search"]["selected_srcc"] >= search["selected_srcc"]


def test_another_search_or_anything_else_in_the_folder_is_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(folder / "run")
    other = command(folder, folder / "run")
    other[other.index("37")] = "20"
    assert main(other) == 1
    assert "belongs to the search" in capsys.readouterr().err
    assert files(folder / "run") == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    assert main(command(folder, tmp_path / "thesis")) == 1
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.txt").exists()
    assert main(command(folder, tmp_path / "thesis/chapter.txt")) == 1


def test_the_budget_and_features_are_checked_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dear = command(folder, tmp_path / "run")
    dear[dear.index("37")] = "0.1"
    assert main(dear) == 1
    assert "admits no band" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # A recipe of computed features that the bank lacks: the message names the command.
    (tmp_path / "photo.toml").write_text(
        'recipe_version = 1\n[[band]]\nname = "q"\nencoder = "classic:nss"\nview = "width_960"\n'
    )
    arguments = ["search", str(folder / "scores.csv"), "--recipe", str(tmp_path / "photo.toml")]
    assert main([*arguments, "--bank", str(folder / "bank"), "--out", str(tmp_path / "run")]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--budget", "-1"], ["--trials", "0"], ["--outer-folds", "1"], ["--seed", "-1"]]
)
def test_usage_errors(wrong: list[str], tmp_path: Path) -> None:
    assert main(["search", str(tmp_path), *wrong]) == 2


def test_too_large_a_space_cannot_be_asked_for_whole(tmp_path: Path) -> None:
    text = recipe_text() + SEARCH + 'estimator = ["banded-ridge", "linear-svr", "rbf-svr"]\n'
    table, _, bank = prepare_study(tmp_path)
    with pytest.raises(RunError, match="at most 4096"):
        search_run(
            table,
            parse_recipe(text, "large"),
            bank,
            tmp_path / "run",
            SearchOptions(150.0, method="exhaustive"),
            FitOptions(workers=1),
        )
