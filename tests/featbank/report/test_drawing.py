from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from featbank.report.style import DARK, LIGHT, Drawing, Theme, paint_bars
from tests.support.page import read_page

HOSTILE = "<script>alert(1)</script> \"&' $x^2$ \\frac"


def _line(name: str = "line", text: str = "MOS", n_points: int = 5) -> Drawing:
    def paint(theme: Theme) -> Figure:
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.subplots()
        axes.plot(np.arange(n_points), np.arange(n_points) % 7, "o", color=theme.accent)
        paint_bars(axes, theme, [(text, 1.0, "0.812")], text)
        return figure

    return Drawing(name, f"A line of {text}", paint)


def _pictures(markup: str) -> tuple[str, list[bytes], str]:
    """Kind, pictures for light and dark pages, and the text in their place."""
    page = read_page(markup)
    [source], [image] = page.find("source"), page.find("img")
    assert source.attributes["media"] == "screen and (prefers-color-scheme: dark)"
    found = [image.attributes["src"], source.attributes["srcset"]]
    [kind] = {url.partition(";")[0] for url in found}
    pictures = [base64.b64decode(url.partition(",")[2]) for url in found]
    return kind.removeprefix("data:image/"), pictures, image.attributes["alt"]


def test_a_figure_is_drawn_for_light_and_dark_pages() -> None:
    kind, (light, dark), _ = _pictures(str(_line().markup()))
    assert kind == "svg+xml"
    assert LIGHT.accent in light.decode()
    assert DARK.accent in dark.decode()
    assert b"metadata" not in light


def test_the_dark_picture_is_what_painting_in_dark_gives() -> None:
    drawing = _line()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    _, (_, dark), _ = _pictures(str(drawing.markup()))
    painted = drawing._saved(DARK, format="svg", facecolor="none", metadata=nothing)
    # Names of elements are digests of what they hold, the colours among it.
    assert re.sub(rb"m[0-9a-f]{10}", b"", dark) == re.sub(rb"m[0-9a-f]{10}", b"", painted)


def test_text_is_text_and_hostile_text_stays_text() -> None:
    _, (light, _), alt = _pictures(str(_line(text=HOSTILE).markup()))
    drawn = ElementTree.fromstring(light)
    assert [element.text for element in drawn.iter() if element.tag.endswith("}text")].count(HOSTILE) == 2
    assert alt == f"A line of {HOSTILE}"


def test_the_largest_figures_become_pixels() -> None:
    drawing = _line(n_points=400, text=HOSTILE)
    kind, (light, dark), alt = _pictures(str(drawing.markup(max_svg_bytes=10_000)))
    assert kind == "png"
    assert light != dark
    assert alt == f"A line of {HOSTILE}"


def test_png_is_drawn_at_two_pixels_on_white(tmp_path: Path) -> None:
    path = _line().write_png(tmp_path)
    assert path.name == "line.png"
    image = Image.open(path).convert("RGB")
    assert image.size == (432, 288)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    accent = tuple(int(LIGHT.accent[i : i + 2], 16) for i in (1, 3, 5))
    assert accent in {colour for _, colour in image.getcolors(1 << 20)}


def test_the_same_drawing_gives_the_same_bytes_whatever_the_users_style(tmp_path: Path) -> None:
    first, markup = _line().write_png(tmp_path).read_bytes(), _line().markup()
    with mpl.rc_context({"axes.facecolor": "red", "svg.fonttype": "path", "font.size": 20.0}):
        assert _line().write_png(tmp_path).read_bytes() == first
        assert _line().markup() == markup


@pytest.mark.parametrize("text", ["画質", "\U0001f4f7 photo", "עברית"])
def test_scripts_the_font_lacks_do_not_warn(tmp_path: Path, text: str) -> None:
    drawing = _line(text=text)
    assert text.encode() in _pictures(str(drawing.markup()))[1][0]
    assert Image.open(io.BytesIO(drawing.write_png(tmp_path).read_bytes())).size
