"""Which rows teach and which rows judge: the official split, or one made here; and the seal on the judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featbank.datasets.scenes import group_files
from featbank.errors import DatasetError, RunError, first_few
from featbank.table import FeatureTable, MappedTable
from regressors.bands import take_rows
from regressors.checks import Table
from regressors.folds import make_folds

MIN_SPREAD = 1e-9
"""A smaller difference between MOS, as a share of the largest, or of 1, is none."""

MIN_ROWS = 4
"""Fewer images cannot be cut into a training set and a test set."""

EVALUATED_SPLITS = ("validation", "test")

MIN_COPY_COLUMNS = 10
"""Columns in which images have to agree to be copies."""

N_NAMED = 10
"""Images that a line names beside their count."""


@dataclass(frozen=True)
class Rows:
    """Rows fit for a run, and what was done to get them.

    Attributes
    ----------
    frame : DataFrame
        Columns of the image table, index ``image_id``, in the order of the names, whatever the order of the table:
        folds, splits and resamples number rows by it. Every row has a MOS, a split and a group.
    notes : tuple of str
        How the split was made, in plain sentences for the receipt and the report.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]


def describe_rows(features: FeatureTable) -> list[str]:
    """Count, with their first names, the listed images that take no part in a fit, and those that are copies.

    Returns
    -------
    list of str
        Plain sentences; the receipt lists all images without features.
    """
    mos, left_out, copies = features.rows["mos"], features.left_out, features.copies
    notes = []
    if mos.isna().any():
        n_without = int(mos.isna().sum())
        notes.append(
            f"{len(mos) - n_without:,} of {len(mos):,} rows have a MOS; {n_without:,} without one were left out: "
            f"{first_few(mos.index[mos.isna()])}."
        )
    if len(left_out):
        n_listed = len(left_out) + len(mos)
        counts = ", ".join(
            f"{len(images):,} {reason} ({first_few(images, N_NAMED)})"
            for reason, images in left_out.groupby("reason", sort=False)["image"].agg(list).items()
        )
        notes.append(
            f"{len(left_out):,} of {n_listed:,} images ({len(left_out) / n_listed:.1%}) have no features and were left "
            f"out: {counts}."
        )
        refused = left_out[left_out["message"].str.startswith("band ")]  # readable, but not for that band
        notes += [f"left out {row.image}: {row.message}" for row in refused.head(N_NAMED).itertuples()]
    if copies:
        pairs = first_few([f"{image} of {first}" for image, first in copies])
        notes.append(
            f"{len(copies):,} images are copies of another one, byte for byte, and rows of their own: {pairs}."
        )
    return notes


def find_copies(features: FeatureTable) -> dict[str, str]:
    """Find images that are one photo by their features, or byte for byte.

    Parameters
    ----------
    features : FeatureTable
        Features that are left in the bank's files are not compared, their images' bytes are.

    Returns
    -------
    dict of str to str
        By name: the first image with the same features. Fewer than `MIN_COPY_COLUMNS` columns may agree by chance, and
        where a tenth of the images agree, the features say nothing; neither makes copies.
    """
    if isinstance(features.X, MappedTable) or features.X.shape[1] < MIN_COPY_COLUMNS:
        return dict(features.copies)
    values, images = features.X.to_numpy(), features.X.index.to_numpy()
    # A few columns tell most images apart; the others are compared as a whole.
    some = values[:, np.linspace(0, values.shape[1] - 1, 8).astype(int)]
    _, label, counts = np.unique(some, axis=0, return_inverse=True, return_counts=True)
    alike: dict[bytes, list[str]] = {}
    for row in np.flatnonzero(counts[label.ravel()] > 1).tolist():
        alike.setdefault(values[row].tobytes(), []).append(str(images[row]))
    sets = [sorted(names) for names in alike.values() if 10 * len(names) <= len(images)]
    return {copy: first for first, *others in sets for copy in others}


