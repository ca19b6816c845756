"""The steps that keep one crop for each image: resizing ones, centred ones, and their common form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from featbank.views.resize import DEFAULT_FILTER, check_output, resize, size_to_hold

Pixels = NDArray[np.uint8]


class Step(ABC):
    """One step of a view: from an image to equally large crops.

    Sizes are decided by `shape` alone, and `cut` follows it, so that the geometry of a view is known without
    pixels. Steps are frozen dataclasses of plain values: equal steps do equal things.
    """

    family: ClassVar[str]
    """The word that begins the step's spelling."""

    @property
    @abstractmethod
    def spelling(self) -> str:
        """The step as `featbank.views.parse_view` reads it, in its one canonical form."""

    @abstractmethod
    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Give the number of crops, and height and width of each, for an image of this size in pixels."""

    @abstractmethod
    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Return the crops of uint8 pixels (height, width, 3); they may share memory with ``pixels``.

        Steps without chance leave ``seed``, a tuple of non-negative integers, aside.
        """

    @abstractmethod
    def enlarges(self, height: int, width: int) -> bool:
        """Tell whether an image of this size is enlarged in the step, in either direction."""

    @property
    def has_fixed_count(self) -> bool:
        """Whether the number of crops is the same for all images."""
        return True

    def describe(self) -> dict[str, object]:
        """Return the family and all parameters as JSON-able values."""
        parameters = asdict(self)  # type: ignore[call-overload]  # subclasses are dataclasses
        return {"step": self.family, **parameters}


@dataclass(frozen=True)
class Resizing(Step):
    """A step that resizes the whole image, with an explicit filter."""

    filter_name: str = DEFAULT_FILTER

    @property
    def suffix(self) -> str:
        """The filter as spelled behind the step; empty for the default."""
        return "" if self.filter_name == DEFAULT_FILTER else f"~{self.filter_name}"

    @abstractmethod
    def target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result."""

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One crop of the target size."""
        target = self.target(height, width)
        check_output(self.spelling, height, width, *target)
        return 1, *target

    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Resize the image."""
        _, height, width = self.shape(*pixels.shape[:2])
        return [resize(pixels, height, width, self.filter_name)]

    def enlarges(self, height: int, width: int) -> bool:
        """Whether a side of the target is longer than the image's."""
        new_height, new_width = self.target(height, width)
        return new_height > height or new_width > width


@dataclass(frozen=True)
class Short(Resizing):
    """Resize so that the shorter side has ``size`` pixels; the longer one is rounded down."""

    family: ClassVar[str] = "short"
    size: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``short_512``."""
        return f"short_{self.size}{self.suffix}"

    def target(self, height: int, width: int) -> tuple[int, int]:
        """As torchvision's Resize of one number: the longer side is truncated."""
        if height <= width:
            return self.size, max(1, self.size * width // height)
        return max(1, self.size * height // width), self.size


@dataclass(frozen=True)
class Width(Resizing):
    """Resize so that the width is ``size`` pixels; the height is rounded to the nearest pixel."""

    family: ClassVar[str] = "width"
    size: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``width_3840``."""
        return f"width_{self.size}{self.suffix}"

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Keep the aspect."""
        return max(1, (2 * height * self.size + width) // (2 * width)), self.size


@dataclass(frozen=True)
class Squash(Resizing):
    """Resize to a fixed width and height, whatever the aspect."""

    family: ClassVar[str] = "squash"
    width: int = 0
    height: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``squash_1907x1231``: width, then height."""
        return f"squash_{self.width}x{self.height}{self.suffix}"

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Give the fixed size."""
        return self.height, self.width


@dataclass(frozen=True)
class Down(Resizing):
    """Scale to 1/``factor`` of both sides, rounded down, at least one pixel."""

    family: ClassVar[str] = "down"
    factor: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``down_2``."""
        return f"down_{self.factor}{self.suffix}"

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Divide both sides."""
        return max(1, height // self.factor), max(1, width // self.factor)


@dataclass(frozen=True)
class Square(Step):
    """Take the largest centred square; its side is the image's shorter one."""

    family: ClassVar[str] = "square"

    @property
    def spelling(self) -> str:
        """Always ``square``."""
        return "square"

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One crop."""
        side = min(height, width)
        return 1, side, side

    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        side = min(pixels.shape[:2])
        return [centered(pixels, side, side)]

    def enlarges(self, height: int, width: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Cropping(Step):
    """A step that cuts crops of a fixed size, from an image enlarged where it is too small for them."""

    @abstractmethod
    def needs(self) -> tuple[int, int]:
        """Least height and width of an image that need not be enlarged."""

    @abstractmethod
    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Cut an image that is large enough."""

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image after it was enlarged where needed."""
        size = size_to_hold(height, width, *self.needs())
        check_output(self.spelling, height, width, *size)
        return size

    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Enlarge by bicubic if needed, then cut."""
        height, width = self.fitted(*pixels.shape[:2])
        return self.cut_fitting(resize(pixels, height, width, DEFAULT_FILTER), seed)

    def enlarges(self, height: int, width: int) -> bool:
        """Whether the crops do not fit."""
        min_height, min_width = self.needs()
        return height < min_height or width < min_width

    def describe(self) -> dict[str, object]:
        """Return the parameters, and how too small images are enlarged."""
        return {**super().describe(), "enlarged_by": DEFAULT_FILTER}


@dataclass(frozen=True)
class Center(Cropping):
    """Cut the centre at native sampling."""

    family: ClassVar[str] = "center"
    width: int = 0
    height: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``center_320`` or ``center_1920x960``: width, then height."""
        return f"center_{spell_size(self.width, self.height)}"

    def needs(self) -> tuple[int, int]:
        """Ask for the crop's own size."""
        return self.height, self.width

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One crop."""
        self.fitted(height, width)
        return 1, self.height, self.width

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        return [centered(pixels, self.height, self.width)]


def centered(pixels: Pixels, height: int, width: int) -> Pixels:
    """Slice the centre; an odd margin is split as torchvision's CenterCrop does, halves to even."""
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def spell_size(width: int, height: int) -> str:
    """Write a size: one number for a square, else width x height."""
    return str(width) if width == height else f"{width}x{height}"
