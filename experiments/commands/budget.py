"""List the cost of a recipe: GMACs, parameters and crops of every pass, and their sum against the budget.

GMACs are multiply-accumulates in units of 1e9 for one UHD-1 image of 3840 x 2160 pixels; bands that share a
forward pass pay once. Weight-free encoders count their filter arithmetic by formula.
"""

from __future__ import annotations

import argparse

from experiments.commands import Output
from experiments.commands.list import render_rows

EXAMPLE = "example: featbank budget starter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", metavar="R", nargs="?", default="starter", help="recipe name or TOML file")


def run(options: argparse.Namespace) -> Output:
    """Count."""
    from experiments.recipe import read_recipe
    from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX, make_feature
    from regressors.budget import sum_gmacs

    recipe = read_recipe(options.recipe)
    rows: list[dict[str, object]] = []
    passes: list[tuple[str, float]] = []
    owners: dict[str, str] = {}
    for band in recipe.bands:
        if band.encoder.startswith("imported:"):
            rows.append(_row(band.name, band.encoder, "none", None, None, None, "stated at import"))
            continue
        feature = make_feature(band.encoder, band.view, band.aggregate)
        shared = [
            row["band"] for row, other in zip(rows, passes, strict=False) if other[0] == feature.pass_id
        ]
        n_crops = sum(scale[0] for scale in feature.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX))
        owners[band.name] = feature.pass_id
        passes.append((feature.pass_id, feature.gmacs()))
        note = f"shares the pass of {shared[0]}" if shared else ""
        rows.append(
            _row(
                band.name,
                band.encoder,
                feature.view.name,
                n_crops,
                passes[-1][1],
                feature.encoder.n_params / 1e6,
                note,
            )
        )
    total = sum_gmacs(passes)
    budget = recipe.regression.budget_gmacs
    document = {
        "recipe": recipe.name,
        "counter": "formula of the filter arithmetic",
        "height": UHD_HEIGHT_PX,
        "width": UHD_WIDTH_PX,
        "bands": rows,
        "gmacs": total,
        "budget_gmacs": budget,
        "within_budget": total <= budget,
    }
    verdict = "within" if total <= budget else "OVER"
    size = f"image {UHD_WIDTH_PX} x {UHD_HEIGHT_PX}"
    return Output(
        document,
        f"{render_rows(rows)}\n\nsum {total:.3f} GMACs, {verdict} the budget of {budget:g} ({size})",
    )


def _row(
    band: str,
    encoder: str,
    view: str,
    n_crops: int | None,
    gmacs: float | None,
    params_m: float | None,
    note: str,
) -> dict[str, object]:
    return {
        "band": band,
        "encoder": encoder,
        "view": view,
        "crops": n_crops,
        "gmacs": gmacs,
        "params_m": params_m,
        "note": note,
    }
