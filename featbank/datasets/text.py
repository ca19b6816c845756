"""Reads tables of any kind into columns of strings, with errors that name file and line.

What a file leaves open (separator, decimal commas, encoding) is settled only where one answer fits, and is told.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.apart import call_apart, cell_text
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.remote import Place, check_regular, read_regular

UNKNOWN_WORDS = frozenset({"", "nan", "na", "n/a", "null", "none"})


MAX_TEXT_BYTES = 128 * 1024 * 1024
MAX_COLUMNS = 16_384
MAX_CELLS = 10_000_000
"""Two million rows of the columns that are read stay below; more would fill the memory before they are refused."""


TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".feather", ".jsonl"})

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
"""What may stand between columns, the first of equals preferred; blanks only where nothing else fits."""

_SNIFFED = 65_536
_SEP_LINE = re.compile(r"""["']?sep=(.)["']?.?""", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_NAMELESS = re.compile(r"(unnamed: \d+(\.\d+)*|__index_level_\d+__)?", re.IGNORECASE)


def read_text(path: Place) -> str:
    """Read a text file in UTF-8 (with or without a byte order mark) or, if its mark says so, UTF-16.

    Raises DatasetNotFoundError if there is no such file; DatasetError if the bytes are in another
    encoding, or the file is none, too large, or cannot be read.
    """
    data = _read_bytes(path)
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, data, _encoding(data)) from error


def _read_bytes(path: Place) -> bytes:
    try:
        return read_regular(path, MAX_TEXT_BYTES, DatasetError)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"no file at {path}.") from error


