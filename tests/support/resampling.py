"""The resampling filters by their definitions, in exact arithmetic but for the eight bits between two passes."""

from __future__ import annotations

import numpy as np


def kernel(name: str, x: np.ndarray) -> np.ndarray:
    """The filters' definitions: triangle, Keys' cubic with a = -0.5, windowed sinc with three lobes."""
    x = np.abs(x)
    if name == "bilinear":
        return np.clip(1 - x, 0, None)
    if name == "bicubic":
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0))
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def matrix(n_in: int, n_out: int, name: str) -> np.ndarray:
    """Weights of the inputs for each output; the filter widens with the reduction."""
    scale = n_in / n_out
    centers = (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = kernel(name, distance)
    return weights / weights.sum(axis=1, keepdims=True)


def references(pixels: np.ndarray, height: int, width: int, name: str) -> list[np.ndarray]:
    """The definition in both orders of its passes, rounded and clipped to eight bits in between.

    Pillow takes rows first; version 13 takes columns first where that is cheaper.
    """
    rows, columns = matrix(pixels.shape[1], width, name), matrix(pixels.shape[0], height, name)

    def across(image: np.ndarray) -> np.ndarray:
        return (image.transpose(0, 2, 1) @ rows.T).transpose(0, 2, 1)

    def down(image: np.ndarray) -> np.ndarray:
        return np.tensordot(columns, image, axes=1)

    def to_levels(image: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(image + 0.5), 0, 255)

    image = pixels.astype(float)
    return [np.clip(down(to_levels(across(image))), 0, 255), np.clip(across(to_levels(down(image))), 0, 255)]
