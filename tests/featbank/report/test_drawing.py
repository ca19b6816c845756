from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from featbank.report.style import LIGHT, Drawing, Theme, paint_bars
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


def test_inline_svg_speaks_only_in_page_colours() -> None:
    svg = str(_line().markup())
    assert "var(--accent)" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg
    assert "<style" not in svg
    assert "metadata" not in svg
    assert "xlink" not in svg


def test_two_figures_on_a_page_share_no_name() -> None:
    page = read_page(f"<div>{_line('one').markup()}{_line('two').markup()}</div>")
    ids = {e.attributes["id"] for e in page.walk() if "id" in e.attributes}
    references = {
        match
        for element in page.walk()
        for value in element.attributes.values()
        for match in re.findall(r"#([\w.-]+)", value)
    }
    assert references == ids
    assert {name.partition("-")[0] for name in ids} == {"one", "two"}


def test_text_is_text_and_hostile_text_stays_text() -> None:
    page = read_page(str(_line(text=HOSTILE).markup()))
    assert not page.find("script")
    texts = [element.raw_text for element in page.find("text")]
    assert texts.count(HOSTILE) == 2
    assert page.find("svg")[0].attributes["aria-label"] == f"A line of {HOSTILE}"


def test_the_largest_figures_become_two_pictures() -> None:
    drawing = _line(n_points=400, text=HOSTILE)
    assert "<svg" in drawing.markup()
    page = read_page(str(drawing.markup(max_svg_bytes=10_000)))
    [source], [image] = page.find("source"), page.find("img")
    assert source.attributes["media"] == "screen and (prefers-color-scheme: dark)"
    assert source.attributes["srcset"] != image.attributes["src"]
    assert image.attributes["alt"] == f"A line of {HOSTILE}"
    assert image.attributes["src"].startswith("data:image/png;base64,")


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
    assert text in drawing.markup()
    assert Image.open(io.BytesIO(drawing.write_png(tmp_path).read_bytes())).size
