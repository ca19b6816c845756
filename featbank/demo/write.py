"""Decides what every photo of the set is before any is rendered: scene, uploader, camera, faults, split.

A plan follows from the seed alone, so any number of processes may render it in any order. As in the UHD-IQA release a
third of validation and test comes from exclusive kinds, most of their uploaders also have training photos, and a few
percent are grayscale. Unlike there, one photo in ten is small.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank import __version__
from featbank.atomic import FolderKind, check_folder, write_file
from featbank.demo.camera import CameraSettings, Pixels, Random, take_photo
from featbank.demo.scenes import EXCLUSIVE, SCENES, TAGS
from featbank.digest import digest_bytes, digest_file, seed_from
from featbank.errors import DatasetError
from featbank.workers import keep_freed_memory, one_opencv_thread, starting_workers

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


METADATA_FILE, TAGS_FILE, MARKER_FILE = "uhd-iqa-metadata.csv", "uhd-iqa-tags.csv", "featbank-demo.json"
STATEMENT = (
    "This is a simulation. The scenes are rendered, the cameras and their defects are modelled, and the raters are "
    "formulas. Numbers obtained on this set show that the software works; they prove nothing about real photos."
)
RENDER_EPOCH = 3  # counts up with every change of the code that changes a picture or a rating
_WHO, _CURE = "demo", "Choose an empty folder: nothing is overwritten."
_HEADER = 20  # bytes of a JPEG file before its comment: start of image, and the JFIF segment
_MOS_LINK = 0.25  # correlation of the logarithm of views with MOS; the release's own rank correlation is 0.17
Seen = tuple[float, ...]
Request = dict[str, int]


def write_demo(
    folder: str | Path,
    *,
    n_photos: int = 300,
    width: int = 3840,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the built-in photo set, or what is missing of it.

    Parameters
    ----------
    folder : str or Path
        Where to; created if needed. It may hold an unfinished or finished set of the same arguments.
    n_photos, width : int
        Number of photos, at least 20, and their width in pixels, at least 320; one in ten is down to a sixth as wide.
    seed : int
        Decides everything; the same seed gives the same bytes with the same library versions.
    workers : int
        Number of processes; 1 renders in this one.
    progress : callable, optional
        Called as ``progress(n_done, n_photos)`` at the start and after every photo.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    DatasetError, OutputError
        If the folder holds other data, of which nothing is overwritten; if a file cannot be written.
    """
    if workers < 1:
        raise ValueError(f"{_WHO}: workers must be at least 1, got {workers!r}")
    folder, plans = Path(folder), make_plan(n_photos, width, seed)
    request = {"epoch": RENDER_EPOCH, "n": n_photos, "seed": seed, "width": width}
    marker, paths = folder / MARKER_FILE, [folder / plan.split / plan.name for plan in plans]
    if marker.exists():
        _check_request(marker, marker.read_bytes(), request)
    else:
        there = {path for split in SPLITS for path in (folder / split).glob("[!.]*")}
        check_folder(
            folder, FolderKind("demo set", shared=frozenset(SPLITS if there <= {*paths} else ())), _WHO
        )
    seen = {path: _read_comment(path, request) for path in paths if path.exists()}
    report = progress or (lambda n_done, n_photos: None)
    report(len(seen), n_photos)
    missing = [(plan, path) for plan, path in zip(plans, paths, strict=True) if path not in seen]
    if (folder / METADATA_FILE).exists() and not missing:
        return folder
    for split in SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
    with starting_workers():  # they start with the first tasks
        jobs = joblib.Parallel(n_jobs=max(1, min(workers, len(missing))), return_as="generator_unordered")
        done = jobs(joblib.delayed(_render_to_disk)(*one, request, workers > 1) for one in missing)
    for path, how in done:
        seen[path] = how
        report(len(seen), n_photos)
    _write_tables(folder, plans, seen, request)
    return folder


def _check_request(path: Path, text: bytes, request: Request) -> dict[str, Any]:
    """Parse what a marker or a photo says of its set; refuse that of another set."""
    try:
        content = dict(json.loads(text))
        found = {name: content[name] for name in request}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{_WHO}: {path} is not part of a demo set ({error!r}). {_CURE}") from error
    if found != request:
        raise DatasetError(f"{_WHO}: {path} is of another demo set: {found} instead of {request}. {_CURE}")
    return content


def _read_comment(path: Path, request: Request) -> Seen:
    """Return how visible faults are in a photo's scene, which its comment says; refuse what is not our photo."""
    data = path.read_bytes()
    end = _HEADER + 2 + int.from_bytes(data[_HEADER + 2 : _HEADER + 4], "big")
    comment = _check_request(path, data[_HEADER + 4 : end], request)
    if comment["sha256"] != digest_bytes(data[:_HEADER] + data[end:]):
        raise DatasetError(f"{_WHO}: {path} was changed since it was rendered. Move it away. {_CURE}")
    return tuple(comment["seen"])


