"""Recognises which dataset lies at a path and reads it: a published one, a CSV of one's own, a folder of photos."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import (
    META_PREFIX,
    SPLIT_WORDS,
    SPLITS,
    SUBSETS,
    WEIGHTS,
    ImageTable,
    make_frame,
    range_of,
)
from featbank.datasets.locate import (
    PHOTOS_NAME,
    ImageFinder,
    is_folder,
    is_image_name,
    list_folder,
    name_inside,
    read_photos,
)
from featbank.datasets.release import DatasetInfo, Release, Source
from featbank.datasets.releases import DEMO, DEMO_MARKER, UHD_IQA, known_releases
from featbank.datasets.text import TABLE_SUFFIXES, TextTable, read_any, read_header
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.images.source import IMAGE_SUFFIXES
from featbank.remote import Place, RemotePath, as_place, is_url, utf8_name

CSV_NAME = "csv"
_OWN = (
    DatasetInfo(
        CSV_NAME,
        "Own scores",
        None,
        "",
        "",
        "a table (CSV, XLSX, Parquet, ...) with path,mos[,split,subset,group]",
    ),
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


def read_dataset(
    path: str | Place,
    *,
    images: str | Place | None = None,
    columns: Mapping[str, str] | None = None,
    mos: str = "",
    encoding: str = "",
) -> ImageTable:
    """Read the dataset at a path, whatever its layout.

    Parameters
    ----------
    path : str, Path or RemotePath
        A dataset folder in a published layout (recognised by its metadata file), the metadata file itself, an own
        table with ``path,mos`` (see `read_plain_csv`), a folder of photos, or one photo; or the URL of any of these
        in a store, such as ``s3://bucket/photos``.
    images : str, Path or RemotePath, optional
        Folder of the images, where they do not lie in the dataset's own folder.
    columns : mapping of str to str, optional
        Which columns of an own table are meant, by what they hold: ``{"image": "img_name", "group": "photographer"}``.
    mos : str
        Column of the scores, where a table has several.
    encoding : str
        Of a table in text, where it is not UTF-8.

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
    if columns and place.is_dir():
        raise DatasetError(f"read_dataset: --columns goes with a table of one's own, got the folder {place}.")
    if columns:
        table = read_plain_csv(place, images=folder, columns=columns, mos=mos, encoding=encoding)
    elif place.is_dir():
        table = _read_folder(place, folder, mos, encoding)
    else:
        table = _read_file(place, folder, mos, encoding)
    asked = {
        "images": folder and str(folder),
        "columns": dict(columns or {}),
        "mos": mos,
        "encoding": encoding,
    }
    table.asked.update(path=str(place), **{name: value for name, value in asked.items() if value})
    return table


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
            if (
                metadata is not None
                and metadata.is_file()
                and (release.tells is None or release.tells(metadata))
            ):
                found.append((release, metadata))
                break
    if any(release is DEMO for release, _ in found):
        # The demo set brings UHD-IQA's metadata file as its own.
        found = [(release, metadata) for release, metadata in found if release is not UHD_IQA]
    return found


def _read_folder(folder: Place, images: Place | None, mos: str, encoding: str) -> ImageTable:
    found = _find_releases(folder)
    if len(found) > 1:
        spelled = ", ".join(f"{release.title} ({metadata})" for release, metadata in found)
        raise DatasetError(
            f"{folder} holds several datasets: {spelled}. Name the metadata file of the one to be read."
        )
    if found:
        release, metadata = found[0]
        return release.read(Source(metadata, folder, images, mos, encoding))
    below = _one_below(folder)
    if below is not None:
        release, metadata = below
        root = _root_of(release, metadata)
        table = release.read(Source(metadata, root, images, mos, encoding))
        return replace(table, notes=(f"Read from {utf8_name(root)}, the one dataset there.", *table.notes))
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