def find_scenes(rows: pd.DataFrame, workers: int | None) -> dict[str, str]:
    """Find the images that show the scene of another one, from the same place: by name, the first of them.

    Raises RunError where the photos cannot be read.
    """
    labels = group_files(rows["path"].tolist(), workers=workers)
    if isinstance(labels, str):
        raise RunError(
            f"fit: regression.group_scenes compares the photos, and {labels}. Leave it out, or give the scenes in a "
            "column `group`."
        )
    firsts = zip(rows.index, rows.index[labels], strict=True)
    return {str(image): str(first) for image, first in firsts if image != first}


def prepare_rows(
    rows: pd.DataFrame,
    test_fraction: float,
    random_state: int,
    copies: Mapping[str, str] | None = None,
    scenes: Mapping[str, str] | None = None,
) -> Rows:
    """Leave out rows that cannot take part, fill in groups, and make a split where there is none.

    Parameters
    ----------
    rows : DataFrame
        Columns ``mos``, ``split``, ``subset``, ``group``; index ``image_id``.
    test_fraction : float in [0, 1)
        Share of the images held out as ``test`` when the dataset has no split; 0 holds out none.
    copies, scenes : mapping of str to str, optional
        As `find_copies` and `find_scenes` give them; these images stand in one group.

    Raises
    ------
    DatasetError
        If no row has a MOS, all have one MOS, only some have a split, or no row is left to learn from.
    """
    notes: list[str] = []
    frame = rows.sort_index(kind="stable")
    check_has_mos(frame)
    without_mos = frame["mos"].isna()
    if without_mos.any():
        frame = frame[~without_mos]
    frame["group"] = name_groups(frame["group"], frame.index.to_series())
    for alike, what in ((copies, "have the features"), (scenes, "show the scene")):
        if alike:
            frame["group"], n_joined = _join_copies(frame, alike)
            if n_joined:
                notes.append(
                    f"{n_joined:,} images {what} of another one: each stands in the group of that one."
                )
    unsplit = frame["split"] == ""
    if unsplit.all():
        frame["split"] = _make_split(frame, test_fraction, random_state)
        notes.append(
            f"The dataset has no split: {test_fraction:.0%} of the images were held out as test, by group, with seed "
            f"{random_state}. The scores belong to this split alone."
            if test_fraction > 0
            else "The dataset has no split and none was asked for: there are only out-of-fold scores."
        )
    elif unsplit.any():
        raise DatasetError(
            f"fit: {int(unsplit.sum())} of {len(frame)} images have no split (first: {frame.index[unsplit][0]!r}). "
            "Give every row training, validation or test, or leave the column out."
        )
    mos = frame.loc[frame["split"] == "training", "mos"]
    if mos.empty:
        raise DatasetError("fit: no row has the split 'training', so there is nothing to learn from.")
    if len(mos) > 1 and float(mos.max() - mos.min()) <= MIN_SPREAD * max(1.0, float(mos.abs().max())):
        raise DatasetError(
            f"fit: all {len(mos)} training images have the MOS {mos.iloc[0]:g}, up to {MIN_SPREAD:g}, so "
            "there is nothing to learn. Look at the column `mos`; a scale of tiny numbers has to be multiplied first."
        )
    return Rows(frame, tuple(notes))


def check_has_mos(rows: pd.DataFrame) -> None:
    """Refuse images without any MOS (DatasetError), before somebody computes their features to fit on."""
    if rows["mos"].isna().all():
        raise DatasetError(
            "fit: no image has a MOS, so there is nothing to learn. A folder of photographs alone can only be scored: "
            "`featbank score MODEL DIR`. For fitting give a CSV with columns path,mos."
        )


