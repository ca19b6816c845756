"""A dataset of many images without photos, with imported float16 bands that see its MOS, and a recipe on them."""

from pathlib import Path

import numpy as np
import pandas as pd

from featbank.recipes.reading import Recipe, parse_recipe

BANDS = ("quality", "content", "scene", "keypoint")

_STEP = 50_000


def recipe_text(estimator: str = "ridge") -> str:
    """A recipe of all bands."""
    bands = "".join(f'[[band]]\nname = "{name}"\nencoder = "imported:{name}"\n' for name in BANDS)
    return (
        f'recipe_version = 1\ntitle = "Four imported bands"\n{bands}[regression]\nestimator = "{estimator}"\n'
    )


def recipe(estimator: str = "ridge") -> Recipe:
    """The same, read."""
    return parse_recipe(recipe_text(estimator), "large")


def write_large(folder: Path, n_images: int, width: int, seed: int = 0) -> list[Path]:
    """Write ``scores.csv`` and one float16 NPY file for each band; return these files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n_images, 6)).astype(np.float32)
    signal = 0.1 * hidden[:, 0] + 0.06 * hidden[:, 1] + 0.03 * hidden[:, 2] * hidden[:, 0]
    mos = np.clip(0.5 + signal + 0.1 * rng.normal(size=n_images), 0, 1).round(4)
    number = np.arange(n_images)
    frame = pd.DataFrame(
        {
            "path": [f"photos/{k // 1000:04d}/{k:07d}.jpg" for k in number],
            "mos": mos,
            "group": [f"uploader {k}" for k in rng.integers(0, max(10, n_images // 5), n_images)],
        }
    )
    frame.to_csv(folder / "scores.csv", index=False)
    files = []
    for place, name in enumerate(BANDS):
        mix = (0.3 * rng.normal(size=(6, width))).astype(np.float32)
        files.append(folder / f"{name}.npy")
        matrix = np.lib.format.open_memmap(files[-1], mode="w+", dtype=np.float16, shape=(n_images, width))
        for start in range(0, n_images, _STEP):
            part = hidden[start : start + _STEP] @ mix + 0.2
            part += rng.normal(size=part.shape).astype(np.float32)
            matrix[start : start + _STEP] = np.maximum(part, 0) * np.float32(1 + place)
        matrix.flush()
    return files
