"""Writes the report of a run folder, with thumbnails where the photos are at hand."""

from __future__ import annotations

from pathlib import Path

from experiments.runs.folder import RECEIPT, read_json
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
    place = read_json(run, RECEIPT)["dataset"]["path"]
    table = None
    try:
        table = read_dataset(data or place)
    except FeatbankError:
        if data:
            raise
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

    photos = None if table is None else dict(zip(table.frame["image_id"], table.frame["path"], strict=True))
    try:
        return write_report(folder, photos=photos)
    except OSError as error:
        raise RunError(f"report: cannot write into {str(folder)!r}: {error.strerror or error}.") from error
