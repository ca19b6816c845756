"""The canvas that scenes are painted on, and its way into linear light.

A canvas holds two 8-bit layers that Pillow draws into at full size: ``tone`` (how light) and ``hue``
(an index into a palette of materials). Together they give the reflectance of every pixel; smooth light,
mist and glow are multiplied and added afterwards in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from featbank.demo.filters import Plane, strips
from featbank.demo.sprites import Sprite, sprites

Planes = NDArray[np.float32]
"""Linear light, float32 array of shape (3, height, width); 1 is the white of a well exposed picture."""

REFERENCE_WIDTH = 3840
"""Sizes inside scenes are given in pixels of a picture of this width and scaled to the real one."""


def tone_to_linear(tone: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square law of the tone layer: 128 is 1, 64 is a quarter, 255 is about 4."""
    return (tone * np.float32(1.0 / 128.0)) ** 2


_HARD = [0] * 128 + [255] * 128
"""Table that turns soft coverage into hard: palette indices cannot be blended."""

_TONE_TABLE = tone_to_linear(np.arange(256, dtype=np.float32))


def rgb(*values: int) -> NDArray[np.float32]:
    """Turn 8-bit sRGB values into linear light, float32 array of shape (3,) (IEC 61966-2-1)."""
    v = np.array(values, dtype=np.float64) / 255.0
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def mix(first: NDArray[np.float32], second: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return ``(1 - share) * first + share * second`` in linear light."""
    return ((1.0 - share) * first + share * second).astype(np.float32)


class Canvas:
    """One picture in the making.

    Parameters
    ----------
    width, height : int
        Size in pixels.
    rng : numpy.random.Generator
        Source of everything random in the scene.
    is_transparent : bool
        Keep a third layer that tells where something was drawn, to lay this canvas over another picture.
    """

    def __init__(
        self, width: int, height: int, rng: np.random.Generator, *, is_transparent: bool = False
    ) -> None:
        self.width = width
        self.height = height
        self.rng = rng
        self.scale = width / REFERENCE_WIDTH
        self.tone = Image.new("L", (width, height), 128)
        self.hue = Image.new("L", (width, height), 0)
        self.cover = Image.new("L", (width, height), 0) if is_transparent else None
        self.palette = np.full((256, 3), 0.5, dtype=np.float32)
        self._n_colours = 0
        self._tone_pen = ImageDraw.Draw(self.tone)
        self._hue_pen = ImageDraw.Draw(self.hue)
        self._cover_pen = None if self.cover is None else ImageDraw.Draw(self.cover)

    def px(self, size: float) -> int:
        """Scale a length given for 3,840 pixels of width to this canvas, at least one pixel."""
        return max(1, round(size * self.scale))

    def add_colours(
        self, colours: Sequence[NDArray[np.float32]], n: int = 1, spread: float = 0.0, drift: float = 0.0
    ) -> list[int]:
        """Enter colours into the palette, each in ``n`` variants.

        Parameters
        ----------
        colours : sequence of float32 arrays of shape (3,)
            Linear reflectances.
        n : int
            Variants of each.
        spread : float
            Standard deviation of the variants' brightness in natural logarithms.
        drift : float
            The same for single channels: how much the hue wanders.

        Returns
        -------
        list of int
            Palette indices, all variants of the first colour first.

        Raises
        ------
        ValueError
            If the palette's 256 places are used up.
        """
        if self._n_colours + n * len(colours) > 256:
            raise ValueError(
                f"Canvas: the palette has 256 places, got {self._n_colours + n * len(colours)} colours"
            )
        first = self._n_colours
        for colour in colours:
            for _ in range(n):
                factor = np.exp(self.rng.normal(0.0, spread) + self.rng.normal(0.0, drift, 3))
                self.palette[self._n_colours] = np.clip(colour * factor, 0.0, 1.5)
                self._n_colours += 1
        return list(range(first, self._n_colours))

    def polygon(self, points: Sequence[tuple[float, float]], colour: int, tone: int = 128) -> None:
        """Fill a polygon; its edges are hard, the lens softens them."""
        for pen, fill in self._pens(colour, tone):
            pen.polygon(points, fill=fill)

    def rectangle(self, box: tuple[float, float, float, float], colour: int, tone: int = 128) -> None:
        """Fill a rectangle (left, top, right, bottom), at least a pixel each way; none if it has no area."""
        left, top, right, bottom = box
        if right <= left or bottom <= top:
            return
        x, y = round(left), round(top)
        for pen, fill in self._pens(colour, tone):
            pen.rectangle((x, y, max(x, round(right) - 1), max(y, round(bottom) - 1)), fill=fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: int, tone: int = 128) -> None:
        """Fill an ellipse about (x, y)."""
        for pen, fill in self._pens(colour, tone):
            pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def line(self, points: Sequence[tuple[float, float]], width: float, colour: int, tone: int = 128) -> None:
        """Draw a line of the given width in pixels through the points."""
        for pen, fill in self._pens(colour, tone):
            pen.line(points, fill=fill, width=max(1, round(width)), joint="curve")

    def text(
        self, x: float, y: float, words: str, size: float, colour: int, tone: int = 128, *, turn: int = 0
    ) -> None:
        """Write words in Pillow's built-in font with the upper left corner at (x, y).

        Parameters
        ----------
        x, y : float
            Place in pixels.
        words : str
        size : float
            Font size in pixels.
        colour, tone : int
            Palette index and lightness.
        turn : int
            Counter-clockwise turn in degrees, a multiple of 90.
        """
        font = ImageFont.load_default(max(4.0, size))
        left, top, right, bottom = font.getbbox(words)
        stencil = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))), 0)
        ImageDraw.Draw(stencil).text((-left, -top), words, fill=255, font=font)
        if turn:
            stencil = stencil.rotate(turn, expand=True)
        corner = (round(x), round(y))
        self.tone.paste(tone, corner, stencil)
        self.hue.paste(colour, corner, stencil.point(_HARD))
        if self.cover is not None:
            self.cover.paste(255, corner, stencil)

    def _pens(self, colour: int, tone: int) -> list[tuple[ImageDraw.ImageDraw, int]]:
        """Drawing contexts of all layers with the value each is to be filled with."""
        pens = [(self._tone_pen, int(tone)), (self._hue_pen, int(colour))]
        if self._cover_pen is not None:
            pens.append((self._cover_pen, 255))
        return pens

    def stamp(self, sprite: Sprite, x: float, y: float, colour: int) -> None:
        """Put a sprite with its centre at (x, y) in a palette colour over what is there."""
        width, height = sprite.mask.size
        corner = (round(x - width / 2.0), round(y - height / 2.0))
        self.tone.paste(sprite.tone, corner, sprite.mask)
        self.hue.paste(colour, corner, sprite.solid)
        if self.cover is not None:
            self.cover.paste(255, corner, sprite.mask)

    def scatter(
        self,
        kind: str,
        sizes: Sequence[int],
        colours: Sequence[int],
        *,
        cover: float,
        exponent: float = 3.0,
        n_shapes: int = 6,
        region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    ) -> None:
        """Stamp sprites of random sizes at random places: the dead-leaves model.

        Parameters
        ----------
        kind : str
            Kind of :mod:`featbank.demo.sprites`.
        sizes : sequence of int
            Diameters in pixels to choose from.
        colours : sequence of int
            Palette indices to choose from.
        cover : float
            Summed area of the stamps over the region's area.
        exponent : float
            Sizes follow a density of ``size**-exponent``: 3 is the scale-invariant law [1]_.
        n_shapes : int
            Different shapes per size.
        region : tuple of float
            Left, top, right, bottom as shares of the canvas.

        References
        ----------
        .. [1] A. B. Lee, D. Mumford and J. Huang, "Occlusion models for natural images", International
           Journal of Computer Vision 41 (2001) 35.
        """
        ladder = np.asarray(sizes, dtype=np.float64)
        # Even ratios between sizes: the density in log size has one power less.
        weights = ladder ** (1.0 - exponent)
        weights /= weights.sum()
        left, top, right, bottom = region
        area = (right - left) * self.width * (bottom - top) * self.height
        n = int(cover * area / float((weights * ladder**2).sum() * 0.6))
        which = self.rng.choice(len(ladder), size=n, p=weights)
        xs = self.rng.uniform(left * self.width, right * self.width, n)
        ys = self.rng.uniform(top * self.height, bottom * self.height, n)
        hues = self.rng.choice(np.asarray(colours), size=n)
        shapes = self.rng.integers(0, n_shapes, n)
        for k in range(n):
            sprite = sprites(kind, int(sizes[which[k]]), n_shapes)[shapes[k]]
            self.stamp(sprite, xs[k], ys[k], int(hues[k]))

    def coverage(self) -> Plane:
        """Return where something was drawn, float32 array of shape (height, width) in [0, 1].

        Raises
        ------
        ValueError
            If the canvas is not transparent.
        """
        if self.cover is None:
            raise ValueError("Canvas: coverage needs is_transparent=True, got an opaque canvas")
        return np.asarray(self.cover, dtype=np.float32) * np.float32(1.0 / 255.0)

    def to_linear(self, light: Plane | None = None) -> Planes:
        """Multiply palette, tone and light into linear RGB.

        Parameters
        ----------
        light : float32 array of shape (height, width), optional
            Illumination; 1 everywhere by default.

        Returns
        -------
        float32 array of shape (3, height, width)
        """
        tone, hue = np.asarray(self.tone), np.asarray(self.hue)
        out = np.empty((3, self.height, self.width), dtype=np.float32)
        for rows in strips(self.height):
            shade = np.take(_TONE_TABLE, tone[rows])
            if light is not None:
                shade *= light[rows]
            for channel in range(3):
                np.take(
                    np.ascontiguousarray(self.palette[:, channel]),
                    hue[rows],
                    out=out[channel, rows],
                    mode="clip",
                )
                out[channel, rows] *= shade
        return out


def over(below: Planes, above: Planes | NDArray[np.float32], mask: Plane) -> Planes:
    """Blend a picture or one colour over another in place: ``below += mask * (above - below)``."""
    colour = above.reshape(3, 1, 1) if above.ndim == 1 else above
    for rows in strips(below.shape[1]):
        part = below[:, rows]
        top = colour if above.ndim == 1 else colour[:, rows]
        part += mask[rows] * (top - part)
    return below


def luminance(planes: Planes) -> Plane:
    """Relative luminance of linear RGB (ITU-R BT.709), float32 array of shape (height, width)."""
    out = planes[0] * np.float32(0.2126)
    out += planes[1] * np.float32(0.7152)
    out += planes[2] * np.float32(0.0722)
    return out


def set_exposure(planes: Planes, key: float, ceiling: float = 1.1) -> Planes:
    """Expose as a light meter would: the mean luminance comes to ``key``, the brightest percent stays below.

    Parameters
    ----------
    planes : float32 array of shape (3, height, width)
        Changed in place.
    key : float
        Wanted mean luminance: 0.18 is a usual scene, 0.04 a night scene, 0.4 a bright sky.
    ceiling : float
        The 99.5th percentile of luminance is kept at or below this value.

    Returns
    -------
    float32 array of shape (3, height, width)
    """
    sample = luminance(np.ascontiguousarray(planes[:, ::8, ::8]))
    gain = min(key / max(float(sample.mean()), 1e-6), ceiling / max(float(np.percentile(sample, 99.5)), 1e-6))
    planes *= np.float32(gain)
    return planes
