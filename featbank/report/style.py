"""How things read and look on a page: spelled numbers and names, colours in light and dark, painted figures."""

from __future__ import annotations

import base64
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from featbank.errors import ImageError, StoreError
from featbank.images import REASONS, read_photo
from featbank.runs.folder import METRIC_NAMES
from regressors.evaluation.metrics import ERRORS

MINUS = "−"
MISSING = "–"
UNREADABLE = 1e9  # from here on a number is written with an exponent

METRIC_TITLES = {
    name: name.removesuffix("_logistic").upper() + " after logistic map" * name.endswith("_logistic")
    for name in METRIC_NAMES
}
CORRELATIONS = frozenset(METRIC_NAMES) - frozenset(ERRORS)

_SPLIT_TITLES = {"training_cv": "training, out of fold", "training": "training"}


def split_title(key: str) -> str:
    """Spell a key of ``metrics.json`` such as ``test/exclusive`` for a table row."""
    split, _, subset = key.partition("/")
    title = _SPLIT_TITLES.get(split, split)
    return f"{title}, {subset} only" if subset else title


def score_title(select_by: str) -> str:
    """Spell the metric that chose the hyper-parameters; errors are negated there, so that greater is better."""
    title = METRIC_TITLES.get(select_by, select_by.upper())
    return f"negated {title}" if select_by.startswith(ERRORS) else title


def sentence_case(text: str) -> str:
    """Raise the first letter and leave the others, so that ``MOS`` stays ``MOS``."""
    return text[:1].upper() + text[1:]


def plain_label(text: object, width: int = 44) -> str:
    """Make any name safe to draw: control characters replaced, long names shortened in the middle.

    Drawn text ends in an SVG document, where control characters and lone surrogates are not allowed at all.
    """
    label = "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in str(text))
    if len(label) <= width:
        return label
    head = (width - 1) // 2
    return f"{label[:head]}…{label[-(width - 1 - head) :]}"


def decimals_for(values: Iterable[float], digits: int = 3) -> int:
    """Decimals that give the smallest of several magnitudes ``digits`` significant digits.

    One number of decimals for a whole column keeps its figures aligned.

    Returns
    -------
    int in [0, 6]
    """
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0]
    if not sizes:
        return digits - 1
    return max(0, min(6, digits - 1 - math.floor(math.log10(min(sizes)))))


def fixed(value: float, decimals: int) -> str:
    """Write ``value`` with a fixed number of decimals, a true minus sign, and a dash where it is undefined."""
    if not math.isfinite(value):
        return MISSING
    if abs(value) >= UNREADABLE:
        # A model gone wrong must not stretch every table; its size still shows.
        return f"{value:.2e}".replace("-", MINUS)
    text = f"{value:.{decimals}f}"
    if text.startswith("-"):
        # A rounded zero has no sign.
        text = text[1:] if float(text) == 0 else MINUS + text[1:]
    return text


def number(value: float, digits: int = 3) -> str:
    """Write ``value`` with about ``digits`` significant digits and no exponent; large ones with separators."""
    if not math.isfinite(value):
        return MISSING
    if 10_000 <= abs(value) < UNREADABLE:
        return f"{value:,.0f}".replace("-", MINUS)
    if value != 0 and abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    if value == round(value):
        return fixed(value, 0)
    # The digits of the rounded value: 0.9996 is 1.00, not 1.000.
    return fixed(value, decimals_for([float(f"{value:.{digits - 1}e}")], digits))


def interval(low: float, high: float, decimals: int) -> str:
    """Write an interval in brackets, or nothing where an end is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def count(n: int) -> str:
    """Write a count with thousands separators."""
    return f"{n:,}"


def plural(n: int, noun: str, many: str = "") -> str:
    """Write a count with its noun, ``1 image`` or ``900 images``; ``many`` where an s does not do."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {many or noun + 's'}"


def percent(share: float, digits: int = 2) -> str:
    """Write a share of one as percent with about ``digits`` significant digits."""
    value = 100 * share
    if not math.isfinite(value):
        return MISSING
    decimals = 0 if abs(value) >= 10 or value == 0 else min(decimals_for([value], digits), 3)
    return f"{fixed(value, decimals)}\u00a0%"


