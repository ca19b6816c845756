"""The kinds of estimator that recipes, searches and ensembles name, with the grids that they search by default.

The one place for both: importing it loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of estimator.

    Attributes
    ----------
    grid : tuple of str
        Names of its hyper-parameters, keys of `DEFAULT_GRID`.
    is_additive : bool
        Whether its prediction is a constant plus one part per band.
    kernel : str
        Kernel of a support-vector regressor; empty for a ridge, the only kind that can be fitted out of core.
    has_band_weights : bool
        Whether it always searches weights of bands.
    """

    grid: tuple[str, ...]
    is_additive: bool = True
    kernel: str = ""
    has_band_weights: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "ridge": Kind(("alpha",)),
        "banded-ridge": Kind(("alpha",), has_band_weights=True),
        "linear-svr": Kind(("C", "epsilon"), kernel="linear"),
        "rbf-svr": Kind(("C", "epsilon", "gamma"), is_additive=False, kernel="rbf"),
    }
)
"""By name."""

ESTIMATORS = tuple(KINDS)

DEFAULT_GRID: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "alpha": tuple(float(f"1e{exponent}") for exponent in range(-6, 7)),
        "C": (0.1, 1.0, 10.0, 100.0),
        "epsilon": (0.1,),
        "gamma": (0.03, 0.1, 0.3, 1.0),
    }
)
"""Penalties as in the AIM 2024 report, section 2.9 (team ICL); the others in units of `regressors.svr.UnitSVR`."""
