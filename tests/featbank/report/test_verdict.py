from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from featbank.report.style import AGAINST_NOTE
from featbank.report.summary import best_single_band, verdict_notes, word_verdict
from featbank.runs.folder import METRIC_NAMES, RunData, Scores, read_run


def _scores(srcc: float, mae: float = 0.05, low: float | None = None) -> Scores:
    values = dict.fromkeys(METRIC_NAMES, 0.5) | {"srcc": srcc, "mae": mae}
    return Scores(900, values, {} if low is None else {"srcc": (low, srcc + 0.02)})


def _run(
    run: RunData, model: Scores, bands: dict[str, float], floor: float | None, constant: float = 0.1
) -> RunData:
    baselines = {"constant": {"test": _scores(float("nan"), constant)}}
    if floor is not None:
        baselines["metadata_ridge"] = {"test": _scores(floor)}
    single = {band: {"test": _scores(srcc)} for band, srcc in bands.items()}
    return replace(run, scores={"test": model}, baselines=baselines, single_bands=single)


def test_a_clear_win_names_every_figure(small_run: RunData) -> None:
    run = _run(small_run, _scores(0.8123, 0.0431, low=0.79), {"a": 0.5, "b": 0.7, "c": 0.6}, 0.3014)
    verdict = word_verdict(run)
    assert verdict.sentence.replace("\u00a0", " ") == (
        "On the test split (900 images) the predicted scores reach SRCC 0.812 (95 % interval [0.790, 0.832]), "
        "above the best single band, b (0.700) and above a ridge on the metadata alone (0.301); "
        "MAE 0.0431 against 0.1000 for a constant prediction, 57 % less."
    )
    assert verdict.is_clear


@pytest.mark.parametrize(
    ("srcc", "low", "band", "word", "is_clear"),
    [
        (0.8, 0.75, 0.7, "above the best", True),
        (0.8, 0.75, 0.76, "ahead of the best", False),
        (0.8, 0.75, 0.8, "level with the best", False),
        (0.8, 0.75, 0.81, "behind the best", False),
        (0.8, 0.75, 0.83, "below the best", False),
    ],
)
def test_words_follow_the_interval(
    small_run: RunData, srcc: float, low: float, band: float, word: str, is_clear: bool
) -> None:
    verdict = word_verdict(_run(small_run, _scores(srcc, low=low), {"a": 0.1, "b": band}, None))
    assert word in verdict.sentence
    assert verdict.is_clear is is_clear


def test_every_word_of_the_comparison_is_defined_with_and_without_an_interval(small_run: RunData) -> None:
    for model in (_scores(0.8, low=0.75), _scores(0.8)):
        assert AGAINST_NOTE in verdict_notes(_run(small_run, model, {"a": 0.1, "b": 0.9}, 0.3))


def test_no_better_than_a_constant_is_said_and_not_clear(small_run: RunData) -> None:
    verdict = word_verdict(_run(small_run, _scores(0.3, 0.12, low=0.2), {}, None, constant=0.1))
    assert "no better than knowing nothing" in verdict.sentence
    assert not verdict.is_clear


def test_an_interval_that_holds_zero_is_not_clear(small_run: RunData) -> None:
    assert not word_verdict(_run(small_run, _scores(0.05, low=-0.02), {}, None)).is_clear


def test_constant_predictions_have_no_ranking(small_run: RunData) -> None:
    verdict = word_verdict(_run(small_run, _scores(float("nan")), {"a": 0.1, "b": 0.2}, None))
    assert "no rank correlation" in verdict.sentence
    assert "nan" not in verdict.sentence
    assert not verdict.is_clear


def test_one_band_is_not_compared_with_itself(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(n_bands=1, metadata=False))
    assert best_single_band(run) is None
    assert "single band" not in word_verdict(run).sentence
    assert verdict_notes(run) == []


def test_the_best_band_is_best_on_the_headline_split(small_run: RunData) -> None:
    best = best_single_band(small_run)
    assert best is not None
    assert best[1].metrics["srcc"] == max(
        sets["test"].metrics["srcc"] for sets in small_run.single_bands.values()
    )


def test_training_alone_is_said_to_be_optimistic(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(counts={"training": 40}))
    assert word_verdict(run).sentence.startswith(
        "Out of fold on the training split (40 images; the run has no other"
    )
    assert any("too good" in note for note in verdict_notes(run))
