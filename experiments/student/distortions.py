"""Kinds of distortion at five levels, as published collections of weakly rated pictures use them.

The list follows KADID-10k and KADIS-700k (Lin, Hosu and Saupe 2019; 2020, DeepFL-IQA) where a kind occurs in
photographs, and adds what cameras and uploads do: shot noise, noise that was smoothed away, handshake, WebP.
Every function takes and gives uint8 sRGB of shape (height, width, 3) and a strength in [0, 1]; level ``k`` of five is
strength ``(k - 1) / 4``. Level 1 is just visible and level 5 plainly bad at one screen pixel per picture pixel.
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
from featbank.demo.camera import Pixels

Distortion = Callable[[Pixels, float, np.random.Generator], Pixels]

N_LEVELS: Final = 5


def _float(picture: Pixels) -> NDArray[np.float32]:
    return picture.astype(np.float32) / np.float32(255.0)


def _uint8(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values * 255.0), 0, 255).astype(np.uint8)


def _between(low: float, high: float, strength: float) -> float:
    """Geometric interpolation: equal steps in strength look about equally large."""
    return float(low * (high / low) ** strength)


def gaussian_blur(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Blur by a Gaussian of 0.6 to 4 pixels."""
    return camera.blur(picture, _between(0.6, 4.0, strength))


