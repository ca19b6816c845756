"""Feature tables and their bands: columns ``band:0000`` found by name, chosen, scaled, and read by blocks of rows.

A band is all columns of one feature. A plain array, or a frame whose columns follow no pattern, is one band.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from regressors.checks import FloatArray, IntArray, Table

WHOLE_TABLE = "features"
"""Name of the one band of a table whose columns carry no band names."""

_COLUMN = re.compile(r"(?P<band>.+):(?P<number>\d{4,})")


def band_columns(columns: Iterable[Any]) -> dict[str, list[str]]:
    """Group column names by band, in table order.

    ``name:0000`` belongs to band ``name``: everything before the last colon, at least four digits after it. When no
    column follows the pattern, all are one band, ``features``.

    Raises
    ------
    TypeError
        If a column name is not a string: scikit-learn would no longer check the order of the columns.
    ValueError
        If only some columns follow the pattern, or a name occurs twice.

    Examples
    --------
    >>> from regressors.bands import band_columns
    >>> band_columns(["nss:0000", "nss:0001", "gist:0000"])
    {'nss': ['nss:0000', 'nss:0001'], 'gist': ['gist:0000']}
    """
    names = list(columns)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise TypeError(
            f"band_columns: column names must be strings such as 'band:0000', got {odd[0]!r} "
            f"({type(odd[0]).__name__}). With other labels the order of columns would go unchecked."
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"band_columns: column names must be unique, got {twice!r} more than once.")
    bands: dict[str, list[str]] = {}
    strangers = []
    for name in names:
        match = _COLUMN.fullmatch(name)
        if match:
            bands.setdefault(match["band"], []).append(name)
        else:
            strangers.append(name)
    if bands and strangers:
        raise ValueError(
            f"band_columns: all columns must be named 'band:0000', got {len(strangers)} of {len(names)} that are not, "
            f"for example {strangers[0]!r}. Rename it, or drop it: a column without a band belongs to no member."
        )
    return bands or ({WHOLE_TABLE: names} if names else {})


def locate_bands(names: Sequence[Any] | None, n_features: int) -> dict[str, IntArray]:
    """Find the column positions of each band, in table order; a table without names (None) is one band."""
    if names is None:
        return {WHOLE_TABLE: np.arange(n_features)}
    place = {name: position for position, name in enumerate(names)}
    return {
        band: np.array([place[name] for name in columns], dtype=np.intp)
        for band, columns in band_columns(names).items()
    }


def check_labels(who: str, X: Table) -> None:
    """Refuse a frame with several levels of column labels, in which bands and their order would go unseen."""
    if isinstance(X, pd.DataFrame) and X.columns.nlevels > 1:
        raise TypeError(
            f"{who}: column names must be plain strings such as 'band:0000', got {X.columns.nlevels} levels of labels. "
            "Join them first, for example X.columns = [f'{band}:{k:04d}' for band, k in X.columns]."
        )


def unknown_bands(who: str, asked: Iterable[str], known: Iterable[str]) -> ValueError | None:
    """Build the ValueError for names ``asked`` by ``who`` that are not ``known``; None when all are."""
    there = list(known)
    missing = [band for band in asked if band not in there]
    if not missing:
        return None
    near = difflib.get_close_matches(str(missing[0]), there, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if there == [WHOLE_TABLE]:
        hint = " Columns get bands by their names, 'band:0000', in a data frame; an array is one band."
    listed = f"{there[:20]}{' and more' if len(there) > 20 else ''}"
    return ValueError(
        f"{who}: bands must be among the {len(there)} of the table, {listed}, got {missing[0]!r}.{hint}"
    )


class SelectBands(SelectorMixin, BaseEstimator):
    """Keep the columns of the chosen bands, in float64.

    scikit-learn's scaler keeps the type it is given, and ridge on standardised float32 columns is off by up to 1e-3 of
    the predictions' range.

    Parameters
    ----------
    bands : list of str, or None, default=None
        Names of the bands to keep, in any order; None keeps all.
    keep_names : bool, default=True
        Whether a data frame stays one, so that a later `BandScaler` sees the bands. Small tables are several times
        faster without.

    Attributes
    ----------
    bands_ : tuple of str
        Bands kept, in table order.
    columns_ : int array of shape (n_kept,)
        Positions of the kept columns.
    """

    def __init__(self, bands: Sequence[str] | None = None, *, keep_names: bool = True) -> None:
        self.bands = bands
        self.keep_names = keep_names

    def fit(self, X: Table, y: ArrayLike | None = None) -> SelectBands:
        """Find the chosen columns of a frame or array (n_rows, n_features); a ValueError if a band is unknown."""
        self._fit_names(X)
        self._read(X)
        return self

    def fit_transform(self, X: Table, y: ArrayLike | None = None) -> Table:
        """Find the chosen columns and return them; the table is read once."""
        self._fit_names(X)
        return self._cut(X)

    def transform(self, X: Table) -> Table:
        """Return the chosen columns in table order: float64 of shape (n_rows, n_kept), a frame when ``X`` is one.

        A ValueError if the columns or their order differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame):
            check_array(X, dtype=np.float64, estimator=self)  # before any column is counted
        validate_data(self, X, reset=False, skip_check_array=True)
        return self._cut(X)

    def _fit_names(self, X: Table) -> None:
        check_labels("SelectBands", X)
        if not isinstance(X, pd.DataFrame):
            check_array(X, dtype=np.float64, estimator=self)  # before any column is counted
        validate_data(self, X, skip_check_array=True)
        located = locate_bands(getattr(self, "feature_names_in_", None), self.n_features_in_)
        self.bands_ = _chosen_bands("SelectBands", self.bands, located)
        self.columns_ = np.sort(np.concatenate([located[band] for band in self.bands_]))

    def _cut(self, X: Table) -> Table:
        values = self._read(X)
        if self.keep_names and isinstance(X, pd.DataFrame):
            return pd.DataFrame(values, index=X.index, columns=X.columns[self.columns_], copy=False)
        return values

    def _read(self, X: Table) -> FloatArray:
        if isinstance(X, pd.DataFrame):
            # Cut before the cast, which copies.
            chosen = X if len(self.columns_) == X.shape[1] else X.iloc[:, self.columns_]
            return check_array(chosen.to_numpy(), dtype=np.float64, estimator=self)
        # Checked whole, so that an array of the wrong kind is named as such; then cut.
        values = check_array(X, dtype=np.float64, estimator=self)
        return values if len(self.columns_) == values.shape[1] else values[:, self.columns_]

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.columns_] = True
        return mask


class BandScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Standardise each column, then give each band a weight.

    Ridge on bands multiplied by w is ridge with the penalty alpha / w ** 2 on that band [1]_.

    Parameters
    ----------
    band_weights : dict of str to float, or None, default=None
        Weight of each band, positive; a band that is not named has weight 1.
    unit_band : bool, default=False
        Whether each band is divided by the root of its number of varying columns, so that it has total
        variance 1 before its weight.

    Attributes
    ----------
    bands_ : tuple of str
        Bands of the table, in order.
    scaler_ : StandardScaler
        The fitted column standardisation; constant columns become 0.
    column_weights_ : float64 array of shape (n_features_in_,)
        Factor of each standardised column, positive.

    References
    ----------
    .. [1] T. Dupre la Tour, M. Eickenberg, A. Nunez-Elizalde and J. Gallant, "Feature-space selection with
       banded ridge regression", NeuroImage 264, 2022, section 2.2.
    """

    def __init__(self, band_weights: Mapping[str, float] | None = None, unit_band: bool = False) -> None:
        self.band_weights = band_weights
        self.unit_band = unit_band

    def fit(self, X: Table, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> BandScaler:
        """Learn means, deviations and band weights of a table of shape (n_rows, n_features).

        ``sample_weight`` of shape (n_rows,) says how many rows each row counts for in means and deviations. A
        ValueError if a band in ``band_weights`` is unknown, or a weight is not a positive finite number.
        """
        check_labels("BandScaler", X)
        values = validate_data(self, X, dtype=np.float64)
        located = locate_bands(getattr(self, "feature_names_in_", None), self.n_features_in_)
        weights = dict(self.band_weights or {})
        if error := unknown_bands("BandScaler", weights, located):
            raise error
        bad = {band: w for band, w in weights.items() if not (np.isfinite(w) and w > 0)}
        if bad:
            raise ValueError(
                f"BandScaler: band_weights must be positive and finite, got {bad}. "
                "To leave a band out, use SelectBands."
            )
        self.bands_ = tuple(located)
        self.scaler_ = StandardScaler().fit(values, sample_weight=sample_weight)
        self.column_weights_ = np.ones(self.n_features_in_)
        # The scaler divides what it finds constant (up to rounding) by 1 instead of its deviation.
        varies = self.scaler_.scale_ == np.sqrt(self.scaler_.var_)
        for band, columns in located.items():
            n_varying = np.count_nonzero(varies[columns])
            unit = 1 / np.sqrt(n_varying) if self.unit_band and n_varying else 1.0
            self.column_weights_[columns] = unit * weights.get(band, 1.0)
        return self

    def transform(self, X: Table) -> FloatArray:
        """Standardise and weight a table: float64 of shape (n_rows, n_features).

        A ValueError if the columns or their order differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        scaled: FloatArray = self.scaler_.transform(values)
        scaled *= self.column_weights_
        return scaled