def _one_below(folder: Place) -> tuple[Release, Place] | None:
    """Find the one dataset below a folder that holds neither photos nor tables; None where there are several."""
    entries = [entry for entry in list_folder(folder) if not entry.name.startswith(".")]
    folders = [entry.name for entry in entries if is_folder(entry)]
    suffixes = {PurePosixPath(entry.name).suffix.casefold() for entry in entries if entry.name not in folders}
    if suffixes & (IMAGE_SUFFIXES | TABLE_SUFFIXES - {".txt"}) or len(folders) > _MAX_HINT_FOLDERS:
        return None
    found = [pair for name in folders for pair in _find_releases(folder / name)]
    return found[0] if len(found) == 1 else None


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
        if PurePosixPath(entry.name).suffix.casefold() in TABLE_SUFFIXES - {".txt"} and not is_folder(entry)
    ]
    if tables:
        hints.append(f"Not read: {', '.join(tables[:5])}. Give a table itself to read its scores.")
    return hints


def _read_file(path: Place, images: Place | None, mos: str, encoding: str) -> ImageTable:
    suffix = path.suffix.casefold()
    releases = known_releases()
    found = None
    if suffix in _TEXT_SUFFIXES:
        header = read_header(path, encoding)
        # Recognised by its columns, so a renamed metadata file is read as what it is.
        found = next((release for release in releases if release.header and release.header <= header), None)
        if found is None and "path" in {name.casefold() for name in header}:
            return read_plain_csv(path, images=images, mos=mos, encoding=encoding)
    found = found or next(
        (
            release
            for release in releases
            if any(path.name.casefold() == marker.rpartition("/")[2].casefold() for marker in release.markers)
            and (release.tells is None or release.tells(path))
        ),
        None,
    )
    if found is not None:
        root = _root_of(found, path)
        if found is UHD_IQA and (root / DEMO_MARKER).is_file():
            # The demo set's scores, named directly, are still a simulation.
            found, path = DEMO, root / DEMO_MARKER
        return found.read(Source(path, root, images, mos, encoding))
    if path.name.casefold().startswith(_META_INFO):
        return _read_meta_info(path, images, mos, encoding)
    if suffix in TABLE_SUFFIXES:
        return read_plain_csv(path, images=images, mos=mos, encoding=encoding)
    if is_image_name(path):
        return read_photos([path])
    files = {marker.rpartition("/")[2] for release in releases for marker in release.markers}
    raise DatasetError(
        f"read_dataset: {path} is no dataset. Expected a folder, a table with path,mos "
        f"({', '.join(sorted(TABLE_SUFFIXES))}), an image, or one of the metadata files {', '.join(sorted(files))}."
    )


_META_INFO = "meta_info_"
# What the columns of pyiqa's lists are called, the first of each that is there; a split is one column per list.
_META_COLUMNS = {
    "image": ("dist_name", "img_name", "img_name/patch_name", "image name"),
    "group": ("ref_name", "hq_name"),
    "mos": ("mos", "mos_zscore", "elo_score"),
    "mos_std": ("std", "mos_std"),
    "split": ("official_split", "official split", "split"),
}
_META_SPLITS = {"0": "training", "1": "validation", "2": "test", "": ""}
_META_DMOS = {"csiq", "livemd", "liveiqa"}
"""Lists whose scores are DMOS, whatever their column is called; KADID-10k's column 'dmos' is none."""


def _read_meta_info(path: Place, images: Place | None, mos: str, encoding: str) -> ImageTable:
    """Read a list ``meta_info_NAMEDataset.csv`` of pyiqa, whose columns differ from one to the other."""
    header = {name.casefold() for name in read_header(path, encoding)}
    columns = {
        what: next(name for name in names if name in header)
        for what, names in _META_COLUMNS.items()
        if header & set(names)
    }
    dataset = path.stem.casefold().removeprefix(_META_INFO).removesuffix("dataset")
    scores = columns.pop("mos", "dmos")
    columns["dmos" if dataset in _META_DMOS else "mos"] = mos.casefold() or scores
    table = read_own_table(path, columns=columns, encoding=encoding)
    if set(table.columns.get("split", [])) <= _META_SPLITS.keys():
        table.columns["split"] = [
            _META_SPLITS[cell] for cell in table.columns.get("split", [""] * len(table))
        ]
    return _own_images(table, path, images)


def _root_of(release: Release, metadata: Place) -> Place:
    """Return the dataset folder, given the metadata file inside it, which may lie in a folder of its own."""
    for marker in release.markers:
        parts = [part.casefold() for part in marker.split("/")]
        if [part.casefold() for part in metadata.parts[-len(parts) :]] == parts and len(parts) > 1:
            return metadata.parents[len(parts) - 1]
    return metadata.parent


