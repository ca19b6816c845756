"""The description of a view: steps in order, and whether each crop comes with a half-scale companion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featbank.errors import ViewError
from featbank.views.fast_resize import FAST_FILTER
from featbank.views.resize import (
    DEFAULT_FILTER,
    FILTER_NAMES,
    MAX_OUTPUT_PIXELS,
    half_size,
    halve,
    probe_filter,
)
from featbank.views.sharing import Beginning, SharedBeginnings, leading
from featbank.views.steps import Pixels, Resizing, Squash, Step

PAIRS = ("", "half", "halfimage")
"""No companion; the half of every crop; the crop at the same place of the halved image."""

MAX_CROPS = 100_000
"""Most crops a view may give; one-pixel tiles of a 4K photo would be eight million."""

EPOCH = 1
"""Raised by hand when a change of code changes the pixels of any view."""


@dataclass(frozen=True)
class View:
    """A deterministic function of an image giving one or more crops, at one scale or two.

    Parameters
    ----------
    steps : tuple of Step
        Applied in order; a step after one that gave several crops applies to each of them. Empty for the
        image as it is.
    pair : {"", "half", "halfimage"}
        ``half`` adds the half-scale of every crop, as CONTRIQUE, Re-IQA and ICL use; ``halfimage`` adds the
        same view of the halved image, so that a crop sees twice the field, as ARNIQA uses.

    Raises
    ------
    ViewError
        If ``pair`` is unknown, or is ``halfimage`` where the number of crops follows the image's size: then
        crops and companions would not belong together.

    References
    ----------
    .. [1] L. Agnolucci et al., "ARNIQA: Learning Distortion Manifold for Image Quality Assessment", WACV 2024.
    """

    steps: tuple[Step, ...]
    pair: str = ""

    def __post_init__(self) -> None:
        if self.pair not in PAIRS:
            raise ViewError(f"View: pair must be one of {', '.join(map(repr, PAIRS))}, got {self.pair!r}.")
        varying = [step.spelling for step in self.steps if not step.has_fixed_count]
        if self.pair == "halfimage" and varying:
            raise ViewError(
                f"View: '+halfimage' needs a fixed number of crops, but {varying[0]!r} gives more for larger images, "
                f"so the halved image has fewer. Use '+half', or a fixed grid such as 'tiles_3x3'."
            )

    @property
    def name(self) -> str:
        """The canonical spelling, such as ``short_512/center_480`` or ``center_320+half``."""
        words: list[str] = []
        for step in self.steps:
            if words and words[-1] == "square" and isinstance(step, Squash) and step.width == step.height:
                words[-1] = f"square_{step.width}{step.suffix}"
            else:
                words.append(step.spelling)
        return ("/".join(words) or "native") + (f"+{self.pair}" if self.pair else "")

    def scales(
        self, pixels: NDArray[np.uint8], seed: int, shared: SharedBeginnings | None = None
    ) -> tuple[NDArray[np.uint8], ...]:
        """Take the view from an image.

        Parameters
        ----------
        pixels : uint8 array of shape (height, width, 3)
            The image; left unchanged.
        seed : int
            Not negative; decides mosaics and fragments, and nothing else. Equal seeds give equal crops, on
            every machine and in every version of numpy.
        shared : SharedBeginnings, optional
            Of this image alone: what other views of it have in common with this one. The crops are the same.

        Returns
        -------
        tuple of uint8 array of shape (n_crops, crop_height, crop_width, 3)
            C-contiguous; one array, or two with the half-scale last, of equal ``n_crops``. The first may
            share memory with ``pixels`` where the view is the image itself.

        Raises
        ------
        ViewError
            If ``pixels`` or ``seed`` is of another kind, or the image would have to be enlarged beyond
            reason (a strip of few pixels), or gives too many crops.
        """
        _check_pixels(pixels)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ViewError(f"View.scales: seed must be an integer not below 0, got {seed!r}.")
        self.geometry(*pixels.shape[:2])  # refuses what would need too much memory before it does
        shared = shared or SharedBeginnings([])
        first = self._crops(pixels, int(seed), shared, is_halved=False)
        if self.pair == "half":
            return _stack(first), _stack([halve(crop) for crop in first])
        if self.pair == "halfimage":
            halved = shared.take((True, ()), lambda: halve(pixels))
            return _stack(first), _stack(self._crops(halved, int(seed), shared, is_halved=True))
        return (_stack(first),)

    def beginnings(self) -> set[Beginning]:
        """Return what the view makes of the whole image before it cuts crops, for `SharedBeginnings`."""
        count = leading(self.steps)
        found: set[Beginning] = {(False, self.steps[:end]) for end in range(1, count + 1)}
        if self.pair == "halfimage":
            found |= {(True, self.steps[:end]) for end in range(count + 1)}
        return found

    def geometry(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Give the shapes that `scales` yields, without pixels.

        Parameters
        ----------
        height, width : int
            Size of the image in pixels, at least 1.

        Returns
        -------
        tuple of (n_crops, crop_height, crop_width)
            One for each scale.

        Raises
        ------
        ViewError
            As `scales`.
        """
        first = self._walk(height, width)[-1]
        if self.pair == "half":
            return first, (first[0], *half_size(*first[1:]))
        if self.pair == "halfimage":
            return first, self._walk(*half_size(height, width))[-1]
        return (first,)

    def notes(self, height: int, width: int) -> tuple[str, ...]:
        """Tell what an encoder's user should know about this view of an image of this size.

        Parameters
        ----------
        height, width : int
            Size of the image in pixels, at least 1.

        Returns
        -------
        tuple of str
            ``("upscaled",)`` where pixels are made up: a crop does not fit, or a resize enlarges; else empty.
        """
        sizes = [(height, width)] + ([half_size(height, width)] if self.pair == "halfimage" else [])
        for size in sizes:
            shapes = self._walk(*size)
            if any(step.enlarges(*shape[1:]) for step, shape in zip(self.steps, shapes[:-1], strict=True)):
                return ("upscaled",)
        return ()

    def identity(self) -> dict[str, object]:
        """Return everything that can change a pixel of this view, as JSON-able values.

        Returns
        -------
        dict
            Steps with their parameters and filters, the pairing, the implementation of resizing with a digest
            of what its filters do, and the code's epoch.
        """
        used = {step.filter_name for step in self.steps if isinstance(step, Resizing)} | {DEFAULT_FILTER}
        return {
            "steps": [step.describe() for step in self.steps],
            "pair": self.pair,
            "pair_filter": DEFAULT_FILTER if self.pair else "",
            "resize": {
                "implementation": "pillow-uint8" + (", torch-uint8" if FAST_FILTER in used else ""),
                "probes": {name: probe_filter(name) for name in FILTER_NAMES if name in used},
            },
            "epoch": EPOCH,
        }

    def _walk(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """Give the shape before the first step and after each."""
        if height < 1 or width < 1:
            raise ViewError(f"View: height and width must be at least 1 pixel, got {height} and {width}.")
        shapes = [(1, height, width)]
        for step in self.steps:
            n_crops, crop_height, crop_width = shapes[-1]
            n_parts, part_height, part_width = step.shape(crop_height, crop_width)
            n_crops *= n_parts
            if n_crops > MAX_CROPS or n_crops * part_height * part_width > MAX_OUTPUT_PIXELS:
                raise ViewError(
                    f"View: {self.name!r} must give at most {MAX_CROPS} crops and {MAX_OUTPUT_PIXELS} pixels, "
                    f"but gives {n_crops} crops of {part_width} x {part_height} on an image of {width} x {height}. "
                    f"Resize first, for example 'short_512/...', or take fewer or larger crops."
                )
            shapes.append((n_crops, part_height, part_width))
        return shapes

    def _crops(self, pixels: Pixels, seed: int, shared: SharedBeginnings, *, is_halved: bool) -> list[Pixels]:
        count = leading(self.steps)
        for end in range(1, count + 1):
            # Called at once, before the loop moves its variables on.
            pixels = shared.take(
                (is_halved, self.steps[:end]),
                lambda: self.steps[end - 1].cut(pixels, ())[0],  # noqa: B023
            )
        crops = [pixels]
        for i, step in enumerate(self.steps[count:], count):
            # Each step and each crop has random numbers of its own.
            crops = [part for j, crop in enumerate(crops) for part in step.cut(crop, (seed, i, j))]
        return crops


def _check_pixels(pixels: object) -> None:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        got = (
            f"{type(pixels).__name__} of {pixels.dtype}"
            if isinstance(pixels, np.ndarray)
            else type(pixels).__name__
        )
        raise ViewError(
            f"View.scales: pixels must be a uint8 array, got {got}. Scale to 0..255 and convert first."
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ViewError(
            f"View.scales: pixels must have shape (height, width, 3) with at least one pixel, got {pixels.shape}."
        )


def _stack(crops: list[Pixels]) -> NDArray[np.uint8]:
    """Join crops; a single contiguous one is not copied."""
    return np.ascontiguousarray(crops[0])[None] if len(crops) == 1 else np.stack(crops)
