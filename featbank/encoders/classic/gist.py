"""The scene encoder ``classic:gist``: energies of Gabor filters on a 4 by 4 grid, the spatial envelope of a scene."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featbank.encoders.classic import filters, photometry
from featbank.encoders.classic.base import ClassicEncoder
from featbank.encoders.classic.filters import Image

N_SCALES = 4
N_ORIENTATIONS = 8
GRID = 4
# Centre frequencies in cycles per pixel: 0.3, then each lower by 1.85; the values of the published code.
HIGHEST_FREQUENCY = 0.3
FREQUENCY_RATIO = 1.85
# Width of the whitening low-pass in cycles per image, and the contrast that counts as none.
_PREFILTER_CYCLES = 4.0
_CONTRAST_FLOOR = 0.2
# Energies are compared in octaves above this share of the normalised contrast.
_ENERGY_FLOOR = 2.0**-7
_MAX_CACHED_PIXELS = 2**18


class GistEncoder(ClassicEncoder):
    """Spatial envelope of a scene: 4 scales, 8 orientations, 16 cells.

    Meant for a small squashed image such as 256 x 256 pixels. Cost and memory grow with the crop; the filters
    are tied to pixels, so that a larger crop describes finer structure.

    References
    ----------
    Oliva and Torralba (2001), Modeling the shape of the scene, IJCV 42(3), sections 3 and 6.
    """

    def parameters(self) -> dict[str, Any]:
        """Return the filter bank's layout."""
        return {
            "scales": N_SCALES,
            "orientations": N_ORIENTATIONS,
            "grid": GRID,
            "highest_frequency": HIGHEST_FREQUENCY,
            "frequency_ratio": FREQUENCY_RATIO,
            "prefilter_cycles": _PREFILTER_CYCLES,
        }

    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the 512 named energies, in octaves, of one crop of shape (height, width, 3)."""
        height, width, _ = crop.shape
        padded = whiten(np.pad(photometry.luminance(crop), _padding(height, width), mode="symmetric"))
        spectrum = fft.fft2(padded)
        (top, _), (left, _) = _padding(height, width)
        rows, columns = filters.grid_edges(height, GRID), filters.grid_edges(width, GRID)
        features = {}
        for (scale, orientation), kernel in kernels(*padded.shape):
            response = fft.ifft2(spectrum * kernel, overwrite_x=True)[top : top + height, left : left + width]
            energy = filters.cell_means(np.abs(response), rows, columns)
            for cell, value in np.ndenumerate(np.log2(energy + _ENERGY_FLOOR)):
                features[f"scale{scale}_turn{orientation}_cell{cell[0]}{cell[1]}"] = float(value)
        return features

    def count_macs(self, height: int, width: int) -> int:
        """Return the filter arithmetic for one crop.

        Parameters
        ----------
        height, width : int
            Size of the crop in pixels, at least 8 each.

        Returns
        -------
        int
            Multiply-accumulates: two low-pass filters of the prefilter (four real transforms and two products),
            one complex transform, and for each of the 32 filters a product and an inverse transform.
        """
        self.check_size(height, width)
        padded_height, padded_width = (
            n + sum(pad) for n, pad in zip((height, width), _padding(height, width), strict=True)
        )
        transform = filters.fft_macs(padded_height, padded_width)
        n_points = padded_height * padded_width
        prefilter = 2 * transform + 2 * 2 * padded_height * (padded_width // 2 + 1)
        return prefilter + transform + N_SCALES * N_ORIENTATIONS * (2 * n_points + transform)


def whiten(luma: Image) -> Image:
    """Return the logarithm of an image without its lowest frequencies, divided by its local contrast.

    Parameters
    ----------
    luma : float32 array of shape (height, width) in [0, 255]

    Returns
    -------
    float32 array of shape (height, width)
        Local deviation near 1 wherever there is contrast, 0 for a constant image.

    References
    ----------
    Oliva and Torralba (2001), IJCV 42(3), section 3.1.
    """
    height, width = luma.shape
    low_pass = _low_pass(height, width)
    log_luma = np.log1p(luma)
    log_luma -= log_luma.mean(dtype=np.float64).astype(np.float32)
    detail = log_luma - fft.irfft2(fft.rfft2(log_luma) * low_pass, s=luma.shape)
    power = fft.irfft2(fft.rfft2(detail * detail) * low_pass, s=luma.shape)
    return detail / (np.float32(_CONTRAST_FLOOR) + np.sqrt(np.abs(power)))


def kernels(height: int, width: int) -> Iterator[tuple[tuple[int, int], Image]]:
    """Yield ``((scale, orientation), kernel)``, each a one-sided real kernel in the frequency plane.

    References
    ----------
    Oliva and Torralba (2001), IJCV 42(3), equation 8; constants of the authors' published code.
    """
    if height * width <= _MAX_CACHED_PIXELS:
        yield from _cached_kernels(height, width)
    else:
        # A bank of 32 kernels of several megapixels would fill the memory.
        yield from _build_kernels(height, width)


@lru_cache(maxsize=2)
def _cached_kernels(height: int, width: int) -> list[tuple[tuple[int, int], Image]]:
    return list(_build_kernels(height, width))


def _build_kernels(height: int, width: int) -> Iterator[tuple[tuple[int, int], Image]]:
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius, angle = np.hypot(fy, fx), np.arctan2(fy, fx)
    for scale in range(N_SCALES):
        centre = HIGHEST_FREQUENCY / FREQUENCY_RATIO**scale
        radial = 3.5 * (radius / centre - 1) ** 2
        for orientation in range(N_ORIENTATIONS):
            turned = angle + np.pi * orientation / N_ORIENTATIONS
            turned = (turned + np.pi) % (2 * np.pi) - np.pi
            angular = 2 * np.pi * (16 * N_ORIENTATIONS**2 / 32**2) * turned**2
            yield (scale, orientation), np.exp(-radial - angular).astype(np.float32)


@lru_cache(maxsize=4)
def _low_pass(height: int, width: int) -> Image:
    # Cycles per image along each axis; the Gaussian falls to one half at four cycles.
    fy = np.fft.fftfreq(height)[:, None] * height
    fx = np.fft.rfftfreq(width)[None, :] * width
    return np.exp(-(fx**2 + fy**2) * np.log(2) / _PREFILTER_CYCLES**2).astype(np.float32)


def _padding(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the reflected border: an eighth of each side, at most 32 pixels as in the published code."""
    rows, columns = (min(length // 8, 32) for length in (height, width))
    return (rows, rows), (columns, columns)
