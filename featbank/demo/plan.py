"""Decides what every photo of the set is before any is rendered: scene, uploader, camera, defects, split.

A plan follows from the seed alone, so photos may be rendered in any order by any number of processes.
Proportions follow the UHD-IQA release: a third of validation and test comes from exclusive kinds, most of
their uploaders also have training photos, a few percent are grayscale, the width is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featbank.demo.camera import CameraSettings
from featbank.demo.scenes import SCENES
from featbank.digest import seed_from

SPLITS = ("training", "validation", "test")

MIN_PHOTOS = 20
MIN_WIDTH = 320
"""Pixels; 320 x 180 is the smallest picture the full-reference measure can be taken of."""

_VALIDATION_SHARE = 0.15
_TEST_SHARE = 0.4
_EXCLUSIVE_SHARE = 1.0 / 3.0
_GRAYSCALE_SHARE = 0.03
_NEW_UPLOADER_SHARE = 0.17
_ASPECTS = ((3, 2), (3, 2), (3, 2), (16, 9), (4, 3))
_ORIGINAL_WIDTHS = (4000, 4288, 4608, 4896, 5184, 5184, 5472, 5760, 6000, 6000, 6720, 7360)


@dataclass(frozen=True)
class PhotoPlan:
    """One photo before it is rendered.

    Parameters
    ----------
    number : int
        1, 2, ...; the file is ``<number>.jpg``.
    split : str
        ``training``, ``validation`` or ``test``.
    subset : str
        ``exclusive`` or empty.
    kind : str
        Name of the scene in :data:`featbank.demo.scenes.SCENES`.
    uploader : str
        Name of the simulated uploader.
    width, height : int
        Size in pixels.
    original_width : int
        Width that the uploader's camera would have had, at least 3,840 as in the release.
    defects : tuple of str
        What was deliberately made wrong, from none to two names of :data:`DEFECTS`.
    settings : CameraSettings
    """

    number: int
    split: str
    subset: str
    kind: str
    uploader: str
    width: int
    height: int
    original_width: int
    defects: tuple[str, ...]
    settings: CameraSettings

    @property
    def name(self) -> str:
        """File name of the photo."""
        return f"{self.number}.jpg"


def _defocus(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"defocus_radius": 1.0 * 9.0**t}


def _motion(t: float, rng: np.random.Generator) -> dict[str, Any]:
    bend = 0.0 if rng.random() < 0.5 else float(rng.uniform(1.0, 4.0))
    return {
        "motion_length": 3.5 * 8.0**t,
        "motion_angle": float(rng.uniform(0.0, np.pi)),
        "motion_bend": bend,
    }


def _soft(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"lens_sigma": 0.7 * 6.0**t}


def _noise(t: float, rng: np.random.Generator) -> dict[str, Any]:
    shot = 2e-4 * 50.0**t
    return {
        "shot_noise": shot,
        "read_noise": 4.0 * shot,
        "chroma_noise": float(rng.choice([0.0, 0.0, 0.6, 1.2])),
    }


def _smear(t: float, rng: np.random.Generator) -> dict[str, Any]:
    shot = 4e-4 * 20.0**t
    return {
        "shot_noise": shot, "read_noise": 4.0 * shot, "chroma_noise": float(rng.uniform(0.0, 0.8)),
        "denoise": float(rng.uniform(0.9, 2.2)),
    }  # fmt: skip


def _under(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"exposure_ev": -(0.3 + 0.9 * t)}


def _over(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"exposure_ev": 0.3 + 0.7 * t}


def _veil(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"veil": 0.06 * 3.0**t}


def _halo(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"sharpen": 0.6 * 5.0**t, "sharpen_sigma": float(rng.uniform(1.0, 2.6))}


def _compression(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"jpeg_quality": round(75.0 * (5.0 / 75.0) ** t)}


def _enlarged(t: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"shrink": 1.3 * 3.2**t}


DEFECTS: dict[str, tuple[Callable[[float, np.random.Generator], dict[str, Any]], int]] = {
    "compression": (_compression, 18),
    "noise": (_noise, 17),
    "defocus": (_defocus, 14),
    "soft": (_soft, 14),
    "motion": (_motion, 11),
    "enlarged": (_enlarged, 7),
    "smear": (_smear, 6),
    "under": (_under, 2),
    "halo": (_halo, 4),
    "veil": (_veil, 2),
    "over": (_over, 2),
}
"""Defects by name: (camera settings for a strength in [0, 1], cards out of about a hundred).

