"""Recognises which dataset lies at a path and reads it: a published one, a CSV of one's own, a folder of photos."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import META_PREFIX, SPLITS, SUBSETS, ImageTable, make_frame
from featbank.datasets.locate import (
    PHOTOS_NAME,
    ImageFinder,
    is_folder,
    is_image_name,
    list_folder,
    read_photos,
)
from featbank.datasets.releases import (
    DEMO,
    DEMO_MARKER,
    UHD_IQA,
    DatasetInfo,
    Release,
    Source,
    known_releases,
)
from featbank.datasets.text import TextTable, read_delimited, read_header
from featbank.errors import DatasetError, DatasetNotFoundError
from featbank.images.source import IMAGE_SUFFIXES
from featbank.remote import Place, RemotePath, as_place, is_url, utf8_name

CSV_NAME = "csv"
_OWN = (
    DatasetInfo(CSV_NAME, "Own scores", None, "", "", "a CSV with path,mos[,split,subset,group]"),
    DatasetInfo(PHOTOS_NAME, "Folder of photos, without scores", None, "", "", "a folder of images"),
)
_TEXT_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})
# Sub-folders that are looked into for a hint; a photo library may have thousands.
_MAX_HINT_FOLDERS = 100


def list_datasets() -> list[DatasetInfo]:
    """List every layout that can be read.

    Returns
    -------
    list of DatasetInfo
        Name, title, published number of images (None where it varies), licence, reference, and the marker by
        which the dataset is recognised.
    """
    return [*(release.info() for release in known_releases()), *_OWN]


def read_dataset(path: str | Place, *, images: str | Place | None = None) -> ImageTable:
    """Read the dataset at a path, whatever its layout.

    Parameters
    ----------
    path : str, Path or RemotePath
        A dataset folder in a published layout (recognised by its metadata file), the metadata file itself, an own
        CSV with ``path,mos``, a folder of photos, or one photo; or the URL of any of these in a store, such as
        ``s3://bucket/photos``.
    images : str, Path or RemotePath, optional
        Folder of the images, where they do not lie in the dataset's own folder.

    Returns
    -------
    ImageTable
        One row per image of the metadata, whether or not its file is there.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there, or nothing that is a dataset; the message says what was looked for, and where.
    DatasetError
        If several datasets lie in one folder, or the files contradict their layout.
    StoreError
        If a store cannot be reached or refuses.

    Examples
    --------
    >>> read_dataset("datasets/uhd-iqa").counts()  # doctest: +SKIP
    {'training': 4269, 'validation': 904, 'validation/exclusive': 304, 'test': 900, 'test/exclusive': 300}
    """
    place = _existing(path, "read_dataset")
    folder = None if images is None else _existing(images, "read_dataset: images")
    if folder is not None and not folder.is_dir():
        raise DatasetNotFoundError(f"read_dataset: images must be a folder, got the file {folder}.")
    if place.is_dir():
        return _read_folder(place, folder)
    return _read_file(place, folder)


def _existing(path: str | Place, who: str) -> Place:
    found = as_place(path)
    if isinstance(found, RemotePath):
        if not found.exists():
            raise DatasetNotFoundError(f"{who}: no object at {found}, and none below it.")
        return found
    given = found.expanduser()
    if not given.exists():
        parent = next((folder for folder in given.absolute().parents if folder.is_dir()), None)
        raise DatasetNotFoundError(
            f"{who}: no file or folder at {str(path)!r}"
            + (f"; the path exists up to {parent}." if parent else ".")
        )
    place = given.resolve()
    try:
        str(place).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{who}: the path {str(place)!a} is not valid UTF-8; rename that folder."
        ) from error
    return place


def _find_releases(folder: Place) -> list[tuple[Release, Place]]:
    """Return the published releases whose marker is in a folder, with the marker."""
    finder = ImageFinder(folder)
    found: list[tuple[Release, Place]] = []
    for release in known_releases():
        for marker in release.markers:
            metadata = finder.entry(marker)
            if metadata is not None and metadata.is_file():
                found.append((release, metadata))
                break
    if any(release is DEMO for release, _ in found):
        # The demo set brings UHD-IQA's metadata file as its own.
        found = [(release, metadata) for release, metadata in found if release is not UHD_IQA]
    return found


def _read_folder(folder: Place, images: Place | None) -> ImageTable:
    found = _find_releases(folder)
    if len(found) > 1:
        spelled = ", ".join(f"{release.title} ({metadata})" for release, metadata in found)
        raise DatasetError(
            f"{folder} holds several datasets: {spelled}. Name the metadata file of the one to be read."
        )
    if found:
        release, metadata = found[0]
        return release.read(Source(metadata, folder, images))
    hints = _hints(folder)
    if images is not None:
        raise DatasetNotFoundError(
            f"read_dataset: {folder} holds no metadata that could go with images={str(images)!r}. "
            f"{_looked_for(folder)} {' '.join(hints)}".rstrip()
        )
    try:
        table = read_photos([folder])
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"no dataset in {folder}. {_looked_for(folder)} Nor is there, in it or its sub-folders, an image ending in "
            f"{' '.join(sorted(IMAGE_SUFFIXES))}. {' '.join(hints)}".rstrip()
        ) from error
    notes = ("No scores: a plain folder of photos.", *hints, *table.notes)
    return replace(table, root=folder, notes=notes)


def _looked_for(folder: Place) -> str:
    markers = "; ".join(f"{' or '.join(release.markers)} ({release.title})" for release in known_releases())
    return f"Looked in {folder} for {markers}."


def _hints(folder: Place) -> list[str]:
    """Say what near by could have been meant: a dataset one level below, a CSV beside the photos."""
    hints: list[str] = []
    entries = [entry for entry in list_folder(folder) if not entry.name.startswith(".")]
    for entry in [entry for entry in entries if is_folder(entry)][:_MAX_HINT_FOLDERS]:
        for release, metadata in _find_releases(folder / entry.name):
            hints.append(
                f"{utf8_name(metadata.parent)} holds {release.title}: give {utf8_name(folder / entry.name)} to read it "
                "with its scores."
            )
    tables = [
        utf8_name(entry.name)
        for entry in entries
        if PurePosixPath(entry.name).suffix.casefold() == ".csv" and not is_folder(entry)
    ]
    if tables:
        hints.append(f"Not read: {', '.join(tables[:5])}. Give a CSV itself to read its scores.")
    return hints


def _read_file(path: Place, images: Place | None) -> ImageTable:
    suffix = path.suffix.casefold()
    if suffix in _TEXT_SUFFIXES:
        header = read_header(path)
        for release in known_releases():
            # Recognised by its columns, so a renamed metadata file is read as what it is.
            if release.header and release.header <= header:
                return _read_metadata(release, path, images)
        if "path" in {name.casefold() for name in header}:
            return read_plain_csv(path, images=images)
    for release in known_releases():
        if any(path.name.casefold() == marker.rpartition("/")[2].casefold() for marker in release.markers):
            return _read_metadata(release, path, images)
    if suffix in _TEXT_SUFFIXES:
        return read_plain_csv(path, images=images)
    if is_image_name(path):
        return read_photos([path])
    files = {marker.rpartition("/")[2] for release in known_releases() for marker in release.markers}
    raise DatasetError(
        f"read_dataset: {path} is no dataset. Expected a folder, a CSV with path,mos, an image, or one of the metadata "
        f"files {', '.join(sorted(files))}."
    )


def _read_metadata(release: Release, metadata: Place, images: Place | None) -> ImageTable:
    root = _root_of(release, metadata)
    if release is UHD_IQA and (root / DEMO_MARKER).is_file():
        # The demo set's scores, named directly, are still a simulation.
        release, metadata = DEMO, root / DEMO_MARKER
    return release.read(Source(metadata, root, images))


def _root_of(release: Release, metadata: Place) -> Place:
    """Return the dataset folder, given the metadata file inside it, which may lie in a folder of its own."""
    for marker in release.markers:
        parts = [part.casefold() for part in marker.split("/")]
        if [part.casefold() for part in metadata.parts[-len(parts) :]] == parts and len(parts) > 1:
            return metadata.parents[len(parts) - 1]
    return metadata.parent


_USED = ("path", "image_name", "mos", "dmos", "split", "subset", "group")


def read_plain_csv(path: str | Place, *, images: str | Place | None = None) -> ImageTable:
    """Read a CSV that its user wrote.

    The header names the columns, in any case and order:

    - ``path``: absolute, a URL, or relative to `images`, by default to the CSV's folder. It may point anywhere, ``..``
      included: whoever wrote the CSV chose it. The text as written is the ``image_id``, unless ``image_name`` is
      there too.
    - ``image_name``: instead of ``path``, a name to be found below that folder; here the rules of published
      metadata hold, and a name that leads out of the folder is refused.
    - ``mos``: higher is better, on any scale, empty where unknown. Or ``dmos``, lower is better: MOS is then its
      negative, which keeps distances and does not depend on which images are in the file.
    - ``split`` (training, validation, test or empty), ``subset`` (exclusive or empty), ``group``: optional.
    - ``meta:<name>``: optional numbers known without looking at the image.

    Files may be missing: features of them may have been brought from elsewhere.

    Parameters
    ----------
    path : str, Path or RemotePath
        The CSV, separated by commas, semicolons or tabs.
    images : str, Path or RemotePath, optional
        Folder to which names and relative paths refer.

    Returns
    -------
    ImageTable
        Named ``csv:`` and the file's stem, for people alone: who its images are, `ImageTable.full_names` says.
        ``mos_range`` is the range of the scores, because the file does not state its scale.

    Raises
    ------
    DatasetNotFoundError
        If there is no such file.
    DatasetError
        If no column names the images, an image is listed twice, or a value is of the wrong kind.
    """
    path = as_place(path)
    table = read_delimited(path, fold_header=True)
    base = as_place(images) if images is not None else path.parent
    base = base.resolve()
    notes: list[str] = []
    columns: dict[str, list[str] | NDArray[np.float64]] = {}
    columns["image_id"], columns["path"] = _images(table, base, notes)
    columns["mos"] = _scores(table, notes)
    if "split" in table.columns:
        columns["split"] = table.words("split", SPLITS)
    if "subset" in table.columns:
        columns["subset"] = table.words("subset", SUBSETS)
    if "group" in table.columns:
        columns["group"] = table.columns["group"]
    for name in table.columns:
        if name.startswith(META_PREFIX):
            columns[name] = table.numbers(name)
    unused = [name for name in table.columns if name not in _USED and not name.startswith(META_PREFIX)]
    if unused:
        notes.append(f"Columns not used: {', '.join(unused)}.")
    known = np.asarray(columns["mos"])[np.isfinite(columns["mos"])]
    mos_range = (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)
    return ImageTable(
        name=f"{CSV_NAME}:{path.stem}",
        root=path.resolve().parent,
        frame=make_frame(columns),
        mos_range=mos_range,
        notes=tuple(notes),
        names_in=str(base),
    )


def _images(table: TextTable, base: Place, notes: list[str]) -> tuple[list[str], list[str]]:
    if "path" in table.columns:
        written = table.unique("path")
        names = table.unique("image_name") if "image_name" in table.columns else written
        paths = [_absolute(text, str(base)) for text in written]
        _check_one_row_per_file(table, paths)
        return names, paths
    if "image_name" in table.columns:
        names = table.unique("image_name")
        finder = ImageFinder(base)
        paths = finder.locate(names, [(".",)] * len(names))
        notes.extend(finder.notes())
        return names, paths
    raise DatasetError(
        f"{table.path} needs a column 'path' (or 'image_name') and a column 'mos', its columns are "
        f"{', '.join(map(repr, list(table.columns)[:20]))}. Rename the one that names the image files."
    )


def _absolute(text: str, base: str) -> str:
    if "://" in text and (is_url(text) or text[:7].lower() == "file://"):
        return str(as_place(text))
    # A Path for each of a million rows would take most of the time of reading them; most need none of its care.
    if os.sep == "/" and not (text.startswith("~/") or "./" in text or "//" in text or text.endswith("/")):
        return text if text.startswith("/") else f"{base}/{text}"
    # Only this form is the home folder: "~name" is a legal file name.
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    return str(path if path.is_absolute() else as_place(base) / path.as_posix())


def _check_one_row_per_file(table: TextTable, paths: list[str]) -> None:
    first: dict[str, int] = {}
    for line, path in zip(table.lines, paths, strict=True):
        if path in first:
            raise DatasetError(
                f"{table.path}: lines {first[path]} and {line} name one file, {path}. Keep one row per image; average "
                "scores given several times."
            )
        first[path] = line


def _scores(table: TextTable, notes: list[str]) -> NDArray[np.float64]:
    if "mos" in table.columns:
        if "dmos" in table.columns:
            notes.append("The column 'dmos' is not used, because 'mos' is there too.")
        return table.numbers("mos")
    if "dmos" in table.columns:
        notes.append("MOS is the negative of the column 'dmos', where lower is better.")
        # 0 - x rather than -x: an undistorted image with DMOS 0 gets 0, not minus zero.
        return 0.0 - table.numbers("dmos")
    notes.append("There is no column 'mos': these images can be scored, but nothing can be fitted on them.")
    return np.full(len(table), np.nan)
