"""A city across the water at dusk; in the photo set this kind appears in validation and test alone."""

from __future__ import annotations

import numpy as np

from featbank.demo.canvas import Canvas, Planes, mix, over, rgb, set_exposure
from featbank.demo.filters import gaussian_blur, halve
from featbank.demo.scenes.ground import relief_plane
from featbank.demo.scenes.light import sky
from featbank.demo.texture import fractal

_DUSKS = (
    (rgb(40, 50, 100), rgb(250, 150, 90), rgb(220, 120, 120)),
    (rgb(30, 50, 90), rgb(160, 170, 210), rgb(120, 120, 160)),
    (rgb(70, 50, 110), rgb(240, 130, 130), rgb(210, 110, 150)),
    (rgb(90, 140, 200), rgb(220, 220, 220), rgb(250, 240, 230)),
)


def paint_skyline(canvas: Canvas) -> Planes:
    """Paint towers with lit windows before a dusk sky, and their reflection in moving water."""
    rng = canvas.rng
    zenith, horizon, cloud = _DUSKS[rng.integers(len(_DUSKS))]
    shore = int(canvas.height * rng.uniform(0.55, 0.8))
    dusk = sky(canvas, zenith, horizon, cloud, rows=shore, cover=float(rng.uniform(-0.2, 1.8)))
    city = Canvas(canvas.width, shore, rng, is_transparent=True)
    walls = city.add_colours([rgb(70, 74, 90), rgb(100, 90, 90), rgb(50, 60, 80)], 12, spread=0.3, drift=0.05)
    lamps = city.add_colours(
        [rgb(255, 210, 130), rgb(255, 236, 200), rgb(200, 224, 255)], 8, spread=0.2, drift=0.05
    )
    dark = city.add_colours([rgb(26, 30, 40)], 6, spread=0.3)
    for row, (share, shade) in enumerate(((0.75, 54), (0.6, 44), (0.4, 34))):
        x = -canvas.px(60)
        while x < canvas.width:
            wide = canvas.px(rng.uniform(90, 320))
            tall = shore * share * rng.uniform(0.3, 1.0) * (1.25 if rng.random() < 0.15 else 0.8)
            _tower(
                city,
                x,
                shore - tall,
                wide,
                tall,
                int(rng.choice(walls)),
                shade,
                lamps,
                dark,
                lit=0.2 + 0.2 * row,
            )
            x += int(wide * rng.uniform(0.7, 1.25))
    surface = 1.0 + 0.1 * fractal(shore, canvas.width, 1.7, rng)
    upper = over(dusk, city.to_linear(np.maximum(surface, 0.2)), city.coverage())
    n = canvas.height - shore
    picture = np.empty((3, canvas.height, canvas.width), dtype=np.float32)
    picture[:, :shore] = upper
    slope = relief_plane(n, canvas.width, float(rng.uniform(5, 12)), rng, beta=3.0, stretch=4.0, sharp=0.4)
    picture[:, shore:] = _reflection(upper, slope, rng)
    return set_exposure(picture, float(rng.uniform(0.06, 0.16)), 1.2)


def _reflection(upper: Planes, slope: np.ndarray, rng: np.random.Generator) -> Planes:
    """Mirror the city in water whose waves smear it downwards: every row looks up as far as its slope says."""
    n, width = slope.shape
    shore = upper.shape[1]
    # Smeared at an eighth of the size: waves blur what they mirror more than the eye follows.
    step = 8
    small = np.stack([gaussian_blur(halve(halve(halve(plane))), 1.0) for plane in upper])
    rows = np.arange(n, dtype=np.float32)[:, None]
    reach = np.float32(0.9 * shore / max(n, 1)) * rows + np.float32(0.03 * shore) * slope * (
        rows / n + np.float32(0.15)
    )
    source = np.clip((np.float32(shore) - reach) / step, 0, small.shape[1] - 1).astype(np.int32)
    column = np.minimum(np.arange(width) // step, small.shape[2] - 1)[None, :]
    flat = source * np.int32(small.shape[2]) + column.astype(np.int32)
    shine = np.clip(np.float32(0.6) + np.float32(0.1) * slope, 0.1, 1.0)
    water = mix(rgb(10, 20, 34), rgb(16, 34, 40), float(rng.random()))
    out = np.empty((3, n, width), dtype=np.float32)
    for channel in range(3):
        np.take(small[channel].ravel(), flat, out=out[channel], mode="clip")
        out[channel] *= shine
        out[channel] += water[channel]
    return out


def _tower(
    canvas: Canvas,
    x: float,
    y: float,
    wide: float,
    tall: float,
    wall: int,
    shade: int,
    lamps: list[int],
    dark: list[int],
    *,
    lit: float,
) -> None:
    """Draw one tower: a lit and a shaded side, a grid of windows, perhaps an antenna."""
    rng = canvas.rng
    canvas.rectangle((x, y, x + wide, y + tall), wall, shade)
    canvas.rectangle((x, y, x + wide * rng.uniform(0.1, 0.35), y + tall), wall, int(shade * 1.5))
    if rng.random() < 0.3:
        canvas.rectangle((x + wide * 0.48, y - tall * 0.12, x + wide * 0.5 + 2, y), wall, shade)
    pitch_x, pitch_y = canvas.px(rng.uniform(14, 30)), canvas.px(rng.uniform(18, 36))
    n_columns, n_rows = int(wide // pitch_x) - 1, int(tall // pitch_y) - 1
    if n_columns < 1 or n_rows < 1:
        return
    is_lit = rng.random((n_rows, n_columns)) < lit * rng.uniform(0.4, 1.5)
    lamp, glass = int(rng.choice(lamps)), int(rng.choice(dark))
    for row in range(n_rows):
        top = y + pitch_y * (row + 0.6)
        for column in range(n_columns):
            left = x + pitch_x * (column + 0.7)
            box = (left, top, left + pitch_x * 0.65, top + pitch_y * 0.55)
            canvas.rectangle(box, lamp if is_lit[row, column] else glass, 150 if is_lit[row, column] else 90)
