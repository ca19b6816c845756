"""Folds for cross-validation inside the training split: grouped and balanced over MOS, as explicit row lists.

Rows of one group (image, uploader, reference image) never meet across the two sides of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import KFold, train_test_split

from regressors.checks import (
    FloatArray,
    Folds,
    IntArray,
    Table,
    check_choice,
    check_fraction,
    check_indices,
    check_vector,
)

Fold = tuple[IntArray, IntArray]
"""Row positions to fit on, and row positions to test on."""

KINDS = ("grouped", "kfold", "holdout", "plain-holdout")
"""By name; the plain ones split groups."""

PLAIN_KINDS = ("kfold", "plain-holdout")

MAX_GREEDY_GROUPS = 100_000
"""More groups than this are dealt in turn, like by like, instead of one by one."""


def make_folds(
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    kind: str = "grouped",
    n_splits: int = 5,
    shuffle: bool = True,
    random_state: int | None = 0,
    test_size: float = 0.2,
    n_strata: int = 5,
) -> list[Fold]:
    """Cut the rows of a training table into folds.

    Parameters
    ----------
    y : float array of shape (n_rows,)
        MOS. Its quantile bins are the strata that grouped folds balance.
    groups : array of shape (n_rows,), optional
        Group of each row. Required for the grouped kinds; ``numpy.arange(n_rows)`` says that each row
        stands alone. Ignored by the plain kinds.
    kind : {"grouped", "kfold", "holdout", "plain-holdout"}, default="grouped"
        "grouped": ``n_splits`` folds, groups kept together, strata balanced. "kfold": scikit-learn's `KFold`
        over rows, groups ignored knowingly. "holdout": one fold with ``test_size`` of the rows held out,
        groups kept together, strata balanced. "plain-holdout": the same by scikit-learn's `train_test_split`, groups
        ignored knowingly, strata not balanced.
    n_splits : int, default=5
        Number of folds of "grouped" and "kfold", at least 2.
    shuffle : bool, default=True
        Whether rows or groups are shuffled first; without it they are taken in table order.
    random_state : int or None, default=0
        Seed of the shuffle; the same seed gives the same folds of the same rows in the same order.
    test_size : float, default=0.2
        Share of the rows held out, in (0, 1). Met up to the size of a group.
    n_strata : int, default=5
        Number of MOS quantile bins of the grouped kinds; 1 balances the number of rows alone.

    Returns
    -------
    list of (train, test)
        Sorted integer row positions. With several folds each row is tested exactly once.

    Raises
    ------
    ValueError
        If a grouped kind has no groups, fewer groups than folds, or an argument is out of range.

    Notes
    -----
    Grouped folds are dealt by a greedy rule in the manner of scikit-learn's `StratifiedGroupKFold`: groups in order of
    falling size, each to the fold where the relative fill of strata and rows stays most even. It is written out here so
    that folds of unequal size follow the same rule, no fold can stay empty, and a seed keeps its meaning. Of more than
    100,000 groups the 10,000 largest are dealt so; the others, sorted by size and stratum, go to the folds in turn.

    Examples
    --------
    >>> from regressors.folds import make_folds
    >>> folds = make_folds([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"], n_splits=2, n_strata=1)
    >>> sorted(test.tolist() for _, test in folds)
    [[0, 1], [2, 3]]
    """
    who = "make_folds"
    check_choice(who, "kind", kind, KINDS)
    mos = check_vector(who, "y", y, min_rows=2)
    if not isinstance(n_splits, (int, np.integer)) or n_splits < 2:
        raise ValueError(f"{who}: n_splits must be an integer of at least 2, got {n_splits!r}.")
    check_fraction(who, "test_size", test_size)
    if n_strata < 1:
        raise ValueError(f"{who}: n_strata must be at least 1, got {n_strata!r}.")
    if kind == "kfold":
        if len(mos) < n_splits:
            raise ValueError(
                f"{who}: n_splits={n_splits} needs as many rows, got n_samples={len(mos)}. Lower n_splits."
            )
        splitter = KFold(int(n_splits), shuffle=shuffle, random_state=random_state if shuffle else None)
        return [(train.astype(np.intp), test.astype(np.intp)) for train, test in splitter.split(mos)]
    if kind == "plain-holdout":
        train, test = train_test_split(
            np.arange(len(mos)),
            test_size=test_size,
            shuffle=shuffle,
            random_state=random_state if shuffle else None,
        )
        return [(np.sort(train), np.sort(test))]
    members = _group_numbers(groups, len(mos), kind)
    shares = np.full(n_splits, 1 / n_splits) if kind == "grouped" else np.array([test_size, 1 - test_size])
    n_groups = int(members.max()) + 1
    if n_groups < len(shares):
        cure = (
            f"Lower n_splits to at most {n_groups}"
            if kind == "grouped" and n_groups > 1
            else "Use other groups"
        )
        raise ValueError(
            f"{who}: {len(shares)} parts need at least as many groups, got {n_groups} in {len(mos)} rows. "
            f"{cure}, or kind='kfold' if rows of one group may be split."
        )
    order = np.arange(n_groups)
    if shuffle:
        np.random.default_rng(random_state).shuffle(order)
    counts = _fill_per_group(mos, members, n_strata)
    part = (_deal if n_groups <= MAX_GREEDY_GROUPS else _deal_many)(counts, order, shares)[members]
    tested = range(n_splits) if kind == "grouped" else range(1)
    return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in tested]


def resolve_folds(
    who: str, cv: Folds, X: Table, y: FloatArray, groups: ArrayLike | None, random_state: int | None
) -> list[Fold]:
    """Turn what an ensemble takes as ``cv`` into folds; a number means `make_folds`, else with each row alone."""
    if isinstance(cv, (int, np.integer)):
        own = np.arange(len(y)) if groups is None else groups
        return make_folds(y, own, n_splits=int(cv), random_state=random_state)
    folds = cv.split(X, y, groups) if hasattr(cv, "split") else cv
    return check_folds(list(folds), len(y), who=f"{who}: cv")


def check_folds(folds: Sequence[Fold], n_rows: int, *, who: str = "check_folds") -> list[Fold]:
    """Check explicit ``folds`` against a table of ``n_rows`` rows, and return them as integer arrays; ``who`` asks.

    A ValueError if there is no fold, a position lies outside the table or repeats, or train and test share a row.
    """
    checked = []
    for number, fold in enumerate(folds):
        if len(fold) != 2:
            raise ValueError(f"{who}: fold {number} must be a pair (train, test), got {len(fold)} parts.")
        train = check_indices(who, f"the training rows of fold {number}", fold[0], n_rows)
        test = check_indices(who, f"the test rows of fold {number}", fold[1], n_rows)
        shared = np.intersect1d(train, test)
        if len(shared):
            raise ValueError(
                f"{who}: fold {number} tests {len(shared)} rows that it also fits on, for example row {shared[0]}. "
                "Its score would be of rows the model has seen; make folds with make_folds."
            )
        checked.append((train, test))
    if not checked:
        raise ValueError(f"{who}: needs at least one fold, got none. Make them with make_folds.")
    return checked


def _group_numbers(groups: ArrayLike | None, n_rows: int, kind: str) -> IntArray:
    if groups is None:
        raise ValueError(
            f"make_folds: kind={kind!r} needs groups, got none. Pass the group of each row (uploader, reference "
            "image), or groups=numpy.arange(len(y)) to say that each row stands alone. Without groups, rows of "
            "one image on both sides of a fold invent a perfect model."
        )
    labels = np.asarray(groups)
    if labels.shape != (n_rows,):
        raise ValueError(f"make_folds: groups must have shape ({n_rows},), got {labels.shape}.")
    missing = int(np.count_nonzero(pd.isna(labels)))
    if missing:
        raise ValueError(
            f"make_folds: every row needs a group, got {missing} missing of {n_rows}. "
            "Give a row without one a group of its own, for example its image_id."
        )
    if labels.dtype.kind == "O":
        labels = labels.astype(str)
    # Numbered by first appearance, so that the names of groups have no say in the folds.
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _fill_per_group(mos: FloatArray, members: IntArray, n_strata: int) -> FloatArray:
    """Count the rows of each group in each stratum and in all, shape (n_groups, n_strata + 1)."""
    edges = np.unique(np.quantile(mos, np.arange(1, n_strata) / n_strata))
    stratum = np.searchsorted(edges, mos, side="right")
    counts = np.zeros((int(members.max()) + 1, len(edges) + 2))
    np.add.at(counts, (members, stratum), 1.0)
    counts[:, -1] = counts[:, :-1].sum(axis=1)
    return counts[:, counts.sum(axis=0) > 0]


def _deal_many(counts: FloatArray, order: IntArray, shares: FloatArray) -> IntArray:
    """Deal a few of the largest groups one by one, and the many others in turn, those alike one after the other."""
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    first, rest = np.split(order, [MAX_GREEDY_GROUPS // 10])
    part = np.empty(len(counts), dtype=np.intp)
    part[first] = _deal(counts[first], np.arange(len(first)), shares)
    # Equal rows of counts become neighbours; the shuffled order stays among them.
    alike = rest[np.lexsort(counts[rest].T)]
    # A turn serves the parts by their shares: the next is the one that lags behind most.
    turn = np.empty(1000, dtype=np.intp)
    served = np.zeros(len(shares))
    for place in range(len(turn)):
        turn[place] = int(np.argmax(shares * (place + 1) - served))
        served[turn[place]] += 1
    part[alike] = np.resize(turn, len(alike))
    return part


def _deal(counts: FloatArray, order: IntArray, shares: FloatArray) -> IntArray:
    """Give each group to a part, keeping the relative fill of all parts even; no part stays empty.

    From counts of shape (n_groups, n_quantities), the order of groups of one size, and the wanted share of each part.
    """
    order = order[np.argsort(-counts[order, -1], kind="stable")]  # large groups first, ties as shuffled
    wanted = shares[:, None] * counts.sum(axis=0)  # (n_parts, n_quantities)
    fill = np.zeros_like(wanted)
    part = np.empty(len(counts), dtype=np.intp)
    is_empty = np.ones(len(shares), dtype=bool)
    for dealt, group in enumerate(order):
        # trial[p] is the relative fill of all parts if part p takes the group: (n_parts, n_parts, n_quantities)
        trial = np.repeat((fill / wanted)[None], len(shares), axis=0)
        own = np.arange(len(shares))
        trial[own, own] += counts[group] / wanted
        cost = trial.var(axis=1).sum(axis=1)
        if len(order) - dealt == np.count_nonzero(is_empty):
            cost[~is_empty] = np.inf  # as many groups left as empty parts
        chosen = int(np.argmin(cost))
        fill[chosen] += counts[group]
        part[group] = chosen
        is_empty[chosen] = False
    return part
