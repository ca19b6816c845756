"""Laws of reading photographs, against Pillow, the standards' formulas, and every possible cut."""

import contextlib
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
from PIL import Image, ImageFile, ImageOps, features

from featbank.digest import digest_bytes
from featbank.errors import FeatbankError, ImageError
from featbank.images import DECODE_POLICY, MAX_PIXELS, Photo, read_photo
from featbank.images.formats import check_size
from tests.support import tiny_formats as tiny
from tests.support.odd_cases import gray_picture, over_white, picture, stored_for
from tests.support.odd_others import avif_signalling

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


def raw_file(orientation: int = 1, shrunk: int = 1) -> bytes:
    """A DNG of 320 x 240 sensor pixels with a JPEG preview, unturned as cameras store it."""
    height, width = 240 // shrunk, 320 // shrunk
    shown = Image.fromarray(picture()).resize((width, height))
    tags = {254: [0], 33421: [2, 2], 274: [orientation], 50717: [4095]}
    own = {tag: (3, values) for tag, values in tags.items()} | {
        33422: (1, [0, 1, 1, 2]), 50706: (1, [1, 4, 0, 0]), 271: (2, list(b"Maker\0")), 272: (2, list(b"Model\0")),
    }  # fmt: skip
    sensor = tiny.tiff_page(np.full((240, 320), 800, np.uint16), photometric=32803, tags=own)
    numbers = {
        254: [1],
        256: [width],
        257: [height],
        258: [8] * 3,
        259: [7],
        262: [6],
        277: [3],
        278: [height],
    }
    preview = tiny.TiffPage(
        [tiny.save(shown, "JPEG", quality=95)], {tag: (3, v) for tag, v in numbers.items()}
    )
    return tiny.tiff_bytes([sensor, preview])


def test_a_preview_in_a_camera_raw_file_is_not_taken_for_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "a.tif").write_bytes(CUTTABLE["TIFF"])
    (tmp_path / "a.NEF").write_bytes(CUTTABLE["TIFF"])
    assert read_photo(tmp_path / "a.tif").format == "TIFF"
    for source in (tmp_path / "a.NEF", raw_file()):
        with pytest.raises(ImageError, match=r"RAW file.*pip install 'featbank\[raw\]'") as caught:
            read_photo(source)
        assert caught.value.reason == "not-installed"
    assert caught.value.digest == digest_bytes(raw_file())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_with_rawpy_the_preview_of_full_size_is_read_and_recorded(orientation: int) -> None:
    pytest.importorskip("rawpy")
    photo = read_photo(raw_file(orientation))
    turned = () if orientation == 1 else (f"orientation:{orientation}",)
    assert (photo.format, photo.actions) == ("RAW", ("raw-preview", *turned))
    stored = Image.fromarray(picture()).resize((320, 240))
    stored.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 3
    with pytest.raises(ImageError, match="preview of 80 x 60") as caught:
        read_photo(raw_file(orientation, 4))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(
    ("package", "writer", "options"),
    [("pillow_heif", "HEIF", {"quality": 95}), ("pillow_jxl", "JXL", {"lossless": True})],
)
def test_what_phones_write_is_read_by_its_package_and_named_without(
    package: str, writer: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip(package)
    if package == "pillow_heif":
        module.register_heif_opener()
    data = tiny.save(picture(), writer, exif=b"Exif\0\0" + tiny.exif_bytes(1), **options)
    photo = read_photo(data)
    assert photo.format in {"HEIC", "JXL"}
    assert np.abs(photo.pixels.astype(int) - picture()).mean() < 3
    for cut in (data[: len(data) // 2], data[:-9]):
        with pytest.raises(ImageError):
            read_photo(cut)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=r"pip install 'featbank\[(heic|jxl)\]'") as caught:
        read_photo(data)
    assert caught.value.reason == "not-installed"


def test_size_of_a_jpeg_xl_file_is_known_before_it_is_opened() -> None:
    # Signature, then: not small; 30 bits for the height; square.
    bits = 0 | 3 << 1 | (2**25 - 1) << 3 | 1 << 33
    with pytest.raises(ImageError, match="33554432 x 33554432") as caught:
        read_photo(b"\xff\x0a" + bits.to_bytes(12, "little") + bytes(99))
    assert caught.value.reason == "too-large"


@given(st.integers(0, 2**32 - 1), st.integers(5, 95))
def test_zeros_in_place_of_lost_jpeg_data_are_never_padding(seed: int, percent: int) -> None:
    data = tiny.save(noise(40, 40, 3, seed), "JPEG", quality=100)
    start = data.index(b"\xff\xda") + 14
    kept = start + (len(data) - start) * percent // 100
    with pytest.raises(ImageError):
        read_photo(data[:kept] + bytes(len(data) - 2 - kept) + data[-2:])


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.98])
def test_what_is_there_of_a_cut_jpeg_is_kept_when_asked_for(keep: float) -> None:
    whole = tiny.save(picture(), "JPEG", quality=95, subsampling=0)
    start = whole.index(b"\xff\xda") + 14
    cut = whole[: start + round((len(whole) - start) * keep)]
    photo = read_photo(cut, keep_truncated=True)
    assert photo.actions == ("truncated-kept",)
    assert photo.pixels.shape == picture().shape
    assert np.array_equal(photo.pixels[:8], read_photo(whole).pixels[:8])
    assert read_photo(whole, keep_truncated=True).actions == ()
    with pytest.raises(ImageError):
        read_photo(cut)


@pytest.mark.parametrize("damage", [b"\xff\xc4", b"\xff\xd9"])
def test_tiff_decoders_print_nothing(damage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    data = tiny.save(noise(64, 64, 3), "TIFF", compression="tiff_lzw")
    for at in range(40, len(data) - 200, 997):
        with contextlib.suppress(ImageError):
            read_photo(tiny.patched(data, at, damage * 40))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("avif" not in features.get_supported(), reason="this Pillow has no AVIF")
def test_avif_colours_follow_the_box() -> None:
    plain = read_photo(tiny.save(picture(), "AVIF", quality=95))
    assert plain.actions == ()
    photo = read_photo(avif_signalling(b"\0\x0c\0\x0d"))
    assert photo.actions == ("cicp:12/13",)
    coded = plain.pixels / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    expected = tiny.srgb_encode(light @ (np.linalg.inv(tiny.SRGB_TO_D50) @ tiny.WIDE_TO_D50).T)
    assert np.abs(photo.pixels.astype(int) - expected).max() <= 1


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
