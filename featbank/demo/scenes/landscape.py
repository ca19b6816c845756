"""Wide views: the sea, mountains, dunes. In the photo set these kinds appear in validation and test alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbank.demo.canvas import Canvas, Planes, mix, rgb, set_exposure
from featbank.demo.filters import Plane, strips
from featbank.demo.scenes.ground import relief_plane, rock_tile
from featbank.demo.scenes.light import add_glow, sky
from featbank.demo.texture import fractal, grain, smooth_field, smoothstep

_MOODS = (
    # zenith, horizon, cloud, light on the land
    (rgb(60, 110, 190), rgb(180, 206, 232), rgb(250, 250, 250), rgb(255, 246, 230)),
    (rgb(90, 110, 140), rgb(200, 205, 212), rgb(214, 216, 220), rgb(214, 220, 228)),
    (rgb(70, 80, 130), rgb(250, 176, 110), rgb(250, 170, 130), rgb(255, 190, 130)),
    (rgb(120, 130, 170), rgb(236, 190, 190), rgb(240, 214, 210), rgb(240, 210, 196)),
)


def paint_sea(canvas: Canvas) -> Planes:
    """Paint the sea to the horizon: waves in perspective, sky in the water, glints under the sun, foam."""
    rng = canvas.rng
    zenith, horizon, cloud, warm = _MOODS[rng.integers(len(_MOODS))]
    rows = int(canvas.height * rng.uniform(0.22, 0.6))
    picture = np.empty((3, canvas.height, canvas.width), dtype=np.float32)
    picture[:, :rows] = sky(canvas, zenith, horizon, cloud, rows=rows, cover=float(rng.uniform(-0.6, 2.0)))
    n = canvas.height - rows
    wind = float(rng.uniform(0.4, 1.3))
    slope = relief_plane(
        n,
        canvas.width,
        float(rng.uniform(8, 24)),
        rng,
        beta=3.0,
        stretch=float(rng.choice([2.0, 3.5])),
        sharp=0.55,
        swell=float(rng.uniform(0.8, 1.8)),
    )
    deep = mix(rgb(8, 40, 62), rgb(20, 80, 84), float(rng.random()))
    # Flat water far away mirrors the horizon, steep faces turned to the viewer show the deep.
    away = np.linspace(1.0, 0.0, n, dtype=np.float32)[:, None]
    mirror = np.clip(
        np.float32(0.28) + np.float32(0.5) * away**3 + np.float32(0.11 * wind) * slope, 0.02, 1.0
    )
    for channel in range(3):
        reflected = horizon[channel] * away + zenith[channel] * (1.0 - away)
        picture[channel, rows:] = deep[channel] + mirror * (reflected - deep[channel])
    foam = smoothstep(slope, 2.6, 4.2) * smoothstep(grain(n, canvas.width, 1.4, rng), -0.4, 0.8)
    picture[:, rows:] += np.float32(0.75) * foam * warm.reshape(3, 1, 1)
    if rng.random() < 0.6:
        x = rng.uniform(0.15, 0.85) * canvas.width
        add_glow(picture, x, rows * rng.uniform(0.3, 0.95), 500.0 * canvas.scale, warm * np.float32(0.9))
        columns = (np.arange(canvas.width, dtype=np.float32)[None, :] - np.float32(x)) / np.float32(
            canvas.width
        )
        spread = np.float32(0.05) + np.float32(0.16) * (1.0 - away)
        path = np.exp(-0.5 * (columns / spread) ** 2)
        glint = smoothstep(slope, 0.9, 2.2) * path
        picture[:, rows:] += np.float32(1.4) * glint * warm.reshape(3, 1, 1)
    return set_exposure(picture, float(rng.uniform(0.14, 0.32)), 1.15)


def _ridge(width: int, rng: np.random.Generator, roughness: float) -> NDArray[np.float32]:
    """Draw the outline of a range of hills, float32 array of shape (width,), standard deviation 1."""
    f = np.fft.rfftfreq(2 * width)
    f[0] = 1.0
    gain = np.maximum(f, 2.0 / width) ** (-roughness)
    gain[0] = 0.0
    line = np.fft.irfft(np.fft.rfft(rng.standard_normal(2 * width)) * gain, 2 * width)[:width]
    return ((line - line.mean()) / line.std()).astype(np.float32)


def _depth(line: NDArray[np.float32], rows: slice) -> Plane:
    """Rows below an outline (negative above it) for a strip, float32 array of shape (n_rows, width)."""
    return np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - line[None, :]


def _visible(lines: list[NDArray[np.float32]], rows: slice) -> range:
    """Layers that show in a strip of rows; layers come far to near, and each hides what lies behind it."""
    first = 0
    for k, line in enumerate(lines):
        if float(line.max()) < rows.start - 1.0:
            first = k
    last = max((k for k, line in enumerate(lines) if float(line.min()) < rows.stop + 1.0), default=-1)
    return range(first, last + 1)


def _blend(picture: Planes, rows: slice, mask: Plane, colours: list[Plane]) -> None:
    """Lay a layer's colours over a strip of the picture in place."""
    for channel, colour in enumerate(colours):
        part = picture[channel, rows]
        part += mask * (colour - part)


