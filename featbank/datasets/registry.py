"""Recognises which dataset lies at a path and hands it to its reader; holds the list of all readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from featbank.datasets import demo, kadid10k, koniq10k, live_challenge, spaq, tid2013, uhd_iqa
from featbank.datasets.image_table import DatasetInfo, ImageTable, Layout, Source
from featbank.datasets.locate import (
    PHOTOS_NAME,
    ImageFinder,
    is_folder,
    is_image_name,
    list_folder,
    read_photos,
)
from featbank.datasets.registry import CSV_NAME, read_plain_csv
from featbank.datasets.text import read_header
from featbank.errors import DatasetError, DatasetNotFoundError
from featbank.images.source import IMAGE_SUFFIXES
from featbank.remote import Place, RemotePath, as_place, utf8_name

LAYOUTS: tuple[Layout, ...] = (
    demo.LAYOUT,
    uhd_iqa.LAYOUT,
    koniq10k.LAYOUT,
    spaq.LAYOUT,
    kadid10k.LAYOUT,
    tid2013.LAYOUT,
    live_challenge.LAYOUT,
)

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
    return [*(layout.info() for layout in LAYOUTS), *_OWN]


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


def _find_layouts(folder: Place) -> list[tuple[Layout, Place]]:
    """Return the published layouts whose marker is in a folder, with the marker."""
    finder = ImageFinder(folder)
    found: list[tuple[Layout, Place]] = []
    for layout in LAYOUTS:
        for marker in layout.markers:
            metadata = finder.entry(marker)
            if metadata is not None and metadata.is_file():
                found.append((layout, metadata))
                break
    if any(layout is demo.LAYOUT for layout, _ in found):
        # The demo set brings UHD-IQA's metadata file as its own.
        found = [(layout, metadata) for layout, metadata in found if layout is not uhd_iqa.LAYOUT]
    return found


def _read_folder(folder: Place, images: Place | None) -> ImageTable:
    found = _find_layouts(folder)
    if len(found) > 1:
        spelled = ", ".join(f"{layout.title} ({metadata})" for layout, metadata in found)
        raise DatasetError(
            f"{folder} holds several datasets: {spelled}. Name the metadata file of the one to be read."
        )
    if found:
        layout, metadata = found[0]
        return layout.read(Source(metadata, folder, images))
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
    markers = "; ".join(f"{' or '.join(layout.markers)} ({layout.title})" for layout in LAYOUTS)
    return f"Looked in {folder} for {markers}."


def _hints(folder: Place) -> list[str]:
    """Say what near by could have been meant: a dataset one level below, a CSV beside the photos."""
    hints: list[str] = []
    entries = [entry for entry in list_folder(folder) if not entry.name.startswith(".")]
    for entry in [entry for entry in entries if is_folder(entry)][:_MAX_HINT_FOLDERS]:
        for layout, metadata in _find_layouts(folder / entry.name):
            hints.append(
                f"{utf8_name(metadata.parent)} holds {layout.title}: give {utf8_name(folder / entry.name)} to read it "
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
        for layout in LAYOUTS:
            # Recognised by its columns, so a renamed metadata file is read as what it is.
            if layout.header and layout.header <= header:
                return _read_metadata(layout, path, images)
        if "path" in {name.casefold() for name in header}:
            return read_plain_csv(path, images=images)
    for layout in LAYOUTS:
        if any(path.name.casefold() == marker.rpartition("/")[2].casefold() for marker in layout.markers):
            return _read_metadata(layout, path, images)
    if suffix in _TEXT_SUFFIXES:
        return read_plain_csv(path, images=images)
    if is_image_name(path):
        return read_photos([path])
    raise DatasetError(
        f"read_dataset: {path} is no dataset. Expected a folder, a CSV with path,mos, an image, or one of the metadata "
        f"files {', '.join(sorted({marker.rpartition('/')[2] for layout in LAYOUTS for marker in layout.markers}))}."
    )


def _read_metadata(layout: Layout, metadata: Place, images: Place | None) -> ImageTable:
    root = _root_of(layout, metadata)
    if layout is uhd_iqa.LAYOUT and (root / demo.DEMO_MARKER).is_file():
        # The demo set's scores, named directly, are still a simulation.
        layout, metadata = demo.LAYOUT, root / demo.DEMO_MARKER
    return layout.read(Source(metadata, root, images))


def _root_of(layout: Layout, metadata: Place) -> Place:
    """Return the dataset folder, given the metadata file inside it, which may lie in a folder of its own."""
    for marker in layout.markers:
        parts = [part.casefold() for part in marker.split("/")]
        if [part.casefold() for part in metadata.parts[-len(parts) :]] == parts and len(parts) > 1:
            return metadata.parents[len(parts) - 1]
    return metadata.parent