def duration(seconds: float) -> str:
    """Write a time in seconds, from milliseconds to hours, in the unit people would choose."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 0.9995:
        return f"{number(1000 * seconds)} ms"
    if seconds < 99.95:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)} h {minutes:02d} min"


def against(value: float, ends: tuple[float, float], other: float) -> str:
    """Say how a score stands to another, given its own interval.

    Parameters
    ----------
    ends : (float, float)
        Its 95 % interval; nan where there is none, and then nothing is said to be sure.

    Returns
    -------
    str
        ``above`` or ``below`` where the whole interval lies on that side, ``ahead of`` or ``behind`` where only the
        score does, ``level with`` where they are equal. `AGAINST_NOTE` says so to readers.
    """
    if value == other:
        return "level with"
    if value > other:
        return "above" if ends[0] > other else "ahead of"
    return "below" if ends[1] < other else "behind"


AGAINST_NOTE = (
    "“Above” and “below” mean that the whole 95\u00a0% interval of this run lies on that side of the other value, "
    "“ahead of” and “behind” that only the value does, “level with” that both are equal."
)


@dataclass(frozen=True)
class Theme:
    """Colours of one page.

    Attributes
    ----------
    surface, ink, muted, line : str
        Background, text, secondary text, rules and grid, as ``#rrggbb``.
    accent, contrast, warn : str
        The model's own colour, the colour of what is set off from it, and of cautions.
    series : tuple of str
        Colours of lines that must be told apart, also by readers who lack one kind of cone; lines
        differ in their dashes too.
    ramp, exclusive : tuple of str
        From sparse to dense, for all images and for the exclusive ones; the dense end has the greatest contrast
        to ``surface``.
    """

    surface: str
    ink: str
    muted: str
    line: str
    accent: str
    contrast: str
    warn: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    exclusive: tuple[str, ...]


LIGHT = Theme(
    surface="#ffffff",
    ink="#1b2430",
    muted="#5a6675",
    line="#dde2e8",
    accent="#1f5fa8",
    contrast="#c4500c",
    warn="#8a5a00",
    series=("#1f5fa8", "#c4500c", "#12a574", "#7a1f66", "#4a4210", "#5394ad"),
    ramp=("#a9c6e6", "#82abd9", "#5b8fca", "#3a73b6", "#21569a", "#0f3872"),
    exclusive=("#f3c7a3", "#eba775", "#e0874a", "#c96a2b", "#a64d14", "#7a3305"),
)

DARK = Theme(
    surface="#161b22",
    ink="#e4e9ef",
    muted="#9aa7b5",
    line="#323b47",
    accent="#74b3f2",
    contrast="#ff9d5c",
    warn="#f0c05a",
    series=("#74b3f2", "#ff9d5c", "#3c8a7c", "#b23fd8", "#eee84a", "#d3e4ec"),
    ramp=("#32587f", "#3f71a5", "#548cc8", "#74a8e0", "#95c2f3", "#bcdcfc"),
    exclusive=("#85502a", "#ab672f", "#d07e3a", "#ef9b56", "#ffb47a", "#ffcda4"),
)


_DARK_OF = {
    light: dark
    for colours in zip(vars(LIGHT).values(), vars(DARK).values(), strict=True)
    for light, dark in (zip(*colours, strict=True) if isinstance(colours[0], tuple) else [colours])
}
_DRAWN_COLOUR = re.compile(rb"((?:fill|stroke): )(#[0-9a-f]{6})")


def darkened(svg: bytes) -> bytes:
    """Give a drawing in `LIGHT` with the colours of `DARK`, which takes no second painting and layout."""
    return _DRAWN_COLOUR.sub(
        lambda found: found[1] + _DARK_OF.get(found[2].decode(), found[2].decode()).encode(), svg
    )


def css_variables(theme: Theme) -> str:
    """Write a theme's single colours as CSS custom properties, ``--ink: #1b2430;`` and so on."""
    return " ".join(f"--{name}: {colour};" for name, colour in vars(theme).items() if isinstance(colour, str))


