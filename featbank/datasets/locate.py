r"""Finds the files that a dataset's metadata names, and lists photographs in folders.

Names are compared exactly first, then without regard to case and Unicode form, ``\`` for ``/`` and a missing ending,
and names that are no UTF-8 as Latin-1: archives packed on another system, and tables written there, often change them.
Nothing is guessed: where two files fit one name, the reader asks; what was found otherwise than as written is counted.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import TypeAlias

import numpy as np

from featbank.datasets.image_table import ImageTable, make_frame
from featbank.datasets.text import TABLE_SUFFIXES, read_any, read_text
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.images.source import IMAGE_SUFFIXES
from featbank.remote import Place, RemoteEntry, RemotePath, as_place, utf8_name

Entry: TypeAlias = os.DirEntry[str] | RemoteEntry

MAX_DEPTH = 3
"""Levels of sub-folders in which an image is looked for by its name alone."""


def fold(name: str) -> str:
    """Return the form in which names are compared when the exact spelling is not found."""
    try:
        name.encode()
    except UnicodeEncodeError:  # an archive packed where names were Latin-1
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name).casefold()


def name_inside(name: str, base: Place) -> str:
    r"""Return an image name from a dataset's metadata as a path relative to the folder of the images.

    The check is made on the spelling, where ``\`` is read as ``/``: a name such as ``../../etc/passwd`` or an absolute
    path outside ``base`` is refused, so that metadata from elsewhere cannot make us read other files. Links inside the
    dataset folder are followed, because only its owner can have put them there.

    Raises DatasetError if the name is empty, holds a NUL character, or leads out of ``base``.
    """
    plain = name.replace("\\", "/")
    windows = PureWindowsPath(name)
    if plain.startswith("/") or windows.drive or windows.root:
        root = base.as_posix().rstrip("/") + "/"
        normal = posixpath.normpath(plain)
        plain = normal[len(root) :] if normal.startswith(root) else ".."
    plain = posixpath.normpath(plain) if plain.strip() else ""
    if not plain or plain == "." or "\0" in plain or plain.split("/")[0] == "..":
        raise DatasetError(
            f"image name {name!r} in the metadata must name a file under {base}. "
            "Metadata that points elsewhere is not followed; own photos in any place can be listed in a CSV with "
            "the columns path,mos."
        )
    return plain


class ImageFinder:
    """Looks up files below one folder; every folder is listed once, no file is opened.

    Parameters
    ----------
    base : Path or RemotePath
        Absolute folder; need not exist.
    tells_case : bool
        Whether names found in another case are counted; releases differ in it from their own lists.
    """

    def __init__(self, base: Place, *, tells_case: bool = False) -> None:
        self.base = base
        self._tells_case = tells_case
        self._elsewhere: Counter[Place] = Counter()
        self._ways: Counter[str] = Counter()
        self._listings: dict[Place, dict[str, list[Place]]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._by_name: dict[str, list[Place]] | None = None

    def entry(self, relative: str) -> Place | None:
        """Return the file or folder at a relative path, each part compared as the module describes, or None.

        Raises DatasetError if two entries differ from a part only in case, Unicode form or ending.
        """
        place = self.base
        for part in relative.split("/"):
            if part in ("", "."):
                continue
            found = self._pick(self._listing(place).get(fold(part), []), part)
            if found is None:
                return None
            place = found
        return place

    def is_there(self, path: str) -> bool:
        """Tell whether a local file exists exactly as spelled; each folder is listed once."""
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            self._names[folder] = frozenset()
            with suppress(OSError):
                self._names[folder] = frozenset(os.listdir(folder or "/"))  # noqa: PTH208 - text is faster
        return name in self._names[folder]

    def find(
        self, name: str, folders: Sequence[str] = (".",), *, anywhere: bool = True, is_foreign: bool = False
    ) -> Place | None:
        """Look an image up, and count it where it is found otherwise than as written.

        Parameters
        ----------
        name : str
            Relative path below ``folders``, which lie below the base, first choice first.
        anywhere : bool
            Whether an image in none of them may lie elsewhere below the base: one named without folders in any
            folder down to `MAX_DEPTH` levels; otherwise where the last parts of its path lead from the base.
        is_foreign : bool
            Whether the name's own folders are those of another machine: with ``anywhere``, the file that shares most
            of its last parts is taken.

        Raises DatasetError if several files fit.
        """
        relative = posixpath.normpath(name.replace("\\", "/"))
        found: Place | None = None
        tails = [relative[match.end() :] for match in re.finditer("/", relative)] if anywhere else []
        for tail in [*(posixpath.join(folder, relative) for folder in folders), *tails]:
            found = self.entry(tail)
            if found is not None:
                break
        if found is None and anywhere and (is_foreign or "/" not in relative):
            found = self._nearest(relative)
            if found is not None:
                self._elsewhere[found.parent] += 1
        elif found is not None and tail in tails and not is_foreign:
            self._ways["by the last parts of their paths"] += 1
        if found is not None:
            last = posixpath.basename(relative)
            if "\\" in name:
                self._ways["with / for \\"] += 1
            if fold(found.name) != fold(last):
                self._ways["with their ending added"] += 1
            elif self._tells_case and not found.as_posix().endswith(last):
                self._ways["in another case or Unicode form"] += 1
        return found

    def _nearest(self, relative: str) -> Place | None:
        """Return the file of that name, or the one of several whose last folders agree best."""
        last, *folders = [fold(part) for part in relative.split("/")][::-1]
        shared = {
            path: len(posixpath.commonprefix([folders, [fold(part) for part in path.parent.parts][::-1]]))
            for path in self._index().get(last, [])
        }
        best = max(shared.values(), default=0)
        return self._pick([path for path, n in shared.items() if n == best], relative)

    def home(self, names: Sequence[str], folders: Sequence[str]) -> str | None:
        """Return the first folder that holds any of the images, so that all come from one place, or None.

        Raises DatasetError if a name leads out of ``base``, or fits several files.
        """
        inside = [name_inside(name, self.base) for name in names]
        for folder in folders:
            if any(self.entry(posixpath.join(folder, name)) is not None for name in inside):
                return folder
        return None

    def locate(
        self, names: Sequence[str], places: Sequence[Sequence[str]], *, anywhere: bool = True
    ) -> list[str]:
        """Return an absolute path for every name; where nothing is found, the place where it was expected.

        ``places`` are the folders in which each image belongs, first choice first. With ``anywhere``, an image in
        none of them is looked for by its name in all folders down to `MAX_DEPTH` levels.

        Raises DatasetError if a name leads out of ``base``, or fits several files.
        """
        paths: list[str] = []
        for name, folders in zip(names, places, strict=True):
            relative = name_inside(name, self.base)
            spelled = relative if relative != posixpath.normpath(name.replace("\\", "/")) else name
            found = self.find(spelled, folders, anywhere=anywhere and "/" not in relative)
            paths.append(str(found or self.base / folders[0] / relative))
        return paths

    def notes(self) -> list[str]:
        """Say in which folders images were found by name alone, and how else names were read."""
        notes = [
            f"{count:,} image(s) found by name in {utf8_name(folder)}."
            for folder, count in sorted(self._elsewhere.items())
        ]
        if self._ways:
            ways = ", ".join(f"{count:,} {way}" for way, count in self._ways.items())
            notes.append(f"Images found by another spelling than written: {ways}.")
        return notes

    def _pick(self, candidates: list[Place], name: str) -> Place | None:
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        last = posixpath.basename(name)
        same = [path for path in candidates if fold(path.name) == fold(last)] or candidates
        exact = [path for path in same if path.name == last]
        if len(exact) == 1 or len(same) == 1:
            return (exact or same)[0]
        raise DatasetError(
            f"{name!r} fits several files: {first_few([utf8_name(path) for path in exact or candidates])}. "
            "Name the folder of the images to be used (--images), or remove the others; a guess could read "
            "another resolution."
        )

    def _listing(self, folder: Place) -> dict[str, list[Place]]:
        if folder not in self._listings:
            listing: dict[str, list[Place]] = {}
            if folder.is_dir():
                for entry in list_folder(folder):
                    _enter(listing, folder / entry.name)
            self._listings[folder] = listing
        return self._listings[folder]

    def _index(self) -> dict[str, list[Place]]:
        if self._by_name is None:
            self._by_name = {}
            if self.base.is_dir():
                for path in walk_files(self.base, max_depth=MAX_DEPTH):
                    _enter(self._by_name, path)
        return self._by_name


def _enter(listing: dict[str, list[Place]], path: Place) -> None:
    """List a file under its name, and an image under its name without ending, too."""
    listing.setdefault(fold(path.name), []).append(path)
    if path.suffix.casefold() in IMAGE_SUFFIXES:
        listing.setdefault(fold(path.stem), []).append(path)


def list_folder(folder: Place) -> list[Entry]:
    """List a folder in the order of its names.

    Raises DatasetError if the folder cannot be listed: skipping it would silently lose images.
    """
    if isinstance(folder, RemotePath):
        return list[Entry](folder.scan())
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(
            f"folder {utf8_name(folder)} cannot be listed: {error.strerror}. Images in it would be lost."
        ) from error


def walk_files(folder: Place, *, max_depth: int | None = None) -> Iterator[Place]:
    """Yield all files below a folder, sorted within each folder, hidden files and folders left out.

    Linked folders are entered, each real folder once, so that a link to a parent does not run for ever.

    Raises DatasetError if a folder cannot be listed.
    """
    yield from _walk(folder, max_depth, set())


def is_folder(entry: Entry) -> bool:
    """Tell whether an entry is a folder or leads to one; a link that leads in circles does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(folder: Place, depth: int | None, seen: set[tuple[int, int]]) -> Iterator[Place]:
    if not isinstance(folder, RemotePath):  # a store has no links that lead in circles
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
    folders: list[Place] = []
    for entry in list_folder(folder):
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            folders.append(folder / entry.name)
        else:  # pipes, and links that lead nowhere, too: they are reported, not passed over in silence
            yield folder / entry.name
    if depth is None or depth > 0:
        for sub in folders:
            yield from _walk(sub, None if depth is None else depth - 1, seen)


