"""Writes the report of a run folder, with thumbnails where the photos are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.runs.folder import RECEIPT, read_json, telling_damage
from featbank.datasets import ImageTable, read_dataset
from featbank.errors import FeatbankError, RunError


def report_of_run(run: Path, data: str | None = None) -> Path:
    """Write the report of an existing run again.

    Parameters
    ----------
    run : Path
    data : str or None
        Dataset for the thumbnails; None takes the place that the receipt names, if it is still there.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If ``run`` is not a run folder.
    FeatbankError
        If ``data`` is given and cannot be read.
    """
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
        return write_report_of(run, table)


def write_report_of(folder: Path, table: ImageTable | None) -> Path:
    """Write the report into a run folder.

    Parameters
    ----------
    folder : Path
    table : ImageTable or None
        Where the photos lie; None for a report without thumbnails.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    RunError
        If the folder is no run or cannot be written.
    """
    from experiments.report import write_report

    photos = None if table is None else _Photos(table)
    try:
        return write_report(folder, photos=photos)
    except OSError as error:
        raise RunError(f"report: cannot write into {str(folder)!r}: {error.strerror or error}.") from error


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
