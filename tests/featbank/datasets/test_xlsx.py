import resource
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featbank.datasets.text import read_any
from featbank.errors import DatasetError
from tests.support.datasets import MAIN_NS, write_workbook, write_xlsx

# XML 1.0 has no form for control characters, and a spreadsheet strips blanks at the ends.
CELLS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="￾￿"), max_size=8).map(
        str.strip
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-1000, 1000),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(1, 99), CELLS, CELLS), min_size=1, max_size=5))
def test_cells_come_back_as_they_were_written(tmp_path, rows):
    table = read_any(write_xlsx(tmp_path / "t.xlsx", [("key", "one", "two"), *rows]))
    found = list(zip(*table.columns.values(), strict=True))
    for cells, row in zip(found, rows, strict=True):
        for cell, value in zip(cells, row, strict=True):
            assert cell == value if isinstance(value, str) else float(cell) == value
    assert list(table.lines) == list(range(2, len(rows) + 2))


def test_the_first_sheet_is_found_through_the_workbook_whatever_its_file_is_called(tmp_path):
    table = read_any(write_xlsx(tmp_path / "t.xlsx", [("a",), (1,)], sheet="sheet9.xml"))
    assert table.columns == {"a": ["1"]}


def test_rich_text_inline_text_and_skipped_cells(tmp_path):
    sheet = (
        f'<worksheet xmlns="{MAIN_NS}"><sheetData>'
        '<row r="2"><c r="A2" t="s"><v>0</v></c><c r="B2" t="inlineStr"><is><t>MOS</t></is></c>'
        '<c r="C2" t="str"><v>note</v></c></row><row r="3"/>'
        '<row r="5"><c r="C5" t="b"><v>1</v></c></row><row r="6"><c><v>7</v></c><c><v>8</v></c></row>'
        "</sheetData></worksheet>"
    )
    runs = '<r><t>Image</t></r><r><t xml:space="preserve"> name</t></r><rPh><t>no</t></rPh>'
    strings = f'<sst xmlns="{MAIN_NS}"><si>{runs}</si></sst>'
    table = read_any(write_workbook(tmp_path / "t.xlsx", sheet, strings))
    assert table.columns == {"Image name": ["", "7"], "MOS": ["", "8"], "note": ["1", ""]}
    assert list(table.lines) == [5, 6]


@pytest.mark.parametrize("content", [b"not a zip archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_workbook_is_refused_with_the_cure(tmp_path, content):
    path = tmp_path / "t.xlsx"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="Save its first sheet as CSV"):
        read_any(path)


def test_an_archive_without_sheets_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DatasetError, match="not a workbook"):
        read_any(tmp_path / "t.xlsx")


def cells_of(n_rows: int, cell: str) -> str:
    rows = "".join(f'<row r="{row}">{cell.format(row=row)}</row>' for row in range(1, n_rows + 1))
    return f'<worksheet xmlns="{MAIN_NS}"><sheetData>{rows}</sheetData></worksheet>'


FAR = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
BOMBS = {
    # One cell in the last column of every row: 16,384 places for each.
    "wide": (cells_of(20_000, '<c r="XFD{row}"><v>1</v></c>'), None),
    "far": (f'<worksheet xmlns="{MAIN_NS}"><sheetData>{FAR}</sheetData></worksheet>', None),
    "cells": (cells_of(200, "<c><v>1</v></c>" * 10_100), None),
    "strings": (
        cells_of(1000, '<c t="s"><v>0</v></c>' * 100),
        f'<sst xmlns="{MAIN_NS}"><si><t>{"a" * 2**25}</t></si></sst>',
    ),
    "entities": (
        f'<!DOCTYPE x [<!ENTITY a "{"a" * 999}">]><worksheet xmlns="{MAIN_NS}">&a;</worksheet>',
        None,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_fill_the_memory(tmp_path, name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with pytest.raises(DatasetError, match=r"ended by it|more than 2,000,000 cells|not a workbook|is empty"):
        read_any(write_workbook(tmp_path / "t.xlsx", *BOMBS[name]))
    assert max(0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before) < 1_000_000  # kB


def test_an_ordinary_sheet_of_many_columns_is_read(tmp_path):
    sheet = cells_of(3, "".join(f"<c><v>{n}</v></c>" for n in range(100)))
    assert len(read_any(write_workbook(tmp_path / "t.xlsx", sheet, None))) == 2


def test_a_damaged_archive_is_refused_with_the_cure(tmp_path):
    path = write_xlsx(tmp_path / "t.xlsx", [("a",), *[(n,) for n in range(50)]])
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 61):
        changed = bytearray(data)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            read_any(path)
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - many bytes do no harm


def test_an_empty_sheet_and_values_beyond_the_header_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="first sheet is empty"):
        read_any(write_xlsx(tmp_path / "t.xlsx", []))
    with pytest.raises(DatasetError, match="row 2 has values beyond the 1 columns"):
        read_any(write_xlsx(tmp_path / "t.xlsx", [("a",), (1, 2)]))
    with pytest.raises(DatasetError, match="names must be unique"):
        read_any(write_xlsx(tmp_path / "t.xlsx", [("a", "a"), (1, 2)]))
