import json

import numpy as np
import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import UHD_HEADER, touch, uhd_row, write_csv, write_uhd

ROWS = [
    uhd_row("1.jpg", 0.76, "training", user="ann"),
    uhd_row("2.jpg", 0.70, "training", user="NA"),
    uhd_row("3.jpg", 0.55, "validation", "exclusive", user="ann"),
    uhd_row("4.jpg", 0.45, "test", "exclusive", user='the "big" one, Ltd'),
    uhd_row("5.jpg", 0.65, "test", "", user=""),
]


def test_the_release_layout(tmp_path):
    for folder, name in [
        ("training", "1.jpg"),
        ("training", "2.jpg"),
        ("validation", "3.jpg"),
        ("test", "4.jpg"),
    ]:
        touch(tmp_path / folder / name)
    write_uhd(tmp_path, ROWS)
    table = read_dataset(tmp_path)
    assert table.name == "uhd-iqa"
    assert table.frame["image_id"].tolist() == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert table.frame["mos"].tolist() == [0.76, 0.70, 0.55, 0.45, 0.65]
    assert table.frame["group"].tolist() == ["ann", "NA", "ann", 'the "big" one, Ltd', ""]
    assert table.frame["subset"].tolist() == ["", "", "exclusive", "exclusive", ""]
    assert table.frame["path"].tolist()[3:] == [str(tmp_path / "test/4.jpg"), str(tmp_path / "test/5.jpg")]
    assert table.counts() == {
        "training": 2,
        "validation": 1,
        "validation/exclusive": 1,
        "test": 2,
        "test/exclusive": 1,
    }
    assert table.mos_range == (0.0, 1.0)
    assert not table.is_simulation
    assert table.notes == ("The release has 6,073 images, this copy lists 5.",)


def test_images_in_one_folder_with_other_case_are_found_by_name(tmp_path):
    photos = tmp_path / "all photos"
    for name in ("1.JPG", "2.jpg", "3.Jpg", "4.jpg", "5.jpg"):
        touch(photos / name)
    write_uhd(tmp_path / "meta", ROWS, encoding="utf-8-sig")
    table = read_dataset(tmp_path / "meta", images=photos)
    assert [path.rpartition("/")[2] for path in table.frame["path"]] == [
        "1.JPG",
        "2.jpg",
        "3.Jpg",
        "4.jpg",
        "5.jpg",
    ]
    assert table.root == tmp_path / "meta"


def test_images_below_the_root_are_found_by_name(tmp_path):
    for row in ROWS:
        touch(tmp_path / "pictures" / str(row[0]))
    write_uhd(tmp_path, ROWS)
    table = read_dataset(tmp_path)
    assert set(table.frame["path"]) == {str(tmp_path / "pictures" / str(row[0])) for row in ROWS}
    assert f"5 image(s) found by name in {tmp_path / 'pictures'}." in table.notes


def test_metadata_columns_are_logarithms(tmp_path):
    write_uhd(
        tmp_path, [uhd_row("1.jpg", 0.5, "training", views=0), uhd_row("2.jpg", 0.6, "training", views=1e6)]
    )
    frame = read_dataset(tmp_path).frame
    np.testing.assert_allclose(frame["meta:log_views"], [0.0, np.log(1_000_001)])
    np.testing.assert_allclose(frame["meta:log_orig_width"], np.log(5515))
    np.testing.assert_allclose(frame["meta:log_image_bytes"], np.log(2954878))
    assert [name for name in frame.columns if name.startswith("meta:")] == [
        f"meta:log_{name}"
        for name in [
            "views",
            "likes",
            "favorites",
            "downloads",
            "comments",
            "image_bytes",
            "orig_width",
            "orig_height",
        ]
    ]


def test_an_incomplete_metadata_column_is_left_out_and_named(tmp_path):
    write_uhd(tmp_path, [uhd_row("1.jpg", 0.5, "training", views=""), uhd_row("2.jpg", 0.6, "test")])
    table = read_dataset(tmp_path)
    assert "meta:log_views" not in table.meta_columns
    assert len(table.meta_columns) == 7
    assert "Column 'views' is empty for 1 image(s) and is left out." in table.notes


def test_a_negative_count_is_refused(tmp_path):
    write_uhd(tmp_path, [uhd_row("1.jpg", 0.5, "training", views=-3)])
    with pytest.raises(DatasetError, match="'views' must be at least 0, got -3 in line 2"):
        read_dataset(tmp_path)


def test_the_challenge_file_without_subset(tmp_path):
    header = [name for name in UHD_HEADER if name not in ("subset", "image_name_orig")]
    rows = [
        [value for name, value in zip(UHD_HEADER, row, strict=True) if name in header] for row in ROWS[:2]
    ]
    write_csv(tmp_path / "uhd-iqa-training-metadata.csv", header, rows)
    touch(tmp_path / "challenge/training/1.jpg")
    table = read_dataset(tmp_path)
    assert table.counts() == {"training": 2}
    assert table.frame["subset"].tolist() == ["", ""]
    assert table.frame["path"].tolist() == [
        str(tmp_path / "challenge/training/1.jpg"),
        str(tmp_path / "training/2.jpg"),
    ]
    assert any("no column 'subset'" in note for note in table.notes)


