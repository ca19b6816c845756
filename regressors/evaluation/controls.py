"""Signs that training rows know too much: columns that repeat the MOS, copies of images, the permutation control.

Every bound is set so that clean data raises an alarm about once in a thousand runs, whatever the number of rows and
columns.

The permutation control fits on shuffled MOS, where nothing can be learned unless held-out MOS reach the training side.
What was *chosen* on the scored folds scores a little above zero there even on clean data. The held-out predictions of
any one candidate do not: they depend on the MOS of the other folds alone, and given these the MOS inside a fold are in
random order, so that its rank correlation has mean 0 and variance 1 / (n - 1) exactly [1]_. The alarm judges the mean
over *all* candidates, none of them chosen. Two rows in different folds predict each other in two fits with much the
same weight, which at most doubles the variance of the mean over folds.

References
----------
.. [1] E. J. G. Pitman, "Significance tests which may be applied to samples from any populations, II. The correlation
   coefficient test", Supplement to the Journal of the Royal Statistical Society 4, 1937.
.. [2] G. C. Cawley and N. L. C. Talbot, "On over-fitting in model selection and subsequent selection bias in
   performance evaluation", Journal of Machine Learning Research 11, 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata, t
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import GaussianRandomProjection

from regressors.bands import BlockTable
from regressors.checks import FloatArray, IntArray, Table, check_vector
from regressors.evaluation.metrics import srcc
from regressors.folds import Fold, check_folds

IMPLAUSIBLE_SRCC: Final = 0.97
"""No single statistic of an image ranks it like this: two halves of a panel of raters agree less."""

HONEST_SRCC: Final = 0.9
"""What a very good statistic may reach, on photos that differ in little else."""

FALSE_ALARM: Final = 1e-3
"""Chance of an alarm on clean data, for each check."""

_SCREEN_ROWS = 400
_SCREEN_SRCC = 0.85
_PROJECTED_COLUMNS = 256
_NEIGHBOURS = 5
_LOCAL_NEIGHBOURS = 20
_CLOSEST_SHARE = 0.35
# Rows that tell the dimension; fewer where each is compared with a table that is read by blocks.
_SAMPLED = 1000
_SAMPLED_BY_BLOCKS = 300
# Pairs of rows up to which all distances are computed; beyond, the leading columns tell first which pairs can matter.
_MAX_PAIRS = 2**26
_SCREEN_COLUMNS = 64
_SCREEN_BLOCK = 1024


@dataclass(frozen=True)
class NearDuplicates:
    """Rows that lie far closer to a training row than its neighbourhood explains.

    Attributes
    ----------
    rows, partners : int arrays of shape (n_found,)
        Positions among the judged rows, and of the nearest training row of each.
    ratios : float array of shape (n_found,)
        Distance to it, in units of the distance to the fifth nearest training row; 0 for a copy.
    dimension : float
        Intrinsic dimension of the training rows, which bounds that of each neighbourhood.
    """

    rows: IntArray
    partners: IntArray
    ratios: FloatArray
    dimension: float


def find_leaking_columns(X: Table, y: ArrayLike, *, limit: float = IMPLAUSIBLE_SRCC) -> dict[int, float]:
    """Find columns that rank the rows almost as the MOS does: the MOS itself, or a monotone function of it.

    Parameters
    ----------
    X : data frame, BlockTable, or float array of shape (n_rows, n_features)
        Training rows.
    y : float array of shape (n_rows,)
        Their MOS; a ValueError if it is not admissible.
    limit : float, default=0.97
        Smallest absolute SRCC that counts, raised for few rows to what neither pure noise nor a column of true
        correlation 0.9 exceeds more than once in a thousand tables.

    Returns
    -------
    dict of int to float
        Column position to SRCC, strongest first; empty for clean data, a constant MOS, or fewer than 20 rows.
    """
    mos = check_vector("find_leaking_columns", "y", y)
    values = X if isinstance(X, BlockTable) else np.asarray(X)
    if len(values.shape) != 2 or len(values) != len(mos):
        raise ValueError(
            f"find_leaking_columns: X must have shape ({len(mos)}, n_features), got {values.shape}."
        )
    n_rows, n_columns = values.shape
    if n_rows < 20 or np.ptp(mos) == 0:
        return {}
    bound = max(limit, _null_correlation(n_rows, FALSE_ALARM / n_columns), _honest_correlation(n_rows))
    columns = np.arange(n_columns)
    if n_rows > 2 * _SCREEN_ROWS:
        # Sorting every column of a wide table is the cost; a part of the rows tells which ones are worth it.
        chosen = np.random.default_rng(0).choice(n_rows, _SCREEN_ROWS, replace=False)
        some = values.read(chosen) if isinstance(values, BlockTable) else values[chosen]
        columns = np.flatnonzero(np.abs(_rank_correlations(some, mos[chosen])) > _SCREEN_SRCC)
    if isinstance(values, BlockTable):
        suspects = (values.select([values.columns[column]]).read() for column in columns)
        found = np.array([_rank_correlations(suspect, mos)[0] for suspect in suspects])
    else:
        found = _rank_correlations(values[:, columns], mos)
    strong = np.flatnonzero(np.abs(found) >= bound)
    order = strong[np.argsort(-np.abs(found[strong]), kind="stable")]
    return {int(columns[i]): float(found[i]) for i in order}


def find_near_duplicates(X: Table, X_training: Table, *, false_alarm: float = FALSE_ALARM) -> NearDuplicates:
    """Find judged rows that are copies, or nearly so, of training rows.

    Parameters
    ----------
    X : data frame, BlockTable, or float array of shape (n_rows, n_features)
        Judged rows.
    X_training : data frame, BlockTable, or float array of shape (n_training, n_features)
        Same columns; standardised here by their own mean and deviation.
    false_alarm : float, default=0.001
        Chance that clean rows give any finding.

    Returns
    -------
    NearDuplicates
        Empty with fewer than 25 training rows.

    Raises
    ------
    ValueError
        If the numbers of columns differ.

    Notes
    -----
    Let r be the ratio of the distances to the nearest and the k-th nearest training row. In a
    neighbourhood of even density and dimension m, r to the m is the smallest of k - 1 uniform numbers. The bound on r
    is the value that n rows stay above with probability 1 - false_alarm, and never more than 0.35. The dimension is
    that of the row's own neighbourhood [3]_, its nearest neighbour left out; it is at most that of the whole,
    estimated as in [1]_ by the median, so that copies among the training rows do not lower it. Tables of more than
    256 columns are projected at random to that many [2]_. Of many rows only those are compared with all training rows
    that may have r below 0.35, by bounds on both distances, which changes no finding.

    References
    ----------
    .. [1] E. Facco, M. d'Errico, A. Rodriguez, A. Laio, "Estimating the intrinsic dimension of datasets by a
       minimal neighborhood information", Scientific Reports 7, 2017.
    .. [2] W. B. Johnson and J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984.
    .. [3] E. Levina and P. Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 17, 2004.
    """
    judged, training = _same_columns("find_near_duplicates", X, X_training)
    if len(training) < 25 or not len(judged):
        return NearDuplicates(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0), float("nan"))
    prepare = _standardiser(training)
    sampled = np.random.default_rng(0).permutation(len(training))
    sampled = sampled[: _SAMPLED_BY_BLOCKS if isinstance(training, BlockTable) else _SAMPLED]
    known = training.read(sampled) if isinstance(training, BlockTable) else training[sampled]
    queries, rows = prepare(judged), np.arange(len(judged))
    if _has_many_pairs(judged, training):
        rows = _suspects(queries, _prepared(training, prepare))
    blocks = ((places, prepare(block)) for places, block in row_blocks(training))
    distances, neighbours = nearest_rows(
        np.concatenate([queries[rows], prepare(known)]), blocks, _LOCAL_NEIGHBOURS
    )
    n = len(rows)
    dimension = _intrinsic_dimension(distances[n:, :3])
    bound = false_alarm / (len(judged) * (_NEIGHBOURS - 1))
    found, partners, ratios = _judge_neighbours(
        distances[:n], neighbours[:n], dimension, queries.shape[1], bound
    )
    return NearDuplicates(rows[found], partners, ratios, float(dimension))


def find_nearest_rows(X: Table, X_training: Table) -> IntArray:
    """Find the nearest training row of each judged row, as `find_near_duplicates` measures distance.

    Of more than 67 million pairs of rows in memory, the nearest among the rows that are nearest in each thousand along
    64 principal components: nearly always the nearest of all.

    Parameters
    ----------
    X : data frame, BlockTable, or float array of shape (n_rows, n_features)
        Judged rows.
    X_training : data frame, BlockTable, or float array of shape (n_training, n_features)
        Same columns, at least one row.

    Returns
    -------
    int array of shape (n_rows,)
        Positions among the training rows.

    Raises
    ------
    ValueError
        If the numbers of columns differ.
    """
    judged, training = _same_columns("find_nearest_rows", X, X_training)
    prepare = _standardiser(training)
    if not len(judged):
        return np.empty(0, np.intp)
    if _has_many_pairs(judged, training):
        _, distances, places = _nearest_by_block(prepare(judged), _prepared(training, prepare))
        return places[np.arange(len(places)), distances.argmin(axis=1)]
    blocks = ((rows, prepare(block)) for rows, block in row_blocks(training))
    return nearest_rows(prepare(judged), blocks, 1)[1][:, 0]


def _has_many_pairs(judged: FloatArray, training: Table | FloatArray) -> bool:
    """Tell whether comparing all rows would take long; a table that is read by blocks is compared as it is."""
    has_blocks = len(training) > _NEIGHBOURS * _SCREEN_BLOCK and not isinstance(training, BlockTable)
    return has_blocks and len(judged) * len(training) > _MAX_PAIRS


def _prepared(training: Table | FloatArray, prepare: Callable[[FloatArray], FloatArray]) -> FloatArray:
    return np.concatenate([prepare(block).astype(np.float32) for _, block in row_blocks(training)])


def _nearest_by_block(queries: FloatArray, training: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Find for each query the training row of each block that is nearest along the leading principal components.

    Returns the shortest of these projected distances, (n_queries,), which no distance falls below, then the true
    distances of the rows found and their positions, (n_queries, n_blocks).
    """
    queries = queries.astype(np.float32)
    axes = np.linalg.eigh(training.T @ training)[1][:, -_SCREEN_COLUMNS:]
    # |q - t|^2 - |q|^2 is one product: of (q, 1) and (-2 t, |t|^2).
    short, rows = queries @ axes, training @ axes
    ones = np.column_stack([short, np.ones(len(short), dtype=np.float32)])
    rows = np.column_stack([-2 * rows, np.einsum("ij,ij->i", rows, rows)])
    starts = range(0, len(rows), _SCREEN_BLOCK)
    least = np.full(len(queries), np.inf, dtype=np.float32)
    distances = np.empty((len(queries), len(starts)), dtype=np.float32)
    places = np.empty(distances.shape, dtype=np.intp)
    for first in range(0, len(queries), _SCREEN_BLOCK):
        part = slice(first, first + _SCREEN_BLOCK)
        for k, start in enumerate(starts):
            squares = ones[part] @ rows[start : start + _SCREEN_BLOCK].T
            nearest = squares.argmin(axis=1)
            least[part] = np.minimum(least[part], squares[np.arange(len(nearest)), nearest])
            places[part, k] = start + nearest
            apart = training[places[part, k]] - queries[part]
            distances[part, k] = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    squares = least + np.einsum("ij,ij->i", short, short)
    return np.asarray(np.sqrt(np.maximum(squares, 0)), dtype=np.float64), distances.astype(np.float64), places


