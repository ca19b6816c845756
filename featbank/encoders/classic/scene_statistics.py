"""Natural-scene statistics: contrast-normalised luminance, its neighbour products, and their fitted shapes.

Collects moments per block, and turns pooled moments into the parameters of BRISQUE and NIQE.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import Image
from featbank.encoders.classic.moments import fit_aggd, fit_ggd

BlockColumns = dict[str, NDArray[np.float32]]

# The window of BRISQUE's published code: 7 x 7, standard deviation 7/6; constant 1 on the 0..255 scale.
LOCAL_TAPS = filters.gaussian_taps(7 / 6, 3)
CONTRAST_FLOOR = np.float32(1.0)
# Deviations are compared in octaves; below 1/32 the coefficients are rounding noise of 8-bit pixels.
_DEVIATION_FLOOR = 2.0**-5
_PAIRS = ("axis", "diagonal")


def normalise_contrast(image: Image) -> tuple[Image, Image]:
    """Return mean-subtracted contrast-normalised coefficients and the local variance.

    ``(image - mu) / (sigma + 1)`` with Gaussian-weighted local mean and deviation.

    Parameters
    ----------
    image : float32 array of shape (height, width)
        Luminance or another channel on the 0..255 scale.

    Returns
    -------
    coefficients, variance : float32 arrays of shape (height, width)

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
    """Return the products of neighbours, two directions for each kind of pair.

    Parameters
    ----------
    coefficients : float32 array of shape (height, width)
        At least 2 by 2.

    Returns
    -------
    dict
        ``"axis"``: along rows, down columns; ``"diagonal"``: to the lower right, to the lower left. Arrays of the
        same shape, where the border without a neighbour repeats the last product.

    References
    ----------
    Mittal, Moorthy and Bovik (2012), IEEE TIP 21(12), equations 7 and 8.
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

    Parameters
    ----------
    image : float32 array of shape (height, width)
        Both multiples of ``block``, 0..255 scale.
    block : int
        Side of a block in pixels.
    with_pairs : bool
        Collect the neighbour products too, which take half of the time.

    Returns
    -------
    dict of float32 arrays of shape (height // block, width // block)
        ``variance``, ``abs``, ``square``, and for each kind of pair ``<pair>_left``, ``_right`` (shares of products
        below and above zero), ``_left2``, ``_right2`` (one-sided mean squares) and ``_abs``, averaged over its two
        directions.
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
    for kind, (first, second) in neighbour_products(coefficients).items():
        below = (first < 0).astype(np.float32) + (second < 0)
        above = (first > 0).astype(np.float32) + (second > 0)
        columns[f"{kind}_left"] = filters.block_mean(below, block) * half
        columns[f"{kind}_right"] = filters.block_mean(above, block) * half
        columns[f"{kind}_abs"] = filters.block_mean(np.abs(first) + np.abs(second), block) * half
        low, other = np.minimum(first, 0), np.minimum(second, 0)
        columns[f"{kind}_left2"] = filters.block_mean(low * low + other * other, block) * half
        high, other = np.maximum(first, 0), np.maximum(second, 0)
        columns[f"{kind}_right2"] = filters.block_mean(high * high + other * other, block) * half
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