def _encoding(data: bytes, declared: str = "") -> str:
    """Return what the first bytes say beyond doubt, else what the user says, else UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if data.startswith(codecs.BOM_UTF8) or not data[:4].strip(b"\0"):
        return "utf-8-sig"
    if data[:4:2] == b"\0\0" or data[1:4:2] == b"\0\0":  # ASCII in UTF-16 without a mark
        return "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        "".encode(declared or "utf-8")
        return codecs.lookup(declared).name if declared else "utf-8-sig"
    except LookupError as error:
        raise DatasetError(
            f"{declared!r} is no encoding of text that is known here. Such are utf-8, utf-16, cp1252 (Windows, western "
            "Europe), latin-1, gb18030."
        ) from error


def _wrong_encoding(path: Place, data: bytes, encoding: str) -> DatasetError:
    start = line = 0
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        start, line = error.start, data.count(b"\n", 0, error.start) + 1
    name = encoding.upper().removesuffix("-SIG")
    return DatasetError(
        f"{path} must be text in {name}, line {line} holds the byte 0x{data[start]:02x}. "
        "Name its encoding with --encoding, such as --encoding cp1252 for one saved on Windows, or save it again with "
        "the encoding UTF-8; names read in a wrong encoding would miss their files."
    )


@dataclass(frozen=True)
class TextTable:
    """Columns of strings from one file, blanks at their ends removed, and the line of each row, counted from 1.

    ``understood`` says how the file was read, where it could have been read otherwise.
    """

    path: Place
    columns: dict[str, list[str]]
    lines: Sequence[int]
    understood: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    def notes(self) -> list[str]:
        """Say in one sentence how the file was read; nothing where it is plain."""
        return [f"How the table was read: {'; '.join(self.understood)}."] if self.understood else []

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

        Commas are decimal ones where no other reading is left: a cell such as ``2,5`` or ``0,125`` shows it.

        Raises DatasetError if a cell is neither, or is infinite, or if all commas could separate thousands.
        """
        cells = self.columns[name]
        commas = [cell for cell in cells if "," in cell]
        is_decimal = bool(commas) and all(map(_DECIMAL_COMMA.fullmatch, commas))
        is_decimal = is_decimal and not any("." in cell for cell in cells)
        if is_decimal and all(map(_THOUSANDS.fullmatch, commas)):
            raise DatasetError(
                f"{self.path}: the commas of column {name!r} may be decimal ones or separate thousands: "
                f"{first_few([repr(cell) for cell in commas])}. Write decimals with a point."
            )
        values = np.full(len(self), np.nan)
        wrong: list[str] = []
        for row, (line, cell) in enumerate(zip(self.lines, cells, strict=True)):
            if cell.casefold() in UNKNOWN_WORDS:
                continue
            try:
                # Python also takes "1_000", which no table means as a number.
                values[row] = (
                    float(cell.replace(",", ".") if is_decimal else cell) if "_" not in cell else math.inf
                )
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
        if is_decimal:
            self.understood.append(f"decimal commas in {name!r}")
        return values

    def words(
        self, name: str, known: Collection[str], spellings: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return a column whose cells must be among ``known``, in any case, or among other ``spellings`` of them.

        Raises DatasetError if a cell is another word.
        """
        cells = self.columns[name]
        meant_by = dict(spellings or {}) | {word.casefold(): word for word in known}
        meant_by = {word: meant for word, meant in meant_by.items() if meant in known}
        meant = [meant_by.get(cell.casefold()) for cell in cells]
        wrong = [
            f"{cell!r} in line {line}"
            for line, cell, word in zip(self.lines, cells, meant, strict=True)
            if word is None
        ]
        if wrong:
            spelled = ", ".join(repr(word) for word in known)
            raise DatasetError(
                f"{self.path}: column {name!r} must hold one of {spelled}, got {first_few(wrong)}. "
                "Spell them out: a mistyped split would silently move images."
            )
        others = dict.fromkeys((cell, word) for cell, word in zip(cells, meant, strict=True) if cell != word)
        if others:
            read = ", ".join(f"{cell} as {word}" for cell, word in others)
            self.understood.append(f"in {name!r} {read}")
        return [word for word in meant if word is not None]

    def without(self, names: Collection[str]) -> TextTable:
        """Return the table without some of its columns."""
        kept = {name: cells for name, cells in self.columns.items() if name not in names}
        return replace(self, columns=kept)

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


def read_delimited(path: Place, *, fold_header: bool = False, encoding: str = "") -> TextTable:
    """Read a table with a header line, separated by commas, semicolons, tabs, bars or blanks.

    Quotes, byte order marks, blank lines, comment lines (``#``) and Excel's line ``sep=;`` are understood. The
    separator is the one that cuts the first rows into as many cells as the header.

    Parameters
    ----------
    path : Path or RemotePath
        The file.
    fold_header : bool
        Whether column names are turned to lower case.
    encoding : str
        As the user says; by default UTF-8, or UTF-16 where the first bytes show it.

    Raises
    ------
    DatasetNotFoundError
        If there is no such file.
    DatasetError
        If the file is empty or has a header alone, is too large, holds NUL characters, repeats a column, or has a row
        of another length than the header.
    """
    data = _read_bytes(path)
    encoding = _encoding(data, encoding)
    header: list[str] = []
    columns: list[list[str]] = []
    lines: list[int] = []
    n_comments = 0
    line = 1
    try:
        with io.TextIOWrapper(io.BytesIO(data), encoding, newline="") as text:
            start = text.read(_SNIFFED)
            mark, has_sep_line, has_row_names = _find_layout(start)
            text.seek(0)
            reader = csv.reader(text, delimiter=mark, strict=True)
            for row in reader:
                cells = _cells(row, mark)
                if not any(cells) or (has_sep_line and not header and cells[0].casefold().startswith("sep=")):
                    pass
                elif any("\0" in cell for cell in cells):
                    raise DatasetError(
                        f"{path}: line {line} holds a NUL character, which no text has. The file is damaged, or in "
                        "another encoding; export it again as CSV in UTF-8."
                    )
                elif _is_comment(cells, len(header)):
                    n_comments += 1
                elif not header:
                    header = ["", *cells] if has_row_names else cells
                    columns = [[] for _ in header]
                elif len(cells) < len(header) or any(cells[len(header) :]):
                    raise DatasetError(
                        f"{path}: line {line} has {len(cells)} values, the header has {len(header)} columns. "
                        f"Values that contain {mark!r} must stand in double quotes."
                    )
                else:
                    for column, cell in zip(columns, cells, strict=False):
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
        raise _wrong_encoding(path, data, encoding) from error
    if not header:
        raise DatasetError(f"{path} is empty, expected a header line with column names.")
    if not lines:
        raise DatasetError(
            f"{path} holds a header line and nothing else, expected one line below it for each image."
        )
    understood = [] if mark == "," else [f"{SEPARATORS.get(mark, repr(mark))} between columns"]
    understood += [] if encoding == "utf-8-sig" else [f"encoding {encoding}"]
    understood += [f"comment lines left out: {n_comments:,}"] if n_comments else []
    return _name_columns(path, header, columns, lines, understood, fold_header=fold_header)


def _name_columns(
    path: Place,
    header: Sequence[str],
    columns: Sequence[list[str]],
    lines: Sequence[int],
    understood: list[str],
    *,
    fold_header: bool,
) -> TextTable:
    """Put names to columns; those without one, such as the index that pandas writes, are left out or called ''."""
    named: dict[str, list[str]] = {}
    repeated: list[str] = []
    for place, (title, cells) in enumerate(zip(header, columns, strict=True)):
        name = title.casefold() if fold_header else title
        if _NAMELESS.fullmatch(name):
            if not any(cells):
                continue  # spreadsheets leave commas at the ends of lines
            is_numbers = all(cell.isdecimal() for cell in cells)
            if place == 0 and not is_numbers:
                named[""] = cells
            elif is_numbers and (place == 0 or title):
                understood.append("a column of row numbers left out")
            else:
                understood.append(f"a column without a name left out ({first_few(cells[:3])}, ...)")
        elif name in named:
            repeated.append(repr(name))
        else:
            named[name] = cells
    if repeated:
        raise DatasetError(
            f"{path}: column names must be unique, repeated are {first_few(sorted(set(repeated)))}."
        )
    return TextTable(path, named, lines, understood)


def _cells(row: list[str], mark: str) -> list[str]:
    cells = [cell.strip() for cell in row]
    return [cell for cell in cells if cell] if mark == " " else cells


def _is_comment(cells: list[str], width: int) -> bool:
    """Tell a comment line from a header whose first column is called ``#``, and from a file name that begins so."""
    return (
        cells[0].startswith("#") and len(cells) != width and (cells[0] != "#" or len(cells) < 2 or width > 0)
    )


def read_header(path: Place, encoding: str = "") -> frozenset[str]:
    """Return the column names of a delimited file, reading only its first kilobytes.

    Returns an empty set where the beginning is not text; `read_delimited` then gives the reason.

    Raises DatasetError if it is no regular file, empty or too large, or the encoding is unknown.
    """
    check_regular(path, MAX_TEXT_BYTES, DatasetError)
    with path.open("rb") as file:
        data = file.read(_SNIFFED)
    start = data.decode(_encoding(data, encoding), errors="replace")
    mark, has_sep_line, _ = _find_layout(start)
    return frozenset(next(iter(_first_rows(start, mark, has_sep_line=has_sep_line)), []))


def _first_rows(start: str, mark: str, *, has_sep_line: bool) -> list[list[str]]:
    """Cut the beginning of a file into rows, the header first; comments are left out."""
    lines: list[str] = list(io.StringIO(start, newline=""))
    rows: list[list[str]] = []
    for row in islice(
        csv.reader(lines[: -1 if len(start) >= _SNIFFED and len(lines) > 1 else None], delimiter=mark), 200
    ):
        cells = _cells(row, mark)
        if has_sep_line and not rows and cells and cells[0].casefold().startswith("sep="):
            continue
        if any(cells) and not _is_comment(cells, len(rows[0]) if rows else 0):
            rows.append(cells)
    return rows


def _find_layout(start: str) -> tuple[str, bool, bool]:
    """Return the separator, whether a line ``sep=`` names it, and whether rows begin with numbers that R writes."""
    first = next((line for line in io.StringIO(start) if line.strip()), "")
    match = _SEP_LINE.fullmatch(first.strip("\r\n"))
    best = (1, ",", False)
    for mark in SEPARATORS if match is None else match[1]:
        try:
            header, *rows = _first_rows(start, mark, has_sep_line=match is not None) or [[]]
        except csv.Error:  # such as a cell without end; the reader will tell it
            continue
        width = len(header)
        is_numbered = len(rows) > 1 and all(len(row) == width + 1 and row[0].isdecimal() for row in rows)
        numbers = [int(row[0][:18]) for row in rows] if is_numbered else []
        is_numbered = is_numbered and numbers == sorted(set(numbers)) and any(row[-1] for row in rows)
        fits = width > 1 and (is_numbered or all(len(row) == width for row in rows))
        if match is not None:
            return mark, True, is_numbered
        # What fits the rows comes before what does not; then the most columns, blanks last.
        rank = width + (0 if not fits else MAX_CELLS if mark == " " else 2 * MAX_CELLS)
        if rank > best[0] and (fits or mark != " "):
            best = (rank, mark, fits and is_numbered)
    return best[1], False, best[2]


MAX_BINARY_BYTES = 32 * 1024 * 1024
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


def read_any(path: Place, *, fold_header: bool = False, encoding: str = "") -> TextTable:
    """Read a table of the kind that its ending says: a workbook, Parquet, Feather, JSON lines, or delimited text.

    ``fold_header`` and ``encoding`` as of `read_delimited`; errors, too, and DatasetError if the file is not what it
    seems, or larger than a table of scores.
    """
    suffix = path.suffix.casefold()
    if suffix == ".xlsx":
        return read_workbook(path, fold_header=fold_header)
    if suffix in (".parquet", ".feather"):
        return _read_arrow(path, fold_header=fold_header)
    if suffix == ".jsonl":
        return _read_json_lines(path, fold_header=fold_header, encoding=encoding)
    return read_delimited(path, fold_header=fold_header, encoding=encoding)


def _answer(function: str, path: Place, kind: str, request: object = None) -> dict[str, Any]:
    data = read_regular(path, MAX_BINARY_BYTES, DatasetError)
    answer = read_apart(f"featbank.apart:{function}", path, data, request)
    if "refused" in answer:
        raise DatasetError(
            f"{path} is not a {kind} that can be read ({answer['refused']}). "
            "Save its first sheet as CSV in UTF-8 beside it, with the same name and the ending .csv."
            if kind == "workbook"
            else f"{path} is not a {kind} that can be read ({answer['refused']}). Save the columns that are needed as "
            "CSV in UTF-8."
        )
    return answer


def read_workbook(
    path: Place, *, sheet: str = "", header: Collection[str] = (), fold_header: bool = False
) -> TextTable:
    """Read a sheet of a workbook, the first unless it is named; lines are its row numbers.

    Its header is the first row with the columns ``header``, by default the first that is not empty.

    Raises DatasetError if there is no such sheet or row, or nothing below it.
    """
    answer = _answer("read_sheet", path, "workbook", sheet)
    every = answer["rows"]
    rows = every[
        next((place for place, (_, cells) in enumerate(every) if set(header) <= set(cells)), len(every)) :
    ]
    if len(rows) < 2:
        which = repr(sheet) if sheet else "the first sheet"
        named = f" with {', '.join(map(repr, header))}" if header else ""
        raise DatasetError(f"{path}: {which} is empty, expected a header row{named} and rows below it.")
    width = max(place for place, name in enumerate(rows[0][1], start=1) if name)
    for line, cells in rows[1:]:
        if any(cells[width:]) and not header:
            raise DatasetError(f"{path}: row {line} has values beyond the {width} columns of the header.")
    columns = [[cells[place] for _, cells in rows[1:]] for place in range(width)]
    is_chosen_here = not sheet and answer["n_sheets"] > 1
    understood = [f"the first of {answer['n_sheets']} sheets"] if is_chosen_here else []
    lines = [line for line, _ in rows[1:]]
    return _name_columns(path, rows[0][1][:width], columns, lines, understood, fold_header=fold_header)


def _read_arrow(path: Place, *, fold_header: bool) -> TextTable:
    """Read a Parquet or Feather file; lines are its rows, counted from 1."""
    answer = _answer("read_arrow", path, f"table in {path.suffix.casefold()[1:].capitalize()}")
    header, columns, nested = answer["header"], answer["columns"], answer["nested"]
    if not columns or not columns[0]:
        raise DatasetError(f"{path} is empty, expected a column of image names and one row for each image.")
    understood = [f"columns of lists left out: {first_few(nested)}"] if nested else []
    lines = range(1, len(columns[0]) + 1)
    return _name_columns(path, header, columns, lines, understood, fold_header=fold_header)


def _read_json_lines(path: Place, *, fold_header: bool, encoding: str) -> TextTable:
    """Read one JSON object in each line; what an object lacks is empty."""
    data = _read_bytes(path)
    encoding = _encoding(data, encoding)
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    line = 0
    try:
        with io.TextIOWrapper(io.BytesIO(data), encoding) as text:
            for line, row in enumerate(text, start=1):
                if not row.strip():
                    continue
                record = json.loads(row)
                if not isinstance(record, dict):
                    raise DatasetError(f"{path}: line {line} must hold a JSON object, got {row[:40]!r}.")
                for name in [name for name in record if name not in columns]:
                    columns[name] = [""] * len(lines)
                for name, cells in columns.items():
                    cells.append(cell_text(record.get(name)))
                lines.append(line)
                if len(columns) > MAX_COLUMNS or len(lines) * len(columns) > MAX_CELLS:
                    raise DatasetError(
                        f"{path}: a table of scores has at most {MAX_COLUMNS:,} columns and {MAX_CELLS:,} cells."
                    )
    except UnicodeError as error:
        raise _wrong_encoding(path, data, encoding) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: line {line} is not valid JSON: {error}.") from error
    if not lines:
        raise DatasetError(f"{path} is empty, expected one JSON object for each image.")
    return _name_columns(path, list(columns), list(columns.values()), lines, [], fold_header=fold_header)