def render_photo(plan: PhotoPlan, seed: int) -> tuple[bytes, Seen]:
    """Render one photo, the same in every process: its JPEG file, and how visible faults are in its scene."""
    with one_opencv_thread():
        rng = np.random.default_rng(seed_from("scene", str(seed), str(plan.number), plan.kind))
        picture = SCENES[plan.kind](plan.height, plan.width, rng)
        return take_photo(picture, plan.settings, rng), visibility(picture)


def _render_to_disk(plan: PhotoPlan, path: Path, request: Request, is_own_process: bool) -> tuple[Path, Seen]:
    """Render one photo in whatever process this is, and write it with its comment."""
    if is_own_process:
        keep_freed_memory()
    data, seen = render_photo(plan, request["seed"])
    comment = {"statement": STATEMENT, **request, "seen": seen, "sha256": digest_bytes(data)}
    text = json.dumps(comment).encode()
    segment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    write_file(path, data[:_HEADER] + segment + data[_HEADER:], _WHO)
    return path, seen


def _write_tables(folder: Path, plans: list[PhotoPlan], seen: dict[Path, Seen], request: Request) -> None:
    """Let the raters judge, and write the marker, tags and, last, the metadata that make the set complete."""
    seed, paths = request["seed"], [folder / plan.split / plan.name for plan in plans]
    qualities = [quality(plan, seen[path]) for plan, path in zip(plans, paths, strict=True)]
    photos = pd.DataFrame([{"image_name": plan.name, **asdict(plan)} for plan in plans])
    photos["sha256"], photos["seen"] = [digest_file(path) for path in paths], [seen[path] for path in paths]
    ratings = rate(qualities, photos["image_name"].tolist(), seed)
    photos["quality"], photos["quality_mos"] = np.round(qualities, 4), mean_opinion(ratings)
    libraries = {name: metadata.version(name) for name in ("numpy", "opencv-python-headless", "simplejpeg")}
    description = {
        "title": "featbank demo set", "is_simulation": True, "statement": STATEMENT, "version": __version__, **request,
        "libraries": libraries, "raters": make_raters(seed).round(4).tolist(),
        "photos": photos.assign(ratings=ratings.tolist()).to_dict("records"),
    }  # fmt: skip
    write_file(folder / MARKER_FILE, json.dumps(description, indent=1) + "\n", _WHO)
    for name, table in zip((TAGS_FILE, METADATA_FILE), release_tables(photos, seed), strict=True):
        # The release's quoting: text in quotation marks, numbers bare.
        text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        write_file(folder / name, text, _WHO)


def release_tables(photos: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make ``uhd-iqa-tags.csv`` and ``uhd-iqa-metadata.csv`` of planned and rated photos, in the release's columns.

    Popularity has the medians, spreads and slopes of the release's own columns, in natural logarithms, and a weak link
    to MOS. ``image_bytes`` is the original file's, which is not kept: no compression can be read from it. Of a scene's
    two tags the first has the more general one as its parent.
    """
    rng, mos, n = np.random.default_rng(seed_from("metadata", str(seed))), photos["quality_mos"], len(photos)
    spread = rng.normal(0.0, [[1.0], [0.24], [0.27], [0.26], [0.7], [0.5]], (6, n))
    fame = _MOS_LINK * (mos - mos.mean()) / max(mos.std(), 1e-9) + (1.0 - _MOS_LINK**2) ** 0.5 * spread[0]
    views, favorites = np.exp(9.91 + 1.38 * fame), 11.0 + np.exp(5.0 + 0.76 * fame + spread[1])
    likes = 11.0 + favorites * np.exp(spread[2] - 0.17)
    width = photos["original_width"]
    height = (width * photos["height"] / photos["width"]).round()
    originals = [digest_bytes(f"demo {seed} {name}".encode())[:54] + ".jpg" for name in photos["image_name"]]
    counts = {
        "orig_width": width, "orig_height": height, "views": views.clip(500.0), "likes": likes, "favorites": favorites,
        "downloads": (views * np.exp(spread[3] - 0.82)).clip(60.0), "comments": likes * np.exp(spread[4] - 2.27),
        "image_bytes": 0.2 * width * height * np.exp(spread[5]),
    }  # fmt: skip
    first = photos[["image_name", "quality_mos", "split", "subset"]].rename(columns={"split": "set"})
    numbers = first.assign(**{name: values.astype(np.int64) for name, values in counts.items()})
    pairs = [TAGS[SCENES[kind]] for kind in photos["kind"]]
    tags = pd.DataFrame({"image_name": np.repeat(originals, 2), "tag": np.ravel(pairs)})
    tags["parents"] = [tag for pair in pairs for tag in (pair[1], "")]
    tags.insert(2, "machine_confidence", rng.uniform(70.0, 99.9, len(tags)).round(2))
    return tags, numbers.assign(user_name=photos["uploader"], page_url="", image_name_orig=originals)
