"""Takes decoded samples to upright 8-bit sRGB: profile, ink or gray to RGB, transparency, orientation.

All work on large arrays goes by strips of rows, so that the extra memory does not grow with the image.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from featbank.errors import ImageError
from featbank.images.formats import Raster, read_orientation

_STRIP_ROWS = 256
_PROFILE_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_CACHED_PROFILE_BYTES = 1 << 16
# What Pillow raises for profiles it or Little CMS cannot make sense of.
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(raster: Raster) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Finish a decoded image, whose arrays may be overwritten.

    Returns
    -------
    pixels : uint8 array of shape (height, width, 3), C-contiguous
        Upright sRGB.
    actions : tuple of str
        What was done to the image from the file to here.
    """
    actions = list(raster.actions)
    pixels = _apply_profile(raster, actions)
    if pixels is None:
        pixels = _without_profile(raster, actions)
    if raster.alpha is not None:
        pixels = _over_white(pixels, raster.alpha, actions)
    return _make_upright(pixels, raster.exif, actions), tuple(actions)


def _apply_profile(raster: Raster, actions: list[str]) -> NDArray[np.uint8] | None:
    """Convert by the embedded profile; None where there is none, it is broken, or it says sRGB."""
    if raster.icc is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(raster.icc))
        space = _PROFILE_SPACES.get(profile.profile.xcolor_space.strip())
        if raster.kind == "L" and space == "RGB":
            # Some cameras and editors tag gray files so; gray is a neutral colour of that space.
            raster.samples, raster.kind = _replicate(raster.samples, actions), "RGB"
        if space != raster.kind:
            actions.append("icc-ignored:mismatch")
            return None
        if raster.kind == "RGB" and _is_srgb(raster.icc):
            return None
        transform = _build_transform(profile, raster.kind)
        name = ImageCms.getProfileDescription(profile)
    except _PROFILE_ERRORS:
        actions.append("icc-ignored:broken")
        return None
    height, width = raster.samples.shape[:2]
    # In place where input and output have one shape.
    out = raster.samples if raster.kind == "RGB" else np.empty((height, width, 3), np.uint8)
    for start in range(0, height, _STRIP_ROWS):
        strip = raster.samples[start : start + _STRIP_ROWS]
        out[start : start + _STRIP_ROWS] = np.asarray(transform.apply(_as_image(strip, raster.kind)))
    label = "".join(c for c in name if c.isprintable()).strip()[:60]
    actions.append(f"icc:{label or 'unnamed'}")
    return out


def _as_image(strip: NDArray[np.uint8], kind: str) -> Image.Image:
    # Image.fromarray would take four channels for RGBA.
    return Image.frombytes(kind, (strip.shape[1], strip.shape[0]), strip.tobytes())


def _build_transform(profile: ImageCms.ImageCmsProfile, kind: str) -> ImageCms.ImageCmsTransform:
    # Relative colorimetric with black point compensation: what photo editors use for display by default.
    return ImageCms.ImageCmsTransform(
        profile,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        kind,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _is_srgb(icc: bytes) -> bool:
    """Tell whether a profile moves no colour by more than one level: there are dozens of sRGB profiles."""
    return _is_srgb_cached(icc) if len(icc) <= _CACHED_PROFILE_BYTES else _moves_nothing(icc)


def _moves_nothing(icc: bytes) -> bool:
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(27, 27, 3)
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    transform = _build_transform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), "RGB")
    for probe in (cube, ramp):
        moved = np.asarray(transform.apply(_as_image(probe, "RGB"))).astype(np.int16)
        if np.abs(moved - probe).max() > 1:
            return False
    return True


_is_srgb_cached = functools.lru_cache(maxsize=32)(_moves_nothing)


def _without_profile(raster: Raster, actions: list[str]) -> NDArray[np.uint8]:
    if raster.kind == "RGB":
        return raster.samples
    if raster.kind == "L":
        return _replicate(raster.samples, actions)
    height, width = raster.samples.shape[:2]
    pixels = np.empty((height, width, 3), np.uint8)
    for start in range(0, height, _STRIP_ROWS):
        paper = 255 - raster.samples[start : start + _STRIP_ROWS].astype(np.uint16)
        # Ink on ink: what one ink lets through, the black lets through again.
        pixels[start : start + _STRIP_ROWS] = (paper[..., :3] * paper[..., 3:] + 127) // 255
    actions.append("cmyk-to-rgb")
    return pixels


def _replicate(gray: NDArray[np.uint8], actions: list[str]) -> NDArray[np.uint8]:
    pixels = np.empty((*gray.shape, 3), np.uint8)
    pixels[:] = gray[:, :, None]
    actions.append("gray-to-rgb")
    return pixels


def _over_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], actions: list[str]) -> NDArray[np.uint8]:
    """Lay the image on white, the page that viewers and raters see behind transparent images.

    The colours hidden below full transparency are arbitrary; no score may depend on them.
    """
    if alpha.min() == 255:
        actions.append("opaque-alpha-dropped")
        return pixels
    out = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _STRIP_ROWS):
        strip = slice(start, start + _STRIP_ROWS)
        weight = alpha[strip, :, None].astype(np.uint16)
        out[strip] = (pixels[strip] * weight + 255 * (255 - weight) + 127) // 255
    actions.append("alpha-over-white")
    return out


def _make_upright(pixels: NDArray[np.uint8], exif: bytes | None, actions: list[str]) -> NDArray[np.uint8]:
    orientation: int | None = 1
    if exif is not None:
        try:
            orientation = read_orientation(exif)
        except ImageError:
            actions.append("exif-ignored:broken")
    if orientation is not None and 2 <= orientation <= 8:
        pixels = _turn(pixels, orientation)
        actions.append(f"orientation:{orientation}")
    elif orientation not in {None, 1}:
        actions.append(f"orientation-ignored:{orientation}")
    return np.ascontiguousarray(pixels)


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 2 to 8; CIPA DC-008, "Exif 2.32", 2019, section 4.6.4, tag 274.

    The value names the side of the scene that the first row and the first column show. From 5 on, rows and
    columns are exchanged; then what remains is to mirror.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels
