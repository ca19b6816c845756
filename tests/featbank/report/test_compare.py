"""Several runs side by side: aligned rows, honest words, a page that reads and loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.atomic import MARKER
from featbank.cli import main
from featbank.errors import RunError
from featbank.report.comparison import (
    cost_figure,
    difference_rows,
    differences_figure,
    p_text,
    score_rows,
    scores_figure,
    seen_from,
    word_comparison,
    write_comparison,
)
from featbank.runs.comparison import Comparison, compare_runs
from regressors.evaluation.metrics import evaluate, srcc
from tests.support.page import by_id, read_page, table_rows
from tests.support.plain_run import write_plain_run

Maker = Callable[..., Path]


@pytest.fixture
def rows() -> pd.DataFrame:
    """Rows of 240 images, a third of the judged ones exclusive."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"image": [f"{i}.jpg" for i in range(240)], "mos": rng.beta(4, 2, 240).round(4)})
    frame["split"] = ["training"] * 80 + ["validation"] * 60 + ["test"] * 100
    frame["subset"] = np.where((frame["split"] != "training") & (frame.index % 3 == 0), "exclusive", "")
    return frame


@pytest.fixture
def make(tmp_path: Path, rows: pd.DataFrame) -> Maker:
    """Give a run of a name and a noise; its images in an order of their own."""

    def maker(name: str, noise: float, **changes: object) -> Path:
        rng = np.random.default_rng(len(name) + int(100 * noise))
        own = changes.pop("rows", rows)
        scored = own.assign(predicted=own["mos"] + noise * rng.normal(size=len(own)))
        return write_plain_run(tmp_path / name, scored.sample(frac=1, random_state=1), title=name, **changes)

    return maker


def test_scores_are_those_of_the_runs_and_pairs_are_aligned_by_name(make: Maker, rows: pd.DataFrame) -> None:
    folders = [make("good", 0.05, gmacs=2.0), make("poor", 0.5, gmacs=1.0)]
    comparison = compare_runs(folders, n_resamples=50)
    assert list(comparison.parts) == ["test", "test/exclusive", "validation", "validation/exclusive"]
    table = comparison.differences.set_index(["part", "metric"])
    written = pd.read_csv(folders[1] / "predictions.csv", keep_default_na=False).set_index("image")
    test = rows[rows["split"] == "test"]
    expected = srcc(test["mos"], written.loc[test["image"], "predicted"])
    assert table.loc[("test", "srcc"), "second_value"] == pytest.approx(expected)
    assert table.loc[("test", "srcc"), "better"] == "good"
    assert comparison.wins("test") == {"good": 5, "poor": 0}
    assert comparison.closest["test"]["good"] > 0.7
    for row in comparison.drops.to_dict("records"):
        assert row["drop"] == pytest.approx(row["whole"] - row["subset"])


def test_the_words_tell_a_difference_from_chance(make: Maker) -> None:
    clear = word_comparison(compare_runs([make("good", 0.05), make("poor", 0.5)], n_resamples=400))
    assert clear.is_clear
    assert "good ranks best" in clear.sentence
    assert "more than the choice of test images" in clear.sentence
    level = word_comparison(compare_runs([make("one", 0.2), make("three", 0.21)], n_resamples=400))
    assert not level.is_clear
    assert "may be chance" in level.sentence


def test_runs_are_compared_by_groups_and_not_from_a_few(make: Maker, rows: pd.DataFrame) -> None:
    def compare(n_groups: int) -> Comparison:
        grouped = rows.assign(group=[f"g{number % n_groups}" for number in range(len(rows))])
        return compare_runs(
            [make("good", 0.05, rows=grouped), make("poor", 0.5, rows=grouped)], n_resamples=400
        )

    many, few = compare(20), compare(7)
    assert many.groups["test"] == 20
    assert word_comparison(many).is_clear
    alone = compare_runs([make("good", 0.05), make("poor", 0.5)], n_resamples=400)
    assert not alone.differences["low"].equals(many.differences["low"])
    assert few.differences[["p", "low", "high"]].isna().all(axis=None)
    assert "cannot be told from 7 groups" in word_comparison(few).sentence
    assert any(note.startswith("test: no intervals and no p. 7 independent groups") for note in few.notes)


