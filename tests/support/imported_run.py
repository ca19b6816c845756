"""A dataset without photos, three imported bands and a recipe on them: a whole run in a second."""

from pathlib import Path

import numpy as np
import pandas as pd

from featbank.bank import Bank
from featbank.datasets import ImageTable, read_dataset
from featbank.importing import import_features
from featbank.recipes.reading import Recipe, parse_recipe

RECIPE = """
recipe_version = 1
title = "Three synthetic bands"
[[band]]
name = "sharp"
encoder = "imported:sharp"
[[band]]
name = "noise"
encoder = "imported:noise"
[[band]]
name = "dull"
encoder = "imported:dull"
[regression]
alpha = [0.1, 1.0, 10.0, 100.0]
"""


def write_scores(folder: Path, n_images: int = 160, *, with_split: bool = True, seed: int = 0) -> Path:
    """A CSV of MOS in [0, 1] with groups, a split and exclusive images; the images do not exist."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "path": [f"{number:03d}.jpg" for number in range(n_images)],
            "mos": rng.beta(4, 2, n_images).round(4),
            "group": [f"uploader {number // 4}" for number in range(n_images)],
        }
    )
    if with_split:
        share = np.arange(n_images) / n_images
        frame["split"] = np.where(share < 0.6, "training", np.where(share < 0.8, "validation", "test"))
        frame["subset"] = np.where((share >= 0.6) & (np.arange(n_images) % 3 == 0), "exclusive", "")
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "scores.csv", index=False)
    return folder / "scores.csv"


def import_bands(table: ImageTable, bank: Bank, *, seed: int = 1) -> None:
    """Two bands that see the MOS through noise, one that does not."""
    rng = np.random.default_rng(seed)
    y = table.frame["mos"].to_numpy()
    y = (y - y.mean()) / y.std()
    for name, strength, width in (("sharp", 1.0, 12), ("noise", 0.7, 8), ("dull", 0.0, 5)):
        matrix = strength * np.outer(y, rng.normal(size=width)) + rng.normal(size=(len(y), width))
        import_features(table, bank, name, None, matrix, source_digest=name, gmacs=1.0)


def prepare(folder: Path, **options: bool) -> tuple[ImageTable, Recipe, Bank]:
    """Dataset, recipe and bank, ready for a run."""
    table = read_dataset(write_scores(folder, **options))
    bank = Bank(folder / "bank")
    import_bands(table, bank)
    return table, parse_recipe(RECIPE, "synthetic"), bank
