"""Reads delimited text and workbooks into columns of strings, with errors that name file and line."""

from __future__ import annotations

import codecs
import csv
import io
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from featbank.apart import call_apart
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.remote import Place, check_regular, read_regular

UNKNOWN_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none"})


MAX_TEXT_BYTES = 128 * 1024 * 1024
MAX_COLUMNS = 16_384
MAX_CELLS = 10_000_000
"""Two million rows of the columns that are read stay below; more would fill the memory before they are refused."""


def read_text(path: Place) -> str:
    """Read a text file in UTF-8 (with or without a byte order mark) or, if its mark says so, UTF-16.

    Raises DatasetNotFoundError if there is no such file; DatasetError if the bytes are in another
    encoding, or the file is none, too large, or cannot be read.
    """
    data = _read_bytes(path)
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, data) from error


def _read_bytes(path: Place) -> bytes:
    try:
        return read_regular(path, MAX_TEXT_BYTES, DatasetError)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"no file at {path}.") from error


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _wrong_encoding(path: Place, data: bytes) -> DatasetError:
    start = line = 0
    try:
        data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        start, line = error.start, data.count(b"\n", 0, error.start) + 1
    return DatasetError(
        f"{path} must be text in UTF-8, line {line} holds the byte "
        f"0x{data[start]:02x}. Save it again with the encoding UTF-8; names read in a wrong encoding would miss "
        "their files."
    )


