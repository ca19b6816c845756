from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray

from featbank.report.style import DARK, LIGHT, Theme, css_variables, drawing_settings

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency",
# IEEE TVCG 15(6), 2009, table 1, severity 1.0; they act on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def _linear(colour: str) -> NDArray[np.float64]:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    high, low = sorted((float(_linear(c) @ weights) + 0.05 for c in (a, b)), reverse=True)
    return high / low


def _lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _distance(a: str, b: str, deficiency: str) -> float:
    matrix = DEFICIENCIES[deficiency]
    return float(np.linalg.norm(_lab(matrix @ _linear(a)) - _lab(matrix @ _linear(b))))


@THEMES
def test_text_can_be_read(theme: Theme) -> None:
    assert _contrast(theme.ink, theme.surface) >= 7
    assert _contrast(theme.muted, theme.surface) >= 4.5
    assert _contrast(theme.accent, theme.surface) >= 4.5
    assert _contrast(theme.warn, theme.surface) >= 4.5


@THEMES
def test_lines_stand_off_the_page(theme: Theme) -> None:
    for colour in (*theme.series, theme.contrast):
        assert _contrast(colour, theme.surface) >= 3


@THEMES
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_what_carries_meaning_differs_for_every_eye(theme: Theme, deficiency: str) -> None:
    assert _distance(theme.series[0], theme.series[1], deficiency) > 40
    assert _distance(theme.accent, theme.contrast, deficiency) > 40
    for all_images, exclusive in itertools.product(theme.ramp[:4], theme.exclusive[:4]):
        assert _distance(all_images, exclusive, deficiency) > 25
    for a, b in itertools.combinations(theme.series, 2):
        assert _distance(a, b, deficiency) > 20


@THEMES
def test_ramps_gain_contrast_with_density(theme: Theme) -> None:
    for ramp in (theme.ramp, theme.exclusive):
        contrasts = [_contrast(colour, theme.surface) for colour in ramp]
        assert contrasts == sorted(contrasts)
        assert contrasts[0] > 1.4


def test_variables_carry_the_colours() -> None:
    assert f"--ink: {LIGHT.ink};" in css_variables(LIGHT)


def test_drawing_leaves_no_trace_and_ignores_the_users_style() -> None:
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30.0, "figure.dpi": 33.0}):
        before = dict(mpl.rcParams)
        with drawing_settings(LIGHT):
            assert mpl.rcParams["axes.facecolor"] == "none"
            assert mpl.rcParams["figure.dpi"] == mpl.rcParamsDefault["figure.dpi"]
        assert dict(mpl.rcParams) == before
        with pytest.raises(RuntimeError, match="midway"), drawing_settings(DARK):
            raise RuntimeError("midway")
        assert dict(mpl.rcParams) == before