def paint_mountains(canvas: Canvas) -> Planes:
    """Paint ranges behind ranges: rock and snow lit from the side, haze with distance, a wooded foreground."""
    rng = canvas.rng
    height, width = canvas.height, canvas.width
    zenith, horizon, cloud, warm = _MOODS[rng.integers(len(_MOODS))]
    picture = sky(canvas, zenith, horizon, cloud, rows=height, cover=float(rng.uniform(0.0, 2.0)))
    n_ranges = int(rng.integers(2, 5))
    haze = mix(horizon, rgb(150, 170, 200), 0.5)
    relief = fractal(height, width, 3.0, rng, name="relief")
    lit = relief - np.roll(relief, (canvas.px(14), canvas.px(26)), axis=(0, 1))
    lit *= np.float32(0.8) / max(float(lit[::8, ::8].std()), 1e-6)
    lit += np.float32(0.55) * rock_tile(height, width, rng)
    snowline = float(rng.uniform(0.2, 0.55)) * 0.35
    rock = mix(rgb(96, 88, 84), rgb(130, 100, 80), float(rng.random()))
    wood = mix(rgb(40, 60, 36), rgb(60, 70, 40), float(rng.random()))
    nearness = [(k + 1) / n_ranges for k in range(n_ranges)]
    lines = [
        height
        * (
            0.24
            + 0.5 * near**1.4
            + rng.normal(0, 0.02)
            - 0.075 * rng.uniform(0.6, 1.3) * _ridge(width, rng, 1.15)
        )
        for near in nearness
    ]
    # The same relief serves every range, moved along so that no two look alike.
    moves = rng.integers((height, width), size=(n_ranges, 2))
    for rows in strips(height, 64):
        for k in _visible(lines, rows):
            depth = _depth(lines[k], rows)
            shade = np.roll(
                lit[(np.arange(rows.start, rows.stop) + moves[k, 0]) % height], moves[k, 1], axis=1
            )
            light = np.clip(np.float32(0.55) + np.float32(0.32) * shade, 0.06, 1.7)
            air = np.float32(0.62 * (1.0 - nearness[k]) + 0.04)
            if k == n_ranges - 1:
                colours = [wood[c] * light * (warm[c] * (1 - air)) + air * haze[c] for c in range(3)]
            else:
                level = np.float32(snowline) - depth / np.float32(height) + np.float32(0.05) * shade
                snow = smoothstep(level, -0.02, 0.05)
                bare = [rock[c] + snow * (np.float32(0.85) - rock[c]) for c in range(3)]
                colours = [bare[c] * light * (warm[c] * (1 - air)) + air * haze[c] for c in range(3)]
            _blend(picture, rows, np.clip(depth + np.float32(0.5), 0.0, 1.0), colours)
    return set_exposure(picture, float(rng.uniform(0.14, 0.3)))


def paint_dunes(canvas: Canvas) -> Planes:
    """Paint dunes: sharp crests between light and shadow, ripples in the sand, a clear sky."""
    rng = canvas.rng
    height, width = canvas.height, canvas.width
    zenith, horizon, cloud, warm = _MOODS[rng.choice([0, 2, 3])]
    picture = sky(canvas, zenith, horizon, cloud, rows=height, cover=float(rng.uniform(1.2, 2.6)))
    sand = mix(rgb(214, 150, 90), rgb(226, 196, 150), float(rng.random())) * warm
    first = int(height * rng.uniform(0.3, 0.45))
    ripples = relief_plane(height - first, width, 6.0, rng, beta=2.4, stretch=4.0, swell=0.5)
    sparkle = grain(height, width, 0.3, rng)
    undulation = smooth_field(height, width, 4.0, rng, stretch=2.5)
    n = int(rng.integers(3, 6))
    nearness = [(k + 1) / n for k in range(n)]
    lines = [first + height * (0.5 * near**1.5 - 0.08 - 0.07 * _ridge(width, rng, 1.9)) for near in nearness]
    # A second line through each dune parts the lit face from the shadow.
    crests = [
        line + np.abs(_ridge(width, rng, 2.0)) * np.float32(height * 0.12 * rng.uniform(0.5, 1.5))
        for line in lines
    ]
    facing = rng.uniform(0.3, 0.6, n).astype(np.float32)
    soft = 3.0 * canvas.scale + 1.0
    for rows in strips(height, 64):
        for k in _visible(lines, rows):
            shadow = smoothstep(_depth(crests[k], rows), -soft, soft)
            light = np.float32(1.0) - facing[k] * shadow + np.float32(0.12) * undulation[rows]
            light += np.float32(0.05 * nearness[k]) * sparkle[rows]
            if rows.start >= first:
                wave = ripples[rows.start - first : rows.stop - first]
                light += (
                    np.float32(0.10 * (0.4 + nearness[k]))
                    * wave
                    * (np.float32(1.0) - np.float32(0.6) * shadow)
                )
            np.maximum(light, np.float32(0.03), out=light)
            air = np.float32(0.35 * (1.0 - nearness[k]))
            colours = [light * (sand[c] * (1 - air)) + air * horizon[c] for c in range(3)]
            _blend(picture, rows, np.clip(_depth(lines[k], rows) + np.float32(0.5), 0.0, 1.0), colours)
    return set_exposure(picture, float(rng.uniform(0.18, 0.34)))
