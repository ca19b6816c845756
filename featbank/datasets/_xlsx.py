"""Reads the first sheet of an xlsx workbook as text; formulas, styles and dates are not interpreted.

SPAQ publishes its scores only in this form. The format is a zip archive of XML files (ECMA-376, part 1,
section 18), so the standard library is enough and no spreadsheet package has to be installed. Elements pass by one by
one, and bytes, elements and cells are counted: a small file can inflate to a large one.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from featbank.datasets.text import TextTable
from featbank.errors import DatasetError, FeatbankError
from featbank.remote import Place, check_regular

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_MEMBER_BYTES = 64 * 1024 * 1024
MAX_ELEMENTS = 4_000_000
MAX_CELLS = 2_000_000
MAX_DEPTH = 64
"""What a workbook of scores stays far below; an archive that inflates beyond is none."""

_CHUNK = 1 << 16
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


class _Event(NamedTuple):
    """The start of an element, or its end with the text that stood directly in it."""

    is_start: bool
    tag: str
    attributes: dict[str, str]
    text: str


def read_xlsx(path: Place) -> TextTable:
    """Read the first sheet, whose first non-empty row is the header.

    Parameters
    ----------
    path : Path or RemotePath
        The workbook.

    Returns
    -------
    TextTable
        Cells as text; ``lines`` are the sheet's row numbers. Empty rows are left out.

    Raises
    ------
    DatasetError
        If the file is no workbook, or larger than a table of scores, its header repeats a name, it has no row below
        the header, or a row is longer than the header.

    References
    ----------
    .. [1] ECMA-376, Office Open XML file formats, part 1, sections 18.3 (worksheets) and 18.4 (shared strings).
    """
    try:
        check_regular(path, MAX_FILE_BYTES, DatasetError)
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            rows = [row for row in _rows(archive, _first_sheet(archive), _shared_strings(archive)) if row[1]]
    except FeatbankError:
        raise
    except Exception as error:  # whatever the libraries of the formats make of a damaged file
        raise DatasetError(
            f"{path} is not a workbook that can be read ({type(error).__name__}: {error}). "
            "Save its first sheet as CSV in UTF-8 beside it, with the same name and the ending .csv."
        ) from error
    if len(rows) < 2:
        raise DatasetError(f"{path}: the first sheet is empty, expected a header row and rows below it.")
    header = [rows[0][1].get(place, "") for place in range(max(rows[0][1]) + 1)]
    if len(set(header)) != len(header) or "" in header:
        raise DatasetError(f"{path}: the header must hold unique names, got {header[:20]!r}.")
    if len(rows) * len(header) > MAX_CELLS:
        raise _too_large(path, f"{MAX_CELLS:,} cells")
    for line, cells in rows[1:]:
        if max(cells) >= len(header):
            raise DatasetError(
                f"{path}: row {line} has values beyond the {len(header)} columns of the header."
            )
    columns = {name: [cells.get(place, "") for _, cells in rows[1:]] for place, name in enumerate(header)}
    return TextTable(path, columns, [line for line, _ in rows[1:]])


def _too_large(who: object, limit: str) -> DatasetError:
    return DatasetError(
        f"{who} is larger than {limit}, more than any table of scores. Save the sheet as CSV."
    )


def _events(archive: zipfile.ZipFile, name: str) -> Iterator[_Event]:
    """Parse a member piece by piece; the size in the archive's directory is not to be trusted."""
    who = f"{archive.filename}: {name}"
    found: list[_Event] = []
    texts: list[list[str]] = [[]]
    n_elements = n_bytes = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        found.append(_Event(True, tag, attributes, ""))
        texts.append([])
        if len(texts) > MAX_DEPTH:
            raise _too_large(who, f"{MAX_DEPTH} elements inside each other")

    def end(tag: str) -> None:
        found.append(_Event(False, tag, {}, "".join(texts.pop())))

    def refuse(*_: object) -> None:
        raise DatasetError(f"{who} declares a document type, which no workbook does.")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    with archive.open(name) as file:
        while True:
            chunk = file.read(_CHUNK)
            n_bytes += len(chunk)
            parser.Parse(chunk, not chunk)
            n_elements += len(found)
            if n_bytes > MAX_MEMBER_BYTES or n_elements > 2 * MAX_ELEMENTS:
                raise _too_large(who, f"{MAX_MEMBER_BYTES:,} bytes or {MAX_ELEMENTS:,} elements")
            yield from found
            found.clear()
            if not chunk:
                return


def _texts(events: Iterator[_Event], tag: str) -> str:
    """Join the text up to the end of an item; it may be split into runs, and phonetic guides repeat it."""
    parts: list[str] = []
    n_guides = 0
    for event in events:
        if event.tag == f"{_MAIN}rPh":
            n_guides += 1 if event.is_start else -1
        elif event.is_start:
            continue
        elif event.tag == f"{_MAIN}t" and not n_guides:
            parts.append(event.text)
        elif event.tag == tag:
            break
    return "".join(parts).strip()


def _shared_strings(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    events = _events(archive, "xl/sharedStrings.xml")
    item = f"{_MAIN}si"
    return [_texts(events, item) for event in events if event.is_start and event.tag == item]


def _first_sheet(archive: zipfile.ZipFile) -> str:
    sheets = (e for e in _events(archive, "xl/workbook.xml") if e.is_start and e.tag == f"{_MAIN}sheet")
    sheet = next(sheets, None)
    if sheet is None:
        raise DatasetError(f"{archive.filename}: the workbook has no sheet.")
    for event in _events(archive, "xl/_rels/workbook.xml.rels"):
        if event.tag == _PACKAGE and event.attributes.get("Id") == sheet.attributes.get(_RELATION, ""):
            target = event.attributes.get("Target", "")
            return posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
    raise DatasetError(f"{archive.filename}: the first sheet names no file.")


def _rows(archive: zipfile.ZipFile, name: str, strings: list[str]) -> Iterator[tuple[int, dict[int, str]]]:
    """Yield the number of each row and its cells that are not empty, by column."""
    number = column = n_cells = 0
    cells: dict[int, str] = {}
    kind = value = ""
    events = _events(archive, name)
    for event in events:
        if event.is_start and event.tag == f"{_MAIN}row":
            number, column, cells = int(event.attributes.get("r", number + 1)), -1, {}
        elif event.is_start and event.tag == f"{_MAIN}c":
            column = _column_index(event.attributes.get("r", ""), default=column + 1)
            kind, value = event.attributes.get("t", "n"), ""
        elif event.is_start and event.tag == f"{_MAIN}is":
            value = _texts(events, event.tag)
        elif event.tag == f"{_MAIN}v":
            value = event.text.strip()
        elif not event.is_start and event.tag == f"{_MAIN}c":
            text = strings[int(value)] if kind == "s" and value else value
            if text:
                cells[column] = text
                n_cells += 1
                if n_cells > MAX_CELLS:
                    raise _too_large(f"{archive.filename}: {name}", f"{MAX_CELLS:,} cells")
        elif not event.is_start and event.tag == f"{_MAIN}row":
            yield number, cells


def _column_index(reference: str, default: int) -> int:
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return default
    index = 0
    for letter in letters.group():
        index = 26 * index + ord(letter) - ord("A") + 1
    return index - 1
