"""Scenes of things made by hand: shelves of books, fruit on a table, lights at night."""

from __future__ import annotations

import numpy as np

from featbank.demo.canvas import Canvas, Planes, over, rgb, set_exposure
from featbank.demo.filters import Plane, enlarge, gaussian_blur
from featbank.demo.scenes.light import Colour, add_discs, add_glow, enlarge_light, soft_background
from featbank.demo.sprites import size_ladder, sprites
from featbank.demo.texture import fractal, grain, smooth_field

_WORDS = (
    "ATLAS", "RIVERS", "STONE", "FIELD NOTES", "WINTER", "LIGHT", "COLOUR", "FORM", "THE COAST", "GARDENS", "VOLUME II",
    "OPTICS", "PAPER", "TIDES", "MAPS", "CHARTS", "NORTH", "BIRDS", "BREAD", "HARBOUR", "GEOMETRY", "STORIES",
)  # fmt: skip

_SPINES = tuple(
    rgb(*c)
    for c in (
        (150, 40, 36), (36, 60, 110), (220, 210, 186), (40, 84, 66), (30, 32, 38), (204, 160, 70), (112, 60, 96),
        (90, 130, 160), (196, 96, 50), (236, 234, 228), (120, 120, 116), (70, 46, 34),
    )
)  # fmt: skip


def wood(height: int, width: int, rng: np.random.Generator, *, planks: int = 4) -> Plane:
    """Return the relative lightness of boards: fine fibres along the grain, growth rings, gaps between boards."""
    rings = smooth_field(height, width, 2.6, rng, stretch=7.0)
    board = np.floor(np.arange(height, dtype=np.float32) / height * planks)[:, None]
    offset = rng.uniform(0.0, 9.0, planks + 1).astype(np.float32)[board.astype(np.int16)]
    out = np.sin(rings * np.float32(5.0) + offset)
    out *= np.float32(0.1)
    out += np.float32(0.09) * grain(height, width, 1.6, rng, stretch=8.0)
    out += np.float32(1.0) + np.float32(0.1) * np.sin(offset * np.float32(7.0))
    edge = np.abs(
        np.arange(height, dtype=np.float32)[:, None] / height * planks - np.round(board + 0.5) + 0.5
    )
    out *= np.where(edge > 0.5 - 2.5 * planks / height, np.float32(0.35), np.float32(1.0))
    return np.clip(out, 0.15, 1.8)


def _title(rng: np.random.Generator, n_words: int) -> str:
    return " ".join(str(w) for w in rng.choice(np.asarray(_WORDS), size=n_words))


def paint_shelf(canvas: Canvas) -> Planes:
    """Paint shelves of books: rounded spines with titles from large to barely legible."""
    rng = canvas.rng
    canvas.tone.paste(26, (0, 0, canvas.width, canvas.height))
    board = canvas.add_colours([rgb(120, 84, 56)], 4, spread=0.2)
    spines = canvas.add_colours(_SPINES, 8, spread=0.18, drift=0.06)
    light, dark = canvas.add_colours([rgb(240, 230, 200), rgb(20, 20, 24)])
    n_shelves = int(rng.integers(2, 5))
    pitch = canvas.height / n_shelves
    for shelf in range(n_shelves):
        floor = (shelf + 1) * pitch - pitch * 0.07
        x = float(canvas.px(rng.uniform(0, 60)))
        while x < canvas.width:
            thick = float(canvas.px(rng.uniform(60, 210)))
            if rng.random() < 0.06:
                x += thick * 1.5
                continue
            tall = pitch * rng.uniform(0.62, 0.88)
            colour = int(rng.choice(spines))
            _book(
                canvas,
                x,
                floor - tall,
                thick,
                tall,
                colour,
                light if canvas.palette[colour].mean() < 0.25 else dark,
            )
            x += thick
        canvas.rectangle((0, floor, canvas.width, floor + pitch * 0.07), board[shelf % 4], 120)
        canvas.rectangle((0, floor, canvas.width, floor + max(2, pitch * 0.006)), board[shelf % 4], 165)
    lamp = np.linspace(1.35, 0.55, canvas.width, dtype=np.float32)[None, :]
    surface = 1.0 + 0.07 * fractal(canvas.height, canvas.width, 1.5, rng)
    surface += 0.05 * grain(canvas.height, canvas.width, 0.8, rng, stretch=0.25)
    surface *= lamp if rng.random() < 0.5 else lamp[:, ::-1]
    return set_exposure(canvas.to_linear(surface), float(rng.uniform(0.08, 0.2)))


