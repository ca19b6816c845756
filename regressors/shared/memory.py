"""How much memory the shared computation takes, and how to keep it within a limit: fold by fold, matrix by matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

from regressors.shared.candidates import Candidate
from regressors.shared.fold_table import WIDE_CHUNK, FoldTable
from regressors.shared.shifted import extra_numbers

_NUMBER = 8


class MemoryPlan(NamedTuple):
    """How the shared computation goes about its work.

    Attributes
    ----------
    n_workers : int
        Matrices in work at once.
    folds_wait : bool
        Whether a fold begins only when the one before has ended; otherwise two may be in memory.
    stores_grams : bool
        Whether the Gram matrices of all folds are kept, or computed again in each.
    gigabytes : float
        The most that is held at a time besides the table, in units of 1e9 bytes.
    """

    n_workers: int
    folds_wait: bool
    stores_grams: bool
    gigabytes: float


def plan_memory(
    table: FoldTable,
    groups: Mapping[Candidate, Collection[Candidate]],
    primal: Sequence[Set[Candidate]],
    in_gram: Sequence[str],
    n_workers: int,
    limit_gb: float | None,
) -> MemoryPlan:
    """Choose the fastest way within a limit.

    Parameters
    ----------
    table : FoldTable
        Features, bands and folds.
    groups : mapping of Candidate to collection of Candidate
        What differs only in penalties, by what it has in common.
    primal : sequence of set of Candidate
        For each fold the groups that are solved by Gram matrices; the others take kernels.
    in_gram : sequence of str
        Bands of the Gram matrices.
    n_workers : int
        Threads that there are.
    limit_gb : float or None
        Gigabytes that may be held besides the table; None sets no limit.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    ValueError
        If the limit is not positive, or one fold with one matrix at a time needs more.
    """
    if limit_gb is not None and not limit_gb > 0:
        raise ValueError(f"memory_limit_gb must be positive or None, got {limit_gb!r}.")
    plans = [
        MemoryPlan(
            workers, waits, stores, _needed(table, groups, primal, in_gram, workers, waits, stores) / 1e9
        )
        for workers in range(n_workers, 0, -1)
        for waits in (False, True)
        for stores in (True, False)
    ]
    for plan in plans:
        if limit_gb is None or plan.gigabytes <= limit_gb:
            return plan
    least = min(plan.gigabytes for plan in plans)
    raise ValueError(
        f"memory_limit_gb must be at least {least:.3g} for {len(table.y)} rows and {table.features.shape[1]} columns, "
        f"got {limit_gb:g}. Raise it, search fewer bands at a time, or use scikit-learn's GridSearchCV."
    )


def _needed(
    table: FoldTable,
    groups: Mapping[Candidate, Collection[Candidate]],
    primal: Sequence[Set[Candidate]],
    in_gram: Sequence[str],
    n_workers: int,
    folds_wait: bool,
    stores_grams: bool,
) -> float:
    """Return the bytes held at a time."""
    n_rows = len(table.y)
    width = {band: len(columns) for band, columns in table.bands.items()}
    n_gram = sum(width[band] for band in in_gram)
    answers = sum(len(test) for _, test in table.folds) * sum(len(members) for members in groups.values())
    # Mean, factor, variance and a flag of each column, in each fold and over all rows.
    scales = 4 * (len(table.folds) + 1) * sum(width.values())
    # Gram matrices: the centred table, the sum, each fold's part if kept, and rows cut out for one.
    shared = 0.0
    if in_gram:
        parts = len(table.folds) if stores_grams else 0
        shared = 2 * n_rows * n_gram + (1 + parts) * n_gram**2
    most = 0.0
    for fold, (_, test) in enumerate(table.folds):
        n_train, n_test = len(table.train_rows(fold)), len(test)
        dual = [key for key in groups if key not in primal[fold]]
        bands = {band for key in dual for band in key.bands}
        held = len(bands) * (n_train + n_test) * n_train
        # A worker sums a kernel and reduces it, or standardises some columns of a band.
        work = 0.0
        for key in groups:
            size = sum(width[band] for band in key.bands) if key in primal[fold] else n_train
            own = 2 * size**2 + n_test * size + extra_numbers(size, len(groups[key]))
            work = max(work, own)
        if bands:
            widest = min(max(width[band] for band in bands), WIDE_CHUNK)
            work = max(work, 2 * widest * (n_train + n_test))
        if primal[fold]:
            held += 2 * n_gram**2 + n_test * n_gram
            work = max(work, 2.0 * n_gram**2)
        # A lone worker ends one fold before it begins the next.
        n_held = 1 if folds_wait or n_workers == 1 else 2
        most = max(most, n_held * held + n_workers * work)
    return _NUMBER * (answers + scales + shared + most)
