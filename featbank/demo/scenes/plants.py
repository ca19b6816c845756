"""Scenes of plants: foliage that fills the frame, blossoms before a soft background, trees against the sky."""

from __future__ import annotations

import numpy as np

from featbank.demo.canvas import Canvas, Planes, mix, over, rgb, set_exposure
from featbank.demo.scenes.light import add_glow, sky, soft_background
from featbank.demo.sprites import size_ladder, sprites
from featbank.demo.texture import grain, smooth_field, smoothstep

_GREENS = (
    (rgb(70, 110, 40), rgb(110, 140, 50), rgb(40, 84, 44)),
    (rgb(60, 90, 60), rgb(96, 120, 90), rgb(130, 150, 80)),
    (rgb(170, 90, 30), rgb(190, 140, 50), rgb(130, 50, 30)),
    (rgb(90, 130, 30), rgb(150, 170, 60), rgb(60, 100, 40)),
)
_PETALS = (
    rgb(236, 232, 238),
    rgb(214, 60, 90),
    rgb(240, 190, 40),
    rgb(120, 110, 220),
    rgb(226, 140, 170),
    rgb(90, 140, 226),
)


def paint_foliage(canvas: Canvas) -> Planes:
    """Paint leaves upon leaves: dark ones behind, lit ones in front, dappled light over all."""
    rng = canvas.rng
    greens = _GREENS[rng.integers(len(_GREENS))]
    canvas.tone.paste(24, (0, 0, canvas.width, canvas.height))
    largest = float(rng.choice([180.0, 320.0, 560.0]))
    for depth, (darkness, cover) in enumerate(((0.16, 2.4), (0.45, 1.6), (1.0, 1.1))):
        layer = [mix(rgb(10, 18, 12), colour, darkness) for colour in greens]
        colours = canvas.add_colours(layer, 24, spread=0.25, drift=0.07)
        top = largest * (0.5 + 0.25 * depth)
        ladder = size_ladder(canvas.px(top / 4.0), canvas.px(top))
        canvas.scatter("leaf", ladder, colours, cover=cover, exponent=2.4, n_shapes=12)
    dapple = smooth_field(canvas.height, canvas.width, 2.2, rng)
    light = 0.42 + 0.9 * smoothstep(dapple, -0.6, 1.4)
    return set_exposure(canvas.to_linear(light), float(rng.uniform(0.08, 0.2)))


def paint_blossoms(canvas: Canvas) -> Planes:
    """Paint flowers in focus on thin stems before a background far out of focus."""
    rng = canvas.rng
    greens = _GREENS[rng.integers(len(_GREENS))]
    petal = _PETALS[rng.integers(len(_PETALS))]
    dim = float(rng.choice([0.12, 0.4, 0.9]))
    behind = [mix(rgb(8, 12, 10), c, dim) for c in greens] + [mix(rgb(20, 20, 20), petal, 0.5 * dim)]
    picture = soft_background(
        canvas, behind, blur=float(rng.uniform(50, 130)), n_discs=int(rng.integers(0, 26))
    )
    subject = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    stems = subject.add_colours(greens, 6, spread=0.2)
    petals = subject.add_colours([petal], 30, spread=0.12, drift=0.05)
    hearts = subject.add_colours([rgb(230, 190, 40), rgb(90, 60, 20)], 6, spread=0.15)
    size = float(rng.choice([220.0, 380.0, 640.0]))
    n = int(np.clip(1.6e6 / size**2, 3, 26))
    heads = size_ladder(canvas.px(size * 0.7), canvas.px(size), 1.2)
    for x, y in zip(rng.normal(0.5, 0.2, n), np.sort(rng.normal(0.42, 0.16, n)), strict=True):
        at_x, at_y = float(x) * canvas.width, float(y) * canvas.height
        _stem(subject, at_x, at_y, int(rng.choice(stems)))
        for place in range(int(rng.integers(1, 5))):
            dx, dy = rng.normal(0.0, 0.6 * size * canvas.scale, 2) if place else (0.0, 0.0)
            head = int(rng.choice(heads))
            subject.stamp(
                sprites("blossom", head, 10)[rng.integers(10)], at_x + dx, at_y + dy, int(rng.choice(petals))
            )
            heart = sprites("crown", max(3, round(head * 0.24)), 4)[rng.integers(4)]
            subject.stamp(heart, at_x + dx, at_y + dy, int(rng.choice(hearts)))
    light = np.clip(1.0 + 0.2 * smooth_field(canvas.height, canvas.width, 3.0, rng), 0.4, 1.6)
    front = subject.to_linear(light * np.float32(0.35 + 0.65 * dim))
    return set_exposure(over(picture, front, subject.coverage()), float(rng.uniform(0.06, 0.2)))


