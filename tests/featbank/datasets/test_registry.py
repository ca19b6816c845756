import os
import sys

import pytest

from featbank.datasets import list_datasets, read_dataset
from featbank.datasets.releases import RELEASES, known_releases
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import touch, uhd_row, write_csv, write_uhd


def test_the_listing_names_every_reader_once_with_its_figures():
    listed = list_datasets()
    figures = {info.name: info.n_images for info in listed}
    assert len(figures) == len(listed)
    # The figures of the published papers and pages.
    assert figures == {
        "demo": None,
        "uhd-iqa": 6073,
        "koniq-10k": 10073,
        "spaq": 11125,
        "kadid-10k": 81 * 25 * 5,
        "tid2013": 25 * 24 * 5,
        "live-challenge": 1169 - 7,
        "biq2021": 12000,
        "tid2008": 25 * 17 * 4,
        "csiq": 866,
        "live": 779,
        "live-md": 450,
        "pipal": None,
        "kadis-700k": 140_000 * 5,
        "flive": 39_810,
        "ava": 255_530,
        "agiqa-3k": 2982,
        "bid": 586,
        "cid2013": 474,
        "csv": None,
        "photos": None,
    }
    assert all(info.title and info.marker for info in listed)
    assert all(info.reference and info.licence for info in listed if info.name not in ("csv", "photos"))


def test_no_two_layouts_share_a_marker_but_those_that_tell_their_own():
    markers = [marker for layout in RELEASES if layout.tells is None for marker in layout.markers]
    told = {marker for layout in RELEASES if layout.tells is not None for marker in layout.markers}
    assert len(set(markers)) == len(markers)
    assert not told & set(markers)


def test_markers_are_found_in_any_case(tmp_path):
    write_uhd(tmp_path, [uhd_row("1.jpg", 0.5, "test")]).rename(tmp_path / "UHD-IQA-Metadata.CSV")
    assert read_dataset(tmp_path).name == "uhd-iqa"


def test_a_path_that_is_not_there_says_how_far_it_exists(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=f"no file or folder at .*exists up to {tmp_path}"):
        read_dataset(tmp_path / "none" / "at all")
    (tmp_path / "1.jpg").touch()
    with pytest.raises(DatasetNotFoundError, match="images: no file or folder"):
        read_dataset(tmp_path, images=tmp_path / "none")
    with pytest.raises(DatasetNotFoundError, match="images must be a folder"):
        read_dataset(tmp_path, images=tmp_path / "1.jpg")


def test_a_folder_without_anything_says_what_was_looked_for_and_where(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(DatasetNotFoundError) as caught:
        read_dataset(tmp_path)
    message = str(caught.value)
    assert f"Looked in {tmp_path} for" in message
    for layout in RELEASES:
        assert all(marker in message for marker in layout.markers)
    assert ".jpg" in message


def test_a_dataset_one_folder_further_down_is_read_where_it_is_the_only_one(tmp_path):
    write_uhd(tmp_path / "download" / "uhd-iqa", [uhd_row("1.jpg", 0.5, "test")])
    touch(tmp_path / "download" / "readme.md")
    table = read_dataset(tmp_path / "download")
    assert (table.name, table.root) == ("uhd-iqa", tmp_path / "download" / "uhd-iqa")
    assert table.notes[0] == f"Read from {tmp_path / 'download' / 'uhd-iqa'}, the one dataset there."
    assert table.full_names(["1.jpg"]) == read_dataset(tmp_path / "download/uhd-iqa").full_names(["1.jpg"])
    write_uhd(tmp_path / "download" / "other", [uhd_row("1.jpg", 0.5, "test")])
    with pytest.raises(DatasetNotFoundError, match=r"give .*other to read it"):
        read_dataset(tmp_path / "download")


def test_hints_name_a_dataset_below_and_tables_beside(tmp_path):
    write_uhd(tmp_path / "sub", [uhd_row("1.jpg", 0.5, "test")])
    write_csv(tmp_path / "scores.csv", ["path", "mos"], [["1.jpg", 1]])
    with pytest.raises(DatasetNotFoundError, match=r"give .*sub to read it.*Not read: scores.csv"):
        read_dataset(tmp_path)
    touch(tmp_path / "1.jpg")
    notes = " ".join(read_dataset(tmp_path).notes)
    assert f"give {tmp_path / 'sub'} to read it" in notes
    assert "Not read: scores.csv" in notes


def test_two_datasets_in_one_folder_are_not_guessed(tmp_path):
    write_uhd(tmp_path, [uhd_row("1.jpg", 0.5, "test")])
    write_csv(
        tmp_path / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], [["I01_01_01.png", "I01.png", 3, 1]]
    )
    with pytest.raises(DatasetError, match=r"several datasets: UHD-IQA.*KADID-10k.*Name the metadata file"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path / "dmos.csv").name == "kadid-10k"


def test_an_own_csv_that_is_called_like_a_marker_is_read_as_what_it_holds(tmp_path):
    path = write_csv(tmp_path / "dmos.csv", ["path", "dmos"], [["1.jpg", 20]])
    table = read_dataset(path)
    assert table.name.startswith("csv:")
    assert table.frame["mos"].tolist() == [-20.0]


def test_images_need_metadata_to_go_with(tmp_path):
    touch(tmp_path / "photos/1.jpg")
    with pytest.raises(DatasetNotFoundError, match="holds no metadata that could go with images="):
        read_dataset(tmp_path, images=tmp_path / "photos")


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"is no dataset. Expected a folder, a table with path,mos"):
        read_dataset(touch(tmp_path / "model.skops"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_folder_whose_name_is_not_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"m\xfcller")
    touch(folder / "1.jpg")
    with pytest.raises(DatasetError, match="not valid UTF-8; rename that folder"):
        read_dataset(folder)


PLUGIN = """\
from featbank.datasets import Release

MINE = Release("mine", "My photos", 2, "own", "nobody 2026", (1.0, 5.0), ("mine.csv",), "file", ("score",),
               folders=("pictures",), group="who")
"""


def test_an_installed_package_adds_a_dataset(tmp_path, monkeypatch):
    info = tmp_path / "site" / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featbank.datasets]\nmine = mine_photos:MINE\n")
    (info.parent / "mine_photos.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.delitem(sys.modules, "mine_photos", raising=False)
    write_csv(
        tmp_path / "data/mine.csv", ["file", "score", "who"], [["a.jpg", 4.5, "ann"], ["b.jpg", 1, "bob"]]
    )
    touch(tmp_path / "data/pictures/a.jpg")
    known_releases.cache_clear()
    try:
        table = read_dataset(tmp_path / "data")
        assert table.name == "mine"
        assert table.frame["mos"].tolist() == [4.5, 1.0]
        assert table.frame["group"].tolist() == ["ann", "bob"]
        assert table.frame["path"][0] == str(tmp_path / "data/pictures/a.jpg")
        assert "mine" in {release.name for release in list_datasets()}
        (info / "entry_points.txt").write_text("[featbank.datasets]\nmine = mine_photos:PLUGIN\n")
        known_releases.cache_clear()
        with pytest.raises(DatasetError, match="plug-in 'mine'"):
            read_dataset(tmp_path / "data")
    finally:
        known_releases.cache_clear()
