"""Images with the statistics of photographs, and the distortions that tests apply to them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage


def one_over_f(height: int, width: int, seed: int = 2, contrast: float = 35.0) -> NDArray[np.float32]:
    """Return a field around 128 whose power falls with the square of frequency, as it does in photographs."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    radius[0, 0] = np.inf
    phases = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    field = fft.irfft2(phases / radius, s=(height, width))
    return (128 + contrast * field / field.std()).clip(0, 255).astype(np.float32)


def scene(height: int, width: int, seed: int = 2) -> NDArray[np.uint8]:
    """Return a colour scene: texture, a smooth sky above, and objects with hard edges."""
    rng = np.random.default_rng(seed)
    luma = one_over_f(height, width, seed)
    sky = np.linspace(225, 170, height)[:, None] * np.ones(width)
    is_sky = np.arange(height)[:, None] < height * 0.35 + 12 * np.sin(np.arange(width) / 17)
    luma = np.where(is_sky, sky, luma)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(12):
        row, column, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, height / 8)
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        luma = np.where(inside, 0.4 * luma + rng.uniform(20, 140), luma)
    tint = 1 + 0.15 * (one_over_f(height, width, seed + 1)[..., None] / 128 - 1) * np.array([1.0, 0.2, -1.0])
    return quantise(ndimage.gaussian_filter(luma, 0.5)[..., None] * tint)


def quantise(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the nearest 8-bit levels."""
    return np.rint(image).clip(0, 255).astype(np.uint8)


def blur(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Return the image after a Gaussian of ``sigma`` pixels."""
    return quantise(ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)))


def add_noise(image: NDArray[np.uint8], sigma: float, seed: int = 0) -> NDArray[np.uint8]:
    """Return the image with white Gaussian noise of ``sigma`` levels in each channel."""
    return quantise(image + np.random.default_rng(seed).normal(0, sigma, image.shape))


def through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the image as a JPEG file of this quality gives it back; grey or colour."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