@dataclass(frozen=True)
class TextTable:
    """Columns of strings from one file, blanks at their ends removed, and the line of each row, counted from 1."""

    path: Place
    columns: dict[str, list[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    def require(self, names: Iterable[str]) -> None:
        """Make sure that columns exist.

        Raises DatasetError if one is missing; the message lists what is there.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DatasetError(
                f"{self.path} needs the column(s) {', '.join(map(repr, missing))}, "
                f"its columns are {', '.join(map(repr, list(self.columns)[:20]))}."
            )

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Parse a column of numbers; empty cells, ``nan``, ``NA`` and the like become NaN.

        Raises DatasetError if a cell is neither, or is infinite.
        """
        values = np.full(len(self), np.nan)
        wrong: list[str] = []
        for row, (line, cell) in enumerate(zip(self.lines, self.columns[name], strict=True)):
            if cell.casefold() in UNKNOWN_WORDS:
                continue
            try:
                # Python also takes "1_000", which no table means as a number.
                values[row] = float(cell) if "_" not in cell else math.inf
            except ValueError:
                values[row] = math.inf
            if not math.isfinite(values[row]):
                wrong.append(f"{cell!r} in line {line}")
        if wrong:
            hint = " Write decimals with a point." if any("," in text for text in wrong) else ""
            raise DatasetError(
                f"{self.path}: column {name!r} must hold finite numbers (or nothing where unknown), got "
                f"{first_few(wrong)}.{hint}"
            )
        return values

    def words(self, name: str, known: Collection[str]) -> list[str]:
        """Return a column whose cells must be among ``known``.

        Raises DatasetError if a cell is another word.
        """
        cells = self.columns[name]
        wrong = [
            f"{cell!r} in line {line}"
            for line, cell in zip(self.lines, cells, strict=True)
            if cell not in known
        ]
        if wrong:
            spelled = ", ".join(repr(word) for word in known)
            raise DatasetError(
                f"{self.path}: column {name!r} must hold one of {spelled}, got {first_few(wrong)}. "
                "Spell them out: a mistyped split would silently move images."
            )
        return list(cells)

    def unique(self, name: str) -> list[str]:
        """Return a column whose cells must be neither empty nor repeated.

        Raises DatasetError if a cell is empty, or occurs twice; the message gives the lines.
        """
        cells = self.columns[name]
        first: dict[str, int] = {}
        wrong: list[str] = []
        for line, cell in zip(self.lines, cells, strict=True):
            if not cell:
                wrong.append(f"nothing in line {line}")
            elif cell in first:
                wrong.append(f"{cell!r} in lines {first[cell]} and {line}")
            else:
                first[cell] = line
        if wrong:
            raise DatasetError(
                f"{self.path}: column {name!r} must name every image once, got {first_few(wrong)}. "
                "Keep one row per image; average scores given several times."
            )
        return list(cells)


def read_delimited(path: Place, *, fold_header: bool = False) -> TextTable:
    """Read a table with a header line, separated by commas, semicolons or tabs.

    Quotes, byte order marks and blank lines are understood; columns without name and content are left out. The
    separator is the one that cuts the header into most columns.

    Parameters
    ----------
    path : Path or RemotePath
        The file.
    fold_header : bool
        Whether column names are turned to lower case.

    Raises
    ------
    DatasetNotFoundError
        If there is no such file.
    DatasetError
        If the file is empty or has a header alone, is too large, repeats a column, or has a row of another length
        than the header.
    """
    data = _read_bytes(path)
    header: list[str] = []
    columns: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        with io.TextIOWrapper(io.BytesIO(data), _encoding(data), newline="") as text:
            delimiter = _find_delimiter(text)
            text.seek(0)
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if not any(cells):
                    pass
                elif not header:
                    header = [cell.casefold() for cell in cells] if fold_header else cells
                    columns = [[] for _ in header]
                elif len(cells) != len(header):
                    raise DatasetError(
                        f"{path}: line {line} has {len(cells)} values, the header has {len(header)} columns. "
                        f"Values that contain {delimiter!r} must stand in double quotes."
                    )
                else:
                    for column, cell in zip(columns, cells, strict=True):
                        column.append(cell)
                    lines.append(line)
                if len(header) > MAX_COLUMNS or len(lines) * len(header) > MAX_CELLS:
                    raise DatasetError(
                        f"{path}: a table of scores has at most {MAX_COLUMNS:,} columns and {MAX_CELLS:,} cells, line "
                        f"{line} exceeds that. Leave out the columns that are not needed."
                    )
                line = reader.line_num + 1
    except csv.Error as error:
        raise DatasetError(f"{path}: line {line} is not valid CSV: {error}.") from error
    except UnicodeError as error:
        raise _wrong_encoding(path, data) from error
    if not header:
        raise DatasetError(f"{path} is empty, expected a header line with column names.")
    # Spreadsheets leave commas at the ends of lines.
    kept = [place for place, name in enumerate(header) if name or any(columns[place])]
    header, columns = [header[place] for place in kept], [columns[place] for place in kept]
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise DatasetError(
            f"{path}: column names must be unique, repeated are {first_few([repr(name) for name in repeated])}."
        )
    if not lines:
        raise DatasetError(
            f"{path} holds a header line and nothing else, expected one line below it for each image."
        )
    return TextTable(path, dict(zip(header, columns, strict=True)), lines)


def read_header(path: Place) -> frozenset[str]:
    """Return the column names of a delimited file, reading only its first kilobytes.

    Returns an empty set where the beginning is not text; `read_delimited` then gives the reason.

    Raises DatasetError if it is no regular file, empty or too large.
    """
    check_regular(path, MAX_TEXT_BYTES, DatasetError)
    with path.open("rb") as file:
        start = file.read(65536)
    text = io.StringIO(start.decode(_encoding(start), errors="replace"))
    try:
        delimiter = _find_delimiter(text)
        text.seek(0)
        line = next((line for line in text if line.strip()), "")
        return frozenset(cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return frozenset()


def _find_delimiter(text: TextIO) -> str:
    header = next((line for line in text if line.strip()), "")
    # max() keeps the first of equals: a one-column header is read as comma-separated.
    return max(",;\t", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


MAX_WORKBOOK_BYTES = 32 * 1024 * 1024
CHILD_TIMEOUT_S = 60
"""What reading a file of some thousand names and scores may take."""


def read_apart(function: str, path: Place, data: bytes, request: object = None) -> dict[str, Any]:
    """Let another process read a file's content by `call_apart`: it may end it or ask for any memory."""
    try:
        return call_apart(function, request, seconds=CHILD_TIMEOUT_S, n_bytes=1 << 29, data=data)[0]
    except (ChildProcessError, TimeoutError) as error:
        raise DatasetError(
            f"{path} is damaged or asks for more than there is: the process that read it was ended by it. Copy or "
            "download the file again."
        ) from error


def read_xlsx(path: Place) -> TextTable:
    """Read the first sheet of a workbook, whose first non-empty row is the header.

    Returns
    -------
    TextTable
        Cells as text; ``lines`` are the sheet's row numbers. Empty rows are left out.

    Raises
    ------
    DatasetError
        If the file is no workbook, or larger than a table of scores, its header repeats a name, it has no row below
        the header, or a row is longer than the header.
    """
    data = read_regular(path, MAX_WORKBOOK_BYTES, DatasetError)
    answer = read_apart("featbank.apart:read_sheet", path, data)
    if "refused" in answer:
        raise DatasetError(
            f"{path} is not a workbook that can be read ({answer['refused']}). "
            "Save its first sheet as CSV in UTF-8 beside it, with the same name and the ending .csv."
        )
    rows = answer["rows"]
    if len(rows) < 2:
        raise DatasetError(f"{path}: the first sheet is empty, expected a header row and rows below it.")
    width = max(place for place, name in enumerate(rows[0][1], start=1) if name)
    header = rows[0][1][:width]
    if len(set(header)) != len(header) or "" in header:
        raise DatasetError(f"{path}: the header must hold unique names, got {header[:20]!r}.")
    for line, cells in rows[1:]:
        if any(cells[width:]):
            raise DatasetError(f"{path}: row {line} has values beyond the {width} columns of the header.")
    columns = {name: [cells[place] for _, cells in rows[1:]] for place, name in enumerate(header)}
    return TextTable(path, columns, [line for line, _ in rows[1:]])
