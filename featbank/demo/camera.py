"""The simulated camera: from linear light to the 8-bit picture that a JPEG file is made of.

Light passes, in this order, the lens (blur, colour fringes, vignetting, veiling glare), the sensor
(exposure, full well, shot and read noise, noise reduction), and what :mod:`featbank.demo.processing` does
to displayed pictures (tone curve, sharpening, a detour through a smaller size). Everything before the tone
curve happens in linear light, as in a real camera, so that blurred highlights stay bright and noise depends
on the signal. Sizes are in pixels of a picture 3,840 wide and are scaled to the real width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.demo.canvas import REFERENCE_WIDTH, Planes, luminance
from featbank.demo.filters import Plane, convolve_psf, correlate_same, enlarge, gaussian_taps, strips
from featbank.demo.processing import FULL_WELL, sharpen, shrink_and_enlarge, to_display
from featbank.demo.psf import combine, disc_psf, gaussian_psf, motion_psf
from featbank.digest import seed_from

_IDEAL_TAPS = np.array([0.19, 0.62, 0.19])
"""The best lens there is: what the photosite's area and the low-pass filter leave of single pixels."""

_BANK_SIZE = 1 << 22


@dataclass(frozen=True)
class CameraSettings:
    """All that happens to one photo; the defaults are a flawless camera.

    Parameters
    ----------
    lens_sigma : float
        Standard deviation of the lens' Gaussian blur in pixels, 0 to 6.
    defocus_radius : float
        Radius of the circle of confusion in pixels, 0 to 12.
    motion_length, motion_angle, motion_bend : float
        Path of the camera during the exposure: pixels, radians, radians.
    aberration : float
        Shift between red and blue in the corners in pixels (lateral chromatic aberration).
    vignette : float
        Share of the light lost in the corners, 0 to 0.8.
    veil : float
        Share of the light that is scattered evenly over the picture (glare, haze), 0 to 0.6.
    exposure_ev : float
        Exposure error in stops; +1 doubles the light.
    shot_noise : float
        Variance per unit of signal of the photon noise: 1 / (electrons at white).
    read_noise : float
        Standard deviation of the signal-independent noise, in units of white.
    chroma_noise : float
        Standard deviation of blotches of colour relative to the luminance noise.
    denoise : float
        Strength of the noise reduction: how many times the noise's own variance is taken off.
    sharpen : float
        Gain of the unsharp mask, 0 to 3.
    sharpen_sigma : float
        Radius of the unsharp mask in pixels.
    shrink : float
        Factor by which the picture was once reduced and enlarged again, 1 to 5.
    jpeg_quality : int
        Quality of the JPEG file, 1 to 100, on the scale of the Independent JPEG Group.
    is_subsampled : bool
        Store colour at half the size (4:2:0), as most cameras do.
    contrast : float
        Strength of the S-shaped tone curve, 0 to 0.5: a matter of style, part of the reference too.
    saturation : float
        Factor on the distance from grey, a matter of style.
    warmth : float
        White balance, natural logarithm of red over blue, a matter of style.
    is_grayscale : bool
        A monochrome picture with one channel.
    """

    lens_sigma: float = 0.0
    defocus_radius: float = 0.0
    motion_length: float = 0.0
    motion_angle: float = 0.0
    motion_bend: float = 0.0
    aberration: float = 0.0
    vignette: float = 0.0
    veil: float = 0.0
    exposure_ev: float = 0.0
    shot_noise: float = 0.0
    read_noise: float = 0.0
    chroma_noise: float = 0.0
    denoise: float = 0.0
    sharpen: float = 0.0
    sharpen_sigma: float = 1.0
    shrink: float = 1.0
    jpeg_quality: int = 95
    is_subsampled: bool = True
    contrast: float = 0.15
    saturation: float = 1.0
    warmth: float = 0.0
    is_grayscale: bool = False

    def flawless(self) -> CameraSettings:
        """Return the same style without any defect: the reference's camera."""
        return CameraSettings(
            contrast=self.contrast,
            saturation=self.saturation,
            warmth=self.warmth,
            is_grayscale=self.is_grayscale,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain numbers, rounded to six significant digits for reading."""
        return {
            f.name: float(f"{v:.6g}") if isinstance(v := getattr(self, f.name), float) else v
            for f in fields(self)
        }

    def rounded(self) -> CameraSettings:
        """Return the settings as :meth:`to_dict` writes them, so that the record repeats the photo exactly."""
        return replace(self, **self.to_dict())


def apply_style(planes: Planes, settings: CameraSettings) -> Planes:
    """Apply white balance, saturation and monochrome in linear light; shared with the reference.

    Parameters
    ----------
    planes : float32 array of shape (3, height, width)
        Changed in place.
    settings : CameraSettings

    Returns
    -------
    float32 array of shape (3, height, width), or (1, height, width) for a grayscale picture
    """
    if settings.is_grayscale:
        return luminance(planes)[None]
    gains = np.exp(np.array([0.5, 0.0, -0.5]) * settings.warmth).astype(np.float32)
    saturation = np.float32(settings.saturation)
    for rows in strips(planes.shape[1]):
        part = planes[:, rows]
        part *= gains.reshape(3, 1, 1)
        if saturation != 1.0:
            grey = luminance(part)
            part -= grey
            part *= saturation
            part += grey
            np.maximum(part, 0.0, out=part)
    return planes


def sample_light(planes: Planes) -> Planes:
    """Sample the scene as the ideal lens and photosites do, in place: the common start of photo and reference."""
    buffer = np.empty_like(planes[0])
    for plane in planes:
        plane[...] = correlate_same(plane, _IDEAL_TAPS, buffer)
    return planes


def expose(planes: Planes, settings: CameraSettings, rng: np.random.Generator) -> Planes:
    """Pass linear light through lens and sensor.

    Parameters
    ----------
    planes : float32 array of shape (n_channels, height, width)
        Sampled light; not changed.
    settings : CameraSettings
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    float32 array of shape (n_channels, height, width) in [0, 1.25]

    References
    ----------
    .. [1] A. Foi, M. Trimeche, V. Katkovnik and K. Egiazarian, "Practical Poissonian-Gaussian noise
       modeling and fitting for single-image raw-data", IEEE Trans. Image Processing 17 (2008) 1737,
       equations 1 to 4: the variance is linear in the signal.
    """
    n_channels, height, width = planes.shape
    scale = width / REFERENCE_WIDTH
    out = _blur(planes, settings, scale)
    if settings.aberration * scale > 0.2 and n_channels == 3:
        reach = settings.aberration * scale / float(np.hypot(height, width)) * 2.0
        out[0] = _magnify(out[0], 1.0 + reach / 2.0)
        out[2] = _magnify(out[2], 1.0 - reach / 2.0)
    gain = np.float32(2.0**settings.exposure_ev)
    veil = np.float32(settings.veil)
    glare = veil * out[:, ::8, ::8].mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None] ** 2 * np.float32(0.5)
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :] ** 2 * np.float32(0.5)
    for channel in range(n_channels):
        for rows in strips(height):
            part = out[channel, rows]
            part *= gain * (np.float32(1.0) - veil)
            part += gain * glare[channel]
            if settings.vignette > 0:
                part *= np.float32(1.0) - np.float32(settings.vignette) * (y[rows] + x)
            np.clip(part, 0.0, FULL_WELL, out=part)
    if settings.shot_noise > 0 or settings.read_noise > 0:
        add_noise(out, settings, rng)
        if settings.denoise > 0:
            out = reduce_noise(out, settings)
    return out


def _blur(planes: Planes, settings: CameraSettings, scale: float) -> Planes:
    """Blur all channels with the joint kernel of lens, focus and motion; always a new array."""
    sigma = settings.lens_sigma * scale
    if settings.defocus_radius == 0 and settings.motion_length == 0:
        if sigma < 0.2:
            return planes.copy()
        taps = gaussian_taps(sigma)
        out = np.empty_like(planes)
        for source, target in zip(planes, out, strict=True):
            correlate_same(source, taps, target)
        return out
    kernel = combine(
        gaussian_psf(sigma if sigma >= 0.2 else 0.0),
        disc_psf(settings.defocus_radius * scale),
        motion_psf(settings.motion_length * scale, settings.motion_angle, settings.motion_bend),
    )
    # Rounding leaves tiny negative light, which expose() clips.
    return convolve_psf(planes, kernel)


def _magnify(plane: Plane, factor: float) -> Plane:
    """Enlarge a plane slightly about its centre (or reduce it, repeating the border), by linear interpolation."""
    return _stretch_columns(_stretch_columns(plane.T, factor).T, factor)


def _stretch_columns(plane: Plane, factor: float) -> Plane:
    """Read every row at positions stretched about its middle; shifts are small, so whole runs move together."""
    width = plane.shape[1]
    source = (np.arange(width) - (width - 1) / 2.0) / factor + (width - 1) / 2.0
    source = np.clip(source, 0.0, width - 1.0)
    first = np.minimum(np.floor(source).astype(np.int64), width - 2)
    share = (source - first).astype(np.float32)
    move = first - np.arange(width)
    ends = [0, *(np.flatnonzero(np.diff(move)) + 1).tolist(), width]
    out = np.empty_like(plane)
    for start, stop in pairwise(ends):
        left = plane[:, start + move[start] : stop + move[start]]
        right = plane[:, start + move[start] + 1 : stop + move[start] + 1]
        out[:, start:stop] = left + share[start:stop] * (right - left)
    return out


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.float32]:
    """Four million standard normal numbers, drawn once per process; rows of noise are cut from them."""
    bank = np.random.default_rng(seed_from("sensor noise")).standard_normal(_BANK_SIZE, dtype=np.float32)
    bank.setflags(write=False)
    return bank


def white_noise(height: int, width: int, rng: np.random.Generator) -> Plane:
    """Return standard normal noise whose rows start at random places of a fixed bank.

    Ten times faster than fresh numbers; two rows of one picture share a stretch of the bank only now
    and then, and at unrelated columns.
    """
    bank = _noise_bank()
    out = np.empty((height, width), dtype=np.float32)
    for row, start in enumerate(rng.integers(0, _BANK_SIZE - width, size=height)):
        out[row] = bank[start : start + width]
    return out


def add_noise(planes: Planes, settings: CameraSettings, rng: np.random.Generator) -> Planes:
    """Add photon and read noise in place: ``variance = shot_noise * signal + read_noise**2``.

    The result is not clipped at zero: raw data keep their black level.
    """
    n_channels, height, width = planes.shape
    shot, floor = np.float32(settings.shot_noise), np.float32(settings.read_noise**2)
    for channel in range(n_channels):
        noise = white_noise(height, width, rng)
        if settings.chroma_noise > 0 and n_channels == 3:
            coarse = white_noise(-(-height // 4), -(-width // 4), rng)
            coarse *= np.float32(settings.chroma_noise)
            noise += enlarge(coarse, 4, height, width)
        for rows in strips(height):
            part = planes[channel, rows]
            deviation = np.sqrt(np.maximum(part, 0.0) * shot + floor)
            deviation *= noise[rows]
            part += deviation
    return planes


def reduce_noise(planes: Planes, settings: CameraSettings, size: int = 7) -> Planes:
    """Smooth where the local variance is no larger than the noise explains: texture smears, edges stay.

    Parameters
    ----------
    planes : float32 array of shape (n_channels, height, width)
    settings : CameraSettings
        Gives the noise's variance and the strength ``denoise``.
    size : int
        Side of the local window in pixels.

    Returns
    -------
    float32 array of shape (n_channels, height, width)

    References
    ----------
    .. [1] J.-S. Lee, "Digital image enhancement and noise filtering by use of local statistics", IEEE
       Trans. Pattern Analysis and Machine Intelligence 2 (1980) 165, equations 7 to 9.
    """
    box = np.full(size, 1.0 / size)
    shot, floor = np.float32(settings.shot_noise), np.float32(settings.read_noise**2)
    boost = np.float32(settings.denoise * (1.0 + settings.chroma_noise**2))
    out = np.empty_like(planes)
    for channel, plane in enumerate(planes):
        mean = correlate_same(plane, box)
        variance = correlate_same(plane * plane, box)
        for rows in strips(plane.shape[0]):
            m, v = mean[rows], variance[rows]
            v -= m * m
            np.maximum(v, np.float32(1e-12), out=v)
            share = np.float32(1.0) - boost * (np.maximum(m, 0.0) * shot + floor) / v
            np.clip(share, 0.0, 1.0, out=share)
            out[channel, rows] = m + share * (plane[rows] - m)
    return out


def take_photo(light: Planes, settings: CameraSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pass sampled light through the whole camera up to the pixels that are compressed.

    Parameters
    ----------
    light : float32 array of shape (n_channels, height, width)
        After :func:`apply_style` and :func:`sample_light`; not changed.
    settings : CameraSettings
    rng : numpy.random.Generator

    Returns
    -------
    uint8 array of shape (height, width, n_channels)
    """
    scale = light.shape[2] / REFERENCE_WIDTH
    pixels = to_display(expose(light, settings, rng), settings.contrast)
    pixels = sharpen(pixels, settings.sharpen, settings.sharpen_sigma * max(scale, 0.3))
    return shrink_and_enlarge(pixels, settings.shrink)
