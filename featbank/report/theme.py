"""The report's colours, in light and dark, and matplotlib settings made from them; draws no figure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import matplotlib as mpl


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

    def named(self) -> dict[str, str]:
        """Every colour by a flat name, ``series-0`` for the first of a series."""
        flat: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                flat[field.name] = value
            else:
                flat.update({f"{field.name}-{i}": colour for i, colour in enumerate(value)})
        return flat


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


def _placeholder_theme() -> Theme:
    # Colours that nothing else uses: an inline figure is drawn in them once, then each is replaced by the CSS
    # variable of its name, so that one drawing follows the reader's light or dark setting.
    names = list(LIGHT.named())
    codes = {name: f"#fa{i:02x}fb" for i, name in enumerate(names)}
    colours: dict[str, Any] = {}
    for field in fields(Theme):
        several = tuple(codes[name] for name in names if name.startswith(f"{field.name}-"))
        colours[field.name] = several or codes[field.name]
    return Theme(**colours)


PLACEHOLDERS = _placeholder_theme()


def css_variables(theme: Theme) -> str:
    """Write a theme as CSS custom properties, ``--ink: #1b2430;`` and so on."""
    return " ".join(f"--{name}: {colour};" for name, colour in theme.named().items())


@contextmanager
def drawing_settings(theme: Theme) -> Iterator[None]:
    """Draw in ``theme`` inside the block; matplotlib's settings are as before after it.

    The reader's own style files play no part, so a figure is the same on every machine.
    """
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
        "svg.fonttype": "none",  # text stays text: small, selectable, in the page's own font
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
