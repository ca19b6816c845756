"""Pages that are made at build time, so that they cannot fall behind the code: commands and regressors."""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import regressors
from featbank.cli import COMMANDS, make_parser

_EVERYWHERE = {"help", "json", "quiet", "verbose"}
BENCHMARKS = Path(__file__).parents[1] / "experiments/benchmarks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    for name, text in {"commands": commands_page(), "regressors": regressors_page()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put measured tables in the places of ``{{ FILE.csv }}``."""
    return re.sub(r"\{\{ (\w+\.csv) \}\}", lambda found: measured(BENCHMARKS / found[1]), markdown)


def on_page_content(html: str, **_: object) -> str:
    """Show numpydoc's references, ``[1]_`` and ``.. [1]``, as numbers in brackets."""
    return re.sub(r"(?:\.\. )?\[(\d+)\]_?", r"[\1]", html)


def measured(path: Path) -> str:
    """Lay out a table of measurements; the machine stands below it, once."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    machines = dict.fromkeys(row.pop("machine") for row in rows)
    lines = [
        [name.replace("_", " ") for name in rows[0]],
        ["---"] * len(rows[0]),
        *(row.values() for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{'; '.join(machines)}.\n"


def regressors_page() -> str:
    """List every public name of `regressors`, by module."""
    lines = ["# Regressors", regressors.__doc__ or ""]
    for module, names in regressors._NAMES.items():
        lines += [f"## {module}"]
        lines += [
            f"::: regressors.{module}.{name}\n    options:\n      heading_level: 3" for name in names.split()
        ]
    return "\n\n".join(lines)


def commands_page() -> str:
    """Describe every command from its own parser."""
    lines = [
        "# Commands",
        "",
        "One console command, `featbank`. A command ends with 0 when done, 1 when the work could not be done (one "
        "message, no traceback), 2 for a usage error, 130 when interrupted. Progress and notes go to standard error. "
        "Besides the options below, every command takes",
        "",
        "- `--help`;",
        "- `--json`, which prints one JSON document on standard output;",
        "- `-q`, `--quiet`: neither progress nor notes, errors alone;",
        "- `-v`, `--verbose`: log what happens, with the traceback of an unexpected error.",
        "",
    ]
    for name in COMMANDS:
        lines += describe(make_parser(name), 2)
    return "\n".join(lines) + "\n"


def describe(parser: argparse.ArgumentParser, level: int) -> list[str]:
    """Write a parser's description, its example and its arguments; then those of its actions."""
    text, _, example = (parser.description or "").partition("For example:\n")
    lines = [f"{'#' * level} {parser.prog}", "", escaped(text.strip()), ""]
    if example:
        lines += ["```sh", *(line.strip() for line in example.strip().splitlines()), "```", ""]
    formatter = parser._get_formatter()
    nested: list[argparse.ArgumentParser] = []
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            nested = list(action.choices.values())
        elif action.help != argparse.SUPPRESS and action.dest not in _EVERYWHERE:
            shown = formatter._format_action_invocation(action)
            rows.append(f"`{shown}`\n:   {escaped(formatter._expand_help(action)) if action.help else ''}\n")
    lines += [*rows, ""]
    for inner in nested:
        lines += describe(inner, level + 1)
    return lines


def escaped(text: str) -> str:
    """Write text so that Markdown shows it as it stands, with options and files as code."""
    text = re.sub(r"([*_<>\[\]])", r"\\\1", text)
    return re.sub(r"(?<![\w-])(--[a-z][a-z-]+)", r"`\1`", text)
