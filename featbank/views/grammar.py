"""Reads the spelling of views; the canonical spelling of a view comes back from its name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from featbank.errors import ViewError
from featbank.views.grids import Five, Fragments, Mosaic, Regions, Tiles
from featbank.views.resize import DEFAULT_FILTER, FILTER_NAMES
from featbank.views.spec import PAIRS, View
from featbank.views.steps import Center, Down, Short, Square, Squash, Step, Width

VIEW_GRAMMAR = """\
A view is steps joined by '/', with '+half' or '+halfimage' at the end if wanted:
  native              the image as it is
  short_512           resize, shorter side to 512
  width_3840          resize to a width of 3840
  squash_1907x1231    resize to width x height, whatever the aspect
  down_2              scale to 1/2 of both sides
  square, square_320  largest centred square; then resize it to 320 x 320
  center_320, center_1920x960   centred crop (width x height) at native sampling
  tiles_224           grid of 224-pixel tiles from the top left, partial ones dropped
  tiles_3x3           3 columns x 3 rows of equal regions
  mosaic_3x3          those regions shuffled by the seed and stitched
  fragments_15x32, fragments_15x32x10   one 32-pixel window of each cell of a 15 x 15 grid, stitched; 10 draws
  five_224            centre and four corners
A resizing step may name its filter: short_512~bilinear (bicubic unless stated, bilinear, lanczos, and fast: bicubic
through torch, nine times quicker, not the same to the last level, so kept apart in the bank).
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
