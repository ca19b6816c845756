"""Brushes of the scenes: random fields, outlines, light and relief, sky and ground in perspective.

Smooth things are computed on coarse grids and enlarged; light multiplies display values, where 1 leaves them. Every
surface has texture down to single pixels: the power of natural pictures falls with about the second power of
frequency (D. J. Field, J. Opt. Soc. Am. A 4 (1987) 2379). Lengths are pixels, colours sRGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from featbank.demo.camera import WIDTH, Map, Pixels, Random, white_noise

Floats = NDArray[np.floating]
Colour = Floats | tuple[float, ...]
Colours = Floats | Sequence[Colour]
GROUND = 1024  # cells along a side of the ground that `landscape` repeats by mirroring
MOODS = np.array((
    ((60, 110, 190), (180, 206, 232), (250, 250, 250), (255, 250, 235)),
    ((120, 136, 160), (205, 210, 216), (224, 226, 230), (230, 237, 255)),
    ((70, 80, 130), (250, 176, 120), (250, 180, 140), (265, 220, 175)),
    ((120, 130, 170), (236, 196, 190), (244, 220, 214), (255, 230, 215)),
), dtype=np.float32)  # fmt: skip
"""Colours of zenith, horizon and clouds, and of the light on the land."""


def resize(picture: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Change a picture's size with cubic interpolation."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def field(h: int, w: int, beta: float, rng: Random, stretch: float = 1.0, start: int = 2) -> Map:
    """Draw a random field of mean 0 and deviation 1 with power f**-beta down to single pixels.

    ``stretch`` makes grains wider than high, ``start`` is how many of the largest fit into the shorter side.
    """
    narrow, out = max(8, round(w / stretch)), np.zeros((2, 2), dtype=np.float32)
    for k in reversed(range(max(1, int(np.log2(min(h, narrow) / start))))):
        shape = -(-h >> k), -(-narrow >> k)
        # White noise on a grid of 2**k pixels has a spectral density of 4**k up to its own limit.
        gain, noise = 2.0 ** (k * (beta / 2.0 - 1.0)) / 32.0, white_noise(shape, 32.0, rng)
        out = cv2.addWeighted(resize(out, *shape), 1.0, noise, gain, 0.0, dtype=cv2.CV_32F)
    out = (out - out[::3, ::3].mean()) / out[::3, ::3].std()
    return out if narrow == w else resize(out, h, w)


def texture(h: int, w: int, beta: float, contrast: float, rng: Random, stretch: float = 1.0) -> Pixels:
    """Draw factors about 1 of deviation ``contrast``, as bytes; the two finest octaves are not stretched."""
    gains = 2.0 ** (np.arange(10) * (beta / 2.0 - 1.0))
    gains *= 128.0 * contrast / np.linalg.norm(gains)
    coarse = field(-(-h // 4), -(-w // 4), beta, rng, stretch)
    out = cv2.convertScaleAbs(np.maximum(128.0 + float(np.linalg.norm(gains[2:])) * coarse, 0.0))
    for k in (1, 0):
        shape = -(-h >> k), -(-w >> k)
        out = cv2.add(resize(out, *shape), white_noise(shape, float(gains[k]), rng), dtype=cv2.CV_8U)
    return out


def shade(picture: Pixels, *factors: NDArray[Any]) -> Pixels:
    """Multiply a picture in place by factors, floats or bytes with 128 for 1, of its own or a coarser size."""
    whole = np.full(picture.shape[:2], 128, dtype=np.uint8)
    for factor in factors:
        part = (
            factor if factor.dtype == np.uint8 else cv2.convertScaleAbs(np.maximum(factor, 0.0), alpha=128.0)
        )
        part = part if part.shape == whole.shape else cv2.resize(part, whole.shape[::-1])
        whole = part if factor is factors[0] else cv2.multiply(whole, part, scale=1.0 / 128.0)
    return cv2.multiply(picture, cv2.merge([whole] * 3), dst=picture, scale=1.0 / 128.0)


def flat(h: int, w: int, colour: Colour) -> Pixels:
    """Make a picture of one colour."""
    return cv2.merge([np.full((h, w), int(value), dtype=np.uint8) for value in colour])


def box(picture: NDArray[Any], left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """Fill a rectangle, at least one pixel each way."""
    corner = max(int(left), int(right) - 1), max(int(top), int(bottom) - 1)
    cv2.rectangle(picture, (int(left), int(top)), corner, np.array(colour, dtype=float).tolist(), -1)


def mix(first: Colour, second: Colour, share: float) -> Floats:
    """Return the colour between two others."""
    return (np.multiply(first, 1.0 - share) + np.multiply(second, share)).astype(np.float32)


def vary(colours: Colours, n: int, rng: Random, spread: float = 0.15, drift: float = 0.04) -> Floats:
    """Draw ``n`` variants of colours, (n, 3): brightness spreads, hue drifts."""
    chosen = np.array(colours, dtype=float)[rng.integers(len(colours), size=n)]
    return np.clip(chosen * rng.lognormal(0, spread, (n, 1)) * rng.lognormal(0, drift, (n, 3)), 0, 255)


def scatter(h: int, w: int, sizes: Sequence[float], cover: float, rng: Random, power: float = 3) -> Floats:
    """Draw discs (n, 3), x, y and radius: sizes by a power law, areas that sum to ``cover`` pictures.

    A power of 3 is the scale-invariant law of dead leaves (Lee, Mumford and Huang, IJCV 41 (2001) 35).
    """
    small, large = (size ** (1.0 - power) for size in sizes)
    radii = (small + rng.random(9000) * (large - small)) ** (1.0 / (1.0 - power))
    radii = radii[: int(np.searchsorted(np.cumsum(2.5 * radii**2), cover * h * w)) + 1]
    return np.c_[rng.uniform(-0.02, 1.02, (len(radii), 2)) * (w, h), radii]


def turned(x: Floats, y: Floats, places: Floats, angle: Floats | float = 0.0) -> Floats:
    """Turn offsets (n, k) by angles (n, 1) about places (n, 2 or more): points (n, k, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([places[:, :1] + c * x - s * y, places[:, 1:2] + s * x + c * y], axis=2)


def outlines(places: Floats, rng: Random, rough: float = 0.0, squeeze: float = 1.0, n: int = 16) -> Floats:
    """Draw closed outlines (m, n, 2) about places (m, 3): discs that are rough, and squeezed down to ``squeeze``."""
    angle, m, radius = np.linspace(0, 2 * np.pi, n, endpoint=False), len(places), places[:, 2:] * np.ones(n)
    for k in (2, 3, 4, 5):
        radius *= 1 + rng.normal(0, rough / k, (m, 1)) * np.cos(k * angle + rng.uniform(0, 7, (m, 1)))
    y = radius * np.sin(angle) * rng.uniform(squeeze, 1.0, (m, 1))
    return turned(radius * np.cos(angle), y, places, rng.uniform(0, np.pi, (m, 1)))


def fill(picture: NDArray[Any], shapes: Floats, colours: Floats, scale: float = 1.0) -> None:
    """Fill outlines (n, k, 2) one over the other; edges are hard, the lens softens them."""
    points = np.rint(shapes * (16.0 * scale)).astype(np.int32)
    for outline, colour in zip(points, colours.tolist(), strict=True):
        cv2.fillPoly(picture, [outline], colour, cv2.LINE_8, 4)


def strokes(picture: Pixels, paths: Sequence[Floats], colour: Colour, width: float) -> None:
    """Draw smooth lines through points (k, 2)."""
    lines = [np.rint(16.0 * path).astype(np.int32) for path in paths]
    cv2.polylines(picture, lines, False, np.array(colour).tolist(), max(1, round(width)), cv2.LINE_AA, 4)


def leaves(picture: Pixels, places: Floats, colours: Colours, rng: Random, dark: float) -> None:
    """Draw leaves: two halves that catch the light differently, midrib and veins."""
    n, t, size = len(places), np.linspace(0, 1, 10), places[:, 2:]
    half = rng.uniform(0.25, 0.5, (n, 1)) * np.sin(np.pi * t**0.8) ** 0.9
    bend = rng.uniform(-0.25, 0.25, (n, 1)) * (1 - (2 * t - 1) ** 2)
    angle, x = rng.normal(rng.uniform(0, 7), 1.3, (n, 1)), (2 * t - 1) * size
    spines, ups, downs = (turned(x, (bend + s * half) * size, places, angle) for s in (0, 1, -1))
    colour = vary(colours, n, rng, 0.18, 0.05) * dark
    pair = np.stack([colour, colour * rng.uniform(0.68, 0.9, (n, 1))], axis=1)
    for k, (spine, up, down) in enumerate(zip(spines, ups, downs, strict=True)):
        fill(picture, np.array([[*up, *spine[::-1]], [*down, *spine[::-1]]]), pair[k])
        veins = [0.25 * spine[2:9] + 0.75 * edge[2:9] for edge in (up, down)] if size[k, 0] > 40 else []
        lines = [np.stack(ends) for vein in veins for ends in zip(spine[1:8], vein, strict=True)]
        strokes(picture, [spine, *lines], np.minimum(colour[k] * 1.12 + 12, 255), size[k, 0] / 45)


def backdrop(h: int, w: int, colours: Colours, rng: Random, n_discs: int = 0) -> Pixels:
    """Paint what lies far out of focus: patches of the colours and discs of light."""
    hh, ww = -(-h // 16), -(-w // 16)
    small = flat(hh, ww, colours[0]).astype(np.float32)
    places = np.c_[rng.random((90, 2)) * (ww, hh), rng.uniform(0.02, 0.16, 90) * ww]
    fill(small, outlines(places, rng, 0.12), vary(colours, 90, rng, 0.3))
    small = cv2.GaussianBlur(small, (0, 0), max(0.8, rng.uniform(0.015, 0.04) * ww))
    places = np.c_[rng.random((n_discs, 2)) * (ww, hh), rng.uniform(0.012, 0.04, n_discs) * ww]
    for disc, colour in zip(outlines(places, rng), vary(colours, n_discs, rng), strict=True):
        light = np.zeros_like(small)
        fill(light, disc[None], (0.3 * colour + 12)[None])
        small += light
    return resize(cv2.convertScaleAbs(cv2.GaussianBlur(small, (0, 0), 0.8)), h, w)


def relief(radius: Map, rng: Random, bump: float = 0.4, steep: float = 0.75) -> Map:
    """Light things, as factors, that rise from their outlines like balls.

    ``radius`` (height, width) differs from thing to thing and says how far from its edge each is round; edges lie
    where it changes. ``bump`` is the roughness in pixels, ``steep`` the height relative to a ball's.
    """
    edges = cv2.morphologyEx(radius, cv2.MORPH_GRADIENT, np.ones((3, 3), dtype=np.uint8))
    away = cv2.distanceTransform(cv2.compare(edges, 0.0, cv2.CMP_EQ), cv2.DIST_L2, 5)
    t = cv2.min(cv2.divide(away, radius), 1.0)
    up = cv2.multiply(cv2.sqrt(cv2.multiply(t, 2.0 - t)), radius, scale=steep)
    up = cv2.blur(up, (3, 3)) + np.float32(bump) * field(len(radius), radius.shape[1], 2.0, rng)
    # The light comes from the upper left: one filter gives the slope towards it.
    slope = cv2.filter2D(up, -1, np.array([[-2, -2, 0], [-2, 0, 2], [0, 2, 2]], dtype=np.float32) / 12.0)
    return (0.78 + slope / (1.0 + np.abs(slope))) * (0.45 + 0.55 * cv2.min(2.0 * t, 1.0))


def sky(h: int, w: int, mood: Floats, rng: Random) -> Pixels:
    """Paint a sky: a gradient down to the horizon, and clouds that flatten towards it."""
    hh, ww = -(-h // 4), -(-w // 4)
    t = np.linspace(0, 1, hh, dtype=np.float32)[:, None]
    clouds = field(int(0.45 * ww) + 8, int(2.3 * ww) + 8, 3.5, rng)
    x = (np.arange(ww, dtype=np.float32) - ww / 2) * (0.6 + 1.6 * t**3) + clouds.shape[1] / 2
    y = np.repeat(0.45 * ww * (0.3 * t + 0.7 * t**3), ww, axis=1)
    thick = np.maximum(cv2.remap(clouds, x, y, cv2.INTER_LINEAR) - np.float32(rng.uniform(-0.3, 1.8)), 0.0)
    share = np.minimum(thick / 1.1, 1.0)
    share *= share * (3.0 - 2.0 * share)
    lit = np.clip(1.02 - 0.16 * thick + 0.35 * (thick - np.roll(thick, -5, axis=0)), 0.5, 1.12)
    clear = [top + (low - top) * t**0.8 for top, low in zip(mood[0], mood[1], strict=True)]
    small = np.dstack([a + share * (b * lit - a) for a, b in zip(clear, mood[2], strict=True)])
    return resize(cv2.convertScaleAbs(small), h, w)


def landscape(
    heights: Map, colours: Sequence[Map], grain: Pixels, rng: Random, mood: Floats,
    camera: float, horizon: float, far: float, haze: float, rise: float,
) -> Pixels:  # fmt: skip
    """Look over ground (``heights`` and three ``colours`` of 1,024 x 1,024 cells) to a horizon under a sky.

    ``grain``, the ground's texture, has the picture's size; ``horizon`` is a share of its height. In cells: height of
    the ``camera``, how ``far`` the ground goes, ``haze`` over which two thirds of it are lost in the air, and ``rise``
    over which it rises from the camera's feet to its full height.
    """
    h, w = (-(-side // 2) for side in grain.shape)
    focal, x = w / 1.1, 1.1 * ((np.arange(w, dtype=np.float32) + 0.5) / w - 0.5)
    u, v = (GROUND * rng.uniform((0.3, 0.0), (0.7, 0.4))).astype(np.float32)
    near = 0.92 * (camera - 0.2 * float(heights.max())) * focal / ((1.0 - horizon) * h)
    z = np.geomspace(near, far, 400, dtype=np.float32)[:, None]

    def look(ground: NDArray[Any], distance: Map) -> NDArray[Any]:
        along = np.ascontiguousarray(np.broadcast_to(distance + v, (len(distance), w)))
        return cv2.remap(ground, distance * x + u, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    drop = camera - look(heights, z) * np.clip(0.2 + 0.8 * (z - near) / rise, 0.0, 1.0)
    rows = horizon * h + drop * focal / z
    # What stands nearer hides what is farther and lower; between two steps, distance is interpolated.
    seen = np.ascontiguousarray(np.minimum.accumulate(rows, axis=0)[::-1].T)
    columns = [np.interp(np.arange(h) + 0.5, line, z[::-1, 0], left=1e9) for line in seen]
    distance = np.ascontiguousarray(np.array(columns, dtype=np.float32).T)
    picture = look(cv2.merge([cv2.convertScaleAbs(c) for c in colours]), cv2.min(distance, far))
    clear, is_sky = cv2.exp(distance * (-1.0 / haze)), cv2.compare(distance, 1e8, cv2.CMP_GT)
    picture = cv2.blendLinear(picture, flat(h, w, mix(mood[1], mood[0], 0.25)), clear, 1.0 - clear)
    n_rows = max(8, int(np.flatnonzero(is_sky.any(axis=1)).max(initial=0)) + 1)
    cv2.copyTo(sky(n_rows, w, mood, rng), is_sky[:n_rows], picture[:n_rows])
    is_ground = cv2.resize(cv2.bitwise_not(is_sky), grain.shape[::-1])
    return shade(resize(picture, *grain.shape), cv2.copyTo(grain, is_ground, np.full_like(grain, 128)))


_CREAM, _GOLD, _GLASS = (255, 245, 215), (236, 190, 70), (40, 54, 76)
_VIVID = ((200, 50, 40), (225, 90, 120), (230, 130, 40), _GOLD, (120, 165, 60), (40, 100, 100), (60, 80, 160))
_STONE, _SANDSTONE, _OLIVE = (150, 150, 146), (178, 150, 120), (150, 140, 50)
_EARTHS = ((150, 84, 64), _SANDSTONE, (190, 180, 165), (100, 70, 56), _STONE, (84, 84, 90), (70, 76, 84))
_GREENS = ((70, 110, 40), (110, 150, 60), (50, 86, 46), (140, 160, 80))
_AUTUMN = ((170, 90, 30), (200, 130, 40), (130, 60, 30), _OLIVE)
_LAMPS = ((255, 190, 90), (255, 220, 160), (255, 90, 60), (110, 190, 255), (120, 255, 170))
_DUSK = np.array(((24, 34, 66), (150, 110, 110), (120, 90, 100), (153, 140, 153)), np.float32)
_TITLES = ("ATLAS", "FIELD NOTES", "LIGHT", "OPTICS", "THE COAST", "GARDENS", "TEA", "COLOUR", "MAPS", "ICE")


def _sun(h: int, w: int, contrast: float, rng: Random) -> Map:
    """Patches of light and shade as factors, on a coarse grid."""
    return np.clip(1.0 + contrast * field(-(-h // 16), -(-w // 16), 3.4, rng), 0.4, 1.6)


def _windows(n_rows: int, n: int, wall: Colour, glass: Colour, lit: float, rng: Random) -> Pixels:
    """Rows of windows, some of them lit, at four pixels each way."""
    panes = np.array(glass) * rng.uniform(0.7, 1.6, (n_rows, n, 1))
    panes = np.where(rng.random((n_rows, n, 1)) < lit, (255.0, 214.0, 140.0), panes)
    front = np.full((n_rows, 4, n, 4, 3), wall, np.float32)
    front[:, 1:, :, int(rng.integers(0, 2)) :] = panes[:, None, :, None]
    return cv2.convertScaleAbs(front.reshape(4 * n_rows, 4 * n, 3))


def pebbles(h: int, w: int, rng: Random) -> Pixels:
    """Paint a beach of pebbles from above: dead leaves of stone."""
    u, picture, radius = w / WIDTH, flat(h, w, (40, 38, 36)), np.ones((h // 2, w // 2), np.float32)
    places = scatter(h, w, (34 * u, rng.choice([110, 220, 360]) * u), 2.4, rng)
    places = places[np.argsort(places[:, 2] * rng.lognormal(0, 0.35, len(places)))]  # large ones lie on top
    shapes = outlines(places, rng, 0.08, 0.65, n=14)
    fill(picture, shapes, vary(vary(_EARTHS, 5, rng, 0.1), len(places), rng, 0.2))
    fill(radius, shapes, 0.32 * places[:, 2] + 1e-3 * np.arange(len(places)), 0.5)
    return shade(picture, relief(radius, rng), _sun(h, w, 0.2, rng), texture(h, w, 1.4, 0.11, rng))


def foliage(h: int, w: int, rng: Random) -> Pixels:
    """Paint leaves before leaves out of focus."""
    u, colours = w / WIDTH, vary(_AUTUMN if rng.random() < 0.3 else _GREENS, 5, rng, 0.1, 0.1)
    far = np.array([*(0.4 * colours + 14), mix(colours[1], _CREAM, 0.5)])
    picture = backdrop(h // 4, w // 4, far, rng, int(rng.integers(0, 25)))
    leaves(picture, scatter(h // 4, w // 4, (20 * u, 45 * u), 0.9, rng), colours, rng, 0.55)
    picture = resize(shade(cv2.GaussianBlur(picture, (0, 0), 6 * u + 0.3), _sun(h, w, 0.3, rng)), h, w)
    size, density = rng.uniform(110, 260) * u, field(h // 16, w // 16, 3.2, rng)
    for dark, cover in ((0.62, 1.0), (0.8, 0.8), (1.0, 0.8)):
        places = scatter(h, w, (0.6 * size, 1.4 * size), cover, rng, 2.0)
        x, y = (np.clip(places[:, k] // 16, 0, density.shape[1 - k] - 1).astype(int) for k in (0, 1))
        leaves(picture, places[density[y, x] > -0.35], colours, rng, dark)
    return shade(picture, texture(h, w, 1.9, 0.06, rng))


def blossoms(h: int, w: int, rng: Random) -> Pixels:
    """Paint flowers on their stems, some of them out of focus."""
    u, petals, outer = w / WIDTH, rng.choice([5, 6, 8, 13, 21]), vary(_VIVID, 1, rng, 0.15, 0.15)[0]
    far = np.array([*(np.array(_GREENS) * rng.uniform(0.4, 1.0, (4, 1))), mix(_GREENS[1], _CREAM, 0.6)])
    canvas, inner = backdrop(h // 4, w // 4, far, rng, int(rng.integers(0, 30))), mix(outer, _CREAM, 0.6)
    n, t = int(rng.integers(5, 24)), np.linspace(0, 1, 12)
    for step in (4, 1):
        size = rng.uniform(1200, 2000) * u / np.sqrt(n + 3) * rng.uniform(0.6, 1.2, n)
        places = np.c_[rng.uniform(0, w, n), h * rng.uniform(0.12, 0.9, n), size] / step
        for x, y, r in places:
            stem = np.stack([x + r * rng.normal() * t**2, y + (1.1 * h / step - y) * t], axis=1)
            strokes(canvas, [stem], vary(_GREENS, 1, rng)[0] * 0.75, 0.06 * r)
            leaves(canvas, np.c_[stem[[3, 6, 9]], r * rng.uniform(0.4, 0.9, 3)], _GREENS, rng, 0.8)
        for place in places[:, None]:
            r, tilt, lean = place[0, 2], rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
            spin = np.arange(petals)[:, None] * 2 * np.pi / petals + rng.uniform(0, 7)
            for level in np.linspace(1.0, 0.4, 7):  # from the rim inwards, ever lighter
                along, across = t * r * (0.1 + 0.9 * level), np.sin(np.pi * t**1.5) ** 0.7 * r * level
                across = np.r_[across, -across[::-1]][None] * min(0.55, 2.4 / petals)
                petal = turned(np.r_[along, along[::-1]][None], across, np.zeros((1, 2)), spin)
                shape = turned(petal[..., 0], tilt * petal[..., 1], place, lean)
                colour = mix(inner, outer, (level - 0.4) / 0.6)
                fill(canvas, shape, (0.9 + 0.1 * np.cos(spin - 2.2)) * colour)
            dots = np.c_[place[:, :2] + 0.1 * r * rng.normal(size=(70, 2)), np.full(70, 0.03 * r)]
            fill(canvas, outlines(dots, rng, n=8), vary((_GOLD, _AUTUMN[2]), 70, rng))
        if step == 4:
            canvas = shade(cv2.GaussianBlur(canvas, (0, 0), 7 * u + 0.3), _sun(h, w, 0.1, rng))
            canvas = resize(canvas, h, w)
    return shade(canvas, texture(h, w, 1.9, 0.035, rng))


def fruit(h: int, w: int, rng: Random) -> Pixels:
    """Paint fruit on a wooden table, the room out of focus."""
    u, (wall, wood), n = w / WIDTH, vary(_EARTHS, 2, rng), int(rng.integers(6, 22))
    far = np.stack([wall, 0.5 * wall, mix(wall, _CREAM, 0.4)])
    picture, top = backdrop(h, w, far, rng, int(rng.integers(12))), int(h * rng.uniform(0.45, 0.62))
    for y, tone in zip((np.geomspace(1, 2, 5) - 1) * (h - top) + top, rng.uniform(0.8, 1.1, 5), strict=True):
        box(picture, 0, y, w, h, 0.3 * wood)
        box(picture, 0, y + 14 * u, w, h, tone * wood)
    shade(picture[top:], texture(h - top, w, 1.8, 0.15, rng, rng.uniform(8, 20)))
    x, y = w * rng.normal(0.5, 0.2, n).clip(0.1, 0.9), top + (h - top) * np.sort(rng.uniform(0.1, 0.7, n))
    r = rng.uniform(0.8, 1.1, n) * w * rng.uniform(0.32, 0.45) / np.sqrt(n + 6)
    places, r = np.stack([x, y - 0.75 * r, r], axis=1), r[:, None]
    shadow, gloss = (np.zeros((h // 4, w // 4), np.float32) for _ in range(2))
    right, down = (f(np.linspace(0, 2 * np.pi, 24)) * r for f in (np.cos, np.sin))
    fill(shadow, turned(0.25 * r + 1.15 * right, 0.9 * r + 0.32 * down, places), np.ones(n), 0.25)
    shade(picture, 1.0 - 0.7 * cv2.GaussianBlur(shadow, (0, 0), 22 * u + 0.5))
    shapes, radius = outlines(places, rng, 0.025, 0.9, n=48), np.full((h // 2, w // 2), 1e5, np.float32)
    fill(picture, shapes, vary(vary(_VIVID, 2, rng), n, rng, 0.1))
    fill(radius, shapes, 0.5 * places[:, 2] + 0.01 * np.arange(n), 0.5)
    spots = turned(0.13 * right - 0.36 * r, 0.09 * down - 0.42 * r, places)
    for shape, spot in zip(shapes, spots, strict=True):  # later ones stand in front
        fill(gloss, shape[None], np.zeros(1), 0.25)
        fill(gloss, spot[None], np.full(1, 1.6), 0.25)
    light = np.where(radius < 1e4, relief(radius, rng, 0.25, 0.95), np.float32(1.0))
    gloss = 1.0 + cv2.GaussianBlur(gloss, (0, 0), 6 * u + 0.4)
    return shade(picture, light, gloss, texture(h, w, 2.1, 0.03, rng))


def shelf(h: int, w: int, rng: Random) -> Pixels:
    """Paint books on shelves, lying at first and then turned, so that titles run along their backs."""
    picture, light = flat(w, h, (24, 22, 20)), np.ones((w // 2, h // 2), np.float32)
    pitch, wood, dyes = h / rng.integers(2, 5), rng.choice(_EARTHS), vary(_VIVID + _EARTHS, 9, rng, 0.3)
    for x in np.arange(0, h - 1, pitch):
        board, y = int(x + 0.075 * pitch), rng.uniform(-0.1, 0) * pitch
        while y < w:
            thick, tall = rng.uniform(0.05, 0.15) * pitch, int(pitch * rng.uniform(0.56, 0.82))
            a, b, colour = int(y), int(y + thick), vary(dyes, 1, rng, 0.2)[0]
            ink = mix(colour, _CREAM if colour.sum() < 380 else (20, 20, 30), 0.8)
            box(picture, board, a, board + tall, b, colour)
            back = light[max(a, 0) // 2 : max(b, 0) // 2, board // 2 : (board + tall) // 2]
            back[:] = rng.uniform(0.95, 1.2) - 0.75 * np.abs(np.linspace(-1, 1, len(back)))[:, None] ** 2.5
            for band in board + tall * rng.uniform(0.04, 0.96, int(rng.integers(0, 4))):
                box(picture, band, a, band + thick * rng.uniform(0.02, 0.1), b, ink)
            title, size = str(rng.choice(_TITLES)), thick / 60 * rng.uniform(0.6, 1.1)
            font, pen = cv2.FONT_HERSHEY_COMPLEX, max(1, int(2 * size))
            (long, high), _ = cv2.getTextSize(title, font, size, pen)
            if long < 0.85 * tall and high < 0.75 * thick:
                corner = board + (tall - long) // 2, (a + b + high) // 2
                cv2.putText(picture, title, corner, font, size, ink.tolist(), pen, cv2.LINE_AA)
            y += thick * (1.0 if rng.random() < 0.94 else 2.0)
        box(picture, x, 0, board, w, wood)
        above = light[:, int(x + 0.72 * pitch) // 2 : int(x + pitch) // 2]
        above *= np.linspace(1.0, 0.3, above.shape[1], dtype=np.float32)
    shade(picture, light, _sun(w, h, 0.15, rng), texture(w, h, 1.8, 0.06, rng))
    return cv2.rotate(picture, cv2.ROTATE_90_COUNTERCLOCKWISE)


def night(h: int, w: int, rng: Random) -> Pixels:
    """Paint lamps out of focus over wet ground, a fence before them."""
    hh, ww, glow = h // 4, w // 4, mix((44, 30, 22), (20, 30, 50), rng.random())
    level, n = int(hh * rng.uniform(0.55, 0.75)), int(rng.integers(40, 160))
    radii = rng.uniform(0.004, 0.02) * ww * rng.uniform(0.7, 1.2, n)
    places = np.c_[rng.uniform(0, ww, n), level * rng.beta(2.5, 1.4, n), radii]
    lamps = np.zeros((hh, ww, 3), np.float32)
    fill(lamps, outlines(places, rng, n=32), vary(_LAMPS, n, rng, 0.5) * rng.uniform(0.5, 1.0))
    halo = cv2.resize(lamps, (ww // 8, hh // 8), interpolation=cv2.INTER_AREA)
    halo = resize(cv2.GaussianBlur(halo, (0, 0), 0.004 * ww), hh, ww)
    lamps = cv2.GaussianBlur(lamps, (0, 0), 0.8) + 1.5 * halo
    lamps += backdrop(hh, ww, np.stack([glow, 0.4 * glow, mix(glow, _LAMPS[0], 0.25)]), rng)
    wet = cv2.blur(lamps[level - 1 :: -1][: hh - level], (ww // 120 | 1, hh // 5 | 1))
    ripple = np.clip(1.0 + 0.45 * field(len(wet), ww, 1.8, rng, stretch=6.0), 0.1, 3.0)
    lamps[level : level + len(wet)] = 0.55 * wet * ripple[..., None] + 4.0
    picture = resize(cv2.convertScaleAbs(cv2.max(lamps, 0.0)), h, w)
    bar, y = rng.uniform(90, 260) * w / WIDTH, h * rng.uniform(0.5, 0.8)
    for x in np.arange(rng.uniform(0, bar), w, bar):
        box(picture, x, y - 0.3 * bar, x + 0.14 * bar, h, 0.3 * glow)
    box(picture, 0, y, w, y + 0.16 * bar, 0.3 * glow)
    return shade(picture, texture(h, w, 1.6, 0.05, rng))


def facade(h: int, w: int, rng: Random) -> Pixels:
    """Paint a wall of bricks or stones with windows."""
    u, high = w / WIDTH, rng.uniform(44, 110) * w / WIDTH
    wide, gap, (wall, frame) = high * rng.uniform(2.0, 3.2), max(1.0, 0.09 * high), vary(_EARTHS, 2, rng)
    row, column = (k.ravel() for k in np.mgrid[: int(h / high) + 2, : int(w / wide) + 2])
    corner = np.stack([(column - 0.5 * (row % 2)) * wide, row * high], axis=1)[:, None]
    shapes = corner + np.array([[0, 0], [wide - gap, 0], [wide - gap, high - gap], [0, high - gap]])
    shapes = shapes + rng.normal(0, 0.02 * high, shapes.shape)
    picture, radius = flat(h, w, mix(wall, (200, 196, 188), 0.6)), np.ones((h // 2, w // 2), np.float32)
    fill(picture, shapes, vary((wall,), len(shapes), rng, 0.16, 0.03))
    fill(radius, shapes, 0.12 * high + 1e-4 * np.arange(len(shapes)), 0.5)
    shade(picture, relief(radius, rng, 0.8), _sun(h, w, 0.12, rng), texture(h, w, 1.5, 0.1, rng))
    (across, down), (nx, ny) = rng.integers(1, (5, 4)).tolist(), rng.integers(2, (4, 6)).tolist()
    ww, wh = int(w / across * rng.uniform(0.35, 0.5)), int(h / down * rng.uniform(0.5, 0.7))
    m, cast = 0.07 * ww, np.ones((h // 4, w // 4), np.float32)
    for k in range(across * down):
        x, y = int((k % across + 0.5) * w / across - ww / 2), int((k // across + 0.5) * h / down - wh / 2)
        box(picture, x - m, y - 2 * m, x + ww + m, y + wh + m, mix(wall, (215, 210, 200), 0.75))
        box(picture, x, y, x + ww, y + wh, frame)
        panes = _windows(ny, nx, frame, _GLASS, 0.1, rng)
        panes = cv2.resize(panes, (ww, wh), interpolation=cv2.INTER_NEAREST)
        picture[y : y + wh, x : x + ww] = cv2.addWeighted(panes, 0.8, sky(wh, ww, MOODS[0], rng), 0.2, 0.0)
        box(cast, x / 4, y / 4, (x + ww) / 4, (y + 1.2 * m) / 4, (0.5,))
        box(cast, (x - m) / 4, (y + wh + m) / 4, (x + ww + 3 * m) / 4, (y + wh + 3 * m) / 4, (0.62,))
    return shade(picture, cv2.GaussianBlur(cast, (0, 0), 1.6 * u + 0.4))


def textile(h: int, w: int, rng: Random) -> Pixels:
    """Paint woven cloth: threads over and under one another, dyed in a check, laid in folds."""
    hh, ww, dyes = -(-h // 2), -(-w // 2), vary(_VIVID + _EARTHS, 3, rng, 0.3).astype(np.uint8)
    period = np.float32(max(3.0, rng.uniform(8, 20) * (w / WIDTH) ** 0.5))
    fold = resize(field(-(-hh // 16), -(-ww // 16), 5.0, rng, rng.uniform(0.5, 2.5)), hh, ww)
    # Threads follow the folds: a slow displacement bends the regular grid.
    x = np.arange(ww, dtype=np.float32) / period + 1.2 * fold + 50
    y = np.arange(hh, dtype=np.float32)[:, None] / period - 0.9 * fold + 50
    column, row = x.astype(np.int16), y.astype(np.int16)
    bands = np.repeat(rng.integers(0, 3, 900), rng.choice([2, 4, 8, 16, 30], 900))
    warp, weft, is_warp = dyes[bands[:900]], dyes[bands[900:1800, None]], ((column + row) & 1).astype(bool)
    table = np.where((np.indices((900, 900)).sum(axis=0) & 1)[..., None], warp, weft)
    picture = cv2.remap(table, column.astype(np.float32), row.astype(np.float32), cv2.INTER_NEAREST)
    x, y = x - column - np.float32(0.5), y - row - np.float32(0.5)
    thread = 1.12 - 1.5 * np.where(is_warp, x, y) ** 2 - np.where(is_warp, y, x) ** 2
    slope = np.add(*np.gradient(fold))
    slope = np.clip(1.0 + 0.25 / max(float(slope[::8, ::8].std()), 1e-6) * slope, 0.35, 1.6)
    return shade(cv2.resize(picture, (w, h)), thread, slope, texture(h, w, 1.0, 0.12, rng))


def sea(h: int, w: int, rng: Random) -> Pixels:
    """Paint waves to the horizon: sky in the water, foam, and often the sun's path."""
    mood, wind, horizon = rng.choice(MOODS), rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.55)
    chop = field(GROUND, GROUND, 2.4, rng, stretch=1.7)
    heights = wind * (3.4 * cv2.exp(0.55 * field(GROUND, GROUND, 3.8, rng, stretch=3.0)) + 0.45 * chop)
    away, right = np.gradient(heights)
    mirror, deep = np.clip(0.34 - away + 0.1 * right, 0, 1), mix((10, 48, 70), (24, 92, 92), rng.random())
    crest = np.float32(np.quantile(heights[::8, ::8], 1.0 - 0.03 * wind))
    foam = np.clip((heights - crest) / 1.2, 0.0, 1.0) * np.clip(0.5 + 0.5 * chop, 0.0, 1.0)
    water = [d + mirror * (s - d) for d, s in zip(deep, mix(mood[0], mood[1], 0.6), strict=True)]
    colours = [c + foam * (0.95 * tint - c) for c, tint in zip(water, mood[3], strict=True)]
    grain, view = texture(h, w, 1.5, 0.13, rng, 3.0), (rng.uniform(16, 40), horizon, 3000, 2600, 60)
    picture = landscape(heights, colours, grain, rng, mood, *view)
    x = np.linspace(0, 1, w // 8) - rng.uniform(-0.5, 1.5)  # from the sun, which may stand outside
    y = np.linspace(-horizon, 1.0 - horizon, h // 8)[:, None]
    path = (x / (0.04 + 0.3 * np.abs(y))) ** 2 + 9.0 * (y < 0)
    return shade(picture, 1.0 + 0.7 * np.exp(-(x**2 + (y + 0.12) ** 2) / 0.02) + 0.9 * np.exp(-path))


def mountains(h: int, w: int, rng: Random) -> Pixels:
    """Paint ridges of rock, woods and snow in the light of a low sun."""
    mood, sun = rng.choice(MOODS), float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9))
    ridges, massif = field(GROUND, GROUND, 4.2, rng, start=4), field(GROUND, GROUND, 3.2, rng)
    heights = (1.2 - np.abs(ridges)) * rng.uniform(35, 55) + massif * rng.uniform(16, 26)
    heights = cv2.GaussianBlur(heights - heights.min(), (0, 0), 1.2)
    away, right = np.gradient(heights)
    steep = right * right + away * away
    light = np.clip(0.82 - (0.55 * sun * right + 0.2 * away) / cv2.sqrt(1.0 + steep), 0.14, 1.35)
    trees, eye, snows = np.quantile(heights[::8, ::8], [0.5, 0.8, rng.uniform(0.4, 0.95)]).tolist()
    snow = np.clip((heights - snows) / 12 + 0.5 - 0.5 * np.clip(steep - 1.2, 0, 2), 0, 1)
    wood = np.clip((trees - heights) / 10 + 0.5, 0, 1) * (steep < 2.5)
    rock, green = 0.8 * mix(_STONE, _SANDSTONE, rng.random()), mix(_GREENS[2], _OLIVE, rng.random() / 2)
    bare = [r + wood * (g - r) for r, g in zip(rock, green, strict=True)]
    colours = [(c + snow * (245.0 - c)) * light * (tint / 255) for c, tint in zip(bare, mood[3], strict=True)]
    grain, view = texture(h, w, 1.7, 0.12, rng), (eye + 8, rng.uniform(0.26, 0.42), 1500, 1100, 400)
    return landscape(heights, colours, grain, rng, mood, *view)


def dunes(h: int, w: int, rng: Random) -> Pixels:
    """Paint dunes: sharp crests between light and shadow."""
    mood, sun = rng.choice(MOODS), float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.3))
    waves = cv2.GaussianBlur(field(GROUND, GROUND, 5.0, rng, start=int(rng.integers(4, 8))), (0, 0), 3.0)
    heights = (1.1 - np.abs(waves)) * rng.uniform(16, 30) + 0.6 * field(GROUND, GROUND, 3.4, rng)
    heights -= heights.min()
    away, right = np.gradient(heights)
    light = 0.34 + (0.5 - 1.0 * (sun * right + 0.3 * away)) / cv2.sqrt(1.0 + right * right + away * away)
    sand = mix((214, 150, 94), (226, 196, 150), rng.random()) * mood[3] / 255
    colours, eye = [np.clip(light, 0.14, 1.3) * c for c in sand], float(np.quantile(heights[::8, ::8], 0.75))
    grain, view = texture(h, w, 1.0, 0.1, rng, 4.0), (eye + 14, rng.uniform(0.25, 0.42), 1500, 2200, 150)
    return landscape(heights, colours, grain, rng, mood, *view)


def skyline(h: int, w: int, rng: Random) -> Pixels:
    """Paint towers behind towers at the water, by day or with lit windows at dusk."""
    mood, lit = (_DUSK, 0.35) if rng.random() < 0.35 else (rng.choice(MOODS), 0.02)
    picture, ground = sky(h, w, mood, rng), int(h * rng.uniform(0.74, 0.86))
    for near in np.linspace(rng.uniform(0.3, 0.5), 1.0, int(rng.integers(2, 4))):
        air, x = 0.6 * (1.0 - near) + 0.04, -rng.uniform(0, 0.1) * w
        while x < w:
            wide = w * rng.uniform(0.03, 0.075) * (0.45 + 0.75 * near)
            high = min(h * rng.lognormal(-1.2, 0.5) * (1.15 - 0.35 * near), 0.95 * ground)
            wall = mix(vary(_EARTHS, 1, rng)[0] * mood[3] / 255, mood[1], air)
            n, floors = int(rng.integers(4, 12)), int(rng.uniform(15, 90) * high / h) + 3
            glass = mix(_GLASS, mood[1], air + 0.1) * (0.6 if lit > 0.1 else 1.0)
            front = _windows(floors, n, wall, glass, lit, rng)
            front[:, int(rng.uniform(2, 4) * n) :] //= 2  # the side in shadow
            top, start, stop = int(ground - high), int(x), int(x + wide)
            front = cv2.resize(front, (stop - start, ground - top), interpolation=cv2.INTER_NEAREST)
            front = front[:, max(0, -start) : max(0, w - start)]
            picture[top:ground, max(0, start) : max(0, start) + front.shape[1]] = front
            if rng.random() < 0.5:
                left, over = x + wide * rng.uniform(0.1, 0.4), top - wide * rng.uniform(0.05, 0.4)
                box(picture, left, over, x + wide * rng.uniform(0.45, 0.8), top, wall)
            x += wide * rng.uniform(0.85, 1.3)
    below = picture[ground - 1 :: -1][: h - ground]
    water = cv2.convertScaleAbs(cv2.blur(below, (w // 400 | 1, h // 30 | 1)), alpha=0.6)
    ripple = np.clip(1.0 + 0.28 * field(len(water) // 2 + 1, w // 2, 1.8, rng, stretch=6.0), 0.2, 2.0)
    picture[ground : ground + len(water)] = shade(water, ripple)
    return shade(picture, texture(h, w, 1.9, 0.05, rng))


EXCLUSIVE = {
    sea: ("Sea", "Ocean"), mountains: ("Mountain", "Scenery"), dunes: ("Sand", "Landscape"), skyline: ("City", "Urban")
}  # fmt: skip
"""Scenes that training lacks, with their tags, the more general one last."""
TAGS = {
    pebbles: ("Pebble", "Rock"), foliage: ("Leaf", "Plant"), blossoms: ("Flower", "Plant"), fruit: ("Fruit", "Food"),
    shelf: ("Book", "Indoors"), night: ("Lighting", "Night"), facade: ("Building", "Architecture"),
    textile: ("Woven", "Home Decor"), **EXCLUSIVE,
}  # fmt: skip
SCENES = {paint.__name__: paint for paint in TAGS}
