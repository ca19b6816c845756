"""The keypoint encoder ``classic:keypoint``: how many corners, blobs and edges, how strong, how wide, and where."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import ClassicEncoder, Image

N_LEVELS = 4
_MIN_LEVEL_PX = 8
# Derivative scale 1 and integration scale 2 pixels of each level; Lowe's first two octave scales for blobs.
_DERIVATIVE_TAPS = filters.gaussian_taps(1.0, 3)
_INTEGRATION_TAPS = filters.gaussian_taps(2.0, 6)
_BLOB_TAPS = filters.gaussian_taps(1.6, 5)
# Edge strengths in levels per pixel that count as a keypoint: faint, clear, strong.
_CORNER_LEVELS = (1.0, 3.0, 9.0)
_BLOB_LEVELS = (1.0, 3.0, 9.0)
_EDGE_LEVELS = (2.0, 6.0, 18.0)
# Densities are compared in octaves above one keypoint in 4096 pixels.
_FLOOR_OCTAVES = 12
_STRENGTH_FLOOR = 0.25
# Peaks below this are as good as none, and often the last digits of a filter on a plain area.
_FAINT = 2.0**-5
_GRID = 4


class KeypointEncoder(ClassicEncoder):
    """Statistics of corners, blobs and edges at four levels of a pyramid.

    Meant for a photo reduced to a fixed width such as 1920 pixels, so that one level means one angular scale. No
    statistic follows the last digits of a filter: what is too weak to be seen is left out, and counts begin above zero.

    References
    ----------
    Shi and Tomasi (1994), Good features to track, CVPR. Lowe (2004), Distinctive image features from
    scale-invariant keypoints, IJCV 60(2). Zhuo and Sim (2011), Defocus map estimation from a single image,
    Pattern Recognition 44(9).
    """

    epoch = 2

    def parameters(self) -> dict[str, Any]:
        """Return levels and thresholds."""
        return {
            "levels": N_LEVELS,
            "corner_levels": list(_CORNER_LEVELS),
            "blob_levels": list(_BLOB_LEVELS),
            "edge_levels": list(_EDGE_LEVELS),
            "grid": _GRID,
        }

    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the named statistics of one crop of shape (height, width, 3)."""
        plane = filters.luminance(crop)
        features: dict[str, float] = {}
        for level in range(N_LEVELS):
            if level and min(plane.shape) >= 2 * _MIN_LEVEL_PX:
                plane = filters.halve(plane)
            for name, value in _describe_level(plane).items():
                features[f"level{level}_{name}"] = value
        return features

    def count_macs(self, height: int, width: int) -> int:
        """Return the filter arithmetic for one crop over the levels.

        Derivative and blob smoothing, four gradients, three products smoothed for the structure tensor.
        """
        self.check_size(height, width)
        total = 0
        for level in range(N_LEVELS):
            if level and min(height, width) >= 2 * _MIN_LEVEL_PX:
                height, width = height // 2, width // 2
            total += _level_macs(height * width)
        return total


def tensor_eigenvalues(xx: Image, yy: Image, xy: Image) -> tuple[Image, Image]:
    """Return the smaller and larger eigenvalues of the structure tensor, in squared levels per pixel.

    The square root of the smaller one is the strength of a corner: Shi and Tomasi (1994), CVPR, section 4.
    """
    half_trace = cv2.addWeighted(xx, 0.5, yy, 0.5, 0)
    spread = filters.magnitude(cv2.addWeighted(xx, 0.5, yy, -0.5, 0), xy)
    smaller = half_trace - spread
    return np.maximum(smaller, 0, out=smaller), cv2.add(half_trace, spread, dst=half_trace)


def edge_width(sharp: Image, soft: Image) -> NDArray[np.float32]:
    """Return the deviation of an edge's blur in pixels, [0.1, 10], from its gradient before and after a blur.

    For a step blurred by a Gaussian of sigma, the gradient at the edge falls by R = sqrt(sigma^2 + 1) / sigma, so
    that sigma = 1 / sqrt(R^2 - 1).

    References
    ----------
    Zhuo and Sim (2011), Pattern Recognition 44(9), equations 5 and 6.
    """
    ratio = sharp / np.maximum(soft, np.float32(1e-6))
    # 0.01 and 100 bound the width to 10 and 0.1 pixels.
    excess = np.clip(ratio * ratio - 1, 0.01, 100.0)
    return np.reciprocal(np.sqrt(excess)).astype(np.float32)


def _describe_level(plane: Image) -> dict[str, float]:
    soft_x, soft_y = filters.gradient(filters.separable(plane, _DERIVATIVE_TAPS))
    features = _corner_features(soft_x, soft_y)
    features |= _edge_features(plane, filters.magnitude(soft_x, soft_y))
    features |= _blob_features(plane)
    return features


