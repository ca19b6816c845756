"""The steps of a view: resize, crop, and the grids that cut an image into several crops."""

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

    form: ClassVar[str]
    """The step's spelling, with the names of its parameters in braces."""

    @property
    def spelling(self) -> str:
        """The step as `featbank.views.parse_view` reads it, in its one canonical form."""
        return self.form.format(**vars(self))

    @abstractmethod
    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Give the number of crops, and height and width of each, for an image of this size in pixels."""

    @abstractmethod
    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Return the crops of uint8 pixels (height, width, 3); they may share memory with ``pixels``.

        Steps without chance leave ``seed``, a tuple of non-negative integers, aside.
        """

    def enlarges(self, height: int, width: int) -> bool:
        """Tell whether an image of this size is enlarged in the step, in either direction."""
        return False

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
    def spelling(self) -> str:
        """The step, and its filter where that is not the default."""
        return super().spelling + self.suffix

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
    form: ClassVar[str] = "short_{size}"
    size: int = 0

    def target(self, height: int, width: int) -> tuple[int, int]:
        """As torchvision's Resize of one number: the longer side is truncated."""
        if height <= width:
            return self.size, max(1, self.size * width // height)
        return max(1, self.size * height // width), self.size


@dataclass(frozen=True)
class Width(Resizing):
    """Resize so that the width is ``size`` pixels; the height is rounded to the nearest pixel."""

    family: ClassVar[str] = "width"
    form: ClassVar[str] = "width_{size}"
    size: int = 0

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Keep the aspect."""
        return max(1, (2 * height * self.size + width) // (2 * width)), self.size


@dataclass(frozen=True)
class Squash(Resizing):
    """Resize to a fixed width and height, whatever the aspect."""

    family: ClassVar[str] = "squash"
    form: ClassVar[str] = "squash_{width}x{height}"
    width: int = 0
    height: int = 0

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Give the fixed size."""
        return self.height, self.width


@dataclass(frozen=True)
class Down(Resizing):
    """Scale to 1/``factor`` of both sides, rounded down, at least one pixel."""

    family: ClassVar[str] = "down"
    form: ClassVar[str] = "down_{factor}"
    factor: int = 0

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Divide both sides."""
        return max(1, height // self.factor), max(1, width // self.factor)


@dataclass(frozen=True)
class Square(Step):
    """Take the largest centred square; its side is the image's shorter one."""

    family: ClassVar[str] = "square"
    form: ClassVar[str] = "square"

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One crop."""
        side = min(height, width)
        return 1, side, side

    def cut(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        side = min(pixels.shape[:2])
        return [centered(pixels, side, side)]


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


@dataclass(frozen=True)
class Tiles(Cropping):
    """Cut the image into tiles of a fixed size, row by row from the top left; partial tiles are dropped."""

    family: ClassVar[str] = "tiles"
    form: ClassVar[str] = "tiles_{size}"
    size: int = 0

    @property
    def has_fixed_count(self) -> bool:
        """It grows with the image."""
        return False

    def needs(self) -> tuple[int, int]:
        """One tile."""
        return self.size, self.size

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """As many tiles as fit."""
        height, width = self.fitted(height, width)
        return (height // self.size) * (width // self.size), self.size, self.size

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        rows, columns = pixels.shape[0] // self.size, pixels.shape[1] // self.size
        return _grid(pixels, rows, columns, self.size, self.size)


@dataclass(frozen=True)
class Regions(Cropping):
    """Cut the image into ``columns`` x ``rows`` equal regions, row by row; remaining pixels are dropped."""

    family: ClassVar[str] = "tiles"
    form: ClassVar[str] = "tiles_{columns}x{rows}"
    columns: int = 0
    rows: int = 0

    def needs(self) -> tuple[int, int]:
        """One pixel for each region."""
        return self.rows, self.columns

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Give a fixed number of regions, as large as the image allows."""
        height, width = self.fitted(height, width)
        return self.rows * self.columns, height // self.rows, width // self.columns

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        height, width = pixels.shape[0] // self.rows, pixels.shape[1] // self.columns
        return _grid(pixels, self.rows, self.columns, height, width)


@dataclass(frozen=True)
class Five(Cropping):
    """Cut the centre and the four corners: centre, top left, top right, bottom left, bottom right."""

    family: ClassVar[str] = "five"
    width: int = 0
    height: int = 0

    @property
    def spelling(self) -> str:
        """Such as ``five_224``."""
        return f"five_{spell_size(self.width, self.height)}"

    def needs(self) -> tuple[int, int]:
        """One crop; the five may overlap."""
        return self.height, self.width

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Five crops."""
        self.fitted(height, width)
        return 5, self.height, self.width

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Slice."""
        bottom, right = pixels.shape[0] - self.height, pixels.shape[1] - self.width
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        crops = [pixels[y : y + self.height, x : x + self.width] for y, x in corners]
        return [centered(pixels, self.height, self.width), *crops]


@dataclass(frozen=True)
class Mosaic(Cropping):
    """Cut into ``columns`` x ``rows`` equal regions, shuffle them by the seed, stitch them together again.

    References
    ----------
    .. [1] AIM 2024 Challenge on UHD Blind Photo Quality Assessment, 2024, section 2.7 (CLIP-IQA*).
    """

    family: ClassVar[str] = "mosaic"
    form: ClassVar[str] = "mosaic_{columns}x{rows}"
    columns: int = 0
    rows: int = 0

    def needs(self) -> tuple[int, int]:
        """One pixel for each region."""
        return self.rows, self.columns

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One crop, without the pixels that remain over."""
        height, width = self.fitted(height, width)
        return 1, height // self.rows * self.rows, width // self.columns * self.columns

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Shuffle and stitch."""
        height, width = pixels.shape[0] // self.rows, pixels.shape[1] // self.columns
        regions = _grid(pixels, self.rows, self.columns, height, width)
        # Sorting random numbers gives every order with equal chance.
        order = np.argsort(_draw(seed, len(regions)), kind="stable")
        return [_stitch([regions[i] for i in order], self.rows, self.columns)]


@dataclass(frozen=True)
class Fragments(Cropping):
    """Cut the image into ``grid`` x ``grid`` equal cells, take one window of each by chance, stitch them.

    Every window that lies inside its cell has the same chance; sampling stays native. Several draws give
    several crops.

    References
    ----------
    .. [1] H. Wu et al., "FAST-VQA: Efficient End-to-end Video Quality Assessment with Fragment Sampling", ECCV
       2022, section 3.1 (grid mini-patch sampling).
    """

    family: ClassVar[str] = "fragments"
    grid: int = 0
    window: int = 0
    draws: int = 1

    @property
    def spelling(self) -> str:
        """Such as ``fragments_15x32``, or ``fragments_15x32x10`` for ten draws."""
        return f"fragments_{self.grid}x{self.window}" + (f"x{self.draws}" if self.draws > 1 else "")

    def needs(self) -> tuple[int, int]:
        """Ask for a window in each cell."""
        return self.grid * self.window, self.grid * self.window

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One square crop for each draw."""
        self.fitted(height, width)
        return self.draws, self.grid * self.window, self.grid * self.window

    def cut_fitting(self, pixels: Pixels, seed: tuple[int, ...]) -> list[Pixels]:
        """Draw and stitch."""
        cell_height, cell_width = pixels.shape[0] // self.grid, pixels.shape[1] // self.grid
        n_cells = self.grid * self.grid
        # offsets: (draws, 2, n_cells), the place of each window inside its cell
        draws = _draw(seed, self.draws * 2 * n_cells).reshape(self.draws, 2, n_cells)
        offsets_y = _below(draws[:, 0], cell_height - self.window + 1)
        offsets_x = _below(draws[:, 1], cell_width - self.window + 1)
        cells = _grid(pixels, self.grid, self.grid, cell_height, cell_width)
        return [
            _stitch(
                [
                    cell[y : y + self.window, x : x + self.window]
                    for cell, y, x in zip(cells, offsets_y[k], offsets_x[k], strict=True)
                ],
                self.grid,
                self.grid,
            )
            for k in range(self.draws)
        ]


def _grid(pixels: Pixels, rows: int, columns: int, height: int, width: int) -> list[Pixels]:
    """Slice ``rows`` x ``columns`` cells of one size, row by row from the top left."""
    return [
        pixels[y * height : (y + 1) * height, x * width : (x + 1) * width]
        for y in range(rows)
        for x in range(columns)
    ]


def _stitch(cells: list[Pixels], rows: int, columns: int) -> Pixels:
    """Lay cells of one size row by row."""
    height, width, n_channels = cells[0].shape
    out = np.empty((rows * height, columns * width, n_channels), np.uint8)
    for i, cell in enumerate(cells):
        y, x = divmod(i, columns)
        out[y * height : (y + 1) * height, x * width : (x + 1) * width] = cell
    return out


def _draw(seed: tuple[int, ...], count: int) -> NDArray[np.uint64]:
    """Draw 32-bit random integers, held in 64 bits.

    From the raw stream of PCG64, which numpy promises never to change; its distributions may change.
    """
    raw: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return raw >> np.uint64(32)


def _below(draws: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Map 32-bit integers to 0..bound-1 by multiplication; the bias is below bound / 2**32."""
    return ((draws * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)
