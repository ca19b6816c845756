"""Finds signs that training rows know too much: columns that repeat the MOS, and images that lie on both sides.

Every bound here is set so that clean data raises an alarm about once in a thousand runs, whatever the number of
rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata, t
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import GaussianRandomProjection

from regressors.blocks import BlockTable
from regressors.checks import FloatArray, IntArray, Table, check_vector
from regressors.evaluation.neighbours import nearest_rows

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


@dataclass(frozen=True)
class NearDuplicates:
    """Rows that lie far closer to a training row than its neighbourhood explains.

    Attributes
    ----------
    rows : int array of shape (n_found,)
        Positions among the judged rows.
    partners : int array of shape (n_found,)
        Position of the nearest training row of each.
    ratios : float array of shape (n_found,)
        Distance to it, in units of the distance to the fifth nearest training row; 0 for a copy.
    bound : float
        Median over the judged rows of the ratio below which a row is found.
    dimension : float
        Intrinsic dimension of the training rows, which bounds that of each neighbourhood.
    """

    rows: IntArray
    partners: IntArray
    ratios: FloatArray
    bound: float
    dimension: float


def find_leaking_columns(X: Table, y: ArrayLike, *, limit: float = IMPLAUSIBLE_SRCC) -> dict[int, float]:
    """Find columns that rank the rows almost as the MOS does: the MOS itself, or a monotone function of it.

    Parameters
    ----------
    X : data frame or float array of shape (n_rows, n_features)
        Training rows.
    y : float array of shape (n_rows,)
        Their MOS.
    limit : float, default=0.97
        Smallest absolute SRCC that counts. With few rows chance reaches it, so the bound is raised to what neither
        pure noise nor a column of true correlation 0.9 exceeds more than once in a thousand tables.

    Returns
    -------
    dict of int to float
        Column position to SRCC, strongest first; empty for clean data, a constant MOS, or fewer than 20 rows.

    Raises
    ------
    ValueError
        If ``y`` is not admissible or its length differs.
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

    The nearest training row of an independent image lies a little closer than the next ones; how much closer, is
    governed by the intrinsic dimension of the features alone. A row that lies closer still is the same image.

    Parameters
    ----------
    X : data frame or float array of shape (n_rows, n_features)
        Judged rows.
    X_training : data frame or float array of shape (n_training, n_features)
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
    Let r be the ratio of the distances to the nearest and the k-th nearest training row. In a neighbourhood of even
    density and dimension m, r to the m is the smallest of k - 1 uniform numbers. The bound on r is the value that n
    rows stay above with probability 1 - false_alarm, and never more than 0.35. The dimension is that of the row's own
    neighbourhood [3]_, its nearest neighbour left out, since sparse regions of a table often have fewer directions than
    dense ones; it is at most that of the whole, estimated as in [1]_ by the median instead of a fit, so that copies
    among the training rows do not lower it. Tables of more than 256 columns are projected at random to that many [2]_.

    References
    ----------
    .. [1] E. Facco, M. d'Errico, A. Rodriguez, A. Laio, "Estimating the intrinsic dimension of datasets by a
       minimal neighborhood information", Scientific Reports 7, 2017.
    .. [2] W. B. Johnson and J. Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984.
    .. [3] E. Levina and P. Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 17, 2004.
    """
    if isinstance(X_training, BlockTable):
        return _near_duplicates_by_blocks(X, X_training, false_alarm)
    judged, training = np.asarray(X, dtype=np.float64), np.asarray(X_training, dtype=np.float64)
    if judged.ndim != 2 or training.ndim != 2 or judged.shape[1] != training.shape[1]:
        raise ValueError(
            f"find_near_duplicates: X and X_training must have the same columns, got shapes {judged.shape} and "
            f"{training.shape}."
        )
    nothing = NearDuplicates(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0), 0.0, float("nan"))
    if len(training) < 25 or not len(judged):
        return nothing
    judged, training = _standardise(judged, training)
    if training.shape[1] > _PROJECTED_COLUMNS:
        projection = GaussianRandomProjection(_PROJECTED_COLUMNS, random_state=0).fit(training[:1])
        judged, training = projection.transform(judged), projection.transform(training)
    index = NearestNeighbors(algorithm="brute").fit(training)
    sample, _ = index.kneighbors(training[_dimension_rows(len(training))], n_neighbors=3)
    distances, neighbours = index.kneighbors(judged, n_neighbors=_LOCAL_NEIGHBOURS)
    return _judge_neighbours(
        distances, neighbours, _intrinsic_dimension(sample), training.shape[1], false_alarm
    )


def _near_duplicates_by_blocks(X: Table, X_training: BlockTable, false_alarm: float) -> NearDuplicates:
    """Look for copies among the training rows block by block; the dimension comes from fewer rows."""
    judged = X.read() if isinstance(X, BlockTable) else np.array(X, dtype=np.float64)
    if judged.ndim != 2 or judged.shape[1] != X_training.shape[1]:
        raise ValueError(
            f"find_near_duplicates: X and X_training must have the same columns, got shapes {judged.shape} and "
            f"{X_training.shape}."
        )
    if len(X_training) < 25 or not len(judged):
        return NearDuplicates(np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0), 0.0, float("nan"))
    first, total, squares = X_training.read(np.arange(1))[0], 0.0, 0.0
    for _, block in X_training.blocks():
        block -= first
        total, squares = total + block.sum(axis=0), squares + np.einsum("ij,ij->j", block, block)
    shift = total / len(X_training)
    mean, deviation = first + shift, np.sqrt(np.maximum(squares / len(X_training) - shift**2, 0.0))
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    directions: FloatArray | None = None
    if np.count_nonzero(varies) > _PROJECTED_COLUMNS:
        projection = GaussianRandomProjection(_PROJECTED_COLUMNS, random_state=0)
        directions = projection.fit(np.zeros((1, np.count_nonzero(varies)))).components_.T

    def prepare(values: FloatArray) -> FloatArray:
        """Standardise rows, which are overwritten, and project them."""
        if not varies.any():
            return np.zeros((len(values), 1))
        values -= mean
        values /= np.where(varies, deviation, 1.0)
        chosen = values if varies.all() else values[:, varies]
        return chosen if directions is None else chosen @ directions

    sampled = prepare(X_training.read(_dimension_rows(len(X_training))[:_SAMPLED_BY_BLOCKS]))
    queries = np.concatenate([prepare(judged), sampled])
    blocks = ((rows, prepare(block)) for rows, block in X_training.blocks())
    distances, neighbours = nearest_rows(queries, blocks, _LOCAL_NEIGHBOURS)
    n = len(judged)
    dimension = _intrinsic_dimension(distances[n:, :3])
    return _judge_neighbours(distances[:n], neighbours[:n], dimension, queries.shape[1], false_alarm)


def _judge_neighbours(
    distances: FloatArray, neighbours: IntArray, dimension: float, n_columns: int, false_alarm: float
) -> NearDuplicates:
    scale = np.sqrt(n_columns)  # of standardised columns; below a billionth of it is rounding
    nearest = np.where(distances[:, 0] < 1e-7 * scale, 0.0, distances[:, 0])
    fifth = distances[:, _NEIGHBOURS - 1]
    ratios = np.divide(nearest, fifth, out=np.zeros_like(nearest), where=fifth > 0)
    local = np.minimum(_local_dimensions(distances), dimension)
    bounds = (false_alarm / (len(distances) * (_NEIGHBOURS - 1))) ** (1 / local)
    bounds = np.minimum(bounds, _CLOSEST_SHARE)
    # Five copies of one training image leave no neighbourhood to compare with: a copy all the same.
    rows = np.flatnonzero((ratios < bounds) | (nearest == 0))
    rows = rows[np.argsort(ratios[rows], kind="stable")]
    return NearDuplicates(rows, neighbours[rows, 0], ratios[rows], float(np.median(bounds)), float(dimension))


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


def _standardise(judged: FloatArray, training: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean, deviation = training.mean(axis=0), training.std(axis=0)
    varies = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    if not varies.any():
        return np.zeros((len(judged), 1)), np.zeros((len(training), 1))
    mean, deviation = mean[varies], deviation[varies]
    return (judged[:, varies] - mean) / deviation, (training[:, varies] - mean) / deviation


def _dimension_rows(n_rows: int) -> IntArray:
    return np.random.default_rng(0).permutation(n_rows)[:_SAMPLED]


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