PHOTOS_NAME = "photos"

_TABLE_SUFFIXES = TABLE_SUFFIXES | {".xls", ".json", ".toml", ".md", ".html", ".pdf"}


def is_image_name(path: Place) -> bool:
    """Tell by the ending alone whether a file is listed as an image."""
    return path.suffix.casefold() in IMAGE_SUFFIXES


_NAME_COLUMNS = ("path", "image_name", "image", "filename", "file")


def is_list(path: str) -> bool:
    """Tell by the name whether a file is a list of images: ``-``, or one that ends as tables and texts do."""
    place = as_place(path)
    return path == "-" or (place.suffix.casefold() in TABLE_SUFFIXES and not place.is_dir())


def read_list(source: str | Place) -> list[str]:
    """Read a list of images.

    Parameters
    ----------
    source : str, Path or RemotePath
        A table with a column ``path``, ``image_name``, ``image``, ``filename`` or ``file``, else a text file with one
        path in each line; ``-`` is standard input, as text.

    Returns
    -------
    list of str
        Paths as given; one that leads nowhere from the current folder, but somewhere from the list's, is completed.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If there is no such file, or it holds no list.
    """
    if source == "-":
        return _lines_of(sys.stdin.read(), "standard input")
    place = as_place(source)
    if not place.is_file():
        raise DatasetNotFoundError(f"no list of images at {utf8_name(place)}.")
    if place.suffix.casefold() in TABLE_SUFFIXES - {".txt"}:
        table = read_any(place)
        column = next((name for name in _NAME_COLUMNS if name in table.columns), None)
        if column is None:
            raise DatasetError(
                f"list {utf8_name(place)} needs a column {', '.join(_NAME_COLUMNS[:-1])} or {_NAME_COLUMNS[-1]} with "
                f"the images, its columns are {', '.join(map(repr, list(table.columns)[:20]))}."
            )
        names = [name for name in table.columns[column] if name]
    else:
        names = _lines_of(read_text(place), utf8_name(place))
    base = place.absolute().parent
    return [
        str(base / name) if not as_place(name).exists() and (base / name).exists() else name for name in names
    ]


