"""Renders one photo of the set: scene, camera, JPEG bytes, and how faithful they are to the flawless photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featbank.demo.camera import CameraSettings, apply_style, sample_light, take_photo
from featbank.demo.canvas import Canvas, Planes
from featbank.demo.measure import fidelity
from featbank.demo.plan import PhotoPlan
from featbank.demo.processing import display_luma, encode_jpeg, jpeg_luma
from featbank.demo.scenes import SCENES
from featbank.digest import seed_from

RENDER_EPOCH = 2
"""Counts up with every change of the code that changes a picture; part of a set's identity."""


@dataclass(frozen=True)
class RenderedPhoto:
    """One finished photo.

    Parameters
    ----------
    data : bytes
        The JPEG file.
    ms_ssim, vif, fidelity : float
        Measures against the flawless photo of the same scene.
    """

    data: bytes
    ms_ssim: float
    vif: float
    fidelity: float

    def measures(self) -> dict[str, Any]:
        """Return the three measures rounded to six places."""
        return {name: round(getattr(self, name), 6) for name in ("ms_ssim", "vif", "fidelity")}


def render_light(plan: PhotoPlan, seed: int) -> Planes:
    """Paint a plan's scene and sample it as the ideal lens does.

    Returns
    -------
    float32 array of shape (3, height, width), or (1, height, width) for a grayscale photo
    """
    rng = np.random.default_rng(seed_from("scene", str(seed), str(plan.number), plan.kind))
    kind = SCENES[plan.kind]
    light = kind.paint(Canvas(plan.width, plan.height, rng))
    if not kind.has_text and rng.random() < 0.5:
        light = np.ascontiguousarray(light[:, :, ::-1])
    return sample_light(apply_style(light, plan.settings))


def develop(light: Planes, settings: CameraSettings, rng: np.random.Generator) -> RenderedPhoto:
    """Take, compress and measure a photo of sampled light.

    Parameters
    ----------
    light : float32 array of shape (n_channels, height, width)
        As :func:`render_light` returns it; not changed.
    settings : CameraSettings
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    RenderedPhoto
        Both pictures are compared as displayed, after the tone curve, so that errors of exposure count as
        they are seen.
    """
    data = encode_jpeg(
        take_photo(light, settings, rng), settings.jpeg_quality, is_subsampled=settings.is_subsampled
    )
    joint, similarity, information = fidelity(display_luma(light, settings.contrast), jpeg_luma(data))
    return RenderedPhoto(data, similarity, information, joint)


def render_photo(plan: PhotoPlan, seed: int) -> RenderedPhoto:
    """Render one photo; the same plan and seed give the same bytes in every process.

    Parameters
    ----------
    plan : PhotoPlan
    seed : int
        Seed of the set.

    Returns
    -------
    RenderedPhoto
    """
    rng = np.random.default_rng(seed_from("sensor", str(seed), str(plan.number)))
    return develop(render_light(plan, seed), plan.settings, rng)
