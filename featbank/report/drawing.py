"""Turns one painted figure into page markup and a PNG file; decides between vector and pixels by size."""

from __future__ import annotations

import base64
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from featbank.report.theme import DARK, LIGHT, PLACEHOLDERS, Theme, drawing_settings

MAX_SVG_BYTES = 200_000  # a scatter of about 2,000 points; beyond that two PNG files are smaller
PNG_DPI = 144  # two pixels for one CSS pixel at 72 units to the inch

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_COLOUR_VARIABLES = {code: f"var(--{name})" for name, code in PLACEHOLDERS.named().items()}
_COLOUR = re.compile("|".join(map(re.escape, _COLOUR_VARIABLES)))
_LONG_DECIMAL = re.compile(r"(-?\d+\.\d{2})\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")


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
        path.write_bytes(_png(self, LIGHT, background=LIGHT.surface))
        return path

    def markup(self, max_svg_bytes: int = MAX_SVG_BYTES) -> Markup:
        """Give the figure as inline SVG that follows the page's colours, or as two PNG where that is too large."""
        svg = _themed_svg(_svg(self), self.name, self.alt)
        if len(svg.encode()) <= max_svg_bytes:
            return Markup(svg)  # noqa: S704  matplotlib and ElementTree have escaped every text in it
        light, dark = (
            "data:image/png;base64," + base64.b64encode(_png(self, theme, background="none")).decode()
            for theme in (LIGHT, DARK)
        )
        return Markup(
            '<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
            '<img src="{light}" alt="{alt}"></picture>'
        ).format(dark=dark, light=light, alt=self.alt)


def label_row(
    axes: Axes,
    y: float,
    left: str,
    right: str,
    *,
    above: float,
    colours: tuple[str, str],
    is_bold: bool = False,
) -> None:
    """Write a name and its figures above a mark, at both ends of the axes: long names need no margin.

    Parameters
    ----------
    y : float
        Place of the mark on the y axis.
    above : float
        Points from the mark to the text.
    colours : (str, str)
        Of ``left`` and ``right``.
    """
    weight = "bold" if is_bold else "normal"
    for x, text, align, colour in ((0, left, "left", colours[0]), (1, right, "right", colours[1])):
        axes.annotate(
            text,
            (x, y),
            xycoords=("axes fraction", "data"),
            xytext=(0, above),
            textcoords="offset points",
            ha=align,
            color=colour,
            fontsize=9.5,
            weight=weight,
        )


def _painted(drawing: Drawing, theme: Theme, options: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with drawing_settings(theme), warnings.catch_warnings():
        # A name in a script the drawing font lacks shows boxes in the PNG; the page shows it in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = drawing.paint(theme)
        FigureCanvasAgg(figure)
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def _png(drawing: Drawing, theme: Theme, background: str) -> bytes:
    options = {"format": "png", "dpi": PNG_DPI, "facecolor": background, "metadata": {"Software": None}}
    return _painted(drawing, theme, options)


def _svg(drawing: Drawing) -> bytes:
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    return _painted(drawing, PLACEHOLDERS, {"format": "svg", "facecolor": "none", "metadata": nothing})


def _themed_svg(data: bytes, name: str, alt: str) -> str:
    """Make matplotlib's document fit for a page: colours by variable, unique names, no fonts, no style rules."""
    root = ET.fromstring(data)  # noqa: S314  matplotlib wrote it a moment ago
    for parent in list(root.iter()):
        for child in list(parent):
            # Both would speak for the whole page once inlined.
            if child.tag in {f"{_SVG}metadata", f"{_SVG}style"}:
                parent.remove(child)
    used = {
        reference
        for element in root.iter()
        for value in element.attrib.values()
        for reference in _REFERENCE.findall(value)
    }
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            if key == "id":
                if value in used:
                    element.set("id", f"{name}-{value}")
            elif (new := _themed_attribute(key, value, name)) is not None:
                element.set(key.removeprefix(_XLINK), new)
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": alt, "width": box.split()[2]})
    return ET.tostring(root, encoding="unicode")


def _themed_attribute(key: str, value: str, name: str) -> str | None:
    if key == "transform" and value.startswith("rotate(-0 "):
        return None
    if key == "style":
        rules = (rule.strip() for rule in value.split(";"))
        value = "; ".join(rule for rule in rules if rule and not rule.startswith("font-family"))
        return _COLOUR.sub(lambda match: _COLOUR_VARIABLES[match.group()], value)
    value = _REFERENCE.sub(lambda match: f"#{name}-{match.group(1)}", value)
    # A hundredth of a unit is far below a pixel, and the figure is a third smaller.
    return (
        _LONG_DECIMAL.sub(r"\1", value) if key in {"d", "x", "y", "width", "height", "transform"} else value
    )
