"""Reads SPAQ: photos from 66 smartphones with quality scores from a laboratory study."""

from __future__ import annotations

from featbank.datasets.image_table import ImageTable, Layout, Source
from featbank.datasets.locate import ImageFinder
from featbank.datasets.text import read_delimited, read_xlsx

_REQUIRED = ("Image name", "MOS")
_FOLDERS = ("TestImage", "images", ".")


def read_spaq(source: Source) -> ImageTable:
    """Read SPAQ's scores from the workbook of the release or from its export as CSV.

    The release holds ``Annotations/MOS and Image attribute scores.xlsx`` with the columns ``Image name, MOS,
    Brightness, Colorfulness, Contrast, Noisiness, Sharpness`` and the folder ``TestImage``. The workbook is read
    as it is; a CSV of the same name is preferred where both exist. The five attributes are ratings as well, not
    facts known beforehand, and are not read.

    Parameters
    ----------
    source : Source
        Metadata file and folders.

    Returns
    -------
    ImageTable
        MOS in [0, 100]; no official split, no groups (the release does not say which photos show one scene).

    Raises
    ------
    DatasetError
        If the workbook cannot be read (the message says how to export it), a column is missing, or a score is no
        number.

    References
    ----------
    .. [1] Y. Fang, H. Zhu, Y. Zeng, K. Ma, Z. Wang, "Perceptual Quality Assessment of Smartphone Photography",
       CVPR 2020, section 3.
    """
    is_workbook = source.metadata.suffix.casefold() == ".xlsx"
    table = read_xlsx(source.metadata) if is_workbook else read_delimited(source.metadata)
    table.require(_REQUIRED)
    names = table.unique("Image name")
    finder = ImageFinder(source.base)
    home = finder.home(names, _FOLDERS)
    paths = finder.locate(names, [(home or _FOLDERS[0],)] * len(names), anywhere=home is None)
    notes = ["SPAQ has no official split.", *finder.notes()]
    return LAYOUT.table(source, {"image_id": names, "path": paths, "mos": table.numbers("MOS")}, notes=notes)


LAYOUT = Layout(
    name="spaq",
    title="SPAQ",
    n_images=11125,
    licence="educational and research use",
    reference="Fang, Zhu, Zeng, Ma, Wang 2020, CVPR",
    mos_range=(0.0, 100.0),
    markers=(
        "Annotations/MOS and Image attribute scores.csv",
        "Annotations/MOS and Image attribute scores.xlsx",
        "MOS and Image attribute scores.csv",
        "MOS and Image attribute scores.xlsx",
    ),
    header=frozenset({"Image name", "MOS", "Brightness", "Sharpness"}),
    read=read_spaq,
)
