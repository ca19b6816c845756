"""Writes the report of a run folder, with thumbnails where the photos are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from featbank.atomic import FolderKind, check_folder, replacing_folder
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import FeatbankError
from featbank.runs.folder import RECEIPT, read_json, telling_damage

REPORT: Final = FolderKind("report")


def report_of_run(run: Path, data: str | None = None, out: Path | None = None) -> Path:
    """Write the report of an existing run again.

    Parameters
    ----------
    run : Path
    data : str or None
        Dataset for the thumbnails; None takes the place that the receipt names, if it is still there.
    out : Path or None
        Folder to write to; None for the run's own.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If ``run`` is not a run folder.
    OutputError
        If ``out`` holds anything else than an earlier report, or cannot be written.
    FeatbankError
        If ``data`` is given and cannot be read.
    """
    is_apart = out is not None and out.resolve() != run.resolve()
    if out is not None and is_apart:
        check_folder(out, REPORT, "report --out")
    dataset = read_json(run, RECEIPT).get("dataset")
    place = dataset.get("path") if isinstance(dataset, dict) else None
    table = None
    try:
        if data or (isinstance(place, str) and place):
            table = read_dataset(data or str(place))
    except FeatbankError:
        if data:
            raise
    with telling_damage(run):
        if out is None or not is_apart:
            return write_report_of(run, table)
        with replacing_folder(out, REPORT, "report --out") as folder:
            return out / write_report_of(run, table, folder).name


def write_report_of(run: Path, table: ImageTable | None, into: Path | None = None) -> Path:
    """Write the report of a run, with thumbnails.

    Parameters
    ----------
    run : Path
    table : ImageTable or None
        Where the photos lie; None for a report without thumbnails.
    into : Path or None
        A folder in the making; None for the run's own.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If the folder is no run.
    OutputError
        If it cannot be written.
    """
    from featbank.report import write_report

    return write_report(run, photos=None if table is None else _Photos(table), into=into)


class _Photos(Mapping[str, str]):
    """Path of each image's photo; looked up in the table, as a page asks for a dozen of perhaps a million."""

    def __init__(self, table: ImageTable) -> None:
        self._images, self._paths = table.frame["image_id"], table.frame["path"]

    def __getitem__(self, image: str) -> str:
        [*found] = self._paths[self._images == image]
        if not found:
            raise KeyError(image)
        return str(found[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)
