"""Fitted distributions against samples of known parameters and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gennorm

from featbank.encoders.classic.scene_statistics import SHAPE_RANGE, fit_aggd, fit_ggd, shape_of_ratio

N_SAMPLES = 200_000


def one_sided(samples: np.ndarray) -> tuple[float, float, float, float, float]:
    below, above = samples < 0, samples > 0
    square = samples**2
    return (
        below.mean(),
        above.mean(),
        (square * below).mean(),
        (square * above).mean(),
        np.abs(samples).mean(),
    )


def draw_aggd(shape: float, scale_left: float, scale_right: float, seed: int) -> np.ndarray:
    """Draw from the asymmetric distribution: a side with probability of its scale, then a generalised gamma."""
    rng = np.random.default_rng(seed)
    size = scale_left / (scale_left + scale_right)
    magnitude = rng.gamma(1 / shape, size=N_SAMPLES) ** (1 / shape)
    left = rng.random(N_SAMPLES) < size
    return np.where(left, -scale_left * magnitude, scale_right * magnitude)


@pytest.mark.parametrize(("ratio", "shape"), [(2 / np.pi, 2.0), (0.5, 1.0)], ids=["Gauss", "Laplace"])
def test_closed_forms_of_the_moment_ratio(ratio: float, shape: float) -> None:
    assert shape_of_ratio(ratio) == pytest.approx(shape, rel=1e-5)


def test_ratios_beyond_the_search_are_clipped() -> None:
    assert shape_of_ratio(0.0) == pytest.approx(SHAPE_RANGE[0])
    assert shape_of_ratio(1.0) == pytest.approx(SHAPE_RANGE[1])


@given(first=st.floats(0.05, 0.74), second=st.floats(0.05, 0.74))
def test_shape_rises_with_the_ratio(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert shape_of_ratio(low) <= shape_of_ratio(high)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_ggd_recovers_what_was_drawn(shape: float) -> None:
    samples = gennorm(shape, scale=3.0).rvs(N_SAMPLES, random_state=7)
    fit = fit_ggd(np.abs(samples).mean(), (samples**2).mean())
    # The error of 200,000 samples is below 1 % for all these shapes.
    assert fit.shape == pytest.approx(shape, rel=0.03)
    assert fit.deviation == pytest.approx(gennorm(shape, scale=3.0).std(), rel=0.03)


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0])
@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (0.5, 2.0), (3.0, 1.0)])
def test_aggd_recovers_what_was_drawn(shape: float, left: float, right: float) -> None:
    samples = draw_aggd(shape, left, right, seed=11)
    fit = fit_aggd(*one_sided(samples))
    assert fit.shape == pytest.approx(shape, rel=0.05)
    deviation = gennorm(shape).std()
    assert fit.deviation_left == pytest.approx(left * deviation, rel=0.05)
    assert fit.deviation_right == pytest.approx(right * deviation, rel=0.05)
    assert fit.mean == pytest.approx(samples.mean(), abs=0.05 * deviation * (left + right))


@given(
    left=st.floats(0.1, 10),
    right=st.floats(0.1, 10),
    share=st.floats(0.05, 0.95),
)
def test_mirrored_samples_swap_the_sides(left: float, right: float, share: float) -> None:
    moments = (
        share,
        1 - share,
        share * left**2,
        (1 - share) * right**2,
        0.8 * (share * left + (1 - share) * right),
    )
    mirrored = moments[1], moments[0], moments[3], moments[2], moments[4]
    one, other = fit_aggd(*moments), fit_aggd(*mirrored)
    assert one.shape == pytest.approx(other.shape)
    assert one.mean == pytest.approx(-other.mean)
    assert one.deviation_left == pytest.approx(other.deviation_right)


def test_scaling_the_samples_scales_the_deviations() -> None:
    samples = draw_aggd(1.2, 1.0, 2.0, seed=5)
    small, large = fit_aggd(*one_sided(samples)), fit_aggd(*one_sided(10 * samples))
    assert large.shape == pytest.approx(small.shape)
    np.testing.assert_allclose(large[1:], 10 * np.array(small[1:]))


def test_nothing_has_the_shape_of_a_gaussian() -> None:
    assert fit_ggd(0.0, 0.0) == (2.0, 0.0)
    assert fit_aggd(0.0, 0.0, 0.0, 0.0, 0.0) == (2.0, 0.0, 0.0, 0.0)


def test_samples_of_one_sign_are_fitted() -> None:
    samples = np.abs(draw_aggd(1.0, 1.0, 1.0, seed=3))
    fit = fit_aggd(*one_sided(samples))
    assert fit.deviation_left == 0
    assert fit.deviation_right == pytest.approx(np.sqrt((samples**2).mean()))
    assert fit.mean > 0