def _suspects(queries: FloatArray, training: FloatArray) -> IntArray:
    """Return the rows that may lie within `_CLOSEST_SHARE` of the distance to their fifth nearest training row."""
    nearest, distances, _ = _nearest_by_block(queries, training)
    # The fifth nearest of some rows is no nearer than that of all; single precision errs by far less than a hundredth.
    fifth = np.partition(distances, _NEIGHBOURS - 1, axis=1)[:, _NEIGHBOURS - 1]
    rounding = 0.01 * np.sqrt(np.einsum("ij,ij->i", queries, queries))
    return np.flatnonzero(nearest <= _CLOSEST_SHARE * fifth + rounding)


def _same_columns(who: str, X: Table, X_training: Table) -> tuple[FloatArray, BlockTable | FloatArray]:
    """Return the judged rows, a copy, and the training rows."""
    judged = X.read() if isinstance(X, BlockTable) else np.array(X, dtype=np.float64)
    training = X_training if isinstance(X_training, BlockTable) else np.asarray(X_training, dtype=np.float64)
    if judged.ndim != 2 or len(training.shape) != 2 or judged.shape[1] != training.shape[1]:
        raise ValueError(
            f"{who}: X and X_training must have the same columns, got shapes {judged.shape} and {training.shape}."
        )
    return judged, training


