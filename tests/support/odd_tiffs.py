"""TIFF files: depths, layouts, pages, damage."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from importlib.util import find_spec

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


def tiffs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    page = tiny.tiff_page
    yield Case("plain.tif", tiny.tiff_bytes([page(rgb)]), None, rgb)
    yield Case("big_endian.tif", tiny.tiff_bytes([page(rgb, ">")], ">"), None, rgb)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = tiny.save(rgb, "TIFF", compression=compression)
        yield Case(f"{compression}.tiff", data, None, rgb)
    yield Case("jpeg_inside.tif", tiny.save(rgb, "TIFF", compression="jpeg", quality=95), None, rgb, 14)
    deep, deep_gray = (rgb.astype(int) * 257).astype(np.uint16), (gray.astype(int) * 200).astype(np.uint16)
    expected = as_rgb(np.rint(deep_gray / 257))
    for order, name in (("<", "little"), (">", "big")):
        data = tiny.tiff_bytes([page(deep, order)], order)
        yield Case(f"rgb_16_{name}.tif", data, None, rgb, 1, ("16-bit-to-8",))
        data = tiny.tiff_bytes([page(deep_gray, order)], order)
        yield Case(f"gray_16_{name}.tif", data, None, expected, 1, ("16-bit-to-8", "gray-to-rgb"))
        data = tiny.tiff_bytes([page(65535 - deep_gray, order, photometric=0)], order)
        actions = ("16-bit-to-8", "white-is-zero", "gray-to-rgb")
        yield Case(f"white_is_zero_16_{name}.tif", data, None, expected, 1, actions)
    data = tiny.tiff_bytes([page(255 - gray, photometric=0)])
    yield Case("white_is_zero_8.tif", data, None, as_rgb(gray), 0, ("gray-to-rgb",))
    bilevel = gray > 100
    data = tiny.save(Image.fromarray(bilevel), "TIFF", compression="group4")
    expected = as_rgb(bilevel * 255)
    yield Case("fax.tif", data, None, expected, 0, ("bilevel-to-8", "gray-to-rgb"))
    floats = (gray / 255).astype(np.float32)
    yield Case(
        "float.tif", tiny.tiff_bytes([page(floats)]), None, as_rgb(gray), 1, ("float-to-8", "gray-to-rgb")
    )
    inks = np.dstack([255 - rgb, gray // 2])
    expected = np.rint((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    data = tiny.tiff_bytes([page(inks, photometric=5)])
    yield Case("cmyk.tif", data, None, expected, 1, ("cmyk-to-rgb",))


def odd_tiffs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    page = tiny.tiff_page
    alpha = (gray.astype(int) * 2 % 256).astype(np.uint8)
    data = tiny.tiff_bytes([page(np.dstack([rgb, alpha]), tags={338: (3, [2])})])
    yield Case("rgba.tif", data, None, over_white(rgb, alpha), 1, ("alpha-over-white",))
    associated = np.dstack([np.rint(rgb * (alpha[..., None] / 255)).astype(np.uint8), alpha])
    strong = alpha >= 128
    data = tiny.tiff_bytes([page(associated * strong[..., None].astype(np.uint8), tags={338: (3, [1])})])
    expected = np.where(strong[..., None], over_white(rgb, alpha), 255).astype(np.uint8)
    yield Case("premultiplied.tif", data, None, expected, 3, ("alpha-over-white",))
    for orientation in (3, 6):
        turned = page(stored_for(rgb, orientation), tags={274: (3, [orientation])})
        yield Case(
            f"orientation_{orientation}.tif",
            tiny.tiff_bytes([turned]),
            None,
            rgb,
            0,
            (f"orientation:{orientation}",),
        )
    # Pillow would turn by the XMP packet as well, and by both if both are there.
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = tiny.tiff_bytes([page(rgb, tags={700: (1, list(xmp))})])
    yield Case("orientation_in_xmp_only.tif", data, None, rgb)
    data = tiny.tiff_bytes([page(rgb), page(255 - rgb), page(rgb // 2)])
    yield Case("three_pages.tif", data, None, rgb, 0, ("first-frame-of:many",))
    first = tiny.tiff_bytes([page(rgb)])
    circular = tiny.tiff_bytes([page(rgb)], next_of_last=int.from_bytes(first[4:8], "little"))
    yield Case("circular_pages.tif", circular, None, rgb, 0, ("first-frame-of:many",))
    planes = tiny.TiffPage([rgb[..., i].tobytes() for i in range(3)], page(rgb, tags={284: (3, [2])}).tags)
    yield Case("planes.tif", tiny.tiff_bytes([planes]), None, rgb)
    tiles = tiny.TiffPage(
        [rgb[y : y + 16, x : x + 32].tobytes() for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 32)],
        {k: v for k, v in page(rgb).tags.items() if k != 278} | {322: (3, [32]), 323: (3, [16])},
        is_tiled=True,
    )
    yield Case("tiles.tif", tiny.tiff_bytes([tiles]), None, rgb)
    twelve = (gray.astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack(
        [twelve[:, 0] >> 4, (twelve[:, 0] & 15) << 4 | twelve[:, 1] >> 8, twelve[:, 1] & 255], axis=1
    )
    data = tiny.tiff_bytes(
        [tiny.TiffPage([packed.astype(np.uint8).tobytes()], page(gray, tags={258: (3, [12])}).tags)]
    )
    yield Case("twelve_bit.tif", data, None, as_rgb(gray), 1, ("12-bit-to-8", "gray-to-rgb"))
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 150, 90], [250, 240, 230]]).repeat(64, axis=0)
    table = (colours.T.reshape(-1) * 257).tolist()
    data = tiny.tiff_bytes([page(gray, photometric=3, tags={320: (3, table)})])
    yield Case("palette.tif", data, None, colours[gray].astype(np.uint8), 0, ("palette-to-rgb",))
    # Every combination of full and no ink, in blocks: a look-up profile is exact there.
    corners = np.array([[c, m, y, k] for c in (0, 255) for m in (0, 255) for y in (0, 255) for k in (0, 255)])
    lab = np.zeros((16, 3))
    lab[:, 0] = np.where(corners[:, 3] > 0, 0, 100 - corners[:, :3].sum(axis=1) / 255 * 25)
    lab[:, 1] = np.where(corners[:, 3] > 0, 0, (corners[:, 1] - corners[:, 0]) / 255 * 20)
    profile = tiny.icc_cmyk("Toy press", lab.reshape(2, 2, 2, 2, 3))
    blocks = corners.astype(np.uint8).reshape(4, 4, 4).repeat(8, axis=0).repeat(8, axis=1)
    expected = tiny.lab_to_srgb(lab).reshape(4, 4, 3).repeat(8, axis=0).repeat(8, axis=1)
    data = tiny.tiff_bytes([page(blocks, photometric=5, tags={34675: (7, list(profile))})])
    yield Case("cmyk_icc.tif", data, None, expected, 3, ("icc:Toy press",))


def broken_tiffs() -> Iterator[Case]:
    rgb, gray = picture(), gray_picture()
    page = tiny.tiff_page
    plain = tiny.tiff_bytes([page(rgb)])
    huge = tiny.TiffPage(
        [bytes(100)], page(rgb).tags | {256: (4, [20_000]), 257: (4, [20_000]), 278: (4, [20_000])}
    )
    yield Case("claims_20000x20000.tif", tiny.tiff_bytes([huge]), "too-large")
    yield Case("cut_in_directory.tif", plain[:-30], "truncated")
    yield Case("only_mark.tif", plain[:4], "truncated")
    deflated = zlib.compress(rgb.tobytes())
    cut = tiny.TiffPage([deflated[: len(deflated) // 2]], page(rgb).tags | {259: (3, [8])})
    yield Case("cut_deflate.tif", tiny.tiff_bytes([cut]), "corrupt")
    short = tiny.TiffPage([rgb[:20].tobytes()], page(rgb).tags)
    # Read on, the directory and the second page would be taken for pixels.
    yield Case("too_few_rows.tif", tiny.tiff_bytes([short, page(rgb)]), "truncated")
    strips = page(rgb).tags | {278: (4, [16])}
    lacking = tiny.TiffPage([rgb[:16].tobytes(), rgb[16:32].tobytes()], strips)
    yield Case("strip_missing.tif", tiny.tiff_bytes([lacking]), "corrupt")
    bare = {k: v for k, v in page(rgb).tags.items() if k not in (256, 257)}
    yield Case("no_size.tif", tiny.tiff_bytes([tiny.TiffPage([rgb.tobytes()], bare)]), "corrupt")
    yield Case("float_beyond_one.tif", tiny.tiff_bytes([page(gray.astype(np.float32))]), "unsupported")
    nan = np.full((4, 4), np.nan, np.float32)
    yield Case("float_nan.tif", tiny.tiff_bytes([page(nan)]), "unsupported")
    yield Case("signed_16.tif", tiny.tiff_bytes([page(gray.astype(np.int16))]), "unsupported")
    yield Case("unsigned_32.tif", tiny.tiff_bytes([page(gray.astype(np.uint32))]), "unsupported")
    yield Case("bigtiff.tif", tiny.tiff_bytes([page(rgb)], big=True), "unsupported")
    deep = (rgb.astype(int) * 257).astype(np.uint16)
    planes = [deep[..., i].tobytes() for i in range(3)]
    planes_apart = tiny.TiffPage(planes, page(deep, tags={284: (3, [2])}).tags)
    yield Case("planes_16.tif", tiny.tiff_bytes([planes_apart]), "unsupported")
    yield Case("webp_inside.tif", tiny.tiff_bytes([page(rgb, tags={259: (3, [50001])})]), "unsupported")
    for depth in ("f2", "f8"):
        yield Case(
            f"float_{depth}.tif", tiny.tiff_bytes([tiny.tiff_page((gray / 255).astype(depth))]), "unsupported"
        )
    yield Case("float_rgb.tif", tiny.tiff_bytes([page((rgb / 255).astype(np.float32))]), "unsupported")
    pair = np.dstack([gray, gray]).astype(np.uint16) * 257
    yield Case("gray_alpha_16.tif", tiny.tiff_bytes([page(pair, tags={338: (3, [2])})]), "unsupported")
    yield Case("lab.tif", tiny.tiff_bytes([page(rgb, photometric=8)]), "unsupported")
    for compression in (34712, 34925, 34933, 50000, 50002):
        data = tiny.tiff_bytes([page(rgb, tags={259: (3, [compression])})])
        yield Case(f"compression_{compression}.tif", data, "unsupported")
    raw = page(rgb, tags={254: (4, [1]), 330: (4, [8])})
    without_picture = "not-installed" if find_spec("rawpy") is None else "unsupported"
    yield Case("camera_raw.nef", tiny.tiff_bytes([raw]), without_picture)
    bare = page(rgb, tags={50706: (1, [1, 4, 0, 0])})
    yield Case("camera_raw.dng", tiny.tiff_bytes([bare]), without_picture)
