import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError
from tests.support.datasets import touch


def write(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / "mos_with_names.txt"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_lines_without_header_and_names_in_any_case(tmp_path):
    path = write(tmp_path, "5.51429 I01_01_1.bmp\r\n5.56757 i01_01_2.bmp\r\n4.94444 I25_24_5.BMP\r\n\r\n")
    touch(tmp_path / "distorted_images/i01_01_1.BMP")
    touch(tmp_path / "distorted_images/i01_01_2.bmp")
    for place in (tmp_path, path):
        table = read_dataset(place)
        assert table.name == "tid2013"
        assert table.frame["mos"].tolist() == [5.51429, 5.56757, 4.94444]
        assert table.frame["group"].tolist() == ["I01", "I01", "I25"]
        assert table.frame["path"].tolist() == [
            str(tmp_path / "distorted_images" / name)
            for name in ("i01_01_1.BMP", "i01_01_2.bmp", "I25_24_5.BMP")
        ]
        assert table.mos_range == (0.0, 9.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("5.5 I01_01_1.bmp\n5.5\n", "line 2 must hold a score and a name"),
        ("I01_01_1.bmp 5.5\n", "must hold a score and a name"),
        ("5.5 I01.bmp\n", "must hold a score and a name"),
        ("good I01_01_1.bmp\n", "'mos' must hold finite numbers.*'good' in line 1"),
        ("5.5 I01_01_1.bmp\n5.5 I01_01_1.bmp\n", "in lines 1 and 2"),
        ("55 I01_01_1.bmp\n", "on the scale 0 to 9"),
        ("5.5 ../I01_01_1.bmp\n", "must name a file under"),
    ],
)
def test_wrong_lines_are_refused(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)


def test_one_file_listed_in_two_spellings_is_refused(tmp_path):
    write(tmp_path, "5.5 I01_01_1.bmp\n5.6 i01_01_1.bmp\n")
    touch(tmp_path / "distorted_images/i01_01_1.BMP")
    with pytest.raises(DatasetError, match="'path' must occur once"):
        read_dataset(tmp_path)
