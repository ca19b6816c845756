"""Power spectrum of a window in bands and directions, and the shapes of its log-Gabor responses."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import Image

# Half octaves from 1/32 cycles per pixel to the Nyquist frequency, then the corners of the frequency square.
BAND_EDGES = (*(2.0 ** (-5 + k / 2) for k in range(9)), 0.7072)
N_BANDS = len(BAND_EDGES) - 1
N_DIRECTIONS = 4
# Log-Gabor filters: centres in cycles per pixel, radial bandwidth of about 1.5 octaves, four orientations.
LOG_GABOR_CENTRES = (1 / 3, 1 / 6)
_LOG_RADIAL_DEVIATION = np.log(0.65)
_ANGULAR_DEVIATION = np.pi / N_DIRECTIONS / 1.5


def band_energies(image: Image) -> NDArray[np.float64]:
    """Return the mean power of a Hann-weighted image by frequency band and direction.

    Parameters
    ----------
    image : float32 array of shape (height, width)
        At least 64 by 64 pixels, so that no band is empty.

    Returns
    -------
    float64 array of shape (9, 4)
        Bands from low to high frequency; directions of the frequency vector: along x, 45 degrees, along y,
        135 degrees. White noise of variance v gives v everywhere.
    """
    taper, index, weight = _layout(*image.shape)
    weighted = (
        image - np.float32((image * taper).sum(dtype=np.float64) / taper.sum(dtype=np.float64))
    ) * taper
    spectrum = fft.rfft2(weighted)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    n_bins = N_BANDS * N_DIRECTIONS
    energy = np.bincount(index, weights=(power * weight).ravel(), minlength=n_bins + 1)[:n_bins]
    return energy.astype(np.float64).reshape(N_BANDS, N_DIRECTIONS)


def log_gabor_moments(image: Image) -> NDArray[np.float64]:
    """Return moments of log-Gabor responses.

    Parameters
    ----------
    image : float32 array of shape (height, width)

    Returns
    -------
    float64 array of shape (2, 4, 3)
        By centre frequency (1/3, 1/6 cycles per pixel) and direction: mean absolute value and mean square of the
        even response, mean square of the amplitude.

    References
    ----------
    Field (1987), Relations between the statistics of natural images and the response properties of cortical
    cells, JOSA A 4(12), equation 14. Zhang, Zhang and Bovik (2015), A feature-enriched completely blind image
    quality evaluator, IEEE TIP 24(8), section III-D.
    """
    spectrum = fft.fft2(image)
    moments = []
    for kernel in _log_gabor(*image.shape):
        response = fft.ifft2(spectrum * kernel, overwrite_x=True)
        even2 = np.square(response.real).mean(dtype=np.float64)
        odd2 = np.square(response.imag).mean(dtype=np.float64)
        moments.append((np.abs(response.real).mean(dtype=np.float64), even2, even2 + odd2))
    return np.array(moments).reshape(len(LOG_GABOR_CENTRES), N_DIRECTIONS, 3)


def band_macs(height: int, width: int) -> int:
    """Arithmetic of `band_energies`: taper, real transform, weighting of the half spectrum."""
    return height * width + filters.fft_macs(height, width) // 2 + height * (width // 2 + 1)


def log_gabor_macs(height: int, width: int) -> int:
    """Arithmetic of `log_gabor_moments`: transform, and per filter a product and an inverse transform."""
    n_filters = len(LOG_GABOR_CENTRES) * N_DIRECTIONS
    one = filters.fft_macs(height, width)
    # A real kernel times a complex spectrum: two products per sample.
    return one + n_filters * (2 * height * width + one)


@lru_cache(maxsize=32)
def _layout(height: int, width: int) -> tuple[Image, NDArray[np.int64], NDArray[np.float32]]:
    """Return the taper, the bin of each sample of the half spectrum, and its weight in the bin's mean."""
    taper = np.outer(_hann(height), _hann(width))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    band = np.searchsorted(BAND_EDGES, np.hypot(fy, fx), side="right") - 1
    angle = np.arctan2(fy, fx)
    direction = np.floor(angle / (np.pi / N_DIRECTIONS) + 0.5).astype(np.int64) % N_DIRECTIONS
    n_bins = N_BANDS * N_DIRECTIONS
    inside = (band >= 0) & (band < N_BANDS)
    index = np.where(inside, band * N_DIRECTIONS + direction, n_bins).ravel()
    # The other half of the plane holds the same power, except on its own column 0 and on the Nyquist column.
    doubled = np.full(fx.size, 2.0)
    doubled[0] = 1.0
    if width % 2 == 0:
        doubled[-1] = 1.0
    multiplicity = np.broadcast_to(doubled, (height, fx.size)).ravel()
    samples = np.bincount(index, weights=multiplicity, minlength=n_bins + 1)
    weight = (multiplicity / samples[index] / np.square(taper).sum()).reshape(height, fx.size)
    return taper.astype(np.float32), index, weight.astype(np.float32)


def _hann(n: int) -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)


@lru_cache(maxsize=8)
def _log_gabor(height: int, width: int) -> NDArray[np.float32]:
    """Return one-sided kernels in the frequency plane, shape (8, height, width)."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    angle = np.arctan2(fy, fx)
    kernels = []
    for centre in LOG_GABOR_CENTRES:
        radial = np.exp(-(np.log(radius / centre) ** 2) / (2 * _LOG_RADIAL_DEVIATION**2))
        radial[0, 0] = 0.0
        for k in range(N_DIRECTIONS):
            turn = np.pi * k / N_DIRECTIONS
            distance = np.abs(np.angle(np.exp(1j * (angle - turn))))
            kernels.append(radial * np.exp(-(distance**2) / (2 * _ANGULAR_DEVIATION**2)))
    return np.array(kernels, dtype=np.float32)
