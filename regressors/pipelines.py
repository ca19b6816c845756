"""The table of estimator kinds, the pipelines of their members, and the grid search over them.

Importing it loads nothing heavy: recipes read the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from regressors.checks import Folds, Scorer, check_choice

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline


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
    is_plain : bool
        Whether its hyper-parameters are those of scikit-learn, in the units of the data.
    """

    grid: tuple[str, ...]
    is_additive: bool = True
    kernel: str = ""
    has_band_weights: bool = False
    is_plain: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "ridge": Kind(("alpha",)),
        "banded-ridge": Kind(("alpha",), has_band_weights=True),
        "linear-svr": Kind(("C", "epsilon"), kernel="linear"),
        "rbf-svr": Kind(("C", "epsilon", "gamma"), is_additive=False, kernel="rbf"),
        "plain-svr": Kind(("C", "epsilon", "gamma"), is_additive=False, kernel="rbf", is_plain=True),
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

SCALES = ("standard", "none", "minmax", "robust")
"""What is done to each column before the regressor: it is standardised, left as it is (up to an offset, of which ridges
and kernels take no notice), or divided by its range or by the distance of its quartiles."""

SELECTIONS = ("srcc", "plcc", "krcc", "rmse", "mae", "r2", "rmse_logistic")
"""What a search may select by: the names of `regressors.evaluation.metrics.SCORERS`."""

# Weight of a band that is held back relative to the others: ten times their penalty.
_HELD_BACK = 10**-0.5


def band_weight_candidates(
    bands: Sequence[str], *, n_random: int = 8, random_state: int | None = 0
) -> list[dict[str, float]]:
    """List the band weights that banded ridge tries, each with every alpha.

    All bands alike; each band favoured (the others at ten times its penalty); each band held back; then ``n_random``
    draws whose squared weights come from a Dirichlet distribution with concentration one [1]_. The largest weight is
    always 1.

    Parameters
    ----------
    bands : sequence of str
        Names of the bands, at least one, else a ValueError; with one band the only candidate is weight 1.
    n_random : int, default=8
        Number of random draws.
    random_state : int or None, default=0
        Seed of the draws.

    Returns
    -------
    list of dict of str to float
        Distinct candidates; weights in (0, 1].

    References
    ----------
    .. [1] T. Dupre la Tour, M. Eickenberg, A. Nunez-Elizalde and J. Gallant, "Feature-space selection with
       banded ridge regression", NeuroImage 264, 2022, section 2.4 (random search over the simplex).
    """
    names = list(bands)
    if not names:
        raise ValueError("band_weight_candidates: bands must name at least one band, got an empty list.")
    if len(names) == 1:
        return [{names[0]: 1.0}]
    rows = [np.ones(len(names))]
    for k in range(len(names)):
        favoured = np.full(len(names), _HELD_BACK)
        favoured[k] = 1.0
        held_back = np.ones(len(names))
        held_back[k] = _HELD_BACK
        rows += [favoured, held_back]
    draws = np.sqrt(np.random.default_rng(random_state).dirichlet(np.ones(len(names)), size=n_random))
    rows += list(np.maximum(draws / draws.max(axis=1, keepdims=True), 1e-6))
    distinct: dict[tuple[float, ...], None] = dict.fromkeys(tuple(float(w) for w in row) for row in rows)
    return [dict(zip(names, row, strict=True)) for row in distinct]


