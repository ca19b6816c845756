"""Kinds of distortion at five levels, as published collections of weakly rated pictures use them.

The list follows KADID-10k and KADIS-700k (Lin, Hosu and Saupe 2019; 2020, DeepFL-IQA) where a kind occurs in
photographs, and adds what cameras and uploads do: shot noise, noise that was smoothed away, handshake, WebP.
Every function takes and gives uint8 sRGB of shape (height, width, 3); `DISTORTIONS` says between which sizes of a fault
the five levels lie. Level 1 is just visible and level 5 plainly bad at one screen pixel per picture pixel.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from featbank.demo import camera
from featbank.demo.camera import Pixels, Random

Distortion = Callable[[Pixels, float, Random], Pixels]
"""From a picture, a strength in [0, 1] and a generator; level ``k`` of five is strength ``(k - 1) / 4``."""

N_LEVELS: Final = 5


def _float(picture: Pixels) -> NDArray[np.float32]:
    return picture.astype(np.float32) / np.float32(255.0)


def _uint8(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)


def _graded(low: float, high: float, apply: Distortion) -> Distortion:
    """Interpolate a size geometrically: equal steps in strength look about equally large."""
    return lambda picture, strength, rng: apply(picture, float(low * (high / low) ** strength), rng)


def defocus(picture: Pixels, radius: float, rng: Random) -> Pixels:
    """Blur light by the disk of an unfocused lens."""
    return camera.filter_light(picture, lambda scale: camera.disc_kernel(radius * scale))


def motion_blur(picture: Pixels, length: float, rng: Random) -> Pixels:
    """Smear light along a line in a random direction."""
    angle = rng.uniform(0.0, np.pi)
    line = np.outer(np.linspace(-0.5, 0.5, 256) * length, [np.sin(angle), np.cos(angle)])
    return camera.filter_light(picture, lambda scale: camera.path_kernel(line * scale))


def handshake(picture: Pixels, extent: float, rng: Random) -> Pixels:
    """Smear light along a smooth random path."""
    steps = ndimage.gaussian_filter1d(rng.normal(size=(256, 2)), 24.0, axis=0)
    path = np.cumsum(steps, axis=0)
    path *= extent / max(float(np.ptp(path, axis=0).max()), 1e-6)
    return camera.filter_light(picture, lambda scale: camera.path_kernel(path * scale))


def shot_noise(picture: Pixels, photons: float, rng: Random) -> Pixels:
    """Count so many photons for white, with a reading noise of two electrons."""
    return camera.add_noise(picture, camera.photon_deviation(127.5 / np.sqrt(photons)), rng)


def chroma_noise(picture: Pixels, deviation: float, rng: Random) -> Pixels:
    """Add coloured blotches, 1.5 pixels wide: noise in the two chroma channels."""
    noise = ndimage.gaussian_filter(rng.normal(size=(*picture.shape[:2], 2)), (1.0, 1.0, 0.0))
    return _with_chroma(picture, lambda chroma: chroma + deviation * noise / noise.std())


def _with_chroma(picture: Pixels, change: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> Pixels:
    """Change the two chroma channels, (height, width, 2) in grey levels."""
    ycc = np.array(Image.fromarray(picture).convert("YCbCr"), dtype=np.float32)
    ycc[:, :, 1:] = change(ycc[:, :, 1:])
    clipped = np.clip(np.rint(ycc), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(clipped, mode="YCbCr").convert("RGB"))


def impulse_noise(picture: Pixels, share: float, rng: Random) -> Pixels:
    """Set a share of the pixels to black or white."""
    out, hit = picture.copy(), rng.random(picture.shape[:2]) < share
    out[hit] = rng.choice(np.array([0, 255], dtype=np.uint8), size=(int(hit.sum()), 1))
    return out


def speckle(picture: Pixels, deviation: float, rng: Random) -> Pixels:
    """Multiply by noise."""
    return camera.add_noise(picture, np.float32(deviation) * np.arange(256, dtype=np.float32), rng)


def denoised(picture: Pixels, strength: float, rng: Random) -> Pixels:
    """Count few photons, then smooth where the picture seems plain, as phones do: texture turns to paste."""
    noisy = _float(DISTORTIONS["shot_noise"](picture, 0.3 + 0.7 * strength, rng))
    sigma = 3.5**strength
    mean = ndimage.gaussian_filter(noisy, (sigma, sigma, 0))
    variance = ndimage.gaussian_filter(noisy * noisy, (sigma, sigma, 0)) - mean * mean
    plain = np.median(variance, axis=(0, 1), keepdims=True) * 1.5 + 1e-6
    keep = np.clip(1.0 - plain / np.maximum(variance, 1e-9), 0.0, 1.0)
    return _uint8(mean + keep * (noisy - mean))


def _coded(picture: Pixels, **options: Any) -> Pixels:  # noqa: ANN401 - Pillow's own
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def resampled(picture: Pixels, factor: float, rng: Random) -> Pixels:
    """Shrink and enlarge again, with one of three filters."""
    method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)[rng.integers(3)]
    return camera.resample(picture, factor, method)


def pixelated(picture: Pixels, factor: float, rng: Random) -> Pixels:
    """Shrink and enlarge by repeating pixels."""
    image = Image.fromarray(picture)
    small = [max(round(side / factor), 8) for side in image.size]
    return np.asarray(image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST))


def stretched(picture: Pixels, gain: float, rng: Random) -> Pixels:
    """Raise contrast about the mean, with clipping."""
    values = _float(picture)
    mean = values.mean()
    return _uint8((values - mean) * gain + mean)


def banded(picture: Pixels, n_levels: float, rng: Random) -> Pixels:
    """Keep some levels of each channel."""
    n = round(n_levels) - 1
    return _uint8(np.rint(_float(picture) * n) / n)


def dithered(picture: Pixels, n_colours: float, rng: Random) -> Pixels:
    """Keep a palette of some colours, with error diffusion."""
    image = Image.fromarray(picture).quantize(round(n_colours), dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(image.convert("RGB"))


def saturated(picture: Pixels, factor: float, rng: Random) -> Pixels:
    """Raise or lower saturation, by chance."""
    factor = factor if rng.random() < 0.5 else 1.0 / factor**2
    values = _float(picture)
    gray = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _uint8(gray[:, :, np.newaxis] + factor * (values - gray[:, :, np.newaxis]))


def tinted(picture: Pixels, size: float, rng: Random) -> Pixels:
    """Balance white wrongly: red against blue, and green.

    The shipped student hardly tells it (see its card): a scene's own colours hide it.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    gains = np.exp(size * np.array([np.cos(angle), 0.5 * np.sin(angle), -np.cos(angle)]))
    return _uint8(_float(picture) * np.sqrt(gains))


