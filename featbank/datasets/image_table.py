"""The one table every dataset is turned into, and the checks that make it safe to rely on; reads no files.

One row per image: what it is called, where its file should lie, its MOS on the dataset's own scale
(higher is better), the official split and subset, and the group that must stay together in folds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.datasets.text import TextTable
from featbank.errors import DatasetError, first_few
from featbank.remote import Place, is_url

SPLITS = ("training", "validation", "test", "")
"""Official partitions in report order; the empty word stands for "no official split"."""

SPLIT_WORDS = {
    "train": "training",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
}
"""Other spellings of splits, in lower case."""

SUBSETS = ("", "exclusive")
"""Official subsets; ``exclusive`` marks images from categories kept out of training."""

WEIGHTS = ("mos_std", "n_ratings", "weight")
"""Columns that may say how much the MOS of an image counts."""

COLUMNS = ("image_id", "path", "mos", "split", "subset", "group")
META_PREFIX = "meta:"
MAX_MOS = 1e9
"""No opinion scale has larger numbers; sums of squares of far larger ones overflow."""
_TEXT_COLUMNS = ("image_id", "path", "split", "subset", "group")


def _shown(values: Sequence[object]) -> str:
    return first_few([repr(value) for value in values])


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images of one dataset with their scores, splits and groups.

    Parameters
    ----------
    name : str
        Short name of the dataset, such as ``uhd-iqa``.
    root : Path or RemotePath
        Absolute folder of the dataset; own CSV files: the folder of the CSV.
    frame : pandas.DataFrame of n_images rows
        Columns ``image_id`` (unique str, the dataset's own image name), ``path`` (absolute str or URL, unique;
        the file may be missing; undecodable bytes are Python's surrogate escapes), ``mos`` (float64 on the native
        scale, higher is better, NaN where unknown), ``split`` (one of `SPLITS`), ``subset`` (one of `SUBSETS`),
        ``group`` (str, empty where unknown) and any
        number of ``meta:<name>`` columns (float64, finite): facts known without looking at a pixel.
    mos_range : tuple of two floats
        Nominal ends of the MOS scale, worst first; two NaN where there is no MOS.
    is_simulation : bool
        True for rendered images with simulated raters: results on them prove nothing about real photos.
    notes : tuple of str
        What the reader decided, each a full sentence: score column, conversions, rows left out.
    licence, reference : str
        Terms of use as the dataset states them, and the paper to cite.
    names_in : str
        Own tables and folders: the absolute folder, or URL, that image names refer to. Empty for a published dataset,
        whose names are known by the dataset's.
    extra : TextTable or None
        All other columns of the metadata, row by row, as written there.
    asked : dict
        The arguments with which `featbank.datasets.read_dataset` reads this table again; empty for one made otherwise.

    Raises
    ------
    DatasetError
        If a column is missing, an ``image_id`` or ``path`` is empty or repeated, a path is relative, a split or
        subset word is unknown, an exclusive image is in training, a MOS is infinite, beyond `MAX_MOS` or outside
        ``mos_range``, or a meta column holds something that is not a finite number.
    """

    name: str
    root: Place
    frame: pd.DataFrame = field(repr=False)
    mos_range: tuple[float, float]
    is_simulation: bool = False
    notes: tuple[str, ...] = ()
    licence: str = ""
    reference: str = ""
    names_in: str = ""
    extra: TextTable | None = field(default=None, repr=False)
    asked: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame.columns]
        if missing:
            raise DatasetError(
                f"ImageTable {self.name!r}: the frame needs the columns {', '.join(COLUMNS)}; "
                f"missing {_shown(missing)}."
            )
        meta = [column for column in self.frame.columns if str(column).startswith(META_PREFIX)]
        unknown = [column for column in self.frame.columns if column not in COLUMNS and column not in meta]
        if unknown:
            raise DatasetError(
                f"ImageTable {self.name!r}: columns beside {', '.join(COLUMNS)} must start with "
                f"{META_PREFIX!r}, got {_shown(unknown)}."
            )
        # A copy: nobody who still holds the frame can change the table afterwards.
        frame = self.frame.loc[:, [*COLUMNS, *meta]].reset_index(drop=True).copy()
        object.__setattr__(self, "frame", frame)
        self._check_text()
        self._check_mos()
        self._check_meta(meta)

    def _check_text(self) -> None:
        for column in _TEXT_COLUMNS:
            values = self.frame[column]
            if pd.api.types.infer_dtype(values, skipna=False) not in ("string", "empty"):
                wrong = [value for value in values if not isinstance(value, str)]
                raise DatasetError(
                    f"ImageTable {self.name!r}: column {column!r} must hold text, got {_shown(wrong)}."
                )
        for column in ("image_id", "path"):
            values = self.frame[column]
            if (values == "").any():
                rows = np.flatnonzero((values == "").to_numpy()).tolist()
                raise DatasetError(
                    f"ImageTable {self.name!r}: {column!r} is empty in row(s) {_shown(rows)} counted from 0."
                )
            repeated = values[values.duplicated()].unique().tolist()
            if repeated:
                raise DatasetError(
                    f"ImageTable {self.name!r}: every {column!r} must occur once, repeated are "
                    f"{_shown(repeated)}. Keep one row per image; average scores given several times."
                )
        # A Path for each of a million rows would take most of the time of reading them.
        relative = [
            path
            for path in self.frame["path"].tolist()
            if not (os.path.isabs(path) or is_url(path))  # noqa: PTH117
        ]
        if relative:
            raise DatasetError(f"ImageTable {self.name!r}: paths must be absolute, got {_shown(relative)}.")
        for column, known in (("split", SPLITS), ("subset", SUBSETS)):
            unknown = sorted(set(self.frame[column]) - set(known))
            if unknown:
                raise DatasetError(
                    f"ImageTable {self.name!r}: column {column!r} must hold one of {known}, got {_shown(unknown)}."
                )
        leaked = self.frame.loc[
            (self.frame["split"] == "training") & (self.frame["subset"] == "exclusive"), "image_id"
        ].tolist()
        if leaked:
            raise DatasetError(
                f"ImageTable {self.name!r}: exclusive images belong to validation or test, because their categories "
                f"are kept out of training; got in training {_shown(leaked)}."
            )

    def _check_mos(self) -> None:
        mos = self.frame["mos"]
        if mos.dtype != np.float64:
            raise DatasetError(f"ImageTable {self.name!r}: column 'mos' must be float64, got {mos.dtype}.")
        low, high = self.mos_range
        known = mos[mos.notna()]
        if known.empty:
            return
        if not low <= high:
            raise DatasetError(
                f"ImageTable {self.name!r}: mos_range must be (worst, best) with worst <= best, got {self.mos_range}."
            )
        if max(abs(low), abs(high)) > MAX_MOS:
            raise DatasetError(
                f"ImageTable {self.name!r}: MOS must lie between {-MAX_MOS:g} and {MAX_MOS:g}, got a scale of {low:g} "
                f"to {high:g}. Look whether the column holds opinion scores; if so, divide them."
            )
        outside = self.frame.loc[known.index[~((known >= low) & (known <= high))]]
        if len(outside):
            pairs = [
                f"{name}: {value:g}" for name, value in zip(outside["image_id"], outside["mos"], strict=True)
            ]
            raise DatasetError(
                f"ImageTable {self.name!r}: MOS must be finite and on the scale {low:g} to {high:g}, got "
                f"{_shown(pairs)}. A column on another scale may have been read; mixing scales gives wrong numbers."
            )

    def _check_meta(self, meta: Sequence[str]) -> None:
        for column in meta:
            values = self.frame[column]
            if values.dtype != np.float64 or not np.isfinite(values.to_numpy()).all():
                raise DatasetError(
                    f"ImageTable {self.name!r}: {column!r} must hold finite float64 numbers only, got "
                    f"{values.dtype} with {int(values.isna().sum())} NaN. Leave an incomplete column out."
                )

    @property
    def n_images(self) -> int:
        """Number of rows, whether or not the files are there."""
        return len(self.frame)

    def full_names(self, image_ids: Sequence[str]) -> list[str]:
        """Spell image names so that they mean one image beyond this table.

        This is who an image is as long as its file is not at hand. In a published dataset (``names_in`` is empty) it
        is the image's own name, for which the dataset's stands. Elsewhere it is the place where the file should lie:
        the name under the folder it refers to, or itself where it is absolute or a URL. So the MOS and the name of a
        CSV do not count: a cleaned CSV beside the first one names the same images, and a CSV of equal content in
        another folder names others.
        """
        if not self.names_in:
            return list(image_ids)
        # A table written on Windows and its copy written elsewhere name the same images.
        if os.sep == "/":
            image_ids = [name.replace("\\", "/") for name in image_ids]
        if is_url(self.names_in):
            return [name if is_url(name) else f"{self.names_in.rstrip('/')}/{name}" for name in image_ids]
        # As text: a Path for each of a million rows would take longer than all else.
        join, tidy = os.path.join, os.path.normpath
        return [name if is_url(name) else tidy(join(self.names_in, name)) for name in image_ids]

    def weights(self, kind: str, image_ids: Sequence[str]) -> NDArray[np.float64]:
        """Return how much the MOS of some images count, in the mean 1, by a further column of the metadata.

        Parameters
        ----------
        kind : str
            One of `WEIGHTS`: ``weight`` and ``n_ratings`` count as they are, ``mos_std``, the deviation of a MOS, by
            its inverse square.

        Returns
        -------
        float64 array of shape (len(image_ids),), positive

        Raises
        ------
        DatasetError
            If there is no such column, or it is not positive for one of the images.
        """
        if self.extra is None:
            raise DatasetError(f"dataset {self.name!r} has no column {kind!r} to weight its images by.")
        self.extra.require([kind])
        values = pd.Series(self.extra.numbers(kind), index=self.frame["image_id"]).loc[list(image_ids)]
        wrong = values[~(values > 0)]
        if len(wrong):
            raise DatasetError(
                f"{self.extra.path}: to weight images by it, column {kind!r} must be positive for each that takes "
                f"part, got {first_few([f'{value:g} for {name}' for name, value in wrong.items()])}. Fill it in, leave "
                "these rows out, or leave sample_weight out of the recipe."
            )
        weights = values.to_numpy() ** (-2.0 if kind == "mos_std" else 1.0)
        return np.asarray(weights / weights.mean())

    @property
    def meta_columns(self) -> list[str]:
        """Names of the ``meta:*`` columns, in order; empty where the dataset has none."""
        return [column for column in self.frame.columns if column not in COLUMNS]

    @property
    def has_groups(self) -> bool:
        """Whether any image names its group."""
        return bool((self.frame["group"] != "").any())

    def select(self, split: str | None = None, subset: str | None = None) -> pd.DataFrame:
        """Return the rows of one split, of one subset, or of both; the empty subset means "not exclusive"."""
        for word, known, kind in ((split, SPLITS, "split"), (subset, SUBSETS, "subset")):
            if word is not None and word not in known:
                raise DatasetError(f"ImageTable.select: {kind} must be one of {known}, got {word!r}.")
        keep = np.ones(self.n_images, dtype=bool)
        if split is not None:
            keep &= (self.frame["split"] == split).to_numpy(dtype=bool)
        if subset is not None:
            keep &= (self.frame["subset"] == subset).to_numpy(dtype=bool)
        return self.frame.loc[keep]

    def counts(self) -> dict[str, int]:
        """Count images by part, in report order: ``{"training": ..., "test": ..., "test/exclusive": ...}``.

        Exclusive images count in their split too, as in the published figures. Images without a split are
        counted under ``"no split"``. Parts without images are left out.
        """
        counts: dict[str, int] = {}
        for split in SPLITS:
            rows = self.select(split)
            n_exclusive = int((rows["subset"] == "exclusive").sum())
            if len(rows):
                counts[split or "no split"] = len(rows)
            if n_exclusive:
                counts[f"{split or 'no split'}/exclusive"] = n_exclusive
        return counts

    def fold_groups(self) -> NDArray[np.object_]:
        """Return the group of every row for grouped folds; an image without a group is a group of its own.

        Returns
        -------
        object array of str, shape (n_images,)
            ``group:<name>`` or, where unknown, ``image:<image_id>``: the two can never collide.
        """
        return np.array(
            [
                f"group:{group}" if group else f"image:{image}"
                for group, image in zip(self.frame["group"], self.frame["image_id"], strict=True)
            ],
            dtype=object,
        )


def make_frame(columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pd.DataFrame:
    """Arrange columns as `ImageTable` wants them, with empty text where a column is absent."""
    n_rows = len(columns["image_id"])
    paths = list(columns["path"])
    # pandas' own text type holds no undecodable bytes, which a path may have.
    is_text = all(map(_is_utf8, paths))
    frame = pd.DataFrame(
        {
            "image_id": list(columns["image_id"]),
            "path": pd.Series(paths, dtype="str" if is_text else object),
            "mos": np.asarray(columns["mos"], dtype=np.float64),
            **{name: list(columns.get(name, [""] * n_rows)) for name in ("split", "subset", "group")},
        }
    )
    for name, values in columns.items():
        if name not in frame.columns:
            frame[name] = np.asarray(values, dtype=np.float64)
    # An empty list becomes a float column; the table's columns keep their kind even without rows.
    return frame.astype(dict.fromkeys(("image_id", "split", "subset", "group"), "str"))


def range_of(mos: Sequence[Any] | np.ndarray) -> tuple[float, float]:
    """Return the least and the greatest score; two NaN where there is none."""
    known = np.asarray(mos, dtype=np.float64)
    known = known[np.isfinite(known)]
    return (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
