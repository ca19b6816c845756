"""Decides what every photo of the set is before any is rendered: scene, uploader, camera, faults, split.

A plan follows from the seed alone, so any number of processes may render it in any order. As in the UHD-IQA release a
third of validation and test comes from exclusive kinds, most of their uploaders also have training photos, and a few
percent are grayscale. Unlike there, one photo in ten is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featbank.demo.camera import CameraSettings, Random
from featbank.demo.scenes import EXCLUSIVE, SCENES
from featbank.digest import seed_from

SPLITS = ("training", "validation", "test")
MIN_WIDTH = 320

_EXCLUSIVE_SHARE, _GRAYSCALE_SHARE, _NEW_UPLOADER_SHARE, _SMALL_SHARE = 1.0 / 3.0, 0.03, 0.17, 0.1
_ASPECTS = ((3, 2), (3, 2), (3, 2), (16, 9), (4, 3))
_ORIGINAL_WIDTHS = (3840, 4000, 4288, 4608, 4896, 5184, 5184, 5472, 5760, 6000, 6000, 6720, 7360)

Changes = dict[str, Any]
FAULTS: dict[str, Callable[[float, Random], Changes]] = {
    "compression": lambda t, rng: {"quality": round(70.0 * (5.0 / 70.0) ** t)},
    "noise": lambda t, rng: {"noise": 3.0 * 15.0**t},
    "smear": lambda t, rng: {"noise": 3.0 * 8.0**t, "denoise": rng.uniform(0.6, 1.0)},
    "defocus": lambda t, rng: {"defocus": 9.0**t},
    "soft": lambda t, rng: {"blur": 0.7 * 7.0**t},
    "motion": lambda t, rng: {
        "motion": 3.5 * 8.0**t,
        "angle": 3.1 * rng.random(),
        "bend": 3.0 * rng.random(),
    },
    "enlarged": lambda t, rng: {"shrink": 1.3 * 3.2**t},
    "halo": lambda t, rng: {"sharpen": 0.6 * 5.0**t, "sharpen_sigma": rng.uniform(1.0, 2.6)},
    "under": lambda t, rng: {"exposure": -0.4 - 1.2 * t},
    "over": lambda t, rng: {"exposure": 0.4 + 0.8 * t},
    "veil": lambda t, rng: {"veil": 0.06 * 4.0**t},
}
"""Camera settings of each fault for a strength in [0, 1]."""

UPLOADERS: dict[str, tuple[float, Changes, dict[str, int]]] = {
    "studio": (0.4, {"noise": 1.0}, {"defocus": 3, "soft": 2, "over": 1, "noise": 1}),
    "phone": (0.7, {"noise": 1.8, "sharpen": 0.4, "quality": 88},
              {"smear": 5, "noise": 4, "motion": 4, "halo": 2, "under": 1, "over": 1, "veil": 1}),
    "nature": (0.7, {"noise": 1.5, "quality": 92}, {"noise": 5, "defocus": 5, "motion": 4, "under": 1}),
    "archive": (0.8, {"noise": 2.5, "blur": 0.5, "quality": 90},
                {"soft": 5, "noise": 4, "veil": 2, "compression": 3, "defocus": 1}),
    "repost": (0.9, {"noise": 1.0, "quality": 85}, {"compression": 7, "enlarged": 5, "halo": 3, "soft": 1}),
}  # fmt: skip
"""Types of uploaders: share of photos with a fault, their camera, and how frequent which faults are."""


@dataclass(frozen=True)
class PhotoPlan:
    """One photo before it is rendered."""

    number: int  # 1, 2, ...; the file is <number>.jpg
    split: str
    subset: str  # "exclusive" or empty
    kind: str  # of scenes.SCENES
    uploader: str
    uploader_type: str  # of UPLOADERS
    width: int
    height: int
    size: float  # width relative to the set's; below 1 for small photos
    original_width: int  # that the uploader's camera would have had, at least 3,840 as in the release
    faults: tuple[str, ...]  # what was made wrong on purpose: none to two of FAULTS
    settings: CameraSettings

    @property
    def name(self) -> str:
        """File name of the photo."""
        return f"{self.number}.jpg"


def uploader_camera(seed: int, uploader: str) -> tuple[str, CameraSettings]:
    """Return an uploader's type, and the camera that all of the uploader's photos share but for their faults."""
    rng = np.random.default_rng(seed_from("uploader", str(seed), uploader))
    kind = str(rng.choice(list(UPLOADERS)))
    own = CameraSettings(**UPLOADERS[kind][1])
    return kind, replace(
        own, blur=round(own.blur + rng.uniform(0.0, 0.5), 3), noise=round(own.noise * rng.uniform(0.6, 1.6), 3),
        quality=own.quality - int(rng.integers(0, 5)), contrast=round(rng.uniform(0.0, 0.3), 3),
    )  # fmt: skip


def _deck(names: list[str], n: int, rng: Random) -> list[str]:
    """Deal ``n`` cards from a stack that repeats, shuffled each round: every name comes up evenly."""
    return [names[k] for _ in range(-(-n // len(names))) for k in rng.permutation(len(names))][:n]


def split_sizes(n_photos: int) -> dict[str, int]:
    """Return how many photos each split gets: 45, 15 and 40 percent.

    More test photos than a real set has: an SRCC between unrelated numbers has a standard deviation of
    ``1 / sqrt(n - 1)`` (Kendall and Gibbons, "Rank Correlation Methods", section 4.8).
    """
    n_validation, n_test = round(0.15 * n_photos), round(0.4 * n_photos)
    return {"training": n_photos - n_validation - n_test, "validation": n_validation, "test": n_test}


def make_plan(n_photos: int, width: int, seed: int) -> list[PhotoPlan]:
    """Decide every photo of a set, by number; splits are mixed, as in the release."""
    least = {"n_photos": (n_photos, 20), "width": (width, MIN_WIDTH), "seed": (seed, 0)}
    for name, (value, limit) in least.items():
        if not isinstance(value, int | np.integer) or value < limit:
            raise ValueError(f"make_plan: {name} must be an integer of at least {limit}, got {value!r}")
    rng = np.random.default_rng(seed_from("plan", str(seed), str(n_photos)))
    names = [f"camera-{k + 1:02d}" for k in range(max(6, n_photos // 5))]
    regulars, newcomers = np.split(names, [-max(1, len(names) // 7)])
    # A few uploaders bring many photos, most bring one or two.
    weights = (1.0 + np.arange(len(regulars))) ** -0.8
    exclusive = [paint.__name__ for paint in EXCLUSIVE]
    rows: list[tuple[str, str, str]] = []
    trained: list[str] = []
    for split, n in split_sizes(n_photos).items():
        n_exclusive = 0 if split == "training" else round(_EXCLUSIVE_SHARE * n)
        kinds = _deck([k for k in SCENES if k not in exclusive], n - n_exclusive, rng)
        kinds += _deck(exclusive, n_exclusive, rng)
        if split == "training":
            uploaders = trained = rng.choice(regulars, size=n, p=weights / weights.sum()).tolist()
        else:
            # Drawn among training rows, not names: those with many photos there have many here.
            is_new = rng.random(n) < _NEW_UPLOADER_SHARE
            uploaders = [str(rng.choice(newcomers if new else trained)) for new in is_new]
        rows += zip([split] * n, kinds, uploaders, strict=True)
    gray = rng.permutation(n_photos)[: round(_GRAYSCALE_SHARE * n_photos)].tolist()
    order = enumerate(rng.permutation(n_photos).tolist())
    return [_plan_photo(k + 1, rows[row], width, seed, k in gray) for k, row in order]


def _plan_photo(number: int, row: tuple[str, str, str], width: int, seed: int, is_gray: bool) -> PhotoPlan:
    """Draw size, style and faults of one photo from its own generator."""
    split, kind, uploader = row
    rng = np.random.default_rng(seed_from("photo", str(seed), str(number), kind))
    uploader_type, settings = uploader_camera(seed, uploader)
    share, _, frequent = UPLOADERS[uploader_type]
    changes: Changes = {"exposure": rng.normal(0.0, 0.08), "is_grayscale": is_gray}
    n_faults = int(rng.random() < share) + int(rng.random() < 0.3 * share)
    odds = np.array(list(frequent.values())) / sum(frequent.values())
    faults = tuple(dict.fromkeys(rng.choice(list(frequent), size=n_faults, p=odds).tolist()))
    for fault in faults:
        changes |= FAULTS[fault](rng.beta(1.3, 1.1), rng)
    changes = {name: round(v, 4) if isinstance(v, float) else v for name, v in changes.items()}
    own = max(MIN_WIDTH, width // int(rng.choice([2, 3, 4, 6]))) if rng.random() < _SMALL_SHARE else width
    across, down = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    return PhotoPlan(
        number, split, "exclusive" if SCENES[kind] in EXCLUSIVE else "", kind, uploader, uploader_type,
        own, round(own * down / across / 2.0) * 2, own / width, int(rng.choice(_ORIGINAL_WIDTHS)), faults,
        replace(settings, **changes),
    )  # fmt: skip
