import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError
from tests.support.datasets import touch, write_csv

SETS_HEADER = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"]
SCORES_HEADER = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore"]


def sets_row(name, mos, split):
    return [name, 0.0, 0.1, 0.2, 0.6, 0.1, 105, mos, 0.5, split]


def write_sets(folder, rows):
    return write_csv(folder / "koniq10k_distributions_sets.csv", SETS_HEADER, rows)


def test_the_file_with_the_official_split(tmp_path):
    write_sets(
        tmp_path,
        [
            sets_row("10004473376.jpg", 77.3836206897, "training"),
            sets_row("2.jpg", 3.9, "test"),
            sets_row("3.jpg", 60, "validation"),
        ],
    )
    table = read_dataset(tmp_path)
    assert table.name == "koniq-10k"
    assert table.counts() == {"training": 1, "validation": 1, "test": 1}
    assert table.frame["mos"].tolist() == [77.3836206897, 3.9, 60.0]
    assert table.mos_range == (1.0, 100.0)
    assert not table.has_groups
    assert table.meta_columns == []


def test_the_file_with_both_scales_gives_the_scale_of_the_official_file(tmp_path):
    rows = [["1.jpg", 0, 0, 0.3, 0.6, 0.1, 100, 3.83, 0.5, 77.38]]
    write_csv(tmp_path / "koniq10k_scores_and_distributions.csv", SCORES_HEADER, rows)
    table = read_dataset(tmp_path)
    assert table.frame["mos"].tolist() == [77.38]
    assert table.counts() == {"no split": 1}
    assert any("'MOS_zscore'" in note for note in table.notes)
    assert any("no official split" in note for note in table.notes)


def test_category_means_keep_their_own_scale(tmp_path):
    rows = [[name, 0, 0, 0.3, 0.6, 0.1, 100, mos, 0.5] for name, mos in [("1.jpg", 3.83), ("2.jpg", 1.2)]]
    table = read_dataset(write_csv(tmp_path / "k.csv", SCORES_HEADER[:-1], rows))
    assert table.mos_range == (1.0, 5.0)
    assert table.frame["mos"].tolist() == [3.83, 1.2]
    assert any("scale 1 to 5" in note for note in table.notes)


def test_the_official_file_is_preferred(tmp_path):
    write_sets(tmp_path, [sets_row("1.jpg", 50, "test")])
    write_csv(tmp_path / "koniq10k_scores_and_distributions.csv", SCORES_HEADER, [["9.jpg", *[1] * 8, 20]])
    assert read_dataset(tmp_path).frame["image_id"].tolist() == ["1.jpg"]


def test_sizes_are_not_mixed(tmp_path):
    write_sets(tmp_path, [sets_row("1.jpg", 50, "training"), sets_row("2.jpg", 60, "test")])
    touch(tmp_path / "1024x768/1.jpg")
    touch(tmp_path / "512x384/1.jpg")
    touch(tmp_path / "512x384/2.jpg")
    table = read_dataset(tmp_path)
    assert table.frame["path"].tolist() == [str(tmp_path / "1024x768" / name) for name in ("1.jpg", "2.jpg")]
    assert f"Images are taken from {tmp_path / '1024x768'}." in table.notes
    small = read_dataset(tmp_path, images=tmp_path / "512x384")
    assert small.frame["path"].tolist() == [str(tmp_path / "512x384" / name) for name in ("1.jpg", "2.jpg")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            sets_row("9.jpg", 50, "vali"),
            "'set' must hold one of 'training', 'validation', 'test', got 'vali'",
        ),
        (sets_row("1.jpg", 50, "test"), "'1.jpg' in lines 2 and 3"),
        (sets_row("9.jpg", "-", "test"), "'MOS' must hold finite numbers"),
        (sets_row("../9.jpg", 50, "test"), "must name a file under"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, row, message):
    write_sets(tmp_path, [sets_row("1.jpg", 77, "training"), row])
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)
