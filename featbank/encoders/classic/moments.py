"""Fits the generalised Gaussian distributions of natural-scene statistics by matching moments.

Takes moments, not samples: moments of parts of an image add up, so that one fit serves any union of blocks.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

# Shapes outside are told from their neighbours by no sample of practical size; BRISQUE searches the same range.
SHAPE_RANGE = (0.2, 10.0)
_GAUSSIAN_SHAPE = 2.0
# Mean absolute values below this are rounding, not signal, for coefficients of order one.
_TINY = 1e-8


class GGD(NamedTuple):
    """Generalised Gaussian of zero mean: ``shape`` in [0.2, 10] (1 Laplace, 2 Gauss) and standard deviation."""

    shape: float
    deviation: float


class AGGD(NamedTuple):
    """Asymmetric generalised Gaussian: ``shape`` in [0.2, 10], ``mean``, and one deviation for each side."""

    shape: float
    mean: float
    deviation_left: float
    deviation_right: float


@cache
def _ratio_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (log ratio, log shape) of the moment ratio (E|x|)^2 / E x^2, which rises with the shape."""
    log_shape = np.linspace(np.log(SHAPE_RANGE[0]), np.log(SHAPE_RANGE[1]), 4096)
    inverse = np.exp(-log_shape)
    log_ratio = 2 * gammaln(2 * inverse) - gammaln(inverse) - gammaln(3 * inverse)
    return log_ratio, log_shape


def shape_of_ratio(ratio: float) -> float:
    """Invert ``Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)) = ratio`` for the shape ``a``.

    Parameters
    ----------
    ratio : float
        (E|x|)^2 / E x^2, in (0, 1].

    Returns
    -------
    float in [0.2, 10]
        Clipped to the range of the search.

    References
    ----------
    Sharifi and Leon-Garcia (1995), IEEE Trans. Circuits Syst. Video Technol. 5(1), equation 6.
    """
    log_ratio, log_shape = _ratio_table()
    return float(np.exp(np.interp(np.log(max(ratio, 1e-12)), log_ratio, log_shape)))


def fit_ggd(mean_abs: float, mean_square: float) -> GGD:
    """Fit a generalised Gaussian of zero mean to E|x| and E x^2.

    Coefficients that vanish have no shape; they get the Gaussian's, which is the limit of weak rounding noise.

    Parameters
    ----------
    mean_abs : float
        Mean absolute value, at least 0.
    mean_square : float
        Mean square, at least 0.

    Returns
    -------
    GGD
    """
    if mean_abs < _TINY or mean_square < _TINY**2:
        return GGD(_GAUSSIAN_SHAPE, 0.0)
    return GGD(shape_of_ratio(mean_abs**2 / mean_square), float(np.sqrt(mean_square)))


def fit_aggd(
    share_left: float, share_right: float, square_left: float, square_right: float, mean_abs: float
) -> AGGD:
    """Fit an asymmetric generalised Gaussian to one-sided moments.

    Parameters
    ----------
    share_left, share_right : float
        Shares of samples below and above zero, in [0, 1]; samples that are zero belong to neither side.
    square_left, square_right : float
        Sums of squares of the samples of each side, divided by the number of all samples; at least 0.
    mean_abs : float
        Mean absolute value of all samples.

    Returns
    -------
    AGGD
        ``mean`` is the distribution's mean, (beta_right - beta_left) Gamma(2/a) / Gamma(1/a).

    References
    ----------
    Lasmar, Stitou and Berthoumieu (2009), Multiscale skewed heavy tailed model for texture analysis, ICIP.
    Mittal, Moorthy and Bovik (2012), No-reference image quality assessment in the spatial domain, IEEE TIP
    21(12), equations 9 to 13.
    """
    mean_square = square_left + square_right
    if mean_abs < _TINY or mean_square < _TINY**2:
        return AGGD(_GAUSSIAN_SHAPE, 0.0, 0.0, 0.0)
    left = np.sqrt(square_left / share_left) if share_left > 0 else 0.0
    right = np.sqrt(square_right / share_right) if share_right > 0 else 0.0
    # The correction is symmetric under gamma -> 1/gamma, so that either side may be the empty one.
    low, high = min(left, right), max(left, right)
    gamma = low / high
    ratio = mean_abs**2 / mean_square * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
    shape = shape_of_ratio(ratio)
    log_gammas = gammaln(np.array([1.0, 2.0, 3.0]) / shape)
    scale = np.exp((log_gammas[0] - log_gammas[2]) / 2)
    mean = (right - left) * scale * np.exp(log_gammas[1] - log_gammas[0])
    return AGGD(shape, float(mean), float(left), float(right))
