from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from featbank.report import figures
from featbank.report.figures import (
    comparison,
    density_levels,
    mos_density,
    predicted_against_mos,
    quadratic_fit,
)
from featbank.report.style import LIGHT, Drawing, drawing_settings
from featbank.runs.folder import RunData, read_run


def _axes(drawing: Drawing | None):
    assert drawing is not None
    with drawing_settings(LIGHT):
        return drawing.paint(LIGHT).axes[0]


@given(st.tuples(*[st.floats(-2, 2)] * 3), st.integers(0, 2**32 - 1))
def test_the_fit_finds_a_parabola(coefficients: tuple[float, float, float], seed: int) -> None:
    x = np.random.default_rng(seed).uniform(0.5, 0.9, 20)
    fit = quadratic_fit(x, np.polynomial.Polynomial(coefficients)(x))
    assert fit is not None
    np.testing.assert_allclose(fit(x), np.polynomial.Polynomial(coefficients)(x), atol=1e-9)


def test_the_fit_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(2, 50))
    fit = quadratic_fit(x, y)
    assert fit is not None
    np.testing.assert_allclose(fit.convert().coef[::-1], np.polyfit(x, y, 2), rtol=1e-9)


@pytest.mark.parametrize("mos", [[0.5], [0.5, 0.5, 0.5], [0.5, 0.6, 0.5, 0.6]])
def test_too_few_different_mos_have_no_fit(mos: list[float]) -> None:
    assert quadratic_fit(np.array(mos), np.arange(len(mos), dtype=float)) is None


@given(st.integers(1, 300), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_levels_use_the_whole_range_and_ignore_scale(n: int, n_levels: int, seed: int) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, n))
    levels = density_levels(x, y, n_levels)
    assert levels.min() >= 0
    assert levels.max() == n_levels - 1
    np.testing.assert_array_equal(density_levels(4 * x, 0.5 * y, n_levels), levels)


def test_a_crowd_is_denser_than_an_outlier() -> None:
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(scale=0.1, size=200), 5.0)
    levels = density_levels(x, x, 6)
    assert levels[-1] == 0
    assert np.median(levels[:-1]) >= 3


def test_equal_points_are_all_of_one_level() -> None:
    assert set(density_levels(np.full(9, 0.5), np.full(9, 0.7), 6)) == {5}


def test_each_image_is_one_mark_at_its_place(small_run: RunData) -> None:
    drawing = predicted_against_mos(small_run, "test")
    frame = small_run.scored("test")
    axes = _axes(drawing)
    marks = {"o": [], "D": []}
    for line in axes.get_lines():
        if line.get_marker() in marks:
            marks[line.get_marker()] += list(zip(*line.get_data(), strict=True))
    for marker, rows in (("D", frame[frame["subset"] == "exclusive"]), ("o", frame[frame["subset"] == ""])):
        assert sorted(marks[marker]) == sorted(zip(rows["mos"], rows["predicted"], strict=True))
    assert axes.get_xlim() == axes.get_ylim()


def test_the_drawn_curve_is_the_fit_of_all_images(small_run: RunData) -> None:
    frame = small_run.scored("test")
    [curve] = [
        line
        for line in _axes(predicted_against_mos(small_run, "test")).get_lines()
        if line.get_label() == "second-order fit"
    ]
    x, y = curve.get_data()
    np.testing.assert_allclose(y, np.polyval(np.polyfit(frame["mos"], frame["predicted"], 2), x), rtol=1e-8)
    assert (x[0], x[-1]) == (frame["mos"].min(), frame["mos"].max())


def test_of_many_images_some_are_drawn_and_the_figure_says_so(
    small_run: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "MAX_MARKS", 10)
    drawing = predicted_against_mos(small_run, "test")
    assert drawing is not None
    assert "30 images, 10 drawn" in drawing.alt
    with drawing_settings(LIGHT):
        axes = drawing.paint(LIGHT).axes[0]
    assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() in {"o", "D"}) == 10
    assert axes.get_xlabel() == "MOS (test, n = 30, 10 drawn)"
    density = mos_density(small_run)
    assert density is not None
    with drawing_settings(LIGHT):
        density.paint(LIGHT)


def test_a_split_without_scored_images_has_no_figure(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(counts={"training": 40, "test": 30}))
    assert predicted_against_mos(run, "validation") is None


def test_without_exclusive_images_none_are_announced(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(exclusive=0))
    labels = [line.get_label() for line in _axes(predicted_against_mos(run, "test")).get_lines()]
    assert not any("exclusive" in str(label) for label in labels)


@pytest.mark.parametrize("predicted", [0.7, 0.0])
def test_constant_predictions_can_be_drawn(make_run: Callable[..., Path], predicted: float) -> None:
    run = read_run(make_run())
    run.predictions["predicted"] = predicted
    run.predictions["mos"] = predicted
    drawing = predicted_against_mos(run, "test")
    assert drawing is not None
    assert "data:image/" in drawing.markup()


def test_densities_integrate_to_one_for_each_split_and_subset(small_run: RunData) -> None:
    axes = _axes(mos_density(small_run))
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == [
        "training (40)",
        "validation (20)",
        "validation, exclusive (8)",
        "test (30)",
        "test, exclusive (8)",
    ]
    for line in axes.get_lines():
        area = trapezoid(line.get_ydata(), line.get_xdata())
        assert 0.85 < area < 1.02  # the tails beyond the axes are cut


def test_too_few_different_mos_have_no_density(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    run.predictions["mos"] = 0.5
    assert mos_density(run) is None
    run.predictions.loc[:4, "mos"] = [0.1, 0.2, 0.3, 0.4, 0.45]
    labels = [line.get_label() for line in _axes(mos_density(run)).get_lines()]
    assert labels == ["training (40)"]


def test_comparison_shows_values_and_intervals_and_leaves_out_the_undefined() -> None:
    rows = [
        ("this run", 0.8, 0.75, 0.85, True),
        ("quality alone", 0.6, math.nan, math.nan, False),
        ("constant prediction", math.nan, math.nan, math.nan, False),
        ("upside down", -0.2, -0.3, -0.1, False),
    ]
    axes = _axes(comparison(rows, "test"))
    points = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "o"]
    assert points == [0.8, 0.6, -0.2]
    bars = [tuple(line.get_xdata()) for line in axes.get_lines() if line.get_solid_capstyle() == "round"]
    assert bars == [(0.75, 0.85), (-0.3, -0.1)]
    assert axes.get_xlim()[0] < -0.3
    assert {text.get_text() for text in axes.texts} >= {"this run", "0.800", "−0.200"}


def test_a_run_alone_has_no_comparison() -> None:
    assert comparison([("this run", 0.8, 0.7, 0.9, True)], "test") is None