def defocus(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Blur light by the disk of an unfocused lens, radius 0.9 to 6 pixels."""
    return camera.filter_light(
        picture, lambda scale: camera.disc_kernel(_between(0.9, 6.0, strength) * scale)
    )


def motion_blur(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Smear light along a line of 2.5 to 18 pixels in a random direction."""
    length, angle = _between(2.5, 18.0, strength), rng.uniform(0.0, np.pi)
    line = np.outer(np.linspace(-0.5, 0.5, 256) * length, [np.sin(angle), np.cos(angle)])
    return camera.filter_light(picture, lambda scale: camera.path_kernel(line * scale))


def handshake(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Smear light along a smooth random path with an extent of 2 to 14 pixels."""
    steps = ndimage.gaussian_filter1d(rng.normal(size=(256, 2)), 24.0, axis=0)
    path = np.cumsum(steps, axis=0)
    path *= _between(2.0, 14.0, strength) / max(float(np.ptp(path, axis=0).max()), 1e-6)
    return camera.filter_light(picture, lambda scale: camera.path_kernel(path * scale))


def white_noise(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise with a deviation of 3 to 35 grey levels, independent by channel."""
    return camera.add_noise(picture, _between(3.0, 35.0, strength), rng)


def shot_noise(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Count at most 4,000 down to 60 photons for white, and reading noise of two electrons."""
    at_white = 127.5 / np.sqrt(_between(4000.0, 60.0, strength))
    return camera.add_noise(picture, camera.photon_deviation(at_white), rng)


def chroma_noise(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Add coloured blotches: noise of 6 to 60 grey levels in the two chroma channels, 1.5 pixels wide."""
    noise = ndimage.gaussian_filter(rng.normal(size=(*picture.shape[:2], 2)), (1.0, 1.0, 0.0))
    return _with_chroma(picture, lambda chroma: chroma + _between(6.0, 60.0, strength) * noise / noise.std())


def _with_chroma(picture: Pixels, change: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> Pixels:
    """Change the two chroma channels, (height, width, 2) in grey levels."""
    ycc = np.array(Image.fromarray(picture).convert("YCbCr"), dtype=np.float32)
    ycc[:, :, 1:] = change(ycc[:, :, 1:])
    clipped = np.clip(np.rint(ycc), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(clipped, mode="YCbCr").convert("RGB"))


def impulse_noise(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Set 0.2 to 8 percent of the pixels to black or white."""
    out = picture.copy()
    hit = rng.random(picture.shape[:2]) < _between(0.002, 0.08, strength)
    out[hit] = rng.choice(np.array([0, 255], dtype=np.uint8), size=(int(hit.sum()), 1))
    return out


def speckle(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Multiply by noise with a deviation of 3 to 35 percent."""
    return camera.add_noise(
        picture, np.float32(_between(0.03, 0.35, strength)) * np.arange(256, dtype=np.float32), rng
    )


def denoised(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Count few photons, then smooth where the picture seems plain, as phones do: texture turns to paste."""
    noisy = _float(shot_noise(picture, 0.3 + 0.7 * strength, rng))
    sigma = _between(1.0, 3.5, strength)
    mean = ndimage.gaussian_filter(noisy, (sigma, sigma, 0))
    variance = ndimage.gaussian_filter(noisy * noisy, (sigma, sigma, 0)) - mean * mean
    plain = np.median(variance, axis=(0, 1), keepdims=True) * 1.5 + 1e-6
    keep = np.clip(1.0 - plain / np.maximum(variance, 1e-9), 0.0, 1.0)
    return _uint8(mean + keep * (noisy - mean))


def _coded(picture: Pixels, **options: Any) -> Pixels:  # noqa: ANN401 - Pillow's own
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def jpeg(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Compress as JPEG of quality 70 to 6."""
    return _coded(picture, format="JPEG", quality=round(_between(70.0, 6.0, strength)))


def jpeg2000(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Compress as JPEG 2000 to a 15th down to a 180th of the raw size."""
    return _coded(
        picture, format="JPEG2000", quality_mode="rates", quality_layers=[_between(15.0, 180.0, strength)]
    )


def webp(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Compress as WebP of quality 60 to 1."""
    return _coded(picture, format="WEBP", quality=round(_between(60.0, 1.0, strength)), method=2)


def _resized(picture: Pixels, width: int, height: int, method: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((max(width, 8), max(height, 8)), method))


def resampled(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Shrink by 1.4 to 6 and enlarge again, with one of three filters."""
    method = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)[rng.integers(3)]
    return camera.resample(picture, _between(1.4, 6.0, strength), method)


def pixelated(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Shrink by 1.3 to 6 and enlarge by repeating pixels."""
    height, width = picture.shape[:2]
    factor = _between(1.3, 6.0, strength)
    small = _resized(picture, round(width / factor), round(height / factor), Image.Resampling.BOX)
    return _resized(small, width, height, Image.Resampling.NEAREST)


def overexposed(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Expose 0.5 to 2.5 stops too long; what is brighter than white is lost."""
    return camera.expose(picture, _between(0.5, 2.5, strength))


def underexposed(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Expose 0.7 to 4 stops too short."""
    return camera.expose(picture, -_between(0.7, 4.0, strength))


def veiled(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Scatter 12 to 75 percent of the light evenly, as haze and flare do."""
    return camera.expose(picture, 0.0, veil=_between(0.12, 0.75, strength))


def stretched(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Raise contrast about the mean 1.3 to 4 times, with clipping."""
    values = _float(picture)
    mean = values.mean()
    return _uint8((values - mean) * _between(1.3, 4.0, strength) + mean)


def oversharpened(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Add 0.8 to 6 times the difference to a blurred copy: halos."""
    return camera.sharpen(picture, _between(0.8, 6.0, strength), float(rng.uniform(0.8, 2.0)))


def banded(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Keep 24 down to 4 levels of each channel."""
    n = round(_between(24.0, 4.0, strength)) - 1
    return _uint8(np.rint(_float(picture) * n) / n)


def dithered(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Keep a palette of 64 down to 6 colours, with error diffusion."""
    image = Image.fromarray(picture).quantize(
        round(_between(64.0, 6.0, strength)), dither=Image.Dither.FLOYDSTEINBERG
    )
    return np.asarray(image.convert("RGB"))


def saturated(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Raise or lower saturation, by chance, by a factor of 1.5 to 4."""
    factor = _between(1.5, 4.0, strength)
    factor = factor if rng.random() < 0.5 else 1.0 / factor**2
    values = _float(picture)
    gray = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return _uint8(gray[:, :, np.newaxis] + factor * (values - gray[:, :, np.newaxis]))


def tinted(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Balance white wrongly: red against blue, and green, by up to 12 to 60 percent.

    The shipped student hardly tells it (see its card): a scene's own colours hide it.
    """
    size = _between(0.12, 0.6, strength)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    gains = np.exp(size * np.array([np.cos(angle), 0.5 * np.sin(angle), -np.cos(angle)]))
    return _uint8(_float(picture) * np.sqrt(gains))


def smeared_colour(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Blur chroma alone by 2 to 14 pixels."""
    sigma = _between(2.0, 14.0, strength)
    return _with_chroma(picture, lambda chroma: ndimage.gaussian_filter(chroma, (sigma, sigma, 0)))


def jittered(picture: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Fetch every pixel from a place up to 0.6 to 4 pixels away, as heat and bad warps do."""
    height, width = picture.shape[:2]
    shift = rng.normal(0.0, _between(0.35, 2.2, strength), (2, height, width))
    y, x = np.mgrid[:height, :width] + ndimage.gaussian_filter(shift, (0, 0.7, 0.7)) * 2.0
    values = _float(picture)
    planes = [ndimage.map_coordinates(values[:, :, c], (y, x), order=1, mode="reflect") for c in range(3)]
    return _uint8(np.stack(planes, axis=2))


DISTORTIONS: Final[dict[str, Distortion]] = {
    function.__name__: function
    for function in (
        gaussian_blur, defocus, motion_blur, handshake, white_noise, shot_noise, chroma_noise, impulse_noise,
        speckle, denoised, jpeg, jpeg2000, webp, resampled, pixelated, overexposed, underexposed, veiled,
        stretched, oversharpened, banded, dithered, saturated, tinted, smeared_colour, jittered,
    )
}  # fmt: skip
"""Single kinds by name."""

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