_USED = ("path", "image_name", "mos", "dmos", "split", "subset", "group")


def read_plain_csv(
    path: str | Place,
    *,
    images: str | Place | None = None,
    columns: Mapping[str, str] | None = None,
    mos: str = "",
    encoding: str = "",
) -> ImageTable:
    r"""Read a table that its user wrote: delimited text, a workbook, Parquet, Feather or JSON lines.

    The header names the columns, in any case and order:

    - ``path``: absolute, a URL, or relative to `images`, by default to the table's folder. It may point anywhere,
      ``..`` included: whoever wrote the table chose it. The text as written is the ``image_id``, unless ``image_name``
      is there too.
    - ``image_name``: instead of ``path``, a name to be found below that folder; here the rules of published
      metadata hold, and a name that leads out of the folder is refused.
    - ``mos``: higher is better, on any scale, empty where unknown. Or ``dmos``, lower is better: MOS is then its
      negative, which keeps distances and does not depend on which images are in the file.
    - ``split`` (training, validation, test or empty; ``train`` and ``val``, too), ``subset`` (exclusive or empty),
      ``group``: optional.
    - ``mos_std``, ``n_ratings``, ``weight``: how much a MOS counts, if a recipe's ``sample_weight`` asks for one.
    - ``meta:<name>``: optional numbers known without looking at the image.

    What is not found as written is looked for with ``/`` for ``\``, in another case or Unicode form, with its ending
    added, and, under `images`, by the last parts of its path; the notes count what was found so.

    Files may be missing: features of them may have been brought from elsewhere.

    Parameters
    ----------
    path : str, Path or RemotePath
        The table.
    images : str, Path or RemotePath, optional
        Folder to which names and relative paths refer.
    columns, mos, encoding
        As of `read_dataset`.

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
    return _own_images(read_own_table(path, columns=columns, mos=mos, encoding=encoding), path, images)


def _own_images(table: TextTable, path: Place, images: str | Place | None) -> ImageTable:
    """Say what the cells of an own table mean, and find its images."""
    base = as_place(images) if images is not None else path.parent
    base = base.resolve()
    notes: list[str] = []
    found: dict[str, list[str] | NDArray[np.float64]] = {}
    found["image_id"], found["path"] = _images(table, base, notes, is_asked=images is not None)
    found["mos"] = read_mos(table, notes)
    if "split" in table.columns:
        found["split"] = table.words("split", SPLITS, SPLIT_WORDS)
    if "subset" in table.columns:
        found["subset"] = table.words("subset", SUBSETS)
    if "group" in table.columns:
        found["group"] = table.columns["group"]
    for name in table.columns:
        if name.startswith(META_PREFIX):
            found[name] = table.numbers(name)
    extra = table.without((*_USED, *found))
    unused = [name or "one without a name" for name in extra.columns if name not in WEIGHTS]
    if unused:
        notes.append(f"Columns not used: {', '.join(unused)}.")
    weights = [name for name in extra.columns if name in WEIGHTS]
    if weights:
        notes.append(f"Used only if a recipe's regression.sample_weight names it: {', '.join(weights)}.")
    return ImageTable(
        name=f"{CSV_NAME}:{path.stem}",
        root=path.resolve().parent,
        frame=make_frame(found),
        mos_range=range_of(found["mos"]),
        notes=(*table.notes(), *notes),
        names_in=str(base),
        extra=extra,
    )


def read_own_table(
    path: str | Place,
    *,
    columns: Mapping[str, str] | None = None,
    mos: str = "",
    encoding: str = "",
    further: Sequence[str] = (),
) -> TextTable:
    """Read a table of any kind, and call the columns that its user chose by what they hold.

    A column of that name that was not chosen steps back. ``further`` are names of columns that may be chosen beside
    those of a dataset; the other parameters, and errors, are those of `read_plain_csv`, which reads what the cells say.
    """
    table = read_any(as_place(path), fold_header=True, encoding=encoding)
    chosen = {("path" if name == "image" else name): column for name, column in (columns or {}).items()}
    if mos and chosen.setdefault("mos", mos) != mos:
        raise DatasetError(
            f"--mos {mos} and --columns mos={chosen['mos']} name two columns. Give one of them."
        )
    known = [name for name in (*_USED, *WEIGHTS, *further) if name != "dmos" or "mos" not in chosen]
    unknown = [name for name in chosen if name not in known and not name.startswith(META_PREFIX)]
    if unknown:
        raise DatasetError(
            f"--columns takes {', '.join(('image', *known[1:]))} and {META_PREFIX}NAME, got {first_few(unknown)}."
        )
    table.require(column.casefold() for column in chosen.values())
    if "mos" in chosen or "dmos" in chosen:
        # A direction that was chosen is not overruled by a column of the other one.
        chosen |= dict.fromkeys({"mos", "dmos"} - chosen.keys(), "")
    taken = {column.casefold() for column in chosen.values()}
    named = {name: table.columns[column.casefold()] for name, column in chosen.items() if column}
    for name, cells in table.columns.items():
        if name not in taken:
            named[f"{name} (as written)" if name in chosen else name] = cells
    said = ", ".join(
        f"{column} as {'image' if name == 'path' else name}" for name, column in chosen.items() if column
    )
    understood = [*table.understood, *([f"columns chosen: {said}"] if said else [])]
    return TextTable(table.path, named, table.lines, understood)


def _images(
    table: TextTable, base: Place, notes: list[str], *, is_asked: bool
) -> tuple[list[str], list[str]]:
    if "path" not in table.columns and "image_name" not in table.columns and "" in table.columns:
        table.columns["path"] = table.columns.pop("")
        table.understood.append("image names from the column without a name")
    column = "path" if "path" in table.columns else "image_name"
    if column not in table.columns:
        raise DatasetError(
            f"{table.path} needs a column 'path' (or 'image_name') and a column 'mos', its columns are "
            f"{', '.join(map(repr, list(table.columns)[:20]))}. Say which one names the image files with --columns "
            "image=NAME, or rename it."
        )
    written = table.unique(column)
    names = table.unique("image_name") if "image_name" in table.columns else written
    finder = ImageFinder(base, tells_case=True)
    foreign = [] if is_asked or os.name == "nt" else [text for text in written if _WINDOWS.match(text)]
    if foreign:
        raise DatasetError(
            f"{table.path}: the column {column!r} names places on a Windows machine, such as {foreign[0]!r}. Name the "
            "folder of the images here with --images DIR: they are found there by the last parts of their paths."
        )
    paths = [_find(text, finder, is_asked=is_asked, is_inside=column == "image_name") for text in written]
    notes.extend(finder.notes())
    _check_one_row_per_file(table, paths)
    return names, paths


_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def _find(text: str, finder: ImageFinder, *, is_asked: bool, is_inside: bool) -> str:
    """Return where a name of the user leads; where nothing lies there, what it may mean, else where it should lie."""
    is_windows = bool(_WINDOWS.match(text))
    is_foreign = is_windows or text.startswith(("/", "~/"))
    relative = text[3:].lstrip("\\/") if is_windows else text.lstrip("/")
    if is_inside and not (is_foreign and is_asked):
        relative = name_inside(text, finder.base)
        path = str(finder.base / relative)
    else:
        path = _absolute(text, str(finder.base))
    is_there = finder.is_there(path) and not (is_inside and "\\" in text)
    if is_there or is_url(text) or (is_foreign and not is_asked):
        return path
    by_name = is_asked or (is_inside and "/" not in relative)
    spelled = text if is_inside and "\\" in text and not is_foreign else relative
    found = finder.find(spelled, anywhere=by_name, is_foreign=is_foreign)
    if found is not None:
        return str(found)
    return str(finder.base / relative.replace("\\", "/")) if is_windows or "\\" in text else path


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


def read_mos(table: TextTable, notes: list[str]) -> NDArray[np.float64]:
    """Read the MOS, or turn the DMOS, of an own table, float64 of shape (n_rows,); notes say what was done."""
    if "mos" in table.columns:
        if "dmos" in table.columns:
            notes.append("The column 'dmos' is not used, because 'mos' is there too.")
        return table.numbers("mos")
    if "dmos" in table.columns:
        notes.append("MOS is the negative of the column 'dmos', where lower is better.")
        # 0 - x rather than -x: an undistorted image with DMOS 0 gets 0, not minus zero.
        return 0.0 - table.numbers("dmos")
    notes.append(
        "There is no column 'mos': these images can be scored, but nothing can be fitted on them. --mos COLUMN names "
        "another."
    )
    return np.full(len(table), np.nan)