def _book(canvas: Canvas, x: float, y: float, thick: float, tall: float, colour: int, ink: int) -> None:
    """Draw one spine: rounded by strips of light, two rules, a title along it, a line of small print."""
    rng = canvas.rng
    n = max(4, min(24, int(thick / 4)))
    for k in range(n):
        t = (k + 0.5) / n
        tone = 60 + 84 * np.sin(np.pi * t) ** 0.6 - 24 * t
        canvas.rectangle((x + thick * k / n, y, x + thick * (k + 1) / n + 1, y + tall), colour, int(tone))
    for place in (0.06, 0.9):
        rule = max(1.0, tall * 0.006)
        canvas.rectangle(
            (x + thick * 0.08, y + tall * place, x + thick * 0.92, y + tall * place + rule), ink, 120
        )
    size = min(thick * 0.62, tall / 9.0)
    words = _title(rng, int(rng.integers(1, 3)))[: max(3, int(tall * 0.72 / (size * 0.72)))]
    canvas.text(x + thick * 0.5 - size * 0.36, y + tall * 0.12, words, size, ink, 125, turn=270)
    small = size * 0.33
    if small >= 4.0:
        canvas.text(x + thick * 0.12, y + tall * 0.93, _title(rng, 1)[: int(thick / small)], small, ink, 125)


def paint_fruit(canvas: Canvas) -> Planes:
    """Paint fruit on a wooden table before a room out of focus."""
    rng = canvas.rng
    walls = [rgb(70, 60, 52), rgb(130, 110, 90), rgb(40, 44, 56), rgb(190, 176, 150), rgb(84, 96, 84)]
    rng.shuffle(walls)
    picture = soft_background(
        canvas, walls, blur=float(rng.uniform(60, 160)), n_discs=int(rng.integers(0, 12))
    )
    edge = int(canvas.height * rng.uniform(0.45, 0.62))
    table = wood(canvas.height - edge, canvas.width, rng, planks=int(rng.integers(2, 6)))
    table *= np.linspace(0.75, 1.15, canvas.height - edge, dtype=np.float32)[:, None]
    timber = (rgb(150, 104, 66), rgb(190, 160, 124), rgb(84, 56, 40))[rng.integers(3)]
    picture[:, edge:] = table[None] * timber.reshape(3, 1, 1)
    skins = [rgb(190, 40, 30), rgb(220, 150, 40), rgb(120, 150, 50), rgb(214, 190, 60), rgb(90, 36, 60)]
    front = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    colours = front.add_colours(
        [skins[k] for k in rng.choice(5, size=int(rng.integers(1, 4)), replace=False)], 14, 0.14, 0.1
    )
    largest = float(rng.choice([420.0, 640.0, 900.0]))
    ladder = size_ladder(canvas.px(largest * 0.7), canvas.px(largest), 1.2)
    n = int(np.clip(7.0e6 / largest**2, 5, 30))
    depths = np.sort(rng.uniform(0.0, 1.0, n))
    shadow = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    places = []
    for depth in depths:
        size = int(ladder[min(len(ladder) - 1, int(depth * len(ladder)))])
        x = float(rng.normal(0.5, 0.2) * canvas.width)
        y = edge - size * 0.25 + depth * (canvas.height - edge) * 0.75
        places.append((x, y, size))
        shadow.ellipse(x + size * 0.2, y + size * 0.42, size * 0.62, size * 0.2, 0)
    dark = np.ascontiguousarray(shadow.coverage()[::8, ::8])
    dim = np.float32(1.0) - np.float32(0.75) * gaussian_blur(dark, max(1.0, 8.0 * canvas.scale))
    picture *= np.maximum(enlarge(dim, 8, canvas.height, canvas.width), np.float32(0.1))
    for x, y, size in places:
        front.stamp(sprites("berry", size, 8)[rng.integers(8)], x, y, int(rng.choice(colours)))
    light = np.clip(1.0 + 0.15 * smooth_field(canvas.height, canvas.width, 3.0, rng), 0.5, 1.5)
    over(picture, front.to_linear(light), front.coverage())
    return set_exposure(picture, float(rng.uniform(0.07, 0.2)))


