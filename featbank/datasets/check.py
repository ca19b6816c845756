"""Looks a dataset over before work is spent on it: counts, files, duplicates, overlap, what a constant scores.

Keeps facts about images and tiny copies, never pixels.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.datasets.image_table import SPLITS, ImageTable
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
    keys = ("digest", "reason", "message", "width", "height", "format", "mode", "actions", "thumbnail")
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
    # Imported where they are used: the other checks need no decoder.
    from featbank.datasets.scenes import make_thumbnail
    from featbank.images import read_photo

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
        "thumbnail": make_thumbnail(photo.pixels),
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


def find_scenes(table: ImageTable, facts: pd.DataFrame) -> dict[str, Any] | None:
    """Count the images of other splits that show the scene of a training image, from the same place."""
    seen = facts[facts["thumbnail"].notna()]
    training, others = seen[seen["split"] == "training"], seen[~seen["split"].isin(["training", ""])]
    if not len(training) or not len(others):
        return None
    from featbank.datasets.scenes import count_shared, find_same_scene

    partners = find_same_scene(np.stack(others["thumbnail"]), np.stack(training["thumbnail"]))
    partner = pd.Series(partners, index=others["image_id"])
    parts = {name: rows["image_id"] for name, rows in _parts(table).items() if name != "training"}
    compared = {
        name: partner[images[images.isin(partner.index[partner > -2])]] for name, images in parts.items()
    }
    return {
        "parts": {name: count_shared(rows.index, rows.to_numpy() >= 0) for name, rows in compared.items()},
        "examples": [
            {"image": str(image), "training_image": str(training["image_id"].iloc[place])}
            for image, place in partner[partner >= 0].head(N_EXAMPLES).items()
        ],
    }


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_N_BINS = 10


def check_dataset(
    table: ImageTable,
    *,
    decode: bool = True,
    workers: int = 2,
    on_progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Report what is in a dataset and what is wrong with it.

    Parameters
    ----------
    table : ImageTable
        From `featbank.datasets.read_dataset`.
    decode : bool
        Whether every present image is decoded in full, which finds truncated and damaged files. Otherwise
        files are only looked up, and read where another file has the same size, to find duplicates.
    workers : int
        Processes that read images; 1 reads in this process.
    on_progress : callable, optional
        Called with (files done, files in all) from time to time.

    Returns
    -------
    dict
        Holds only JSON's kinds of values. Parts are named as in ``metrics.json``: ``training``, ``validation``,
        ``validation/exclusive``, ``test``, ``test/exclusive``.
        - ``name, root, is_simulation, licence, reference, notes``; ``n_images``, ``n_scored`` (with a MOS);
        - ``counts``: images by part;
        - ``mos``: by part and for ``all``: ``n, mean, std, quantiles`` (by level), ``histogram`` (``edges``,
          ``counts``); ``mos_range``: nominal scale or None;
        - ``groups``: ``n, largest, largest_name, n_images_without``; None without groups;
        - ``group_overlap``: by part other than training, the share of its images whose group is in training; None
          without groups or training images;
        - ``constant``: by part, ``mae`` and ``rmse`` of predicting the mean training MOS; None without training;
        - ``n_missing, missing`` (first `N_EXAMPLES` paths), ``every_image_missing``;
        - ``decoded`` (bool), ``n_unreadable``, ``unreadable`` (count by reason), ``unreadable_examples``;
        - ``pixels``: ``width, height`` as [least, greatest], ``n_portrait``; ``formats``, ``modes``, ``actions``:
          counts; None unless decoded;
        - ``duplicates`` among readable files: ``n_sets`` (sets of identical files), ``n_extra`` (files beyond the
          first of each set), ``n_sets_across_splits``, ``n_sets_with_different_mos``, ``examples``;
        - ``scenes``: by part other than training, in ``parts``, images of those compared that show the scene of a
          training image, from the same place (``n, n_shared``, ``by_name`` by the beginning of the names), and
          ``examples``; None unless decoded, and without training images;
        - ``findings``: what deserves attention, in plain sentences.

    Raises
    ------
    ValueError
        If ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"check_dataset: workers must be at least 1, got {workers}.")
    frame = table.frame
    present = _are_present(frame["path"].tolist())
    facts = inspect_files(frame.loc[present], decode=decode, workers=workers, on_progress=on_progress)
    report: dict[str, Any] = {
        "name": table.name,
        "root": str(table.root),
        "is_simulation": table.is_simulation,
        "licence": table.licence,
        "reference": table.reference,
        "notes": list(table.notes),
        "n_images": table.n_images,
        "n_scored": int(frame["mos"].notna().sum()),
        "counts": table.counts(),
        "mos_range": None if any(math.isnan(end) for end in table.mos_range) else list(table.mos_range),
        "mos": _describe_mos(table),
        "groups": _describe_groups(table),
        "group_overlap": _group_overlap(table),
        "constant": _constant_baseline(table),
        "n_missing": int((~present).sum()),
        "missing": [utf8_name(path) for path in frame.loc[~present, "path"].head(N_EXAMPLES)],
        "every_image_missing": bool(len(present) and not present.any()),
        **describe_files(facts, decode=decode),
        "duplicates": find_duplicates(facts),
        "scenes": find_scenes(table, facts),
    }
    report["findings"] = _findings(report)
    return report


def _are_present(paths: list[str]) -> NDArray[np.bool_]:
    in_store = find_statuses([path for path in paths if is_url(path)])
    # A Path for each of a million rows would take longer than to look the file up.
    found = [path in in_store if is_url(path) else os.path.isfile(path) for path in paths]  # noqa: PTH113
    return np.array(found, dtype=bool)


def _parts(table: ImageTable) -> dict[str, pd.DataFrame]:
    """Return the rows of every part that has images, in report order."""
    parts: dict[str, pd.DataFrame] = {}
    for split in SPLITS:
        rows = table.select(split)
        exclusive = rows[rows["subset"] == "exclusive"]
        if len(rows):
            parts[split or "no split"] = rows
        if len(exclusive):
            parts[f"{split or 'no split'}/exclusive"] = exclusive
    return parts


def _describe_mos(table: ImageTable) -> dict[str, dict[str, Any]]:
    known = table.frame["mos"].dropna().to_numpy()
    if not len(known):
        return {}
    # One set of edges for all parts, so that their histograms can be laid over each other.
    edges = np.histogram_bin_edges(known, bins=_N_BINS)
    described: dict[str, dict[str, Any]] = {}
    for part, rows in {"all": table.frame, **_parts(table)}.items():
        values = rows["mos"].dropna().to_numpy()
        if not len(values):
            continue
        described[part] = {
            "n": len(values),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "quantiles": {f"{level:g}": float(np.quantile(values, level)) for level in QUANTILES},
            "histogram": {"edges": edges.tolist(), "counts": np.histogram(values, bins=edges)[0].tolist()},
        }
    return described


def _describe_groups(table: ImageTable) -> dict[str, Any] | None:
    if not table.has_groups:
        return None
    groups = table.frame["group"]
    sizes = Counter(group for group in groups if group)
    # Among groups of one size the name decides, so that two reports of one dataset are equal.
    name, largest = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {
        "n": len(sizes),
        "largest": largest,
        "largest_name": name,
        "n_images_without": int((groups == "").sum()),
    }


def _group_overlap(table: ImageTable) -> dict[str, float] | None:
    trained = set(table.select("training")["group"]) - {""}
    if not trained:
        return None
    return {
        part: float(rows["group"].isin(trained).mean())
        for part, rows in _parts(table).items()
        if part != "training"
    }


def _constant_baseline(table: ImageTable) -> dict[str, dict[str, float]] | None:
    training = table.select("training")["mos"].dropna()
    if training.empty:
        return None
    mean = float(training.mean())
    errors = {part: (rows["mos"].dropna() - mean).to_numpy() for part, rows in _parts(table).items()}
    return {
        part: {
            "n": len(error),
            "prediction": mean,
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
        }
        for part, error in errors.items()
        if len(error)
    }


def _findings(report: dict[str, Any]) -> list[str]:
    """Put into words what a user has to know before trusting results on this dataset."""
    found: list[str] = []
    if report["is_simulation"]:
        found.append("This is a simulation: results on it prove nothing about real photos.")
    if report["every_image_missing"]:
        found.append(
            f"Every image is missing: none of the {report['n_images']:,} files is there, the first was expected at "
            f"{report['missing'][0]}."
        )
    elif report["n_missing"]:
        found.append(f"{report['n_missing']:,} of {report['n_images']:,} images are missing.")
    if report["n_unreadable"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["unreadable"].items())
        found.append(f"{report['n_unreadable']:,} images cannot be read: {reasons}.")
    duplicates = report["duplicates"]
    if duplicates["n_sets"]:
        found.append(f"{duplicates['n_extra']:,} files are copies of another image, byte for byte.")
    if duplicates["n_sets_across_splits"]:
        found.append(
            f"{duplicates['n_sets_across_splits']:,} images occur in more than one split: results on them are not "
            "results on unseen images."
        )
    if duplicates["n_sets_with_different_mos"]:
        found.append(
            f"{duplicates['n_sets_with_different_mos']:,} images occur several times with different MOS."
        )
    shared = {
        name: counts
        for name, counts in (report["scenes"] or {"parts": {}})["parts"].items()
        if counts["n_shared"]
    }
    if shared:
        from featbank.datasets.scenes import word_shared

        words = "; ".join(word_shared(part, counts) for part, counts in shared.items())
        pairs = [
            f"{pair['image']} like {pair['training_image']}" for pair in report["scenes"]["examples"][:3]
        ]
        found.append(
            f"{words} show the scene of a training image, from the same place: {', '.join(pairs)}. A score on them is "
            "no score on new scenes."
        )
    n_unscored = report["n_images"] - report["n_scored"]
    if report["n_scored"] == 0:
        found.append("There is no MOS: these images can be scored, but nothing can be fitted on them.")
    elif n_unscored:
        found.append(f"{n_unscored:,} images have no MOS.")
    if report["n_scored"] and report["constant"] is None:
        found.append(
            "There is no training split: results depend on the split that is made, state it with them."
        )
    overlap = (report["group_overlap"] or {}).get("test", 0.0)
    if overlap > 0:
        found.append(
            f"{overlap:.1%} of the test images belong to groups that also have training images: what is learned about "
            "a group helps on them."
        )
    return found


_N_FILES_SHOWN = 10


def render_check(report: Mapping[str, Any]) -> str:
    """Render a report for reading.

    Parameters
    ----------
    report : mapping
        As returned by `featbank.datasets.check_dataset`, or read back from its JSON.

    Returns
    -------
    str
        Several lines without a trailing newline. What deserves attention comes after the figures.
    """
    lines = [f"{report['name']}  {report['root']}"]
    lines += ["", *_parts_check_text(report)]
    if report["mos_range"] is not None:
        low, high = report["mos_range"]
        lines += ["", f"MOS scale {low:g} to {high:g}, higher is better"]
    lines += ["", *_groups(report), *_files(report)]
    if report["notes"]:
        lines += ["", "Notes", *(f"  {note}" for note in report["notes"])]
    if report["findings"]:
        lines += ["", "Findings", *(f"  {finding}" for finding in report["findings"])]
    sources = [
        f"{label}: {report[label.lower()]}" for label in ("Licence", "Reference") if report[label.lower()]
    ]
    if sources:
        lines += ["", *sources]
    return "\n".join(lines)


def _parts_check_text(report: Mapping[str, Any]) -> list[str]:
    """Lay out one line per part: images, MOS, and what the constant prediction scores there."""
    head = (
        "part",
        "images",
        "MOS mean",
        "std",
        "min",
        "5 %",
        "median",
        "95 %",
        "max",
        "constant MAE",
        "RMSE",
    )
    rows = [head]
    counts = dict(report["counts"])
    if sum("/" not in part for part in counts) > 1:
        counts["all"] = report["n_images"]
    for part, n_images in counts.items():
        mos = report["mos"].get(part)
        constant = (report["constant"] or {}).get(part)
        described = ["", "", "", "", "", "", ""]
        if mos is not None:
            levels = mos["quantiles"]
            numbers = (
                mos["mean"],
                mos["std"],
                *(levels[level] for level in ("0", "0.05", "0.5", "0.95", "1")),
            )
            described = [f"{number:.4g}" for number in numbers]
        errors = ["", ""] if constant is None else [f"{constant['mae']:.4f}", f"{constant['rmse']:.4f}"]
        rows.append((part, f"{n_images:,}", *described, *errors))
    # A column in which no part has anything says nothing.
    used = [place for place in range(len(head)) if any(row[place] for row in rows[1:])]
    widths = {place: max(len(row[place]) for row in rows) for place in used}
    return [
        "  ".join(
            row[place].ljust(widths[place]) if place == 0 else row[place].rjust(widths[place])
            for place in used
        ).rstrip()
        for row in rows
    ]


def _groups(report: Mapping[str, Any]) -> list[str]:
    groups = report["groups"]
    if groups is None:
        return ["Groups: none; every image counts as a group of its own"]
    lines = [
        f"Groups: {groups['n']:,}, the largest {groups['largest_name']!r} with {groups['largest']:,} images"
    ]
    if groups["n_images_without"]:
        lines.append(f"  {groups['n_images_without']:,} images without a group")
    for part, share in (report["group_overlap"] or {}).items():
        lines.append(f"  share of {part} whose group is in training: {share:.3f}")
    return lines


def _files(report: Mapping[str, Any]) -> list[str]:
    n_present = report["n_images"] - report["n_missing"]
    if report["every_image_missing"]:
        return ["Files: every image is missing"]
    lines = [f"Files: {n_present:,} present, {report['n_missing']:,} missing"]
    lines += [f"  missing: {path}" for path in report["missing"][:_N_FILES_SHOWN]]
    if not report["decoded"]:
        lines.append("  not decoded: damaged images would not show")
    else:
        lines.append(f"  unreadable: {report['n_unreadable']:,}")
        lines += [f"  {item['message']}" for item in report["unreadable_examples"][:_N_FILES_SHOWN]]
    if report["pixels"] is not None:
        (least_w, most_w), (least_h, most_h) = report["pixels"]["width"], report["pixels"]["height"]
        lines.append(
            f"  pixels: width {least_w:,} to {most_w:,}, height {least_h:,} to {most_h:,}, "
            f"{report['pixels']['n_portrait']:,} in portrait"
        )
        for label in ("formats", "modes", "actions"):
            if report[label]:
                lines.append(
                    f"  {label}: " + ", ".join(f"{name} {count:,}" for name, count in report[label].items())
                )
    duplicates = report["duplicates"]
    lines.append(
        f"  identical files: {duplicates['n_extra']:,} copies, {duplicates['n_sets_across_splits']:,} images in more "
        "than one split"
    )
    lines += [f"  identical: {', '.join(item['images'])}" for item in duplicates["examples"][:_N_FILES_SHOWN]]
    return lines