def _corner_features(along_x: Image, along_y: Image) -> dict[str, float]:
    products = cv2.multiply(along_x, along_x), cv2.multiply(along_y, along_y), cv2.multiply(along_x, along_y)
    small, large = tensor_eigenvalues(
        *(filters.separable(product, _INTEGRATION_TAPS) for product in products)
    )
    places = np.flatnonzero(filters.is_peak(small))
    peaks = np.sqrt(small.ravel()[places])
    features = _densities("corner", peaks, _CORNER_LEVELS, small.size)
    features |= _strengths("corner", peaks, small.size)
    features |= _spread("corner", places[peaks > _CORNER_LEVELS[0]], small.shape)
    # 0 where gradients point all ways, 1 where they share one direction; strong edges count most.
    power, other = (float(values.mean(dtype=np.float64)) for values in (large, small))
    features["coherence"] = (power - other) / (power + other + _STRENGTH_FLOOR**2)
    return features


def _edge_features(plane: Image, soft: Image) -> dict[str, float]:
    # Ridges of the smoothed gradient: wide edges give one pixel across, not many.
    row, column = np.nonzero(filters.is_peak(soft) & (soft >= _EDGE_LEVELS[0]))
    strength = soft[row, column]
    features = _densities("edge", strength, _EDGE_LEVELS, soft.size)
    last_row, last_column = (length - 1 for length in plane.shape)
    along_x = plane[row, np.minimum(column + 1, last_column)] - plane[row, np.maximum(column - 1, 0)]
    along_y = plane[np.minimum(row + 1, last_row), column] - plane[np.maximum(row - 1, 0), column]
    width = np.log2(edge_width(filters.magnitude(along_x, along_y) * np.float32(0.5), strength))
    # As if each image had a few edges of one pixel: the first weak one, there or not, moves little.
    width = np.concatenate([width, np.zeros((soft.size >> _FLOOR_OCTAVES) + 1, dtype=np.float32)])
    for name, level in zip(("p10", "p50", "p90"), np.quantile(width, (0.1, 0.5, 0.9)), strict=True):
        features[f"edge_width_{name}"] = float(level)
    return features


def _blob_features(plane: Image) -> dict[str, float]:
    fine = filters.separable(plane, _BLOB_TAPS)
    response = cv2.subtract(fine, filters.separable(fine, _BLOB_TAPS))
    features: dict[str, float] = {}
    for name, signed in (("bright", response), ("dark", -response)):
        peaks = signed[filters.is_peak(signed)]
        features |= _densities(f"blob_{name}", peaks, _BLOB_LEVELS, signed.size)
        features |= _strengths(f"blob_{name}", peaks, signed.size)
    return features


def _densities(
    kind: str, strengths: NDArray[np.float32], levels: tuple[float, ...], n_pixels: int
) -> dict[str, float]:
    """Return how many keypoints are at least this strong, in octaves of keypoints per pixel."""
    return {
        f"{kind}_density{level:g}": math.log2(
            np.count_nonzero(strengths >= level) / n_pixels + 2.0**-_FLOOR_OCTAVES
        )
        for level in levels
    }


def _strengths(kind: str, strengths: NDArray[np.float32], n_pixels: int) -> dict[str, float]:
    """Return percentiles of the strengths in octaves of levels.

    Each image gets one peak of no strength in 4096 pixels, so that the first real one moves little.
    """
    none = np.zeros((n_pixels >> _FLOOR_OCTAVES) + 1, dtype=np.float32)
    seen = np.concatenate([strengths[strengths >= _FAINT], none])
    found = np.log2(np.quantile(seen, (0.5, 0.9, 0.99)) + _STRENGTH_FLOOR)
    return {f"{kind}_strength_{name}": float(v) for name, v in zip(("p50", "p90", "p99"), found, strict=True)}


def _spread(kind: str, places: NDArray[np.intp], shape: tuple[int, ...]) -> dict[str, float]:
    """Return how evenly keypoints fill a 4 by 4 grid: entropy in units of its maximum, and the share in the centre.

    ``places`` are their positions in the flattened image. Each cell gets a little more than it has, so that a single
    keypoint moves little.
    """
    row, column = np.divmod(places, shape[1])
    cell = row * _GRID // shape[0] * _GRID + column * _GRID // shape[1]
    counts = (
        np.bincount(cell, minlength=_GRID**2) + math.prod(shape) * 2.0 ** -(_FLOOR_OCTAVES + 2) / _GRID**2
    )
    share = (counts / counts.sum()).reshape(_GRID, _GRID)
    evenness = float(-(share * np.log(share)).sum() / np.log(_GRID**2))
    return {f"{kind}_evenness": evenness, f"{kind}_centre": float(share[1:-1, 1:-1].sum())}


def _level_macs(n_pixels: int) -> int:
    smoothing = filters.separable_macs(n_pixels, _DERIVATIVE_TAPS.size)
    tensor = 3 * filters.separable_macs(n_pixels, _INTEGRATION_TAPS.size)
    blobs = 2 * filters.separable_macs(n_pixels, _BLOB_TAPS.size)
    return smoothing + tensor + blobs + 2 * filters.gradient_macs(n_pixels)
