"""Held-out predictions of many candidates from computations shared among them.

In each fold the candidates that differ only in their penalty share one reduction of one matrix; those that differ
in bands or band weights share the kernels or the Gram matrix that these matrices are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from joblib import delayed
from threadpoolctl import threadpool_limits

from regressors.checks import FloatArray
from regressors.shared.candidates import Candidate
from regressors.shared.column_scale import ColumnScale, join_scales
from regressors.shared.elsewhere import (
    is_elsewhere,
    local_jobs,
    one_blas_thread,
    pieces_per_fold,
    run_elsewhere,
)
from regressors.shared.fold_fits import is_primal, submit_fold
from regressors.shared.fold_table import FoldTable
from regressors.shared.kernel_fits import (
    Found,
    Scales,
)
from regressors.shared.memory import plan_memory
from regressors.shared.shared_gram import ReadyGram, SharedGram

DOUBTFUL = 1e-9
"""Effect of rounding on predictions, in ranges of MOS, from which on no digits are promised.

A random draw of rounding errors moves predictions by less than the worst one does."""

_WIDTH = 1024
"""Columns whose scales one task learns."""


@dataclass
class Answers:
    """Held-out predictions by candidate.

    Attributes
    ----------
    predictions : dict of Candidate to list of float64 array, or None
        For each fold the predictions of its test rows; None where the shared computation has no answer.
    doubt : dict of Candidate to float
        Largest effect of rounding errors on the predictions that a random draw found, in ranges of MOS.
    seconds : float
        Time of the computation.
    gram : SharedGram, or None
        Of the bands that were solved by Gram matrices.
    scales : mapping of str to ColumnScale
        Of each band over all rows.
    """

    predictions: dict[Candidate, list[FloatArray | None]] = field(default_factory=dict)
    doubt: dict[Candidate, float] = field(default_factory=dict)
    seconds: float = 0.0
    gram: SharedGram | None = None
    scales: Scales = field(default_factory=dict)

    def add(self, candidate: Candidate, fold: int, predicted: FloatArray, doubt: float) -> None:
        """Note the predictions of one fold, unless they are not finite."""
        if np.isfinite(predicted).all():
            self.predictions[candidate][fold] = predicted
            self.doubt[candidate] = max(self.doubt.get(candidate, 0.0), doubt)


def answer_candidates(
    table: FoldTable,
    candidates: Iterable[Candidate],
    *,
    n_jobs: int | None = None,
    memory_limit_gb: float | None = None,
) -> Answers:
    """Predict the held-out rows of every fold by every candidate.

    Parameters
    ----------
    table : FoldTable
        Features, target, weights and folds.
    candidates : iterable of Candidate
        What to answer; repeats are answered once.
    n_jobs : int or None, default=None
        Matrices at once, in threads. Each computes with one BLAS thread: several of them inside a reduction
        were measured to be many times slower than one. Where a joblib backend that reaches beyond this machine is
        active, the folds are tasks for it instead; scales and Gram matrices, which folds share, are computed here.
    memory_limit_gb : float or None, default=None
        Gigabytes (1e9 bytes) that the computation may hold besides the table. To keep to it, folds wait for each
        other and fewer matrices are in work at once; None sets no limit. It is for this machine, not for others.

    Returns
    -------
    Answers

    Raises
    ------
    ValueError
        If one fold with one matrix at a time needs more memory than the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.shared.candidates import Candidate
    >>> from regressors.shared.fold_table import FoldTable
    >>> from regressors.shared.fits import answer_candidates
    >>> X = np.arange(6.0)[:, None]
    >>> table = FoldTable(X, X[:, 0], {"a": np.array([0])}, [(np.arange(4), np.array([4, 5]))])
    >>> plain = Candidate("ridge", ("a",), (1.0,), False, (1e-9,))
    >>> answer_candidates(table, [plain]).predictions[plain][0].round(6).tolist()
    [4.0, 5.0]
    """
    distinct = list(dict.fromkeys(candidates))
    answers = Answers({candidate: [None] * len(table.folds) for candidate in distinct})
    groups: dict[Candidate, list[Candidate]] = {}
    for candidate in distinct:
        key = replace(candidate, values=(), solver=())
        groups.setdefault(key, []).append(candidate)
    bands = [band for band in table.bands if any(band in group.bands for group in groups)]
    folds = range(len(table.folds))
    n_workers = local_jobs(n_jobs)
    with threadpool_limits(limits=1, user_api="blas"), ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(n_workers))
        try:
            *scales, answers.scales = _learn_scales(pool, table, bands)
            primal = [{key for key in groups if is_primal(key, table, fold, scales[fold])} for fold in folds]
            in_gram = [band for band in bands if any(band in key.bands for keys in primal for key in keys)]
            budget = plan_memory(table, groups, primal, in_gram, n_workers, memory_limit_gb)
            if budget.n_workers < n_workers:
                pool = stack.enter_context(ThreadPoolExecutor(budget.n_workers))
            gram = SharedGram(table, in_gram, run=pool.map, stored=budget.stores_grams) if in_gram else None
            answers.gram = gram
            if is_elsewhere():
                n_at_once = 1 if budget.folds_wait else len(table.folds)
                for fold, some in _find_elsewhere(table, groups, scales, gram, primal, n_at_once):
                    for candidate, predicted, doubt in some:
                        answers.add(candidate, fold, predicted, doubt)
                return answers
            found: list[tuple[int, Future[Found]]] = []
            for fold in folds:
                tasks = submit_fold(pool, table, groups, fold, scales[fold], gram, primal[fold])
                found += [(fold, task) for task in tasks]
                if budget.folds_wait:
                    wait(tasks)
            for fold, task in found:
                for candidate, predicted, doubt in task.result():
                    answers.add(candidate, fold, predicted, doubt)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return answers


def _learn_scales(pool: Executor, table: FoldTable, bands: Sequence[str]) -> list[dict[str, ColumnScale]]:
    """Return the scales of each band in every fold, and last over all rows."""
    places = [
        (band, slice(start, min(start + _WIDTH, len(table.bands[band]))))
        for band in bands
        for start in range(0, len(table.bands[band]), _WIDTH)
    ]
    parts: dict[str, list[list[ColumnScale]]] = {band: [] for band in bands}
    for (band, _), part in zip(
        places, pool.map(lambda place: table.column_scales(*place), places), strict=True
    ):
        parts[band].append(part)
    folds = range(len(table.folds) + 1)
    return [{band: join_scales([part[fold] for part in parts[band]]) for band in bands} for fold in folds]


def _find_elsewhere(
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    scales: Sequence[Scales],
    gram: SharedGram | None,
    primal: Sequence[Set[Candidate]],
    n_at_once: int,
) -> Iterator[tuple[int, Found]]:
    """Have the active joblib backend do the folds: each in as many tasks as give every thread of the cluster one."""
    n_folds = len(table.folds)
    n_pieces = pieces_per_fold(n_at_once, len(groups))
    # Neighbours share bands, and with them kernels.
    pieces = [
        list(groups)[k * len(groups) // n_pieces : (k + 1) * len(groups) // n_pieces] for k in range(n_pieces)
    ]
    without = replace(table, features=np.empty((len(table.y), 0)))

    def tasks(folds: Iterable[int]) -> Iterator[object]:
        for fold in folds:
            own = replace(without, folds=[table.folds[fold]])
            # Held here for no longer than it takes to send it.
            ready = gram.ready(fold, scales[fold]) if gram is not None and primal[fold] else None
            for keys in pieces:
                part = {key: groups[key] for key in keys}
                needs_table = any(key not in primal[fold] for key in keys)
                yield delayed(_find_fold)(
                    table.features if needs_table else None,
                    own,
                    part,
                    scales[fold],
                    ready if primal[fold] & part.keys() else None,
                    primal[fold],
                    task_name=f"fold {fold + 1} of {n_folds} for {_name_candidates(part)}",
                )

    for start in range(0, n_folds, n_at_once):
        folds = range(n_folds)[start : start + n_at_once]
        for number, found in enumerate(run_elsewhere(tasks(folds))):
            yield folds[number // n_pieces], found


def _find_fold(
    features: FloatArray | None,
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    scales: Scales,
    gram: ReadyGram | None,
    primal: Set[Candidate],
    *,
    task_name: str,
) -> Found:
    """Do one task of `_find_elsewhere`, on whatever machine; ``task_name`` is for the messages of the backend."""
    own = table if features is None else replace(table, features=features)
    with one_blas_thread(), ThreadPoolExecutor(1) as pool:
        tasks = submit_fold(pool, own, groups, 0, scales, gram, primal)
        return [answer for task in tasks for answer in task.result()]


def _name_candidates(groups: Mapping[Candidate, Sequence[Candidate]]) -> str:
    """Say which candidates a task has, in words."""
    n_candidates = sum(map(len, groups.values()))
    subsets = list(dict.fromkeys("+".join(key.bands) for key in groups))
    families = "/".join(dict.fromkeys(key.family for key in groups))
    others = f" and {len(subsets) - 1} other subsets of bands" if len(subsets) > 1 else ""
    return f"{n_candidates} candidates ({families} on {subsets[0]}{others})"
