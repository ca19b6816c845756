"""Brings features computed elsewhere into the bank, matched to a dataset by image name or by row.

An imported band lives beside computed ones and is used in a recipe as ``encoder = "imported:NAME"``. Its
identity holds the digest of the file it came from, so a receipt says which numbers were used.

An import belongs to the images it was made for: of a published dataset those of that name, of any other table the
set of places its rows name (`ImageTable.full_names`), neither MOS nor the name of the CSV. It serves another table
for the images that both name, by their bytes or by their places; the log then says so.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.bank import Bank, FeatureFolder
from featbank.bank.shard import KEY_BYTES, Keys, parse_keys
from featbank.datasets import ImageTable
from featbank.digest import digest_json
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
    n_crops: int = 1,
) -> tuple[FeatureFolder, int]:
    """Write a matrix of features as a band of one dataset.

    An earlier import goes, where it is to be replaced, after all rows of the new one are on the disk.

    Parameters
    ----------
    table : ImageTable
        The dataset; its files need not be at hand.
    bank : Bank
    band : str
        Name of the band, used in recipes as ``imported:NAME``.
    names : sequence of str, length n_rows, or None
        Image names in the order of the rows; None when the rows follow the dataset's own order. Rows of other images
        are left out where every image of the dataset has one.
    matrix : float array of shape (n_rows, n_features), finite
        Stored in float16 if that is its type, else in float32.
    source_digest : str
        SHA-256 of the file that the matrix was read from.
    gmacs : float or None
        GMACs for one image, as stated by the user; None when unknown.
    replace : bool
        Remove an earlier import of the same band for the same images.
    n_crops : int
        Of each image, which lie side by side in the columns.

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
        If a number does not fit the stored type, the band exists already with other numbers and ``replace`` is False,
        or the disk is full; everything that was stored before is then there.
    """
    image_ids = list(table.frame["image_id"])
    matched = _match(image_ids, names, matrix.shape, table.name)
    ids = [name for name in matched if name is not None]
    if len(ids) < len(matched):
        matrix = matrix[[name is not None for name in matched]]
    owner = _owner(table)
    identity = {"kind": "imported", "band": band, **owner, "source": source_digest, "gmacs": gmacs}
    if n_crops > 1:
        identity["n_crops"] = n_crops
    earlier = [folder for folder in _imports(bank, band) if _is_for(folder, owner)]
    same = [folder for folder in earlier if folder.identity == identity]
    others = [folder for folder in earlier if folder not in same]
    filled = next((folder for folder in others if folder.n_shards()), None)
    if filled is not None and not replace:
        raise BankError(
            f"bank import: band {band!r} of dataset {table.name!r} exists already with other numbers "
            f"({filled.n_features} columns, from a file with digest {str(filled.identity['source'])[:12]}). "
            "Choose another name, or give --replace to drop the earlier one."
        )
    dtype = "float16" if matrix.dtype == np.float16 else "float32"
    stored = _cast(matrix, dtype, ids)
    label = f"{IMPORTED_PREFIX}{band}" + (f" ({table.name} in {table.root})" if table.names_in else "")
    rows = {key: row for row, key in enumerate(ImageKeys(table, bank).of(ids))}  # equal files share one row
    try:
        folder = bank.open(identity, matrix.shape[1], label, dtype)
        wanted = folder.missing(list(rows))
        if wanted:
            folder.append(wanted, stored[[rows[key] for key in wanted]])
    except BaseException:
        with contextlib.suppress(BankError):
            for begun in _imports(bank, band):
                if begun.identity == identity and not same:
                    begun.remove()
        raise
    for old in others:
        bank.remove(old.digest)
    return folder, len(image_ids) - len(ids)


def _cast(matrix: NDArray[np.floating], dtype: str, ids: Sequence[str]) -> NDArray[np.floating]:
    """Convert numbers to the stored type; refuse what it cannot hold."""
    with np.errstate(over="ignore"):
        stored: NDArray[np.floating] = matrix.astype(dtype)
    bad = np.argwhere(~np.isfinite(stored))
    if len(bad):
        row, column = bad[0].tolist()
        raise BankError(
            f"bank import: features must be finite numbers up to {np.finfo(dtype).max:.3g} ({dtype}), got {len(bad)} "
            f"that are not (first: {matrix[row, column]:g} for image {ids[row]!r}, column {column} counted from 0). "
            "Nothing was imported, and what was imported before is untouched. Mend the file."
        )
    return stored


def find_imported(bank: Bank, table: ImageTable, band: str) -> FeatureFolder:
    """Find the folder of an imported band that serves a table.

    That is the import made for exactly these images; else the one that holds most of them, if all that hold some
    agree on their numbers.
    """
    owner = _owner(table)
    imports = [folder for folder in _imports(bank, band) if folder.n_shards()]
    exact = [folder for folder in imports if _is_for(folder, owner)]
    if len(exact) == 1:
        return exact[0]
    keys = ImageKeys(table, bank)
    held = {}
    for folder in exact or imports:
        rows, is_held = keys.of_rows(folder)
        if is_held.any():
            held[folder] = rows, is_held
    if not held:
        raise _nothing_imported(bank, table, band)
    best = max(held, key=lambda folder: int(held[folder][1].sum()))
    for folder, (rows, is_held) in held.items():
        both = is_held & held[best][1]
        if not np.array_equal(folder.read_raw(rows[both]), best.read_raw(held[best][0][both])):
            raise BankError(
                f"bank: band {band!r} was imported with different numbers for the same images: {_said(best)} and "
                f"{_said(folder)}. Say which are meant for {table.name!r} with `featbank bank import DATA FILE --band "
                f"{band} --replace`."
            )
    if not exact:
        n_held = int(held[best][1].sum())
        logging.getLogger(__name__).warning(
            "band %s: %d of the %d images are among those that features were imported for: %s",
            band,
            n_held,
            table.n_images,
            _said(best),
        )
    return best


def _nothing_imported(bank: Bank, table: ImageTable, band: str) -> MissingFeaturesError:
    have = [
        folder
        for folder in bank.features()
        if folder.identity.get("kind") == "imported" and folder.n_shards()
    ]
    listed = ", ".join(map(_said, have)) or "none"
    return MissingFeaturesError(
        f"bank: no imported band {band!r} for the images of {table.name!r} in {table.root}; imported bands are: "
        f"{listed}. Bring it with `featbank bank import DATA FILE --band {band}`."
    )


def _said(folder: FeatureFolder) -> str:
    """Name an import for people: its band, and whose it is."""
    dataset = folder.identity.get("dataset")
    text = folder.label.removeprefix(IMPORTED_PREFIX)
    return f"{folder.identity['band']} (dataset {dataset})" if dataset else text


def _owner(table: ImageTable) -> dict[str, object]:
    """Return the part of an import's identity that says which images it was made for."""
    if not table.names_in:
        return {"dataset": table.name}
    return {"images": digest_json(sorted(table.full_names(table.frame["image_id"].tolist())))}


