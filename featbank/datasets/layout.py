"""What a published dataset looks like on disk; the shared last step of every reader. Opens no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from featbank.datasets.image_table import ImageTable
from featbank.remote import Place


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
    """

    metadata: Place
    root: Place
    images: Place | None = None

    @property
    def base(self) -> Place:
        """Folder under which images are looked for, and which no image name may leave."""
        return self.images or self.root


@dataclass(frozen=True)
class Layout:
    """A published layout: how it is recognised, and who reads it.

    Parameters
    ----------
    name, title, licence, reference : str
        Short name, full name, terms of use as the dataset states them, paper to cite.
    n_images : int or None
        Published number of images; None where it differs from copy to copy.
    mos_range : tuple of two floats
        Nominal MOS scale, worst first.
    markers : tuple of str
        Metadata files relative to the root, most complete first, compared without regard to case.
    header : frozenset of str
        Columns by which a metadata file is recognised when it is named directly or was renamed.
    read : callable
        Turns a `Source` into an `ImageTable`.
    """

    name: str
    title: str
    n_images: int | None
    licence: str
    reference: str
    mos_range: tuple[float, float]
    markers: tuple[str, ...]
    header: frozenset[str]
    read: Callable[[Source], ImageTable]

    def info(self) -> DatasetInfo:
        """Return the public description."""
        marker = " or ".join(self.markers)
        return DatasetInfo(self.name, self.title, self.n_images, self.licence, self.reference, marker)

    def table(
        self,
        source: Source,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        *,
        notes: Sequence[str] = (),
        mos_range: tuple[float, float] | None = None,
    ) -> ImageTable:
        """Build the checked table; columns not given are empty.

        Parameters
        ----------
        source : Source
            Where the dataset was found.
        columns : mapping of column name to n_images values
            At least ``image_id``, ``path`` and ``mos``.
        notes : sequence of str
            The reader's decisions.
        mos_range : tuple of two floats, optional
            Where this file's scale differs from the layout's usual one.

        Raises
        ------
        DatasetError
            If the columns break a rule of `ImageTable`.
        """
        return ImageTable(
            name=self.name,
            root=source.root,
            frame=make_frame(columns),
            mos_range=mos_range or self.mos_range,
            notes=(*notes, *self._count_note(len(columns["image_id"]))),
            licence=self.licence,
            reference=self.reference,
        )

    def _count_note(self, n_rows: int) -> tuple[str, ...]:
        if self.n_images is None or n_rows == self.n_images:
            return ()
        return (f"The release has {self.n_images:,} images, this copy lists {n_rows:,}.",)


def make_frame(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pd.DataFrame:
    """Arrange columns as `ImageTable` wants them, with empty text where a column is absent."""
    n_rows = len(columns["image_id"])
    paths = list(columns["path"])
    # pandas' own text type holds no undecodable bytes, which a path may have.
    is_text = all(map(_is_utf8, paths))
    frame = pd.DataFrame(
        {
            "image_id": list(columns["image_id"]),
            "path": pd.Series(paths, dtype="str" if is_text else object),
            "mos": np.asarray(columns["mos"], dtype=np.float64),
            **{name: list(columns.get(name, [""] * n_rows)) for name in ("split", "subset", "group")},
        }
    )
    for name, values in columns.items():
        if name not in frame.columns:
            frame[name] = np.asarray(values, dtype=np.float64)
    # An empty list becomes a float column; the table's columns keep their kind even without rows.
    return frame.astype(dict.fromkeys(("image_id", "split", "subset", "group"), "str"))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
