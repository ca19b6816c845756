"""Checks every byte of a feature folder; reports what is wrong instead of stopping at the first finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featbank.bank.files import SHARD_NAME, explain, is_vanished
from featbank.bank.keys import Keys, format_keys
from featbank.bank.place import list_names, list_shards
from featbank.bank.shard import BLOCK_ROWS, open_shard
from featbank.bank.spec import SPEC_NAME, FeatureSpec, read_spec
from featbank.errors import BankError
from featbank.remote import Place, digest_at

AGREEMENT = {"float32": 1e-4, "float16": 4e-3}
"""Rows of one image computed twice may differ by this share of their largest number: engines, batch sizes and
numbers of threads move a forward pass by up to 3e-6, storing as float16 by 5e-4; a real difference
(filter, weights, layer) moves it by 1e-2 and more."""

_SHOWN = 3


@dataclass(frozen=True)
class Problem:
    """One finding of ``verify``.

    Attributes
    ----------
    where : str
        Label and folder of the feature, or ``"images"``.
    path : Path or RemotePath
        The file, or the folder when it is about several.
    kind : str
        One of ``specification``, ``checksum``, ``unreadable``, ``not-finite``, ``order``, ``disagreement``,
        ``stray``.
    message : str
        The full sentence for people, with the cure.
    """

    where: str
    path: Place
    kind: str
    message: str


def name_of(spec: FeatureSpec) -> str:
    """Name a feature for people: its label and the beginning of its folder's name."""
    return f"{spec.label} ({spec.digest[:12]})"


def check_files(folder: Place, where: str) -> tuple[list[str], list[Problem]]:
    """Compare every shard's bytes with its name, and report files that look like shards but are not.

    Parameters
    ----------
    folder : Path or RemotePath
        Feature folder or image log.
    where : str
        How findings name it.

    Returns
    -------
    names : list of str
        Shards whose bytes are the ones that were written, ascending.
    problems : list of Problem
    """
    sound, problems = [], []
    for name in list_shards(folder):
        path = folder / name
        try:
            digest = digest_at(path)
        except OSError as error:
            if not is_vanished(error):
                problems.append(Problem(where, path, "unreadable", str(explain("read", path, error))))
            continue  # compacted away by a neighbour: its rows are in another shard
        if f"{digest}.arrow" == name:
            sound.append(name)
        else:
            problems.append(
                Problem(
                    where,
                    path,
                    "checksum",
                    f"bank: {path} has other bytes than were written (SHA-256 {digest[:12]}...). Delete this file; "
                    "only its rows are computed anew.",
                )
            )
    problems += [
        Problem(
            where,
            folder / name,
            "stray",
            f"bank: {folder / name} is ignored, a shard must be named by the SHA-256 of its bytes. If it is a renamed "
            "shard, give it that name; otherwise delete it.",
        )
        for name in _stray(folder)
    ]
    return sound, problems


def _stray(folder: Place) -> list[str]:
    try:
        names = list_names(folder)
    except BankError:
        return []
    return sorted(
        name
        for name in names
        if name.endswith(".arrow") and not name.startswith(".") and not SHARD_NAME.fullmatch(name)
    )


def verify_feature(folder: Place, spec: FeatureSpec) -> list[Problem]:
    """Check specification, checksums, columns, width, finiteness and duplicates of one feature.

    Parameters
    ----------
    folder : Path or RemotePath
        The feature's folder.
    spec : FeatureSpec
        What it is meant to hold.

    Returns
    -------
    list of Problem
        Empty when all is well. Temporary files of a running or killed process are not problems.
    """
    where = name_of(spec)
    sound, problems = check_files(folder, where)
    try:
        spec.check_agrees(read_spec(folder), folder)
    except FileNotFoundError:
        if sound:
            problems.append(
                Problem(where, folder / SPEC_NAME, "specification", f"bank: {folder} has no spec.json")
            )
    except BankError as error:
        problems.append(Problem(where, folder / SPEC_NAME, "specification", str(error)))
    columns: dict[str, Keys] = {}
    for name in sound:
        try:
            shard = open_shard(folder / name, spec)
            if np.any(shard.keys[1:] <= shard.keys[:-1]):
                problems.append(
                    _problem(where, folder, name, "order", "its keys are not distinct and ascending")
                )
            for start in range(0, len(shard.keys), BLOCK_ROWS):
                rows = np.arange(start, min(start + BLOCK_ROWS, len(shard.keys)))
                bad = rows[~np.isfinite(shard.take(rows)).all(axis=1)]
                if len(bad):
                    some = ", ".join(format_keys(shard.keys[bad[:_SHOWN]]))
                    fact = f"{len(bad)} rows hold NaN or infinities ({some})"
                    problems.append(_problem(where, folder, name, "not-finite", fact))
            columns[name] = shard.keys
        except FileNotFoundError:
            continue
        except BankError as error:
            problems.append(Problem(where, folder / name, "unreadable", str(error)))
    return problems + _disagreements(folder, spec, columns)


def _problem(where: str, folder: Place, name: str, kind: str, fact: str) -> Problem:
    return Problem(
        where,
        folder / name,
        kind,
        f"bank: {folder / name} was not written by featbank: {fact}. Delete this file.",
    )


def _disagreements(folder: Place, spec: FeatureSpec, columns: dict[str, Keys]) -> list[Problem]:
    """Compare rows that are stored more than once with the one that is served."""
    names = sorted(columns)
    if not names:
        return []
    keys = np.concatenate([columns[name] for name in names])
    shard = np.repeat(np.arange(len(names)), [len(columns[name]) for name in names])
    row = np.concatenate([np.arange(len(columns[name])) for name in names])
    order = np.argsort(keys, kind="stable")
    keys, shard, row = keys[order], shard[order], row[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = keys[1:] != keys[:-1]
    served = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    again = np.flatnonzero(~is_first)
    problems = []
    pairs = np.unique(np.stack([shard[served[again]], shard[again]], axis=1), axis=0)  # (n_pairs, 2)
    for a, b in pairs:
        mine = again[(shard[again] == b) & (shard[served[again]] == a)]
        difference = _compare(folder, spec, names[a], row[served[mine]], names[b], row[mine])
        bad = mine[difference > AGREEMENT[spec.dtype]]
        if len(bad):
            some = ", ".join(format_keys(keys[bad[:_SHOWN]]))
            message = (
                f"bank: {folder}: {len(bad)} images have two different rows, in {names[a]} (served) and {names[b]}, "
                f"up to {difference.max():.2g} of their size apart ({some}). The identity does not cover what changed: "
                "raise the epoch of the code that computes this feature, or delete both files to compute the rows anew."
            )
            problems.append(Problem(name_of(spec), folder, "disagreement", message))
    return problems


def _compare(
    folder: Place, spec: FeatureSpec, a: str, rows_a: NDArray[np.intp], b: str, rows_b: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the largest difference within each pair of rows as a share of their largest number."""
    try:
        left = open_shard(folder / a, spec).vectors
        right = open_shard(folder / b, spec).vectors
    except FileNotFoundError:  # compacted meanwhile: there are no two rows any more
        return np.zeros(len(rows_a))
    result = np.zeros(len(rows_a))
    for start in range(0, len(rows_a), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        x = left[rows_a[part]].astype(np.float64)
        y = right[rows_b[part]].astype(np.float64)
        size = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
        result[part] = np.abs(x - y).max(axis=1) / np.where(size > 0, size, 1.0)
    return result
