import os
import sys
from pathlib import Path

import pytest

from featbank.datasets import read_dataset, read_photos
from featbank.errors import DatasetNotFoundError
from featbank.images.source import IMAGE_SUFFIXES, SUFFIXES
from tests.support.datasets import touch


def test_a_folder_is_listed_with_its_sub_folders_in_order(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "sub/ü 1.jpeg",
        "sub/deep/er/x.tiff",
        ".hidden.jpg",
        ".git/y.jpg",
        "notes.txt",
    ):
        touch(tmp_path / name)
    table = read_dataset(tmp_path)
    assert table.name == "photos"
    assert table.frame["image_id"].tolist() == ["a.PNG", "b.jpg", "sub/ü 1.jpeg", "sub/deep/er/x.tiff"]
    assert table.frame["path"].tolist() == [str(tmp_path / name) for name in table.frame["image_id"]]
    assert table.frame["mos"].isna().all()
    assert table.counts() == {"no split": 4}
    assert "1 file was left out, not an image by its ending: notes.txt." in table.notes


def test_what_is_no_image_by_its_ending_is_counted_and_named_tables_last(tmp_path):
    others = ["a.csv", "b.txt", "c.xyz", "d.xlsx", "e", "f.mp4", "sub/g.psd"]
    for name in ("1.jpg", *others):
        touch(tmp_path / name)
    expected = (
        "7 files were left out, not images by their ending: c.xyz, e, f.mp4, sub/g.psd, a.csv and 2 more."
    )
    assert expected in read_photos([tmp_path]).notes
    assert expected in read_dataset(tmp_path).notes


def test_whatever_is_decoded_and_camera_raw_have_image_endings():
    assert set().union(*SUFFIXES.values()) <= IMAGE_SUFFIXES
    assert {".heic", ".jxl", ".cr2", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"} <= IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_image_ending_counts_in_any_case(tmp_path, suffix):
    touch(tmp_path / f"1{suffix}")
    touch(tmp_path / f"2{suffix.upper()}")
    assert read_photos([tmp_path]).n_images == 2


def test_several_folders_and_files_keep_unique_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one/1.jpg", "two/1.jpg", "plain"):
        touch(tmp_path / name)
    table = read_photos(["one", "two", "plain"])
    assert table.frame["image_id"].tolist() == ["one/1.jpg", "two/1.jpg", "plain"]
    assert table.frame["path"].tolist() == [str(tmp_path / name) for name in table.frame["image_id"]]


def test_a_file_named_twice_is_listed_once(tmp_path):
    touch(tmp_path / "1.jpg")
    table = read_photos([tmp_path, tmp_path / "1.jpg"])
    assert table.n_images == 1
    assert "1 file(s) named several times are listed once." in table.notes


def test_one_photo_is_a_dataset_too(tmp_path):
    table = read_dataset(touch(tmp_path / "1.jpg"))
    assert table.frame["path"].tolist() == [str(tmp_path / "1.jpg")]
    assert table.root == tmp_path


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="no file or folder at"):
        read_photos([tmp_path / "none"])
    touch(tmp_path / "notes.txt")
    with pytest.raises(
        DatasetNotFoundError, match=r"looked for files ending in .*\.jpg.*1 file was left out"
    ):
        read_photos([tmp_path])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf8_are_listed_by_a_stated_escape(tmp_path):
    name, folder = os.fsdecode(b"m\xfcller.jpg"), os.fsdecode(b"\xe9t\xe9")
    for path in ("1.jpg", name, f"{folder}/{name}"):
        touch(tmp_path / path)
    table = read_dataset(tmp_path)
    assert table.frame["image_id"].tolist() == ["1.jpg", "m\\xfcller.jpg", "\\xe9t\\xe9/m\\xfcller.jpg"]
    assert all(Path(path).is_file() for path in table.frame["path"])
    assert read_photos([tmp_path / folder]).frame["image_id"].tolist() == ["m\\xfcller.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_metadata_in_utf8_find_files_whose_names_are_latin1(tmp_path):
    file = touch(tmp_path / os.fsdecode(b"m\xfcller.jpg"))
    (tmp_path / "scores.csv").write_text("image_name,mos\nmüller.jpg,3\n", encoding="utf-8")
    assert read_dataset(tmp_path / "scores.csv").frame["path"].tolist() == [str(file)]


def test_pipes_and_links_that_lead_nowhere_or_in_circles_are_listed(tmp_path):
    touch(tmp_path / "good.jpg")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    table = read_photos([tmp_path])
    assert list(table.frame["image_id"]) == ["circle.jpg", "dangling.jpg", "good.jpg", "pipe.jpg"]
    assert list(read_dataset(tmp_path).frame["image_id"]) == list(table.frame["image_id"])
