"""Small shaded things that scenes are piled up from: stones, leaves, petals, fruit, crowns of trees.

A sprite is a pair of 8-bit pictures: a mask with soft edges and a tone (128 is the material's own colour,
the square law of :func:`featbank.demo.canvas.tone_to_linear` makes it light). Each kind is rendered in a
ladder of sizes with texture down to single pixels, once per process; scenes stamp them by the thousand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from featbank.demo.filters import Plane
from featbank.demo.texture import grain, smoothstep
from featbank.digest import seed_from

LIGHT = np.array([-0.5, -0.6, 0.62], dtype=np.float32)
"""Direction to the light of all shaded sprites: x to the right, y downwards, z to the viewer."""


@dataclass(frozen=True)
class Sprite:
    """One rendered thing.

    Parameters
    ----------
    mask : PIL.Image.Image
        Mode L: coverage, 0 outside.
    solid : PIL.Image.Image
        Mode 1: the pixels that take the stamp's colour index.
    tone : PIL.Image.Image
        Mode L: shading and texture.
    """

    mask: Image.Image
    solid: Image.Image
    tone: Image.Image


def _finish(coverage: Plane, tone: Plane) -> Sprite:
    """Turn float pictures (coverage in [0, 1], tone around 128) into a sprite."""
    mask = Image.fromarray((np.clip(coverage, 0.0, 1.0) * 255.0).astype(np.uint8))
    solid = Image.fromarray(coverage > 0.5)
    return Sprite(mask, solid, Image.fromarray(np.clip(tone, 2.0, 255.0).astype(np.uint8)))


def _grid(size: int) -> tuple[Plane, Plane]:
    """Pixel centres of a square of ``size`` pixels in units of its half side, (x, y)."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0) * np.float32(1.06)
    return np.broadcast_to(axis[None, :], (size, size)), np.broadcast_to(axis[:, None], (size, size))


def _outline(theta: Plane, rng: np.random.Generator, roughness: float, n_harmonics: int = 6) -> Plane:
    """Draw a closed random outline: radius in [0.5, 1] as a function of the angle."""
    radius = np.ones_like(theta)
    for k in range(2, 2 + n_harmonics):
        radius += np.float32(roughness * rng.normal() / k**1.3) * np.cos(
            k * theta + np.float32(rng.uniform(0, 7))
        )
    return np.clip(radius / np.float32(1.0 + 1.2 * roughness), 0.45, 1.0)


def _lambert(nx: Plane, ny: Plane, nz: Plane) -> Plane:
    """Diffuse shading in [0, 1] for unnormalised normals."""
    norm = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-6)
    return np.clip((nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2]) / norm, 0.0, 1.0)


def stone(size: int, rng: np.random.Generator) -> Sprite:
    """Render a weathered stone or grain: irregular outline, rounded relief, speckled surface."""
    x, y = _grid(size)
    squeeze = np.float32(rng.uniform(0.62, 1.0))
    angle = np.float32(rng.uniform(0.0, np.pi))
    u = x * np.cos(angle) + y * np.sin(angle)
    v = (y * np.cos(angle) - x * np.sin(angle)) / squeeze
    r = np.hypot(u, v)
    rho = _outline(np.arctan2(v, u), rng, 0.16)
    q = r / rho
    coverage = np.clip((rho - r) * np.float32(size / 2.1) * squeeze + 0.5, 0.0, 1.0)
    height = np.sqrt(np.maximum(1.0 - q**3, 0.0))
    rough = grain(size, size, 2.2, rng)
    relief = rng.uniform(1.6, 3.2)
    bump = 0.16 * rough
    gy, gx = np.gradient(height * np.float32(size / 2.0 / relief) + bump)
    shade = _lambert(-gx.astype(np.float32), -gy.astype(np.float32), np.ones_like(x))
    speckle = grain(size, size, 1.0, rng)
    tone = 46.0 + 105.0 * shade + 9.0 * rough + 6.0 * speckle * smoothstep(speckle, 0.6, 1.6)
    tone *= 1.0 - 0.55 * smoothstep(q, 0.72, 1.04)
    return _finish(coverage, tone)


def leaf(size: int, rng: np.random.Generator) -> Sprite:
    """Render a leaf blade: pointed oval, midrib, side veins, two halves that catch the light differently."""
    x, y = _grid(size)
    angle = np.float32(rng.uniform(0.0, 2.0 * np.pi))
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    bend = np.float32(rng.uniform(-0.25, 0.25))
    v = v - bend * (u * u - 0.4)
    t = np.clip((u + 1.0) / 2.0, 0.0, 1.0)
    wide = np.float32(rng.uniform(0.28, 0.5))
    skew = rng.uniform(0.55, 0.95)
    half = wide * np.maximum(np.sin(np.pi * t**skew), 0.0) ** np.float32(0.85)
    teeth = 1.0 + 0.05 * np.sin(t * np.float32(rng.integers(30, 60)))
    edge = half * teeth - np.abs(v)
    coverage = np.clip(edge * np.float32(size / 2.1) + 0.5, 0.0, 1.0) * ((u > -1.0) & (u < 1.0))
    rib = np.exp(-0.5 * (v / np.float32(0.03)) ** 2)
    vein_phase = (t - 0.75 * np.abs(v) / (half + np.float32(0.05))) * np.float32(rng.integers(9, 15))
    vein = np.exp(-0.5 * ((vein_phase - np.round(vein_phase)) / np.float32(0.07)) ** 2)
    side = np.where(v > 0, np.float32(rng.uniform(8, 34)), np.float32(-6.0))
    pillow = 16.0 * np.cos(2.0 * np.pi * vein_phase)
    tone = (
        112.0 + side - 30.0 * np.abs(v) / (half + np.float32(0.05)) + pillow * 0.5 + 22.0 * rib + 13.0 * vein
    )
    tone += 7.0 * grain(size, size, 1.6, rng) + 14.0 * u * np.float32(rng.uniform(-1, 1))
    return _finish(coverage, tone)


