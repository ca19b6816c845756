"""Writes features as files for other tools: CSV, Parquet or NPZ, whole or not at all.

Columns are named ``band:0000``, rows are named by ``image_id``. NPZ holds one matrix a band instead, named by
the band, and the array ``image_id``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.atomic import check_file, replacing
from featbank.errors import BankError

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMN = "image_id"
EXPORT_SUFFIXES = (".csv", ".parquet", ".npz")

_ROWS_AT_ONCE = 4096


def write_features(path: str | Path, frame: pd.DataFrame) -> Path:
    """Write a table of features.

    Parameters
    ----------
    path : str or Path
        Ends with ``.csv``, ``.parquet`` or ``.npz``; replaced in one step if it exists.
    frame : DataFrame of shape (n_images, n_features)
        Indexed by image_id, with numeric columns ``band:0000``, those of one band side by side. Numbers that are
        float32 in disguise are written as float32: shorter, and the same.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BankError
        If there is no image, an image_id repeats, a column is not numeric or not named ``band:0000``, the suffix is
        unknown.
    OutputError
        If the file cannot be written.
    """
    path, columns = Path(path), [str(column) for column in frame.columns]
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        places.setdefault(column.rpartition(":")[0], []).append(place)
    named = [f"{band}:{i:04d}" for band, numbers in places.items() for i in range(len(numbers))]
    if "" in places or named != columns:
        bad = next((c for c, expected in zip(columns, named, strict=True) if c != expected), columns[:1])
        raise BankError(
            f"export: columns must be named band:0000, band:0001, ... band by band, got {bad!r}. Take the frame from "
            "featbank.table.build_table."
        )
    values = frame.to_numpy()
    if values.dtype.kind not in "fiu":
        raise BankError(f"export: features must be numbers, got columns that make up {values.dtype}.")
    if values.dtype == np.float64 and np.array_equal(
        narrow := values.astype(np.float32), values, equal_nan=True
    ):
        values = narrow
    ids = [str(name) for name in frame.index]
    if path.suffix not in EXPORT_SUFFIXES:
        raise BankError(f"export: the file must end with {', '.join(EXPORT_SUFFIXES)}, got {str(path)!r}.")
    if not ids or len(set(ids)) != len(ids):
        raise BankError(
            f"export: there must be at least one image and each once, got {len(ids)} rows for {len(set(ids))} images."
        )
    if ID_COLUMN in places:
        raise BankError(f"export: a band must not be called {ID_COLUMN!r}. Rename it in the recipe.")
    check_file(path, "export", is_export)
    with replacing(path, "export") as scratch:
        if path.suffix == ".npz":
            _write_npz(scratch, ids, {band: values[:, numbers] for band, numbers in places.items()})
        else:
            _write_table(scratch, ids, columns, values)
    return path


def is_export(path: Path) -> bool:
    """Tell whether a file was written by `write_features`."""
    from pyarrow import parquet

    try:
        if path.suffix == ".parquet":
            return parquet.read_schema(path).names[:1] == [ID_COLUMN]
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()[:1] == [f"{ID_COLUMN}.npy"]
        with path.open("rb") as file:
            return file.read(len(ID_COLUMN) + 3) == f'"{ID_COLUMN}",'.encode()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _pieces(ids: Sequence[str], columns: Sequence[str], values: NDArray[Any]) -> Iterator[pa.Table]:
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        numbers = list(np.asfortranarray(values[part]).T)
        yield pa.table([pa.array(ids[part], pa.string()), *numbers], names=[ID_COLUMN, *columns])


def _write_table(path: Path, ids: Sequence[str], columns: Sequence[str], values: NDArray[Any]) -> None:
    from pyarrow import csv, parquet

    pieces = _pieces(ids, columns, values)
    first = next(pieces)
    writer = (
        csv.CSVWriter(str(path), first.schema)
        if path.suffix == ".csv"
        else parquet.ParquetWriter(str(path), first.schema, compression="zstd")
    )
    with writer:
        writer.write_table(first)
        for piece in pieces:
            writer.write_table(piece)


def _write_npz(path: Path, ids: Sequence[str], matrices: Mapping[str, NDArray[Any]]) -> None:
    arrays = {ID_COLUMN: np.array(ids, dtype=np.str_), **matrices}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # A fixed date, unlike numpy.savez in some versions: equal features give equal files.
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