def test_a_difference_seen_from_either_side_is_the_same(make: Maker) -> None:
    comparison = compare_runs([make("a", 0.1), make("bb", 0.2), make("ccc", 0.3)], n_resamples=60)
    forth = seen_from(comparison, "a", "test", "srcc").set_index("other").loc["ccc"]
    back = seen_from(comparison, "ccc", "test", "srcc").set_index("other").loc["a"]
    assert forth["difference"] == -back["difference"]
    assert (forth["low"], forth["high"]) == (-back["high"], -back["low"])
    assert forth["p_holm"] == back["p_holm"]


def test_the_corrected_p_counts_the_pairs(make: Maker) -> None:
    comparison = compare_runs([make("a", 0.1), make("bb", 0.2), make("ccc", 0.3)], n_resamples=60)
    for _, rows in comparison.differences.groupby(["part", "metric"]):
        assert len(rows) == 3
        assert rows["p_holm"].min() == pytest.approx(min(1.0, 3 * rows["p"].min()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.iloc[:-1], r"different test images: 100 and 99, of which 1 and 0"),
        (
            lambda rows: rows.assign(image=rows["image"].replace("239.jpg", "x.jpg")),
            "1 and 1 are not in the other",
        ),
        (lambda rows: rows.assign(mos=rows["mos"] * 100), "judged by different MOS on 100 test images"),
    ],
)
def test_runs_on_different_rows_are_refused(
    make: Maker, rows: pd.DataFrame, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        compare_runs([make("a", 0.1), make("b", 0.2, rows=change(rows))])


def test_one_run_or_the_same_twice_is_no_comparison(make: Maker) -> None:
    folder = make("a", 0.1)
    for folders in ([folder], [folder, folder / ".." / "a"]):
        with pytest.raises(RunError, match="at least 2 different runs"):
            compare_runs(folders)


def test_metrics_changed_by_hand_are_found(make: Maker) -> None:
    folders = [make("a", 0.1), make("b", 0.2)]
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    metrics["test"]["mae"] *= 0.9
    (folders[1] / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(RunError, match="MAE of test is said to be"):
        compare_runs(folders)


def test_a_part_that_one_run_lacks_is_left_out_with_a_word(make: Maker, rows: pd.DataFrame) -> None:
    comparison = compare_runs(
        [make("a", 0.1), make("b", 0.2, rows=rows[rows["split"] != "validation"])], n_resamples=30
    )
    assert list(comparison.parts) == ["test", "test/exclusive"]
    assert "validation is not compared: b has no such images." in comparison.notes
    training = [
        make(name, noise, rows=rows[rows["split"] == "training"]) for name, noise in (("c", 0.1), ("d", 0.2))
    ]
    assert list(compare_runs(training, n_resamples=30).parts) == ["training_cv"]
    with pytest.raises(RunError, match="no split in common"):
        compare_runs([training[0], make("e", 0.1, rows=rows[rows["split"] != "training"])])


def test_different_training_images_are_told(make: Maker, rows: pd.DataFrame) -> None:
    comparison = compare_runs([make("a", 0.1), make("b", 0.2, rows=rows.iloc[10:])], n_resamples=30)
    assert "did not learn from the same images: 80 and 70, 70 in common" in comparison.notes[-1]


def test_runs_of_one_name_keep_their_paths(make: Maker) -> None:
    folders = [make("x/run", 0.1), make("y/run", 0.2)]
    labels = [run.label for run in compare_runs(folders, n_resamples=30).runs]
    assert labels == [str(folder) for folder in folders]


def test_a_constant_run_wins_nothing_and_breaks_nothing(
    make: Maker, rows: pd.DataFrame, tmp_path: Path
) -> None:
    flat = write_plain_run(tmp_path / "flat", rows.assign(predicted=0.5), title="flat")
    comparison = compare_runs([make("a", 0.1), flat], n_resamples=30)
    assert "other runs are constant" in word_comparison(comparison).sentence
    assert differences_figure(comparison) is None
    write_comparison(comparison, tmp_path / "out")
    both = write_plain_run(tmp_path / "flat2", rows.assign(predicted=0.6), title="flat2")
    nothing = compare_runs([flat, both], n_resamples=30)
    assert "no run has a rank correlation" in word_comparison(nothing).sentence
    assert scores_figure(nothing) is None
    write_comparison(nothing, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.png"))


def test_the_page_reads_and_loads_nothing(make: Maker, tmp_path: Path) -> None:
    folders = [make("<b>a", 0.1, gmacs=2.0, simulation=True), make("bb", 0.2), make("ccc", 0.3, gmacs=30.0)]
    comparison = compare_runs(folders, n_resamples=30)
    path = write_comparison(comparison, tmp_path / "out")
    page = read_page(path.read_text(encoding="utf-8"))
    names = [e.attributes["id"] for e in page.find("section")]
    assert names == [
        "verdict", "overview", "test", "test-exclusive", "validation", "validation-exclusive", "wins", "drop", "cost"
    ]  # fmt: skip
    assert {a.attributes["href"][1:] for a in page.find("a")} == set(names[1:])
    assert not {e.tag for e in page.walk()} & {"script", "iframe", "b"}
    assert not re.search(r"(src|href)=\"(?!#|data:)", path.read_text())
    assert "Simulation." in page.text
    assert "<b>a" in page.text
    scores = by_id(page, "test").find("table")[0]
    assert [row[0] for row in table_rows(scores)[1:]] == ["<b>a", "bb", "ccc"]
    assert {p.name for p in (tmp_path / "out").iterdir()} - {MARKER} == {
        "comparison.html", "comparison.md", "scores.csv", "differences.csv",
        "compared_scores.png", "compared_differences.png", "compared_cost.png",
    }  # fmt: skip
    assert path.read_bytes() == write_comparison(comparison, tmp_path / "again").read_bytes()


def test_the_tables_on_disk_hold_every_digit(make: Maker, tmp_path: Path, rows: pd.DataFrame) -> None:
    comparison = compare_runs([make("a", 0.1), make("bb", 0.2)], n_resamples=30)
    write_comparison(comparison, tmp_path / "out")
    scores = pd.read_csv(tmp_path / "out/scores.csv").set_index(["run", "part"])
    written = pd.read_csv(tmp_path / "a/predictions.csv", keep_default_na=False)
    test = written[written["split"] == "test"]
    for name, value in evaluate(test["mos"], test["predicted"]).items():
        assert scores.loc[("a", "test"), name] == pytest.approx(value, rel=1e-9)
    differences = pd.read_csv(tmp_path / "out/differences.csv")
    pd.testing.assert_series_equal(differences["p"], comparison.differences["p"])
    markdown = (tmp_path / "out/comparison.md").read_text()
    assert "## test (100 images)" in markdown
    assert "| a − bb |" in markdown


def test_pairs_on_the_page_are_the_surest_first(make: Maker) -> None:
    comparison = compare_runs([make(f"{'r' * i}", 0.05 * i) for i in range(1, 8)], n_resamples=30)
    shown = difference_rows(comparison, "test", "srcc")
    assert len(shown) == 20  # of 21
    assert score_rows(comparison, "test")[0].kind == "headline"
    assert cost_figure(comparison) is None  # they all cost the same


def test_p_is_spelled_without_false_certainty() -> None:
    assert p_text(0.0004) == "< 0.001"
    assert p_text(0.0415) == "0.042" or p_text(0.0415) == "0.041"
    assert p_text(float("nan")) == "–"


def test_the_command(make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(make("a", 0.1)), str(make("bb", 0.3))]
    assert main(["report", *folders, "--resamples", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(tmp_path / "comparison/comparison.html")
    assert document["parts"]["test"] == 100
    assert document["differences"][0]["metric"] == "srcc"
    assert main(["report", folders[0], str(tmp_path / "nowhere")]) == 1
    assert "Traceback" not in capsys.readouterr().err
