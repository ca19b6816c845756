"""Lists photographs without scores, from folders and single files, so that they can be scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from featbank.datasets.image_table import ImageTable, make_frame
from featbank.datasets.locate import walk_files
from featbank.errors import DatasetNotFoundError, first_few
from featbank.images.source import IMAGE_SUFFIXES
from featbank.remote import Place, RemotePath, as_place, utf8_name

PHOTOS_NAME = "photos"

_TABLE_SUFFIXES = frozenset(
    {".csv", ".tsv", ".txt", ".xlsx", ".xls", ".json", ".toml", ".md", ".html", ".pdf"}
)


def is_image_name(path: Place) -> bool:
    """Tell by the ending alone whether a file is listed as an image."""
    return path.suffix.casefold() in IMAGE_SUFFIXES


def read_photos(paths: Sequence[str | Place]) -> ImageTable:
    """List the images in folders, with all their sub-folders, and single files.

    Folders are walked in the order of names. Files and folders whose names begin with a point are hidden ones, and are
    passed over; every other file is listed, or counted and named in the notes. A file named directly is listed
    whatever its ending.

    Parameters
    ----------
    paths : sequence of str, Path or RemotePath
        Folders and files, also by their URL in a store.

    Returns
    -------
    ImageTable
        Named ``photos``; MOS, split, subset and group unknown. With one folder, ``image_id`` is the path below it
        (with ``/``); otherwise the path as given; spelled by `featbank.remote.utf8_name`.

    Raises
    ------
    DatasetNotFoundError
        If a path does not exist, or no image is found.
    DatasetError
        If a folder cannot be listed.
    StoreError
        If a store cannot be reached or refuses.
    """
    places = [as_place(path) for path in paths]
    one_folder = len(places) == 1 and places[0].is_dir()
    found: dict[str, str] = {}
    others: list[str] = []
    n_again = 0
    for given in places:
        if not given.exists():
            raise DatasetNotFoundError(f"no file or folder at {utf8_name(given)}.")
        folder = given.absolute()
        files = walk_files(folder) if given.is_dir() else [folder]
        for file in files:
            below = _below(file, folder)
            if given.is_dir() and not is_image_name(file):
                others.append(utf8_name(below))
            elif str(file) in found:
                n_again += 1
            else:
                found[str(file)] = utf8_name(below if one_folder else (given / below).as_posix())
    notes = []
    if others:
        # Tables and texts are expected beside photographs: what could be one is named first.
        others.sort(key=lambda name: PurePath(name).suffix.casefold() in _TABLE_SUFFIXES)
        left_out = (
            "1 file was left out, not an image by its ending"
            if len(others) == 1
            else f"{len(others):,} files were left out, not images by their ending"
        )
        notes.append(f"{left_out}: {first_few(others)}.")
    if n_again:
        notes.append(f"{n_again:,} file(s) named several times are listed once.")
    if not found:
        where = ", ".join(utf8_name(path) for path in paths)
        raise DatasetNotFoundError(
            f"no images in {where or 'nothing'} or its sub-folders; looked for files ending in "
            f"{' '.join(sorted(IMAGE_SUFFIXES))}, in any case, hidden ones left out. {' '.join(notes)}".rstrip()
        )
    first = places[0].absolute()
    return ImageTable(
        name=PHOTOS_NAME,
        root=first if first.is_dir() else first.parent,
        frame=make_frame(
            {"image_id": list(found.values()), "path": list(found), "mos": np.full(len(found), np.nan)}
        ),
        mos_range=(math.nan, math.nan),
        notes=tuple(notes),
        names_in=str(first if one_folder else Path.cwd()),
    )


def _below(file: Place, folder: Place) -> str:
    if isinstance(file, RemotePath) and isinstance(folder, RemotePath):
        return file.relative_to(folder).as_posix()
    return PurePath(str(file)).relative_to(str(folder)).as_posix()
