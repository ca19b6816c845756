"""Simulated raters: from what a camera did to a scene to opinion scores.

Each of a camera's faults is a number of just noticeable steps, logarithmic in its physical size, as thresholds are
proportional to what is there already (Weber's law). A scene with much detail shows blur, a calm one noise and blocks.
Faults add like independent errors, and quality falls with their sum along a saturating curve. Ten raters judge every
photo in two sessions on a slider from 0 to 100, as in the UHD-IQA study; no person stands behind any number.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from featbank.demo.camera import CameraSettings, Pixels
from featbank.demo.plan import PhotoPlan
from featbank.digest import seed_from

N_RATERS, N_SESSIONS = 10, 2

_BEST, _SPAN, _HALF = 0.82, 0.62, 7.0  # quality without faults; what all steps take; how many take half of it
_BIAS, _GAIN, _TASTE, _NOISE = 0.04, 0.12, 0.03, 0.05
_LIKING = 0.012  # deviation of what raters think of kinds of scenes whatever the camera did


def visibility(picture: Pixels) -> tuple[float, float]:
    """Say how well a flawless picture shows blur, and how well noise and blocks: factors about 1.

    Judged by the share of detailed and of calm places in a copy 960 pixels wide.
    """
    height = max(8, round(960 * picture.shape[0] / picture.shape[1]))
    gray = cv2.cvtColor(cv2.resize(picture, (960, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    detail = cv2.blur(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), (31, 31))
    busy = round(float((detail / (detail + 12.0)).mean()), 4)
    return 0.75 + 0.5 * busy, 1.25 - 0.5 * busy


def annoyances(settings: CameraSettings, size: float) -> dict[str, float]:
    """Express a camera's faults in just noticeable steps: by fault, 0 for none.

    ``size`` is the photo's width relative to the set's: a small one is seen enlarged, and its faults with it.
    """
    s = settings
    smear = np.square([s.blur, 0.5 * s.defocus, 0.29 * s.motion, 0.3 * s.denoise * s.noise**0.5]).sum()
    coarse = np.square([0.6 * (s.shrink - 1.0) / size, 0.5 / size - 0.5]).sum()
    grains = s.noise * (1.0 - 0.6 * s.denoise)
    step = 50.0 / s.quality if s.quality < 50 else 2.0 - s.quality / 50.0  # of the quantiser
    return {
        "blur": float(np.log2(1.0 + smear + coarse)),
        "noise": float(np.log2(1.0 + (grains / 5.0) ** 2 / size)),
        "blocks": float(0.8 * np.log2(1.0 + (1.5 * step) ** 2 / size)),
        "exposure": 2.0 * s.exposure**2 / (0.5 + abs(s.exposure)),
        "veil": 8.0 * s.veil,
        "halo": 1.2 * s.sharpen**1.5,
    }


def quality(plan: PhotoPlan, seen: Sequence[float]) -> float:
    """Say what a rater without bias thinks, on a scale from 0 to 1: it falls with every fault.

    ``seen`` is what `visibility` says of the scene; some kinds of scenes are liked more than others.
    """
    weights = {"blur": seen[0], "noise": seen[1], "blocks": seen[1]}
    steps = [weights.get(name, 1.0) * value for name, value in annoyances(plan.settings, plan.size).items()]
    total, rng = float(np.linalg.norm(steps)), np.random.default_rng(seed_from("liking", plan.kind))
    return float(_BEST - _SPAN * total / (total + _HALF) + rng.normal(0.0, _LIKING))


def make_raters(seed: int) -> NDArray[np.float64]:
    """Draw the raters of a set: (10, 2), bias and gain."""
    rng = np.random.default_rng(seed_from("raters", str(seed)))
    return np.stack([rng.normal(0.0, _BIAS, N_RATERS), rng.lognormal(0.0, _GAIN, N_RATERS)], axis=1)


def rate(qualities: Sequence[float], names: list[str], seed: int) -> NDArray[np.int64]:
    """Let all raters judge all photos: slider positions (n_photos, 2, 10), by photo, session and rater.

    Each rater has a bias, a gain, a taste for or against the single photo, and noise; these depend on the photo's name
    and the seed, not on the order.
    """
    bias, gain = make_raters(seed).T
    out = np.empty((len(names), N_SESSIONS, N_RATERS), dtype=np.int64)
    for row, name in enumerate(names):
        rng = np.random.default_rng(seed_from("rating", str(seed), name))
        opinion = 0.65 + bias + gain * (qualities[row] - 0.65) + rng.normal(0.0, _TASTE, N_RATERS)
        noisy = opinion + rng.normal(0.0, _NOISE, (N_SESSIONS, N_RATERS))
        out[row] = np.clip(np.rint(100.0 * noisy), 0, 100)
    return out


def mean_opinion(ratings: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the twenty ratings of each photo to a MOS in [0, 1] in steps of 0.0005, as in the release."""
    return np.round(ratings.mean(axis=(1, 2)) / 100.0, 4)
