"""Reads features that were computed elsewhere: NPY, NPZ, CSV, Parquet and MAT files, never pickled objects.

Finds the one matrix a file holds and the image names beside it, and says in words what it took. Where a
file leaves a choice it is refused with the list of choices: a guess would give numbers of another thing. To
which images the rows belong is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.files import explain
from featbank.bank.imported_arrays import Wishes, read_mat, read_npy, read_npz
from featbank.bank.imported_tables import read_csv, read_parquet
from featbank.errors import BankError

_READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


@dataclass(frozen=True)
class ImportedFeatures:
    """What was read from a file of features.

    Attributes
    ----------
    names : list of str or None
        Image name of each row, distinct; None where the file has none.
    matrix : float array of shape (n_rows, n_features)
        float64, float32 where the file holds float32 or small integers, float16 where it holds that; finite.
    columns : list of str or None
        Name of each column; None where the file has none.
    n_nonfinite : int
        NaN and infinite values that were replaced by 0.
    description : str
        Which variable or columns were taken, what was left out, what was replaced.
    """

    names: list[str] | None
    matrix: NDArray[np.floating[Any]]
    columns: list[str] | None
    n_nonfinite: int
    description: str


def read_feature_file(
    path: str | Path,
    *,
    variable: str | None = None,
    names: str | None = None,
    exclude: Sequence[str] = (),
    transpose: bool = False,
    n_rows: int | None = None,
    nonfinite: str = "refuse",
) -> ImportedFeatures:
    """Read a matrix of features, one row for each image.

    Parameters
    ----------
    path : str or Path
        Ends with ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.mat`` (up to version 7).
    variable : str, optional
        Which array of an NPZ or MAT file. In a table: a list column, or a pattern like ``"nss:*"`` for the columns. By
        default the only candidate.
    names : str, optional
        Which column, array or MAT variable holds the image names. By default the only one that can.
    exclude : sequence of str
        Columns of a table that are not features.
    transpose : bool
        The file has one column for each image.
    n_rows : int, optional
        How many images there must be.
    nonfinite : str
        ``"refuse"``, or ``"zero"`` to replace NaN and infinite values by 0, as some published protocols do.

    Returns
    -------
    ImportedFeatures

    Raises
    ------
    UnknownNameError
        If ``variable``, ``names`` or ``exclude`` names nothing in the file.
    BankError
        If the file cannot be read, leaves a choice, holds objects or no matrix of numbers, has values that are not
        finite, repeats a name, or has another number of rows.
    ValueError
        If ``nonfinite`` is neither of the two.
    """
    path = Path(path)
    if nonfinite not in {"refuse", "zero"}:
        raise ValueError(f"read_feature_file: nonfinite must be 'refuse' or 'zero', got {nonfinite!r}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BankError(
            f"import: the file must end with {', '.join(_READERS)}, got {str(path)!r}. Save the features in one of "
            "these formats; pickled files are never read, as they can run code."
        )
    try:
        found = reader(path, Wishes(variable, names, tuple(exclude), transpose))
    except OSError as error:
        if isinstance(error, BankError) or not error.errno:
            raise
        raise explain("read", path, error) from error
    matrix = found.matrix
    _check_shape(path, matrix, n_rows)
    described = (
        f"{found.taken} of {path.name}: {matrix.shape[0]} rows x {matrix.shape[1]} columns, {matrix.dtype}"
    )
    if found.left_out:
        described += f"; left out: {', '.join(found.left_out)}"
    matrix = np.ascontiguousarray(matrix, dtype=_kept_type(matrix.dtype))
    bad = ~np.isfinite(matrix)
    n_bad = int(np.count_nonzero(bad))
    if n_bad and nonfinite == "refuse":
        row, column = np.argwhere(bad)[0].tolist()
        raise BankError(
            f"import: {path} must hold finite numbers, got {n_bad} that are NaN or infinite, in "
            f"{bad.any(axis=1).sum()} rows and {bad.any(axis=0).sum()} columns (first: row {row}, column {column}, "
            "counted from 0). Mend them, or replace them all by 0 with `--nonfinite zero`."
        )
    if n_bad:
        matrix = np.where(bad, matrix.dtype.type(0), matrix)
        described += f"; {n_bad} NaN or infinite values replaced by 0"
    _check_names(path, found.names, len(matrix))
    return ImportedFeatures(found.names, matrix, found.columns, n_bad, described)


def _kept_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return the smallest type of ours that holds every number of another."""
    if dtype == np.float16:
        return np.float16
    return np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64


def _check_shape(path: Path, matrix: NDArray[Any], n_rows: int | None) -> None:
    if 0 in matrix.shape:
        raise BankError(f"import: {path} must hold at least one row and one column, got {matrix.shape}.")
    if n_rows is not None and len(matrix) != n_rows:
        hint = (
            "It has that many columns: are images its columns? Then transpose it."
            if matrix.shape[1] == n_rows
            else "Rows and images must correspond one to one."
        )
        raise BankError(
            f"import: {path} must hold one row for each of the {n_rows} images, got {len(matrix)}. {hint}"
        )


def _check_names(path: Path, names: list[str] | None, n_rows: int) -> None:
    if names is None:
        return
    if len(names) != n_rows:
        raise BankError(
            f"import: {path} must hold one name for each of the {n_rows} rows, got {len(names)} names."
        )
    empty = names.count("")
    if empty or len(set(names)) != len(names):
        seen: set[str] = set()
        again = next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]
        what = f"{empty} empty names" if empty else f"{again!r} more than once"
        raise BankError(
            f"import: {path} must name each row once, got {what}. Mend the names, or name the column that holds them."
        )
