"""Fits the generalised Gaussian distributions of natural-scene statistics by matching moments.

Takes moments, not samples: moments of parts of an image add up, so that one fit serves any union of blocks.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import Image

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
    """Fit a generalised Gaussian to the mean absolute value and the mean square of samples.

    Coefficients that vanish have no shape; they get the Gaussian's, which is the limit of weak rounding noise.
    """
    if mean_abs < _TINY or mean_square < _TINY**2:
        return GGD(_GAUSSIAN_SHAPE, 0.0)
    return GGD(shape_of_ratio(mean_abs**2 / mean_square), float(np.sqrt(mean_square)))


def fit_aggd(
    share_left: float, share_right: float, square_left: float, square_right: float, mean_abs: float
) -> AGGD:
    """Fit an asymmetric generalised Gaussian to one-sided moments.

    Shares of samples below and above zero, sums of squares of each side over the number of all samples, and the mean
    absolute value of all. ``mean`` is the distribution's, (beta_right - beta_left) Gamma(2/a) / Gamma(1/a).

    References
    ----------
    Lasmar, Stitou and Berthoumieu (2009), Multiscale skewed heavy tailed model for texture analysis, ICIP.
    Mittal, Moorthy and Bovik (2012), IEEE TIP 21(12), equations 9 to 13.
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


BlockColumns = dict[str, NDArray[np.float32]]

# The window of BRISQUE's published code: 7 x 7, standard deviation 7/6; constant 1 on the 0..255 scale.
LOCAL_TAPS = filters.gaussian_taps(7 / 6, 3)
CONTRAST_FLOOR = np.float32(1.0)
# Deviations are compared in octaves; below 1/32 the coefficients are rounding noise of 8-bit pixels.
_DEVIATION_FLOOR = 2.0**-5
_PAIRS = ("axis", "diagonal")
# In plain areas products are the rounding noise of filters, whose sign says nothing.
_NO_PRODUCT = np.float32(2.0**-12)


def normalise_contrast(image: Image) -> tuple[Image, Image]:
    """Return contrast-normalised coefficients and the local variance of a plane on the 0..255 scale, both of its shape.

    ``(image - mu) / (sigma + 1)`` with Gaussian-weighted local mean and deviation.

    References
    ----------
    Ruderman (1994), Network 5(4). Mittal, Moorthy and Bovik (2012), IEEE TIP 21(12), equations 1 to 3.
    """
    # The statistic does not see an offset; without it the squares keep their digits in single precision.
    centred = image - image.mean(dtype=np.float64).astype(np.float32)
    mean = filters.separable(centred, LOCAL_TAPS)
    variance = filters.separable(centred * centred, LOCAL_TAPS)
    variance -= mean * mean
    np.maximum(variance, 0, out=variance)
    deviation = np.sqrt(variance)
    deviation += CONTRAST_FLOOR
    centred -= mean
    centred /= deviation
    return centred, variance


def neighbour_products(coefficients: Image) -> dict[str, tuple[Image, Image]]:
    """Return products of neighbours, all of one shape: ``axis`` (along rows, down columns), ``diagonal`` (both ways).

    The border without a neighbour repeats the last product. Mittal, Moorthy and Bovik (2012), equations 7 and 8.
    """
    n = coefficients
    right, down, main, anti = (np.empty_like(n) for _ in range(4))
    np.multiply(n[:, :-1], n[:, 1:], out=right[:, :-1])
    np.multiply(n[:-1], n[1:], out=down[:-1])
    np.multiply(n[:-1, :-1], n[1:, 1:], out=main[:-1, :-1])
    np.multiply(n[:-1, 1:], n[1:, :-1], out=anti[:-1, 1:])
    right[:, -1] = right[:, -2]
    down[-1] = down[-2]
    main[:-1, -1], main[-1] = main[:-1, -2], main[-2]
    main[-1, -1] = main[-2, -2]
    anti[:-1, 0], anti[-1] = anti[:-1, 1], anti[-2]
    anti[-1, 0] = anti[-2, 1]
    return {"axis": (right, down), "diagonal": (main, anti)}


def collect_moments(image: Image, block: int, *, with_pairs: bool = True) -> BlockColumns:
    """Return per block the local variance and the moments of coefficients and neighbour products.

    ``variance``, ``abs``, ``square``, and for each kind of pair ``<pair>_left``, ``_right`` (shares of products
    below and above zero, by more than rounding), ``_left2``, ``_right2`` (one-sided mean squares) and ``_abs``,
    averaged over its two directions: float32 (height // block, width // block). Without pairs it takes a third of
    the time.
    """
    coefficients, variance = normalise_contrast(image)
    columns = {
        "variance": filters.block_mean(variance, block),
        "abs": filters.block_mean(np.abs(coefficients), block),
        "square": filters.block_mean(coefficients * coefficients, block),
    }
    if not with_pairs:
        return columns
    half = np.float32(0.5)
    for kind, pair in neighbour_products(coefficients).items():
        size, square, signed = (np.zeros_like(variance) for _ in range(3))
        below, above = (np.zeros(variance.shape, dtype=np.uint8) for _ in range(2))
        for product in pair:
            magnitude = np.abs(product)
            size += magnitude
            square += product * product
            magnitude *= product
            signed += magnitude
            below += product < -_NO_PRODUCT
            above += product > _NO_PRODUCT
        columns[f"{kind}_left"], columns[f"{kind}_right"] = (
            filters.block_mean(count, block) * half for count in (below, above)
        )
        columns[f"{kind}_abs"] = filters.block_mean(size, block) * half
        both, apart = (filters.block_mean(values, block) * half for values in (square, signed))
        # Squares of one side alone are half of sum and difference; rounding must not make them negative.
        columns[f"{kind}_left2"] = np.maximum(both - apart, 0) * half
        columns[f"{kind}_right2"] = np.maximum(both + apart, 0) * half
    return columns


def fit_shape(moments: dict[str, float]) -> float:
    """Return the log shape of the coefficients' generalised Gaussian: 0 for Laplace, log 2 for Gauss."""
    return math.log(fit_ggd(moments["abs"], moments["square"]).shape)


def fit_products(moments: dict[str, float]) -> dict[str, float]:
    """Return log shape, mean and log right deviation of each kind of neighbour product.

    The left deviation follows from these three (equation 13 of BRISQUE) and is left out. The mean is a small signed
    number; the others are logarithms, so that no parameter is heavy-tailed.
    """
    features = {}
    for kind in _PAIRS:
        fit = fit_aggd(*(moments[f"{kind}_{name}"] for name in ("left", "right", "left2", "right2", "abs")))
        features[f"{kind}_shape"] = math.log(fit.shape)
        features[f"{kind}_mean"] = fit.mean
        features[f"{kind}_right"] = math.log2(fit.deviation_right + _DEVIATION_FLOOR)
    return features


def macs(n_pixels: int) -> int:
    """Filter arithmetic of `normalise_contrast`: the local mean and the local mean square."""
    return 2 * filters.separable_macs(n_pixels, LOCAL_TAPS.size)
