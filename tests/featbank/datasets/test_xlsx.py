import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featbank.datasets import _xlsx
from featbank.datasets.text import read_xlsx
from featbank.errors import DatasetError
from tests.support.datasets import MAIN_NS, column_letters, write_workbook, write_xlsx

# XML 1.0 has no form for control characters, and a spreadsheet strips blanks at the ends.
CELLS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="￾￿"), max_size=8).map(
        str.strip
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-1000, 1000),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(1, 99), CELLS, CELLS), min_size=1, max_size=5))
def test_cells_come_back_as_they_were_written(tmp_path, rows):
    table = read_xlsx(write_xlsx(tmp_path / "t.xlsx", [("key", "one", "two"), *rows]))
    expected = [tuple(value if isinstance(value, str) else repr(value) for value in row) for row in rows]
    assert list(zip(*table.columns.values(), strict=True)) == expected
    assert list(table.lines) == list(range(2, len(rows) + 2))


def test_the_first_sheet_is_found_through_the_workbook_whatever_its_file_is_called(tmp_path):
    table = read_xlsx(write_xlsx(tmp_path / "t.xlsx", [("a",), (1,)], sheet="sheet9.xml"))
    assert table.columns == {"a": ["1"]}


def test_rich_text_inline_text_and_skipped_cells(tmp_path):
    sheet = (
        f'<worksheet xmlns="{MAIN_NS}"><sheetData>'
        '<row r="2"><c r="A2" t="s"><v>0</v></c><c r="B2" t="inlineStr"><is><t>MOS</t></is></c>'
        '<c r="C2" t="str"><v>note</v></c></row><row r="3"/>'
        '<row r="5"><c r="C5" t="b"><v>1</v></c></row><row r="6"><c><v>7</v></c><c><v>8</v></c></row>'
        "</sheetData></worksheet>"
    )
    strings = (
        f'<sst xmlns="{MAIN_NS}"><si><r><t>Image</t></r><r><t> name</t></r><rPh><t>no</t></rPh></si></sst>'
    )
    table = read_xlsx(write_workbook(tmp_path / "t.xlsx", sheet, strings))
    assert table.columns == {"Image name": ["", "7"], "MOS": ["", "8"], "note": ["1", ""]}
    assert list(table.lines) == [5, 6]


@given(st.integers(0, 16383))
def test_columns_are_counted_as_spreadsheets_spell_them(place):
    assert _xlsx._column_index(f"{column_letters(place)}12", default=-1) == place


@pytest.mark.parametrize("content", [b"not a zip archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_workbook_is_refused_with_the_cure(tmp_path, content):
    path = tmp_path / "t.xlsx"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="Save its first sheet as CSV"):
        read_xlsx(path)


def test_an_archive_without_sheets_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DatasetError, match="not a workbook"):
        read_xlsx(tmp_path / "t.xlsx")


def test_entity_declarations_are_refused(tmp_path):
    sheet = f'<!DOCTYPE x [<!ENTITY a "aaaa">]><worksheet xmlns="{MAIN_NS}"/>'
    with pytest.raises(DatasetError, match="document type"):
        read_xlsx(write_workbook(tmp_path / "t.xlsx", sheet, None))


def test_an_archive_that_inflates_without_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_xlsx, "MAX_MEMBER_BYTES", 10_000)
    path = write_xlsx(tmp_path / "t.xlsx", [("a",), *[(1,)] * 2000])
    assert path.stat().st_size < 10_000 * 2
    with pytest.raises(DatasetError, match="larger than 10,000 bytes"):
        read_xlsx(path)


def cells_of(n_rows: int, cell: str) -> str:
    rows = "".join(f'<row r="{row}">{cell.format(row=row)}</row>' for row in range(1, n_rows + 1))
    return f'<worksheet xmlns="{MAIN_NS}"><sheetData>{rows}</sheetData></worksheet>'


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        # One cell in the last column of every row: 16,384 places for each.
        (cells_of(20_000, '<c r="XFD{row}"><v>1</v></c>'), "unique names"),
        ("<a>" * 100, "inside each other"),
        (cells_of(1, "<c/>" * 5000), "elements"),
        (cells_of(1, "<c><v>1</v></c>" * 1100), "cells"),
        (cells_of(40, "".join(f"<c><v>{n}</v></c>" for n in range(30))), "cells"),
        (cells_of(3, "".join(f"<c><v>{n}</v></c>" for n in range(100))), ""),
    ],
    ids=["wide", "deep", "elements", "cells", "rows", "allowed"],
)
def test_bombs_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch, sheet, words):
    monkeypatch.setattr(_xlsx, "MAX_CELLS", 1000 if len(sheet) < 1e5 else _xlsx.MAX_CELLS)
    monkeypatch.setattr(_xlsx, "MAX_ELEMENTS", 4000 if len(sheet) < 1e5 else _xlsx.MAX_ELEMENTS)
    path = write_workbook(tmp_path / "t.xlsx", sheet, None)
    if not words:
        assert len(read_xlsx(path)) == 2
        return
    with pytest.raises(DatasetError, match=words):
        read_xlsx(path)


def test_a_damaged_archive_is_refused_with_the_cure(tmp_path):
    path = write_xlsx(tmp_path / "t.xlsx", [("a",), *[(n,) for n in range(50)]])
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            read_xlsx(path)
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017 - many bytes do no harm


def test_an_empty_sheet_and_values_beyond_the_header_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="first sheet is empty"):
        read_xlsx(write_xlsx(tmp_path / "t.xlsx", []))
    with pytest.raises(DatasetError, match="row 2 has values beyond the 1 columns"):
        read_xlsx(write_xlsx(tmp_path / "t.xlsx", [("a",), (1, 2)]))
    with pytest.raises(DatasetError, match="unique names"):
        read_xlsx(write_xlsx(tmp_path / "t.xlsx", [("a", "a"), (1, 2)]))
