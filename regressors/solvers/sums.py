"""Sums over the rows of a table, from which the scales and the normal equations of every fold follow.

Rows that the same folds train on form one part. Each part is summed about its own means, in two passes; the parts of a
fold are then joined by the formula for pairs of samples [1]_, which only adds what is positive. So the folds share one
product of matrices, no digits cancel, and an outlier among the rows that a fold tests never enters it.

References
----------
.. [1] T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance: analysis and recommendations",
   The American Statistician 37, 1983.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from regressors.bands import BlockTable
from regressors.checks import FloatArray, IntArray
from regressors.folds import Fold

MAX_PARTS = 64
"""Most parts into which folds may cut the rows; k folds make k, a hold-out 2."""

ALL = -1
"""Number of the fold that trains on all rows and tests none."""

PRODUCT_BYTES = 64_000_000
"""Rows of an array that are multiplied at a time."""

Rows: TypeAlias = FloatArray | BlockTable
Run: TypeAlias = Callable[..., Any]
"""Computes independent tasks, as the ``map`` of an executor does."""

_EPS = float(np.finfo(np.float64).eps)
_BLOCK_BYTES = 1_000_000  # of an array in memory at a time: what stays in the cache for several passes
_TILE = 64


class ColumnScale(NamedTuple):
    """What the scaler learns on the training rows of one fold, each of shape (n_columns,).

    ``factor`` is 1 / deviation: 1 for columns constant up to rounding, which do not vary, 0 for columns exactly
    constant.
    """

    mean: FloatArray
    factor: FloatArray
    varies: np.ndarray
    variance: FloatArray


class NormalEquations(NamedTuple):
    """Normal equations of standardised columns on the training rows of one fold.

    ``columns`` are ascending positions in the table, ``gram`` is Z' W Z, ``right`` is Z' W (y - y_mean).
    """

    columns: IntArray
    gram: FloatArray
    right: FloatArray
    y_mean: float


class Parts(NamedTuple):
    """Rows cut by the folds that train on them: positions in each part; parts of each fold, last those of all rows."""

    rows: list[IntArray]
    trained: list[list[int]]


@dataclass(frozen=True)
class FoldTable:
    """A table of features with its target, weights and folds.

    Attributes
    ----------
    features : float64 array or BlockTable of shape (n_rows, n_features)
        Finite features.
    y : float64 array of shape (n_rows,)
        MOS.
    bands : mapping of str to int array
        Column positions of each band.
    folds : sequence of (train, test)
        Row positions; training rows may repeat in an array.
    weight : float64 array of shape (n_rows,), or None
        Weights of the rows.
    scaling : {"deviation", "none", "range", "quartiles"}
        What columns are divided by: their deviation, nothing, their range as `sklearn.preprocessing.MinMaxScaler` does,
        or the distance of their quartiles as `sklearn.preprocessing.RobustScaler` does.
    """

    features: Rows
    y: FloatArray
    bands: Mapping[str, IntArray]
    folds: Sequence[Fold]
    weight: FloatArray | None = None
    scaling: str = "deviation"
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def matrix(self) -> FloatArray:
        """The features of a table in memory."""
        return cast(FloatArray, self.features)

    def train_rows(self, fold: int) -> IntArray:
        """Return the training rows of a fold that the regressor sees: those of positive weight."""
        train = np.arange(len(self.y)) if fold == ALL else self.folds[fold][0]
        return train if self.weight is None else train[self.weight[train] > 0]

    def train_weights(self, fold: int) -> FloatArray | None:
        """Return the regressor's weights of `train_rows`; None without weights."""
        return None if self.weight is None else self.weight[self.train_rows(fold)]

    def alone(self, fold: int, *, with_features: bool) -> FoldTable:
        """Return the table with one fold, for a task that is sent away."""
        features = self.features if with_features else np.empty((len(self.y), 0))
        return replace(self, features=features, folds=[self.folds[fold]], cache={})


