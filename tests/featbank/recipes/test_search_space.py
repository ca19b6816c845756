"""``[search]`` is as strict as the rest of a recipe, and changes nothing where it is not there."""

import re

import pytest

from featbank.errors import RecipeError
from featbank.recipes.reading import list_variants, parse_recipe, read_recipe

BASE = """
recipe_version = 1
[[band]]
name = "quality"
encoder = "classic:nss"
view = "width_960"
[[band]]
name = "mine"
encoder = "imported:mine"
"""


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("[search]\nestimators = ['ridge']", "Did you mean estimator"),
        ("[search]\nestimator = ['rigde']", "Did you mean 'ridge'"),
        ("[search]\nestimator = 'ridge'", "must be a list of choices"),
        ("[search]\ncombine = []", "must be a list of choices"),
        ("[search]\ncombine = ['nnls', 'nnls']", "each choice once"),
        ("[search]\nunit_band = ['yes']", "true or false"),
        ("[search.view]\nqualty = ['native']", "Did you mean quality"),
        ("[search.view]\nmine = ['native']", "computed elsewhere"),
        ("[search.aggregate]\nquality = [1]", "must be text"),
        ("[[search]]\nmembers = ['all']", "must be a table"),
    ],
)
def test_a_broken_search_is_refused_with_the_key_named(addition: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(expected)):
        parse_recipe(BASE + addition, "broken")


def test_without_a_search_the_digest_is_as_it_was_and_with_one_it_is_not() -> None:
    plain = parse_recipe(BASE, "plain")
    assert plain.search is None
    assert "search" not in plain.to_toml()
    opened = parse_recipe(BASE + "[search]\nestimator = ['rbf-svr']", "opened")
    assert opened.digest != plain.digest
    assert opened.regression == plain.regression


def test_writing_and_reading_back_gives_the_same_recipe() -> None:
    text = BASE + "[search]\nunit_band = [true]\nmembers = ['each']\n[search.view]\nquality = ['native']\n"
    recipe = parse_recipe(text, "trip")
    again = parse_recipe(recipe.to_toml(), "trip")
    assert again == recipe
    assert again.digest == recipe.digest


def test_the_own_variant_comes_first_and_every_variant_has_a_name() -> None:
    recipe = read_recipe("search-classic")
    variants = list_variants(recipe)
    names = [variant.name for row in variants.values() for variant in row]
    assert len(variants) >= 8
    assert len(set(names)) == len(names) > len(variants)
    for band, row in zip(recipe.bands, variants.values(), strict=True):
        assert row[0].request == band
