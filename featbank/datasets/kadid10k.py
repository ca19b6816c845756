"""Reads KADID-10k: 81 photos, each with 25 distortions at 5 levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import read_delimited
from featbank.errors import DatasetError
from featbank.remote import Place

_REQUIRED = ("dist_img", "ref_img", "dmos")
_FOLDERS = ("images", "distorted_images", "dist_imgs", ".")
# Images per level from which the direction of the scores can be told beyond doubt.
_MIN_PER_LEVEL = 10


def read_kadid10k(source: Source) -> ImageTable:
    """Read KADID-10k's scores; the group is the reference image.

    The column ``dmos`` bears its name because raters saw the reference beside the image, yet it needs no turning:
    "the range of DMOS is [1 5], high value of DMOS corresponds to higher visual quality" [2]_; the published means
    fall from 4.4 at distortion level 1 to 1.4 at level 5. It is taken as MOS as it is, and refused if level 1 is
    not better than level 5, which would mean that a copy was turned already.

    Parameters
    ----------
    source : Source
        ``dmos.csv`` with the columns ``dist_img, ref_img, dmos, var``; images in ``images/``.

    Returns
    -------
    ImageTable
        MOS in [1, 5]; no official split. ``var`` is not read: a spread of ratings is not known beforehand.

    Raises
    ------
    DatasetError
        If a column is missing, a score is no number, or higher scores mean lower quality.

    References
    ----------
    .. [1] H. Lin, V. Hosu, D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019.
    .. [2] Page of the database, database.mmsp-kn.de/kadid-10k-database.html.
    """
    table = read_delimited(source.metadata)
    table.require(_REQUIRED)
    names = table.unique("dist_img")
    mos = table.numbers("dmos")
    _check_direction(names, mos, source.metadata)
    finder = ImageFinder(source.base)
    home = finder.home(names, _FOLDERS)
    paths = finder.locate(names, [(home or _FOLDERS[0],)] * len(names), anywhere=home is None)
    groups = [PurePosixPath(name).stem.upper() for name in table.columns["ref_img"]]
    notes = [
        "The column 'dmos' is taken as MOS: in KADID-10k higher values mean higher quality.",
        "KADID-10k has no official split; split by group, the images of one reference share their content.",
        *finder.notes(),
    ]
    return LAYOUT.table(source, {"image_id": names, "path": paths, "mos": mos, "group": groups}, notes=notes)


def _check_direction(names: Sequence[str], mos: NDArray[np.float64], path: Place) -> None:
    """Refuse scores that rise with the level of distortion, the last number of a name such as I01_10_05.png."""
    matches = [re.search(r"_0?([1-5])\.\w+$", name) for name in names]
    levels = np.array([int(match.group(1)) if match else 0 for match in matches])
    least = mos[(levels == 1) & np.isfinite(mos)]
    most = mos[(levels == 5) & np.isfinite(mos)]
    if min(len(least), len(most)) >= _MIN_PER_LEVEL and least.mean() <= most.mean():
        raise DatasetError(
            f"{path}: in KADID-10k's 'dmos' higher values mean higher quality, but here the strongest distortions "
            f"(mean {most.mean():.2f}) score above the weakest ({least.mean():.2f}). This copy seems to be turned; use "
            "the file of the release, or every result would have the wrong sign."
        )


LAYOUT = Layout(
    name="kadid-10k",
    title="KADID-10k",
    n_images=10125,
    licence="terms at database.mmsp-kn.de",
    reference="Lin, Hosu, Saupe 2019, QoMEX",
    mos_range=(1.0, 5.0),
    markers=("dmos.csv",),
    header=frozenset(_REQUIRED),
    read=read_kadid10k,
)
