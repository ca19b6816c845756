"""The view as a value, its spelling, and the list of views; views that begin with the same resize share it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featbank.errors import ViewError
from featbank.views.steps import (
    AREA_FILTER,
    DEFAULT_FILTER,
    FAST_FILTER,
    FILTER_NAMES,
    MAX_OUTPUT_PIXELS,
    Center,
    Down,
    Five,
    Fragments,
    Long,
    Mosaic,
    Pixels,
    Regions,
    Resizing,
    Short,
    Square,
    Squash,
    Step,
    Tiles,
    Width,
    half_size,
    halve,
    probe_filter,
)

Beginning = tuple[bool, tuple[Step, ...]]
"""Whether the image was halved first, and the steps taken on it."""


def leading(steps: tuple[Step, ...]) -> int:
    """Count the steps at the beginning that take the whole image, without chance, to one other image."""
    count = 0
    while count < len(steps) and isinstance(steps[count], Resizing | Square):
        count += 1
    return count


class SharedBeginnings:
    """Images that more than one of some views begins with, kept for as long as this object.

    Parameters
    ----------
    beginnings : iterable of set of Beginning
        For each view, what it makes of the whole image on its way. What only one view makes is not kept.
    """

    def __init__(self, beginnings: Iterable[set[Beginning]]) -> None:
        counts = Counter(beginning for view in beginnings for beginning in view)
        self._wanted = {beginning for beginning, count in counts.items() if count > 1}
        self._made: dict[Beginning, NDArray[np.uint8]] = {}

    def take(self, beginning: Beginning, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the image of a beginning, made by ``make`` unless another view had it made.

        Returns
        -------
        uint8 array of shape (height, width, 3)
            Not to be written to.
        """
        if beginning not in self._wanted:
            return make()
        if beginning not in self._made:
            self._made[beginning] = make()
        return self._made[beginning]


PAIRS = ("", "half", "halfimage")
"""No companion; the half of every crop; the crop at the same place of the halved image."""

MAX_CROPS = 100_000
"""Most crops a view may give; one-pixel tiles of a 4K photo would be eight million."""

_OTHER_LIBRARIES = {AREA_FILTER: ", opencv-area", FAST_FILTER: ", torch-uint8"}

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
        """Give the shapes (n_crops, crop_height, crop_width) that `scales` yields for a size, without pixels.

        One for each scale. Raises as `scales`.
        """
        first = self._walk(height, width)[-1]
        if self.pair == "half":
            return first, (first[0], *half_size(*first[1:]))
        if self.pair == "halfimage":
            return first, self._walk(*half_size(height, width))[-1]
        return (first,)

    def notes(self, height: int, width: int) -> tuple[str, ...]:
        """Tell what an encoder's user should know about this view of an image of this size.

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
                "implementation": "pillow-uint8"
                + "".join(_OTHER_LIBRARIES.get(name, "") for name in sorted(used)),
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


VIEW_GRAMMAR = """\
A view is steps joined by '/', with '+half' or '+halfimage' at the end if wanted:
  native              the image as it is
  short_512           resize, shorter side to 512
  width_3840          resize to a width of 3840
  long_1024           reduce, longer side to 1024; a smaller image stays as it is
  squash_1907x1231    resize to width x height, whatever the aspect
  down_2              scale to 1/2 of both sides
  square, square_320  largest centred square; then resize it to 320 x 320
  center_320, center_1920x960   centred crop (width x height) at native sampling
  tiles_224           grid of 224-pixel tiles from the top left, partial ones dropped
  tiles_3x3           3 columns x 3 rows of equal regions
  mosaic_3x3          those regions shuffled by the seed and stitched
  fragments_15x32, fragments_15x32x10   one 32-pixel window of each cell of a 15 x 15 grid, stitched; 10 draws
  five_224            centre and four corners
