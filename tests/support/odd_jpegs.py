"""JPEG files: orientations, colours, samplings, damage."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import (
    HEIGHT,
    WIDTH,
    Case,
    Pixels,
    as_rgb,
    gray_picture,
    picture,
    stored_for,
)


def jpegs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    plain = tiny.save(rgb, "JPEG", quality=95, subsampling=0)
    yield Case("plain.jpg", plain, None, rgb, 6)
    yield Case(
        "progressive.jpg", tiny.save(rgb, "JPEG", quality=95, subsampling=0, progressive=True), None, rgb, 6
    )
    yield Case("halved_chroma.jpeg", tiny.save(rgb, "JPEG", quality=95, subsampling=2), None, rgb, 12)
    yield Case("stored_rgb.jpg", tiny.save(rgb, "JPEG", quality=95, keep_rgb=True), None, rgb, 6)
    yield Case("gray.jpg", tiny.save(gray, "JPEG", quality=95), None, as_rgb(gray), 4, ("gray-to-rgb",))
    yield Case("with space ünïcode.jpg", plain, None, rgb, 6)
    yield Case("trailing_bytes.jpg", plain + b"appended film " * 99, None, rgb, 6)
    yield from _mended_jpegs(plain)
    yield Case("fill_bytes.jpg", plain[:2] + b"\xff\xff\xff" + plain[2:], None, rgb, 6)
    yield Case("jpeg_named.png", plain, None, rgb, 6, ("misnamed:.png",))
    yield Case("jpeg_without_suffix", plain, None, rgb, 6)
    for orientation in range(1, 9):
        stored = tiny.save(stored_for(rgb, orientation), "JPEG", quality=95, subsampling=0)
        data = tiny.jpeg_with(stored, tiny.jpeg_exif(orientation, "<" if orientation % 2 else ">"))
        actions = () if orientation == 1 else (f"orientation:{orientation}",)
        yield Case(f"orientation_{orientation}.jpg", data, None, rgb, 6, actions)
    data = tiny.jpeg_with(plain, tiny.jpeg_exif(9))
    yield Case("orientation_9.jpg", data, None, rgb, 6, ("orientation-ignored:9",))
    data = tiny.jpeg_with(plain, tiny.jpeg_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    yield Case("broken_exif.jpg", data, None, rgb, 6, ("exif-ignored:broken",))
    # 3:1 sampling, legal and rare: no library at hand writes it, so the scan is written bit by bit.
    flat = np.full((8, 24, 3), 120, np.uint8)
    data = tiny.save(flat, "JPEG", quality=95, subsampling=0)
    frame = tiny.jpeg_frame_at(data)
    widened = tiny.patched(data, frame + 11, b"\x31")
    yield Case("unusual_sampling.jpg", _five_flat_blocks(widened), None, flat, 3, ("unusual-sampling",))


def _mended_jpegs(plain: bytes) -> Iterator[Case]:
    """What libjpeg warns of while every pixel is in place: read with its pixels, and recorded."""
    decoded = np.asarray(Image.open(io.BytesIO(plain)))
    scan = plain.index(b"\xff\xda")
    end_of_header = scan + 2 + int.from_bytes(plain[scan + 2 : scan + 4], "big")
    old = tiny.patched(plain, plain.index(b"JFIF") + 5, b"\x03")
    bare = tiny.save(picture(), "JPEG", quality=95, subsampling=0, progressive=True)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), decoded)
    before_end = {
        "few_zeros": bytes(12),
        "zeros": bytes(700),
        "blanks": b"\x20" * 9,
        "sectors": b"\xf6" * 4096,
    }
    for name, padding in before_end.items():
        for kind, data in (("plain", plain), ("progressive", bare)):
            padded = data[:-2] + padding + data[-2:]
            yield Case(
                f"{name}_before_end_{kind}.jpg", padded, None, decoded, 0, ("mended:bytes-before-end",)
            )
    for name, parameters in (("se_zero", b"\0\0\0"), ("ah_al", b"\0\x3f\x11"), ("ss_one", b"\1\x3f\0")):
        data = tiny.patched(plain, end_of_header - 3, parameters)
        yield Case(f"scan_{name}.jpg", data, None, decoded, 0, ("mended:scan-parameters",))
    profile = tiny.icc_rgb("Wide test space", tiny.WIDE_TO_D50, 1.8)
    part = tiny.jpeg_icc
    for name, segments, problem in (
        ("empty", [part(b"")], "empty"),
        ("no_number", [tiny.jpeg_segment(0xE2, b"ICC_PROFILE\0")], "incomplete"),
        ("number_zero", [part(profile, 0, 1)], "incomplete"),
        ("twice", [part(profile)] * 2, "incomplete"),
        ("totals_differ", [part(profile[:99], 1, 2), part(profile[99:], 2, 3)], "incomplete"),
    ):
        yield Case(
            f"icc_{name}.jpg", tiny.jpeg_with(plain, *segments), None, decoded, 0, (f"icc-ignored:{problem}",)
        )
    junk = plain[:2] + b"\xff\xe0\0\x04ab" + b"zz\xff\0z" + plain[2:]
    actions = ("mended:bytes-between-segments",)
    yield Case("bytes_between_segments.jpg", junk, None, decoded, 0, actions)
    yield Case("bytes_before_scan.jpg", plain[:scan] + bytes(40) + plain[scan:], None, decoded, 0, actions)
    yield Case("jfif_of_the_future.jpg", old, None, decoded, 0, ("mended:jfif-version",))
    several = tiny.patched(junk[:-2] + bytes(50) + junk[-2:], junk.index(b"JFIF") + 5, b"\x09")
    actions += ("mended:jfif-version", "mended:bytes-before-end")
    yield Case("several_oddities.jpg", several, None, decoded, 0, actions)


def _five_flat_blocks(data: bytes) -> bytes:
    """Replace the scan by one unit of 3 + 1 + 1 blocks, all but the first of them "no change"."""
    # Standard Huffman tables: luma DC 0 is 00, AC end of block is 1010; chroma DC 0 is 00, end of block is 00.
    # The first luma block carries the level: DC difference of category 6 would need the quantiser; level 120
    # is 8 below mid-gray, which after 8x scaling and division by the quantiser q is -64/q.
    start = data.index(b"\xff\xdb") + 5
    quantiser = data[start]
    level = round(-64 / quantiser)
    size = abs(level).bit_length()
    dc_codes = {0: "00", 1: "010", 2: "011", 3: "100", 4: "101", 5: "110", 6: "1110"}
    value = format(level + (1 << size) - 1, f"0{size}b") if level < 0 else format(level, f"0{size}b")
    bits = dc_codes[size] + value + "1010" + ("00" + "1010") * 2 + ("00" + "00") * 2
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    position = data.index(b"\xff\xda")
    header_end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data[:header_end] + scan + b"\xff\xd9"


def jpeg_colours() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    plain = tiny.save(rgb, "JPEG", quality=95, subsampling=0)
    decoded = np.asarray(Image.open(io.BytesIO(plain)))
    wide = tiny.icc_rgb("Wide test space", tiny.WIDE_TO_D50, 1.8)
    light = (decoded / 255) ** 1.8
    expected = tiny.srgb_encode(light @ (np.linalg.inv(tiny.SRGB_TO_D50) @ tiny.WIDE_TO_D50).T)
    yield Case(
        "wide_icc.jpg",
        tiny.jpeg_with(plain, tiny.jpeg_icc(wide)),
        None,
        expected,
        3,
        ("icc:Wide test space",),
    )
    halves = (tiny.jpeg_icc(wide[:200], 1, 2), tiny.jpeg_icc(wide[200:], 2, 2))
    # Parts may come in any order.
    data = tiny.jpeg_with(plain, halves[1], halves[0])
    yield Case("icc_in_two_parts.jpg", data, None, expected, 3, ("icc:Wide test space",))
    data = tiny.jpeg_with(plain, halves[0])
    yield Case("icc_part_missing.jpg", data, None, decoded, 0, ("icc-ignored:incomplete",))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield Case("srgb_icc.jpg", tiny.jpeg_with(plain, tiny.jpeg_icc(srgb)), None, decoded)
    data = tiny.jpeg_with(plain, tiny.jpeg_icc(b"no profile at all" * 20))
    yield Case("broken_icc.jpg", data, None, decoded, 0, ("icc-ignored:broken",))
    gray_profile = tiny.icc_gray("Gray gamma 1.8", 1.8)
    data = tiny.jpeg_with(plain, tiny.jpeg_icc(gray_profile))
    yield Case("gray_icc_on_rgb.jpg", data, None, decoded, 0, ("icc-ignored:mismatch",))
    gray_jpeg = tiny.save(gray, "JPEG", quality=95)
    gray_light = (np.asarray(Image.open(io.BytesIO(gray_jpeg))) / 255) ** 1.8
    expected = as_rgb(tiny.srgb_encode(gray_light))
    data = tiny.jpeg_with(gray_jpeg, tiny.jpeg_icc(gray_profile))
    yield Case("gray_icc.jpg", data, None, expected, 2, ("icc:Gray gamma 1.8",))
    data = tiny.jpeg_with(gray_jpeg, tiny.jpeg_icc(wide))
    yield Case("rgb_icc_on_gray.jpg", data, None, expected, 3, ("gray-to-rgb", "icc:Wide test space"))
    inks = np.dstack([255 - rgb, gray_picture() // 2])
    expected = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    adobe = tiny.save(Image.fromarray(inks, "CMYK"), "JPEG", quality=95, subsampling=0)
    yield Case("cmyk_adobe.jpg", adobe, None, expected, 8, ("adobe-inversion", "cmyk-to-rgb"))
    # Pillow writes CMYK inverted and marked; plain CMYK is the opposite of both.
    bare = tiny.save(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=95, subsampling=0)
    yield Case("cmyk_plain.jpg", tiny.jpeg_without(bare, 0xEE), None, expected, 8, ("cmyk-to-rgb",))
    yield Case("ycck_adobe.jpg", _ycck(inks), None, expected, 8, ("adobe-inversion", "cmyk-to-rgb"))


def _ycck(inks: Pixels) -> bytes:
    """CMYK whose inverted colour inks are stored as luma and chroma: transform 2 of Adobe's mark."""
    # The decoder takes C = 255 - R of what it converts from YCC, and the stored inks are inverted once more.
    as_stored = Image.fromarray(inks[..., :3], "RGB").convert("YCbCr")
    planes = np.dstack([np.asarray(as_stored), 255 - inks[..., 3]])
    data = tiny.save(Image.fromarray(255 - planes, "CMYK"), "JPEG", quality=95, subsampling=0)
    mark = data.index(b"\xff\xee")
    return tiny.patched(data, mark + 15, b"\x02")


