"""What a published dataset is: where its files lie, what its columns mean, and one way to read them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import SPLIT_WORDS, SPLITS, SUBSETS, ImageTable, make_frame, range_of
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import TextTable, read_any, read_apart
from featbank.errors import DatasetError, DatasetNotFoundError
from featbank.remote import Place, read_regular

Columns = dict[str, Sequence[str] | NDArray[np.float64]]
Range = tuple[float, float]


class DatasetInfo(NamedTuple):
    """One line of ``featbank list datasets``."""

    name: str
    title: str
    n_images: int | None
    licence: str
    reference: str
    marker: str


@dataclass(frozen=True)
class Source:
    """Where one dataset was found.

    Parameters
    ----------
    metadata : Path or RemotePath
        The file with the scores.
    root : Path or RemotePath
        The dataset's folder.
    images : Path, RemotePath or None
        Folder of the images if the user named one; by default they are looked for under `root`.
    mos, encoding : str
        Column of the scores, and encoding of a text, if the user named one.
    """

    metadata: Place
    root: Place
    images: Place | None = None
    mos: str = ""
    encoding: str = ""


def rows_of(path: Place, columns: dict[str, list[str]], lines: Sequence[int] | None = None) -> TextTable:
    """Make a table of columns of equal length; ``lines`` count from 1 by default."""
    return TextTable(path, columns, lines or range(1, len(next(iter(columns.values()))) + 1))


def read_table(source: Source) -> TextTable:
    """Read a table of scores, of the kind that its ending says; delimited text where it says none."""
    return read_any(source.metadata, encoding=source.encoding)


@dataclass(frozen=True)
class Release:
    """A published dataset: how it is recognised, and what its files mean.

    Parameters
    ----------
    name, title, licence, reference : str
        Short name, full name, terms of use as the dataset states them, paper to cite.
    n_images : int or None
        Published number of images; None where it differs from copy to copy.
    mos_range : tuple of two floats, or None
        Nominal MOS scale, worst first; None for the range of the scores, where the release names no scale.
    markers : tuple of str
        Metadata files relative to the root, most complete first, compared without regard to case.
    image : str
        Column with the names of the images.
    mos : tuple of str
        Columns with the MOS, higher is better; the first that a file has is read. Empty for images without scores.
    turned_at : float or None
        Where that column is a DMOS, lower is better: the DMOS that becomes MOS 0.
    header : frozenset of str
        Columns by which a metadata file is recognised when it is named directly or was renamed.
    folders : tuple of str
        Folders of the images, first choice first. All images are taken from one of them: releases come in several
        sizes side by side, and filling gaps of one from another would mix them. ``{split}`` stands for the image's
        own split, ``{folder}`` for its cell in the column ``folder``; such folders are tried for every image.
    is_scattered : bool
        Whether the images lie in several of the folders, so that all are tried for every image.
    split, subset, group : str
        Columns; without a column of that name the table has none.
    required : tuple of str
        Of these, the columns without which a file is refused.
    has_sizes : bool
        Whether the release holds every image in several sizes, so that the notes must say which one was taken.
    group_of : callable
        Turns a cell of the column ``group`` into the group.
    notes : tuple of str
        What a user should know of every copy.
    read_rows : callable
        Turns a `Source` into a `TextTable`.
    tells : callable, optional
        Tells whether a file with the name of a marker is this release's, where other files may have that name.
    refine : callable, optional
        Called with this release, the rows, the columns found and the notes, both of which it may change; may return
        the MOS scale of this file.
    """

    name: str
    title: str
    n_images: int | None
    licence: str
    reference: str
    mos_range: Range | None
    markers: tuple[str, ...]
    image: str
    mos: tuple[str, ...]
    turned_at: float | None = None
    header: frozenset[str] = frozenset()
    folders: tuple[str, ...] = (".",)
    is_scattered: bool = False
    split: str = ""
    subset: str = ""
    group: str = ""
    required: tuple[str, ...] = ()
    has_sizes: bool = False
    group_of: Callable[[str], str] = str
    notes: tuple[str, ...] = ()
    read_rows: Callable[[Source], TextTable] = read_table
    tells: Callable[[Place], bool] | None = None
    refine: Callable[[TextTable, Columns, list[str]], Range | None] | None = None

    def info(self) -> DatasetInfo:
        """Return the public description."""
        marker = " or ".join(self.markers)
        return DatasetInfo(self.name, self.title, self.n_images, self.licence, self.reference, marker)

    def read(self, source: Source) -> ImageTable:
        """Read the scores and find the images.

        Returns
        -------
        ImageTable
            With the release's splits, subsets and groups where this copy has them.

        Raises
        ------
        DatasetError
            If a column is missing, a word of a split is unknown, a score is no number, or names do not fit.
        """
        table = self.read_rows(source)
        scores = [source.mos] if source.mos else list(self.mos[-1:])
        table.require((self.image, *scores, *self.required))
        names = table.unique(self.image)
        used = source.mos or next((column for column in self.mos if column in table.columns), "")
        mos = table.numbers(used) if used else np.full(len(names), np.nan)
        columns: Columns = {"image_id": names, "mos": mos}
        notes: list[str] = []
        if self.split and self.split in table.columns:
            columns["split"] = table.words(self.split, [split for split in SPLITS if split], SPLIT_WORDS)
        if self.subset and self.subset in table.columns:
            columns["subset"] = table.words(self.subset, SUBSETS)
        if self.group and self.group in table.columns:
            columns["group"] = [self.group_of(cell) for cell in table.columns[self.group]]
        columns["path"] = self._find(source, table, columns, notes)
        mos_range = None
        if not used:
            notes.append(
                f"{self.title} has no scores: its images can be scored, but nothing can be fitted on them."
            )
        if used in self.mos and self.turned_at is not None:
            columns["mos"] = self.turned_at - mos
            notes.append(f"MOS is {self.turned_at:g} minus the DMOS of the release, where lower is better.")
        if source.mos and source.mos not in self.mos:
            mos_range = range_of(columns["mos"])
            notes.append(f"MOS is the column {source.mos!r}, as asked for.")
        elif self.refine:
            mos_range = self.refine(table, columns, notes)
        if self.n_images not in (None, len(names)):
            notes.append(f"The release has {self.n_images:,} images, this copy lists {len(names):,}.")
        return ImageTable(
            name=self.name,
            root=source.root,
            frame=make_frame(columns),
            mos_range=mos_range or self.mos_range or range_of(columns["mos"]),
            notes=(*self.notes, *table.notes(), *notes),
            licence=self.licence,
            reference=self.reference,
            extra=table.without((self.image, used, self.split, self.subset)),
        )

    def _find(self, source: Source, table: TextTable, columns: Columns, notes: list[str]) -> list[str]:
        """Return the path of every image, and note where they were found."""
        names = table.columns[self.image]
        finder = ImageFinder(source.images or source.root)
        if self.is_scattered or any("{" in folder for folder in self.folders):
            empty = [""] * len(names)
            own = zip(columns.get("split", empty), table.columns.get("folder", empty), strict=True)
            places = [
                tuple(text.format(split=split, folder=folder) for text in self.folders)
                for split, folder in own
            ]
            paths = finder.locate(names, places)
        else:
            home = finder.home(names, self.folders)
            paths = finder.locate(names, [(home or self.folders[0],)] * len(names), anywhere=home is None)
            if home is not None and self.has_sizes:
                notes.append(f"Images are taken from {finder.entry(home)}.")
        notes += finder.notes()
        return paths


_MAX_MAT_BYTES = 1 << 24


def mat_variable(path: Place, name: str) -> tuple[str, list[Any]]:
    """Return the type and the values of a variable, read by another process: a damaged MAT file may end it."""
    try:
        data = read_regular(path, _MAX_MAT_BYTES, DatasetError)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"no file at {path}.") from error
    answer = read_apart("featbank.apart:read_variable", path, data, name)
    if "refused" in answer:
        raise DatasetError(f"{path} is not a MATLAB file of version 7 or older: {answer['refused']}.")
    if "found" in answer:
        raise DatasetError(f"{path} must hold the variable {name!r}, got {answer['found']}.")
    return answer["type"], answer["values"]
