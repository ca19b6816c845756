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

from featbank.demo.camera import Map, Pixels, Random, white_noise

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
