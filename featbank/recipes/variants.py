"""Every way in which a search may compute the bands of a recipe; features and searches read the same list."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from featbank.recipes.reading import BandRequest, Recipe
from featbank.recipes.search_space import SearchRequest


@dataclass(frozen=True)
class Variant:
    """One way to compute a band.

    Attributes
    ----------
    name : str
        The band's own name for the recipe's own variant, else with the view and aggregate that differ.
    band : str
        Band of the recipe.
    request : BandRequest
        Encoder, view and aggregate, under ``name``.
    """

    name: str
    band: str
    request: BandRequest


def list_variants(recipe: Recipe) -> dict[str, tuple[Variant, ...]]:
    """List every way in which a search may compute each band; the recipe's own comes first.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    dict of str to tuple of Variant
        By band, in the recipe's order.
    """
    search = recipe.search or SearchRequest()
    found: dict[str, tuple[Variant, ...]] = {}
    for band in recipe.bands:
        views = dict.fromkeys([band.view, *search.view.get(band.name, ())])
        aggregates = dict.fromkeys([band.aggregate, *search.aggregate.get(band.name, ())])
        variants = []
        for view, aggregate in itertools.product(views, aggregates):
            parts = [view] if view != band.view else []
            parts += [aggregate] if aggregate != band.aggregate else []
            name = "@".join([band.name, *parts])
            variants.append(
                Variant(name, band.name, replace(band, name=name, view=view, aggregate=aggregate))
            )
        found[band.name] = tuple(variants)
    return found
