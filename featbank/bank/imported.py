"""Reads features that were computed elsewhere: NPY, NPZ, CSV, Parquet and MAT files, never pickled objects.

Finds the one matrix a file holds and the image names beside it, and says in words what it took. Where a
file leaves a choice it is refused with the list of choices: a guess would give numbers of another thing. To
which images the rows belong is decided elsewhere.

Files of a kind that a library in C takes apart (MAT, Parquet) are read in a process of their own, under a limit on
memory and time: one changed byte can end such a process, or make it ask for all memory there is.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.apart import call_apart
from featbank.bank.imported_arrays import (
    FoundMatrix,
    Wishes,
    choose_names,
    is_telling,
    not_in_file,
    read_mat,
    read_names,
    read_npy,
    read_npz,
    reading,
    room,
    too_large,
)
from featbank.bank.place import explain
from featbank.errors import BankError

_APART = frozenset({".mat", ".parquet"})
_MIB_PER_S = 4  # no reader is slower than this; one that takes longer is caught in a loop
_LEAST_S = 60.0


@dataclass(frozen=True)
class ImportedFeatures:
    """What was read from a file of features."""

    names: list[str] | None  # image name of each row, distinct; None where the file has none
    # float array of shape (n_rows, n_features); float64, float32 where the file holds float32 or small integers,
    # float16 where it holds that; finite
    matrix: NDArray[np.floating[Any]]
    description: str  # which variable or columns were taken, what was left out, what was replaced


def read_feature_file(
    path: str | Path,
    *,
    variable: str | None = None,
    names: str | None = None,
    transpose: bool = False,
    nonfinite: str = "refuse",
    own_names: bool = True,
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
    transpose : bool
        The file has one column for each image.
    nonfinite : str
        ``"refuse"``, or ``"zero"`` to replace NaN and infinite values by 0, as some published protocols do.
    own_names : bool
        False where the names of the rows are known from elsewhere: those in the file are left alone.

    Returns
    -------
    ImportedFeatures

    Raises
    ------
    UnknownNameError
        If ``variable`` or ``names`` names nothing in the file.
    BankError
        If the file cannot be read, leaves a choice, holds objects or no matrix of numbers, has values that are not
        finite, repeats a name, has names that cannot be read, or would fill the memory.
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
    wishes = Wishes(variable, names, transpose, own_names)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BankError(f"import: {path} must be a file, got a folder, a device or a pipe.")
        found = _read_apart(path, wishes) if path.suffix.lower() in _APART else reader(path, wishes)
    except OSError as error:
        if isinstance(error, BankError) or not error.errno:
            raise
        raise explain("read", path, error) from error
    matrix = found.matrix
    if 0 in matrix.shape:
        raise BankError(f"import: {path} must hold at least one row and one column, got {matrix.shape}.")
    described = (
        f"{found.taken} of {path.name}: {matrix.shape[0]} rows x {matrix.shape[1]} columns, {matrix.dtype}"
    )
    if found.left_out:
        described += f"; left out: {', '.join(found.left_out)}"
    # The smallest type of ours that holds every number of the file's.
    wider = min(np.result_type(matrix.dtype, np.float32), np.dtype(np.float64))
    matrix = np.ascontiguousarray(matrix, dtype=np.float16 if matrix.dtype == np.float16 else wider)
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
    return ImportedFeatures(found.names, matrix, described)


def _read_apart(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read a file in another process, which may die of it or be stopped."""
    seconds = _LEAST_S + path.stat().st_size / (_MIB_PER_S << 20)
    request = [str(path), asdict(wishes)]
    try:
        facts, matrix = call_apart(f"{__name__}:read_here", request, seconds=seconds, n_bytes=3 * room(path))
    except (ChildProcessError, TimeoutError) as error:
        raise BankError(
            f"import: {path} cannot be read as a {path.suffix} file: it {error}. It is damaged, or made to do harm. "
            "Save the matrix anew, best as NPY."
        ) from error
    assert matrix is not None
    return FoundMatrix(matrix, **facts)


def read_here(request: tuple[str, dict[str, Any]], data: bytes) -> tuple[dict[str, Any], NDArray[Any]]:
    """Read a file in the process that exists for it; called by `call_apart`."""
    path, wishes = Path(request[0]), Wishes(**request[1])
    try:
        found = _READERS[path.suffix.lower()](path, wishes)
        matrix = np.ascontiguousarray(found.matrix)
    except MemoryError as error:
        raise too_large(path) from error
    except OSError as error:
        raise error if isinstance(error, BankError) else explain("read", path, error) from error
    return {name: getattr(found, name) for name in ("names", "taken", "left_out")}, matrix


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


_INDEX_COLUMN = re.compile(r"Unnamed: \d+|__index_level_\d+__|")
_TARGET = re.compile(r"(?:^|[^A-Za-z])[dD]?(?:MOS|Mos|mos)(?![a-z])")  # MOS, quality_mos, MOSFull, not mosaic
_NUMBER_BYTES = 8
_BLOCK_BYTES = 1 << 26  # a row must fit into one block, and feature tables have long rows


