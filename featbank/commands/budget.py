"""List the cost of a recipe: GMACs, parameters and crops of every pass, and their sum against the budget.

GMACs are multiply-accumulates in units of 1e9 for one UHD-1 image of 3840 x 2160 pixels; bands that share a
forward pass pay once. Networks are counted by torch's dispatcher-level counter on the meta device, students by the
layers they list, weight-free encoders by a formula of their filter arithmetic; no weights are needed. Where the recipe
is the counterpart of a system of the AIM 2024 report, the figure of its Table 4 stands beside ours with the reason for
a difference. Ends with 1 where the sum is over the budget.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from featbank.commands import Output
from featbank.commands.list import render_rows
from featbank.commands.options import add_code

if TYPE_CHECKING:
    from featbank.feature import Feature

EXAMPLE = "example: featbank budget icl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", metavar="R", nargs="?", default="starter", help="recipe name or TOML file")
    add_code(parser)


def run(options: argparse.Namespace) -> Output:
    """Count."""
    from featbank.encoders.macs import COUNTER
    from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX, make_feature
    from featbank.leaderboard.published import cost_by_recipe
    from featbank.recipes.reading import read_recipe
    from regressors.budget import sum_gmacs

    recipe = read_recipe(options.recipe)
    rows: list[dict[str, Any]] = []
    passes: list[tuple[str, float]] = []
    owners: dict[str, str] = {}
    prompts: list[dict[str, Any]] = []
    encoders: dict[str, tuple[int, int | None]] = {}
    counters: dict[str, str | None] = {}
    for band in recipe.bands:
        if band.encoder.startswith("imported:"):
            rows.append(_row(band.name, band.encoder, "none", "stated at import"))
            continue
        feature = make_feature(band.encoder, band.view, band.aggregate)
        owner = owners.setdefault(feature.pass_id, band.name)
        gmacs = feature.gmacs()
        passes.append((feature.pass_id, gmacs))
        executed = feature.encoder.n_params
        published = getattr(feature.encoder, "n_params_published", 0) or None
        encoders[_network(feature)] = (executed, published)
        if getattr(feature.encoder, "blueprint", None) is not None:
            counters[COUNTER] = _counter_version()
        else:
            # A student's description lists what that counter found when it was made.
            counters["layers that the student lists" if executed else "formula of the filter arithmetic"] = (
                None
            )
        rows.append(
            _row(
                band.name,
                band.encoder,
                feature.view.name,
                "" if owner == band.name else f"shares the pass of {owner}",
            )
            | {
                "crops": sum(scale[0] for scale in feature.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)),
                "gmacs": gmacs,
                "params_m": executed / 1e6,
                "published_params_m": None if published is None else published / 1e6,
                "columns": feature.n_features,
            }
        )
        if all(item["encoder"] != band.encoder for item in prompts):
            prompts += _text_cost(band.name, feature)
    total = sum_gmacs(passes)
    budget = recipe.regression.budget_gmacs
    published_row = cost_by_recipe().get(recipe.name)
    document = {
        "recipe": recipe.name,
        "counter": "; ".join(sorted(counters)) or "none",
        "counter_version": next(filter(None, counters.values()), None),
        "height": UHD_HEIGHT_PX,
        "width": UHD_WIDTH_PX,
        "bands": rows,
        "gmacs": total,
        "params_m": sum(executed for executed, _ in encoders.values()) / 1e6,
        "published_params_m": sum(published or executed for executed, published in encoders.values()) / 1e6,
        "budget_gmacs": budget,
        "within_budget": total <= budget,
        "once": prompts,
        "table_4": None
        if published_row is None
        else {
            "system": published_row.system,
            "gmacs": published_row.gmacs,
            "params_m": published_row.params_m,
            "explanation": published_row.explanation,
        },
    }
    return Output(document, _text(document), 0 if total <= budget else 1)


def _text(document: dict[str, Any]) -> str:
    verdict = "within" if document["within_budget"] else "OVER"
    counter = document["counter"] + (
        f" ({document['counter_version']})" if document["counter_version"] else ""
    )
    lines = [
        render_rows(document["bands"]),
        "",
        f"sum {document['gmacs']:.3f} GMACs, {verdict} the budget of {document['budget_gmacs']:g} "
        f"(image {document['width']} x {document['height']})",
        f"parameters {document['params_m']:.3f} M executed, {document['published_params_m']:.3f} M in the published "
        "networks with their heads",
        f"counter: {counter}",
    ]
    lines += [
        f"once, whatever the number of images: {item['gmacs']:.3f} GMACs for {item['n_prompts']} prompts of band "
        f"{item['band']}"
        for item in document["once"]
    ]
    if document["table_4"]:
        row = document["table_4"]
        lines.append(
            f"the report's Table 4 for {row['system']}: {row['gmacs']:g} GMACs, {row['params_m']:g} M parameters. "
            f"{row['explanation'][0].upper()}{row['explanation'][1:]}"
        )
    return "\n".join(lines)


def _network(feature: Feature) -> str:
    """Name the weights: bands that read one network count its parameters once."""
    blueprint = getattr(feature.encoder, "blueprint", None)
    return (
        feature.encoder.spec.name if blueprint is None else f"{blueprint.base} {feature.encoder.spec.weights}"
    )


def _text_cost(band: str, feature: Feature) -> list[dict[str, Any]]:
    prompts = getattr(feature.encoder, "prompts", "")
    blueprint = getattr(feature.encoder, "blueprint", None)
    if not prompts or blueprint is None or not blueprint.text_model:
        return []
    from featbank.encoders.networks.clip import count_prompt_gmacs

    return [
        {
            "band": band,
            "encoder": feature.encoder.spec.name,
            "n_prompts": feature.encoder.spec.n_features,
            "gmacs": count_prompt_gmacs(blueprint, prompts),
        }
    ]


def _counter_version() -> str:
    from importlib.metadata import version

    return f"torch {version('torch')}"


def _row(band: str, encoder: str, view: str, note: str) -> dict[str, Any]:
    return {
        "band": band,
        "encoder": encoder,
        "view": view,
        "crops": None,
        "columns": None,
        "gmacs": None,
        "params_m": None,
        "published_params_m": None,
        "note": note,
    }