def _join_copies(frame: pd.DataFrame, copies: Mapping[str, str]) -> tuple[pd.Series, int]:
    """Join the groups of images that are copies within a split; and count the images that came to another's."""
    photo = frame.index.map(lambda image: copies.get(image, image))
    codes, groups = pd.factorize(frame["group"])
    first = pd.Series(codes, index=frame.index).groupby([photo, frame["split"]]).transform("first").to_numpy()
    links = coo_array((np.ones(len(codes)), (codes, first)), shape=(len(groups), len(groups)))
    _, joined = connected_components(links, directed=False)
    # Groups are numbered by their first images, so the first of those joined gives the name.
    names = pd.Series(groups).groupby(joined).transform("first").to_numpy()
    return pd.Series(names[codes], index=frame.index), int((first != codes).sum())


def name_groups(groups: pd.Series, images: pd.Series) -> pd.Series:
    """Give an image without a group one of its own."""
    known = groups.astype(str)
    return known.where(known.str.strip() != "", "image " + images.astype(str))


def written_groups(groups: pd.Series, images: pd.Series) -> pd.Series:
    """Blank the groups that `name_groups` made, which are told from the names."""
    return groups.where(groups != "image " + images.astype(str), "")


def _make_split(frame: pd.DataFrame, test_fraction: float, random_state: int) -> pd.Series:
    split = pd.Series("training", index=frame.index)
    if test_fraction == 0:
        return split
    if not 0 < test_fraction < 1:
        raise DatasetError(f"fit: --test-fraction must be at least 0 and below 1, got {test_fraction}.")
    groups = frame["group"].unique()
    if len(frame) < MIN_ROWS:
        raise DatasetError(
            f"fit: {len(frame)} image(s) with a MOS are too few to learn from and to test on. Add photos with MOS."
        )
    if len(groups) < 2:
        raise DatasetError(
            f"fit: no test set can be held out by group, because all {len(frame)} images with a MOS are of one group, "
            f"{str(groups[0])!r}. Leave the column `group` out if the images do not depend on each other, add photos "
            "of other groups, or mark the rows in a column `split`."
        )
    folds = make_folds(
        frame["mos"].to_numpy(),
        frame["group"].to_numpy(),
        kind="holdout",
        test_size=test_fraction,
        random_state=random_state,
    )
    split.iloc[folds[0][1]] = "test"
    return split


class SealedRows:
    """Features and MOS of the evaluated splits, which open once, after everything is chosen.

    The last step of a run breaks the seal; a second reading, or one before the model is fitted, is an error.
    So no number that was chosen can have seen a validation or test row.

    Parameters
    ----------
    X : DataFrame or BlockTable of shape (n_images, n_features)
        All rows; only those of `EVALUATED_SPLITS` are kept, and only here.
    rows : DataFrame
        Same index, with ``split``.
    """

    def __init__(self, X: Table, rows: pd.DataFrame) -> None:
        evaluated = rows["split"].isin(EVALUATED_SPLITS).to_numpy()
        self._X = take_rows(X, np.flatnonzero(evaluated))
        self._rows = rows[evaluated]
        self._is_open = False

    def open(self, *, is_fitted: bool) -> tuple[Table, pd.DataFrame]:
        """Break the seal.

        Raises
        ------
        RunError
            If something is still to be chosen, or the seal was broken before.
        """
        if not is_fitted:
            raise RunError(
                "run: validation and test rows may be read only after everything is fitted and chosen."
            )
        if self._is_open:
            raise RunError(
                "run: validation and test rows were read already; they are read once, by the last step."
            )
        self._is_open = True
        return self._X, self._rows


def split_names(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return a mask for each reported part: split by split, and the exclusive images of each.

    Parameters
    ----------
    rows : DataFrame
        Columns ``split`` and ``subset``.

    Returns
    -------
    dict of str to bool array of shape (n_images,)
        Keys such as ``test`` and ``test/exclusive``; parts without rows are absent.
    """
    parts: dict[str, np.ndarray] = {}
    for split in EVALUATED_SPLITS:
        mask = (rows["split"] == split).to_numpy()
        if mask.any():
            parts[split] = mask
            exclusive = mask & (rows["subset"] == "exclusive").to_numpy()
            if exclusive.any():
                parts[f"{split}/exclusive"] = exclusive
    return parts
