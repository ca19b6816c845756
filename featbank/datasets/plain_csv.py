"""Reads a table of one's own photos and scores: a CSV with ``path,mos`` and optionally split, subset and group."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import META_PREFIX, SPLITS, SUBSETS, ImageTable, make_frame
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import TextTable, read_delimited
from featbank.errors import DatasetError
from featbank.remote import Place, as_place, is_url

CSV_NAME = "csv"
_USED = ("path", "image_name", "mos", "dmos", "split", "subset", "group")


def read_plain_csv(path: str | Place, *, images: str | Place | None = None) -> ImageTable:
    """Read a CSV that its user wrote.

    The header names the columns, in any case and order:

    - ``path``: absolute, a URL, or relative to `images`, by default to the CSV's folder. It may point anywhere, ``..``
      included: whoever wrote the CSV chose it. The text as written is the ``image_id``, unless ``image_name`` is
      there too.
    - ``image_name``: instead of ``path``, a name to be found below that folder; here the rules of published
      metadata hold, and a name that leads out of the folder is refused.
    - ``mos``: higher is better, on any scale, empty where unknown. Or ``dmos``, lower is better: MOS is then its
      negative, which keeps distances and does not depend on which images are in the file.
    - ``split`` (training, validation, test or empty), ``subset`` (exclusive or empty), ``group``: optional.
    - ``meta:<name>``: optional numbers known without looking at the image.

    Files may be missing: features of them may have been brought from elsewhere.

    Parameters
    ----------
    path : str, Path or RemotePath
        The CSV, separated by commas, semicolons or tabs.
    images : str, Path or RemotePath, optional
        Folder to which names and relative paths refer.

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
    table = read_delimited(path, fold_header=True)
    base = as_place(images) if images is not None else path.parent
    base = base.resolve()
    notes: list[str] = []
    columns: dict[str, list[str] | NDArray[np.float64]] = {}
    columns["image_id"], columns["path"] = _images(table, base, notes)
    columns["mos"] = _scores(table, notes)
    if "split" in table.columns:
        columns["split"] = table.words("split", SPLITS)
    if "subset" in table.columns:
        columns["subset"] = table.words("subset", SUBSETS)
    if "group" in table.columns:
        columns["group"] = table.columns["group"]
    for name in table.columns:
        if name.startswith(META_PREFIX):
            columns[name] = table.numbers(name)
    unused = [name for name in table.columns if name not in _USED and not name.startswith(META_PREFIX)]
    if unused:
        notes.append(f"Columns not used: {', '.join(unused)}.")
    known = np.asarray(columns["mos"])[np.isfinite(columns["mos"])]
    mos_range = (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)
    return ImageTable(
        name=f"{CSV_NAME}:{path.stem}",
        root=path.resolve().parent,
        frame=make_frame(columns),
        mos_range=mos_range,
        notes=tuple(notes),
        names_in=str(base),
    )


def _images(table: TextTable, base: Place, notes: list[str]) -> tuple[list[str], list[str]]:
    if "path" in table.columns:
        written = table.unique("path")
        names = table.unique("image_name") if "image_name" in table.columns else written
        paths = [_absolute(text, str(base)) for text in written]
        _check_one_row_per_file(table, paths)
        return names, paths
    if "image_name" in table.columns:
        names = table.unique("image_name")
        finder = ImageFinder(base)
        paths = finder.locate(names, [(".",)] * len(names))
        notes.extend(finder.notes())
        return names, paths
    raise DatasetError(
        f"{table.path} needs a column 'path' (or 'image_name') and a column 'mos', its columns are "
        f"{', '.join(map(repr, list(table.columns)[:20]))}. Rename the one that names the image files."
    )


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


def _scores(table: TextTable, notes: list[str]) -> NDArray[np.float64]:
    if "mos" in table.columns:
        if "dmos" in table.columns:
            notes.append("The column 'dmos' is not used, because 'mos' is there too.")
        return table.numbers("mos")
    if "dmos" in table.columns:
        notes.append("MOS is the negative of the column 'dmos', where lower is better.")
        # 0 - x rather than -x: an undistorted image with DMOS 0 gets 0, not minus zero.
        return 0.0 - table.numbers("dmos")
    notes.append("There is no column 'mos': these images can be scored, but nothing can be fitted on them.")
    return np.full(len(table), np.nan)