A resizing step may name its filter: short_512~bilinear (bicubic unless stated, bilinear, lanczos; area: means over
areas, the quickest; fast: bicubic through torch, nine times quicker, not the same to the last level).
'+half' adds the half-scale of every crop, '+halfimage' the same crops of the halved image.
Examples: short_512/center_480, width_960/tiles_224, center_320+half, tiles_3x3/squash_224x224."""
"""The spelling of views, as shown by errors and by the listing of views."""

MAX_SIZE_PX = 100_000
"""Largest side that a step may name, in pixels."""

_MAX_COUNT = 1_000
_NUMBERS = r"([1-9]\d{0,6})"
_STEP = re.compile(rf"([a-z]+)(?:_{_NUMBERS}(?:x{_NUMBERS})?(?:x{_NUMBERS})?)?(?:~([a-z]+))?")

_Builder = Callable[[list[int], str], list[Step]]
# Family, how many numbers, whether it resizes, how to build it from numbers and filter.
_FAMILIES: tuple[tuple[str, int, bool, _Builder], ...] = (
    ("native", 0, False, lambda _, __: []),
    ("short", 1, True, lambda n, f: [Short(f, n[0])]),
    ("width", 1, True, lambda n, f: [Width(f, n[0])]),
    ("long", 1, True, lambda n, f: [Long(f, n[0])]),
    ("squash", 2, True, lambda n, f: [Squash(f, n[0], n[1])]),
    ("down", 1, True, lambda n, f: [Down(f, n[0])]),
    ("square", 0, False, lambda _, __: [Square()]),
    ("square", 1, True, lambda n, f: [Square(), Squash(f, n[0], n[0])]),
    ("center", 1, False, lambda n, _: [Center(n[0], n[0])]),
    ("center", 2, False, lambda n, _: [Center(n[0], n[1])]),
    ("tiles", 1, False, lambda n, _: [Tiles(n[0])]),
    ("tiles", 2, False, lambda n, _: [Regions(n[0], n[1])]),
    ("mosaic", 2, False, lambda n, _: [Mosaic(n[0], n[1])]),
    ("fragments", 2, False, lambda n, _: [Fragments(n[0], n[1])]),
    ("fragments", 3, False, lambda n, _: [Fragments(n[0], n[1], n[2])]),
    ("five", 1, False, lambda n, _: [Five(n[0], n[0])]),
    ("five", 2, False, lambda n, _: [Five(n[0], n[1])]),
)


def parse_view(text: str) -> View:
    """Read a view from its spelling.

    Parameters
    ----------
    text : str
        As described by `VIEW_GRAMMAR`.

    Returns
    -------
    View
        Its ``name`` is the canonical spelling: ``native`` and ``~bicubic`` are left out where they say
        nothing, and one number stands for two equal ones.

    Raises
    ------
    ViewError
        If the text does not follow the grammar; the message shows near spellings and the grammar.

    Examples
    --------
    >>> parse_view("short_512~bilinear/center_480x480").name
    'short_512~bilinear/center_480'
    >>> parse_view("center_320+half").geometry(2160, 3840)
    ((1, 320, 320), (1, 160, 160))
    """
    if not isinstance(text, str):
        raise ViewError(f"parse_view: text must be a string, got {type(text).__name__}.")
    body, plus, pair = text.partition("+")
    if plus and pair not in PAIRS[1:]:
        raise _error(text, f"ends in {plus + pair!r}; only '+half' and '+halfimage' may end a view")
    steps: list[Step] = []
    for word in body.split("/"):
        steps += _parse_step(text, word)
    return View(tuple(steps), pair)


def _parse_step(text: str, word: str) -> list[Step]:
    match = _STEP.fullmatch(word)
    families = dict.fromkeys(name for name, *_ in _FAMILIES)
    if match is None or match[1] not in families:
        stem = re.split(r"[_~\d]", word.strip().lower(), maxsplit=1)[0]
        near = difflib.get_close_matches(stem, families, n=2, cutoff=0.6)
        hint = (
            f"; did you mean {' or '.join(repr(name) for name in near)}"
            if near and not (stem in families and word.startswith(stem))
            else ""
        )
        raise _error(text, f"has a step {word!r} that is not one of the grammar{hint}")
    family, numbers, filter_name = match[1], [int(n) for n in match.groups()[1:4] if n], match[5]
    fitting = [entry for entry in _FAMILIES if entry[0] == family and entry[1] == len(numbers)]
    if not fitting:
        counts = " or ".join(str(entry[1]) for entry in _FAMILIES if entry[0] == family)
        raise _error(text, f"has a step {word!r} with {len(numbers)} numbers where {family!r} takes {counts}")
    _, _, does_resize, build = fitting[0]
    if filter_name is not None and not does_resize:
        raise _error(text, f"names a filter in {word!r}, which does not resize")
    if filter_name is not None and filter_name not in FILTER_NAMES:
        near = difflib.get_close_matches(filter_name, FILTER_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise _error(text, f"names the filter {filter_name!r}, not one of {', '.join(FILTER_NAMES)}{hint}")
    _check_numbers(text, word, family, numbers)
    return build(numbers, filter_name or DEFAULT_FILTER)


def _check_numbers(text: str, word: str, family: str, numbers: list[int]) -> None:
    is_count = family in {"mosaic", "fragments", "down"} or (family == "tiles" and len(numbers) == 2)
    limit = _MAX_COUNT if is_count else MAX_SIZE_PX
    if numbers and max(numbers) > limit:
        raise _error(text, f"has a number above {limit} in {word!r}")


def _error(text: str, problem: str) -> ViewError:
    return ViewError(f"parse_view: {text!r} {problem}.\n{VIEW_GRAMMAR}")


class ViewExample(NamedTuple):
    """A view by its spelling, and what it is for."""

    name: str
    purpose: str


_EXAMPLES = (
    ViewExample(
        "native", "the whole image at native sampling, for weight-free and fully convolutional encoders"
    ),
    ViewExample(
        "short_512/center_480", "SJTU, global branch: short side 512, centre 480 (bilinear in the original)"
    ),
    ViewExample("short_512~bilinear/center_416", "SJTU within the budget: the global branch at 416"),
    ViewExample("fragments_15x32", "SJTU, distortion branch: 15 x 15 windows of 32 pixels, 480 x 480"),
    ViewExample("fragments_13x32", "SJTU within the budget: 13 x 13 windows, 416 x 416"),
    ViewExample("center_480", "SJTU, saliency branch: the centre at native sampling"),
    ViewExample("fragments_16x24x10", "GS-PIQA: ten draws of 16 x 16 windows of 24 pixels, 384 x 384"),
    ViewExample("width_3840~bilinear/tiles_224", "CIPLAB, finest scale: 153 tiles of a 16:9 photo"),
    ViewExample("width_960~bilinear/tiles_224", "CIPLAB, middle scale: 8 tiles"),
    ViewExample(
        "width_256~bilinear/five_144", "CIPLAB, coarsest scale: five overlapping crops that fit 256 x 144"
    ),
    ViewExample("long_1024", "the whole photo for fully convolutional networks, never enlarged"),
    ViewExample("squash_1366x768", "EQCNet: the whole image, mildly reduced"),
    ViewExample("squash_1907x1231", "MobileNet-IQA: width 1907, height 1231, aspect ignored"),
    ViewExample("squash_512x512", "MobileViT-IQA, the teacher"),
    ViewExample("center_720", "NF-RegNets, scale 1:1"),
    ViewExample("down_2/center_720", "NF-RegNets, scale 1:2"),
    ViewExample("down_3/center_720", "NF-RegNets, scale 1:3"),
    ViewExample("squash_224x224", "CLIP-IQA*: the whole image for a CLIP encoder"),
    ViewExample("tiles_3x3/squash_224x224", "CLIP-IQA*: nine regions of the image"),
    ViewExample("mosaic_3x3/squash_224x224", "CLIP-IQA*: the nine regions shuffled"),
    ViewExample("center_1920x960/squash_1280x720", "challenge baseline: half of the image, mildly squashed"),
    ViewExample("center_320+half", "ICL, quality encoder: native centre and its half-scale"),
    ViewExample("square_320+half", "ICL, content and keypoint encoders: the largest square and its half"),
    ViewExample(
        "square_320~bilinear+half", "ICL, scene encoder: the same, resized as Places365's publishers do"
    ),
    ViewExample(
        "squash_384x512~bilinear/five_224",
        "HyperIQA: five crops of the image squashed to width 384, height 512",
    ),
    ViewExample("squash_1024x768", "Effnet-2C-MLSP, fine column"),
    ViewExample("squash_512x384", "Effnet-2C-MLSP, coarse column"),
    ViewExample(
        "squash_800x448+half", "CONTRIQUE and Re-IQA within the budget: the whole image and its half"
    ),
    ViewExample(
        "five_224+halfimage", "ARNIQA: five crops, each with the crop of the halved image at its place"
    ),
    ViewExample("squash_256x256~bilinear/center_224", "Places365: as its publishers feed it"),
    ViewExample("squash_800x448", "CLIP-IQA+ and QualiCLIP within the budget"),
)


def list_views() -> list[ViewExample]:
    """List views worth knowing; any other that follows the grammar works as well.

    Returns
    -------
    list of ViewExample
        Name and purpose, in the order of the report's systems.
    """
    return list(_EXAMPLES)
