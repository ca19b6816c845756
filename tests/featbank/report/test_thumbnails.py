from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.images import REASONS
from featbank.report.style import LONG_SIDE_PX, Thumbnail, make_thumbnail


def _decode(thumbnail: Thumbnail) -> Image.Image:
    head, _, data = thumbnail.source.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


def _save(path: Path, width: int, height: int, **options: object) -> Path:
    # Left half dark, right half light: which side is up can be told.
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, width // 2 :] = 220
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1200, 800, (320, 213)),
        (800, 1200, (213, 320)),
        (320, 320, (320, 320)),
        (100, 50, (100, 50)),
        (4000, 3, (320, 1)),
    ],
)
def test_the_long_side_is_at_most_320_and_nothing_is_enlarged(
    tmp_path: Path, width: int, height: int, expected: tuple[int, int]
) -> None:
    thumbnail = make_thumbnail(_save(tmp_path / "photo.png", width, height))
    assert (thumbnail.width, thumbnail.height) == expected == _decode(thumbnail).size
    assert max(expected) <= LONG_SIDE_PX


def test_a_turned_photo_stands_upright_and_tells_nothing_of_its_maker(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    exif[0x010F] = "maker"
    thumbnail = make_thumbnail(_save(tmp_path / "photo.jpg", 640, 400, exif=exif))
    image = _decode(thumbnail)
    assert image.size == (200, 320)
    pixels = np.asarray(image.convert("L"))
    assert pixels[:100].mean() < 40  # the left half is now above
    assert pixels[-100:].mean() > 180
    assert not image.getexif()


def test_the_same_photo_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _save(tmp_path / "photo.png", 700, 500)
    assert make_thumbnail(path) == make_thumbnail(str(path))


def test_a_photo_that_cannot_be_had_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    whole = _save(tmp_path / "whole.jpg", 400, 300).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    reasons = {
        name: make_thumbnail(tmp_path / name).reason
        for name in ("absent.jpg", "text.jpg", "folder.jpg", "cut.jpg")
    }
    assert reasons == {
        "absent.jpg": REASONS["missing"],
        "text.jpg": REASONS["not-an-image"],
        "folder.jpg": REASONS["not-a-file"],
        "cut.jpg": REASONS["truncated"],
    }
    assert make_thumbnail(None) == Thumbnail(reason="photo not at hand")