def jittered(picture: Pixels, deviation: float, rng: Random) -> Pixels:
    """Fetch every pixel from a place a little away, as heat and bad warps do."""
    height, width = picture.shape[:2]
    shift = rng.normal(0.0, deviation, (2, height, width))
    y, x = np.mgrid[:height, :width] + ndimage.gaussian_filter(shift, (0, 0.7, 0.7)) * 2.0
    values = _float(picture)
    planes = [ndimage.map_coordinates(values[:, :, c], (y, x), order=1, mode="reflect") for c in range(3)]
    return _uint8(np.stack(planes, axis=2))


def _smear(picture: Pixels, sigma: float, rng: Random) -> Pixels:
    return _with_chroma(picture, lambda chroma: ndimage.gaussian_filter(chroma, (sigma, sigma, 0)))


DISTORTIONS: Final[dict[str, Distortion]] = {
    "gaussian_blur": _graded(0.6, 4.0, lambda picture, sigma, rng: camera.blur(picture, sigma)),
    "defocus": _graded(0.9, 6.0, defocus),  # radius in pixels
    "motion_blur": _graded(2.5, 18.0, motion_blur),
    "handshake": _graded(2.0, 14.0, handshake),
    "white_noise": _graded(3.0, 35.0, camera.add_noise),  # grey levels, independent by channel
    "shot_noise": _graded(4000.0, 60.0, shot_noise),
    "chroma_noise": _graded(6.0, 60.0, chroma_noise),
    "impulse_noise": _graded(0.002, 0.08, impulse_noise),
    "speckle": _graded(0.03, 0.35, speckle),
    "denoised": denoised,
    "jpeg": _graded(70.0, 6.0, lambda picture, q, rng: _coded(picture, format="JPEG", quality=round(q))),
    "jpeg2000": _graded(  # to a 15th down to a 180th of the raw size
        15.0, 180.0,
        lambda picture, rate, rng: _coded(picture, format="JPEG2000", quality_mode="rates", quality_layers=[rate]),
    ),
    "webp": _graded(60.0, 1.0, lambda picture, q, rng: _coded(picture, format="WEBP", quality=round(q), method=2)),
    "resampled": _graded(1.4, 6.0, resampled),
    "pixelated": _graded(1.3, 6.0, pixelated),
    "overexposed": _graded(0.5, 2.5, lambda picture, stops, rng: camera.expose(picture, stops)),
    "underexposed": _graded(0.7, 4.0, lambda picture, stops, rng: camera.expose(picture, -stops)),
    "veiled": _graded(0.12, 0.75, lambda picture, veil, rng: camera.expose(picture, 0.0, veil)),  # share of light
    "stretched": _graded(1.3, 4.0, stretched),
    "oversharpened": _graded(
        0.8, 6.0, lambda picture, gain, rng: camera.sharpen(picture, gain, float(rng.uniform(0.8, 2.0)))
    ),
    "banded": _graded(24.0, 4.0, banded),
    "dithered": _graded(64.0, 6.0, dithered),
    "saturated": _graded(1.5, 4.0, saturated),
    "tinted": _graded(0.12, 0.6, tinted),
    "smeared_colour": _graded(2.0, 14.0, _smear),  # chroma alone, pixels
    "jittered": _graded(0.35, 2.2, jittered),
}  # fmt: skip
"""Single kinds by name: from level 1 to level 5, sizes between these."""

