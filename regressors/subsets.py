"""Search over all band subsets within the compute budget, with an honest score for the winner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t as student_t
from sklearn.base import clone

from regressors.blocks import take_columns
from regressors.budget import is_within, sum_gmacs
from regressors.checks import FloatArray, Folds, IntArray
from regressors.ensemble import BandEnsemble
from regressors.fitting import take_rows
from regressors.folds import Fold, make_folds
from regressors.subset_scores import Subset, SubsetScore, SubsetScorer

MAX_SUBSETS = 2**12
"""Most subsets that are searched one and all."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class SubsetSearch:
    """Scores of all subsets within a budget.

    Attributes
    ----------
    frame : data frame
        One row per subset, best first; columns of `score_subsets`.
    best_bands : tuple of str
        Bands of the first row.
    best_score : float
        Score of the first row: the largest of many, so higher than new images will confirm.
    nested_score : float
        Mean score of the outer folds, in each of which subset and hyper-parameters were chosen on the other rows;
        what the whole search is worth. nan without outer folds.
    nested_scores : float64 array of shape (n_outer_splits,)
        Score of each outer fold, greater is better.
    nested_bands : list of tuple of str
        Subset chosen for each outer fold; where they differ, the choice is not settled by these data.
    """

    frame: pd.DataFrame
    best_bands: Subset
    best_score: float
    nested_score: float
    nested_scores: FloatArray
    nested_bands: list[Subset]


def list_subsets(
    bands: Sequence[str],
    gmacs: Mapping[str, float],
    budget: float,
    *,
    passes: Mapping[str, str] | None = None,
) -> list[Subset]:
    """List all subsets within a budget.

    Parameters
    ----------
    bands : sequence of str
        Bands to choose from.
    gmacs : mapping of str to float
        GMACs per image of each band's pass.
    budget : float
        Limit in GMACs per image, itself admissible.
    passes : mapping of str to str, optional
        Name of each band's pass. Bands that share one pay once; a band that is not named has its own.

    Returns
    -------
    list of tuple of str
        By number of bands, then in the order of ``bands``.

    Raises
    ------
    ValueError
        If a band has no cost, nothing fits the budget, or more than `MAX_SUBSETS` subsets do.

    Examples
    --------
    >>> from regressors.subsets import list_subsets
    >>> list_subsets(["a", "b", "c"], {"a": 30, "b": 30, "c": 20}, 50, passes={"a": "p", "b": "p"})
    [('a',), ('b',), ('c',), ('a', 'b'), ('a', 'c'), ('b', 'c'), ('a', 'b', 'c')]
    """
    who = "list_subsets"
    _check_costs(who, bands, gmacs)
    found: list[tuple[int, ...]] = []
    # Costs only grow with a subset, so what is over the budget has nothing within it above.
    open_ends: list[tuple[int, ...]] = [(k,) for k in range(len(bands))]
    while open_ends:
        chosen = open_ends.pop()
        if not is_within(_cost([bands[k] for k in chosen], gmacs, passes), budget):
            continue
        found.append(chosen)
        if len(found) > MAX_SUBSETS:
            raise ValueError(
                f"{who}: at most {MAX_SUBSETS} subsets are searched one and all, got more of {len(bands)} bands within "
                f"{budget:g} GMACs. Name fewer bands, lower the budget, or sample subsets and use score_subsets."
            )
        open_ends += [(*chosen, k) for k in range(chosen[-1] + 1, len(bands))]
    if not found:
        cheapest = min(bands, key=lambda band: gmacs[band])
        raise ValueError(
            f"{who}: the budget of {budget:g} GMACs admits no band, got {gmacs[cheapest]:g} for the cheapest, "
            f"{cheapest!r}. Raise the budget, or take smaller views."
        )
    return [tuple(bands[k] for k in chosen) for chosen in sorted(found, key=lambda c: (len(c), c))]


