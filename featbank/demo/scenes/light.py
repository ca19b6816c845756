"""Soft things that scenes share: backgrounds out of focus, discs of light, skies, glow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from featbank.demo.canvas import Canvas, Planes
from featbank.demo.filters import enlarge, gaussian_blur, strips
from featbank.demo.texture import coarse_field, smoothstep

Colour = NDArray[np.float32]


def enlarge_light(small: Planes, factor: int, height: int, width: int) -> Planes:
    """Enlarge smooth planes of shape (3, h, w) by a whole factor; what the filter undershoots is cut at 0."""
    out = np.empty((3, height, width), dtype=np.float32)
    for channel in range(3):
        np.maximum(enlarge(small[channel], factor, height, width), 0.0, out=out[channel])
    return out


def add_discs(
    planes: Planes,
    n: int,
    radii: tuple[float, float],
    colours: Sequence[Colour],
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    top: float = 0.0,
    bottom: float = 1.0,
) -> None:
    """Add translucent discs of light in place: points of light far out of focus.

    Parameters
    ----------
    planes : float32 array of shape (3, height, width)
    n : int
        Number of discs.
    radii : tuple of float
        Smallest and largest radius in pixels of ``planes``.
    colours : sequence of float32 arrays of shape (3,)
    rng : numpy.random.Generator
    strength : float
        Luminance of the brightest disc relative to its colour.
    top, bottom : float
        Shares of the height between which the discs lie.
    """
    _, height, width = planes.shape
    for _ in range(n):
        radius = max(1.5, float(rng.uniform(*radii)))
        x, y = rng.uniform(0, width), rng.uniform(top * height, bottom * height)
        first_row, first_column = max(0, int(y - radius - 2)), max(0, int(x - radius - 2))
        rows = np.arange(first_row, min(height, int(y + radius + 3)), dtype=np.float32)
        columns = np.arange(first_column, min(width, int(x + radius + 3)), dtype=np.float32)
        distance = np.hypot(rows[:, None] - np.float32(y), columns[None, :] - np.float32(x))
        # Slightly brighter rims, as the spherical aberration of fast lenses gives behind the focus.
        disc = np.clip(np.float32(radius) - distance + 0.5, 0.0, 1.0) * (
            0.75 + 0.25 * (distance / radius) ** 2
        )
        colour = np.asarray(
            colours[int(rng.integers(len(colours)))] * strength * rng.uniform(0.15, 1.0), dtype=np.float32
        )
        patch = planes[:, first_row : first_row + len(rows), first_column : first_column + len(columns)]
        patch += colour.reshape(3, 1, 1) * disc.astype(np.float32)


def soft_background(canvas: Canvas, colours: Sequence[Colour], *, blur: float, n_discs: int) -> Planes:
    """Paint what lies far out of focus: patches of colour and discs of light.

    Parameters
    ----------
    canvas : Canvas
        Gives size and randomness; nothing is drawn into it.
    colours : sequence of float32 arrays of shape (3,)
        Linear light of the patches; the first is the ground.
    blur : float
        Standard deviation of the blur in pixels of a picture 3,840 wide; large, since the work is done
        on a grid of every eighth pixel.
    n_discs : int
        Number of discs of light.

    Returns
    -------
    float32 array of shape (3, height, width)
    """
    rng, step = canvas.rng, 8
    height, width = -(-canvas.height // step), -(-canvas.width // step)
    index = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(index)
    table = np.zeros((256, 3), dtype=np.float32)
    table[0] = colours[0]
    for k in range(1, 120):
        table[k] = colours[int(rng.integers(len(colours)))] * np.exp(rng.normal(0.0, 0.5))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        rx, ry = rng.uniform(0.02, 0.2, 2) * width
        pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=k)
    painted = table[np.asarray(index)]
    sigma = max(blur * canvas.scale / step, 0.6)
    small = np.stack([gaussian_blur(np.ascontiguousarray(painted[..., c]), sigma) for c in range(3)])
    add_discs(small, n_discs, (80.0 * canvas.scale / step, 200.0 * canvas.scale / step), colours, rng)
    return enlarge_light(small, step, canvas.height, canvas.width)


def sky(
    canvas: Canvas,
    zenith: Colour,
    horizon: Colour,
    cloud: Colour,
    *,
    rows: int,
    cover: float,
    softness: float = 1.2,
) -> Planes:
    """Paint a sky: a gradient down to the horizon and clouds that flatten towards it.

    Parameters
    ----------
    canvas : Canvas
        Gives width and randomness.
    zenith, horizon, cloud : float32 arrays of shape (3,)
        Linear light at the top, at the horizon, and of a cloud in the sun.
    rows : int
        Height of the sky in pixels.
    cover : float
        Threshold on a field of standard deviation 1: -1 is overcast, 2.5 is clear.
    softness : float
        Width of the clouds' edges in standard deviations.

    Returns
    -------
    float32 array of shape (3, rows, width)
    """
    rng, step = canvas.rng, 4
    height, width = max(8, -(-rows // step)), -(-canvas.width // step)
    field = coarse_field(height * 2, width, 3.2, rng, stretch=2.0, grid=1)[: 2 * height, :width]
    field = (field - field.mean()) / max(float(field.std()), 1e-9)
    # Rows near the horizon look through more sky: the field is read ever faster downwards.
    t = np.linspace(0.0, 1.0, height, dtype=np.float32)
    source = np.minimum((t * 0.55 + t**4 * 0.9) / 1.45 * (2 * height - 2), 2 * height - 2)
    first = source.astype(np.int32)
    share = (source - first)[:, None]
    field = field[first] * (1.0 - share) + field[first + 1] * share
    density = smoothstep(field, cover, cover + softness)
    thick = np.clip(field - np.float32(cover), 0.0, 2.5)
    # Thick parts are dark below: light comes from above.
    lit = 1.0 - 0.28 * thick + 0.5 * (thick - np.roll(thick, -6, axis=0))
    ramp = (t[:, None] ** np.float32(0.8)).reshape(1, height, 1)
    base = zenith.reshape(3, 1, 1) * (1.0 - ramp) + horizon.reshape(3, 1, 1) * ramp
    clouds = cloud.reshape(3, 1, 1) * np.clip(lit, 0.35, 1.3)[None]
    small = base + density[None] * (clouds - base)
    return enlarge_light(np.ascontiguousarray(small, dtype=np.float32), step, rows, canvas.width)


def add_glow(planes: Planes, x: float, y: float, radius: float, colour: Colour) -> None:
    """Add the glow of a sun or lamp at (x, y) in pixels, falling with the distance over ``radius``, in place."""
    _, height, width = planes.shape
    step = 16
    rows = np.arange(-(-height // step), dtype=np.float32)[:, None] * step
    columns = np.arange(-(-width // step), dtype=np.float32)[None, :] * step
    squared = ((rows - np.float32(y)) ** 2 + (columns - np.float32(x)) ** 2) / np.float32(radius**2)
    glow = enlarge(1.0 / (1.0 + squared) ** np.float32(1.5), step, height, width)
    for strip in strips(height):
        for channel in range(3):
            planes[channel, strip] += glow[strip] * np.float32(colour[channel])
