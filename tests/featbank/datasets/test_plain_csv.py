import math

import numpy as np
import pytest

from featbank.datasets import read_dataset, read_plain_csv
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import touch, write_csv


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_relative_absolute_and_upward_paths(tmp_path):
    path = write(tmp_path / "lists/own.csv", f"path,mos\na b/ü 1.jpg,1\n{tmp_path}/x/2.jpg,2\n../3.jpg,3.5\n")
    table = read_dataset(path)
    assert table.name.startswith("csv:")
    assert table.root == tmp_path / "lists"
    assert table.frame["image_id"].tolist() == ["a b/ü 1.jpg", f"{tmp_path}/x/2.jpg", "../3.jpg"]
    assert table.frame["path"].tolist() == [
        str(tmp_path / "lists/a b/ü 1.jpg"),
        str(tmp_path / "x/2.jpg"),
        str(tmp_path / "lists/../3.jpg"),
    ]
    assert table.mos_range == (1.0, 3.5)
    assert table.notes == ()


def test_relative_paths_refer_to_the_folder_of_images_if_one_is_named(tmp_path):
    path = write(tmp_path / "own.csv", "path,mos\n1.jpg,1\n/abs/2.jpg,2\n")
    (tmp_path / "photos").mkdir()
    table = read_dataset(path, images=tmp_path / "photos")
    assert table.frame["path"].tolist() == [str(tmp_path / "photos/1.jpg"), "/abs/2.jpg"]


def test_all_columns_in_any_case_and_order(tmp_path):
    path = write(
        tmp_path / "own.csv",
        "MOS;Group;Subset;Split;Path;meta:ISO;camera\n"
        "0.5;ann;;training;1.jpg;100;x\n"
        ";ann;exclusive;test;2.jpg;200;y\n"
        "0.9;;;;3.jpg;400;z\n",
    )
    table = read_dataset(path)
    assert table.counts() == {"training": 1, "test": 1, "test/exclusive": 1, "no split": 1}
    assert table.frame["group"].tolist() == ["ann", "ann", ""]
    np.testing.assert_array_equal(table.frame["mos"], [0.5, np.nan, 0.9])
    assert table.frame["meta:iso"].tolist() == [100.0, 200.0, 400.0]
    assert table.notes[1:] == ("Columns not used: camera.",)


def test_image_names_are_found_below_the_folder(tmp_path):
    touch(tmp_path / "photos/summer/1.JPG")
    path = write(tmp_path / "own.csv", "image_name,mos\n1.jpg,3\n2.jpg,4\n")
    table = read_dataset(path, images=tmp_path / "photos")
    assert table.frame["image_id"].tolist() == ["1.jpg", "2.jpg"]
    assert table.frame["path"].tolist() == [
        str(tmp_path / "photos/summer/1.JPG"),
        str(tmp_path / "photos/2.jpg"),
    ]


def test_image_name_is_the_id_where_both_are_there(tmp_path):
    path = write(tmp_path / "own.csv", "image_name,path,mos\nfirst,sub/1.jpg,3\n")
    table = read_dataset(path)
    assert table.frame["image_id"].tolist() == ["first"]
    assert table.frame["path"].tolist() == [str(tmp_path / "sub/1.jpg")]


def test_dmos_becomes_mos_once_and_says_so(tmp_path):
    path = write(tmp_path / "own.csv", "path,dmos\n1.jpg,0\n2.jpg,30\n3.jpg,85.5\n")
    table = read_dataset(path)
    assert table.frame["mos"].tolist() == [0.0, -30.0, -85.5]
    assert not np.signbit(table.frame["mos"].iloc[0])
    assert table.mos_range == (-85.5, 0.0)
    assert table.notes == ("MOS is the negative of the column 'dmos', where lower is better.",)


def test_the_turned_score_of_an_image_does_not_depend_on_the_others(tmp_path):
    one = read_dataset(write(tmp_path / "one.csv", "path,dmos\n1.jpg,30\n"))
    two = read_dataset(write(tmp_path / "two.csv", "path,dmos\n1.jpg,30\n2.jpg,99\n"))
    assert one.frame["mos"].iloc[0] == two.frame["mos"].iloc[0]


def test_without_scores_the_images_can_still_be_listed(tmp_path):
    table = read_dataset(write(tmp_path / "own.csv", "path\n1.jpg\n"))
    assert table.frame["mos"].isna().all()
    assert all(math.isnan(end) for end in table.mos_range)
    assert "no column 'mos'" in table.notes[0]


def test_mos_is_used_where_both_scores_are_there(tmp_path):
    table = read_dataset(write(tmp_path / "own.csv", "path,mos,dmos\n1.jpg,3,2\n"))
    assert table.frame["mos"].tolist() == [3.0]
    assert "'dmos' is not used" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,mos\n1.jpg,3\n", "needs a column 'path' .*its columns are 'file', 'mos'"),
        ("path,mos\n1.jpg,3\n1.jpg,3\n", "'1.jpg' in lines 2 and 3"),
        ("path,mos\n1.jpg,3\n./1.jpg,3\n", "lines 2 and 3 name one file"),
        ("path,mos,split\n1.jpg,3,tran\n", "'split' must hold one of .* got 'tran'"),
        ("path,mos,subset\n1.jpg,3,hard\n", "'subset' must hold one of"),
        ("path,mos\n1.jpg,inf\n", "must hold finite numbers"),
        ("path,mos,meta:x\n1.jpg,3,\n", "'meta:x' must hold finite"),
        ("image_name,mos\n../1.jpg,3\n", "must name a file under .*columns path,mos"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_dataset(write(tmp_path / "own.csv", text))


def test_a_tilde_is_the_home_folder_only_before_a_slash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "own.csv", "path,mos\n~/1.jpg,3\n~copy.jpg,3\n")
    assert read_plain_csv(path).frame["path"].tolist() == [
        str(tmp_path / "1.jpg"),
        str(tmp_path / "~copy.jpg"),
    ]


def test_a_missing_csv_is_not_found(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no file at"):
        read_plain_csv(tmp_path / "none.csv")


def test_many_rows_are_read_exactly(tmp_path):
    path = write_csv(
        tmp_path / "own.csv", ["path", "mos"], [[f"{row}.jpg", row / 7] for row in range(20_000)]
    )
    table = read_dataset(path)
    assert table.n_images == 20_000
    assert table.frame["mos"].iloc[-1] == 19_999 / 7
