"""From photographs to frozen features, and from features to scores.

The names below are what a notebook or a service needs; each is loaded when it is first used. The parts behind them:
images, views, encoders, datasets, bank, extract and table for features; recipes, runs, search, protocols, leaderboard,
distill, report and commands for what is made of them.
"""

import os
import sys

# `python -m featbank` puts the current folder first on the module path, where a stranger's `random.py` may lie:
# off it goes before anything else is imported (also `typing`), unless it is the checkout that holds this package.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and os.path.dirname(__path__[0]) != sys.path[0]:  # noqa: PTH120
    del sys.path[0]

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featbank.library import (
        BandRequest,
        Features,
        FitOptions,
        FrozenFeatures,
        Recipe,
        RegressionRequest,
        Run,
        Scorer,
        ablate,
        fit,
        open_table,
        read_dataset,
    )

__version__ = "0.1.0"

__all__ = [
    "BandRequest",
    "Features",
    "FitOptions",
    "FrozenFeatures",
    "Recipe",
    "RegressionRequest",
    "Run",
    "Scorer",
    "ablate",
    "fit",
    "open_table",
    "read_dataset",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'featbank' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(importlib.import_module("featbank.library"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
