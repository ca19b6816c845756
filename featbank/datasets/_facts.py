"""Opens the images of a dataset to learn what they are; keeps facts about them, never pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from featbank.digest import digest_file
from featbank.errors import ImageError, StoreError
from featbank.remote import MAX_PHOTO_BYTES, RemotePath, as_place, find_statuses, is_url, utf8_name
from featbank.workers import starting_workers

N_EXAMPLES = 20
"""How many files are named in a report; the counts beside them are complete."""


def inspect_files(
    rows: pd.DataFrame, *, decode: bool, workers: int, on_progress: Callable[[int, int], object] | None
) -> pd.DataFrame:
    """Return one row of facts per present file: those of the table, and what `_inspect` says."""
    paths = rows["path"].tolist()
    if not decode:
        in_store = find_statuses([path for path in paths if is_url(path)])
        found = [in_store[path] if path in in_store else Path(path).stat() for path in paths]
        n_of_size = Counter(status.st_size for status in found)
        # Files of different sizes cannot be equal: most need not be looked at at all.
        to_read = [
            path
            for path, status in zip(paths, found, strict=True)
            if n_of_size[status.st_size] > 1 or not 0 < status.st_size <= MAX_PHOTO_BYTES
        ]
    else:
        to_read = paths
    facts = dict(zip(to_read, _run(to_read, decode, workers, on_progress), strict=True))
    result = rows[["image_id", "split", "mos"]].copy()
    keys = ("digest", "reason", "message", "width", "height", "format", "mode", "actions")
    for key in keys:
        result[key] = pd.Series(
            [facts.get(path, {}).get(key) for path in paths], index=rows.index, dtype=object
        )
    return result


def _run(
    paths: Sequence[str], decode: bool, workers: int, on_progress: Callable[[int, int], object] | None
) -> list[dict[str, Any]]:
    # Starting processes takes a second, which a handful of files does not repay.
    n_jobs = 1 if len(paths) <= 4 * workers else workers
    tasks = (joblib.delayed(_inspect)(path, decode) for path in paths)
    facts: list[dict[str, Any]] = []
    # The processes are joblib's: the caller's own backend, such as a cluster, is taken if one is set.
    with starting_workers():
        found = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    for fact in found:
        facts.append(fact)
        if on_progress is not None:
            on_progress(len(facts), len(paths))
    return facts


def _inspect(path: str, decode: bool) -> dict[str, Any]:
    """Read one file and say what it is; a file that cannot be read gives its reason."""
    if not decode:
        return _digest(path)
    from featbank.images import read_photo  # imported where it is used: the other checks need no decoder

    try:
        photo = read_photo(path)
    except ImageError as error:
        # No digest: whether damaged files are equal matters little, and one refused for its size may be vast.
        return {"reason": error.reason, "message": str(error)}
    except StoreError:
        raise  # says nothing of this image
    except OSError as error:
        return {"reason": "unreadable", "message": f"{utf8_name(path)} cannot be read: {error.strerror}."}
    height, width = photo.pixels.shape[:2]
    return {
        "digest": photo.digest,
        "width": int(width),
        "height": int(height),
        "format": photo.format,
        "mode": photo.mode,
        # "orientation:6" and "orientation:8" are one kind of action.
        "actions": [action.partition(":")[0] for action in photo.actions],
    }


def _digest(path: str) -> dict[str, Any]:
    from featbank.images.source import check_place  # as above

    place = as_place(path)
    try:
        check_place(place)
        return {"digest": place.digest() if isinstance(place, RemotePath) else digest_file(path)}
    except ImageError as error:
        if error.reason == "empty":
            return {}  # empty files are equal to each other, which says nothing
        return {"reason": error.reason, "message": f"{utf8_name(path)} {error}."}
    except OSError as error:
        return {"reason": "unreadable", "message": f"{utf8_name(path)} cannot be read: {error.strerror}."}


def describe_files(facts: pd.DataFrame, *, decode: bool) -> dict[str, Any]:
    """Sum up the facts: what cannot be read and why, sizes, formats and modes of the rest."""
    failed = facts[facts["reason"].notna()]
    described: dict[str, Any] = {
        "decoded": decode,
        "n_unreadable": len(failed),
        "unreadable": _counted(failed["reason"]),
        "unreadable_examples": [
            {"image": image, "reason": reason, "message": message}
            for image, reason, message in zip(
                failed["image_id"].head(N_EXAMPLES), failed["reason"], failed["message"], strict=False
            )
        ],
        "pixels": None,
        "formats": None,
        "modes": None,
        "actions": None,
    }
    read = facts[facts["width"].notna()]
    if decode and len(read):
        described["pixels"] = {
            "width": [int(read["width"].min()), int(read["width"].max())],
            "height": [int(read["height"].min()), int(read["height"].max())],
            "n_portrait": int((read["height"] > read["width"]).sum()),
        }
        described["formats"] = _counted(read["format"])
        described["modes"] = _counted(read["mode"])
        described["actions"] = _counted(action for actions in read["actions"] for action in actions)
    return described


def _counted(values: Iterable[Hashable]) -> dict[str, int]:
    # Most frequent first, equal counts by name: the same in every run.
    counts = Counter(values)
    return {
        str(value): counts[value] for value in sorted(counts, key=lambda value: (-counts[value], str(value)))
    }


def find_duplicates(facts: pd.DataFrame) -> dict[str, Any]:
    """Count sets of files that are equal byte for byte, those across splits apart."""
    readable = facts[facts["digest"].notna()]
    sets = [rows for _, rows in readable.groupby("digest", sort=False) if len(rows) > 1]
    across = [rows for rows in sets if len(set(rows["split"])) > 1]
    different = [rows for rows in sets if len(set(rows["mos"].dropna())) > 1]
    # Those across splits first: they are the ones that spoil results.
    ordered = across + [rows for rows in sets if len(set(rows["split"])) == 1]
    return {
        "n_sets": len(sets),
        "n_extra": sum(len(rows) - 1 for rows in sets),
        "n_sets_across_splits": len(across),
        "n_sets_with_different_mos": len(different),
        "examples": [
            {"images": rows["image_id"].tolist(), "splits": rows["split"].tolist()}
            for rows in ordered[:N_EXAMPLES]
        ],
    }
