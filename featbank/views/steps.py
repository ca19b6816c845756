"""The steps of a view: resize, crop, and the grids that cut an image into several crops.

Resizing is done by Pillow's filters, or where a view asks for it by OpenCV's means over areas (``area``) or torch's
8-bit bicubic (``fast``).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featbank.digest import digest_bytes
from featbank.errors import ViewError

AREA_FILTER, FAST_FILTER = "area", "fast"


def resize_fast(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Reduce uint8 pixels (any, any, 3) to (height, width, 3); about nine times the speed of Pillow for a 4K photo.

    On 4K photographs within one level of Pillow's bicubic. Where an image is squashed more one way than the other,
    Pillow takes the other pass first since its version 13, and clips at hard edges in between: single pixels
    then differ by more, up to 11 levels on photographs of some 500 pixels. Here rows come first on all images:
    what a view shows must not follow the release of a library.

    Raises ViewError if torch is not installed.
    """
    torch = _torch()
    # torch takes no read-only memory, and its fast path no gaps between rows.
    whole = np.require(pixels, requirements=["C", "W"])
    planes = torch.from_numpy(whole).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        planes, (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    result: NDArray[np.uint8] = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
    return result


def _torch() -> Any:  # noqa: ANN401 - an optional module
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise ViewError(
            f"view filter {FAST_FILTER!r} needs the package 'torch', which is not installed. Install it with pip "
            "install 'featbank[encoders]', or leave the filter's name away: the default is Pillow's bicubic, whose "
            "features are kept under another key."
        ) from error


FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Filters by name: cubic convolution with a = -0.5, triangle, and Lanczos with three lobes."""

FILTER_NAMES = (*FILTERS, AREA_FILTER, FAST_FILTER)
"""Every filter a view may name. The last two reduce by other libraries (means over areas, and `resize_fast`) and
enlarge by Pillow's bicubic: means would repeat pixels, libraries differ more there, and little time is spent.
"""

DEFAULT_FILTER = "bicubic"

MAX_OUTPUT_PIXELS = 300_000_000
"""Most pixels a resize may yield: enlarging a thin strip to a crop's size would otherwise take any memory."""


def resize(pixels: NDArray[np.uint8], height: int, width: int, filter_name: str) -> NDArray[np.uint8]:
    """Resize uint8 pixels (any, any, 3) to (height, width, 3) by one of `FILTER_NAMES`, whatever the aspect.

    Of a slice of a larger image only the slice is read. ``pixels`` itself is returned where the size is already right.

    Raises ViewError if the filter's library is not installed.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if filter_name not in FILTERS:
        if height > pixels.shape[0] or width > pixels.shape[1]:
            filter_name = DEFAULT_FILTER
        elif filter_name == FAST_FILTER:
            return resize_fast(pixels, height, width)
        else:
            return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA)
    # Pillow's own box argument would let the filter reach beyond the slice, which no published recipe does.
    resized = Image.fromarray(pixels).resize((width, height), resample=FILTERS[filter_name])
    return np.array(resized)


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale to half the size, rounded down, by bicubic; a side of one pixel stays.

    References
    ----------
    .. [1] P. C. Madhusudana et al., "Image Quality Assessment using Contrastive Learning", IEEE TIP 31, 2022
       (CONTRIQUE), whose second scale this is.
    """
    return resize(pixels, *half_size(*pixels.shape[:2]), DEFAULT_FILTER)


def half_size(height: int, width: int) -> tuple[int, int]:
    """Return half of a size, rounded down, at least one pixel."""
    return max(1, height // 2), max(1, width // 2)


def size_to_hold(height: int, width: int, min_height: int, min_width: int) -> tuple[int, int]:
    """Return the (height, width) an image is enlarged to so that a crop fits: aspect kept, just enough.

    The side that lacked most becomes exactly the crop's, the other one is rounded to the nearest pixel.
    """
    if height >= min_height and width >= min_width:
        return height, width
    # The factor is the larger one of min_height / height and min_width / width; compared as integers.
    if min_height * width >= min_width * height:
        return min_height, max(min_width, _nearest(width * min_height, height))
    return max(min_height, _nearest(height * min_width, width)), min_width


def check_output(step: str, height: int, width: int, new_height: int, new_width: int) -> None:
    """Refuse a resize whose result would be beyond any use.

    Raises ViewError if the result exceeds `MAX_OUTPUT_PIXELS`.
    """
    if new_height * new_width > MAX_OUTPUT_PIXELS:
        raise ViewError(
            f"view step {step!r} must yield at most {MAX_OUTPUT_PIXELS} pixels, but turns an image of "
            f"{width} x {height} into {new_width} x {new_height}. Leave this image out, or use a view with 'square'."
        )


@functools.cache
def probe_filter(filter_name: str) -> str:
    """Digest what a filter does to a fixed picture at several sizes.

    Stands for the behaviour of the library in a view's identity: a new version that changes one level of one
    pixel gives features another key, one that changes nothing keeps the cache.
    """
    y, x = np.mgrid[0:37, 0:53]
    picture = np.stack([(x * x + 7 * y) % 256, (x * y) % 256, (31 * x + 17 * y * y) % 256], axis=-1).astype(
        np.uint8
    )
    # Reduced, enlarged, and both at once: Pillow 13 changed the order of the two passes for such squashes.
    sizes = ((11, 17), (61, 83), (9, 71), (59, 13), (12, 40))
    return digest_bytes(b"".join(resize(picture, *size, filter_name).tobytes() for size in sizes))


def _nearest(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


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
class Long(Resizing):
    """Reduce so that the longer side has at most ``size`` pixels; a smaller image stays as it is."""

    family: ClassVar[str] = "long"
    form: ClassVar[str] = "long_{size}"
    size: int = 0

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Keep the aspect; the shorter side is rounded to the nearest pixel."""
        longer = max(height, width)
        if longer <= self.size:
            return height, width
        return max(1, _nearest(height * self.size, longer)), max(1, _nearest(width * self.size, longer))


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
    """Cut the centre and the four corners: centre, top left, top right, bottom left, bottom right.

    An odd margin around the centre is halved downwards, as ARNIQA does, whose view this is; not as `Center` does.
    """

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
        middle = (pixels.shape[0] // 2 - self.height // 2, pixels.shape[1] // 2 - self.width // 2)
        places = [middle, (0, 0), (0, right), (bottom, 0), (bottom, right)]
        return [pixels[y : y + self.height, x : x + self.width] for y, x in places]

    def describe(self) -> dict[str, object]:
        """Return the parameters, and where the centre lies."""
        return {**super().describe(), "odd_margin": "floor"}


@dataclass(frozen=True)
class Mosaic(Cropping):
    """Cut into ``columns`` x ``rows`` equal regions, shuffle them by the seed, stitch them together again.

    References
    ----------
    .. [1] AIM 2024 Challenge on UHD Blind Photo Quality Assessment, 2024, section 2.8 (CLIP-IQA*).
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
