"""The front of a house: masonry, windows, ledges, shop signs with lettering."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from featbank.demo.canvas import Canvas, Planes, over, rgb, set_exposure
from featbank.demo.filters import Plane
from featbank.demo.scenes.light import sky
from featbank.demo.texture import TILE_SIZE, fractal, window

_WALLS = (
    (rgb(150, 84, 64), "brick"),
    (rgb(196, 176, 140), "brick"),
    (rgb(214, 204, 186), "plaster"),
    (rgb(200, 160, 110), "plaster"),
    (rgb(130, 140, 150), "plaster"),
    (rgb(120, 112, 104), "stone"),
)
_SIGNS = (
    "BAKERY",
    "CAFE",
    "BOOKS",
    "MARKET",
    "HOTEL",
    "FLOWERS",
    "OPTICIAN",
    "PAPER & INK",
    "TEA ROOM",
    "OPEN 9-18",
    "No. 42",
)


@lru_cache(maxsize=8)
def masonry(course: int, is_stone: bool) -> Plane:
    """Return a periodic wall of bricks or blocks, relative lightness, float32 array of shape (1024, 1024).

    Parameters
    ----------
    course : int
        Height of one course in pixels; rounded so that whole courses fill the tile.
    is_stone : bool
        Blocks twice as long with wider joints, instead of bricks.
    """
    rng = np.random.default_rng(course)
    rows = max(2, TILE_SIZE // course // 2 * 2)
    columns = max(2, round(rows / (2.2 if is_stone else 3.0)))
    y = (np.arange(TILE_SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(rows / TILE_SIZE)
    row = np.floor(y).astype(np.int32)
    x = (np.arange(TILE_SIZE, dtype=np.float32)[None, :] + np.float32(0.5)) * np.float32(columns / TILE_SIZE)
    x = (x + np.float32(0.5) * (row % 2)[:, None]) % columns
    column = np.floor(x).astype(np.int32)
    lightness = np.exp(rng.normal(0.0, 0.16, (rows, columns))).astype(np.float32)
    out = lightness[row[:, None], column]
    # Distance to the nearest joint in pixels; bricks are lit from above, joints are pale and recessed.
    joint = np.float32(0.09 if is_stone else 0.07) * course
    down = (y - row) * np.float32(course)
    along = (x - column) * np.float32(TILE_SIZE / columns)
    near = np.minimum(
        np.minimum(down, course - down)[:, None], np.minimum(along, np.float32(TILE_SIZE / columns) - along)
    )
    face = np.clip((near - joint) + 0.5, 0.0, 1.0)
    out *= np.float32(1.0) + np.float32(0.18) * np.clip(1.0 - (down[:, None] - joint) / 3.0, 0.0, 1.0)
    out = out * face + np.float32(0.55 if is_stone else 1.25) * (np.float32(1.0) - face)
    out.setflags(write=False)
    return out


def paint_facade(canvas: Canvas) -> Planes:
    """Paint a house front: textured wall, rows of windows with frames and reflections, ledges, signs."""
    rng = canvas.rng
    wall, kind = _WALLS[rng.integers(len(_WALLS))]
    front = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    plain = front.add_colours([wall, rgb(222, 216, 204), rgb(40, 46, 54), rgb(90, 60, 44)])
    glass = front.add_colours([rgb(30, 40, 52), rgb(90, 120, 150), rgb(20, 22, 26)], 8, spread=0.35)
    curtains = front.add_colours([rgb(214, 206, 190), rgb(160, 120, 90)], 4, spread=0.2)
    cloths = front.add_colours([rgb(140, 30, 34), rgb(24, 70, 60), rgb(30, 50, 100), rgb(230, 224, 206)])
    roof = canvas.height * float(rng.choice([0.0, 0.0, 0.12, 0.25]))
    front.rectangle((0, roof, canvas.width, canvas.height), plain[0])
    n_columns, n_floors = int(rng.integers(3, 9)), int(rng.integers(2, 5))
    wide, tall = canvas.width / n_columns, (canvas.height - roof) / (n_floors + 0.2)
    share_x, share_y = rng.uniform(0.4, 0.62), rng.uniform(0.5, 0.7)
    has_shop = bool(rng.random() < 0.65)
    for floor in range(n_floors):
        top = roof + tall * (floor + 0.22)
        if has_shop and floor == n_floors - 1:
            _shop(front, top - tall * 0.14, tall, cloths, plain, glass)
            continue
        ledge = top + tall * (share_y + 0.12)
        front.rectangle((0, ledge, canvas.width, ledge + tall * 0.035), plain[1], 140)
        front.rectangle((0, ledge + tall * 0.035, canvas.width, ledge + tall * 0.06), plain[0], 70)
        for column in range(n_columns):
            left = wide * (column + (1.0 - share_x) / 2.0)
            box = (left, top, left + wide * share_x, top + tall * share_y)
            _window(front, box, plain, int(rng.choice(glass)), int(rng.choice(curtains)))
    surface = _surface(canvas, kind)
    hue = np.asarray(front.hue)
    # Only the wall itself carries the masonry; frames and glass are smooth.
    surface = np.where(hue == plain[0], surface, np.float32(1.0))
    surface *= np.float32(1.0) + np.float32(0.08) * fractal(canvas.height, canvas.width, 2.0, rng)
    sun = np.linspace(rng.uniform(0.7, 1.3), rng.uniform(0.7, 1.3), canvas.width, dtype=np.float32)[None, :]
    picture = front.to_linear(surface * sun)
    if roof > 0:
        clear = sky(
            canvas,
            rgb(80, 130, 200),
            rgb(190, 210, 230),
            rgb(250, 250, 250),
            rows=canvas.height,
            cover=float(rng.uniform(0.0, 2.0)),
        )
        picture = over(clear, picture, front.coverage())
    return set_exposure(picture, float(rng.uniform(0.14, 0.3)))


def _surface(canvas: Canvas, kind: str) -> Plane:
    """Relative lightness of the wall, float32 array of shape (height, width)."""
    rng = canvas.rng
    if kind == "plaster":
        rough = fractal(canvas.height, canvas.width, 1.6, rng)
        return np.clip(1.0 + 0.13 * rough, 0.3, 1.8)
    # Courses of a few sizes only, so that each process draws few walls.
    course = int(rng.choice([16, 24, 36])) if kind == "brick" else 64
    course = max(8, round(course * canvas.scale**0.5))
    return window(masonry(course, kind == "stone"), canvas.height, canvas.width, rng)


def _window(
    canvas: Canvas, box: tuple[float, float, float, float], plain: list[int], pane: int, curtain: int
) -> None:
    """Draw one window: reveal, frame, panes with a reflected gradient, perhaps a curtain."""
    rng = canvas.rng
    left, top, right, bottom = box
    frame = (right - left) * 0.07
    canvas.rectangle((left - frame, top - frame, right + frame, bottom + frame), plain[1], 118)
    canvas.rectangle((left, top, right, bottom), plain[2], 60)
    n_strips = 24
    tilt = rng.uniform(-40, 60)
    for k in range(n_strips):
        y0, y1 = top + (bottom - top) * k / n_strips, top + (bottom - top) * (k + 1) / n_strips
        canvas.rectangle((left, y0, right, y1 + 1), pane, int(90 + tilt * (1.0 - k / n_strips)))
    if rng.random() < 0.4:
        part = rng.uniform(0.2, 0.45) * (right - left)
        n = 14
        for side in (left, right - part):
            for k in range(n):
                tone = 70 + 46 * np.sin(k * 1.9) ** 2
                canvas.rectangle(
                    (side + part * k / n, top, side + part * (k + 1) / n + 1, bottom), curtain, int(tone)
                )
    bar = frame * 0.7
    canvas.rectangle(((left + right - bar) / 2, top, (left + right + bar) / 2, bottom), plain[1], 128)
    for share in (0.34,) if rng.random() < 0.5 else (0.34, 0.67):
        y = top + (bottom - top) * share
        canvas.rectangle((left, y, right, y + bar), plain[1], 128)
    canvas.rectangle((left, top, right, top + frame * 0.5), plain[2], 40)
    canvas.rectangle(
        (left - frame * 1.6, bottom + frame, right + frame * 1.6, bottom + frame * 2.2), plain[1], 146
    )


def _shop(
    canvas: Canvas, top: float, tall: float, cloths: list[int], plain: list[int], glass: list[int]
) -> None:
    """Draw a shop floor: signboards with lettering, awnings in stripes, large panes, small notices."""
    rng = canvas.rng
    n = int(rng.integers(1, 4))
    wide = canvas.width / n
    for k in range(n):
        left, right = wide * (k + 0.04), wide * (k + 0.96)
        board, ink = (int(c) for c in rng.choice(cloths[:3], size=2, replace=False))
        ink = cloths[3] if rng.random() < 0.8 else ink
        canvas.rectangle((left, top, right, top + tall * 0.2), board, 112)
        canvas.rectangle((left, top, right, top + tall * 0.012), board, 170)
        size = min(tall * 0.13, wide * 0.09)
        canvas.text(
            left + wide * rng.uniform(0.05, 0.3), top + tall * 0.05, str(rng.choice(_SIGNS)), size, ink, 132
        )
        canvas.rectangle((left, top + tall * 0.2, right, top + tall * 0.32), plain[2], 46)
        n_stripes = int(rng.integers(6, 16))
        for stripe in range(n_stripes):
            x0, x1 = (
                left + (right - left) * stripe / n_stripes,
                left + (right - left) * (stripe + 1) / n_stripes,
            )
            bottom = top + tall * 0.36
            points = [(x0, top + tall * 0.21), (x1, top + tall * 0.21), (x1, bottom), (x0, bottom)]
            canvas.polygon(points, board if stripe % 2 else cloths[3], 116 - 4 * (stripe % 3))
        pane = (left + wide * 0.03, top + tall * 0.38, right - wide * 0.03, top + tall * 0.95)
        _window(canvas, pane, plain, int(rng.choice(glass)), plain[3])
        for _ in range(int(rng.integers(2, 7))):
            x, y = rng.uniform(left, right - wide * 0.2), top + tall * rng.uniform(0.42, 0.8)
            w, h = wide * rng.uniform(0.06, 0.14), tall * rng.uniform(0.06, 0.12)
            canvas.rectangle((x, y, x + w, y + h), plain[1], 126)
            for line in range(4):
                words = str(rng.choice(_SIGNS)).lower()
                canvas.text(x + w * 0.08, y + h * (0.08 + 0.22 * line), words, h * 0.18, plain[2], 60)
