"""Laws of reading photographs, against Pillow, the standards' formulas, and every possible cut."""

import hashlib
import io
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile, ImageOps

from featbank.digest import digest_bytes
from featbank.errors import FeatbankError, ImageError
from featbank.images import DECODE_POLICY, MAX_PIXELS, Photo, read_photo
from featbank.images.formats import check_size
from tests.support import tiny_formats as tiny
from tests.support.odd_cases import gray_picture, over_white, picture, stored_for

sides = st.integers(1, 40)
levels = st.integers(0, 255)


def noise(height: int, width: int, n_channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, n_channels), dtype=np.uint8)


@given(sides, sides, st.integers(1, 100), st.sampled_from([0, 1, 2]), st.booleans(), levels)
def test_jpeg_pixels_are_those_of_pillow(
    height: int, width: int, quality: int, subsampling: int, progressive: bool, seed: int
) -> None:
    pixels = noise(height, width, 3, seed)
    data = tiny.save(pixels, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(read_photo(data).pixels, np.asarray(image))


@given(st.data())
def test_no_cut_file_gives_pixels(data: st.DataObject) -> None:
    writer = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
    whole = CUTTABLE[writer]
    # A TIFF directory may lack its pointer to a next one, the last four bytes here: many EXIF blocks do.
    n_needed = len(whole) - (4 if writer == "TIFF" else 0)
    cut = whole[: data.draw(st.integers(0, n_needed - 1))]
    with pytest.raises(ImageError):
        read_photo(cut)
    assert read_photo(whole).format == writer


CUTTABLE = {
    "JPEG": tiny.save(picture(), "JPEG"),
    "PNG": tiny.save(picture(), "PNG"),
    "WEBP": tiny.save(picture(), "WEBP"),
    "TIFF": tiny.tiff_bytes([tiny.tiff_page(picture())]),
}


@given(st.integers(8, len(CUTTABLE["PNG"]) - 1), st.integers(0, 7))
def test_no_flipped_bit_of_a_png_passes(at: int, bit: int) -> None:
    data = bytearray(CUTTABLE["PNG"])
    data[at] ^= 1 << bit
    with pytest.raises(ImageError):
        read_photo(bytes(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_undone_as_pillow_does(orientation: int, order: str) -> None:
    pixels = noise(3, 5, 3)
    exif = tiny.exif_bytes(orientation, order)
    data = tiny.png_bytes(pixels, 2, before=tiny.png_chunk(b"eXIf", exif))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_photo(data).pixels, expected)
    assert np.array_equal(stored_for(expected, orientation), pixels)


@given(arrays(np.uint16, st.tuples(sides, sides)))
def test_sixteen_bits_become_eight_within_one_level_and_in_order(deep: np.ndarray) -> None:
    found = {
        "png": read_photo(tiny.png_bytes(deep, 0, 16)).pixels[..., 0],
        "tiff": read_photo(tiny.tiff_bytes([tiny.tiff_page(deep)])).pixels[..., 0],
        "rgb": read_photo(tiny.png_bytes(np.repeat(deep[..., None], 3, 2), 2, 16)).pixels[..., 0],
    }
    for pixels in found.values():
        assert np.array_equal(pixels, found["png"])
        assert np.abs(pixels - deep / 257).max() < 1
        order = np.argsort(deep, axis=None)
        assert (np.diff(pixels.ravel()[order].astype(int)) >= 0).all()


@given(arrays(np.uint8, (4, 5, 4)))
def test_transparency_shows_white(rgba: np.ndarray) -> None:
    pixels = read_photo(tiny.png_bytes(rgba, 6)).pixels
    expected = over_white(rgba[..., :3], rgba[..., 3])
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert (pixels[rgba[..., 3] == 0] == 255).all()
    assert np.array_equal(pixels[rgba[..., 3] == 255], rgba[..., :3][rgba[..., 3] == 255])


def test_gray_and_its_rgb_copy_agree() -> None:
    gray = gray_picture()
    one, three = tiny.png_bytes(gray, 0), tiny.png_bytes(np.repeat(gray[..., None], 3, 2), 2)
    assert np.array_equal(read_photo(one).pixels, read_photo(three).pixels)


def test_a_preview_in_a_camera_raw_file_is_not_taken_for_the_photo(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(CUTTABLE["TIFF"])
    (tmp_path / "a.NEF").write_bytes(CUTTABLE["TIFF"])
    assert read_photo(tmp_path / "a.tif").format == "TIFF"
    with pytest.raises(ImageError, match="camera raw") as caught:
        read_photo(tmp_path / "a.NEF")
    assert (caught.value.reason, caught.value.digest) == ("unsupported", digest_bytes(CUTTABLE["TIFF"]))


def test_identity_is_the_content_alone(tmp_path: Path) -> None:
    data = tiny.save(picture(), "JPEG")
    (tmp_path / "one.jpg").write_bytes(data)
    (tmp_path / "two.jpg").write_bytes(data)
    photos = [read_photo(str(tmp_path / "one.jpg")), read_photo(tmp_path / "two.jpg"), read_photo(data)]
    for photo in photos:
        assert photo.digest == hashlib.sha256(data).hexdigest()
        assert np.array_equal(photo.pixels, photos[0].pixels)
        assert (photo.format, photo.mode, photo.actions) == ("JPEG", "RGB", ())


def test_modes_tell_channels_and_depth_as_stored() -> None:
    rgb, gray = picture(), gray_picture()
    deep = gray.astype(np.uint16) * 257
    cases = {
        "L;16": tiny.png_bytes(deep, 0, 16),
        "RGB;16": tiny.tiff_bytes([tiny.tiff_page(np.repeat(deep[..., None], 3, 2))]),
        "L;1": tiny.png_bytes(gray // 128, 0, 1),
        "L;4": tiny.png_bytes(gray // 16, 0, 4),
        "LA": tiny.png_bytes(np.dstack([gray, gray]), 4),
        "L;32F": tiny.tiff_bytes([tiny.tiff_page((gray / 255).astype(np.float32))]),
        "CMYK": tiny.save(Image.fromarray(np.dstack([rgb, gray]), "CMYK"), "JPEG"),
    }
    assert {mode: read_photo(data).mode for mode, data in cases.items()} == {mode: mode for mode in cases}


def test_pixel_limit_is_exact_and_looks_at_the_header_alone() -> None:
    check_size(20_000, MAX_PIXELS // 20_000)
    with pytest.raises(ImageError, match="300000000") as caught:
        check_size(20_000, MAX_PIXELS // 20_000 + 1)
    assert caught.value.reason == "too-large"
    # Nothing but a header: were anything else looked at first, the file would be cut or corrupt.
    header = tiny.PNG_SIGNATURE + tiny.png_header(20_000, 20_000, 8, 2)
    with pytest.raises(ImageError) as caught:
        read_photo(header)
    assert caught.value.reason == "too-large"


def test_files_above_the_size_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.jpg"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    assert caught.value.reason == "too-large"


def test_a_process_that_accepts_cut_files_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.png_bytes(picture(), 2)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(FeatbankError, match="LOAD_TRUNCATED_IMAGES") as caught:
        read_photo(data)
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize("source", [None, 3, ["a.jpg"], bytearray(b"x")])
def test_other_kinds_of_source_are_refused(source: object) -> None:
    with pytest.raises(TypeError, match=re.escape(type(source).__name__)):
        read_photo(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["no\0such.jpg", "x" * 5000 + ".jpg", ""])
def test_impossible_paths_have_a_reason(path: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    assert caught.value.reason in {"missing", "unreadable", "not-a-file"}


def test_hidden_colours_of_a_profile_do_not_change_srgb_photos() -> None:
    """A power law of 2.2 is near sRGB but not sRGB: it must be applied, while sRGB itself is left alone."""
    plain = tiny.save(picture(), "JPEG", quality=95)
    almost = tiny.jpeg_with(plain, tiny.jpeg_icc(tiny.icc_rgb("sRGB", tiny.SRGB_TO_D50, 2.2)))
    assert read_photo(almost).actions == ("icc:sRGB",)
    light = (read_photo(plain).pixels / 255) ** 2.2
    assert np.abs(read_photo(almost).pixels.astype(int) - tiny.srgb_encode(light)).max() <= 2


def test_profile_names_are_shortened_and_printable() -> None:
    name = "A very long name\x07\n of a profile " * 10
    plain = tiny.save(picture(), "JPEG")
    photo = read_photo(tiny.jpeg_with(plain, tiny.jpeg_icc(tiny.icc_rgb(name, tiny.WIDE_TO_D50, 1.8))))
    (action,) = photo.actions
    assert action.isprintable()
    assert action.startswith("icc:A very long name of a profile")
    assert len(action) <= 64


def test_policy_is_json_has_an_epoch_and_is_the_same_in_another_process() -> None:
    assert isinstance(DECODE_POLICY["epoch"], int)
    assert re.fullmatch("[0-9a-f]{64}", str(DECODE_POLICY["probe"]))
    code = "import json; from featbank.images import DECODE_POLICY; print(json.dumps(DECODE_POLICY))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == DECODE_POLICY


def test_photos_compare_by_identity_as_arrays_have_no_single_truth() -> None:
    data = tiny.png_bytes(picture(), 2)
    one, two = read_photo(data), read_photo(data)
    assert isinstance(one, Photo)
    assert one == one
    assert one != two


def test_float_tiff_keeps_its_ends() -> None:
    ends = np.array([[0.0, 1.0, 0.5]], np.float32)
    data = tiny.tiff_bytes([tiny.tiff_page(ends)])
    assert read_photo(data).pixels[0, :, 0].tolist() == [0, 255, 128]
    above = struct.pack("<f", 1.0001)
    with pytest.raises(ImageError, match=r"\[0, 1\]"):
        read_photo(data.replace(struct.pack("<f", 1.0), above))


@pytest.mark.dataset
@pytest.mark.slow
def test_real_photographs_are_read(real_data: Path) -> None:
    """The 719 real files: all are read, and those without a profile to apply have Pillow's pixels."""
    paths = sorted((real_data / "photos-web").iterdir()) + sorted((real_data / "photos-4k").iterdir())
    actions = set()
    for path in paths:
        photo = read_photo(path)
        actions.update(action.split(":")[0] for action in photo.actions)
        if not any(action.startswith("icc:") for action in photo.actions):
            with Image.open(path) as image:
                assert np.array_equal(photo.pixels, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    assert {"orientation", "gray-to-rgb", "icc"} <= actions
