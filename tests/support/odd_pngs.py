"""PNG files: depths, transparency, ancillary chunks, damage."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import (
    HEIGHT,
    WIDTH,
    Case,
    as_rgb,
    gray_picture,
    over_white,
    picture,
    stored_for,
)


def pngs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    alpha = (gray.astype(int) * 2 % 256).astype(np.uint8)
    yield Case("plain.png", tiny.png_bytes(rgb, 2), None, rgb)
    yield Case("interlaced.png", tiny.png_bytes(rgb, 2, interlaced=True), None, rgb)
    yield Case("gray.png", tiny.png_bytes(gray, 0), None, as_rgb(gray), 0, ("gray-to-rgb",))
    yield Case("png_named.jpg", tiny.png_bytes(rgb, 2), None, rgb, 0, ("misnamed:.jpg",))
    for depth in (1, 2, 4):
        levels = gray.astype(int) >> (8 - depth)
        expected = as_rgb(levels * 255 // (2**depth - 1))
        actions = ("bilevel-to-8", "gray-to-rgb") if depth == 1 else ("gray-to-rgb",)
        yield Case(f"gray_{depth}_bit.png", tiny.png_bytes(levels, 0, depth), None, expected, 0, actions)
    deep = rgb.astype(int) * 257 + 60
    deep_gray = gray.astype(int) * 200
    expected_gray = as_rgb(np.rint(deep_gray / 257))
    data = tiny.png_bytes(deep.clip(0, 65535), 2, 16)
    yield Case("rgb_16_bit.png", data, None, rgb, 1, ("16-bit-to-8",))
    data = tiny.png_bytes(deep_gray, 0, 16)
    yield Case("gray_16_bit.png", data, None, expected_gray, 1, ("16-bit-to-8", "gray-to-rgb"))
    rgba, la = np.dstack([rgb, alpha]), np.dstack([gray, alpha])
    expected = over_white(rgb, alpha)
    expected_gray = over_white(as_rgb(gray), alpha)
    yield Case("rgba.png", tiny.png_bytes(rgba, 6), None, expected, 1, ("alpha-over-white",))
    data = tiny.png_bytes(rgba.astype(int) * 257, 6, 16)
    yield Case("rgba_16_bit.png", data, None, expected, 1, ("16-bit-to-8", "alpha-over-white"))
    yield Case(
        "gray_alpha.png", tiny.png_bytes(la, 4), None, expected_gray, 1, ("gray-to-rgb", "alpha-over-white")
    )
    yield Case(
        "gray_alpha_16_bit.png", tiny.png_bytes(la.astype(int) * 257, 4, 16), None, expected_gray, 1,
        ("16-bit-to-8", "alpha-over-white"),
    )  # fmt: skip
    opaque = np.dstack([rgb, np.full_like(alpha, 255)])
    yield Case("opaque_rgba.png", tiny.png_bytes(opaque, 6), None, rgb, 0, ("opaque-alpha-dropped",))
    clear = np.dstack([rgb, np.zeros_like(alpha)])
    white = np.full_like(rgb, 255)
    yield Case("fully_transparent.png", tiny.png_bytes(clear, 6), None, white, 0, ("alpha-over-white",))


def odd_pngs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    chunk = tiny.png_chunk
    index = (gray // 64).astype(np.uint8)
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 150, 90], [250, 240, 230]], np.uint8)
    palette = chunk(b"PLTE", colours.tobytes())
    yield Case(
        "palette.png", tiny.png_bytes(index, 3, before=palette), None, colours[index], 0, ("palette-to-rgb",)
    )
    data = tiny.png_bytes(index, 3, 2, before=palette + chunk(b"tRNS", bytes([255, 0])))
    clear = np.array([255, 0, 255, 255])[index]
    expected = over_white(colours[index], clear)
    yield Case("palette_transparent.png", data, None, expected, 1, ("palette-to-rgb", "alpha-over-white"))
    key = rgb[10, 20]
    data = tiny.png_bytes(rgb, 2, before=chunk(b"tRNS", struct.pack(">3H", *key.tolist())))
    expected = np.where((rgb == key).all(axis=2, keepdims=True), 255, rgb).astype(np.uint8)
    yield Case("transparent_colour.png", data, None, expected, 0, ("alpha-over-white",))
    levels = gray.astype(int) >> 4
    data = tiny.png_bytes(levels, 0, 4, before=chunk(b"tRNS", struct.pack(">H", 5)))
    expected = as_rgb(np.where(levels == 5, 255, levels * 17))
    yield Case("transparent_level_4_bit.png", data, None, expected, 0, ("gray-to-rgb", "alpha-over-white"))
    data = tiny.png_bytes(
        gray.astype(int) * 257, 0, 16, before=chunk(b"tRNS", struct.pack(">H", int(gray[5, 5]) * 257))
    )
    expected = as_rgb(np.where(gray == gray[5, 5], 255, gray))
    yield Case(
        "transparent_level_16_bit.png",
        data,
        None,
        expected,
        0,
        ("16-bit-to-8", "gray-to-rgb", "alpha-over-white"),
    )
    data = tiny.png_bytes(rgb.astype(int) * 257, 2, 16, before=chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    yield Case(
        "transparent_colour_16_bit.png", data, None, rgb, 0, ("16-bit-to-8", "transparency-ignored:16-bit")
    )
    turned = tiny.png_bytes(stored_for(rgb, 6), 2, before=chunk(b"eXIf", tiny.exif_bytes(6, ">")))
    yield Case("orientation_6.png", turned, None, rgb, 0, ("orientation:6",))
    wide = tiny.icc_rgb("Wide test space", tiny.WIDE_TO_D50, 1.8)
    matrix = np.linalg.inv(tiny.SRGB_TO_D50) @ tiny.WIDE_TO_D50
    expected = tiny.srgb_encode((rgb / 255) ** 1.8 @ matrix.T)
    data = tiny.png_bytes(rgb, 2, before=chunk(b"iCCP", b"wide\0\0" + zlib.compress(wide)))
    yield Case("wide_icc.png", data, None, expected, 3, ("icc:Wide test space",))
    for name, code_points, gamma in (("p3_linear", b"\x0c\x08", 1.0), ("p3_gamma", b"\x0c\x04", 2.2)):
        data = tiny.png_bytes(rgb, 2, before=chunk(b"cICP", code_points + b"\0\1"))
        expected = tiny.srgb_encode((rgb / 255) ** gamma @ matrix.T)
        action = f"cicp:12/{code_points[1]}"
        yield Case(f"cicp_{name}.png", data, None, expected, 1, (action,))
    for name, code_points, actions in (
        ("srgb", b"\x01\x0d", ()), ("unspecified", b"\x02\x02", ()), ("video", b"\x01\x01", ())
    ):  # fmt: skip
        yield Case(
            f"cicp_{name}.png",
            tiny.png_bytes(rgb, 2, before=chunk(b"cICP", code_points + b"\0\1")),
            None,
            rgb,
            0,
            actions,
        )
    for name, code_points in (("pq", b"\x09\x10\0\1"), ("hlg", b"\x09\x12\0\1"), ("narrow", b"\1\x0d\0\0"),
                              ("film", b"\x08\x0d\0\1")):  # fmt: skip
        yield Case(
            f"cicp_{name}.png", tiny.png_bytes(rgb, 2, before=chunk(b"cICP", code_points)), "unsupported"
        )
    digits = (b"Exif\0\0" + tiny.exif_bytes(6)).hex().encode()
    text = b"\nexif\n      %d\n" % (len(digits) // 2) + digits[:72] + b"\n" + digits[72:] + b"\n"
    for name, raw in (
        ("text", chunk(b"tEXt", b"Raw profile type exif\0" + text)),
        ("deflated", chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(text))),
    ):
        for place in ("before", "after"):
            data = tiny.png_bytes(stored_for(rgb, 6), 2, **{place: raw})
            yield Case(f"raw_profile_{name}_{place}.png", data, None, rgb, 0, ("orientation:6",))
    both = chunk(b"eXIf", tiny.exif_bytes(3)) + raw
    data = tiny.png_bytes(stored_for(rgb, 3), 2, before=both)
    yield Case("raw_profile_and_exif.png", data, None, rgb, 0, ("orientation:3",))
    bad = chunk(b"zTXt", b"Raw profile type exif\0\0" + b"no deflate stream")
    yield Case(
        "raw_profile_broken.png", tiny.png_bytes(rgb, 2, before=bad), None, rgb, 0, ("exif-ignored:broken",)
    )
    zeros = zlib.compress(bytes(64 << 20), 9)
    data = tiny.png_bytes(rgb, 2, before=chunk(b"iCCP", b"bomb\0\0" + zeros))
    yield Case("icc_bomb.png", data, None, rgb, 0, ("icc-ignored:too-large",))
    data = tiny.png_bytes(rgb, 2, before=chunk(b"iCCP", b"cut\0\0" + zlib.compress(wide)[:50]))
    yield Case("icc_cut.png", data, None, rgb, 0, ("icc-ignored:broken",))
    texts = chunk(b"zTXt", b"bomb\0\0" + zeros) * 3 + chunk(b"iTXt", b"bomb\0\x01\0\0\0" + zeros)
    yield Case("text_bomb.png", tiny.png_bytes(rgb, 2, before=texts, after=texts), None, rgb)
    data = tiny.png_bytes(rgb, 2, before=chunk(b"gAMA", struct.pack(">I", 100_000)))
    yield Case("linear_gamma.png", data, None, rgb, 0, ("gamma-ignored:1",))
    data = tiny.png_bytes(rgb, 2, before=chunk(b"gAMA", struct.pack(">I", 45_455)))
    yield Case("usual_gamma.png", data, None, rgb)
    data = tiny.png_bytes(rgb, 2, before=tiny.png_chunk(b"tEXt", b"key\0text", checksum=1))
    yield Case("wrong_checksum_of_text.png", data, None, rgb)
    yield Case("trailing_bytes.png", tiny.png_bytes(rgb, 2) + b"appended", None, rgb)
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb), Image.fromarray(rgb // 2)]
    data = tiny.save(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield Case("animated.png", data, None, rgb, 0, ("first-frame-of:3",))


def broken_pngs() -> Iterator[Case]:
    rgb = picture()
    plain = tiny.png_bytes(rgb, 2)
    end = tiny.png_chunk(b"IEND", b"")
    data_at = plain.index(b"IDAT") + 4

    def claims(width: int, height: int, content: bytes = b"") -> bytes:
        rows = tiny.png_chunk(b"IDAT", zlib.compress(content))
        return tiny.PNG_SIGNATURE + tiny.png_header(width, height, 8, 2) + rows + end

    yield Case("cut_in_half.png", plain[: len(plain) // 2], "truncated")
    yield Case("end_missing.png", plain[:-12], "truncated")
    yield Case("only_signature.png", plain[:8], "truncated")
    yield Case(
        "flipped_bit.png", tiny.patched(plain, data_at + 300, bytes([plain[data_at + 300] ^ 4])), "corrupt"
    )
    intact = bytes(plain[data_at - 8 : -12])
    n_data = int.from_bytes(intact[:4], "big")
    wrong = tiny.png_chunk(b"IDAT", intact[8 : 8 + n_data], checksum=1)
    yield Case("wrong_checksum_of_data.png", plain[: data_at - 8] + wrong + end, "corrupt")
    clear = tiny.png_chunk(b"tRNS", bytes(6), checksum=1)
    yield Case("wrong_checksum_of_transparency.png", tiny.png_bytes(rgb, 2, before=clear), "corrupt")
    yield Case("claims_20000x20000.png", claims(20_000, 20_000), "too-large")
    yield Case("claims_2147483647.png", claims(2**31 - 1, 2**31 - 1), "too-large")
    yield Case("claims_17000x17000.png", claims(17_000, 17_000, bytes(1000)), "truncated")
    yield Case("no_width.png", claims(0, 10), "corrupt")
    yield Case("too_few_rows.png", claims(WIDTH, HEIGHT, tiny.png_rows(rgb[:20], 8)), "truncated")
    header = tiny.png_header(WIDTH, HEIGHT, 8, 2)
    garbage = tiny.png_chunk(b"IDAT", b"this is no deflate stream" * 40)
    yield Case("garbage_data.png", tiny.PNG_SIGNATURE + header + garbage + end, "corrupt")
    yield Case("no_data.png", tiny.PNG_SIGNATURE + header + end, "truncated")
    yield Case("impossible_depth.png", tiny.PNG_SIGNATURE + tiny.png_header(4, 4, 3, 2) + end, "corrupt")
    yield Case("no_header.png", tiny.PNG_SIGNATURE + garbage + end, "corrupt")
    needs = tiny.png_bytes(rgb, 2, before=tiny.png_chunk(b"CgBI", bytes(4)))
    yield Case("unknown_extension.png", needs, "unsupported")
    yield Case("palette_missing.png", tiny.png_bytes(gray_picture() // 64, 3), "corrupt")