def broken_jpegs() -> Iterator[Case]:
    rgb = picture()
    plain = tiny.save(rgb, "JPEG", quality=95, subsampling=0)
    frame = tiny.jpeg_frame_at(plain)
    scan = plain.index(b"\xff\xda") + 14

    def sized(height: int, width: int, data: bytes = plain) -> bytes:
        return tiny.patched(data, frame + 5, struct.pack(">HH", height, width))

    yield Case("cut_in_half.jpg", plain[: len(plain) // 2], "truncated")
    yield Case("cut_in_header.jpg", plain[: frame + 6], "truncated")
    yield Case("end_missing.jpg", plain[:-2], "truncated")
    yield Case("only_three_bytes.jpg", plain[:3], "truncated")
    yield Case("marker_in_scan.jpg", tiny.patched(plain, scan + 400, b"\xff\xc4\0\x05abc"), "corrupt")
    yield Case("ends_early.jpg", tiny.patched(plain, scan + 400, b"\xff\xd9"), "corrupt")
    yield Case("no_frame.jpg", b"\xff\xd8" + plain[plain.index(b"\xff\xda") :], "corrupt")
    yield Case("two_frames.jpg", plain[:frame] + plain[frame : frame + 19] + plain[frame:], "corrupt")
    yield Case("rest_of_a_scan.jpg", plain[:-2] + plain[scan : scan + 60] + plain[-2:], "corrupt")
    yield Case("twelve_bit.jpg", tiny.patched(plain, frame + 4, b"\x0c"), "unsupported")
    yield Case("lossless.jpg", tiny.patched(plain, frame + 1, b"\xc3"), "unsupported")
    yield Case("no_height.jpg", sized(0, WIDTH), "corrupt")
    yield Case("claims_20000x20000.jpg", sized(20_000, 20_000), "too-large")
    yield Case("claims_65500x65500.jpg", sized(65_500, 65_500), "too-large")
    yield Case("claims_17000x17000.jpg", sized(17_000, 17_000), "truncated")
    two = tiny.save(gray_picture(), "JPEG")
    at = tiny.jpeg_frame_at(two)
    frame_of_two = tiny.jpeg_segment(
        0xC0, struct.pack(">BHHB", 8, HEIGHT, WIDTH, 2) + b"\x01\x11\0\x02\x11\0"
    )
    yield Case("two_components.jpg", two[:at] + frame_of_two + two[at + 13 :], "unsupported")