def make_pipeline(
    estimator: str = "ridge",
    bands: Sequence[str] | None = None,
    *,
    unit_band: bool = False,
    has_band_weights: bool = False,
    scale: str = "standard",
) -> Pipeline:
    """Build the unfitted pipeline of one member, with the steps "select", "scale" and "regress".

    Parameters
    ----------
    estimator : {"ridge", "banded-ridge", "linear-svr", "rbf-svr", "plain-svr"}, default="ridge"
        The regressor; a ValueError if it is unknown.
    bands : sequence of str, or None, default=None
        Bands the member sees; None for all.
    unit_band : bool, default=False
        Whether each band is scaled to total variance 1 (see `regressors.bands.BandScaler`).
    has_band_weights : bool, default=False
        Whether the scaler has weights of bands to set, as that of "banded-ridge" always has.
    scale : {"standard", "none", "minmax", "robust"}, default="standard"
        What is done to each column, see `SCALES`; a ValueError for another than "standard" beside weights of bands,
        which are weights of standardised columns.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
    from sklearn.svm import SVR

    from regressors.bands import BandScaler, SelectBands
    from regressors.svr import UnitSVR

    check_choice("make_pipeline", "estimator", estimator, ESTIMATORS)
    kind = KINDS[estimator]
    has_band_scaler = unit_band or has_band_weights or kind.has_band_weights
    check_choice("make_pipeline", "scale", scale, SCALES)
    if has_band_scaler and scale != "standard":
        raise ValueError(
            f"make_pipeline: unit_band and weights of bands are for standardised columns, got scale={scale!r}. "
            'Leave them out, or take scale="standard".'
        )
    regress = Ridge() if not kind.kernel else SVR() if kind.is_plain else UnitSVR(kernel=kind.kernel)
    scalers = {"none": StandardScaler(with_std=False), "minmax": MinMaxScaler(), "robust": RobustScaler()}
    scaler = BandScaler(unit_band=unit_band) if has_band_scaler else scalers.get(scale, StandardScaler())
    return Pipeline(
        [
            ("select", SelectBands(None if bands is None else list(bands), keep_names=has_band_scaler)),
            ("scale", scaler),
            ("regress", regress),
        ]
    )


def make_search(
    estimator: str = "ridge",
    bands: Sequence[str] | None = None,
    *,
    alpha: ArrayLike | None = None,
    C: ArrayLike | None = None,
    epsilon: ArrayLike | None = None,
    gamma: ArrayLike | None = None,
    band_weights: Sequence[Mapping[str, float]] | None = None,
    unit_band: bool = False,
    scale: str = "standard",
    cv: Folds = 5,
    scoring: str | Scorer = "srcc",
    n_jobs: int | None = None,
    random_state: int | None = 0,
    reference: bool = False,
) -> GridSearchCV:
    """Build the unfitted grid search of one member: a `regressors.search.BandGridSearchCV` unless ``reference``.

    Parameters
    ----------
    estimator : {"ridge", "banded-ridge", "linear-svr", "rbf-svr", "plain-svr"}, default="ridge"
        The regressor. Grids that do not belong to it are ignored.
    bands : sequence of str, or None, default=None
        Bands the member sees; None for all. "banded-ridge" needs their names.
    alpha : float array, optional
        Penalties of the ridges; by default, as the others, those of `DEFAULT_GRID`.
    C, epsilon, gamma : float array, optional
        Grids of the SVRs in the units of `regressors.svr.UnitSVR`, of "plain-svr" those of `sklearn.svm.SVR`; gamma
        for RBF kernels alone.
    band_weights : sequence of dict of str to float, optional
        Candidates for the weights of the bands, tried with every other parameter. None means all alike, but for
        "banded-ridge", whose default is `band_weight_candidates`.
    unit_band : bool, default=False
        Whether each band is scaled to total variance 1.
    scale : {"standard", "none", "minmax", "robust"}, default="standard"
        What is done to each column, as of `make_pipeline`.
    cv : int, splitter, or list of (train, test), default=5
        Folds, as in `GridSearchCV`; better explicit ones from `regressors.folds.make_folds`.
    scoring : str or scorer, default="srcc"
        A name from `regressors.evaluation.metrics.SCORERS`, one of scikit-learn's names, or a scorer.
    n_jobs : int or None, default=None
        Fits at once, as in `GridSearchCV`.
    random_state : int or None, default=0
        Seed of the default ``band_weights``.
    reference : bool, default=False
        Whether scikit-learn itself makes every fit, many times slower; the numbers are the same to 1e-8.

    Raises
    ------
    ValueError
        If a name is unknown, a grid is empty, or "banded-ridge" has no names of bands.
    """
    from sklearn.model_selection import GridSearchCV

    from regressors.search import BandGridSearchCV

    who = "make_search"
    check_choice(who, "estimator", estimator, ESTIMATORS)
    grid: dict[str, list[Any]] = {}
    if KINDS[estimator].has_band_weights or band_weights is not None:
        if band_weights is None:
            if bands is None:
                raise ValueError(
                    f"{who}: 'banded-ridge' needs the names of its bands, got bands=None. "
                    "Pass bands=list(band_columns(X.columns)), or band_weights."
                )
            band_weights = band_weight_candidates(bands, random_state=random_state)
        if not len(band_weights):
            raise ValueError(f"{who}: band_weights must hold at least one candidate, got an empty list.")
        grid["scale__band_weights"] = [dict(weights) for weights in band_weights]
    given = {"alpha": alpha, "C": C, "epsilon": epsilon, "gamma": gamma}
    for name in KINDS[estimator].grid:
        own = given[name]
        grid[f"regress__{name}"] = _values(who, name, DEFAULT_GRID[name] if own is None else own)
    return (GridSearchCV if reference else BandGridSearchCV)(
        make_pipeline(
            estimator, bands, unit_band=unit_band, has_band_weights=band_weights is not None, scale=scale
        ),
        grid,
        scoring=_scorer(scoring),
        cv=cv,
        n_jobs=n_jobs,
        error_score="raise",
    )


def readable_params(params: Mapping[str, Any]) -> dict[str, float]:
    """Shorten the parameters of a candidate for tables: "alpha", "C", ..., and "weight:<band>" for each band weight."""
    short: dict[str, float] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            short |= {f"weight:{band}": float(weight) for band, weight in value.items()}
        else:
            short[name.rpartition("__")[2]] = float(value)
    return short


def _values(who: str, name: str, grid: ArrayLike) -> list[float]:
    values = np.atleast_1d(np.asarray(grid, dtype=np.float64))
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"{who}: {name} must be a non-empty list of finite numbers, got {grid!r:.80}.")
    return [float(value) for value in values]


def _scorer(scoring: str | Scorer) -> Scorer:
    from sklearn.metrics import get_scorer

    from regressors.evaluation.metrics import SCORERS, make_metric_scorer

    if callable(scoring):
        return scoring
    if isinstance(scoring, str) and scoring in SCORERS:
        return make_metric_scorer(scoring)
    try:
        return get_scorer(scoring)
    except ValueError as error:
        raise ValueError(
            f"make_search: scoring must be one of {list(SCORERS)}, a scikit-learn scorer name, or a scorer, "
            f"got {scoring!r}."
        ) from error
