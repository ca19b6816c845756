"""Reads the first sheet of an xlsx workbook as text; formulas, styles and dates are not interpreted.

SPAQ publishes its scores only in this form. The format is a zip archive of XML files (ECMA-376, part 1,
section 18), so the standard library is enough and no spreadsheet package has to be installed.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

from featbank.datasets._text import TextTable
from featbank.errors import DatasetError, StoreError
from featbank.remote import Place

# A sheet of a million rows stays far below; an archive that inflates beyond is not a table of scores.
MAX_MEMBER_BYTES = 256 * 1024 * 1024

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


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
        If the file is no workbook, its header repeats a name, or a row is longer than the header.

    References
    ----------
    .. [1] ECMA-376, Office Open XML file formats, part 1, sections 18.3 (worksheets) and 18.4 (shared strings).
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            strings = _shared_strings(archive)
            sheet = _member(archive, _first_sheet(archive))
            rows = list(_rows(sheet, strings))
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, ValueError, IndexError, OSError) as error:
        if isinstance(error, DatasetError | StoreError):
            raise
        raise DatasetError(
            f"{path} is not a workbook that can be read ({type(error).__name__}: {error}). "
            "Save its first sheet as CSV in UTF-8 beside it, with the same name and the ending .csv."
        ) from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows:
        raise DatasetError(f"{path}: the first sheet is empty, expected a header row.")
    header = rows[0][1]
    while header and not header[-1]:
        header.pop()
    if len(set(header)) != len(header) or "" in header:
        raise DatasetError(f"{path}: the header must hold unique names, got {header!r}.")
    for line, cells in rows[1:]:
        if any(cells[len(header) :]):
            raise DatasetError(
                f"{path}: row {line} has values beyond the {len(header)} columns of the header."
            )
        cells.extend([""] * (len(header) - len(cells)))
    columns = {name: [cells[place] for _, cells in rows[1:]] for place, name in enumerate(header)}
    return TextTable(path, columns, [line for line, _ in rows[1:]])


def _member(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    # The size in the archive's directory is not to be trusted, so the reading itself is bounded.
    with archive.open(name) as file:
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise DatasetError(f"{archive.filename}: {name} is larger than {MAX_MEMBER_BYTES:,} bytes.")
    if b"<!DOCTYPE" in data[:4096]:
        raise DatasetError(f"{archive.filename}: {name} declares a document type, which no workbook does.")
    return ElementTree.fromstring(data)  # noqa: S314 - size is bounded and entity declarations are refused above


def _shared_strings(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    items = _member(archive, "xl/sharedStrings.xml").iter(f"{_MAIN}si")
    return [_text(item) for item in items]


def _text(item: ElementTree.Element) -> str:
    # Rich text is split into runs <r><t>; phonetic guides <rPh> repeat it and are not part of the value.
    parts = [*item.findall(f"{_MAIN}t"), *item.findall(f"{_MAIN}r/{_MAIN}t")]
    return "".join(part.text or "" for part in parts).strip()


def _first_sheet(archive: zipfile.ZipFile) -> str:
    sheet = next(_member(archive, "xl/workbook.xml").iter(f"{_MAIN}sheet"), None)
    if sheet is None:
        raise DatasetError(f"{archive.filename}: the workbook has no sheet.")
    for relation in _member(archive, "xl/_rels/workbook.xml.rels").iter(_PACKAGE):
        if relation.get("Id") == sheet.get(_RELATION):
            target = relation.get("Target", "")
            return posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
    raise DatasetError(f"{archive.filename}: the first sheet names no file.")


def _rows(sheet: ElementTree.Element, strings: list[str]) -> Iterator[tuple[int, list[str]]]:
    number = 0
    for row in sheet.iter(f"{_MAIN}row"):
        number = int(row.get("r", number + 1))
        cells: list[str] = []
        for cell in row.iter(f"{_MAIN}c"):
            place = _column_index(cell.get("r", ""), default=len(cells))
            # Empty cells are not written down; the reference says how many were skipped.
            cells.extend([""] * (place - len(cells)))
            cells.append(_cell_text(cell, strings))
        yield number, cells


def _column_index(reference: str, default: int) -> int:
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        return default
    index = 0
    for letter in letters.group():
        index = 26 * index + ord(letter) - ord("A") + 1
    return index - 1


def _cell_text(cell: ElementTree.Element, strings: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find(f"{_MAIN}is")
        return "" if inline is None else _text(inline)
    value = cell.findtext(f"{_MAIN}v", default="").strip()
    return strings[int(value)] if kind == "s" and value else value
