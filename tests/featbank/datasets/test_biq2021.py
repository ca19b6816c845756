import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import touch

TRAIN, TEST = "Train (Images and MOS).csv", "Test (Images and MOS).csv"


def write_biq(folder, n_training=3, n_test=2):
    """Write both lists as released: Windows line ends, no quotes, two empty columns in the list of training images."""
    names = [f"ss0{1 + i % 3} ({i}).jpg" for i in range(n_training + n_test)]
    rows = [f"{name},{0.2 + i / 20_000:.5f}" for i, name in enumerate(names)]
    training = [f"{line},," for line in ["Image Name,MOS", *rows[:n_training]]]
    (folder / TRAIN).write_text("\r\n".join(training) + "\r\n", newline="")
    (folder / TEST).write_text("\r\n".join(["Image Name,MOS", *rows[n_training:]]) + "\r\n", newline="")
    return names


def test_the_release_with_its_official_split(tmp_path):
    names = write_biq(tmp_path)
    for name in names[:-1]:
        touch(tmp_path / "Images" / name)
    # One file of the release ends in capitals, which the lists do not.
    touch(tmp_path / "Images" / names[-1].replace(".jpg", ".JPG"))
    table = read_dataset(tmp_path)
    assert (table.name, table.mos_range, table.has_groups) == ("biq2021", (0.0, 1.0), False)
    assert table.counts() == {"training": 3, "test": 2}
    assert table.frame["image_id"].tolist() == names
    assert table.frame["mos"].tolist() == [0.2, 0.20005, 0.2001, 0.20015, 0.2002]
    assert [path.rpartition("/")[2] for path in table.frame["path"]][-1] == "ss02 (4).JPG"
    assert table.notes == (
        "BIQ2021 has no official validation split.",
        "The release has 12,000 images, this copy lists 5.",
    )
    for marker in (TRAIN, TEST):
        assert read_dataset(tmp_path / marker).frame.equals(table.frame)


def test_all_of_the_official_split_is_read_without_a_word(tmp_path):
    write_biq(tmp_path, 10_000, 2_000)
    table = read_dataset(tmp_path)
    assert table.counts() == {"training": 10_000, "test": 2_000}
    assert table.notes == ("BIQ2021 has no official validation split.",)


def test_wrong_lists_are_refused_by_name(tmp_path):
    names = write_biq(tmp_path)
    (tmp_path / TEST).write_text(f"Image Name,MOS\n{names[0]},0.5\n")
    with pytest.raises(DatasetError, match=r"Test \(Images.*one split, got ss01 \(0\)"):
        read_dataset(tmp_path)
    (tmp_path / TEST).write_text("Image Name,MOS\nss01 (9).jpg,good\n")
    with pytest.raises(DatasetError, match=r"Test \(Images.*'good' in line 2"):
        read_dataset(tmp_path)
    (tmp_path / TEST).unlink()
    with pytest.raises(DatasetNotFoundError, match="needs 'Test"):
        read_dataset(tmp_path)
