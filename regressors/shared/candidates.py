"""Reading a pipeline and a grid: which candidates a shared computation can answer, and why the others not."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVR

from regressors.bands import BandScaler, SelectBands, locate_bands
from regressors.checks import Estimator, IntArray, Table
from regressors.shared.lapack import is_available
from regressors.svr import UnitSVR

_FAMILIES: Mapping[type, str] = MappingProxyType(
    {Ridge: "ridge", KernelRidge: "kernel-ridge", SVR: "svr", UnitSVR: "unit-svr"}
)
# What a grid may vary; gamma comes last, because the kernels of one gamma are shared.
_PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ridge": ("alpha",),
        "kernel-ridge": ("alpha", "gamma"),
        "svr": ("C", "epsilon", "gamma"),
        "unit-svr": ("C", "epsilon", "gamma"),
    }
)
_KERNELS = ("linear", "rbf")


@dataclass(frozen=True)
class Candidate:
    """One point of a grid in the terms of the shared computation.

    Attributes
    ----------
    family : {"ridge", "kernel-ridge", "svr", "unit-svr"}
        Kind of regressor.
    bands : tuple of str
        Bands, in the table's order.
    weights : tuple of float
        Weight of each of ``bands``.
    unit_band : bool
        Whether each band is brought to total variance 1 first.
    values : tuple of float
        (alpha,), (alpha, gamma) or (C, epsilon, gamma); gamma is 0 for the linear kernel.
    solver : tuple of float
        () or (tol, max_iter, cache size in MB, whether to shrink).
    kernel : {"linear", "rbf"}
        The kernel; ridge is linear.
    """

    family: str
    bands: tuple[str, ...]
    weights: tuple[float, ...]
    unit_band: bool
    values: tuple[float, ...]
    solver: tuple[float, ...] = ()
    kernel: str = "linear"


def why_not(pipeline: Estimator) -> str | None:
    """Say why a pipeline cannot take the shared computation, whatever its grid.

    Parameters
    ----------
    pipeline : estimator
        The estimator of the search.

    Returns
    -------
    str, or None
        None when it can.
    """
    if type(pipeline) is not Pipeline:
        return f"the estimator is a {type(pipeline).__name__}, not a Pipeline"
    if len(pipeline.steps) != 3:
        return f"the pipeline has {len(pipeline.steps)} steps, not select, scale, regress"
    select, scale, regress = (step for _, step in pipeline.steps)
    if type(select) is not SelectBands:
        return f"the first step is a {type(select).__name__}, not SelectBands"
    if type(scale) not in (StandardScaler, MinMaxScaler, BandScaler):
        return f"the second step is a {type(scale).__name__}, not StandardScaler, MinMaxScaler or BandScaler"
    if type(regress) not in _FAMILIES:
        return f"the last step is a {type(regress).__name__}, not Ridge, KernelRidge, SVR or UnitSVR"
    if pipeline.memory is not None or getattr(pipeline, "transform_input", None) is not None:
        return "the pipeline has a memory or transforms its fit parameters"
    if pipeline.verbose:
        return "the pipeline reports its steps"
    if type(scale) is StandardScaler and not (scale.with_mean and scale.with_std):
        return "the StandardScaler does not standardise"
    if type(scale) is MinMaxScaler and (scale.clip or tuple(scale.feature_range) != (0, 1)):
        return "the MinMaxScaler clips, or scales to another range than 0 to 1"
    if type(regress) is KernelRidge and regress.kernel_params is not None:
        return "the KernelRidge gives its kernel parameters of its own"
    if type(regress) is SVR and regress.verbose:
        return "the SVR reports its steps"
    if type(regress) is Ridge and not (regress.fit_intercept and not regress.positive):
        return "the Ridge has no intercept, or positive coefficients only"
    if not is_available():
        return "this SciPy does not export the LAPACK routines that the shared computation calls"
    if type(regress) is Ridge and regress.solver not in ("auto", "cholesky"):
        return f"the Ridge has the solver {regress.solver!r}, not 'auto' or 'cholesky'"
    return None


def unknown_parameter(pipeline: Pipeline, names: set[str]) -> str | None:
    """Return a parameter of a grid that the shared computation does not know, if there is one.

    Parameters
    ----------
    pipeline : Pipeline
        One that passes `why_not`.
    names : set of str
        Names in the grid.

    Returns
    -------
    str, or None
    """
    (select, _), (scale, scaler), (regress, regressor) = pipeline.steps
    known = {f"{select}__bands"}
    if type(scaler) is BandScaler:
        known |= {f"{scale}__band_weights", f"{scale}__unit_band"}
    family = _FAMILIES[type(regressor)]
    own = _PARAMETERS[family] if family == "ridge" else (*_PARAMETERS[family], "kernel")
    known |= {f"{regress}__{name}" for name in own}
    return next((name for name in sorted(names) if name not in known), None)


def table_bands(pipeline: Pipeline, X: Table, n_features: int) -> dict[str, IntArray]:
    """Locate the bands of a table as the pipeline's first step does.

    Parameters
    ----------
    pipeline : Pipeline
        One that passes `why_not`.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    n_features : int
        Number of columns.

    Returns
    -------
    dict of str to int array

    Raises
    ------
    TypeError, ValueError
        If the names are not admissible.
    """
    labels = getattr(X, "columns", None)
    names = [] if labels is None else labels.tolist()
    has_names = any(isinstance(name, str) for name in names)
    return locate_bands(names if has_names else None, n_features)


def read_candidate(
    pipeline: Pipeline,
    parameters: Mapping[str, Any],
    bands: Mapping[str, IntArray],
    *,
    has_names: bool,
    defaults: Mapping[str, Any] | None = None,
) -> Candidate | None:
    """Read one point of a grid.

    Parameters
    ----------
    pipeline : Pipeline
        One that passes `why_not`, with what the grid leaves as it is.
    parameters : mapping of str to object
        The point of the grid.
    bands : mapping of str to int array
        Bands of the table.
    has_names : bool
        Whether the second step sees the names of the columns.
    defaults : mapping of str to object, optional
        What ``pipeline.get_params()`` returns, for a caller that reads many points of one pipeline.

    Returns
    -------
    Candidate, or None
        None for a point that is not admissible, or whose meaning is not plain; scikit-learn then fits it and
        raises its own error.
    """
    settings = {**(pipeline.get_params() if defaults is None else defaults), **parameters}
    (select, _), (scale, scaler), (regress, regressor) = pipeline.steps
    asked = settings[f"{select}__bands"]
    if asked is not None and (isinstance(asked, str) or not _all_in(asked, bands)):
        return None
    chosen = tuple(band for band in bands if asked is None or band in asked)
    if not chosen:
        return None
    weights, unit_band = (1.0,) * len(chosen), False
    if type(scaler) is BandScaler:
        by_band = dict(settings[f"{scale}__band_weights"] or {})
        unit_band = bool(settings[f"{scale}__unit_band"])
        if (by_band or unit_band) and not has_names and tuple(bands) != chosen[:1]:
            return None
        if not _all_in(by_band, chosen) or not all(_is_number(w, positive=True) for w in by_band.values()):
            return None
        weights = tuple(float(by_band.get(band, 1.0)) for band in chosen)
    family = _FAMILIES[type(regressor)]
    own = {name: settings[f"{regress}__{name}"] for name in _PARAMETERS[family]}
    kernel = "linear" if family == "ridge" else settings[f"{regress}__kernel"]
    if kernel not in _KERNELS:
        return None
    if family != "unit-svr" and kernel == "linear" and own.get("gamma") in ("scale", "auto", None):
        own["gamma"] = 0.0
    # A penalty of zero, and epsilon alone, which may be zero, are left to the checks of the estimators.
    may_be_zero = {"epsilon"} | ({"gamma"} if kernel == "linear" else set())
    if not all(_is_number(value, positive=name not in may_be_zero) for name, value in own.items()):
        return None
    if kernel == "linear" and "gamma" in own:
        own["gamma"] = 0.0
    numbers = tuple(float(own[name]) for name in _PARAMETERS[family])
    if not family.endswith("svr"):
        return Candidate(family, chosen, weights, unit_band, numbers, kernel=kernel)
    cache = "cache_size_mb" if family == "unit-svr" else "cache_size"
    solver = tuple(settings[f"{regress}__{name}"] for name in ("tol", "max_iter", cache))
    shrinking = True if family == "unit-svr" else settings[f"{regress}__shrinking"]
    if not all(_is_number(value) for value in solver):
        return None
    return Candidate(family, chosen, weights, unit_band, numbers, (*solver, bool(shrinking)), kernel)


def _all_in(names: Iterable[object], known: Container[str]) -> bool:
    try:
        return all(isinstance(name, str) and name in known for name in names)
    except TypeError:
        return False


def _is_number(value: object, *, positive: bool | None = None) -> bool:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    if positive is None:
        return True
    return bool(np.isfinite(value) and (value > 0 if positive else value >= 0))
