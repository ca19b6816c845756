"""Finds feature columns and image names in a CSV or Parquet table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.imported_arrays import FoundMatrix, Wishes
from featbank.errors import BankError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

NAME_COLUMNS = ("image_id", "image_name", "image", "name", "filename", "file", "path", "key")
"""Columns that name images whatever they hold, in capitals or not: a dataset may number its images."""

_INDEX_COLUMN = re.compile(r"Unnamed: \d+|__index_level_\d+__|")
_TARGET = re.compile(r"(?:^|[^A-Za-z])[dD]?(?:MOS|Mos|mos)(?![a-z])")  # MOS, quality_mos, MOSFull, not mosaic


def read_csv(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a CSV (or, named ``.tsv``, tab-separated) file with a header line.

    Raises
    ------
    UnknownNameError
        If a column asked for is not there.
    BankError
        If the file is malformed or leaves a choice.
    """
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        # round_trip: the default is off in the last digit.
        frame = pd.read_csv(path, sep=separator, float_precision="round_trip", low_memory=False)
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:  # also bad encoding and an empty file
        raise BankError(
            f"import: {path} cannot be read as a table in UTF-8 with a header line and {separator!r} between the "
            f"fields: {error}"
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise BankError(
            f"import: the rows of {path} have more fields than its header line, so columns cannot be told apart. Give "
            "every column a name."
        )
    titles = [str(title) for title in header.iloc[0]]
    if len(set(titles)) != len(titles):
        again = next(title for title in titles if titles.count(title) > 1)
        raise BankError(f"import: {path} must name each column once, got {again!r} more than once.")
    if all(_is_float(title) for title in titles) and titles != [str(i) for i in range(len(titles))]:
        raise BankError(
            f"import: {path} must begin with a header line, got numbers ({', '.join(titles[:3])}, ...). Add one, or "
            "save the matrix as NPY."
        )

    def text(column: str) -> list[str]:
        # Read again as text: "NA" and "007" are names too, and the first reading turned them into numbers.
        again = pd.read_csv(path, sep=separator, usecols=[column], dtype=str, keep_default_na=False)
        return [str(value) for value in again[column]]

    return _find(path, frame, text, wishes)


def read_parquet(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a Parquet file, or its one column of equally long lists.

    Raises
    ------
    UnknownNameError
        If a column asked for is not there.
    BankError
        If the file is malformed or leaves a choice.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BankError(f"import: {path} cannot be read as a Parquet file: {error}") from error
    lists = {
        field.name
        for field in table.schema
        if pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    }
    numbers = [f.name for f in table.schema if f.name not in lists and _is_arrow_number(f.type)]

    def text(column: str) -> list[str]:
        return ["" if value is None else str(value) for value in table[column].to_pylist()]

    if lists and (wishes.variable in lists or (wishes.variable is None and len(lists) == 1 and not numbers)):
        chosen = wishes.variable or next(iter(lists))
        matrix = _stack(path, chosen, table[chosen].combine_chunks())
        texts = [f.name for f in table.schema if f.name not in lists and f.name not in numbers]
        source = _choose_names(path, texts, table.column_names, wishes.names)
        rest = tuple(name for name in table.column_names if name not in {chosen, source})
        return FoundMatrix(matrix, text(source) if source else None, None, f"list column {chosen!r}", rest)
    # ignore_metadata: an index that pandas stored comes back as the column it is.
    frame = table.drop_columns(sorted(lists)).to_pandas(ignore_metadata=True)
    return _find(path, frame, text, wishes, sorted(lists))


def _is_arrow_number(kind: Any) -> bool:  # noqa: ANN401 (pyarrow has no type information)
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _stack(path: Path, column: str, lists: Any) -> NDArray[Any]:  # noqa: ANN401 (pyarrow has no type information)
    """Turn a column of lists into a matrix."""
    flat = lists.flatten()
    lengths = {len(row) if row is not None else 0 for row in lists.to_pylist()}
    if len(lengths) != 1 or not _is_arrow_number(flat.type):
        raise BankError(
            f"import: list column {column!r} of {path} must hold as many numbers in each row, got lists of {flat.type} "
            f"with lengths {sorted(lengths)[:5]}."
        )
    return flat.to_numpy(zero_copy_only=False).reshape(len(lists), lengths.pop())


def _find(
    path: Path,
    frame: pd.DataFrame,
    text: Callable[[str], list[str]],
    wishes: Wishes,
    left_out: Sequence[str] = (),
) -> FoundMatrix:
    """Tell names, features and the rest apart."""
    if wishes.transpose:
        raise BankError(
            f"import: {path} is a table of named columns, which cannot be transposed. Save the matrix as NPY."
        )
    variable, exclude = wishes.variable, wishes.exclude
    titles = [str(title) for title in frame.columns]
    for title in exclude:
        if title not in titles:
            raise unknown_name("column", title, titles, f"featbank bank import ... {path}")
    numbers = [str(title) for title in frame.columns if frame[title].dtype.kind in "fiub"]
    texts = [title for title in titles if title not in numbers and not _INDEX_COLUMN.fullmatch(title)]
    source = _choose_names(path, [title for title in texts if title not in exclude], titles, wishes.names)
    candidates = [
        title
        for title in numbers
        if title != source and title not in exclude and not _INDEX_COLUMN.fullmatch(title)
    ]
    if variable is not None:
        matching = [t for t in candidates if t.rpartition(":")[0] == variable or fnmatchcase(t, variable)]
        if not matching:
            raise unknown_name("column", variable, candidates, f"featbank bank import ... {path}")
        candidates = matching
    _check_candidates(path, candidates, titles, variable)
    columns = [frame[title].to_numpy() for title in candidates]
    matrix = np.stack(columns, axis=1) if columns else np.empty((0, 0))
    taken = f"{len(candidates)} columns ({candidates[0]} to {candidates[-1]})"
    taken += f", names from {source!r}" if source else ""
    rest = (*(title for title in titles if title not in candidates and title != source), *left_out)
    return FoundMatrix(matrix, text(source) if source else None, candidates, taken, rest)


def _choose_names(path: Path, texts: list[str], titles: list[str], names: str | None) -> str | None:
    """Choose the column of image names: the one asked for, one with a telling title, or the only text."""
    if names is not None:
        if names not in titles:
            raise unknown_name("column", names, titles, f"featbank bank import ... {path}")
        return names
    telling = {title.lower(): title for title in reversed(titles)}
    for known in NAME_COLUMNS:
        if known in telling:
            return telling[known]
    if len(texts) > 1:
        raise BankError(
            f"import: {path} has {len(texts)} columns of text and any of them could name the images: "
            f"{', '.join(texts[:20])}. Say which one with names=, or exclude the others."
        )
    return texts[0] if texts else None


def _check_candidates(path: Path, candidates: list[str], titles: list[str], variable: str | None) -> None:
    if not candidates:
        raise BankError(
            f"import: {path} must have at least one column of numbers, got the columns {', '.join(titles[:20])}. Are "
            "the fields separated by something else than commas?"
        )
    targets = [title for title in candidates if _TARGET.search(title)]
    if targets:
        raise BankError(
            f"import: column {targets[0]!r} of {path} looks like the MOS. As a feature it would make every score "
            "perfect and wrong. Take it out of the file or exclude it."
        )
    bands = sorted({title.rpartition(":")[0] for title in candidates})
    if variable is None and len(bands) > 1 and "" not in bands:
        raise BankError(
            f"import: {path} holds {len(bands)} bands: {', '.join(bands[:20])}. Bring them one by one: say which with "
            "`--variable NAME`."
        )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