def _standardiser(training: Table) -> Callable[[FloatArray], FloatArray]:
    """Make the function that standardises rows by those of the training, in place, and projects them."""
    first, total, squares = next(row_blocks(training, np.arange(1)))[1][0], 0.0, 0.0
    for _, block in row_blocks(training):
        block -= first
        total, squares = total + block.sum(axis=0), squares + np.einsum("ij,ij->j", block, block)
    shift = total / len(training)
    mean, deviation = first + shift, np.sqrt(np.maximum(squares / len(training) - shift**2, 0.0))
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    n_varying = int(np.count_nonzero(varies))
    directions: FloatArray | None = None
    if n_varying > _PROJECTED_COLUMNS:
        projection = GaussianRandomProjection(_PROJECTED_COLUMNS, random_state=0)
        directions = projection.fit(np.zeros((1, n_varying))).components_.T

    def prepare(values: FloatArray) -> FloatArray:
        if not n_varying:
            return np.zeros((len(values), 1))
        values -= mean
        values /= np.where(varies, deviation, 1.0)
        chosen = values if n_varying == len(varies) else values[:, varies]
        return chosen if directions is None else chosen @ directions

    return prepare


def _judge_neighbours(
    distances: FloatArray, neighbours: IntArray, dimension: float, n_columns: int, bound: float
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the rows found, the nearest of each and its ratio; ``bound`` is that of one uniform number."""
    scale = np.sqrt(n_columns)  # of standardised columns; below a billionth of it is rounding
    nearest = np.where(distances[:, 0] < 1e-7 * scale, 0.0, distances[:, 0])
    fifth = distances[:, _NEIGHBOURS - 1]
    ratios = np.divide(nearest, fifth, out=np.zeros_like(nearest), where=fifth > 0)
    local = np.minimum(_local_dimensions(distances), dimension)
    bounds = np.minimum(bound ** (1 / local), _CLOSEST_SHARE)
    # Five copies of one training image leave no neighbourhood to compare with: a copy all the same.
    rows = np.flatnonzero((ratios < bounds) | (nearest == 0))
    rows = rows[np.argsort(ratios[rows], kind="stable")]
    return rows, neighbours[rows, 0], ratios[rows]


def _null_correlation(n_rows: int, p: float) -> float:
    """Correlation that independent vectors exceed in absolute value with probability ``p``."""
    quantile = float(t.isf(p / 2, n_rows - 2))
    return quantile / float(np.sqrt(quantile**2 + n_rows - 2))


def _honest_correlation(n_rows: int) -> float:
    """Correlation that a column of true correlation 0.9 exceeds with probability `FALSE_ALARM`, by Fisher's z."""
    return float(np.tanh(np.arctanh(HONEST_SRCC) + norm.isf(FALSE_ALARM) * 1.03 / np.sqrt(n_rows - 3)))


def _rank_correlations(values: FloatArray, mos: FloatArray) -> FloatArray:
    if not values.shape[1]:
        return np.empty(0)
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    target = rankdata(mos)
    target -= target.mean()
    norms = np.sqrt(np.einsum("ij,ij->j", ranks, ranks) * (target @ target))
    return np.divide(target @ ranks, norms, out=np.zeros_like(norms), where=norms > 0)


def _intrinsic_dimension(distances: FloatArray) -> float:
    """Estimate the dimension from the distances of training rows to themselves and their two nearest others."""
    usable = distances[:, 1] > 0
    if usable.sum() < 10:
        return 1.0
    ratio = float(np.median(distances[usable, 2] / distances[usable, 1]))
    return float(np.clip(np.log(2) / np.log(max(ratio, 1 + 1e-9)), 1.0, 60.0))


def _local_dimensions(distances: FloatArray) -> FloatArray:
    """Estimate the dimension around each row from its second to last neighbour."""
    inner, outer = distances[:, 1:-1], distances[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_log = np.log(outer / inner).mean(axis=1)
        dimensions = 1 / mean_log
    return np.where(np.isfinite(dimensions), np.maximum(dimensions, 0.5), 0.5)


# Rows whose distances to all queries are in memory together.
_ROWS = 4096


def row_blocks(X: Table, rows: IntArray | None = None) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield positions and float64 values of the rows of a table, some or all."""
    if isinstance(X, BlockTable):
        yield from X.blocks(rows)
        return
    values = np.asarray(X, dtype=np.float64)
    chosen = np.arange(len(values)) if rows is None else rows
    for start in range(0, len(chosen), _ROWS):
        part = chosen[start : start + _ROWS]
        yield part, values[part]


def nearest_rows(
    queries: FloatArray, blocks: Iterable[tuple[IntArray, FloatArray]], n_neighbours: int
) -> tuple[FloatArray, IntArray]:
    """Find the ``n_neighbours`` nearest rows of each query among blocks of (positions, values).

    Returns Euclidean distances, ascending, and positions, both of shape (n_queries, n_neighbours); infinite and -1
    where there are fewer rows.
    """
    best = np.full((len(queries), n_neighbours), np.inf)
    where = np.full((len(queries), n_neighbours), -1, dtype=np.intp)
    for rows, block in blocks:
        search = NearestNeighbors(n_neighbors=min(n_neighbours, len(block)), algorithm="brute").fit(block)
        distances, found = search.kneighbors(queries)
        best, where = np.hstack([best, distances]), np.hstack([where, rows[found]])
        order = np.argsort(best, axis=1, kind="stable")[:, :n_neighbours]
        best, where = np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)
    return best, where


MAX_SIGMA: Final = 4.0
"""Standard errors above zero from which the control speaks of a leak: by the normal law once in 30,000 clean runs, and
at most once in 1,000 by the simulation of `experiments.benchmarks.trust`, on small sets and heavy ties too."""

_MAX_DRAWS = 200


@dataclass(frozen=True)
class PermutationControl:
    """Held-out scores of a fit on the true MOS and on shuffled ones.

    Attributes
    ----------
    score : float
        SRCC of the fit's held-out predictions on the true MOS, the mean over folds.
    shuffled : float array of shape (n_permutations,)
        The same on each shuffle: a little above zero by what was chosen on these folds.
    unchosen : float array of shape (n_permutations,)
        Mean score of all candidates on each shuffle, which has mean 0 where there is no leak.
    standard_error : float
        Of the mean of ``unchosen`` where there is no leak.
    """

    score: float
    shuffled: FloatArray
    unchosen: FloatArray
    standard_error: float

    @property
    def mean(self) -> float:
        """Mean of ``shuffled``."""
        return float(self.shuffled.mean())

    @property
    def spread(self) -> float:
        """Standard deviation of ``shuffled``, 0 for a single one."""
        return float(self.shuffled.std(ddof=1)) if len(self.shuffled) > 1 else 0.0

    @property
    def limit(self) -> float:
        """What the mean of ``unchosen`` stays below on clean data."""
        return MAX_SIGMA * self.standard_error

    @property
    def is_leaking(self) -> bool:
        """Whether shuffled MOS are predicted better than chance allows."""
        return float(self.unchosen.mean()) > self.limit

    @property
    def n_above(self) -> int:
        """Shuffles that score at least as high as the true MOS."""
        return int((self.shuffled >= self.score).sum())


def fold_srcc(y: ArrayLike, held_out: ArrayLike, folds: Sequence[Fold]) -> float:
    """Mean over folds of at least 3 rows of the SRCC inside each; a constant prediction counts as 0.

    Predictions of different folds come from different fits, whose means differ against the held-out MOS: joined, they
    correlate negatively with shuffled MOS.
    """
    mos, predicted = np.asarray(y, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    scores = [srcc(mos[test], predicted[test]) for _, test in folds if len(test) >= 3]
    return float(np.mean(np.nan_to_num(scores))) if scores else 0.0


def permutation_control(
    fit: Callable[[FloatArray], tuple[ArrayLike, ArrayLike]],
    y: ArrayLike,
    folds: Sequence[Fold],
    *,
    held_out: ArrayLike | None = None,
    n_permutations: int = 5,
    random_state: int = 0,
) -> PermutationControl | None:
    """Run a fit on shuffled MOS and score its held-out predictions.

    Parameters
    ----------
    fit : callable
        Takes MOS of shape (n_rows,) and does everything that the real fit does, on the same rows and folds. Returns
        held-out predictions of shape (n_rows,), and the correlation with MOS in each fold of every candidate that the
        fit chooses from, shape (n_candidates, n_folds).
    y : float array of shape (n_rows,)
        The true MOS.
    folds : sequence of (train, test)
        The folds of ``fit``.
    held_out : float array of shape (n_rows,), optional
        The predictions of ``fit(y)``, if they are known already.
    n_permutations : int, default=5
        At least 1.
    random_state : int, default=0
        Seed of the shuffles. One that leaves all MOS of a fold equal is drawn again.

    Returns
    -------
    PermutationControl or None
        None where the MOS have so few different values that some fold holds equal ones alone in each shuffle.

    Raises
    ------
    ValueError
        If ``y`` or the folds are not admissible, or there is no permutation.
    """
    who = "permutation_control"
    mos = check_vector(who, "y", y, min_rows=4)
    checked = check_folds(folds, len(mos), who=who)
    if n_permutations < 1:
        raise ValueError(f"{who}: n_permutations must be at least 1, got {n_permutations!r}.")
    rng = np.random.default_rng(random_state)
    known = fit(mos)[0] if held_out is None else held_out
    shuffled, unchosen = np.empty(n_permutations), np.empty(n_permutations)
    for k in range(n_permutations):
        permuted = _shuffle(rng, mos, [test for _, test in checked])
        if permuted is None:
            return None
        predicted, scores = fit(permuted)
        shuffled[k] = fold_srcc(permuted, predicted, checked)
        unchosen[k] = np.nan_to_num(np.asarray(scores, dtype=np.float64)).mean()
    sizes = np.array([max(len(test), 2) for _, test in checked])
    variance = min(2, len(sizes)) * (1 / (sizes - 1)).sum() / len(sizes) ** 2
    return PermutationControl(
        fold_srcc(mos, known, checked), shuffled, unchosen, float(np.sqrt(variance / n_permutations))
    )


def _shuffle(rng: np.random.Generator, mos: FloatArray, tests: Sequence[IntArray]) -> FloatArray | None:
    """Shuffle MOS so that no fold holds equal ones alone, on which nothing can be ranked."""
    for _ in range(_MAX_DRAWS):
        permuted = rng.permutation(mos)
        if all(np.ptp(permuted[test]) > 0 for test in tests):
            return permuted
    return None