def score_subsets(
    table: pd.DataFrame,
    y: ArrayLike,
    subsets: Iterable[Iterable[str]],
    *,
    gmacs: Mapping[str, float] | None = None,
    passes: Mapping[str, str] | None = None,
    model: BandEnsemble | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Score given subsets by cross-validation, sharing the work among them.

    To score subsets in several steps, keep a `regressors.subset_scores.SubsetScorer` and tabulate what it returns
    by `tabulate_subsets`.

    Parameters
    ----------
    table : data frame of shape (n_rows, n_features)
        Feature table with string columns "band:0000".
    y : float array of shape (n_rows,)
        MOS.
    subsets : iterable of list of str
        Bands of each subset.
    gmacs : mapping of str to float, optional
        GMACs per image of each band's pass; without it costs are nan.
    passes : mapping of str to str, optional
        Name of each band's pass; see `list_subsets`.
    model : BandEnsemble, optional
        What is fitted on each subset; see `regressors.subset_scores.SubsetScorer`.
    groups : array of shape (n_rows,), optional
        Rows of one group never meet across a fold.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    data frame
        As `tabulate_subsets`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not admissible.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from regressors.subsets import score_subsets
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(80, 2)), columns=["good:0000", "idle:0000"])
    >>> frame = score_subsets(X, X["good:0000"], [["good"], ["idle"]], gmacs={"good": 3.0, "idle": 1.0})
    >>> frame[["subset", "gmacs", "pareto"]].values.tolist()
    [['good', 3.0, True], ['idle', 1.0, True]]
    """
    scorer = SubsetScorer(table, y, model=model, groups=groups, sample_weight=sample_weight)
    if gmacs is not None:
        used = [band for subset in subsets for band in scorer.order(subset)]
        _check_costs("score_subsets", used, gmacs)
    return tabulate_subsets(scorer.score(subsets), scorer.folds, gmacs=gmacs, passes=passes)


def tabulate_subsets(
    scores: Sequence[SubsetScore],
    folds: Sequence[Fold],
    *,
    gmacs: Mapping[str, float] | None = None,
    passes: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Put the scores of subsets into a table, best first.

    Parameters
    ----------
    scores : sequence of SubsetScore
        From `regressors.subset_scores.SubsetScorer.score`.
    folds : sequence of (train, test)
        Row positions behind the scores.
    gmacs : mapping of str to float, optional
        GMACs per image of each band's pass; without it costs are nan.
    passes : mapping of str to str, optional
        Name of each band's pass; see `list_subsets`.

    Returns
    -------
    data frame
        ``rank`` from 1, ``subset`` (bands joined by "+"), ``n_bands``, ``gmacs`` (each pass once), ``score`` (mean
        over folds, greater is better), ``std`` over folds, ``low`` and ``high`` (95 % interval of the mean), ``pareto``
        (no other subset is at least as good at no more GMACs and better in one of the two), the chosen
        hyper-parameters where a subset is one member, and ``split<k>_score``. Equal scores are ordered by GMACs,
        then by number of bands.

    Notes
    -----
    The interval is Student's over folds, its variance raised by n_test / n_train because the folds share
    training rows [1]_. It holds for one subset named beforehand, not for the best of many.

    References
    ----------
    .. [1] C. Nadeau and Y. Bengio, "Inference for the generalization error", Machine Learning 52, 2003, section 3.
    """
    splits = np.array([score.splits for score in scores])
    mean, std = np.average(splits, axis=1), np.std(splits, axis=1)
    margin = _margin(splits, folds)
    cost = np.array([np.nan if gmacs is None else _cost(score.bands, gmacs, passes) for score in scores])
    columns: dict[str, object] = {
        "subset": ["+".join(score.bands) for score in scores],
        "n_bands": [len(score.bands) for score in scores],
        "gmacs": cost,
        "score": mean,
        "std": std,
        "low": mean - margin,
        "high": mean + margin,
        "pareto": _is_pareto(mean, cost),
    }
    names = dict.fromkeys(name for score in scores for name in score.params)
    columns |= {name: [score.params.get(name, np.nan) for score in scores] for name in names}
    columns |= {f"split{k}_score": splits[:, k] for k in range(splits.shape[1])}
    frame = pd.DataFrame(columns).iloc[_order(scores, cost)].reset_index(drop=True)
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    return frame


def search_subsets(
    table: pd.DataFrame,
    y: ArrayLike,
    *,
    gmacs: Mapping[str, float],
    budget: float,
    passes: Mapping[str, str] | None = None,
    bands: Sequence[str] | None = None,
    model: BandEnsemble | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_outer_splits: int | None = 5,
) -> SubsetSearch:
    """Score every subset of bands within a budget, and what choosing the best of them is worth.

    Parameters
    ----------
    table : data frame of shape (n_rows, n_features)
        Feature table with string columns "band:0000".
    y : float array of shape (n_rows,)
        MOS.
    gmacs : mapping of str to float
        GMACs per image of each band's pass.
    budget : float
        Limit in GMACs per image.
    passes : mapping of str to str, optional
        Name of each band's pass; bands that share one pay once.
    bands : sequence of str, optional
        Bands to choose from; None takes all of the table.
    model : BandEnsemble, optional
        What is fitted on each subset: members, estimator, grids, folds, rule of selection; see
        `regressors.subset_scores.SubsetScorer`. None is one ridge on all bands of the subset.
    groups : array of shape (n_rows,), optional
        Rows of one group never meet across a fold, inner or outer.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.
    n_outer_splits : int or None, default=5
        Outer folds of the nested evaluation, each of which costs one more search. None leaves it out.

    Returns
    -------
    SubsetSearch

    Raises
    ------
    TypeError, ValueError
        If an argument is not admissible, nothing fits the budget, or more than `MAX_SUBSETS` subsets do.

    References
    ----------
    .. [1] G. Cawley and N. Talbot, "On over-fitting in model selection and subsequent selection bias in
       performance evaluation", Journal of Machine Learning Research 11, 2010.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from regressors.subsets import search_subsets
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(90, 3)), columns=["a:0000", "b:0000", "c:0000"])
    >>> y = X["a:0000"] + X["b:0000"] + 0.1 * rng.normal(size=90)
    >>> found = search_subsets(X, y, gmacs={"a": 20, "b": 25, "c": 40}, budget=50, n_outer_splits=3)
    >>> found.best_bands, len(found.frame)
    (('a', 'b'), 4)
    """
    scorer = SubsetScorer(table, y, model=model, groups=groups, sample_weight=sample_weight)
    subsets = list_subsets(
        scorer.order(scorer.bands if bands is None else bands), gmacs, budget, passes=passes
    )
    scores = scorer.score(subsets)
    best = scores[_order(scores, np.array([_cost(subset, gmacs, passes) for subset in subsets]))[0]]
    frame = tabulate_subsets(scores, scorer.folds, gmacs=gmacs, passes=passes)
    nested: list[tuple[Subset, float]] = []
    if n_outer_splits is not None:
        own = np.arange(len(scorer.y)) if groups is None else np.asarray(groups)
        outer = make_folds(scorer.y, own, n_splits=n_outer_splits, random_state=scorer.model.random_state)
        nested = [_nest(scorer, subsets, own, fold, gmacs, passes) for fold in outer]
    values = np.array([score for _, score in nested])
    return SubsetSearch(
        frame,
        best.bands,
        float(np.average(best.splits)),
        float(values.mean()) if len(values) else float("nan"),
        values,
        [bands for bands, _ in nested],
    )


