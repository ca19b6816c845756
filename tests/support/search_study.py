"""A dataset of imported bands for searches: eight bands, three of them useful, two that share a pass."""

from pathlib import Path

import numpy as np
import pandas as pd

from featbank.bank import Bank
from featbank.datasets import ImageTable, read_dataset
from featbank.importing import import_features
from featbank.recipes.reading import Recipe, parse_recipe
from featbank.search.space import Space
from tests.support.imported_run import write_scores

# Strength of the MOS in each band, and its cost.
BANDS = {
    "a": (1.0, 20.0),
    "b": (0.8, 18.0),
    "c": (0.6, 4.0),
    "d": (0.3, 2.0),
    "e": (0.0, 1.0),
    "f": (0.0, 30.0),
    "g": (0.5, 12.0),
    "h": (0.2, 0.5),
}

REGRESSION = """
[regression]
members = "all"
combine = "nnls"
alpha = [1.0, 10.0, 100.0]
cv = { n_splits = 3 }
"""

SEARCH = """
[search]
unit_band = [true]
members = ["each", "all+leave-one-out"]
combine = ["uniform", "simplex"]
"""


def recipe_text(bands: list[str] | None = None, *, search: str = "") -> str:
    rows = "".join(
        f'[[band]]\nname = "{name}"\nencoder = "imported:{name}"\n' for name in bands or list(BANDS)
    )
    return f'recipe_version = 1\ntitle = "Synthetic bands to search among"\n{rows}{REGRESSION}{search}'


def fill_bank(table: ImageTable, folder: Path, *, seed: int = 3) -> Bank:
    bank = Bank(folder)
    rng = np.random.default_rng(seed)
    y = table.frame["mos"].to_numpy()
    y = (y - y.mean()) / y.std()
    for name, (strength, gmacs) in BANDS.items():
        matrix = strength * np.outer(y, rng.normal(size=4)) + 2 * rng.normal(size=(len(y), 4))
        import_features(table, bank, name, None, matrix, source_digest=name, gmacs=gmacs)
    return bank


def prepare_study(
    folder: Path, bands: list[str] | None = None, *, search: str = "", with_split: bool = True
) -> tuple[ImageTable, Recipe, Bank]:
    """Dataset, recipe and bank, ready for a search; ``folder/recipe.toml`` holds the recipe."""
    table = read_dataset(write_scores(folder, with_split=with_split))
    text = recipe_text(bands, search=search)
    (folder / "recipe.toml").write_text(text)
    return table, parse_recipe(text, "recipe"), fill_bank(table, folder / "bank")


def study_parts(
    bands: list[str] | None = None,
    *,
    search: str = "",
    budget: float = 50.0,
    n_images: int = 90,
    seed: int = 0,
    strength: float = 1.0,
) -> tuple[Space, pd.DataFrame, pd.DataFrame]:
    """A space and training rows without bank or dataset; ``strength=0`` makes every band pure noise."""
    recipe = parse_recipe(recipe_text(bands, search=search), "recipe")
    names = [band.name for band in recipe.bands]
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n_images)
    index = pd.Index([f"{number}.jpg" for number in range(n_images)], name="image_id")
    blocks = {
        f"{name}:{column:04d}": strength * BANDS[name][0] * y + 2 * rng.normal(size=n_images)
        for name in names
        for column in range(3)
    }
    rows = pd.DataFrame({"mos": y, "group": [f"g{number // 3}" for number in range(n_images)]}, index=index)
    space = Space(recipe, {name: (name, BANDS[name][1]) for name in names}, budget)
    return space, pd.DataFrame(blocks, index=index), rows