@contextmanager
def drawing_settings(theme: Theme) -> Iterator[None]:
    """Draw in ``theme`` inside the block; matplotlib's settings are as before after it."""
    # Any: the newest matplotlib spells every key out as a type, the oldest supported one does not.
    settings: dict[Any, Any] = {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.line,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": theme.muted,
        "axes.labelpad": 5.0,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "font.family": ["DejaVu Sans"],
        "font.size": 10.0,
        "grid.color": theme.line,
        "grid.linewidth": 0.6,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "lines.linewidth": 1.7,
        "svg.fonttype": "none",  # text stays text, which is small and shows in scripts that the drawing font lacks
        "svg.hashsalt": "featbank",  # element names that do not change from one writing to the next
        "text.color": theme.ink,
        "text.parse_math": False,  # a band may be called "$x$"
        "xtick.color": theme.line,
        "xtick.labelcolor": theme.muted,
        "xtick.major.size": 0.0,
        "xtick.minor.size": 0.0,
        "ytick.color": theme.line,
        "ytick.labelcolor": theme.muted,
        "ytick.major.size": 0.0,
        "ytick.minor.size": 0.0,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


MAX_SVG_BYTES = 120_000  # a scatter of about a thousand points; beyond that PNG files are smaller
PNG_DPI = 144  # two pixels for one CSS pixel at 72 units to the inch


@dataclass(frozen=True)
class Drawing:
    """A figure that can be painted in any theme.

    Attributes
    ----------
    name : str
        File name without ending, also the figure's name in the page; letters, digits, underscores.
    alt : str
        What the figure shows, for readers who cannot see it.
    paint : callable
        Takes a theme and returns a fresh figure; called inside ``drawing_settings``.
    """

    name: str
    alt: str
    paint: Callable[[Theme], Figure]

    def write_png(self, folder: Path) -> Path:
        """Write ``<name>.png``, light on white, as wanted in papers and README files."""
        path = folder / f"{self.name}.png"
        path.write_bytes(self._png(LIGHT, background=LIGHT.surface))
        return path

    def markup(self, max_svg_bytes: int = MAX_SVG_BYTES) -> Markup:
        """Give the figure as two pictures, of which the page's colours choose one: SVG, or PNG where that is large."""
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        kind, drawn = "svg+xml", self._saved(LIGHT, format="svg", facecolor="none", metadata=nothing)
        pictures = [drawn, darkened(drawn)]
        if len(drawn) > max_svg_bytes:
            kind, pictures = "png", [self._png(theme, background="none") for theme in (LIGHT, DARK)]
        light, dark = (f"data:image/{kind};base64,{base64.b64encode(data).decode()}" for data in pictures)
        return Markup(
            '<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
            '<img src="{light}" alt="{alt}"></picture>'
        ).format(dark=dark, light=light, alt=self.alt)

    @cached_property
    def figure(self) -> Figure:
        """The figure, light on white."""
        return self._laid_out(LIGHT)

    def _laid_out(self, theme: Theme) -> Figure:
        """Paint the figure and fix its layout, which costs more than a drawing and would be found for each file."""
        with _settings(theme):
            figure = self.paint(theme)
            FigureCanvasAgg(figure)
            figure.draw_without_rendering()
            figure.set_layout_engine(
                None
            )  # with "none" a place is held for one, and each file is drawn twice
        return figure

    def _saved(self, theme: Theme, **options: Any) -> bytes:  # noqa: ANN401 - matplotlib's own
        figure = self.figure if theme is LIGHT else self._laid_out(theme)
        buffer = io.BytesIO()
        with _settings(theme):
            figure.savefig(buffer, **options)
        return buffer.getvalue()

    def _png(self, theme: Theme, background: str) -> bytes:
        return self._saved(
            theme, format="png", dpi=PNG_DPI, facecolor=background, metadata={"Software": None}
        )


@contextmanager
def _settings(theme: Theme) -> Iterator[None]:
    with drawing_settings(theme), warnings.catch_warnings():
        # A name in a script the drawing font lacks shows boxes in the PNG; the page shows it in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


class Mark(NamedTuple):
    """A value with its interval on a row of dots; ``colour`` is a colour's name in a theme."""

    value: float
    low: float
    high: float
    colour: str = "accent"
    size: float = 6.5
    marker: str = "o"
    legend: str = ""
    below: float = 0.0
    is_filled: bool = True


class DotRow(NamedTuple):
    """A row of a figure of dots: a name, figures at the other end, marks; ``inks`` are colours' names in a theme."""

    label: str
    figures: str
    marks: Sequence[Mark]
    inks: tuple[str, str] = ("ink", "ink")
    is_bold: bool = False


def paint_dots(axes: Axes, theme: Theme, rows: Sequence[DotRow], xlabel: str, *, is_srcc: bool) -> None:
    """Draw values with intervals, one row each, the first on top; an axis of SRCC starts at 0 and ends at 1."""
    axes.grid(visible=False)
    ends = []
    for y, row in enumerate(rows):
        axes.axhline(y, color=theme.line, lw=0.6, zorder=0)
        for mark in row.marks:
            colour, height = getattr(theme, mark.colour), [y + mark.below]
            if math.isfinite(mark.low) and math.isfinite(mark.high):
                axes.plot([mark.low, mark.high], 2 * height, color=colour, lw=1.9, solid_capstyle="round")
            axes.plot(
                [mark.value],
                height,
                mark.marker,
                color=colour,
                ms=mark.size,
                mfc=colour if mark.is_filled else theme.surface,
                label=mark.legend if mark.legend and y == 0 else None,
            )
            ends += [end for end in mark[:3] if math.isfinite(end)]
        colours = getattr(theme, row.inks[0]), getattr(theme, row.inks[1])
        _label(axes, y, row.label, row.figures, 5, colours, "bold" if row.is_bold else "normal")
    _finish(axes, len(rows) - 0.55, xlabel)
    if is_srcc:
        axes.set_xlim(min(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03))


def paint_bars(
    axes: Axes, theme: Theme, rows: Sequence[tuple[str, float, str]], xlabel: str, colour: str = "accent"
) -> None:
    """Draw bars under a name and its figures, the first on top; negative ones go left in another colour."""
    for y, (label, value, figures) in enumerate(rows):
        axes.barh(y, value, height=0.34, color=getattr(theme, colour if value >= 0 else "contrast"), lw=0)
        _label(axes, y, label, figures, 8, (theme.ink, theme.muted), "normal")
    _finish(axes, len(rows) - 0.55, xlabel)


def _finish(axes: Axes, bottom: float, xlabel: str) -> None:
    axes.set(ylim=(bottom, -0.85), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)


def _label(
    axes: Axes, y: float, left: str, right: str, above: float, colours: tuple[str, str], weight: str
) -> None:
    """Write a name and its figures above a mark, at both ends of the axes: long names need no margin."""
    for x, text, align, colour in ((0, left, "left", colours[0]), (1, right, "right", colours[1])):
        axes.annotate(
            text, (x, y), xycoords=("axes fraction", "data"), xytext=(0, above), textcoords="offset points",
            ha=align, color=colour, fontsize=9.5, weight=weight,
        )  # fmt: skip


LONG_SIDE_PX = 320


_JPEG_QUALITY = 76


@dataclass(frozen=True)
class Thumbnail:
    """A photo small enough for a page, or why there is none.

    Attributes
    ----------
    source : str
        ``data:`` address of a JPEG, empty where there is none.
    reason : str
        Why there is none, empty otherwise.
    width, height : int
        Pixels of the thumbnail, 0 where there is none.
    """

    source: str = ""
    reason: str = ""
    width: int = 0
    height: int = 0


def make_thumbnail(path: str | Path | None) -> Thumbnail:
    """Read a photo through the one decoder and shrink it to 320 pixels on its long side.

    Parameters
    ----------
    path : path or None
        None where the caller knows of no file.

    Returns
    -------
    Thumbnail
        Without a source where the file is absent or no readable image: a page about predictions must not fail
        for want of a picture.
    """
    if path is None:
        return Thumbnail(reason="photo not at hand")
    try:
        photo = read_photo(path)
    except ImageError as error:
        return Thumbnail(reason=REASONS.get(error.reason, error.reason))
    except StoreError:
        return Thumbnail(reason="photo not at hand")
    image = Image.fromarray(photo.pixels)
    scale = min(1.0, LONG_SIDE_PX / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", width=image.width, height=image.height)
