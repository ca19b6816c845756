"""Lists photographs without scores, from folders and single files, so that they can be scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from featbank.datasets._locate import walk_files
from featbank.datasets.image_table import ImageTable
from featbank.datasets.layout import make_frame
from featbank.errors import DatasetNotFoundError
from featbank.remote import Place, RemotePath, as_place

PHOTOS_NAME = "photos"

IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jxl",
        ".pgm",
        ".png",
    }
    | {".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings, in lower case, of files listed as images. Formats that cannot be decoded are listed too: they are
then recorded as unreadable with the reason, instead of being passed over in silence."""


def is_image_name(path: Place) -> bool:
    """Tell by the ending alone whether a file is listed as an image."""
    return path.suffix.casefold() in IMAGE_SUFFIXES


def read_photos(paths: Sequence[str | Place]) -> ImageTable:
    """List the images in folders, with all their sub-folders, and single files.

    Folders are walked in the order of names; hidden files and folders are left out. A file named directly is
    listed whatever its ending.

    Parameters
    ----------
    paths : sequence of str, Path or RemotePath
        Folders and files, also by their URL in a store.

    Returns
    -------
    ImageTable
        Named ``photos``; MOS, split, subset and group unknown. With one folder, ``image_id`` is the path below it
        (with ``/``); otherwise the path as given.

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
    n_other = n_again = 0
    unspeakable: list[str] = []
    for given in places:
        if not given.exists():
            raise DatasetNotFoundError(f"no file or folder at {given}.")
        folder = given.absolute()
        files = walk_files(folder) if given.is_dir() else [folder]
        for file in files:
            if given.is_dir() and not is_image_name(file):
                n_other += 1
            elif not _is_text(file):
                unspeakable.append(ascii(file.name))
            elif str(file) in found:
                n_again += 1
            else:
                below = _below(file, folder)
                found[str(file)] = below if one_folder else (given / below).as_posix()
    notes = []
    if n_other:
        notes.append(f"{n_other:,} file(s) without an image ending were left out.")
    if n_again:
        notes.append(f"{n_again:,} file(s) named several times are listed once.")
    if unspeakable:
        notes.append(
            f"{len(unspeakable):,} file(s) whose names are not valid UTF-8 were left out, rename them: "
            f"{', '.join(unspeakable[:5])}."
        )
    if not found:
        where = ", ".join(str(path) for path in paths)
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
    )


def _below(file: Place, folder: Place) -> str:
    if isinstance(file, RemotePath) and isinstance(folder, RemotePath):
        return file.relative_to(folder).as_posix()
    return PurePath(str(file)).relative_to(str(folder)).as_posix()


def _is_text(path: Place) -> bool:
    # Names in a foreign encoding reach us with lone surrogates, which neither Arrow nor a report can hold.
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
