"""One module a subcommand: its arguments, its work, its output. They are thin: the work is done elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SIMULATION = "SIMULATION: rendered photos and simulated raters; this proves nothing about real photos."


@dataclass(frozen=True)
class Output:
    """What a command gives back: a JSON-able document, the same for people, and the exit code."""

    document: dict[str, Any]
    text: str
    exit_code: int = 0