def as_slice(positions: IntArray) -> slice | IntArray:
    """Return consecutive positions as a slice, which takes no copy; others as they are."""
    if (
        len(positions)
        and positions[-1] - positions[0] + 1 == len(positions)
        and (np.diff(positions) == 1).all()
    ):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def read_rows(
    X: Rows, rows: IntArray, columns: IntArray | None = None, n_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Read rows in blocks: their positions, and a float64 copy of some of their columns, or all."""
    if isinstance(X, BlockTable):
        yield from (X if columns is None else X.select(list(X.columns[columns]))).blocks(rows)
        return
    cut = slice(None) if columns is None else as_slice(columns)
    width = X.shape[1] if columns is None else len(columns)
    step = max(16, n_bytes // (8 * max(1, width)))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        yield some, X[:, cut][some] if isinstance(cut, slice) else X[some[:, None], cut]


def standardised(
    table: FoldTable, rows: IntArray, columns: IntArray, centre: FloatArray, scale: ColumnScale
) -> FloatArray:
    """Return standardised values of shape (n_rows, n_columns); columns constant on the training rows become zero."""
    cut = as_slice(columns)
    values = table.matrix[:, cut][rows] if isinstance(cut, slice) else table.matrix[rows[:, None], cut]
    values -= centre[cut]
    values *= scale.factor[cut]
    return values


def cut_parts(table: FoldTable, weights: FloatArray | None) -> Parts:
    """Cut the rows of a table by the folds that train on them; rows without weight are in no part.

    More than `MAX_PARTS` parts are a ValueError out of core; an array gets one part for each fold then.
    """
    n_rows, trains = len(table.y), [train for train, _ in table.folds]
    label, signature = np.zeros(n_rows, dtype=np.int64), [()]
    for train in trains:
        label *= 2
        label[train] += 1
        known, label = np.unique(label, return_inverse=True)
        signature = [(*signature[code // 2], code % 2 == 1) for code in known.tolist()]
        if len(known) > MAX_PARTS or len(np.unique(train)) < len(train):
            if isinstance(table.features, BlockTable):
                raise ValueError(
                    f"a table that is read by blocks takes folds that cut its rows into at most {MAX_PARTS} parts, got "
                    f"more from {len(table.folds)} folds. Use k folds or a hold-out."
                )
            own = [
                rows if weights is None else rows[weights[rows] > 0] for rows in (*trains, np.arange(n_rows))
            ]
            return Parts(own, [[part] for part in range(len(own))])
    if weights is not None:
        label[weights <= 0] = -1
    rows = [np.flatnonzero(label == part) for part in range(len(signature))]
    there = [part for part in range(len(signature)) if len(rows[part])]
    trained = [[n for n, part in enumerate(there) if signature[part][fold]] for fold in range(len(trains))]
    return Parts([rows[part] for part in there], [*trained, list(range(len(there)))])


class RowSums:
    """Sums of the columns of a table, part by part; a ValueError if a value is not finite.

    ``run`` computes the parts. Without ``squares`` now, `multiply` must be asked for all columns.
    """

    def __init__(
        self, X: Rows, parts: Parts, weights: FloatArray | None, *, run: Run = map, squares: bool = True
    ) -> None:
        self._X, self.parts, self._weights, self._has_squares = X, parts, weights, squares
        shape = len(parts.rows), X.shape[1]
        self.total = np.array(
            [float(len(r)) if weights is None else float(weights[r].sum()) for r in parts.rows]
        )
        self.centre, self._squares = np.zeros(shape), np.zeros(shape)
        self._low, self._high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.columns: IntArray = np.empty(0, dtype=np.intp)
        self._grams: list[FloatArray] = []
        list(run(self._measure, range(len(parts.rows))))

    def is_of(self, parts: Parts, weights: FloatArray | None) -> bool:
        """Say whether these are the sums of such parts with such weights."""
        own = self._weights
        return (
            parts.trained == self.parts.trained
            and (own is None) == (weights is None)
            and (own is None or weights is None or np.array_equal(own, weights))
            and all(np.array_equal(a, b) for a, b in zip(parts.rows, self.parts.rows, strict=True))
        )

    def _sum(self, rows: IntArray, values: FloatArray) -> FloatArray:
        summed: FloatArray = values.sum(axis=0) if self._weights is None else self._weights[rows] @ values
        return summed

    def _measure(self, part: int) -> None:
        """Find means and extremes in one pass, squares about the means in another."""
        rows, total, low, high = self.parts.rows[part], self.total[part], self._low[part], self._high[part]
        first, summed = next(read_rows(self._X, rows[:1]))[1][0], np.zeros(self._X.shape[1])
        for some, block in read_rows(self._X, rows):
            np.minimum(low, block.min(axis=0), out=low)
            np.maximum(high, block.max(axis=0), out=high)
            # About the first row, so that a common offset costs no digits.
            block -= first
            summed += self._sum(some, block)
        if not np.isfinite(summed).all():
            names = getattr(self._X, "columns", range(len(summed)))
            bad = names[int(np.argmin(np.isfinite(summed)))]
            raise ValueError(f"the table must be finite, got NaN or infinite values in column {bad!r}.")
        self.centre[part] = first + summed / total
        rest = np.zeros(len(summed))
        for some, block in read_rows(self._X, rows) if self._has_squares else ():
            block -= self.centre[part]
            rest += self._sum(some, block)
            block *= block
            self._squares[part] += self._sum(some, block)
        # What the rounding of the means left over.
        self._squares[part] -= rest**2 / total
        self.centre[part] += rest / total

    def multiply(self, columns: IntArray, *, run: Run = map, stored: bool = True) -> None:
        """Multiply some columns by each other about their means; what is not stored is computed again in each fold."""
        if not len(np.setdiff1d(columns, self.columns)):
            return
        self.columns, self._grams = np.union1d(columns, self.columns), []
        if self._has_squares and not stored:
            return
        found = list(run(self._multiply, range(len(self.parts.rows))))
        self._grams = [gram for gram, _ in found]
        if not self._has_squares:
            self._squares = np.array([np.diagonal(gram) for gram in self._grams])
            self.centre += np.array([shift for _, shift in found])

    def _multiply(self, part: int) -> tuple[FloatArray, FloatArray]:
        """Return the products of one part about its means, and what the rounding of the means left over."""
        every = len(self.columns) == self._X.shape[1]
        centre, total = self.centre[part, self.columns], self.total[part]
        gram, rest = np.zeros((0, 0)), np.zeros(len(centre))
        columns = None if every else self.columns
        for some, block in read_rows(self._X, self.parts.rows[part], columns, PRODUCT_BYTES):
            block -= centre
            rest += self._sum(some, block)
            if self._weights is not None:
                block *= np.sqrt(self._weights[some])[:, None]
            product = block.T @ block
            gram = product if not len(gram) else np.add(gram, product, out=gram)
        gram -= np.outer(rest / total, rest)
        return gram, rest / total

    def _sum_products(self, parts: IntArray) -> FloatArray:
        total, _ = self._multiply(int(parts[0]))
        for part in parts[1:].tolist():
            total += self._multiply(part)[0]
        return total

    def against(self, y: FloatArray, *, run: Run = map) -> TargetSums:
        """Multiply the columns by a target of shape (n_rows,), both about their means, in one pass."""

        def cross(part: int) -> tuple[float, FloatArray]:
            rows, summed = self.parts.rows[part], np.zeros(self._X.shape[1])
            mean = float(np.average(y[rows], weights=None if self._weights is None else self._weights[rows]))
            for some, block in read_rows(self._X, rows):
                block -= self.centre[part]
                target = y[some] - mean
                summed += (target if self._weights is None else self._weights[some] * target) @ block
            return mean, summed

        found = list(run(cross, range(len(self.parts.rows))))
        return TargetSums(np.array([mean for mean, _ in found]), np.array([summed for _, summed in found]))

    def _join(self, fold: int) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return the parts of a fold, their weights and the joint means."""
        parts = np.asarray(self.parts.trained[fold], dtype=np.intp)
        if not len(parts):
            raise ValueError(f"fold {fold} has no training row of positive weight.")
        total, centre = self.total[parts], self.centre[parts]
        return parts, total, centre[0] + (total / total.sum()) @ (centre - centre[0])

    def mean(self, fold: int) -> FloatArray:
        """Return the means of all columns over the training rows of a fold."""
        return self._join(fold)[2]

    def scale(self, fold: int, scaling: str = "deviation") -> ColumnScale:
        """Return what scikit-learn's scaler learns of all columns on the training rows of a fold."""
        parts, total, mean = self._join(fold)
        n_seen, low, high = total.sum(), self._low[parts].min(axis=0), self._high[parts].max(axis=0)
        variance = (self._squares[parts].sum(axis=0) + total @ (self.centre[parts] - mean) ** 2) / n_seen
        exact = low == high
        if scaling != "deviation":
            extent = high - low if scaling == "range" else np.ones(len(low))
            return ColumnScale(mean, _inverse(extent, exact), ~exact, variance)
        # Chan, Golub and LeVeque's bound on the rounding of the variance, by which the scaler finds constants.
        varies = variance > n_seen * _EPS * variance + (n_seen * mean * _EPS) ** 2
        deviation = np.sqrt(np.where(varies, variance, 1.0))
        return ColumnScale(mean, np.where(exact, 0.0, 1.0 / deviation), varies & ~exact, variance)

    def normal(self, fold: int, target: TargetSums, factor: FloatArray) -> NormalEquations:
        """Join the normal equations of a fold, or of `ALL` rows; ``factor`` is what the columns are multiplied by."""
        parts, total, mean = self._join(fold)
        columns, factor = self.columns, factor[self.columns]
        y_mean = float(
            target.mean[parts[0]] + (total / total.sum()) @ (target.mean[parts] - target.mean[parts[0]])
        )
        off = (self.centre[parts] - mean)[:, columns]
        right = target.cross[parts][:, columns].sum(axis=0) + (total * (target.mean[parts] - y_mean)) @ off
        grams = [self._grams[part] for part in parts.tolist()] if self._grams else [self._sum_products(parts)]
        gram = np.empty((len(columns),) * 2)
        # A few rows at a time, so that each is read from memory and written to it once.
        for start in range(0, len(gram), _TILE):
            tile = slice(start, start + _TILE)
            own = (off[:, tile] * total[:, None]).T @ off
            for part in grams:
                own += part[tile]
            own *= factor
            np.multiply(own, factor[tile, None], out=gram[tile])
        return NormalEquations(columns, gram, factor * right, y_mean)


class TargetSums(NamedTuple):
    """Means of the target, and its products with the columns (n_parts, n_columns), about the means of each part."""

    mean: FloatArray
    cross: FloatArray


class Measures(NamedTuple):
    """What the folds of a table share; scales and centres of all columns in each fold, last over all rows."""

    sums: RowSums
    target: TargetSums
    scales: list[ColumnScale]
    centres: list[FloatArray]


def measure(table: FoldTable, *, run: Run = map) -> Measures:
    """Sum the rows of a table, or take what an earlier call on the same rows, folds and weights has found."""
    if "measures" in table.cache:
        known: Measures = table.cache["measures"]
        return known
    X, parts = table.features, cut_parts(table, table.weight)
    if isinstance(X, BlockTable):
        sums = X.shared.get("row sums")
        if not (isinstance(sums, RowSums) and sums.is_of(parts, table.weight)):
            sums = RowSums(X, parts, table.weight, run=run, squares=False)
            sums.multiply(np.arange(X.shape[1]), run=run)
            X.shared["row sums"] = sums
    else:
        sums = RowSums(X, parts, table.weight, run=run)
    folds = [*range(len(table.folds)), ALL]
    measures = Measures(
        sums,
        sums.against(table.y, run=run),
        [_scale(table, sums, fold) for fold in folds],
        [sums.mean(fold) for fold in folds],
    )
    table.cache["measures"] = measures
    return measures


def _scale(table: FoldTable, sums: RowSums, fold: int) -> ColumnScale:
    """Return what the scaler learns on the training rows of a fold; quartiles are no sums, and take the rows again."""
    scale = sums.scale(fold, table.scaling)
    if table.scaling != "quartiles":
        return scale
    rows, extent = table.train_rows(fold), np.empty(len(scale.mean))
    for start in range(0, len(extent), _TILE):
        tile = slice(start, start + _TILE)
        low, high = np.percentile(table.matrix[:, tile][rows], (25.0, 75.0), axis=0)
        extent[tile] = high - low
    return scale._replace(factor=_inverse(extent, ~scale.varies))


def _inverse(extent: FloatArray, constant: np.ndarray) -> FloatArray:
    """Return 1 / extent, 0 for constant columns; scikit-learn's scalers leave an extent of rounding size as it is."""
    return np.where(constant, 0.0, 1.0 / np.where(extent < 10 * _EPS, 1.0, extent))