def _chosen_bands(who: str, bands: Sequence[str] | None, located: Mapping[str, IntArray]) -> tuple[str, ...]:
    if bands is None:
        return tuple(located)
    if isinstance(bands, str):
        raise TypeError(f"{who}: bands must be a list of names, got the string {bands!r}. Write [{bands!r}].")
    asked = list(bands)
    if not asked:
        raise ValueError(
            f"{who}: bands must name at least one band, got an empty list. Use None for all bands."
        )
    if error := unknown_bands(who, asked, located):
        raise error
    return tuple(band for band in located if band in asked)


BLOCK_BYTES = 24_000_000
"""Size of one block in float64."""


class _RowSource(Protocol):
    """What a stored table offers."""

    columns: pd.Index
    index: pd.Index

    def read(self, rows: IntArray, columns: IntArray | None = None) -> FloatArray:
        """Return a copy of some rows, of all columns or of some, in float64."""

    def arrange(self, rows: IntArray) -> IntArray:
        """Return the order in which rows are read fastest."""


class BlockTable:
    """Some rows and columns of a stored table, read when asked for: ``columns``, ``index``, ``shape``, a length.

    Parameters
    ----------
    source : object
        The stored table: the names ``columns`` and ``index``, ``read(rows, columns)`` and ``arrange(rows)``.
    rows : int array of shape (n_rows,), optional
        Which of its rows, in which order; all by default.
    places : int array of shape (n_columns,), optional
        Which of its columns, in which order; all by default.
    columns : sequence of str, optional
        New names of these columns.
    """

    def __init__(
        self,
        source: _RowSource,
        rows: IntArray | None = None,
        places: IntArray | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._source = source
        self._rows = np.arange(len(source.index)) if rows is None else rows
        self._places = places
        if columns is None:
            columns = list(source.columns if places is None else source.columns[places])
        self.columns = pd.Index(columns)
        self.shared: dict[object, object] = {}
        """What was computed from these rows, for those who ask again."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self._rows), len(self.columns)

    @property
    def index(self) -> pd.Index:
        """Names of the rows."""
        return self._source.index[self._rows]

    @property
    def bands(self) -> dict[str, IntArray]:
        """Positions of the columns of each band."""
        return locate_bands(list(self.columns), len(self.columns))

    def take(self, rows: IntArray) -> BlockTable:
        """Return the rows at some positions as a table of the same kind; nothing is read."""
        return BlockTable(self._source, self._rows[rows], self._places, list(self.columns))

    def select(self, columns: Sequence[str], *, names: Mapping[str, str] | None = None) -> BlockTable:
        """Return the named columns, renamed by ``names``, as a table of the same kind; a KeyError if one is unknown."""
        chosen = self.columns.get_indexer(pd.Index(columns))
        if (chosen < 0).any():
            raise KeyError(f"BlockTable: there is no column {list(columns)[int(np.argmin(chosen))]!r}.")
        places = chosen if self._places is None else self._places[chosen]
        renamed = [(names or {}).get(column, column) for column in columns]
        return BlockTable(self._source, self._rows, places, renamed)

    def read(self, rows: IntArray | None = None) -> FloatArray:
        """Return a float64 copy of the rows at some positions, or of all: shape (n, n_columns)."""
        return self._source.read(self._rows if rows is None else self._rows[rows], self._places)

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return the rows at some positions, or all, as a data frame of float64."""
        index = self.index if rows is None else self._source.index[self._rows[rows]]
        return pd.DataFrame(self.read(rows), index=index, columns=self.columns, copy=False)

    def blocks(self, rows: IntArray | None = None) -> Iterator[tuple[IntArray, FloatArray]]:
        """Yield (positions, float64 copy of shape (n_block, n_columns)) of rows, in the fastest order."""
        asked = np.arange(len(self._rows)) if rows is None else rows
        if not len(asked):
            return
        order = self._source.arrange(self._rows[asked])
        asked = asked[order]
        step = self.block_rows
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            yield part, self._source.read(self._rows[part], self._places)

    @property
    def block_rows(self) -> int:
        """Rows of one block."""
        return max(64, BLOCK_BYTES // (8 * max(1, len(self.columns))))


def as_frames(X: Table, rows: IntArray | None = None) -> Iterator[tuple[IntArray, pd.DataFrame]]:
    """Cut a BlockTable, or some rows of it, into (row positions, data frame without names of rows)."""
    for part, values in X.blocks(rows):
        yield part, pd.DataFrame(values, columns=X.columns, copy=False)


def take_columns(X: Table, columns: Sequence[str], *, names: Mapping[str, str] | None = None) -> Table:
    """Return columns of a data frame or BlockTable in the order wanted, renamed by ``names``."""
    if isinstance(X, BlockTable):
        return X.select(columns, names=names)
    return X[list(columns)].rename(columns=dict(names or {}))


def some_rows(X: Table, n_rows: int, random_state: int = 0) -> IntArray:
    """Draw at most ``n_rows`` ascending row positions of ``X`` without replacement."""
    if len(X) <= n_rows:
        return np.arange(len(X))
    drawn = np.random.default_rng(random_state).choice(len(X), n_rows, replace=False)
    return np.sort(drawn)


def take_rows(X: Table, rows: IntArray) -> Table:
    """Return the rows at some positions of a data frame, BlockTable or array, as a table of the same kind."""
    if isinstance(X, BlockTable):
        return X.take(rows)
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def crop_rows(X: Table, n_crops: int) -> Table:
    """Cut each row into one row for each crop; the crops of an image follow each other.

    Parameters
    ----------
    X : data frame or float array of shape (n_images, n_features)
        Every band holds the columns of its first crop, then those of the second, and so on. A frame keeps band names
        and repeats the index.
    n_crops : int
        Crops of each image in every band; a ValueError if a band cannot be cut into so many equal parts.

    Returns
    -------
    data frame or float array of shape (n_images * n_crops, n_features / n_crops)
    """
    names = list(X.columns) if isinstance(X, pd.DataFrame) else None
    values = np.asarray(X)
    blocks, columns = [], []
    for band, positions in locate_bands(names, values.shape[1]).items():
        if len(positions) % n_crops:
            raise ValueError(
                f"crop_rows: the columns of band {band!r} must be a multiple of n_crops={n_crops}, got "
                f'{len(positions)}. Compute the band with aggregate = "concat" on a view of {n_crops} crops.'
            )
        width = len(positions) // n_crops
        blocks.append(values[:, positions].reshape(len(values) * n_crops, width))
        columns += [f"{band}:{column:04d}" for column in range(width)]
    joined = np.concatenate(blocks, axis=1)
    if not isinstance(X, pd.DataFrame):
        return joined
    return pd.DataFrame(joined, columns=columns, index=X.index.repeat(n_crops))