def _is_for(folder: FeatureFolder, owner: dict[str, object]) -> bool:
    return {name: folder.identity.get(name) for name in ("dataset", "images")} == {
        name: owner.get(name) for name in ("dataset", "images")
    }


def _imports(bank: Bank, band: str) -> list[FeatureFolder]:
    return [
        folder
        for folder in bank.features()
        if (folder.identity.get("kind"), folder.identity.get("band")) == ("imported", band)
    ]


class ImageKeys:
    """Both keys of every image of a dataset, as they are stored; a million of them are one array.

    Parameters
    ----------
    table : ImageTable
    bank : Bank
        Remembers the digests of files.

    Attributes
    ----------
    image_ids : Index of str, length n_images
    of_files : list of (str or None), length n_images
        The SHA-256 of each file; None where there is none that can be read.
    """

    def __init__(self, table: ImageTable, bank: Bank) -> None:
        self._table = table
        self.image_ids = pd.Index(table.frame["image_id"], name="image_id")
        self.of_files = keys_of_files(list(table.frame["path"]), cache=bank.stat_cache)
        self._has_file = np.array([key is not None for key in self.of_files], dtype=bool)
        self._files = np.zeros(len(self.of_files), dtype=f"S{KEY_BYTES}")
        self._files[self._has_file] = parse_keys([key for key in self.of_files if key is not None])
        self._named = np.zeros(len(self.of_files), dtype=bool)
        self._names = np.zeros(len(self.of_files), dtype=f"S{KEY_BYTES}")

    def of(self, image_ids: Sequence[str]) -> list[str]:
        """Return the key of each image: of its bytes where it has a file, else of its name."""
        of_files = dict(zip(self.image_ids, self.of_files, strict=True))
        by_name = zip(image_ids, self._keys_of_names(image_ids), strict=True)
        return [of_files[image_id] or name_key for image_id, name_key in by_name]

    def of_rows(self, folder: FeatureFolder) -> tuple[Keys, NDArray[np.bool_]]:
        """Find the key under which a folder holds each image: by its bytes, else by its name; and whether it does."""
        keys, found = self._files.copy(), np.zeros(len(self._files), dtype=bool)
        found[self._has_file] = folder.holds(self._files[self._has_file])
        rest = np.flatnonzero(~found)
        if len(rest):
            keys[rest] = self._by_name(rest)
            found[rest] = folder.holds(keys[rest])
        return keys, found

    def _by_name(self, places: NDArray[np.intp]) -> Keys:
        # Most images have a file and never need the other key.
        new = places[~self._named[places]]
        if len(new):
            self._names[new] = parse_keys(self._keys_of_names(self.image_ids[new].tolist()))
            self._named[new] = True
        return self._names[places]

    def _keys_of_names(self, image_ids: Sequence[str]) -> list[str]:
        dataset = "" if self._table.names_in else self._table.name
        return [key_of_name(dataset, name) for name in self._table.full_names(image_ids)]


