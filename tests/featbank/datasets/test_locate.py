import posixpath
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.datasets.locate import ImageFinder, name_inside, walk_files
from featbank.errors import DatasetError
from tests.support.datasets import touch

BASE = Path("/data/set")
PARTS = st.sampled_from(["..", ".", "a", "b.jpg", "", "/", "\\", "C:", "data", "set", "\0", " ", "~"])


@given(st.lists(PARTS, max_size=7), st.sampled_from(["/", "\\", ""]))
def test_a_name_stays_inside_or_is_refused(parts, mark):
    name = mark.join(parts)
    try:
        inside = name_inside(name, BASE)
    except DatasetError:
        return
    # Independent of how the name was taken apart: the joined path, cleaned, begins with the base.
    assert posixpath.normpath(f"{BASE}/{inside}").startswith(f"{BASE}/")
    assert "\0" not in inside


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        "a/../../set2/x.jpg",
        "/etc/passwd",
        "/data/set2/x.jpg",
        "/data/set/../x.jpg",
        "..\\..\\secret.jpg",
        "C:\\Windows\\x.jpg",
        "C:x.jpg",
        "\\\\host\\share\\x.jpg",
        "",
        " ",
        ".",
        "x\0.jpg",
    ],
)
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(DatasetError, match="must name a file under"):
        name_inside(name, BASE)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("1.jpg", "1.jpg"),
        ("a/../1.jpg", "1.jpg"),
        ("./a//1.jpg", "a/1.jpg"),
        ("training\\1.jpg", "training/1.jpg"),
        ("/data/set/a/1.jpg", "a/1.jpg"),
        ("...jpg", "...jpg"),
        ("..hidden/1.jpg", "..hidden/1.jpg"),
    ],
)
def test_names_inside_are_taken(name, inside):
    assert name_inside(name, BASE) == inside


def test_the_first_place_wins_and_a_missing_file_is_expected_there(tmp_path):
    touch(tmp_path / "second/1.jpg")
    touch(tmp_path / "first/2.jpg")
    touch(tmp_path / "second/2.jpg")
    finder = ImageFinder(tmp_path)
    paths = finder.locate(["1.jpg", "2.jpg", "3.jpg"], [("first", "second")] * 3)
    assert paths == [str(tmp_path / name) for name in ("second/1.jpg", "first/2.jpg", "first/3.jpg")]
    assert finder.notes() == []


def test_files_elsewhere_are_found_by_name_and_noted(tmp_path):
    touch(tmp_path / "x/y/z/1.jpg")
    touch(tmp_path / "x/y/z/too/deep/2.jpg")
    finder = ImageFinder(tmp_path)
    paths = finder.locate(["1.jpg", "2.jpg"], [("first",)] * 2)
    assert paths == [str(tmp_path / "x/y/z/1.jpg"), str(tmp_path / "first/2.jpg")]
    assert finder.notes() == [f"1 image(s) found by name in {tmp_path / 'x/y/z'}."]


def test_case_and_unicode_form_do_not_hide_a_file(tmp_path):
    touch(tmp_path / "Images" / unicodedata.normalize("NFD", "Übung 1.JPG"))
    finder = ImageFinder(tmp_path)
    (path,) = finder.locate([unicodedata.normalize("NFC", "übung 1.jpg")], [("images",)])
    assert Path(path).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells upper from lower case")
def test_of_two_spellings_the_exact_one_is_taken_and_otherwise_nobody_guesses(tmp_path):
    touch(tmp_path / "a.jpg")
    touch(tmp_path / "A.jpg")
    finder = ImageFinder(tmp_path)
    assert finder.locate(["A.jpg"], [(".",)]) == [str(tmp_path / "A.jpg")]
    with pytest.raises(DatasetError, match=r"'A.JPG' fits several files"):
        finder.locate(["A.JPG"], [(".",)])


def test_one_name_in_two_other_folders_is_not_guessed(tmp_path):
    touch(tmp_path / "large/1.jpg")
    touch(tmp_path / "small/1.jpg")
    with pytest.raises(DatasetError, match=r"fits several files: .*large.*small"):
        ImageFinder(tmp_path).locate(["1.jpg"], [("images",)])


def test_home_is_the_first_folder_with_any_of_the_images(tmp_path):
    touch(tmp_path / "large/9.jpg")
    touch(tmp_path / "small/1.jpg")
    touch(tmp_path / "small/2.jpg")
    finder = ImageFinder(tmp_path)
    assert finder.home(["1.jpg", "2.jpg"], ["large", "small"]) == "small"
    assert finder.home(["1.jpg", "9.jpg"], ["large", "small"]) == "large"
    assert finder.home(["4.jpg"], ["large", "small"]) is None


def test_a_base_that_does_not_exist_has_no_files(tmp_path):
    finder = ImageFinder(tmp_path / "none")
    assert finder.locate(["1.jpg"], [("images",)]) == [str(tmp_path / "none/images/1.jpg")]


def test_walking_is_sorted_skips_hidden_and_survives_links_to_a_parent(tmp_path):
    for name in ("b/2.jpg", "a/1.jpg", ".hidden/x.jpg", "a/.y.jpg", "c.jpg"):
        touch(tmp_path / name)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    outside = touch(tmp_path.parent / f"{tmp_path.name}-other" / "3.jpg").parent
    (tmp_path / "linked").symlink_to(outside, target_is_directory=True)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    found = [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)]
    assert found == ["c.jpg", "dangling.jpg", "a/1.jpg", "b/2.jpg", "linked/3.jpg"]


def test_an_error_while_listing_names_the_folder(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("featbank.datasets.locate.os.scandir", refuse)
    with pytest.raises(DatasetError, match=r"cannot be listed.*would be lost"):
        list(walk_files(tmp_path))
