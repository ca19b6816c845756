import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featbank.datasets import read_dataset, text
from featbank.datasets.text import read_delimited, read_header
from featbank.errors import DatasetError, DatasetNotFoundError

# Line ends within a cell come back as written; other control characters are no part of a table.
CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).map(str.strip)


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(["x", "y"]), CELLS, CELLS), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_a_csv_writer_wrote_is_read_back(tmp_path, rows, delimiter):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(["key", "one", "two"])
    writer.writerows(rows)
    table = read_delimited(write(tmp_path / "t.csv", buffer.getvalue()))
    assert list(zip(*table.columns.values(), strict=True)) == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_understood(tmp_path, encoding):
    path = write(tmp_path / "t.csv", "name,mos\nmüller 1.jpg,0.5\n", encoding)
    assert read_delimited(path).columns == {"name": ["müller 1.jpg"], "mos": ["0.5"]}
    assert read_header(path) == {"name", "mos"}


def test_another_encoding_is_refused_with_line_and_byte(tmp_path):
    path = write(tmp_path / "t.csv", "name,mos\na.jpg,1\nmüller.jpg,2\n", "latin-1")
    with pytest.raises(DatasetError, match="line 3 holds the byte 0xfc"):
        read_delimited(path)


def test_windows_line_ends_blank_lines_and_quotes(tmp_path):
    path = write(tmp_path / "t.csv", '\r\n"name","mos"\r\n\r\n"a, b ""c"".jpg", 1 \r\n\r\n')
    table = read_delimited(path)
    assert table.columns == {"name": ['a, b "c".jpg'], "mos": ["1"]}
    assert list(table.lines) == [4]


def test_line_numbers_count_lines_inside_quotes(tmp_path):
    path = write(tmp_path / "t.csv", 'name,mos\n"a\nb",1\nc,x\n')
    with pytest.raises(DatasetError, match="'x' in line 4"):
        read_delimited(path).numbers("mos")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b\n1,2,3\n", "line 2 has 3 values, the header has 2 columns"),
        ("a,b\n1\n", "line 2 has 1 values"),
        ("a,b,a\n1,2,3\n", "column names must be unique, repeated are 'a'"),
        ('a,b\n"1,2\n', "not valid CSV"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_delimited(write(tmp_path / "t.csv", text))


def test_columns_without_a_name_are_left_out_and_told(tmp_path):
    table = read_delimited(write(tmp_path / "t.csv", "a,,,\n1,,2,3\n"))
    assert table.columns == {"a": ["1"]}
    [note] = table.notes()
    assert "a column without a name left out (2, ...); a column without a name left out (3, ...)" in note


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no file at"):
        read_delimited(tmp_path / "t.csv")


@given(
    values=st.lists(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just(None)), min_size=1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_are_read_exactly_and_gaps_become_nan(tmp_path, values):
    lines = "".join(f"x,{'' if value is None else repr(value)}\n" for value in values)
    numbers = read_delimited(write(tmp_path / "t.csv", f"name,mos\n{lines}")).numbers("mos")
    np.testing.assert_array_equal(numbers, [np.nan if value is None else value for value in values])


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "n/a", "NULL", "None"])
def test_words_for_unknown_become_nan(tmp_path, cell):
    table = read_delimited(write(tmp_path / "t.csv", f"name,mos\nx,{cell}\n"))
    assert np.isnan(table.numbers("mos")).all()


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", "1_000", "good", "1 2"])
def test_what_is_no_finite_number_is_refused(tmp_path, cell):
    table = read_delimited(write(tmp_path / "t.csv", f"name,mos\nx,{cell}\n"))
    with pytest.raises(DatasetError, match=r"must hold finite numbers.*in line 2"):
        table.numbers("mos")


def test_repeated_and_empty_names_are_refused_with_their_lines(tmp_path):
    table = read_delimited(write(tmp_path / "t.csv", "name,mos\nx,1\n,2\nx,3\n"))
    with pytest.raises(DatasetError, match="nothing in line 3, 'x' in lines 2 and 4"):
        table.unique("name")


def test_long_lists_of_errors_are_capped(tmp_path):
    table = read_delimited(write(tmp_path / "t.csv", "name,set\n" + "x,train\n" * 9))
    with pytest.raises(DatasetError, match="and 4 more") as caught:
        table.words("set", ["training"])
    assert str(caught.value).count("'train' in line") == 5


def test_missing_columns_are_named_beside_those_that_are_there(tmp_path):
    table = read_delimited(write(tmp_path / "t.csv", "name,score\nx,1\n"))
    with pytest.raises(DatasetError, match=r"needs the column.*'mos', its columns are 'name', 'score'"):
        table.require(["name", "mos"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "zero bytes"),
        (b"\n\n", "is empty"),
        (b"path,mos\n", "nothing else"),
        (b"path,mos\ncaf\xe9.jpg,1\n", "UTF-8, line 2 holds the byte 0xe9"),
        (b"path,mos\n" + b"a" * 200_000 + b",1\n", "not valid CSV"),
        (b"a" * 200_000, "not valid CSV"),
        (b"," * 20_000 + b"\n", "is empty"),
        (b",".join(b"c%d" % n for n in range(20_000)) + b"\n", "16,384 columns"),
        (bytes(range(256)) * 10, "UTF-8"),
        (b'"a\nb', "not valid CSV"),
        (b"\xff\xfea", "UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, data, words):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=words):
        read_delimited(path)
    with pytest.raises(DatasetError):
        read_dataset(path)


def test_a_table_with_too_many_cells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_CELLS", 100)
    with pytest.raises(DatasetError, match="100 cells"):
        read_delimited(write(tmp_path / "t.csv", "a,b\n" + "1,2\n" * 51))


@pytest.mark.parametrize("name", ["scores.csv", "mos_with_names.txt"])
def test_pipes_devices_and_vast_files_are_not_opened(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(DatasetError, match="not a file"):
        read_dataset(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DatasetError, match="not a file"):
        read_delimited(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(DatasetError, match="at most"):
        read_dataset(path)
    if Path("/proc/kmsg").exists():
        path.unlink()
        path.symlink_to("/proc/kmsg")
        with pytest.raises(DatasetError, match="zero bytes"):
            read_delimited(path)
