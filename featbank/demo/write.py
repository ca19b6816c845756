"""Writes the built-in photo set to disk in the layout of the UHD-IQA release.

Photos are rendered by several processes and appear by atomic rename, each with a small record beside it;
a set that was interrupted is taken up where it stopped. The tables and ``featbank-demo.json`` come last, so
a folder that has them is complete.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from featbank import __version__
from featbank.atomic import FolderKind, check_folder, remove_files, sweep, write_file
from featbank.demo.metadata import COLUMNS, TAG_COLUMNS, metadata_rows, tag_rows, to_csv
from featbank.demo.plan import SPLITS, PhotoPlan, make_plan
from featbank.demo.raters import agreement, make_raters, mean_opinion, rate, to_quality
from featbank.demo.render import RENDER_EPOCH, render_photo
from featbank.digest import digest_bytes, digest_file, digest_json
from featbank.errors import DatasetError
from featbank.workers import starting_workers

DEFAULT_N_PHOTOS = 300
DEFAULT_WIDTH = 3840

METADATA_FILE = "uhd-iqa-metadata.csv"
TAGS_FILE = "uhd-iqa-tags.csv"
MARKER_FILE = "featbank-demo.json"

STATEMENT = (
    "This is a simulation. The scenes are rendered, the cameras and their defects are modelled, and the raters are "
    "formulas. Numbers obtained on this set show that the software works; they prove nothing about real photos."
)

_UNFINISHED = ".unfinished"
_NEW_SET = FolderKind("demo set")
_UNFINISHED_SET = FolderKind("demo set", shared=frozenset({*SPLITS, _UNFINISHED, TAGS_FILE, METADATA_FILE}))

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers of ``mallopt`` in glibc's malloc.h."""


def write_demo(
    folder: str | Path,
    *,
    n_photos: int = DEFAULT_N_PHOTOS,
    width: int = DEFAULT_WIDTH,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the built-in photo set, or what is missing of it.

    Parameters
    ----------
    folder : str or Path
        Where to; created if needed. It may hold an unfinished or finished set of the same arguments.
    n_photos : int
        Number of photos, at least 20; 45, 15 and 40 percent go to training, validation and test. The
        default keeps the interval of a test SRCC of 0.85 within about 0.1 and renders in minutes.
    width : int
        Width of all photos in pixels, at least 320; smaller sets are for tests.
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
    DatasetError
        If the folder holds another demo set.
    OutputError
        If it holds anything else, or cannot be written; what is finished stays.

    Examples
    --------
    >>> from featbank.demo import write_demo
    >>> write_demo("data/demo", n_photos=300, seed=0)  # doctest: +SKIP
    PosixPath('data/demo')
    """
    if workers < 1:
        raise ValueError(f"write_demo: workers must be at least 1, got {workers!r}")
    plans = make_plan(n_photos, width, seed)
    folder = Path(folder)
    request = {"epoch": RENDER_EPOCH, "n": n_photos, "seed": seed, "width": width}
    finished = _read_marker(folder, request)
    records = _usable_records(folder, plans, request, finished)
    done = len(records)
    if progress is not None:
        progress(done, n_photos)
    if done < n_photos or finished is None or not (folder / METADATA_FILE).is_file():
        for name in (*SPLITS, _UNFINISHED):
            (folder / name).mkdir(parents=True, exist_ok=True)
            sweep(folder / name)
        missing = [plan for plan in plans if plan.name not in records]
        digest = digest_json(request)
        for record in _render_all(missing, seed, folder, digest, workers):
            records[record["image_name"]] = record
            done += 1
            if progress is not None:
                progress(done, n_photos)
        _write_tables(folder, plans, [records[plan.name] for plan in plans], request)
    remove_files(folder / _UNFINISHED, (_record_name(plan) for plan in plans))
    return folder


def _record_name(plan: PhotoPlan) -> str:
    """Name the file that says what a photo on the disk is, until the set is complete."""
    return f"{plan.number}.json"


def _read_marker(folder: Path, request: dict[str, int]) -> dict[str, Any] | None:
    """Return the finished set's description, or None; refuse a folder that holds something else."""
    marker = folder / MARKER_FILE
    if not marker.is_file():
        check_folder(folder, _UNFINISHED_SET if (folder / _UNFINISHED).is_dir() else _NEW_SET, "demo")
        return None
    try:
        description = json.loads(marker.read_text("utf-8"))
        found = {name: description[name] for name in request}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"write_demo: {marker} cannot be read ({error}). Delete the folder, or choose another."
        ) from error
    if found != request:
        raise DatasetError(
            f"write_demo: {folder} holds another demo set: expected {request}, found {found}. "
            "Delete the folder, or choose another."
        )
    return dict(description)