def read_csv(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a CSV (or, named ``.tsv``, tab-separated) file with a header line."""
    from pyarrow import csv

    separator = "\t" if path.suffix.lower() == ".tsv" else ","

    def parse(columns: list[str], kind: pa.DataType | None = None) -> pa.Table:
        return csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, kind) if kind else None, include_columns=columns
            ),
        )

    try:
        table = parse([])
        titles = table.column_names
    except (pa.ArrowException, UnicodeDecodeError) as error:  # also an empty file
        raise BankError(
            f"import: {path} cannot be read as a table in UTF-8 with a header line, {separator!r} between the fields "
            f"and as many fields in each line: {error}"
        ) from error
    if all(_is_float(title) for title in titles) and titles != [str(i) for i in range(len(titles))]:
        raise BankError(
            f"import: {path} must begin with a header line, got numbers ({', '.join(titles[:3])}, ...). Add one, or "
            "save the matrix as NPY."
        )

    def read(columns: list[str], source: str | None) -> pa.Table:
        # Names are read again as they are written: "NA" and "007" are names too, and were taken for numbers.
        return (
            table
            if source is None
            else table.drop([source]).append_column(source, parse([source], pa.binary())[source])
        )

    return _find(path, table.schema, table.num_rows, read, wishes)


def read_parquet(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a Parquet file, or its one column of lists; best in a process of its own."""
    from pyarrow import parquet

    # ParquetFile, not read_table: that one looks for folders and partitions in the path.
    with reading(path), parquet.ParquetFile(path) as file:
        n_rows = file.metadata.num_rows

        def read(columns: list[str], source: str | None) -> pa.Table:
            if n_rows * len(columns) * _NUMBER_BYTES > room(path):
                raise too_large(path)
            return file.read(columns=[*columns, *([source] if source else [])], use_threads=False)

        return _find(path, file.schema_arrow, n_rows, read, wishes)


def _is_number(kind: pa.DataType) -> bool:
    # A column without any value has no type; its values count as missing numbers.
    types = pa.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _find(
    path: Path,
    schema: pa.Schema,
    n_rows: int,
    read: Callable[[list[str], str | None], pa.Table],
    wishes: Wishes,
) -> FoundMatrix:
    """Tell names, features and the rest apart by titles and types, then read what is taken and nothing else."""
    titles = schema.names
    if wishes.transpose:
        raise BankError(
            f"import: {path} is a table of named columns, which cannot be transposed. Save the matrix as NPY."
        )
    if len(set(titles)) != len(titles):
        again = next(title for title in titles if titles.count(title) > 1)
        raise BankError(f"import: {path} must name each column once, got {again!r} more than once.")
    if not n_rows:
        raise BankError(f"import: {path} must hold at least one row, got a header alone.")
    usable = [f for f in schema if not _INDEX_COLUMN.fullmatch(f.name)]
    lists = [field.name for field in usable if _is_list(field.type) and _is_number(field.type.value_type)]
    numbers = [field.name for field in usable if _is_number(field.type)]
    others = [field.name for field in usable if field.name not in {*lists, *numbers}]
    possible = [*others, *(title for title in numbers if is_telling(title))]
    source = choose_names(path, wishes, possible, titles)
    candidates = [title for title in numbers if title != source]
    is_list = wishes.variable in lists or (wishes.variable is None and len(lists) == 1 and not candidates)
    chosen = (
        [wishes.variable or lists[0]]
        if is_list
        else _choose_columns(path, candidates, titles, wishes.variable)
    )
    table = read(chosen, source)
    if is_list:
        matrix = _stack(path, chosen[0], table[chosen[0]].combine_chunks())
        taken = f"list column {chosen[0]!r}"
    else:
        matrix = np.stack(
            [table[title].cast(_numeric(table[title].type)).to_numpy() for title in chosen], axis=1
        )
        taken = f"{len(chosen)} columns ({chosen[0]} to {chosen[-1]})"
    names = None
    if source is not None:
        names = read_names(path, f"column {source!r}", table[source].to_pylist())
        taken += f", names from {source!r}"
    rest = tuple(title for title in titles if title not in chosen and title != source)
    return FoundMatrix(matrix, names, taken, rest)


def _numeric(kind: pa.DataType) -> pa.DataType:
    # Arrow has no way from these to a plain array of numbers, as they may lack values.
    return pa.float64() if pa.types.is_null(kind) or pa.types.is_integer(kind) else (
        pa.float32() if pa.types.is_boolean(kind) else kind
    )  # fmt: skip


def _stack(path: Path, column: str, lists: Any) -> NDArray[Any]:  # noqa: ANN401 (pyarrow has no type information)
    """Turn a column of lists into a matrix."""
    from pyarrow import compute

    flat = lists.flatten()
    lengths = {length or 0 for length in compute.list_value_length(lists).unique().to_pylist()}
    if len(lengths) != 1 or not _is_number(flat.type):
        raise BankError(
            f"import: list column {column!r} of {path} must hold as many numbers in each row, got lists of {flat.type} "
            f"with lengths {sorted(lengths)[:5]}."
        )
    return flat.cast(_numeric(flat.type)).to_numpy(zero_copy_only=False).reshape(len(lists), lengths.pop())


def _choose_columns(path: Path, candidates: list[str], titles: list[str], variable: str | None) -> list[str]:
    """Choose the feature columns among those of numbers, and refuse what would be a slip."""
    if variable is not None:
        matching = [t for t in candidates if t.rpartition(":")[0] == variable or fnmatchcase(t, variable)]
        if not matching:
            raise not_in_file(path, "column", variable, candidates)
        candidates = matching
    if not candidates:
        raise BankError(
            f"import: {path} must have at least one column of numbers, got the columns {', '.join(titles[:20])}. Are "
            "the fields separated by something else than commas?"
        )
    targets = [title for title in candidates if _TARGET.search(title)]
    if targets:
        raise BankError(
            f"import: column {targets[0]!r} of {path} looks like the MOS. As a feature it would make every score "
            "perfect and wrong. Take it out of the file."
        )
    bands = sorted({title.rpartition(":")[0] for title in candidates})
    if variable is None and len(bands) > 1 and "" not in bands:
        raise BankError(
            f"import: {path} holds {len(bands)} bands: {', '.join(bands[:20])}. Bring them one by one: say which with "
            "`--variable NAME`."
        )
    return candidates


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
