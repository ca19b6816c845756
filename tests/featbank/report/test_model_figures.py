from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from featbank.report.figures import (
    MAX_BARS,
    MAX_CURVES,
    band_share_figure,
    band_shares,
    cost_figure,
    curve_parameter,
    cv_curves,
    cv_figure,
    member_weights,
    short_parameter,
)
from featbank.report.style import LIGHT, Drawing, drawing_settings
from featbank.runs.folder import RunData, read_run
from tests.support.run_folder import edit_json


def _figure(drawing: Drawing | None):
    assert drawing is not None
    with drawing_settings(LIGHT):
        return drawing.paint(LIGHT)


def test_curves_hold_the_means_of_the_grid(small_run: RunData) -> None:
    frame = small_run.cv_results
    curves = cv_curves(small_run, "alpha")
    assert {curve.member for curve in curves} == set(frame["member"])
    for curve in curves:
        rows = frame[frame["member"] == curve.member].set_index("alpha").sort_index()
        np.testing.assert_array_equal(curve.x, rows.index)
        np.testing.assert_array_equal(curve.mean, rows["mean_test_score"])
        np.testing.assert_array_equal(curve.std, rows["std_test_score"])
        assert curve.x[curve.best] == rows["mean_test_score"].idxmax()


def test_a_second_hyper_parameter_is_taken_at_its_best(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(svr=True))
    assert curve_parameter(run) == "C"
    best = run.cv_results.groupby(["member", "C"])["mean_test_score"].max()
    for curve in cv_curves(run, "C"):
        np.testing.assert_array_equal(curve.mean, best[curve.member].to_numpy())


def test_curves_come_in_the_order_of_weights(small_run: RunData) -> None:
    weights = member_weights(small_run)
    order = [weights[curve.member] for curve in cv_curves(small_run, "alpha")]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"gamma": [1, 2, 3], "C": [1, 2, 3]}, "C"),
        ({"param_regress__gamma": [1, 2, 3], "param_regress__alpha": [1, 2, 3]}, "param_regress__alpha"),
        ({"alpha": [1, 1, 1], "epsilon": [0.1, 0.2, 0.3]}, "epsilon"),
        ({"kernel": ["rbf", "linear", "rbf"]}, None),
        ({"alpha": [1, 1, 1]}, None),
        ({}, None),
    ],
)
def test_the_curve_is_drawn_against_alpha_else_c_else_any_number(
    make_run: Callable[..., Path], columns: dict[str, list[object]], expected: str | None
) -> None:
    folder = make_run()
    frame = pd.DataFrame({"member": "all", "rank": [1, 2, 3], **columns, "mean_test_score": [0.3, 0.2, 0.1]})
    frame.to_csv(folder / "cv_results.csv", index=False)
    run = read_run(folder)
    assert curve_parameter(run) == expected
    assert (cv_figure(run) is None) == (expected is None)


def test_chosen_values_are_marked_and_wide_grids_are_logarithmic(small_run: RunData) -> None:
    axes = _figure(cv_figure(small_run)).axes[0]
    assert axes.get_xscale() == "log"
    curves = cv_curves(small_run, "alpha")
    marks = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.get_lines()
        if line.get_marker() == "o"
    }
    assert marks == {(curve.x[curve.best], curve.mean[curve.best]) for curve in curves}


def test_many_members_share_one_entry_of_the_legend(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    frames = [
        pd.DataFrame({"member": f"m{i}", "alpha": [1.0, 10.0], "mean_test_score": [0.1 * i, 0.2]})
        for i in range(30)
    ]
    pd.concat(frames).to_csv(folder / "cv_results.csv", index=False)
    figure = _figure(cv_figure(read_run(folder)))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == MAX_CURVES + 1
    assert labels[-1] == "24 other members"
    assert figure.axes[0].get_xscale() == "linear"


def test_parameters_lose_their_steps() -> None:
    assert short_parameter("param_regress__alpha") == short_parameter("alpha") == "alpha"


def test_bars_are_the_shares_with_negative_ones_to_the_left(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", band_share={"scene": -0.1, "quality": 0.8, "content": 0.3})
    run = read_run(folder)
    assert list(band_shares(run).items()) == [("quality", 0.8), ("content", 0.3), ("scene", -0.1)]
    bars = _figure(band_share_figure(run)).axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.8, 0.3, -0.1]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [LIGHT.accent, LIGHT.accent, LIGHT.contrast]


def test_more_bands_than_fit_are_cut_at_the_least(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", band_share={f"b{i}": i / 1000 for i in range(60)} | {"unknown": None})
    bars = _figure(band_share_figure(read_run(folder))).axes[0].patches
    assert [round(1000 * bar.get_width()) for bar in bars] == list(range(59, 59 - MAX_BARS, -1))


def test_cost_shows_sum_budget_and_passes(small_run: RunData) -> None:
    total, each = _figure(cost_figure(small_run)).axes
    assert [bar.get_width() for bar in total.patches] == [small_run.gmacs]
    assert [tuple(line.get_xdata()) for line in total.get_lines()] == [(50.0, 50.0)]
    assert total.get_xlim()[1] > 50
    passes = sorted((row["gmacs"] for row in small_run.rows("passes")), reverse=True)
    assert [bar.get_width() for bar in each.patches] == passes


def test_above_the_budget_the_bar_passes_its_line_in_another_colour(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(budget=0.1))
    total, _ = _figure(cost_figure(run)).axes
    [bar] = total.patches
    assert bar.get_width() > 0.1
    assert total.get_xlim()[1] > run.gmacs
    assert to_hex(bar.get_facecolor()) == LIGHT.contrast


@pytest.mark.parametrize("budget", [None, 0.0])
def test_without_a_budget_there_is_no_line(make_run: Callable[..., Path], budget: float | None) -> None:
    total, _ = _figure(cost_figure(read_run(make_run(budget=budget)))).axes
    assert not total.get_lines()


def test_features_without_cost_have_no_cost_figure(make_run: Callable[..., Path]) -> None:
    assert cost_figure(read_run(make_run(imported=True))) is None


def test_a_run_without_shares_or_grid_has_neither_figure(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    edit_json(folder / "receipt.json", band_share=None)
    (folder / "cv_results.csv").unlink()
    run = read_run(folder)
    assert band_share_figure(run) is None
    assert cv_figure(run) is None