CHAINS: Final[dict[str, tuple[str, ...]]] = {
    "low_light": ("underexposed", "denoised", "stretched", "jpeg"),
    "phone": ("defocus", "shot_noise", "oversharpened", "jpeg"),
    "upload": ("resampled", "jpeg", "jpeg"),
    "shaken": ("handshake", "shot_noise", "jpeg"),
    "zoomed": ("resampled", "oversharpened", "webp"),
    "scanned": ("gaussian_blur", "white_noise", "banded"),
}
"""Several kinds after one another, each at a share of the strength."""

HELD_OUT_CHAINS: Final = ("zoomed", "shaken")
"""Never trained on, to see what the student makes of mixtures it has not met."""

_SHARE_IN_CHAIN: Final = 0.55


def distort(picture: Pixels, kind: str, level: int, rng: np.random.Generator) -> Pixels:
    """Apply a kind of `DISTORTIONS` or a chain of `CHAINS` at a level from 1 to 5; another one is a ValueError."""
    if not 1 <= level <= N_LEVELS:
        raise ValueError(f"distort: level must be 1 to {N_LEVELS}, got {level}")
    strength = (level - 1) / (N_LEVELS - 1)
    if kind in DISTORTIONS:
        return DISTORTIONS[kind](picture, strength, rng)
    if kind not in CHAINS:
        raise ValueError(f"distort: kind must be one of {[*DISTORTIONS, *CHAINS]}, got {kind!r}")
    for step in CHAINS[kind]:
        share = _SHARE_IN_CHAIN * float(rng.uniform(0.6, 1.4))
        picture = DISTORTIONS[step](picture, min(1.0, strength * share), rng)
    return picture
