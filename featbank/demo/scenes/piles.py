"""Scenes filled to the frame with things or threads: pebbles and woven cloth."""

from __future__ import annotations

import numpy as np

from featbank.demo.canvas import Canvas, Planes, rgb, set_exposure
from featbank.demo.filters import strips
from featbank.demo.sprites import size_ladder
from featbank.demo.texture import fractal, grain, smooth_field

_STONES = (
    (rgb(150, 142, 130), rgb(96, 92, 90), rgb(182, 170, 150), rgb(120, 98, 80), rgb(70, 72, 78)),
    (rgb(178, 120, 90), rgb(140, 84, 62), rgb(206, 178, 150), rgb(110, 100, 92), rgb(84, 60, 52)),
    (rgb(110, 122, 124), rgb(150, 160, 158), rgb(76, 84, 82), rgb(170, 168, 150), rgb(60, 70, 84)),
    (rgb(196, 150, 60), rgb(172, 60, 44), rgb(210, 190, 130), rgb(120, 130, 60), rgb(92, 44, 36)),
)

_DYES = (
    (rgb(150, 34, 40), rgb(26, 44, 92), rgb(224, 214, 190)),
    (rgb(30, 90, 84), rgb(214, 170, 90), rgb(40, 42, 50)),
    (rgb(188, 176, 160), rgb(150, 132, 112), rgb(232, 226, 214)),
    (rgb(60, 70, 120), rgb(170, 180, 200), rgb(200, 96, 70)),
    (rgb(120, 40, 90), rgb(210, 130, 60), rgb(50, 30, 60)),
)


def paint_pebbles(canvas: Canvas) -> Planes:
    """Paint a beach of pebbles from above: shaded stones of all sizes in front of one another."""
    rng = canvas.rng
    colours = canvas.add_colours(_STONES[rng.integers(len(_STONES))], 44, spread=0.28, drift=0.05)
    canvas.tone.paste(40, (0, 0, canvas.width, canvas.height))
    largest = float(rng.choice([220.0, 420.0, 760.0]))
    ladder = size_ladder(canvas.px(32), canvas.px(largest))
    canvas.scatter("stone", ladder, colours, cover=3.4, n_shapes=7)
    light = 1.0 + 0.22 * smooth_field(canvas.height, canvas.width, 3.0, rng)
    return set_exposure(canvas.to_linear(np.clip(light, 0.35, 1.8)), float(rng.uniform(0.13, 0.24)))


def paint_textile(canvas: Canvas) -> Planes:
    """Paint woven cloth: threads over and under one another, dyed in a check, laid in soft folds."""
    rng = canvas.rng
    height, width = canvas.height, canvas.width
    dyes = _DYES[rng.integers(len(_DYES))]
    period = max(6.0, float(rng.uniform(14.0, 34.0)) * canvas.scale**0.5)
    folds = smooth_field(height, width, 4.4, rng, stretch=float(rng.uniform(0.4, 2.5)))
    shift = canvas.px(60)
    slope = folds - np.roll(folds, (shift, shift), axis=(0, 1))
    fibres = grain(height, width, 0.9, rng)
    wear = fractal(height, width, 2.0, rng)
    reach = 2 + int(2.0 * float(np.abs(folds).max()))
    warp = _stripes(int(width / period) + 2 * reach, dyes, rng)
    weft = _stripes(int(height / period) + 2 * reach, dyes, rng)
    table = np.stack(dyes)
    out = np.empty((3, height, width), dtype=np.float32)
    across = np.arange(width, dtype=np.float32)[None, :] / np.float32(period) + np.float32(reach)
    for rows in strips(height):
        along = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] / np.float32(period) + np.float32(
            reach
        )
        # Threads follow the folds: a slow displacement bends the regular grid.
        x = across + np.float32(1.1) * folds[rows]
        y = along - np.float32(0.9) * folds[rows]
        column, row = x.astype(np.int16), y.astype(np.int16)
        x -= column + np.float32(0.5)
        y -= row + np.float32(0.5)
        is_warp = ((column + row) & 1) == 0
        # A thread is round across and dives under its neighbours at both ends.
        side, end = np.where(is_warp, x, y), np.where(is_warp, y, x)
        shade = np.float32(1.0) - np.float32(2.2) * side * side - np.float32(1.3) * end * end
        shade *= np.float32(1.0) + np.float32(0.16) * fibres[rows]
        shade *= np.clip(np.float32(1.0) + np.float32(2.4) * slope[rows], 0.25, 2.0)
        shade *= np.float32(1.0) + np.float32(0.1) * wear[rows]
        np.maximum(shade, 0.0, out=shade)
        dyed = np.where(is_warp, np.take(warp, column, mode="clip"), np.take(weft, row, mode="clip"))
        for channel in range(3):
            out[channel, rows] = np.take(table[:, channel], dyed) * shade
    return set_exposure(out, float(rng.uniform(0.1, 0.22)))


def _stripes(n: int, dyes: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray:
    """Assign a dye to each of ``n`` threads in bands of random widths, uint8 array of shape (n,)."""
    out = np.empty(n, dtype=np.uint8)
    start = 0
    while start < n:
        band = int(rng.choice([2, 4, 8, 16, 30]))
        out[start : start + band] = rng.integers(len(dyes))
        start += band
    return out
