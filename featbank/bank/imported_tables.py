"""Finds feature columns and image names in a CSV or Parquet table."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.bank.imported_arrays import (
    FoundMatrix,
    Wishes,
    choose_names,
    is_telling,
    not_in_file,
    read_names,
    reading,
    room,
    too_large,
)
from featbank.errors import BankError

_INDEX_COLUMN = re.compile(r"Unnamed: \d+|__index_level_\d+__|")
_TARGET = re.compile(r"(?:^|[^A-Za-z])[dD]?(?:MOS|Mos|mos)(?![a-z])")  # MOS, quality_mos, MOSFull, not mosaic
_NUMBER_BYTES = 8
_BLOCK_BYTES = 1 << 26  # a row must fit into one block, and feature tables have long rows


def read_csv(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a CSV (or, named ``.tsv``, tab-separated) file with a header line.

    Raises
    ------
    UnknownNameError
        If a column asked for is not there.
    BankError
        If the file is malformed or leaves a choice.
    """
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
    """Read the feature columns of a Parquet file, or its one column of lists; best in a process of its own.

    Raises
    ------
    UnknownNameError
        If a column asked for is not there.
    BankError
        If the file is malformed or leaves a choice.
    """
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
    for title in wishes.exclude:
        if title not in titles:
            raise not_in_file(path, "column", title, titles)
    if not n_rows:
        raise BankError(f"import: {path} must hold at least one row, got a header alone.")
    usable = [f for f in schema if f.name not in wishes.exclude and not _INDEX_COLUMN.fullmatch(f.name)]
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
        columns, matrix = None, _stack(path, chosen[0], table[chosen[0]].combine_chunks())
        taken = f"list column {chosen[0]!r}"
    else:
        columns = chosen
        matrix = np.stack(
            [table[title].cast(_numeric(table[title].type)).to_numpy() for title in chosen], axis=1
        )
        taken = f"{len(chosen)} columns ({chosen[0]} to {chosen[-1]})"
    names = None
    if source is not None:
        names = read_names(path, f"column {source!r}", table[source].to_pylist())
        taken += f", names from {source!r}"
    rest = tuple(title for title in titles if title not in chosen and title != source)
    return FoundMatrix(matrix, names, columns, taken, rest)


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
