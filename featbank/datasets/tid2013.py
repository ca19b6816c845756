"""Reads TID2013: 25 photos, each with 24 distortions at 5 levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import TextTable, read_text
from featbank.errors import DatasetError
from featbank.remote import Place

_FOLDERS = ("distorted_images", "images", ".")


def read_tid2013(source: Source) -> ImageTable:
    """Read TID2013's scores; the group is the reference image.

    Parameters
    ----------
    source : Source
        ``mos_with_names.txt``: one line ``5.51429 I01_01_1.bmp`` per image, no header; images in
        ``distorted_images/``. Spellings in the list, on disk and in other copies differ in case (``i01_01_1.bmp``,
        ``I01_01_1.BMP``): files are matched and groups named without regard to it.

    Returns
    -------
    ImageTable
        MOS in [0, 9], higher is better; groups ``I01`` to ``I25``; no official split.

    Raises
    ------
    DatasetError
        If a line does not hold a number and a name such as ``I01_01_1.bmp``, or an image is listed twice.

    References
    ----------
    .. [1] N. Ponomarenko et al., "Image database TID2013: Peculiarities, results and perspectives", Signal
       Processing: Image Communication 30, 2015, section 2.
    """
    table = _read_lines(source.metadata)
    names = table.unique("name")
    finder = ImageFinder(source.base)
    home = finder.home(names, _FOLDERS)
    paths = finder.locate(names, [(home or _FOLDERS[0],)] * len(names), anywhere=home is None)
    notes = [
        "TID2013 has no official split; split by group, the images of one reference share their content.",
        *finder.notes(),
    ]
    columns: dict[str, list[str] | NDArray[np.float64]] = {
        "image_id": names,
        "path": paths,
        "mos": table.numbers("mos"),
        "group": [name.split("_")[0].upper() for name in names],
    }
    return LAYOUT.table(source, columns, notes=notes)


def _read_lines(path: Place) -> TextTable:
    scores: list[str] = []
    names: list[str] = []
    lines: list[int] = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        parts = text.split()
        if len(parts) != 2 or "_" not in parts[1]:
            raise DatasetError(
                f"{path}: line {line} must hold a score and a name such as '5.51429 I01_01_1.bmp', got {text!r}."
            )
        scores.append(parts[0])
        names.append(parts[1])
        lines.append(line)
    if not names:
        raise DatasetError(f"{path} is empty, expected one line '5.51429 I01_01_1.bmp' per image.")
    return TextTable(path, {"mos": scores, "name": names}, lines)


LAYOUT = Layout(
    name="tid2013",
    title="TID2013",
    n_images=3000,
    licence="educational and research use",
    reference="Ponomarenko et al. 2015, Signal Processing: Image Communication 30",
    mos_range=(0.0, 9.0),
    markers=("mos_with_names.txt",),
    header=frozenset(),
    read=read_tid2013,
)
