"""Reads splits that somebody published: tables, index arrays, lists of names, pickles without running them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.datasets.image_table import SPLIT_WORDS, SPLITS
from featbank.datasets.text import MAX_BINARY_BYTES, TABLE_SUFFIXES, read_any, read_apart, read_text
from featbank.errors import DatasetError, DatasetNotFoundError, first_few
from featbank.remote import Place, as_place, read_regular

ARRAY_SUFFIXES = frozenset({".npy", ".npz", ".mat", ".pkl", ".pickle", ".json"})

PARTS = tuple(split for split in SPLITS if split)
_NUMBERS = {"0": "training", "1": "validation", "2": "test"}
_PART = re.compile("train|val|test")
_NAMES = ("image", "path", "image_name", "dist_name", "img_name", "filename", "file", "name")


@dataclass(frozen=True, eq=False)
class GivenSplit:
    """Positions of the images of each part, in the order of the list; validation may lie inside training."""

    label: str
    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


Lists = dict[str, dict[str, list[Any]]]
"""Numbers of rows, or names of images, by split and part."""


def read_splits(files: Sequence[str | Place], image_ids: Sequence[str]) -> tuple[list[GivenSplit], list[str]]:
    """Read given splits of a dataset.

    Parameters
    ----------
    files : sequence of str, Path or RemotePath
        One table with a column of image names and one column for each split, which says training, validation or test
        (as pyiqa's lists and our own ``splits.csv`` do). Or arrays (NPY, NPZ, MAT before 7.3), or the lists of a JSON
        file or a pickle (``{1: {"train": [...], "val": [...], "test": [...]}}``): numbers of rows, or masks, whose
        names say which part they are; one line for each split. Or text files with a name in each line, called after
        their part: ``train_1.txt``, ``test_1.txt``.
    image_ids : sequence of str
        In the order that the numbers count.

    Returns
    -------
    list of GivenSplit, list of str
        A part that is not given is the rest, or empty; where nothing tests, validation does. Notes say what was taken.

    Raises
    ------
    DatasetNotFoundError, DatasetError
        If a file is missing, says no part, or asks for an object of a program; if an image is unknown, or taught and
        tested at once.
    """
    places = [as_place(file) for file in files]
    for path in places:
        if not path.is_file():
            raise DatasetNotFoundError(f"no file of splits at {path}.")
    notes: list[str] = []
    lists: Lists = {}
    for path in places:
        suffix = path.suffix.casefold()
        if suffix == ".txt":
            part, label = _part_of(path.stem, path), _PART.sub("", path.stem.casefold()).strip("_-. ") or "1"
            found: Lists = {
                label: {part: [line.strip() for line in read_text(path).splitlines() if line.strip()]}
            }
        elif suffix in ARRAY_SUFFIXES:
            found = _read_arrays(path, len(image_ids))
        elif suffix in TABLE_SUFFIXES:
            found = _read_columns(path)
        else:
            raise DatasetError(
                f"{path}: splits are read from {', '.join(sorted(ARRAY_SUFFIXES | TABLE_SUFFIXES))}, got {suffix!r}."
            )
        for label, parts in found.items():
            lists.setdefault(label, {}).update(parts)
    who = ", ".join(map(str, places))
    numbered = [
        number for parts in lists.values() for rows in parts.values() for number in rows if _is_number(number)
    ]
    base = 0
    if numbered:
        base = _base(numbered, len(image_ids), who, is_matlab=places[0].suffix.casefold() == ".mat")
        notes.append(f"Splits: rows of the dataset are counted from {base}, the first is {image_ids[0]!r}.")
    known = _spellings(image_ids)
    splits = [_split(label, parts, base, known, len(image_ids), who) for label, parts in lists.items()]
    if not splits:
        raise DatasetError(f"{who} holds no split.")
    if any("test" not in parts for parts in lists.values()):
        notes.append("Splits: where no test images are listed, the validation images, or the rest, test.")
    return splits, notes


def _part_of(name: str, path: Place) -> str:
    found = set(_PART.findall(name.casefold()))
    if len(found) != 1:
        raise DatasetError(
            f"{path}: {name!r} must say which part of a split it is, by one of train, val and test in its name. "
            "Rename it, or give a table with one column for each split."
        )
    return SPLIT_WORDS.get(word := found.pop(), word)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _read_columns(path: Place) -> Lists:
    """Read a table whose columns are splits."""
    table = read_any(path, fold_header=True)
    image = next((name for name in _NAMES if name in table.columns), next(iter(table.columns)))
    names = table.unique(image)
    lists: Lists = {}
    for column, cells in table.columns.items():
        spelled = {cell.casefold() for cell in cells}
        words = {word: SPLIT_WORDS.get(word, word) for word in spelled}
        if spelled <= _NUMBERS.keys() and "split" in column:
            words = _NUMBERS
        if column == image or not spelled - {""} or not {words[word] for word in spelled} <= set(SPLITS):
            continue
        lists[column] = {part: [] for part in PARTS}
        for name, cell in zip(names, cells, strict=True):
            if words.get(cell.casefold()):
                lists[column][words[cell.casefold()]].append(name)
        lists[column] = {part: rows for part, rows in lists[column].items() if rows}
    if not lists:
        raise DatasetError(
            f"{path} has no column whose cells are training, validation or test, its columns are "
            f"{first_few([repr(name) for name in table.columns], 20)}."
        )
    return lists


def _read_arrays(path: Place, n_images: int) -> Lists:
    """Read nested lists: by split and part, by part alone, or arrays whose lines are splits."""
    data = read_regular(path, MAX_BINARY_BYTES, DatasetError)
    answer = read_apart("featbank.apart:read_nested", path, data, path.suffix.casefold())
    if "refused" in answer:
        raise DatasetError(
            f"{path} cannot be read as splits: {answer['refused'].removeprefix('UnpicklingError: ')}."
        )
    found = answer["found"]
    if not isinstance(found, Mapping):
        raise DatasetError(
            f"{path} must hold train, val and test, or splits of these, got {type(found).__name__}."
        )
    if set(found) == {""}:
        found = {path.stem: found[""]}
    nested = {str(label): parts for label, parts in found.items() if isinstance(parts, Mapping)}
    lists: Lists = {}
    for label, parts in nested.items():
        own = {_part_of(str(name), path): _line(rows, path) for name, rows in parts.items()}
        lists[label] = {part: rows for part, rows in own.items() if rows}
    arrays = {name: _rows(values, path) for name, values in found.items() if name not in nested}
    for name, lines in _lines(arrays, path, n_images).items():
        for number, rows in enumerate(lines, start=1):
            lists.setdefault(str(number), {})[_part_of(name, path)] = rows
    return {label: parts for label, parts in lists.items() if parts}


def _line(rows: object, path: Place) -> list[Any]:
    if not isinstance(rows, list) or any(isinstance(row, list | dict) for row in rows):
        raise DatasetError(f"{path} must hold lists of numbers or names, got {str(rows)[:60]!r}.")
    return rows


def _rows(values: object, path: Place) -> list[list[Any]]:
    """Return the lines of an array of one or two dimensions."""
    rows = values if isinstance(values, list) else [values]
    return [_line(row, path) for row in (rows if any(isinstance(row, list) for row in rows) else [rows])]


def _lines(arrays: dict[str, list[list[Any]]], path: Place, n_images: int) -> dict[str, list[list[Any]]]:
    """Cut arrays into as many splits each, by lines or else by columns; masks become numbers of rows from 0."""

    def fits(lines: list[list[Any]]) -> bool:
        return _is_mask(lines, n_images) or all(len(set(line)) == len(line) for line in lines)

    turned = {
        name: [list(line) for line in zip(*lines, strict=True)] if len({*map(len, lines)}) == 1 else []
        for name, lines in arrays.items()
    }
    for found in (arrays, turned):
        if len({len(lines) for lines in found.values()}) <= 1 and all(map(fits, found.values())):
            return {
                name: [[place for place, flag in enumerate(line) if flag] for line in lines]
                if _is_mask(lines, n_images)
                else lines
                for name, lines in found.items()
            }
    raise DatasetError(
        f"{path}: its arrays {first_few(sorted(arrays))} must hold as many splits each, one in each line or "
        "column, that name no image twice."
    )


def _is_mask(lines: list[list[Any]], n_images: int) -> bool:
    return (
        n_images > 2 and bool(lines) and all(len(line) == n_images and set(line) <= {0, 1} for line in lines)
    )


def _base(numbers: Sequence[float], n_images: int, who: str, *, is_matlab: bool) -> int:
    """Tell whether rows are counted from 0 or from 1."""
    low, high = min(numbers), max(numbers)
    if (
        not all(math.isfinite(number) and number == int(number) for number in (low, high))
        or low < 0
        or high > n_images
        or (low == 0 and high == n_images)
    ):
        raise DatasetError(
            f"{who}: numbers of rows must lie between 0 and {n_images - 1}, or 1 and {n_images}, the images of the "
            f"dataset, got {low:g} to {high:g}. Read the dataset from the list that the splits were made for."
        )
    return int(low > 0 and (high == n_images or is_matlab))


def _spellings(image_ids: Sequence[str]) -> dict[str, int]:
    """Return the position of every image by its name, and by the name without folder or ending where it is unique."""
    known: dict[str, int] = {}
    for position, image in enumerate(image_ids):
        path = PurePosixPath(image.replace("\\", "/"))
        for spelled in {str(path), path.name, str(path.with_suffix("")), path.stem} - {image}:
            known[spelled] = -1 if spelled in known else position
    return known | {image: position for position, image in enumerate(image_ids)}


def _split(
    label: str, parts: dict[str, list[Any]], base: int, known: Mapping[str, int], n_images: int, who: str
) -> GivenSplit:
    """Turn lists into positions, fill in what is not given, and look whether they are apart."""
    found: dict[str, NDArray[np.intp]] = {}
    for part, rows in parts.items():
        places = [int(row) - base if _is_number(row) else _place(str(row), known) for row in rows]
        unknown = [str(row) for row, place in zip(rows, places, strict=True) if not 0 <= place < n_images]
        if unknown:
            raise DatasetError(
                f"{who}: split {label} names {len(unknown):,} images that the dataset does not have, or has twice: "
                f"{first_few(unknown)}."
            )
        if len(set(places)) < len(places):
            raise DatasetError(f"{who}: split {label} lists an image twice under {part}.")
        found[part] = np.array(places, dtype=np.intp)
    empty = np.zeros(0, dtype=np.intp)
    validation = found.get("validation", empty)
    every = np.arange(n_images)
    if "test" not in found and "training" in found:
        found["test"] = validation if len(validation) else np.setdiff1d(every, found["training"])
        validation = empty
    if "training" not in found and "test" in found:
        found["training"] = np.setdiff1d(every, np.concatenate([found["test"], validation]))
    training, test = found.get("training", empty), found.get("test", empty)
    both = np.intersect1d(np.concatenate([training, validation]), test)
    if len(both):
        raise DatasetError(
            f"{who}: split {label} has {len(both):,} images that both teach and test (rows {first_few(both.tolist())}, "
            "counted from 0)."
        )
    return GivenSplit(label, training, validation, test)


def _place(name: str, known: Mapping[str, int]) -> int:
    tidy = name.replace("\\", "/")
    for spelled in (tidy, PurePosixPath(tidy).name, PurePosixPath(tidy).stem):
        if spelled in known:
            return known[spelled]
    return -1
