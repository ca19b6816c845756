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
# ITU-T H.273: x and y of red, green and blue; 2 is "unspecified". The white of all of these is D65.
_SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_NTSC = (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
_PRIMARIES = {1: _SRGB, 2: _SRGB, 5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06), 6: _NTSC, 7: _NTSC}
_PRIMARIES |= {9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046), 12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)}
# Exponents; 0 is sRGB's curve, for which the curves of video are taken as well, as browsers do.
_GAMMAS = {1: 0.0, 2: 0.0, 6: 0.0, 13: 0.0, 14: 0.0, 15: 0.0, 4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}
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
    pixels = _apply_profile(raster, actions) if raster.icc is not None else _apply_cicp(raster, actions)
    if pixels is None:
        pixels = _without_profile(raster, actions)
    if raster.alpha is not None:
        pixels = _over_white(pixels, raster.alpha, actions)
    return _make_upright(pixels, raster.exif, actions), tuple(actions)


def _apply_profile(raster: Raster, actions: list[str]) -> NDArray[np.uint8] | None:
    """Convert by the embedded profile; None where it is broken, or it says sRGB."""
    assert raster.icc is not None
    tag = raster.icc.find(b"cicp\0\0\0\0")
    if 0 <= tag < len(raster.icc) - 9 and raster.icc[tag + 9] in _HDR:
        raise _hdr_error(raster.icc[tag + 9])
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


def _apply_cicp(raster: Raster, actions: list[str]) -> NDArray[np.uint8] | None:
    """Convert by the signalled primaries and curve; None where there are none, or they are sRGB's."""
    primaries, transfer = raster.cicp or (2, 2)
    if transfer in _HDR:
        raise _hdr_error(transfer)
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        raise ImageError(
            "unsupported",
            f"has the colour code points {primaries}/{transfer}, which are not read; export it as sRGB",
        )
    gamma, matrix = _GAMMAS[transfer], _to_srgb_light(primaries)
    if gamma == 0 and np.array_equal(matrix, np.eye(3)):
        return None
    pixels = _without_profile(raster, actions)
    levels = np.arange(256) / 255
    light = (
        levels**gamma
        if gamma
        else np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    )
    for start in range(0, len(pixels), _STRIP_ROWS):
        strip = (light[pixels[start : start + _STRIP_ROWS]] @ matrix.T).clip(0, 1)
        coded = np.where(strip <= 0.0031308, 12.92 * strip, 1.055 * strip ** (1 / 2.4) - 0.055)
        pixels[start : start + _STRIP_ROWS] = np.rint(255 * coded)
    actions.append(f"cicp:{primaries}/{transfer}")
    return pixels


@functools.cache
def _to_srgb_light(primaries: int) -> NDArray[np.floating]:
    """Matrix from linear RGB of some primaries, white D65, to that of sRGB; clipped to its gamut by the caller."""

    def to_xyz(corners: tuple[float, ...]) -> NDArray[np.floating]:
        x, y = np.array((*corners, 0.3127, 0.3290)).reshape(4, 2).T
        columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
        return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])

    if _PRIMARIES[primaries] == _PRIMARIES[1]:
        return np.eye(3)
    return np.linalg.solve(to_xyz(_PRIMARIES[1]), to_xyz(_PRIMARIES[primaries]))


def _hdr_error(transfer: int) -> ImageError:
    return ImageError(
        "unsupported",
        f"is an HDR photo ({_HDR[transfer]}), for which no one rendering on a standard display is agreed; export it as "
        "sRGB",
    )


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