def test_the_full_metadata_is_preferred_to_the_challenge_file(tmp_path):
    write_uhd(tmp_path, ROWS)
    write_csv(tmp_path / "uhd-iqa-training-metadata.csv", UHD_HEADER, ROWS[:1])
    assert read_dataset(tmp_path).n_images == 5


@pytest.mark.parametrize("name", ["image_name", "quality_mos", "set"])
def test_a_missing_column_is_named(tmp_path, name):
    place = UHD_HEADER.index(name)
    write_csv(
        tmp_path / "uhd-iqa-metadata.csv",
        UHD_HEADER[:place] + UHD_HEADER[place + 1 :],
        [row[:place] + row[place + 1 :] for row in ROWS],
    )
    with pytest.raises(DatasetError, match=f"needs the column.*'{name}'"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (uhd_row("9.jpg", 0.5, "tran"), "'set' must hold one of .* got 'tran' in line 3"),
        (uhd_row("9.jpg", 0.5, "test", "sea"), "'subset' must hold one of .* got 'sea'"),
        (uhd_row("9.jpg", 0.5, "training", "exclusive"), "exclusive images belong to validation or test"),
        (uhd_row("9.jpg", "good", "test"), "'quality_mos' must hold finite numbers.*'good' in line 3"),
        (uhd_row("9.jpg", 75.0, "test"), "on the scale 0 to 1, got '9.jpg: 75'"),
        (uhd_row("1.jpg", 0.5, "test"), "'1.jpg' in lines 2 and 3"),
        (uhd_row("../../etc/passwd", 0.5, "test"), "must name a file under"),
        (uhd_row("/etc/passwd", 0.5, "test"), "must name a file under"),
    ],
)
def test_wrong_rows_are_refused_with_the_reason(tmp_path, row, message):
    write_uhd(tmp_path, [ROWS[0], row])
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)


def test_an_unknown_score_is_nan(tmp_path):
    write_uhd(tmp_path, [ROWS[0], uhd_row("9.jpg", "", "test")])
    assert np.isnan(read_dataset(tmp_path).frame["mos"].iloc[1])


def test_a_renamed_metadata_file_is_recognised_by_its_columns(tmp_path):
    path = write_csv(tmp_path / "my copy.csv", UHD_HEADER, ROWS)
    table = read_dataset(path)
    assert table.name == "uhd-iqa"
    assert table.root == tmp_path


def test_metadata_in_the_folder_of_its_archive_belong_to_the_folder_above(tmp_path):
    metadata = write_uhd(tmp_path / "uhd-iqa-metadata", ROWS)
    touch(tmp_path / "training/1.jpg")
    for place in (tmp_path, metadata):
        table = read_dataset(place)
        assert table.root == tmp_path
        assert table.frame["path"].iloc[0] == str(tmp_path / "training/1.jpg")


def write_demo(folder, **settings):
    write_uhd(folder, ROWS)
    (folder / "featbank-demo.json").write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize("named", [".", "featbank-demo.json", "uhd-iqa-metadata.csv"])
def test_the_demo_set_says_that_it_is_a_simulation_however_it_is_named(tmp_path, named):
    write_demo(tmp_path, seed=7, n=5, version=1)
    table = read_dataset(tmp_path / named)
    assert table.name == "demo"
    assert table.is_simulation
    assert table.counts()["test/exclusive"] == 1
    assert table.notes[0].startswith("Simulation:")
    assert table.notes[1] == "Rendered with seed 7, n 5, version 1."
    assert len(table.notes) == 2
    assert "Pixabay" not in table.licence


def test_a_demo_set_that_lost_images_says_so(tmp_path):
    write_demo(tmp_path, seed=7, n=120, version=1)
    assert "The marker promises 120 images, the metadata list 5." in read_dataset(tmp_path).notes


def test_a_demo_marker_without_metadata_or_sense_is_refused(tmp_path):
    marker = tmp_path / "featbank-demo.json"
    marker.write_text("{}", encoding="utf-8")
    with pytest.raises(DatasetNotFoundError, match=r"no file at .*uhd-iqa-metadata.csv"):
        read_dataset(tmp_path)
    write_uhd(tmp_path, ROWS)
    marker.write_text("[1]", encoding="utf-8")
    with pytest.raises(DatasetError, match="must hold a JSON object"):
        read_dataset(tmp_path)
    marker.write_text("{", encoding="utf-8")
    with pytest.raises(DatasetError, match="not valid JSON"):
        read_dataset(tmp_path)
