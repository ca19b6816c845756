"""Scenes of the built-in photo set: what stands before the simulated camera.

Each kind of scene is a function from a canvas to linear light; everything random comes from the canvas'
generator. Like the UHD-IQA release, which keeps categories such as sea, mountain and city out of its
training part, four kinds are exclusive: they appear in validation and test alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featbank.demo.canvas import Canvas, Planes
from featbank.demo.scenes.abstract import paint_papercut
from featbank.demo.scenes.facade import paint_facade
from featbank.demo.scenes.landscape import paint_dunes, paint_mountains, paint_sea
from featbank.demo.scenes.piles import paint_pebbles, paint_textile
from featbank.demo.scenes.plants import paint_blossoms, paint_foliage, paint_treetops
from featbank.demo.scenes.rooms import paint_fruit, paint_night, paint_shelf
from featbank.demo.scenes.skyline import paint_skyline


@dataclass(frozen=True)
class SceneKind:
    """One kind of scene.

    Parameters
    ----------
    name : str
        How records name it.
    paint : callable
        From a canvas to linear light, float32 array of shape (3, height, width).
    tags : tuple of str
        Tags for the tag file, the most general last.
    is_exclusive : bool
        Kept out of the training split.
    has_text : bool
        Shows lettering and is never mirrored.
    """

    name: str
    paint: Callable[[Canvas], Planes]
    tags: tuple[str, ...]
    is_exclusive: bool = False
    has_text: bool = False


SCENES: dict[str, SceneKind] = {
    kind.name: kind
    for kind in (
        SceneKind("pebbles", paint_pebbles, ("Pebble", "Rock")),
        SceneKind("textile", paint_textile, ("Woven", "Home Decor")),
        SceneKind("foliage", paint_foliage, ("Leaf", "Plant")),
        SceneKind("blossoms", paint_blossoms, ("Flower", "Plant")),
        SceneKind("treetops", paint_treetops, ("Tree", "Plant")),
        SceneKind("shelf", paint_shelf, ("Book", "Indoors"), has_text=True),
        SceneKind("fruit", paint_fruit, ("Fruit", "Food")),
        SceneKind("night", paint_night, ("Lighting", "Night")),
        SceneKind("facade", paint_facade, ("Building", "Architecture"), has_text=True),
        SceneKind("papercut", paint_papercut, ("Pattern", "Art")),
        SceneKind("sea", paint_sea, ("Sea", "Nature"), is_exclusive=True),
        SceneKind("mountains", paint_mountains, ("Mountain", "Nature"), is_exclusive=True),
        SceneKind("dunes", paint_dunes, ("Sand", "Nature"), is_exclusive=True),
        SceneKind("skyline", paint_skyline, ("City", "Urban"), is_exclusive=True),
    )
}
"""All kinds by name; the last four are exclusive to validation and test."""