def _nest(
    scorer: SubsetScorer,
    subsets: Sequence[Subset],
    groups: IntArray,
    fold: Fold,
    gmacs: Mapping[str, float],
    passes: Mapping[str, str] | None,
) -> tuple[Subset, float]:
    """Choose on the training rows of an outer fold; score the choice on its test rows."""
    train, test = fold
    model = clone(scorer.model).set_params(cv=_inner_cv(scorer.model.cv, train, len(scorer.y)))
    weights = None if scorer.weights is None else scorer.weights[train]
    inner = SubsetScorer(
        take_rows(scorer.table, train),
        scorer.y[train],
        model=model,
        groups=groups[train],
        sample_weight=weights,
    )
    scores = inner.score(subsets)
    cost = np.array([_cost(score.bands, gmacs, passes) for score in scores])
    best = scores[_order(scores, cost)[0]].bands
    tested = take_columns(take_rows(scorer.table, test), list(scorer.table.columns[inner.columns(best)]))
    predicted = inner.fit(best).predict(tested)
    return best, scorer.judge(predicted, test)


def _inner_cv(cv: Folds, train: IntArray, n_rows: int) -> Folds:
    """Restrict explicit folds to some rows, in their numbering; other rules make folds anew."""
    if isinstance(cv, (int, np.integer)) or hasattr(cv, "split"):
        return cv
    place = np.full(n_rows, -1)
    place[train] = np.arange(len(train))
    cut = [tuple(place[rows][place[rows] >= 0] for rows in fold) for fold in cv]
    return [(fit, test) for fit, test in cut if len(fit) and len(test)]


def _check_costs(who: str, bands: Iterable[str], gmacs: Mapping[str, float]) -> None:
    without = [band for band in bands if band not in gmacs]
    if without:
        raise ValueError(
            f"{who}: every band needs its GMACs, got none for {without[0]!r}. "
            "State the cost of imported features, 0 if it is not counted."
        )


def _cost(bands: Iterable[str], gmacs: Mapping[str, float], passes: Mapping[str, str] | None) -> float:
    named = passes or {}
    return sum_gmacs((named.get(band, f"the pass of {band} alone"), float(gmacs[band])) for band in bands)


def _order(scores: Sequence[SubsetScore], cost: FloatArray) -> IntArray:
    """Order subsets from the best on: by score, then GMACs, then number of bands."""
    mean = np.average([score.splits for score in scores], axis=1)
    return np.lexsort(np.vstack([[len(score.bands) for score in scores], cost, -mean]))


def _margin(splits: FloatArray, folds: Sequence[Fold]) -> FloatArray:
    n_folds = splits.shape[1]
    if n_folds < 2:
        return np.full(len(splits), np.nan)
    test_to_train = float(np.mean([len(test) / len(train) for train, test in folds]))
    quantile = float(student_t.ppf((1 + _CONFIDENCE) / 2, n_folds - 1))
    return quantile * np.std(splits, axis=1, ddof=1) * np.sqrt(1 / n_folds + test_to_train)


def _is_pareto(score: FloatArray, cost: FloatArray) -> np.ndarray:
    if np.isnan(cost).all():
        cost = np.zeros(len(cost))
    order = np.lexsort((-score, cost))
    flags = np.zeros(len(score), dtype=bool)
    best, dearest = -np.inf, np.nan
    for k in order:
        # Within one cost the best comes first; its equals at that cost are as good.
        flags[k] = score[k] > best or (score[k] == best and cost[k] == dearest)
        if score[k] > best:
            best, dearest = score[k], cost[k]
    return flags