def _stem(canvas: Canvas, x: float, y: float, colour: int) -> None:
    """Draw a bent stem from a flower down to the lower edge, with two leaves on it."""
    rng = canvas.rng
    lean = rng.uniform(-0.12, 0.12) * canvas.width
    t = np.linspace(0.0, 1.0, 24)
    points = [
        (float(px), float(py))
        for px, py in zip(x + lean * t**2, y + (canvas.height * 1.05 - y) * t, strict=True)
    ]
    thick = canvas.px(rng.uniform(12, 26))
    canvas.line(points, thick, colour, 84)
    canvas.line([(px - thick / 4.0, py) for px, py in points], thick / 3.0, colour, 150)
    for place in (7, 14):
        sprite = sprites("leaf", canvas.px(300), 12)[rng.integers(12)]
        canvas.stamp(sprite, points[place][0] + rng.normal(0, 80.0 * canvas.scale), points[place][1], colour)


def paint_treetops(canvas: Canvas) -> Planes:
    """Paint bare or leafy branches against a sky: thin dark lines over smooth light."""
    rng = canvas.rng
    mood = int(rng.integers(3))
    zenith = (rgb(70, 120, 190), rgb(150, 170, 190), rgb(60, 80, 130))[mood]
    horizon = (rgb(190, 214, 236), rgb(214, 218, 220), rgb(240, 180, 130))[mood]
    cloud = (rgb(250, 250, 250), rgb(236, 236, 238), rgb(250, 200, 170))[mood]
    picture = sky(canvas, zenith, horizon, cloud, rows=canvas.height, cover=float(rng.uniform(-0.5, 1.8)))
    if mood == 2:
        sun = (rng.uniform(0.2, 0.8) * canvas.width, rng.uniform(0.6, 0.95) * canvas.height)
        add_glow(picture, sun[0], sun[1], 700.0 * canvas.scale, rgb(255, 200, 120))
    tree = Canvas(canvas.width, canvas.height, rng, is_transparent=True)
    barks = tree.add_colours([rgb(60, 48, 40), rgb(40, 36, 34)], 8, spread=0.25)
    leaves = tree.add_colours(_GREENS[rng.integers(len(_GREENS))], 20, spread=0.3, drift=0.06)
    is_leafy = bool(rng.random() < 0.6)
    ends: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(2, 5))):
        x = rng.uniform(-0.05, 1.05) * canvas.width
        trunk = canvas.px(rng.uniform(50, 150))
        _branch(tree, x, canvas.height * 1.04, -np.pi / 2 + rng.normal(0, 0.15), trunk, barks, ends)
    if is_leafy:
        ladder = size_ladder(canvas.px(40), canvas.px(110))
        for x, y in ends:
            for _ in range(3):
                sprite = sprites("leaf", int(rng.choice(ladder)), 12)[rng.integers(12)]
                dx, dy = rng.normal(0, 45.0 * canvas.scale, 2)
                tree.stamp(sprite, x + dx, y + dy, int(rng.choice(leaves)))
    rough = 1.0 + 0.13 * grain(canvas.height, canvas.width, 1.6, rng, stretch=0.3)
    front = tree.to_linear(rough * np.float32((0.75, 0.6, 0.22)[mood]))
    return set_exposure(over(picture, front, tree.coverage()), float(rng.uniform(0.24, 0.42)))


def _branch(
    canvas: Canvas,
    x: float,
    y: float,
    angle: float,
    thick: float,
    colours: list[int],
    ends: list[tuple[float, float]],
) -> None:
    """Grow a branch and its twigs; thickness follows Leonardo's rule (areas add up), tips are collected."""
    rng = canvas.rng
    colour = int(rng.choice(colours))
    thinnest = max(1.0, 4.0 * canvas.scale)
    while thick > thinnest:
        length = thick * rng.uniform(3.0, 6.0) + 20.0 * canvas.scale
        angle += rng.normal(0.0, 0.16)
        to_x, to_y = x + np.cos(angle) * length, y + np.sin(angle) * length
        canvas.line([(x, y), (to_x, to_y)], thick, colour, 70)
        canvas.ellipse(to_x, to_y, thick / 2.0, thick / 2.0, colour, 70)
        # Rounded by strips that grow lighter towards the side of the light.
        for offset, share, tone in ((0.08, 0.72, 92), (0.16, 0.46, 118), (0.22, 0.22, 142)):
            if thick * share >= 2.0:
                canvas.line(
                    [(x - thick * offset, y), (to_x - thick * offset, to_y)], thick * share, colour, tone
                )
        x, y = to_x, to_y
        share = rng.uniform(0.15, 0.5)
        side = float(rng.choice([-1.0, 1.0]))
        _branch(canvas, x, y, angle + side * rng.uniform(0.4, 1.0), thick * share**0.5 * 0.95, colours, ends)
        thick *= (1.0 - share) ** 0.5
        # Branches turn towards the light.
        angle += 0.12 * (-np.pi / 2 - angle)
    ends.append((x, y))
