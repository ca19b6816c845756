"""Keys, vectors and features for the tests of the bank."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featbank.bank import Bank, FeatureFolder


def image_key(number: int) -> str:
    """The key of an imaginary image."""
    return hashlib.sha256(f"image {number}".encode()).hexdigest()


def image_keys(numbers: Sequence[int] | range) -> list[str]:
    return [image_key(number) for number in numbers]


def rows_of(keys: Sequence[str], n_features: int = 5) -> NDArray[np.float32]:
    """Vectors that follow from the keys, so that any process can tell whether a row is right."""
    rows = [np.frombuffer(hashlib.shake_128(key.encode()).digest(2 * n_features), "<i2") for key in keys]
    return np.array(rows, dtype=np.float32).reshape(len(keys), n_features) / 1024


def open_feature(
    root: str | Path, n_features: int = 5, dtype: str = "float32", name: str = "test"
) -> FeatureFolder:
    identity = {"encoder": f"classic:{name}", "dtype": dtype, "n_features": n_features}
    return Bank(root).open(identity, n_features, name, dtype)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fill(feature: FeatureFolder, numbers: Sequence[int] | range, batch: int = 4) -> list[str]:
    """Append the rows of images in batches; returns their keys."""
    keys = image_keys(numbers)
    for start in range(0, len(keys), batch):
        part = keys[start : start + batch]
        feature.append(part, rows_of(part, feature.n_features))
    return keys
