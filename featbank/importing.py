"""Brings features computed elsewhere into the bank, matched to a dataset by image name or by row.

An imported band lives beside computed ones and is used in a recipe as ``encoder = "imported:NAME"``. Its
identity holds the digest of the file it came from, so a receipt says which numbers were used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from featbank.bank import Bank, FeatureFolder
from featbank.datasets import ImageTable
from featbank.errors import BankError, DatasetError, MissingFeaturesError
from featbank.keys import key_of_name, keys_of_files

IMPORTED_PREFIX = "imported:"


def import_features(
    table: ImageTable,
    bank: Bank,
    band: str,
    names: Sequence[str] | None,
    matrix: NDArray[np.floating],
    *,
    source_digest: str,
    gmacs: float | None = None,
    replace: bool = False,
) -> tuple[FeatureFolder, int]:
    """Write a matrix of features as a band of one dataset.

    Parameters
    ----------
    table : ImageTable
        The dataset; its files need not be at hand.
    bank : Bank
    band : str
        Name of the band, used in recipes as ``imported:NAME``.
    names : sequence of str, length n_rows, or None
        Image names in the order of the rows; None when the rows follow the dataset's own order.
    matrix : float array of shape (n_rows, n_features), finite
        Stored in float16 if that is its type, else in float32.
    source_digest : str
        SHA-256 of the file that the matrix was read from.
    gmacs : float or None
        GMACs for one image, as stated by the user; None when unknown.
    replace : bool
        Remove an earlier import of the same band and dataset.

    Returns
    -------
    FeatureFolder
        Where the rows lie now.
    int
        Images of the dataset that the file does not cover.

    Raises
    ------
    DatasetError
        If rows cannot be matched: another number of rows, unknown or repeated names.
    BankError
        If the band exists already with other numbers and ``replace`` is False.
    """
    image_ids = list(table.frame["image_id"])
    ids = _match(image_ids, names, len(matrix), table.name)
    identity: dict[str, object] = {
        "kind": "imported",
        "band": band,
        "dataset": table.name,
        "source": source_digest,
        "gmacs": gmacs,
    }
    dtype = "float16" if matrix.dtype == np.float16 else "float32"
    for old in _imports(bank, table.name, band):
        if old.identity == identity:
            dtype = old.dtype  # an earlier version stored all files in float32
            continue
        if not replace:
            raise BankError(
                f"bank import: band {band!r} of dataset {table.name!r} exists already with other numbers "
                f"({old.n_features} columns, from a file with digest {str(old.identity['source'])[:12]}). "
                "Choose another name, or give --replace to drop the earlier one."
            )
        bank.remove(old.digest)
    folder = bank.open(identity, matrix.shape[1], f"{IMPORTED_PREFIX}{band}", dtype)
    paths = dict(zip(image_ids, table.frame["path"], strict=True))
    file_keys = keys_of_files([paths[image_id] for image_id in ids], cache=bank.stat_cache)
    keys = [
        file_key or key_of_name(table.name, image_id)
        for file_key, image_id in zip(file_keys, ids, strict=True)
    ]
    rows = {key: row for row, key in enumerate(keys)}  # equal files share one row
    wanted = folder.missing(list(rows))
    if wanted:
        folder.append(wanted, matrix[[rows[key] for key in wanted]])
    return folder, len(image_ids) - len(ids)


def find_imported(bank: Bank, dataset: str, band: str) -> FeatureFolder:
    """Find the folder of an imported band.

    Raises
    ------
    MissingFeaturesError
        If nothing was imported under that name for that dataset; the message lists what there is.
    """
    found = _imports(bank, dataset, band)
    if found:
        return found[0]
    have = sorted(
        f"{folder.identity['band']} (dataset {folder.identity['dataset']})"
        for folder in bank.features()
        if folder.identity.get("kind") == "imported"
    )
    raise MissingFeaturesError(
        f"bank: no imported band {band!r} for dataset {dataset!r}; imported bands are: {', '.join(have) or 'none'}. "
        f"Bring it with `featbank bank import DATA --band {band} FILE`."
    )


def _imports(bank: Bank, dataset: str, band: str) -> list[FeatureFolder]:
    return [
        folder
        for folder in bank.features()
        if folder.identity.get("kind") == "imported"
        and (folder.identity["band"], folder.identity["dataset"]) == (band, dataset)
    ]


def _match(image_ids: list[str], names: Sequence[str] | None, n_rows: int, dataset: str) -> list[str]:
    """Return image ids in the order of the file's rows."""
    if names is None:
        if n_rows != len(image_ids):
            raise DatasetError(
                f"bank import: the file has {n_rows} rows but dataset {dataset!r} has {len(image_ids)} images; "
                "matching by row needs equal numbers in the dataset's order. Give names with --names."
            )
        return image_ids
    # A name may come with a folder or without its extension; it must still mean exactly one image.
    known: dict[str, list[str]] = {}
    for image_id in image_ids:
        path = PurePosixPath(image_id)
        for spelling in {image_id, path.name, str(path.with_suffix("")), path.stem}:
            known.setdefault(spelling, []).append(image_id)
    matched: list[str] = []
    for name in names:
        candidates = (
            set(known.get(name, ()))
            or set(known.get(Path(name).name, ()))
            or set(known.get(Path(name).stem, ()))
        )
        if len(candidates) != 1:
            found = f"{len(candidates)} images" if candidates else "no image"
            raise DatasetError(
                f"bank import: the name {name!r} means {found} of dataset {dataset!r}; its images are named like "
                f"{image_ids[0]!r}. Nothing was imported."
            )
        matched.append(candidates.pop())
    if len(set(matched)) != len(matched):
        twice = next(name for name in matched if matched.count(name) > 1)
        raise DatasetError(f"bank import: image {twice!r} has more than one row. Nothing was imported.")
    return matched
