"""Reads features of chosen bands from the bank into one frame, row by image, joined by name.

The table is where images end and statistics begin: `regressors` sees nothing but this frame. Never
computes a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.bank import Bank, FeatureFolder, ImageLog
from featbank.bank.rows import MappedRows
from featbank.datasets import ImageTable
from featbank.errors import ImageError, MissingFeaturesError
from featbank.feature import make_feature
from featbank.images.source import check_place
from featbank.importing import IMPORTED_PREFIX, ImageKeys, find_imported
from featbank.remote import as_place


@dataclass(frozen=True)
class Band:
    """One feature under the name that a recipe gives it, with what it costs and where it comes from."""

    name: str  # name in the recipe; the table's columns are ``name:0000``, ``name:0001``,
    # encoder, view, aggregate: As in the recipe; an imported band has encoder ``imported:NAME`` and view ``none``
    encoder: str
    view: str
    aggregate: str
    folder: FeatureFolder  # where its rows lie
    # role, licence, weights: Of the encoder; ``imported`` and ``stated by the user`` for imported bands
    role: str
    licence: str
    weights: str
    # GMACs for one UHD-1 image (2160 x 3840 pixels) through all crops; NaN when an import did not state it
    gmacs: float
    params_m: float  # parameters of the encoder in millions
    pass_id: str  # bands with equal pass pay their GMACs once


@dataclass(frozen=True)
class FeatureTable:
    """Features and what is known of their images, in the same order."""

    # DataFrame of shape (n_images, n_features), float64, or a `MappedTable` of it, with the features left in the bank's
    # files; columns ``band:0000``, index ``image_id``
    X: pd.DataFrame | MappedTable
    rows: pd.DataFrame  # the image table's columns for the same images, same index
    # ``image``, ``reason``, ``message`` of images that have no features for a stated reason
    left_out: pd.DataFrame
    # Images whose file equals that of an earlier one byte for byte, and that one; each is a row all the same
    copies: list[tuple[str, str]] = field(default_factory=list)


def resolve_band(
    bank: Bank, table: ImageTable | None, name: str, encoder: str, view: str = "none", aggregate: str = "mean"
) -> Band:
    """Find, or create empty, the bank's folder behind a band of a recipe.

    Parameters
    ----------
    bank : Bank
    table : ImageTable or None
        The dataset; an imported band serves the images it was imported for. None where no band can be imported.
    name, encoder, view, aggregate : str
        As in the recipe.

    Returns
    -------
    Band

    Raises
    ------
    MissingFeaturesError
        If the encoder is ``imported:NAME`` and nothing was imported under that name for these images.
    BankError
        If several imports under that name hold these images with different numbers.
    UnknownNameError, ViewError, EncoderError
        If the feature cannot be built.
    """
    if encoder.startswith(IMPORTED_PREFIX) and table is not None:
        folder = find_imported(bank, table, encoder.removeprefix(IMPORTED_PREFIX))
        stated = folder.identity["gmacs"]
        return Band(
            name=name,
            encoder=encoder,
            view="none",
            aggregate="none",
            folder=folder,
            role="imported",
            licence="stated by the user",
            weights="unknown",
            gmacs=float("nan") if stated is None else float(stated),
            params_m=float("nan"),
            pass_id=folder.digest,
        )
    feature = make_feature(encoder, view, aggregate)
    spec = feature.encoder.spec
    return Band(
        name=name,
        encoder=encoder,
        view=feature.view.name,
        aggregate=aggregate,
        folder=bank.open(feature.identity, feature.n_features, feature.label),
        role=spec.role,
        licence=spec.licence,
        weights=spec.weights,
        gmacs=feature.gmacs(),
        params_m=feature.encoder.n_params / 1e6,
        pass_id=feature.pass_id,
    )


NOT_COMPUTED = "not computed"
"""Why a readable image is left out of a partial table."""


def build_table(
    table: ImageTable,
    bands: Sequence[Band],
    bank: Bank,
    command: str,
    *,
    by_blocks: bool = False,
    is_partial: bool = False,
) -> FeatureTable:
    """Join the bands' features to the images by key.

    Parameters
    ----------
    table : ImageTable
    bands : sequence of Band
        At least one; their order is the order of the columns.
    bank : Bank
        Asked for the reasons why an image has no features.
    command : str
        The command that computes missing features, for the message.
    by_blocks : bool
        Leave the features in their files, to be read by blocks; they are checked now, and must not be too many.
    is_partial : bool
        Leave readable images out whose features the bank lacks, too, instead of refusing the table.

    Returns
    -------
    FeatureTable
        Images without a file, with an unreadable one, or that a band's encoder or view could not be computed on
        are left out and listed.

    Raises
    ------
    MissingFeaturesError
        If the bank lacks features of readable images, or of every image.
    """
    keys = ImageKeys(table, bank)
    reasons = _known_reasons(bank.images)
    refused = {band.name: _known_reasons(bank.failures_of(band.folder.digest)) for band in bands}
    chosen, there = {}, {}
    for band in bands:
        chosen[band.name], there[band.name] = keys.of_rows(band.folder)
    absent = ~pd.DataFrame(there, index=keys.image_ids)
    lacking = absent.any(axis=1).to_numpy()
    left_out, uncomputed = [], []
    for place in np.flatnonzero(lacking).tolist():
        image_id, file_key = keys.image_ids[place], keys.of_files[place]
        if file_key is None:
            left_out.append((image_id, *_why_without_key(str(table.frame["path"].iloc[place]))))
        elif file_key in reasons:
            left_out.append((image_id, *reasons[file_key]))
        elif all(file_key in refused[name] for name in absent.columns[absent.iloc[place]]):
            # Readable, but an encoder or a view gave nothing for it: only this image goes without.
            name = absent.columns[absent.iloc[place]][0]
            reason, message = refused[name][file_key]
            left_out.append((image_id, reason, f"band {name}, {message}"))
        elif is_partial:
            left_out.append((image_id, NOT_COMPUTED, f"Compute it with `{command}`."))
        else:
            uncomputed.append(image_id)
    if uncomputed:
        names = [name for name in absent if absent.loc[uncomputed, name].any()]
        raise MissingFeaturesError(
            f"table: the bank lacks features of {len(uncomputed)} of {len(lacking)} images (bands {', '.join(names)}; "
            f"first image {uncomputed[0]!r}). Compute them with `{command}`."
        )
    if lacking.all():
        raise MissingFeaturesError(
            f"table: not one of the {len(lacking)} images of dataset {table.name!r} under {table.root} has features: "
            f"{left_out[0][2]} (first: {left_out[0][0]!r}). Check the folder with `featbank check`, or bring "
            "features with `featbank bank import`."
        )
    rows = table.frame[~lacking].set_index("image_id")
    columns = [f"{band.name}:{column:04d}" for band in bands for column in range(band.folder.n_features)]
    wanted = [(band.folder, chosen[band.name][~lacking]) for band in bands]
    X: pd.DataFrame | MappedTable
    if by_blocks:
        X = MappedTable([folder.map(own) for folder, own in wanted], columns, rows.index)
    else:
        blocks = [folder.read_raw(own).astype(np.float64) for folder, own in wanted]
        X = pd.DataFrame(np.concatenate(blocks, axis=1), index=rows.index, columns=columns, copy=False)
    listed = pd.DataFrame(left_out, columns=["image", "reason", "message"])
    return FeatureTable(X, rows, listed, _copies(keys, ~lacking))


def _why_without_key(path: str) -> tuple[str, str]:
    """Say why a listed file has no digest: reason and message, as extraction says it."""
    try:
        check_place(as_place(path))
    except ImageError as error:
        if error.reason != "missing":  # a pipe, a sparse file of a terabyte: there, and not to be read
            return error.reason, f"{path} {error}"
    return "missing", "no readable file, and no imported features under its name"


def _copies(keys: ImageKeys, is_used: NDArray[np.bool_]) -> list[tuple[str, str]]:
    """Pair each image that has the bytes of an earlier one with that one, among those that are used."""
    used = pd.Series(keys.of_files, index=keys.image_ids, dtype=object)[is_used].dropna()
    repeated = used[used.duplicated(keep=False)]
    first = {key: image_id for image_id, key in reversed(list(repeated.items()))}
    return [(image_id, first[key]) for image_id, key in repeated.items() if first[key] != image_id]


def _known_reasons(log: ImageLog) -> dict[str, tuple[str, str]]:
    frame = log.failures()
    return {str(row["key"]): (str(row["reason"]), str(row["message"])) for row in frame.to_dict("records")}


class MappedTable:
    """Bands of one table, each in its mapped files.

    Parameters
    ----------
    bands : sequence of MappedRows
        Rows of the same images in the same order.
    columns : sequence of str
        Names of all columns, band after band.
    index : Index
        Names of the images.
    """

    def __init__(self, bands: Sequence[MappedRows], columns: Sequence[str], index: pd.Index) -> None:
        self._bands = list(bands)
        self.columns = pd.Index(columns)
        self.index = index
        self._starts = np.cumsum([0, *(band.n_features for band in bands)])

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of images and columns."""
        return len(self.index), len(self.columns)

    def read(self, rows: NDArray[np.intp], columns: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """Return a copy of some rows, of all columns or of some, in float64."""
        values = np.empty((len(rows), len(self.columns) if columns is None else len(columns)))
        for band, start, stop in zip(self._bands, self._starts[:-1], self._starts[1:], strict=True):
            if columns is None:
                band.read(rows, values[:, start:stop])
                continue
            here = np.flatnonzero((columns >= start) & (columns < stop))
            if len(here):
                own = np.empty((len(rows), band.n_features), dtype=band.dtype)
                band.read(rows, own)
                values[:, here] = own[:, columns[here] - start]
        return values

    def arrange(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the order in which rows are read fastest: that of the first band's files."""
        return np.argsort(self._bands[0].place[rows], kind="stable")
