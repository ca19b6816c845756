"""Reads KonIQ-10k: photos from Flickr with crowd-sourced scores and an official split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import SPLITS, ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import read_delimited

_REQUIRED = ("image_name", "MOS")
_FOLDERS = ("1024x768", "512x384", "images", "koniq10k_1024x768", "koniq10k_512x384", ".")
_CATEGORY_RANGE = (1.0, 5.0)


def read_koniq10k(source: Source) -> ImageTable:
    """Read KonIQ-10k's scores and, where the file has it, the official split.

    Two files were published. ``koniq10k_distributions_sets.csv`` has the official ``set`` (7,058 training, 1,000
    validation, 2,015 test); its ``MOS`` is on the scale 1 to 100. The earlier
    ``koniq10k_scores_and_distributions.csv`` has no ``set``; there ``MOS`` is the mean of the five categories
    (1 to 5), and ``MOS_zscore`` is what the later file calls ``MOS``. We always read the scale 1 to 100 where the
    file has it, so that both files give the same scores, and say which column it was in the notes.

    The release holds each image in two sizes. All images are taken from one folder, the larger size first;
    gaps are not filled from the other size. Name the folder (``images``) to use another.

    Parameters
    ----------
    source : Source
        Metadata file and folders.

    Returns
    -------
    ImageTable
        MOS in [1, 100]; in [1, 5] if the file has only the category means. No groups: KonIQ-10k does not publish
        uploaders.

    Raises
    ------
    DatasetError
        If a column is missing, a split word is unknown, or a score is no number.

    References
    ----------
    .. [1] V. Hosu, H. Lin, T. Sziranyi, D. Saupe, "KonIQ-10k: An Ecologically Valid Database for Deep Learning of
       Blind Image Quality Assessment", IEEE Transactions on Image Processing 29, 2020, section IV.
    """
    table = read_delimited(source.metadata)
    table.require(_REQUIRED)
    names = table.unique("image_name")
    finder = ImageFinder(source.base)
    home = finder.home(names, _FOLDERS)
    paths = finder.locate(names, [(home or _FOLDERS[0],)] * len(names), anywhere=home is None)
    columns: dict[str, list[str] | NDArray[np.float64]] = {"image_id": names, "path": paths}
    notes: list[str] = []
    if home is not None:
        notes.append(f"Images are taken from {finder.entry(home)}.")
    mos_range = LAYOUT.mos_range
    if "MOS_zscore" in table.columns:
        mos = table.numbers("MOS_zscore")
        notes.append(
            "MOS is the column 'MOS_zscore' (scale 1 to 100), as in the file with the official split."
        )
    else:
        mos = table.numbers("MOS")
        known = mos[np.isfinite(mos)]
        # The two scales overlap between 1 and 5, yet no copy of the data stays below 5 on the scale to 100.
        if len(known) and known.max() <= _CATEGORY_RANGE[1]:
            mos_range = _CATEGORY_RANGE
            notes.append("MOS is the mean of the five rating categories (scale 1 to 5).")
    columns["mos"] = mos
    if "set" in table.columns:
        columns["split"] = table.words("set", [split for split in SPLITS if split])
    else:
        notes.append(
            "This file has no official split (column 'set'): use koniq10k_distributions_sets.csv to compare results."
        )
    return LAYOUT.table(source, columns, notes=[*notes, *finder.notes()], mos_range=mos_range)


LAYOUT = Layout(
    name="koniq-10k",
    title="KonIQ-10k",
    n_images=10073,
    licence="photos from YFCC100M under Creative Commons; terms at database.mmsp-kn.de",
    reference="Hosu, Lin, Sziranyi, Saupe 2020, IEEE TIP 29",
    mos_range=(1.0, 100.0),
    markers=(
        "koniq10k_distributions_sets.csv",
        "metadata/koniq10k_distributions_sets.csv",
        "koniq10k_scores_and_distributions.csv",
        "koniq10k_scores_and_distributions/koniq10k_scores_and_distributions.csv",
    ),
    header=frozenset({"image_name", "c1", "c5", "MOS"}),
    read=read_koniq10k,
)
