"""Reads UHD-IQA: 4K photos with official splits, exclusive subset, uploaders and popularity figures.

Layout of the release: ``training/ validation/ test/`` with JPEGs and ``uhd-iqa-metadata.csv`` beside them; the
challenge gave out ``uhd-iqa-training-metadata.csv``, which has no ``subset`` and lists training images alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import META_PREFIX, SPLITS, SUBSETS, ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import TextTable, read_delimited
from featbank.errors import DatasetError

_REQUIRED = ("image_name", "quality_mos", "set")
_LOG1P = ("views", "likes", "favorites", "downloads", "comments", "image_bytes")
_LOG = ("orig_width", "orig_height")


def read_uhd_iqa(source: Source) -> ImageTable:
    """Read the UHD-IQA metadata and find the images.

    Each image belongs into the folder of its split; images may also lie in one folder, below the root or below
    ``source.images``, and are then found by name. The group is the uploader (``user_name``): 83 % of the test
    images come from uploaders who also have training images.

    Parameters
    ----------
    source : Source
        Metadata file and folders.

    Returns
    -------
    ImageTable
        MOS in [0, 1]. The columns ``meta:log_*`` hold log(1 + x) of views, likes, favorites, downloads, comments
        and image_bytes and log(x) of orig_width and orig_height: what is known of an image without looking at it.
        A column with an empty cell is left out and named in the notes.

    Raises
    ------
    DatasetError
        If a column is missing, a split or subset word is unknown, a score is no number, or a count is negative.

    References
    ----------
    .. [1] V. Hosu, L. Agnolucci, O. Wiedemann, D. Iso, D. Saupe, "UHD-IQA Benchmark Database: Pushing the
       Boundaries of Blind Photo Quality Assessment", 2024, arXiv:2406.17472, section 3.
    """
    table = read_delimited(source.metadata)
    table.require(_REQUIRED)
    names = table.unique("image_name")
    splits = table.words("set", [split for split in SPLITS if split])
    finder = ImageFinder(source.base)
    # The challenge's archive wrapped the split folders into one more folder.
    paths = finder.locate(names, [(split, f"challenge/{split}", ".") for split in splits])
    columns: dict[str, list[str] | NDArray[np.float64]] = {
        "image_id": names,
        "path": paths,
        "mos": table.numbers("quality_mos"),
        "split": splits,
    }
    notes: list[str] = []
    if "subset" in table.columns:
        columns["subset"] = table.words("subset", SUBSETS)
    else:
        notes.append("The metadata have no column 'subset': exclusive images cannot be told apart.")
    if "user_name" in table.columns:
        columns["group"] = table.columns["user_name"]
    else:
        notes.append(
            "The metadata have no column 'user_name': images of one uploader cannot be kept together."
        )
    meta, left_out = _popularity(table)
    columns.update(meta)
    return LAYOUT.table(source, columns, notes=[*notes, *left_out, *finder.notes()])


def _popularity(table: TextTable) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Return the ``meta:*`` columns and a note for each that is incomplete."""
    columns: dict[str, NDArray[np.float64]] = {}
    notes: list[str] = []
    for name in (*_LOG1P, *_LOG):
        if name not in table.columns:
            continue
        values = table.numbers(name)
        n_unknown = int(np.isnan(values).sum())
        if n_unknown:
            notes.append(f"Column {name!r} is empty for {n_unknown:,} image(s) and is left out.")
            continue
        lowest = 0.0 if name in _LOG1P else 1.0
        wrong = np.flatnonzero(values < lowest)
        if len(wrong):
            raise DatasetError(
                f"{table.path}: column {name!r} must be at least {lowest:g}, got {values[wrong[0]]:g} in line "
                f"{table.lines[wrong[0]]}."
            )
        columns[f"{META_PREFIX}log_{name}"] = np.log1p(values) if name in _LOG1P else np.log(values)
    return columns, notes


LAYOUT = Layout(
    name="uhd-iqa",
    title="UHD-IQA benchmark database",
    n_images=6073,
    licence="photos from Pixabay under CC0; terms of the scores at database.mmsp-kn.de",
    reference="Hosu, Agnolucci, Wiedemann, Iso, Saupe 2024, arXiv:2406.17472",
    mos_range=(0.0, 1.0),
    markers=(
        "uhd-iqa-metadata.csv",
        "uhd-iqa-metadata/uhd-iqa-metadata.csv",
        "uhd-iqa-training-metadata.csv",
    ),
    header=frozenset(_REQUIRED),
    read=read_uhd_iqa,
)
