"""The subcommands by topic: their arguments, work and output. They are thin: the work is done elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featbank.errors import redact

if TYPE_CHECKING:
    import argparse

SIMULATION = "SIMULATION: rendered photos and simulated raters; this proves nothing about real photos."


@dataclass(frozen=True)
class Output:
    """What a command gives back: a JSON-able document, the same for people, and the exit code."""

    document: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Command:
    """A subcommand: what its help says, its arguments, its work."""

    description: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Output]


def say(line: str) -> None:
    """Print a line of progress on standard error, without credentials of URLs."""
    print(redact(line), file=sys.stderr)


def render_rows(rows: list[dict[str, Any]]) -> str:
    """Lay rows of equal keys out as aligned columns."""
    if not rows:
        return "none"
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