def _match(
    image_ids: list[str], names: Sequence[str] | None, shape: tuple[int, ...], dataset: str
) -> Sequence[str | None]:
    """Return image ids in the order of the file's rows; None for rows of other images, where each of ours has one."""
    if names is None:
        if shape[0] != len(image_ids):
            hint = (
                "It has that many columns: if images are its columns, give --transpose."
                if shape[1] == len(image_ids)
                else "Matching by row needs equal numbers in the dataset's order. Give names with --names."
            )
            raise DatasetError(
                f"bank import: the file has {shape[0]} rows but dataset {dataset!r} has {len(image_ids)} images. {hint}"
            )
        return image_ids
    if len(names) != shape[0]:
        raise DatasetError(
            f"bank import: each of the {shape[0]} rows needs one name, got {len(names)} names. Nothing was imported."
        )
    # A name may come with a folder or without its extension; it must still mean exactly one image.
    known: dict[str, list[str]] = {}
    for image_id in image_ids:
        path = PurePosixPath(image_id.replace("\\", "/"))
        for spelling in {image_id, str(path), path.name, str(path.with_suffix("")), path.stem}:
            known.setdefault(spelling, []).append(image_id)
    matched: list[str | None] = []
    strange: list[str] = []
    for name in names:
        path = PurePosixPath(name.lstrip("\ufeff").replace("\\", "/"))
        candidates = next(
            filter(None, (known.get(text) for text in (name, str(path), path.name, path.stem))), []
        )
        if len(set(candidates)) > 1:
            raise DatasetError(
                f"bank import: the name {name!r} means {len(set(candidates))} images of dataset {dataset!r}, such as "
                f"{candidates[0]!r}. Nothing was imported."
            )
        matched.append(candidates[0] if candidates else None)
        strange += [] if candidates else [name]
    own = Counter(name for name in matched if name is not None)
    if strange and len(own) < len(image_ids):
        lacking = next(image for image in image_ids if image not in own)
        raise DatasetError(
            f"bank import: the name {strange[0]!r} means no image of dataset {dataset!r}; its images are named like "
            f"{image_ids[0]!r}, and {lacking!r} has no row. Rows of other images ({len(strange):,} here) are left out "
            "only where all images of the dataset have one. Nothing was imported."
        )
    twice, n_times = own.most_common(1)[0]
    if n_times > 1:
        raise DatasetError(f"bank import: image {twice!r} has more than one row. Nothing was imported.")
    return matched
