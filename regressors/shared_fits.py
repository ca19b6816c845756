"""Held-out predictions of many candidates from computations shared among them.

In each fold the candidates that differ only in their penalty share one reduction of one matrix; those that differ
in bands or band weights share the kernels or the Gram matrix that these matrices are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from joblib import effective_n_jobs
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from regressors.candidates import Candidate
from regressors.checks import FloatArray
from regressors.fold_table import BandKernel, ColumnScale, FoldGram, FoldTable, SharedGram
from regressors.shifted import ShiftedSolutions, solve_shifted

_Scales = Mapping[str, ColumnScale]
_Kernels = Mapping[str, Future[BandKernel]]


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
    """

    predictions: dict[Candidate, list[FloatArray | None]] = field(default_factory=dict)
    doubt: dict[Candidate, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, candidate: Candidate, fold: int, predicted: FloatArray, doubt: float) -> None:
        """Note the predictions of one fold, unless they are not finite."""
        if np.isfinite(predicted).all():
            self.predictions[candidate][fold] = predicted
            self.doubt[candidate] = max(self.doubt.get(candidate, 0.0), doubt)


_Found = list[tuple[Candidate, FloatArray, float]]


def answer_candidates(
    table: FoldTable, candidates: Iterable[Candidate], *, n_jobs: int | None = None
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
        were measured to be many times slower than one.

    Returns
    -------
    Answers

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.candidates import Candidate
    >>> from regressors.fold_table import FoldTable
    >>> from regressors.shared_fits import answer_candidates
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
        key = Candidate(candidate.family, candidate.bands, candidate.weights, candidate.unit_band, ())
        groups.setdefault(key, []).append(candidate)
    bands = [band for band in table.bands if any(band in group.bands for group in groups)]
    folds = range(len(table.folds))
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(max(1, effective_n_jobs(n_jobs))) as pool,
    ):
        try:
            places = [(band, fold) for fold in folds for band in bands]
            learned = list(pool.map(lambda place: table.column_scale(*place), places))
            scales: list[dict[str, ColumnScale]] = [{} for _ in folds]
            for (band, fold), scale in zip(places, learned, strict=True):
                scales[fold][band] = scale
            primal = [{key for key in groups if _is_primal(key, table, fold, scales[fold])} for fold in folds]
            in_gram = [band for band in bands if any(band in key.bands for keys in primal for key in keys)]
            gram = SharedGram(table, in_gram, run=pool.map) if in_gram else None
            found = [
                (fold, task)
                for fold in folds
                for task in _submit_fold(pool, table, groups, fold, scales[fold], gram, primal[fold])
            ]
            for fold, task in found:
                for candidate, predicted, doubt in task.result():
                    answers.add(candidate, fold, predicted, doubt)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return answers


def _is_primal(key: Candidate, table: FoldTable, fold: int, scales: _Scales) -> bool:
    # On the wrong side of the rank the small penalties lose digits: the matrix is singular without them.
    n_columns = sum(int(np.count_nonzero(scales[band].factor)) for band in key.bands)
    return key.family == "ridge" and n_columns <= len(table.train_rows(fold))


def _submit_fold(
    pool: Executor,
    table: FoldTable,
    groups: Mapping[Candidate, Sequence[Candidate]],
    fold: int,
    scales: _Scales,
    gram: SharedGram | None,
    primal: Set[Candidate],
) -> list[Future[_Found]]:
    """Queue the work of one fold: first what its candidates share, then the candidates, who wait for it.

    The queue is served in order, so that nobody waits for what has not begun, and little more than one fold is in
    memory at a time: only the waiting tasks hold what is shared.
    """
    tasks: list[Future[_Found]] = []
    if gram is not None and primal:
        normal = pool.submit(gram.fold, fold, scales)
        tasks += [
            pool.submit(_primal_ridge, table, groups[key], normal, gram, fold, scales)
            for key in groups
            if key in primal
        ]
    dual = [key for key in groups if key not in primal]
    kernels = {
        band: pool.submit(table.kernel, band, fold, scales[band])
        for band in scales
        if any(band in key.bands for key in dual)
    }
    for key in dual:
        own = {band: kernels[band] for band in key.bands}
        if key.family == "ridge":
            tasks.append(pool.submit(_dual_ridge, table, groups[key], own, fold, scales))
            continue
        by_gamma: dict[float, list[Candidate]] = {}
        for candidate in groups[key]:
            # The linear kernel knows no gamma.
            by_gamma.setdefault(candidate.values[2] if key.family == "rbf" else 0.0, []).append(candidate)
        tasks += [
            pool.submit(_support_vectors, table, members, own, fold, scales) for members in by_gamma.values()
        ]
    return tasks


def _factors(candidate: Candidate, scales: _Scales) -> list[float]:
    """Return what each band's standardised columns are multiplied by."""
    factors = []
    for band, weight in zip(candidate.bands, candidate.weights, strict=True):
        n_varying = int(scales[band].varies.sum())
        unit = 1 / np.sqrt(n_varying) if candidate.unit_band and n_varying else 1.0
        factors.append(float(unit * weight))
    return factors