def _usable_records(
    folder: Path, plans: list[PhotoPlan], request: dict[str, int], finished: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Collect the records of photos that are on disk, whole, and made for this very request."""
    known: dict[str, dict[str, Any]] = {}
    if finished is not None:
        known = {record["image_name"]: record for record in finished["photos"]}
    digest = digest_json(request)
    for path in sorted((folder / _UNFINISHED).glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        if record.pop("request") != digest:
            raise DatasetError(
                f"write_demo: {folder} holds an unfinished demo set made with other arguments than {request}. "
                "Delete the folder, or choose another."
            )
        known[record["image_name"]] = record
    usable = {}
    for plan in plans:
        record, path = known.get(plan.name), folder / plan.split / plan.name
        # The digest, not the mere presence: a photo may have been replaced or cut off since.
        if record is not None and path.is_file() and digest_file(path) == record["sha256"]:
            usable[plan.name] = {key: record[key] for key in _RECORD_KEYS}
    return usable


_RECORD_KEYS = ("image_name", "sha256", "n_bytes", "ms_ssim", "vif", "fidelity")


def _render_all(
    plans: list[PhotoPlan], seed: int, folder: Path, request: str, workers: int
) -> Iterator[dict[str, Any]]:
    """Yield the records of all photos as they are finished, in any order."""
    if workers == 1 or len(plans) < 2:
        for plan in plans:
            yield _render_to_disk(plan, seed, folder, request)
        return
    with starting_workers():  # they start with the first tasks
        parallel = joblib.Parallel(n_jobs=min(workers, len(plans)), return_as="generator_unordered")
        records = parallel(joblib.delayed(_render_in_worker)(plan, seed, folder, request) for plan in plans)
    yield from records


def _render_in_worker(plan: PhotoPlan, seed: int, folder: Path, request: str) -> dict[str, Any]:
    """Render one photo in a process of its own."""
    _keep_memory()
    return _render_to_disk(plan, seed, folder, request)


@cache
def _keep_memory() -> None:
    """Tell the C library not to hand freed arrays back to the system after every step.

    A photo takes a hundred arrays of 40 MB one after the other; fetching each anew costs a fifth of the time
    in page faults. Does nothing where the C library has no such switch.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _render_to_disk(plan: PhotoPlan, seed: int, folder: Path, request: str) -> dict[str, Any]:
    """Render one photo in whatever process this is; first the photo appears, then its record."""
    photo = render_photo(plan, seed)
    write_file(folder / plan.split / plan.name, photo.data, "demo")
    record = {
        "image_name": plan.name,
        "sha256": digest_bytes(photo.data),
        "n_bytes": len(photo.data),
        **photo.measures(),
    }
    write_file(folder / _UNFINISHED / _record_name(plan), json.dumps({**record, "request": request}), "demo")
    return record


def _write_tables(
    folder: Path, plans: list[PhotoPlan], records: list[dict[str, Any]], request: dict[str, int]
) -> None:
    """Let the raters judge and write tags, metadata and, last, the marker that makes the set complete."""
    seed = request["seed"]
    fidelity = np.array([record["fidelity"] for record in records])
    ratings = rate(fidelity, [plan.name for plan in plans], seed)
    mos = mean_opinion(ratings).tolist()
    quality = to_quality(fidelity)
    photos = [
        {
            **record,
            "set": plan.split,
            "subset": plan.subset,
            "kind": plan.kind,
            "user_name": plan.uploader,
            "width": plan.width,
            "height": plan.height,
            "defects": list(plan.defects),
            "camera": plan.settings.to_dict(),
            "quality": round(float(quality[k]), 4),
            "quality_mos": mos[k],
            "ratings": ratings[k].tolist(),
        }
        for k, (plan, record) in enumerate(zip(plans, records, strict=True))
    ]
    description = {
        "title": "featbank demo set",
        "is_simulation": True,
        "statement": STATEMENT,
        "version": __version__,
        **request,
        "libraries": {name: metadata.version(name) for name in ("numpy", "scipy", "pillow")},
        "measure": "MS-SSIM**7 * min(VIF, 1)**0.3 on luma, against the flawless photo of the same scene",
        "raters": [{"bias": round(r.bias, 4), "gain": round(r.gain, 4)} for r in make_raters(seed)],
        "agreement": agreement(ratings, fidelity),
        "photos": photos,
    }
    tables = (
        (TAGS_FILE, to_csv(TAG_COLUMNS, tag_rows(plans, seed))),
        (METADATA_FILE, to_csv(COLUMNS, metadata_rows(plans, mos, seed))),
        (MARKER_FILE, json.dumps(description, indent=1) + "\n"),
    )
    for name, text in tables:
        write_file(folder / name, text, "demo")