def blossom(size: int, rng: np.random.Generator) -> Sprite:
    """Render a flower seen from above: five to eight petals with fine streaks, darker towards the heart."""
    x, y = _grid(size)
    tilt = np.float32(rng.uniform(0.7, 1.0))
    y = y / tilt
    r, theta = np.hypot(x, y), np.arctan2(y, x)
    n = int(rng.integers(5, 9))
    theta = theta * n + np.float32(rng.uniform(0, 7))
    lobe = np.abs(np.cos(theta / 2.0))
    rho = 0.42 + 0.58 * lobe ** np.float32(rng.uniform(0.35, 0.6))
    coverage = np.clip((rho - r) * np.float32(size / 2.1) * tilt + 0.5, 0.0, 1.0) * (r < 1.0)
    streak = np.sin(theta * np.float32(rng.integers(5, 9)) + 3.0 * r)
    tone = 100.0 + 42.0 * r / rho + 12.0 * streak * r - 40.0 * smoothstep(lobe, 0.28, 0.0) * r
    tone += 6.0 * grain(size, size, 1.8, rng) - 52.0 * smoothstep(r, 0.26, 0.12)
    return _finish(coverage, tone)


def berry(size: int, rng: np.random.Generator) -> Sprite:
    """Render a smooth fruit: a shaded ball with pores, a soft highlight and light from the table below."""
    x, y = _grid(size)
    squeeze = np.float32(rng.uniform(0.86, 1.0))
    r = np.hypot(x, y / squeeze)
    rho = _outline(np.arctan2(y, x), rng, 0.03, 3)
    coverage = np.clip((rho - r) * np.float32(size / 2.1) + 0.5, 0.0, 1.0)
    nz = np.sqrt(np.maximum(1.0 - (r / rho) ** 2, 0.0)) + np.float32(0.02)
    pores = grain(size, size, 1.2, rng)
    shade = _lambert(x + 0.012 * pores, y / squeeze, nz)
    bounce = 0.16 * np.clip(y, 0.0, 1.0) * (1.0 - nz)
    highlight = np.clip(shade, 0.0, 1.0) ** np.float32(rng.uniform(30, 90))
    tone = 30.0 + 115.0 * np.sqrt(shade * 0.9 + bounce) + 95.0 * highlight
    tone += 3.2 * pores + 5.0 * grain(size, size, 2.4, rng)
    return _finish(coverage, tone)


def crown(size: int, rng: np.random.Generator) -> Sprite:
    """Render the crown of a distant tree or shrub: a lumpy outline filled with lit clumps of leaves."""
    x, y = _grid(size)
    r = np.hypot(x, y)
    ragged = grain(size, size, 2.0, rng)
    rho = _outline(np.arctan2(y, x), rng, 0.2, 9) + 0.05 * ragged
    coverage = np.clip((rho - r) * np.float32(min(size / 4.0, 30.0)) + 0.5, 0.0, 1.0)
    clumps = grain(size, size, 1.5, rng)
    shade = _lambert(
        x * 0.8 + 0.35 * clumps,
        y * 0.8 + 0.35 * ragged,
        np.sqrt(np.maximum(1.0 - r * r, 0.0)) + np.float32(0.25),
    )
    return _finish(coverage, 40.0 + 95.0 * shade + 15.0 * clumps)


_MAKERS = {"stone": stone, "leaf": leaf, "blossom": blossom, "berry": berry, "crown": crown}


@lru_cache(maxsize=512)
def sprites(kind: str, size: int, n: int) -> tuple[Sprite, ...]:
    """Return ``n`` sprites of one kind and size in pixels, the same in every process."""
    rng = np.random.default_rng(seed_from("sprite", kind, str(size)))
    return tuple(_MAKERS[kind](size, rng) for _ in range(n))


def size_ladder(smallest: float, largest: float, step: float = 1.4) -> list[int]:
    """Return sizes in pixels from ``smallest`` to ``largest`` in even ratios, each at least 6, none twice."""
    n = max(1, round(np.log(max(largest / smallest, 1.0)) / np.log(step)))
    return sorted({max(6, round(float(v))) for v in np.geomspace(smallest, largest, n + 1)})
