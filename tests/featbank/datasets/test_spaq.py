import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError
from tests.support.datasets import touch, write_csv, write_xlsx

HEADER = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
ROWS = [
    ["00001.jpg", 48.86, 47.43, 55.57, 55.71, 37.86, 42.57],
    ["00002.jpg", 62.5, 55.38, 67.13, 53.13, 57.5, 47.5],
    ["00003.jpg", 77, 62.38, 72.63, 65.75, 72.25, 82.71],
]
NAME = "MOS and Image attribute scores"


@pytest.mark.parametrize("ending", ["xlsx", "csv"])
def test_the_release_as_workbook_and_as_export(tmp_path, ending):
    metadata = tmp_path / "Annotations" / f"{NAME}.{ending}"
    if ending == "xlsx":
        write_xlsx(metadata, [HEADER, *ROWS])
    else:
        write_csv(metadata, HEADER, ROWS, encoding="utf-8-sig")
    touch(tmp_path / "TestImage/00001.jpg")
    for place in (tmp_path, metadata):
        table = read_dataset(place)
        assert table.name == "spaq"
        assert table.root == tmp_path
        assert table.frame["mos"].tolist() == [48.86, 62.5, 77.0]
        assert table.frame["path"].tolist() == [str(tmp_path / "TestImage" / row[0]) for row in ROWS]
        assert table.counts() == {"no split": 3}
        assert table.mos_range == (0.0, 100.0)
        assert table.meta_columns == [], "attribute scores are ratings, not facts known beforehand"


def test_the_export_is_preferred_to_the_workbook(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / f"{NAME}.xlsx").write_bytes(b"broken")
    write_csv(tmp_path / "Annotations" / f"{NAME}.csv", HEADER, ROWS)
    assert read_dataset(tmp_path).n_images == 3


def test_an_unreadable_workbook_says_how_to_export_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / f"{NAME}.xlsx").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"Save its first sheet as CSV in UTF-8 beside it"):
        read_dataset(tmp_path)


def test_the_scale_and_the_columns_are_checked(tmp_path):
    write_csv(tmp_path / f"{NAME}.csv", HEADER, [["1.jpg", 101, 1, 1, 1, 1, 1]])
    with pytest.raises(DatasetError, match="on the scale 0 to 100"):
        read_dataset(tmp_path)
    write_csv(tmp_path / f"{NAME}.csv", ["Image name", "Brightness"], [["1.jpg", 1]])
    with pytest.raises(DatasetError, match=r"needs the column.*'MOS'"):
        read_dataset(tmp_path)