def _lines_of(text: str, who: str) -> list[str]:
    if "\0" in text:
        raise DatasetError(f"list {who} is no text: it holds NUL characters. Give one path in each line.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_photos(paths: Sequence[str | Place], listed: Sequence[str] = ()) -> ImageTable:
    """List the images in folders, with all their sub-folders, and single files.

    Folders are walked in the order of names. Files and folders whose names begin with a point are hidden ones, and are
    passed over; every other file is listed, or counted and named in the notes. A file named directly is listed
    whatever its ending.

    Parameters
    ----------
    paths : sequence of str, Path or RemotePath
        Folders and files, also by their URL in a store.
    listed : sequence of str
        Further ones, of which those that lead nowhere are listed, too: whoever reads them says what is missing.

    Returns
    -------
    ImageTable
        Named ``photos``; MOS, split, subset and group unknown. With one folder, ``image_id`` is the path below it
        (with ``/``); otherwise the path as given; spelled by `featbank.remote.utf8_name`.

    Raises
    ------
    DatasetNotFoundError
        If one of ``paths`` does not exist, or no image is found.
    DatasetError
        If a folder cannot be listed.
    StoreError
        If a store cannot be reached or refuses.
    """
    places = [as_place(path) for path in (*paths, *listed)]
    one_folder = len(places) == 1 and places[0].is_dir()
    found: dict[str, str] = {}
    others: list[str] = []
    n_again = 0
    for place, given in enumerate(places):
        if place < len(paths) and not given.exists():
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
        where = ", ".join(utf8_name(path) for path in places)
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
