"""Writes the built-in photo set in the layout and with the tables of the UHD-IQA release.

Photos are rendered by several processes and appear whole. Each says in its JPEG comment that it is a simulation and
which set it belongs to, so a set that was interrupted is taken up where it stopped, and no other file is taken for one
of its photos. ``featbank-demo.json`` and the tables come last: a folder that has them is complete.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import pandas as pd

from featbank import __version__
from featbank.atomic import FolderKind, check_folder, write_file
from featbank.demo import raters
from featbank.demo.camera import take_photo
from featbank.demo.plan import SPLITS, PhotoPlan, make_plan
from featbank.demo.scenes import SCENES, TAGS
from featbank.digest import digest_bytes, digest_file, seed_from
from featbank.errors import DatasetError
from featbank.workers import keep_freed_memory, starting_workers

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
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        rng = np.random.default_rng(seed_from("scene", str(seed), str(plan.number), plan.kind))
        picture = SCENES[plan.kind](plan.height, plan.width, rng)
        return take_photo(picture, plan.settings, rng), raters.visibility(picture)
    finally:
        cv2.setNumThreads(threads)


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
    qualities = [raters.quality(plan, seen[path]) for plan, path in zip(plans, paths, strict=True)]
    photos = pd.DataFrame([{"image_name": plan.name, **asdict(plan)} for plan in plans])
    photos["sha256"], photos["seen"] = [digest_file(path) for path in paths], [seen[path] for path in paths]
    ratings = raters.rate(qualities, photos["image_name"].tolist(), seed)
    photos["quality"], photos["quality_mos"] = np.round(qualities, 4), raters.mean_opinion(ratings)
    libraries = {name: metadata.version(name) for name in ("numpy", "opencv-python-headless", "simplejpeg")}
    description = {
        "title": "featbank demo set", "is_simulation": True, "statement": STATEMENT, "version": __version__, **request,
        "libraries": libraries, "raters": raters.make_raters(seed).round(4).tolist(),
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
