"""List what there is: encoders with role, licence and cost; views; recipes; datasets."""

from __future__ import annotations

import argparse
from typing import Any

from featbank.commands import Output

EXAMPLE = "example: featbank list encoders"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("encoders", "views", "recipes", "datasets"))


def run(options: argparse.Namespace) -> Output:
    """List."""
    rows = {"encoders": _encoders, "views": _views, "recipes": _recipes, "datasets": _datasets}[
        options.what
    ]()
    return Output({options.what: rows}, render_rows(rows))


def render_rows(rows: list[dict[str, Any]]) -> str:
    """Lay rows of equal keys out as aligned columns."""
    if not rows:
        return "none"
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    lines = [[*names], *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _encoders() -> list[dict[str, Any]]:
    from featbank.encoders import list_encoders, make_encoder

    return [
        {
            "name": spec.name,
            "role": spec.role,
            "columns": spec.n_features,
            "gmacs_224": make_encoder(spec.name).count_macs(224, 224) / 1e9,
            "params_m": make_encoder(spec.name).n_params / 1e6,
            "weights": spec.weights,
            "licence": spec.licence,
            "title": spec.title,
        }
        for spec in list_encoders()
    ] + [*_students(), *_networks()]


def _students() -> list[dict[str, Any]]:
    """Rows of the students that ship or were distilled here."""
    from featbank.encoders.students.description import (
        FAMILY,
        describe_student,
        distilled_students,
        shipped_students,
    )

    facts = [describe_student(name) for name in dict.fromkeys([*shipped_students(), *distilled_students()])]
    return [
        {
            "name": f"{FAMILY}:{student.name}",
            "role": "mobile",
            "columns": student.n_features,
            "gmacs_224": student.count_macs(224, 224) / 1e9,
            "params_m": student.n_params / 1e6,
            "weights": student.sha256[:12],
            "licence": student.licence,
            "title": student.title,
        }
        for student in facts
    ]


def _networks() -> list[dict[str, Any]]:
    """Rows of proven network encoders; their families take any other name as well."""
    from featbank.encoders.networks.catalogue import SHEETS, SUGGESTIONS

    facts = [
        (s.name, s.role, s.n_features, s.licence, f"{s.title}, {s.gmacs:g} GMACs at {s.side_px} px")
        for s in SUGGESTIONS
    ]
    facts += [
        (
            sheet.source.name,
            sheet.role,
            sheet.n_features,
            sheet.source.licence,
            f"{sheet.title}, {sheet.gmacs_224:g} GMACs at 224 px",
        )
        for sheet in SHEETS.values()
    ]
    return [
        {
            "name": name,
            "role": role,
            "columns": n_features,
            "gmacs_224": None,
            "params_m": None,
            "weights": name,
            "licence": licence,
            "title": title,
        }
        for name, role, n_features, licence, title in facts
    ]


def _views() -> list[dict[str, Any]]:
    from featbank.views import list_views

    return [{"view": name, "purpose": purpose} for name, purpose in list_views()]


def _recipes() -> list[dict[str, Any]]:
    from featbank.recipes.reading import builtin_recipes, read_recipe

    recipes = [read_recipe(name) for name in builtin_recipes()]
    return [
        {
            "recipe": recipe.name,
            "bands": len(recipe.bands),
            "estimator": recipe.regression.estimator,
            "title": recipe.title,
        }
        for recipe in recipes
    ]


def _datasets() -> list[dict[str, Any]]:
    from featbank.datasets import list_datasets

    return [info._asdict() for info in list_datasets()]