def _primal_ridge(
    table: FoldTable,
    candidates: Sequence[Candidate],
    waited: Future[FoldGram],
    gram: SharedGram,
    fold: int,
    scales: _Scales,
) -> _Found:
    """Solve (C G C + alpha I) b = C r and predict y_mean + Z_test C b, with C the factors of the columns."""
    normal = waited.result()
    bands = candidates[0].bands
    columns = gram.columns(bands)
    widths = [len(table.bands[band]) for band in bands]
    factors = np.repeat(_factors(candidates[0], scales), widths)
    used = np.concatenate([scales[band].factor > 0 for band in bands])
    columns, factors = columns[used], factors[used]
    matrix = np.ascontiguousarray(normal.gram[np.ix_(columns, columns)])
    matrix *= factors
    matrix *= factors[:, None]
    solved = solve_shifted(matrix, factors * normal.right[columns], [c.values[0] for c in candidates])
    return _ridge_answers(table, fold, candidates, normal.test[:, columns] * factors, solved, normal.y_mean)


def _dual_ridge(
    table: FoldTable,
    candidates: Sequence[Candidate],
    kernels: _Kernels,
    fold: int,
    scales: _Scales,
) -> _Found:
    """Solve (H K H + alpha I) c = H (y - y_mean) and predict y_mean + K_test H c, with H the roots of the weights."""
    train, test = _weighted_kernel(candidates[0], kernels, scales)
    weights, target = table.train_weights(fold), table.y[table.train_rows(fold)]
    y_mean = float(weights @ target) / float(weights.sum())
    if table.fit_weight is not None:
        root = np.sqrt(weights)
        train *= root
        train *= root[:, None]
        test = test * root
        target = root * (target - y_mean)
    else:
        target = target - y_mean
    solved = solve_shifted(train, target, [c.values[0] for c in candidates])
    return _ridge_answers(table, fold, candidates, test, solved, y_mean)


def _ridge_answers(
    table: FoldTable,
    fold: int,
    candidates: Sequence[Candidate],
    test: FloatArray,
    solved: ShiftedSolutions,
    y_mean: float,
) -> _Found:
    predicted = y_mean + test @ solved.x
    spread = float(np.ptp(table.y[table.train_rows(fold)])) or 1.0
    doubt = np.abs(test @ solved.change).max(axis=0, initial=0.0) / spread
    return [(c, predicted[:, k], float(doubt[k])) for k, c in enumerate(candidates)]


def _weighted_kernel(
    candidate: Candidate, kernels: _Kernels, scales: _Scales
) -> tuple[FloatArray, FloatArray]:
    squares = [factor**2 for factor in _factors(candidate, scales)]
    first = kernels[candidate.bands[0]].result()
    train, test = squares[0] * first.train, squares[0] * first.test
    for band, square in zip(candidate.bands[1:], squares[1:], strict=True):
        # Most weights are 1, and a product would be one more pass over the matrix.
        kernel = kernels[band].result()
        train += kernel.train if square == 1 else square * kernel.train
        test += kernel.test if square == 1 else square * kernel.test
    return train, test


def _support_vectors(
    table: FoldTable,
    candidates: Sequence[Candidate],
    kernels: _Kernels,
    fold: int,
    scales: _Scales,
) -> _Found:
    """Fit `regressors.svr.UnitSVR` on a kernel computed beforehand; the candidates have one gamma."""
    train, test = _weighted_kernel(candidates[0], kernels, scales)
    weights = None if table.fit_weight is None else table.train_weights(fold)
    target = table.y[table.train_rows(fold)]
    y_mean = float(np.average(target, weights=weights))
    y_scale = float(np.sqrt(np.average((target - y_mean) ** 2, weights=weights))) or 1.0
    norms = np.diagonal(train).copy()
    total = float(np.average(norms, weights=weights))
    total = total if total > 0 else 1.0
    if candidates[0].family == "rbf":
        factors = zip(candidates[0].bands, _factors(candidates[0], scales), strict=True)
        own = sum(
            (factor**2 * kernels[band].result().test_norms for band, factor in factors), np.zeros(len(test))
        )
        # Squared distances take the place of the inner products.
        train = np.maximum(norms[:, None] + norms - 2 * train, 0.0)
        np.fill_diagonal(train, 0.0)
        test = np.maximum(own[:, None] + norms - 2 * test, 0.0)
    if candidates[0].family == "rbf":
        scale = -candidates[0].values[2] / total
        for matrix in (train, test):
            matrix *= scale
            np.exp(matrix, out=matrix)
    else:
        train /= total
        test /= total
    found: _Found = []
    for candidate in candidates:
        tol, max_iter, cache_size_mb = candidate.solver
        svr = SVR(
            kernel="precomputed",
            C=candidate.values[0],
            epsilon=candidate.values[1],
            tol=tol,
            max_iter=int(max_iter),
            cache_size=cache_size_mb,
        ).fit(train, (target - y_mean) / y_scale, sample_weight=weights)
        unit = test[:, svr.support_] @ svr.dual_coef_[0] + svr.intercept_[0]
        found.append((candidate, y_mean + y_scale * unit, 0.0))
    return found
