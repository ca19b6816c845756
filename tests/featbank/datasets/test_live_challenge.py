import numpy as np
import pytest
from scipy.io import savemat

from featbank.datasets import read_dataset
from featbank.errors import DatasetError, DatasetNotFoundError
from tests.support.datasets import touch

NAMES = [f"t{number}.bmp" for number in range(1, 8)] + ["3.bmp", "4.JPG", "1023.bmp"]
MOS = [*range(90, 97), 63.9634, 25.3353, 48.9366]


def write(folder, names=NAMES, mos=MOS):
    """Write the release's variables: an (n, 1) cell of names, a (1, n) row of scores."""
    folder.mkdir(parents=True, exist_ok=True)
    cell = np.empty((len(names), 1), dtype=object)
    cell[:, 0] = names
    savemat(folder / "AllImages_release.mat", {"AllImages_release": cell})
    savemat(folder / "AllMOS_release.mat", {"AllMOS_release": np.array([mos])})
    savemat(folder / "AllStdDev_release.mat", {"AllStdDev_release": np.ones((1, len(mos)))})


def test_the_release_without_the_images_that_trained_the_raters(tmp_path):
    write(tmp_path / "Data")
    for name in ("trainingImages/t1.bmp", "3.bmp", "4.JPG"):
        touch(tmp_path / "Images" / name)
    for place in (tmp_path, tmp_path / "Data/AllMOS_release.mat", tmp_path / "Data"):
        table = read_dataset(place, images=tmp_path)
        assert table.name == "live-challenge"
        assert table.frame["image_id"].tolist() == ["3.bmp", "4.JPG", "1023.bmp"]
        assert table.frame["mos"].tolist() == [63.9634, 25.3353, 48.9366]
        assert table.frame["path"].tolist() == [str(tmp_path / "Images" / name) for name in NAMES[7:]]
        assert table.counts() == {"no split": 3}
        assert "The first 7 images, which trained the raters, are left out." in table.notes
    assert read_dataset(tmp_path / "Data/AllMOS_release.mat").root == tmp_path


def test_scores_and_names_must_be_of_one_length(tmp_path):
    write(tmp_path / "Data", mos=MOS[:-1])
    with pytest.raises(DatasetError, match=r"holds 9 scores, .* holds 10 names"):
        read_dataset(tmp_path)


def test_a_missing_list_of_names_is_named(tmp_path):
    write(tmp_path / "Data")
    (tmp_path / "Data/AllImages_release.mat").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"need AllImages_release.mat beside them"):
        read_dataset(tmp_path)


def test_files_of_another_kind_are_refused(tmp_path):
    write(tmp_path / "Data")
    (tmp_path / "Data/AllMOS_release.mat").write_bytes(b"not a MAT file" * 20)
    with pytest.raises(DatasetError, match="not a MATLAB file"):
        read_dataset(tmp_path)
    savemat(tmp_path / "Data/AllMOS_release.mat", {"other": np.ones(3)})
    with pytest.raises(DatasetError, match=r"must hold the variable 'AllMOS_release', got \['other'\]"):
        read_dataset(tmp_path)
    savemat(tmp_path / "Data/AllMOS_release.mat", {"AllMOS_release": "text"})
    with pytest.raises(DatasetError, match="must hold numbers"):
        read_dataset(tmp_path)


def test_repeated_names_and_too_few_images_are_refused(tmp_path):
    write(tmp_path / "Data", names=[*NAMES[:-1], "3.bmp"])
    with pytest.raises(DatasetError, match="one name per image, each once"):
        read_dataset(tmp_path)
    write(tmp_path / "Data", names=NAMES[:7], mos=MOS[:7])
    with pytest.raises(DatasetError, match="more than the 7 images"):
        read_dataset(tmp_path)