def paint_night(canvas: Canvas) -> Planes:
    """Paint a street at night: discs of light far away, a lit railing or wires in focus, much darkness."""
    rng = canvas.rng
    lamps: list[Colour] = [
        rgb(255, 170, 70),
        rgb(255, 220, 170),
        rgb(110, 160, 255),
        rgb(255, 70, 60),
        rgb(80, 220, 160),
    ]
    dark = [rgb(10, 12, 20), rgb(22, 18, 16), rgb(16, 24, 34)]
    picture = soft_background(canvas, dark, blur=120.0, n_discs=0)
    small = np.zeros((3, -(-canvas.height // 4), -(-canvas.width // 4)), dtype=np.float32)
    radius = float(rng.uniform(20, 110)) * canvas.scale / 4.0
    add_discs(
        small,
        int(rng.integers(25, 110)),
        (radius * 0.7, radius),
        lamps,
        rng,
        strength=float(rng.uniform(0.5, 1.4)),
        top=0.05,
        bottom=0.7,
    )
    picture += enlarge_light(small, 4, canvas.height, canvas.width)
    front = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    iron = front.add_colours([rgb(70, 70, 76), rgb(96, 84, 70)], 6, spread=0.3)
    _railing(front, iron)
    rough = np.clip(0.5 + 0.3 * fractal(canvas.height, canvas.width, 1.8, rng), 0.05, 2.0)
    over(picture, front.to_linear(rough), front.coverage())
    if rng.random() < 0.6:
        x, y = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.1, 0.5) * canvas.height
        add_glow(picture, x, y, 260.0 * canvas.scale, lamps[int(rng.integers(2))] * np.float32(0.8))
    return set_exposure(picture, float(rng.uniform(0.02, 0.07)), 1.2)


def _railing(canvas: Canvas, colours: list[int]) -> None:
    """Draw a railing in focus: posts and bars with an edge of light."""
    rng = canvas.rng
    base = canvas.height * rng.uniform(0.5, 0.75)
    slope = rng.uniform(-0.08, 0.08)
    post = canvas.px(rng.uniform(34, 80))
    gap = canvas.px(rng.uniform(160, 420))
    for x in range(-gap, canvas.width + gap, gap):
        top = base + slope * x
        canvas.rectangle((x, top, x + post, canvas.height), colours[(x // gap) % len(colours)], 80)
        canvas.rectangle((x, top, x + max(2, post // 7), canvas.height), colours[0], 235)
        canvas.ellipse(x + post / 2, top, post * 0.8, post * 0.8, colours[1], 100)
        canvas.ellipse(x + post * 0.3, top - post * 0.25, post * 0.3, post * 0.25, colours[1], 245)
    for k in range(3):
        y = base + post * (1 + 3.5 * k)
        points = [(0.0, y), (float(canvas.width), y + slope * canvas.width)]
        canvas.line(points, post * 0.6, colours[2], 90)
        canvas.line([(px, py - post * 0.22) for px, py in points], max(2.0, post * 0.1), colours[3], 240)
