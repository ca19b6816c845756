"""A dataset by its URL is the dataset on the disk, but for where its photographs lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featbank.datasets import check_dataset, read_dataset, read_photos
from featbank.errors import DatasetError, DatasetNotFoundError, ImageError
from featbank.images import read_photo
from tests.support.datasets import uhd_row, write_csv, write_image, write_uhd, write_xlsx
from tests.support.memory_store import upload


def uhd(folder: Path) -> None:
    splits = ["training", "validation", "test"]
    write_uhd(folder, [uhd_row(f"{n}.png", 0.5 + n / 100, splits[n % 3]) for n in range(6)])
    for n in range(5):  # one is missing, one lies elsewhere
        write_image(folder / (splits[n % 3] if n else "other") / f"{n}.png", seed=n)


def spaq(folder: Path) -> None:
    rows = [[f"{n:05d}.jpg", 40.0 + n, 1, 2] for n in range(3)]
    (folder / "Annotations").mkdir(parents=True)
    header = ["Image name", "MOS", "Brightness", "Sharpness"]
    write_xlsx(folder / "Annotations/MOS and Image attribute scores.xlsx", [header, *rows])
    for n in range(3):
        write_image(folder / "TestImage" / f"{n:05d}.JPG", seed=n)


def live(folder: Path) -> None:
    from scipy.io import savemat

    (folder / "Data").mkdir(parents=True)
    names = np.array([[f"{n}.bmp"] for n in range(9)], dtype=object)
    savemat(folder / "Data/AllImages_release.mat", {"AllImages_release": names})
    savemat(folder / "Data/AllMOS_release.mat", {"AllMOS_release": np.linspace(10, 90, 9)})
    for n in range(7, 9):
        write_image(folder / "Images" / f"{n}.bmp", seed=n)


def photos(folder: Path) -> None:
    write_image(folder / "b.png")
    write_image(folder / "deep/er/a.jpg")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")


@pytest.mark.parametrize("write", [uhd, spaq, live, photos])
def test_a_dataset_is_read_by_its_url_as_from_the_disk(
    tmp_path: Path, memory_url: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    upload(tmp_path, memory_url)
    near, far = read_dataset(tmp_path), read_dataset(memory_url)
    assert far.frame["path"].tolist() == [
        path.replace(str(tmp_path), memory_url) for path in near.frame["path"]
    ]
    assert far.frame.drop(columns="path").equals(near.frame.drop(columns="path"))
    assert [note.replace(memory_url, str(tmp_path)) for note in far.notes] == list(near.notes)
    assert (str(far.root), far.name, far.mos_range[0]) == (
        memory_url,
        near.name,
        pytest.approx(near.mos_range[0], nan_ok=True),
    )
    for decode in (True, False):
        reports = [check_dataset(table, decode=decode, workers=1) for table in (near, far)]
        for report in reports:
            report.pop("root")
        said = str(reports[1]).replace(memory_url, str(tmp_path))
        assert said == str(reports[0])


def test_an_own_csv_names_photos_near_far_and_below(tmp_path: Path, memory_url: str) -> None:
    place = upload(tmp_path, memory_url)
    near = write_image(tmp_path / "near.png")
    rows = [("a.png", 1), ("sub/b.png", 2), (f"{memory_url}/c.png", 3), (str(near), 4), ("../d.png", 5)]
    write_csv(tmp_path / "scores.csv", ["path", "mos"], rows)
    (place / "scores.csv").write_bytes((tmp_path / "scores.csv").read_bytes())
    parent = memory_url.rpartition("/")[0]
    expected = [
        f"{memory_url}/a.png",
        f"{memory_url}/sub/b.png",
        f"{memory_url}/c.png",
        str(near),
        f"{parent}/d.png",
    ]
    assert read_dataset(f"{memory_url}/scores.csv").frame["path"].tolist() == expected
    with_images = read_dataset(tmp_path / "scores.csv", images=tmp_path)
    assert with_images.frame["path"].tolist()[2:4] == [f"{memory_url}/c.png", str(near)]


def test_photos_are_the_same_near_and_far(tmp_path: Path, memory_url: str) -> None:
    photos(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty.png").write_bytes(b"")
    upload(tmp_path, memory_url)
    near, far = read_photo(tmp_path / "b.png"), read_photo(f"{memory_url}/b.png")
    assert near.digest == far.digest
    assert np.array_equal(near.pixels, far.pixels)
    assert read_photos([f"{memory_url}/b.png", f"{memory_url}/deep"]).frame["image_id"].tolist() == [
        f"{memory_url}/b.png",
        f"{memory_url}/deep/er/a.jpg",
    ]
    reasons = {
        "broken.png": "not-an-image",
        "empty.png": "empty",
        "none.png": "missing",
        "deep": "not-a-file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError) as caught:
            read_photo(f"{memory_url}/{name}")
        assert caught.value.reason == reason


def test_what_is_not_there_is_named(memory_url: str) -> None:
    with pytest.raises(DatasetNotFoundError, match=f"no object at {memory_url}"):
        read_dataset(memory_url)
    upload(Path(__file__).parent, memory_url)
    with pytest.raises(DatasetNotFoundError, match="no dataset in memory"):
        read_dataset(memory_url)
    with pytest.raises(DatasetError, match="is no dataset"):
        read_dataset(f"{memory_url}/{Path(__file__).name}")
