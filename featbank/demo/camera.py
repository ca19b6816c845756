"""The simulated camera: what lens, sensor and file do to a flawless picture.

Pictures are uint8 sRGB of shape (height, width, 3), and every operator returns a new one. Display values are taken as
the square root of light: blurs add up light, and photon noise has one deviation at all levels but the darkest [1]_.
`take_photo` chains the operators for the photo set; the training of students calls them one by one.

References
----------
.. [1] A. Foi, M. Trimeche, V. Katkovnik and K. Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting
   for single-image raw-data", IEEE Trans. Image Processing 17 (2008) 1737: the variance is linear in the light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from featbank.digest import seed_from

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]
Random = np.random.Generator

WIDTH = 3840  # lengths of settings and scenes are in pixels of a picture as wide
_LARGEST_KERNEL = 5
_STRIP = 64  # rows that stay in the processor's cache, as whole pictures in float32 do not


@dataclass(frozen=True)
class CameraSettings:
    """All that happens to one photo; the defaults are a flawless camera. Lengths in pixels at a width of 3,840."""

    blur: float = 0.0  # deviation of the lens' Gaussian
    defocus: float = 0.0  # radius of the circle of confusion
    motion: float = 0.0  # length of the path of a shaking camera
    angle: float = 0.0  # its direction at the middle and the turn between its ends, radians
    bend: float = 0.0
    exposure: float = 0.0  # error in stops; +1 doubles the light
    veil: float = 0.0  # share of the light that is scattered evenly, 0 to 0.6
    noise: float = 0.0  # deviation of photon noise in grey levels; that of strong noise is larger in shadows
    denoise: float = 0.0  # share of a median filter in the picture, 0 to 1
    sharpen: float = 0.0  # gain of the unsharp mask, and its radius in real pixels
    sharpen_sigma: float = 1.0
    shrink: float = 1.0  # factor by which the picture was once reduced and enlarged again
    quality: int = 95  # of the JPEG file, 1 to 100
    contrast: float = 0.0  # strength of the S-shaped tone curve, a matter of style
    is_grayscale: bool = False


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.int8]:
    """Draw four million normal numbers of deviation 32, once a process."""
    numbers = np.random.default_rng(seed_from("noise bank")).standard_normal(1 << 22, dtype=np.float32)
    return cv2.addWeighted(numbers, 32.0, numbers, 0.0, 0.0, dtype=cv2.CV_8S).ravel()


def white_noise(shape: tuple[int, ...], deviation: float, rng: Random) -> NDArray[np.int8]:
    """Draw normal noise in whole levels, cut at four deviations; its rows start at random places of a fixed bank.

    Ten times as fast as fresh numbers; two rows share a stretch of the bank only now and then.
    """
    bank, n = _noise_bank(), int(np.prod(shape[1:]))
    starts = rng.integers(0, len(bank) - n, size=shape[0]).tolist()
    out = np.stack([bank[start : start + n] for start in starts])
    return cv2.addWeighted(out, deviation / 32.0, out, 0.0, 0.0).reshape(shape)


def disc_kernel(radius: float) -> Map:
    """Image of a point out of focus through a round aperture, (k, k) with k odd and sum 1."""
    half = int(np.ceil(radius + 0.5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0.0, 1.0)
    return (disc / disc.sum()).astype(np.float32)


def path_kernel(points: NDArray[np.floating]) -> Map:
    """Trace of a point along close ``points`` (n, 2) in pixels, down and right, (k, k) with k odd and sum 1."""
    points = points - points.mean(axis=0)
    half = int(np.ceil(np.abs(points).max()))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), dtype=np.float32)
    np.add.at(kernel, tuple(np.rint(points.T).astype(int) + half), np.float32(1.0 / len(points)))
    return kernel


def filter_light(picture: Pixels, kernel_at: Callable[[float], Map]) -> Pixels:
    """Blur light by the kernel that ``kernel_at`` gives for a scale of 1; a wide one is applied at half the size."""
    height, width = picture.shape[:2]
    kernel = kernel_at(1.0)
    if len(kernel) > _LARGEST_KERNEL:
        kernel = kernel_at(0.5)
        picture = cv2.resize(picture, (-(-width // 2), -(-height // 2)), interpolation=cv2.INTER_AREA)
    light = cv2.multiply(picture, picture, dtype=cv2.CV_32F)
    light = cv2.max(cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT), 0.0)
    return cv2.resize(cv2.convertScaleAbs(cv2.sqrt(light)), (width, height))


def blur(picture: Pixels, sigma: float) -> Pixels:
    """Blur display values by a Gaussian."""
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def expose(picture: Pixels, stops: float, veil: float = 0.0, contrast: float = 0.0) -> Pixels:
    """Mix a share of even grey into the light, scale both by ``2**stops``, bend the tone curve; white clips."""
    light = ((1.0 - veil) * np.linspace(0.0, 1.0, 256) ** 2 + 0.5 * veil) * 2.0**stops
    value = np.sqrt(np.minimum(light, 1.0))
    value += contrast * (value * value * (3.0 - 2.0 * value) - value)
    return cv2.LUT(picture, np.rint(255.0 * value).astype(np.uint8))


def photon_deviation(at_white: float) -> Map:
    """Deviation of photon and read noise at each of 256 display values, in grey levels.

    ``(127.5 / at_white)**2`` electrons make white; read noise, of two electrons, is what makes shadows noisier.
    """
    white, light = (127.5 / at_white) ** 2, np.arange(256.0) ** 2 / 255.0**2
    value = np.sqrt(np.maximum(light, 2.0 / white))  # the curve is not steeper than there
    return (127.5 * np.sqrt(white * light + 4.0) / (white * value)).astype(np.float32)


def add_noise(picture: Pixels, deviation: float | Map, rng: Random) -> Pixels:
    """Add normal noise, independent by channel, of a deviation in grey levels: one, or one for each display value."""
    if isinstance(deviation, float):
        return cv2.add(picture, white_noise(picture.shape, deviation, rng), dtype=cv2.CV_8U)
    out, table = np.empty_like(picture), np.float32(1.0 / 32.0) * np.asarray(deviation, dtype=np.float32)
    for y in range(0, len(picture), _STRIP):
        part = picture[y : y + _STRIP]
        change = cv2.multiply(cv2.LUT(part, table), white_noise(part.shape, 32.0, rng), dtype=cv2.CV_32F)
        cv2.add(part, change, dst=out[y : y + _STRIP], dtype=cv2.CV_8U)
    return out


def smooth_noise(picture: Pixels, share: float) -> Pixels:
    """Mix in a share of a median filter, as phones do: noise goes, and texture with it."""
    return cv2.addWeighted(picture, 1.0 - share, cv2.medianBlur(picture, 5), share, 0.0)


def sharpen(picture: Pixels, amount: float, sigma: float) -> Pixels:
    """Add ``amount`` times the difference to a blurred copy; strong ones leave halos along edges."""
    return cv2.addWeighted(picture, 1.0 + amount, blur(picture, sigma), -amount, 0.0)


def resample(picture: Pixels, factor: float, enlarging: int = cv2.INTER_CUBIC) -> Pixels:
    """Reduce a picture by ``factor`` and enlarge it to its old size, as copies passed around have been."""
    height, width = picture.shape[:2]
    size = max(8, round(width / factor)), max(8, round(height / factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=enlarging)


def encode_jpeg(picture: Pixels, quality: int) -> bytes:
    """Compress a picture of three channels, or of shape (height, width, 1), as a JPEG file."""
    kind = ("RGB", "420") if picture.shape[2] == 3 else ("GRAY",)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, *kind))


def take_photo(picture: Pixels, settings: CameraSettings, rng: Random) -> bytes:
    """Pass a flawless picture through lens, sensor, processing and compression to a JPEG file."""
    scale = picture.shape[1] / WIDTH
    if settings.defocus > 0:
        picture = filter_light(picture, lambda s: disc_kernel(settings.defocus * scale * s))
    if settings.motion > 0:
        n_steps = 4 * int(settings.motion * scale) + 5
        heading = settings.angle + settings.bend * np.linspace(-0.5, 0.5, n_steps)
        path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0) / n_steps
        picture = filter_light(picture, lambda s: path_kernel(settings.motion * scale * s * path))
    # The sharpest lens leaves half a pixel: photosites have an area.
    picture = blur(picture, float(np.hypot(0.55, settings.blur * scale)))
    picture = expose(picture, settings.exposure, settings.veil, settings.contrast)
    if settings.noise > 0:
        deviation = photon_deviation(settings.noise) if settings.noise > 3.0 else settings.noise
        picture = add_noise(picture, deviation, rng)
    if settings.denoise > 0:
        picture = smooth_noise(picture, settings.denoise)
    if settings.sharpen > 0:
        picture = sharpen(picture, settings.sharpen, settings.sharpen_sigma)
    if settings.shrink > 1:
        picture = resample(picture, settings.shrink)
    if settings.is_grayscale:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return encode_jpeg(picture, settings.quality)