Exposure errors and veils are few and mild: without the scene beside it, no method can tell a dark photo from
a photo of a dark scene, so strong ones would only put a floor under every error.
"""


def uploader_camera(seed: int, uploader: str) -> tuple[CameraSettings, float]:
    """Return an uploader's camera without deliberate defects, and how careless the uploader is.

    Parameters
    ----------
    seed : int
        Seed of the set.
    uploader : str
        Name of the uploader.

    Returns
    -------
    settings : CameraSettings
        Lens, noise floor, sharpening, colours and usual JPEG quality of this camera.
    carelessness : float in [0, 1]
        0 uploads almost flawless photos, 1 mostly spoilt ones.
    """
    rng = np.random.default_rng(seed_from("uploader", str(seed), uploader))
    grade = float(rng.random())
    shot = float(10.0 ** rng.uniform(-5.0, -4.4 + 0.7 * grade))
    settings = CameraSettings(
        lens_sigma=float(0.2 + 0.55 * grade * rng.random()),
        aberration=float(max(0.0, rng.normal(0.2, 1.0)) * (0.3 + grade)),
        vignette=float(rng.uniform(0.0, 0.3)),
        shot_noise=shot,
        read_noise=float(8.0 * shot),
        sharpen=float(rng.choice([0.0, 0.0, 0.15, 0.3, 0.45])),
        jpeg_quality=int(rng.choice([82, 86, 90, 92, 94, 96])),
        is_subsampled=bool(rng.random() < 0.75),
        contrast=float(rng.uniform(0.05, 0.3)),
        saturation=float(rng.uniform(0.85, 1.15)),
    )
    return settings.rounded(), float(rng.random())


def _deck(names: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """Deal ``n`` cards from a stack that repeats, shuffled each round: every name comes up evenly."""
    out: list[str] = []
    while len(out) < n:
        out += [names[k] for k in rng.permutation(len(names))]
    return out[:n]


def split_sizes(n_photos: int) -> dict[str, int]:
    """Return how many photos each split gets: 45, 15 and 40 percent.

    The test split is larger than a real data set's, because the set exists to show that the chain works: an SRCC
    between unrelated numbers has a standard deviation of ``1 / sqrt(n - 1)``, which only enough test rows bring
    well below 0.1 (Kendall and Gibbons, "Rank Correlation Methods", section 4.8).
    """
    n_validation, n_test = round(_VALIDATION_SHARE * n_photos), round(_TEST_SHARE * n_photos)
    return {"training": n_photos - n_validation - n_test, "validation": n_validation, "test": n_test}


def make_plan(n_photos: int, width: int, seed: int) -> list[PhotoPlan]:
    """Decide every photo of a set.

    Parameters
    ----------
    n_photos : int
        At least 20.
    width : int
        Width of all photos in pixels, at least 320.
    seed : int
        Non-negative.

    Returns
    -------
    list of PhotoPlan
        By number; splits are mixed, as in the release.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    for name, value, least in (
        ("n_photos", n_photos, MIN_PHOTOS),
        ("width", width, MIN_WIDTH),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"make_plan: {name} must be an integer of at least {least}, got {value!r}")
    rng = np.random.default_rng(seed_from("plan", str(seed), str(n_photos)))
    sizes = split_sizes(n_photos)
    rows: list[tuple[str, str, str, str]] = []
    n_uploaders = max(6, n_photos // 5)
    known = [f"camera-{k + 1:02d}" for k in range(n_uploaders)]
    n_new = max(1, round(0.15 * n_uploaders))
    regulars, newcomers = known[:-n_new], known[-n_new:]
    # A few uploaders bring many photos, most bring one or two.
    weights = (1.0 + np.arange(len(regulars))) ** -0.8
    trained: list[str] = []
    for split in SPLITS:
        n = sizes[split]
        n_exclusive = 0 if split == "training" else round(_EXCLUSIVE_SHARE * n)
        shared = _deck([k for k, v in SCENES.items() if not v.is_exclusive], n - n_exclusive, rng)
        held = _deck([k for k, v in SCENES.items() if v.is_exclusive], n_exclusive, rng)
        if split == "training":
            uploaders = [regulars[k] for k in rng.choice(len(regulars), size=n, p=weights / weights.sum())]
            trained = uploaders
        else:
            # Drawn among training rows, not names: those with many photos there have many here.
            is_new = rng.random(n) < _NEW_UPLOADER_SHARE
            uploaders = [str(rng.choice(newcomers if new else trained)) for new in is_new]
        defects = _defect_cards(seed, uploaders, rng)
        rows += list(zip([split] * n, shared + held, uploaders, defects, strict=True))
    order = rng.permutation(n_photos)
    gray = set(rng.choice(n_photos, size=round(_GRAYSCALE_SHARE * n_photos), replace=False).tolist())
    return [
        _plan_photo(number + 1, *rows[k], width=width, seed=seed, is_grayscale=number in gray)
        for number, k in enumerate(order.tolist())
    ]


def _defect_cards(seed: int, uploaders: list[str], rng: np.random.Generator) -> list[str]:
    """Deal each photo of a split its defects, joined by ``+``; careless uploaders draw more cards."""
    stack = [name for name, (_, n_cards) in DEFECTS.items() for _ in range(n_cards)]
    cards = iter(_deck(stack, 2 * len(uploaders), rng))
    out = []
    for uploader in uploaders:
        _, carelessness = uploader_camera(seed, uploader)
        fine = 0.2 - 0.14 * carelessness
        n = int(np.searchsorted([fine, fine + 0.62], float(rng.random())))
        out.append("+".join(dict.fromkeys(next(cards) for _ in range(n))))
    return out


def _plan_photo(
    number: int,
    split: str,
    kind: str,
    uploader: str,
    defects: str,
    *,
    width: int,
    seed: int,
    is_grayscale: bool,
) -> PhotoPlan:
    """Draw size, style and strengths of one photo from its own generator."""
    rng = np.random.default_rng(seed_from("photo", str(seed), str(number), kind))
    settings, carelessness = uploader_camera(seed, uploader)
    across, down = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    height = round(width * down / across / 2.0) * 2
    changes: dict[str, Any] = {"warmth": float(rng.normal(0.0, 0.08)), "is_grayscale": is_grayscale}
    changes["exposure_ev"] = float(rng.normal(0.0, 0.08))
    for name in defects.split("+") if defects else []:
        make, _ = DEFECTS[name]
        strength = float(rng.beta(1.5, 0.9)) * (0.8 + 0.2 * carelessness)
        changes |= make(strength, rng)
    subset = "exclusive" if SCENES[kind].is_exclusive else ""
    original = max(3840, int(rng.choice(_ORIGINAL_WIDTHS)))
    return PhotoPlan(
        number, split, subset, kind, uploader, width, height, original, tuple(defects.split("+")) if defects else (),
        replace(settings, **changes).rounded(),
    )  # fmt: skip
