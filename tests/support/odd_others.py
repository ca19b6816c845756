"""GIF, WebP, BMP, PPM, JPEG 2000 and AVIF files: animations, transparency, damage."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, features

from tests.support import tiny_formats as tiny
from tests.support.odd_cases import (
    Case,
    Pixels,
    as_rgb,
    gray_picture,
    over_white,
    picture,
    stored_for,
)


def animations() -> Iterator[Case]:
    rgb = picture()
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb), Image.fromarray(rgb // 2)]
    index = (gray_picture() // 64).astype(np.uint8)
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 150, 90], [250, 240, 230]], np.uint8)

    def indexed(values: Pixels) -> Image.Image:
        image = Image.fromarray(values, "P")
        image.putpalette(colours.tobytes())
        return image

    still = indexed(index)
    yield Case("still.gif", tiny.save(still, "GIF"), None, colours[index], 0, ("palette-to-rgb",))
    data = tiny.save(
        still, "GIF", save_all=True, append_images=[indexed(3 - index), indexed(index // 2)], optimize=False
    )
    yield Case("animated.gif", data, None, colours[index], 0, ("palette-to-rgb", "first-frame-of:3"))
    cut = data[: data.rindex(b"\x2c") + 40]
    yield Case("animated_cut_later.gif", cut, None, colours[index], 0, ("palette-to-rgb", "first-frame-of:3"))
    data = tiny.save(still, "GIF", transparency=2)
    expected = over_white(colours[index], np.array([255, 255, 0, 255])[index])
    yield Case("transparent.gif", data, None, expected, 0, ("palette-to-rgb", "alpha-over-white"))
    data = tiny.save(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    yield Case("animated.webp", data, None, rgb, 0, ("first-frame-of:3",))


def others() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    alpha = (gray.astype(int) * 2 % 256).astype(np.uint8)
    yield Case("lossy.webp", tiny.save(rgb, "WEBP", quality=95), None, rgb, 30)
    yield Case("lossless.webp", tiny.save(rgb, "WEBP", lossless=True), None, rgb)
    data = tiny.save(np.dstack([rgb, alpha]), "WEBP", lossless=True, exact=True)
    yield Case("alpha.webp", data, None, over_white(rgb, alpha), 1, ("alpha-over-white",))
    turned = tiny.save(stored_for(rgb, 8), "WEBP", lossless=True, exif=b"Exif\0\0" + tiny.exif_bytes(8))
    yield Case("orientation_8.webp", turned, None, rgb, 0, ("orientation:8",))
    yield Case("plain.bmp", tiny.save(rgb, "BMP"), None, rgb)
    yield Case("gray.bmp", tiny.save(gray, "BMP"), None, as_rgb(gray), 0, ("gray-to-rgb",))
    yield Case("plain.ppm", tiny.save(rgb, "PPM"), None, rgb)
    deep = gray.astype(int) * 200
    data = b"P5\n64 48\n65535\n" + deep.astype(">u2").tobytes()
    yield Case("deep.pgm", data, None, as_rgb(np.rint(deep / 257)), 1, ("16-bit-to-8", "gray-to-rgb"))
    text = b"P2\n# a comment\n64 48\n15\n" + b" ".join(b"%d" % v for v in (gray // 17).ravel())
    yield Case("text.pgm", text, None, as_rgb(gray // 17 * 17), 0, ("gray-to-rgb",))
    expected = as_rgb((gray > 100) * 255)
    yield Case(
        "bits.pbm",
        tiny.save(Image.fromarray(gray > 100), "PPM"),
        None,
        expected,
        0,
        ("bilevel-to-8", "gray-to-rgb"),
    )
    yield Case(
        "one_pixel.png", tiny.png_bytes(np.array([[[1, 2, 3]]]), 2), None, np.array([[[1, 2, 3]]], np.uint8)
    )
    line = np.arange(5000, dtype=np.int64).reshape(1, -1) % 256
    yield Case("one_row.png", tiny.png_bytes(line, 0), None, as_rgb(line), 0, ("gray-to-rgb",))
    for name, image_format, feature, options in (
        ("lossless.jp2", "JPEG2000", "jpg_2000", {}),
        ("lossless.j2k", "JPEG2000", "jpg_2000", {"no_jp2": True}),
        ("lossy.avif", "AVIF", "avif", {"quality": 95}),
    ):
        if feature in features.get_supported():
            yield Case(
                name, tiny.save(rgb, image_format, **options), None, rgb, 24 if feature == "avif" else 0
            )


def avif_signalling(code_points: bytes) -> bytes:
    """An AVIF file of the picture whose nclx box says these primaries and this curve."""
    data = tiny.save(picture(), "AVIF", quality=95)
    return tiny.patched(data, data.index(b"colrnclx") + 8, code_points)


def broken_others() -> Iterator[Case]:
    rgb = picture()
    if "avif" in features.get_supported():
        yield Case("pq.avif", avif_signalling(b"\0\x09\0\x10"), "unsupported")
        yield Case("hlg.avif", avif_signalling(b"\0\x09\0\x12"), "unsupported")
    for rle in ({}, {"compression": "tga_rle"}):
        for kind, image in (("rgb", Image.fromarray(rgb)), ("gray", Image.fromarray(gray_picture()))):
            yield Case(f"{kind}_{len(rle)}.tga", tiny.save(image, "TGA", **rle), "unsupported")
    yield Case("deep.bmp", tiny.patched(tiny.save(rgb, "BMP"), 28, b"\x40"), "unsupported")
    yield Case("jpeg_inside.bmp", tiny.patched(tiny.save(rgb, "BMP"), 28, b"\0\0\4"), "unsupported")
    for name, start in (
        ("image.sgi", b"\x01\xda\0\1"),
        ("image.pcx", b"\x0a\5\1\x08"),
        ("array.bmp", b"BA\x0e\0\0\0"),
    ):
        yield Case(name, start + bytes(200), "unsupported")
    yield Case("film.avif", b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100), "unsupported")
    index = Image.fromarray(rgb).quantize(16)
    gif, webp = tiny.save(index, "GIF"), tiny.save(rgb, "WEBP", lossless=True)
    bmp, ppm = tiny.save(rgb, "BMP"), tiny.save(rgb, "PPM")
    yield Case("cut_in_half.gif", gif[: len(gif) // 2], "truncated")
    yield Case("only_mark.gif", gif[:6], "corrupt")
    yield Case("claims_65535x65535.gif", tiny.patched(gif, 6, b"\xff\xff\xff\xff"), "too-large")
    yield Case("cut_in_half.webp", webp[: len(webp) // 2], "truncated")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (19_999).to_bytes(3, "little") * 2
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + extended + animation
    yield Case("claims_20000x20000.webp", b"RIFF" + struct.pack("<I", len(body)) + body, "too-large")
    yield Case("cut_in_half.bmp", bmp[: len(bmp) // 2], "truncated")
    yield Case(
        "claims_20000x20000.bmp", tiny.patched(bmp, 18, struct.pack("<ii", 20_000, 20_000)), "too-large"
    )
    yield Case("cut_in_half.ppm", ppm[: len(ppm) // 2], "truncated")
    yield Case("claims_20000x20000.ppm", b"P6\n20000 20000\n255\n", "too-large")
    yield Case("only_header.pgm", b"P5\n64 48\n", "corrupt")
    if "jpg_2000" in features.get_supported():
        jp2 = tiny.save(rgb, "JPEG2000")
        yield Case("cut_in_half.jp2", jp2[: len(jp2) // 2], "corrupt")
